#include "support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "support/temp_dir.h"
#include "zebra/convert.h"
#include "zebra/error.h"

namespace fs = std::filesystem;
using namespace zebra;
using zebra::testing::ContainsSubstring;
using zebra::testing::shared_path;
using zebra::testing::TempDir;

namespace {

// The smallest config.json that is valid.
json llama() {
  return {{"model_type", "llama"},   {"vocab_size", 50},       {"hidden_size", 32},
          {"intermediate_size", 48}, {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"num_key_value_heads", 2}};
}

json hybrid() {
  return {{"n_layer", 3},
          {"mla_layers", {0, 2}},
          {"num_key_value_heads", 2},
          {"q_lora_rank", 16},
          {"kv_lora_rank", 8},
          {"qk_nope_head_dim", 4},
          {"qk_rope_head_dim", 4},
          {"v_head_dim", 8},
          {"ssm_cfg", {{"ngroups", 4}, {"d_state", 8}}}};
}

class Folder {
 public:
  explicit Folder(const json& config) { write("config.json", config); }
  Folder(const json& config, const json& hybrid_config) : Folder(config) {
    write("hybrid_config.json", hybrid_config);
  }
  void write(const std::string& name, const json& value) {
    write_file_atomic(dir_ / name, value.dump(2));
  }
  ModelOptions read() const { return read_model_options(dir_.path()); }
  const fs::path& path() const { return dir_.path(); }

 private:
  TempDir dir_;
};

json with(json object, const std::string& key, const json& value) {
  object[key] = value;
  return object;
}

json without(json object, const std::string& key) {
  object.erase(key);
  return object;
}

void check_refused(const Folder& folder, const std::string& file, const std::string& text) {
  CHECK_THROWS_WITH(folder.read(),
                    ContainsSubstring((folder.path() / file).string()) && ContainsSubstring(text));
  CHECK_THROWS_AS(folder.read(), ConfigError);
}

void check_refused(const json& config, const std::string& text) {
  INFO(config.dump());
  check_refused(Folder(config), "config.json", text);
}

void check_hybrid_refused(const json& config, const std::string& text) {
  INFO(config.dump());
  check_refused(Folder(llama(), config), "hybrid_config.json", text);
}

const json kLlama3 = {{"rope_type", "llama3"},
                      {"factor", 32.0},
                      {"low_freq_factor", 1.0},
                      {"high_freq_factor", 4.0},
                      {"original_max_position_embeddings", 8192}};

}  // namespace

TEST_CASE("llama config: what is left out has Hugging Face's defaults") {
  const auto options = Folder(without(llama(), "num_key_value_heads")).read();
  CHECK(options.num_kv_heads == 4);
  CHECK(options.head_dim == 8);
  CHECK(options.rms_norm_eps == 1e-6);
  CHECK(options.max_position_embeddings == 2048);
  CHECK(options.rope.theta == 10000.0);
  CHECK((options.rope.scaling == RopeScaling::kDefault));
  CHECK(!options.tie_word_embeddings);
  CHECK(options.bos_token_id == 1);
  CHECK(options.eos_token_ids == std::vector<int64_t>{2});
  CHECK(options.is_llama());
}

TEST_CASE("llama config: both forms of rope settings say the same") {
  json old_form = with(with(llama(), "rope_theta", 500000.0), "rope_scaling", kLlama3);
  json old_type = old_form;
  old_type["rope_scaling"].erase("rope_type");
  old_type["rope_scaling"]["type"] = "llama3";
  const json new_form = with(llama(), "rope_parameters", with(kLlama3, "rope_theta", 500000.0));
  for (const auto& config : {old_form, old_type, new_form}) {
    const auto rope = Folder(config).read().rope;
    CHECK((rope.scaling == RopeScaling::kLlama3));
    CHECK(rope.theta == 500000.0);
    CHECK(rope.factor == 32.0);
    CHECK(rope.original_max_position_embeddings == 8192);
    CHECK(rope.low_freq_factor == 1.0);
    CHECK(rope.high_freq_factor == 4.0);
  }
  const json plain =
      with(with(llama(), "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 7.0}}),
           "rope_theta", 9.0);
  CHECK(Folder(plain).read().rope.theta == 7.0);
  CHECK(Folder(with(llama(), "rope_scaling", nullptr)).read().rope.scaling ==
        RopeScaling::kDefault);
}

TEST_CASE("llama config: token ids may be one, several or none") {
  CHECK(Folder(with(llama(), "eos_token_id", {7, 8})).read().eos_token_ids ==
        std::vector<int64_t>{7, 8});
  CHECK(Folder(with(llama(), "eos_token_id", nullptr)).read().eos_token_ids.empty());
  CHECK(Folder(with(llama(), "eos_token_id", 9)).read().eos_token_ids == std::vector<int64_t>{9});
  CHECK(Folder(with(llama(), "bos_token_id", nullptr)).read().bos_token_id == -1);
}

TEST_CASE("llama config: what is wrong or not supported is refused with file and key") {
  check_refused(without(llama(), "vocab_size"), "vocab_size: expected a value, got none");
  check_refused(with(llama(), "hidden_size", "64"), "hidden_size: expected an integer");
  check_refused(with(llama(), "num_hidden_layers", 0), "num_hidden_layers: expected a positive");
  check_refused(with(llama(), "model_type", "mistral"), "model_type: expected \"llama\"");
  check_refused(without(llama(), "model_type"), "model_type");
  check_refused(with(llama(), "hidden_act", "gelu"), "hidden_act: expected \"silu\"");
  check_refused(with(llama(), "num_key_value_heads", 3), "num_key_value_heads: expected a divisor");
  check_refused(with(llama(), "num_attention_heads", 6), "num_attention_heads: expected a divisor");
  check_refused(with(llama(), "head_dim", 7), "head_dim: expected an even number, got 7");
  check_refused(with(llama(), "quantization_config", {{"bits", 4}}), "quantization_config");
  check_refused(with(llama(), "rope_scaling", {{"type", "linear"}, {"factor", 2.0}}),
                "rope_scaling: type: expected default, llama3 or yarn, got \"linear\"");
  check_refused(with(llama(), "rope_scaling", without(kLlama3, "factor")), "factor");
  check_refused(with(llama(), "rope_scaling", without(kLlama3, "low_freq_factor")),
                "low_freq_factor");
  check_refused(with(llama(), "rope_scaling", with(kLlama3, "high_freq_factor", 1.0)),
                "high_freq_factor");
  check_refused(
      with(llama(), "rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}, {"mscale", 0.7}}),
      "mscale");
  check_refused(with(llama(), "rms_norm_eps", -1), "rms_norm_eps: expected a positive number");
  check_refused(json::array(), "expected an object, got array");
}

TEST_CASE("model options: a folder without config.json is an error that names the file") {
  const TempDir folder;
  CHECK_THROWS_WITH(read_model_options(folder.path()),
                    ContainsSubstring((folder / "config.json").string()));
}

TEST_CASE("hybrid config: kinds, ranks and heads are read") {
  const auto options = Folder(llama(), hybrid()).read();
  CHECK((options.layers == std::vector{MixerKind::kMla, MixerKind::kMamba2, MixerKind::kMla}));
  CHECK(options.mla.q_lora_rank == 16);
  CHECK(options.mla.kv_lora_rank == 8);
  CHECK(options.mla.num_kv_heads == 2);
  CHECK(options.mla.num_heads == 4);
  CHECK(options.mla.hidden_size == 32);
  CHECK((options.mla.rope.scaling == RopeScaling::kDefault));
  CHECK(options.mla_ranks.empty());
  CHECK(options.mamba2.num_heads == 4);
  CHECK(options.mamba2.num_kv_heads == 2);
  CHECK(options.mamba2.head_dim == 8);
  CHECK(options.mamba2.d_conv == 4);
  CHECK(!options.mamba2.repeat_kv_before_conv);
  CHECK(Folder(llama(), with(hybrid(), "use_full_kv_head", true)).read().mla.num_kv_heads == 4);
}

TEST_CASE("hybrid config: current and legacy rope settings give the same YaRN") {
  const json yarn = {
      {"factor", 32.0}, {"original_max_position_embeddings", 8192}, {"rope_type", "yarn"}};
  json old_yarn = without(yarn, "rope_type");
  old_yarn["type"] = "yarn";
  for (const auto& scaling : {yarn, old_yarn, kLlama3}) {
    json config = with(with(hybrid(), "rope_scaling", scaling), "rope_theta", 500000.0);
    for (const bool spelt : {true, false}) {
      if (spelt)
        config["rope_type"] = "yarn";
      else
        config.erase("rope_type");
      const auto rope = Folder(llama(), config).read().mla.rope;
      CHECK((rope.scaling == RopeScaling::kYarn));
      CHECK(rope.factor == 32.0);
      CHECK(rope.original_max_position_embeddings == 8192);
      CHECK(rope.theta == 500000.0);
      CHECK(rope.beta_fast == 32.0);
      CHECK(rope.beta_slow == 1.0);
    }
  }
}

TEST_CASE("hybrid config: legacy fields are read or passed over") {
  json config = hybrid();
  config["use_fixed_rank_for_first_and_last_block"] = true;
  config["q_energy_ratio"] = nullptr;
  config["kv_energy_ratio"] = 0.95;
  config["layer_rank_list"] = {{"0", {{"q_rank", 16}, {"kv_rank", 8}}},
                               {"2", {{"q_rank", 24}, {"kv_rank", 16}}}};
  const auto options = Folder(llama(), config).read();
  REQUIRE(options.mla_ranks.size() == 3);
  CHECK(!options.mla_ranks[0]);  // the common ranks
  REQUIRE(options.mla_ranks[2]);
  CHECK(options.mla_ranks[2]->q_lora_rank == 24);
  CHECK(options.mla_of_layer(2).kv_lora_rank == 16);
  config["layer_rank_list"].erase("2");
  CHECK(Folder(llama(), config).read().mla_ranks.empty());
  config["layer_rank_list"] = json::object();
  CHECK(Folder(llama(), config).read().mla_ranks.empty());
}

TEST_CASE(
    "hybrid config: arguments of the Mamba2 module are read, passed over or refused by name") {
  const auto read = [](const json& ssm) {
    json config = hybrid();
    config["ssm_cfg"].update(ssm);
    return Folder(llama(), config).read().mamba2;
  };
  const auto mamba2 = read({{"d_conv", 3},
                            {"chunk_size", 64},
                            {"bias", true},
                            {"conv_bias", false},
                            {"repeat_kv_before_conv", true},
                            {"rmsnorm", true},
                            {"norm_before_gate", false},
                            {"dt_min", 0.01},
                            {"A_init_range", {1, 4}},
                            {"dt_limit", nullptr}});
  CHECK(mamba2.d_conv == 3);
  CHECK(mamba2.chunk_size == 64);
  CHECK(mamba2.bias);
  CHECK(!mamba2.conv_bias);
  CHECK(mamba2.repeat_kv_before_conv);
  const auto refused = [](const std::string& key, const json& value) {
    json config = hybrid();
    config["ssm_cfg"][key] = value;
    check_hybrid_refused(config, "ssm_cfg: " + key);
  };
  refused("norm_before_gate", true);
  refused("rmsnorm", false);
  refused("D_has_hdim", true);
  refused("dt_limit", {0.0, 10.0});
  refused("d_ssm", 16);
  refused("ngroups", 1);
  refused("d_state", 16);
  refused("rank_of_dt", 4);
  check_hybrid_refused(with(hybrid(), "ssm_cfg", json::object()), "ssm_cfg: ngroups");
  check_hybrid_refused(without(hybrid(), "ssm_cfg"), "ssm_cfg: expected a value");
  // A model without Mamba2 layers asks nothing of them.
  CHECK(Folder(llama(), with(without(hybrid(), "ssm_cfg"), "mla_layers", {0, 1, 2}))
            .read()
            .num_layers() == 3);
}

TEST_CASE("hybrid config: what contradicts config.json or itself is refused with the key") {
  check_hybrid_refused(with(hybrid(), "n_layer", 4),
                       "n_layer: expected 3 (as in config.json), got 4");
  check_hybrid_refused(with(hybrid(), "hidden_size", 64), "hidden_size");
  check_hybrid_refused(with(hybrid(), "num_attention_heads", 8), "num_attention_heads");
  check_hybrid_refused(with(hybrid(), "rms_norm_eps", 1e-5), "rms_norm_eps");
  check_hybrid_refused(with(hybrid(), "d_inner", 64), "d_inner");
  check_hybrid_refused(with(hybrid(), "d_xb", 32), "d_xb");
  check_hybrid_refused(without(hybrid(), "mla_layers"), "mla_layers");
  check_hybrid_refused(with(hybrid(), "mla_layers", {0, 3}),
                       "mla_layers: expected layers from 0 to 2");
  check_hybrid_refused(with(hybrid(), "mla_layers", {0, 0}), "named twice");
  check_hybrid_refused(with(hybrid(), "attention_layers", {2}), "attention_layers");
  check_hybrid_refused(with(hybrid(), "q_lora_rank", 12),
                       "q_lora_rank: expected a multiple of 8, got 12");
  check_hybrid_refused(with(hybrid(), "q_lora_rank", nullptr), "q_lora_rank");
  check_hybrid_refused(with(hybrid(), "num_key_value_heads", 3), "num_key_value_heads");
  check_hybrid_refused(with(hybrid(), "qk_rope_head_dim", 3), "qk_rope_head_dim");
  json rope = with(hybrid(), "rope_scaling", kLlama3);
  check_hybrid_refused(with(rope, "rope_type", "llama3"), "rope_type: expected \"yarn\"");
  rope["rope_scaling"]["rope_type"] = "dynamic";
  check_hybrid_refused(rope, "rope_scaling: rope_type");
  rope["rope_scaling"] = {{"factor", 8.0}, {"mscale_all_dim", 1.0}};
  check_hybrid_refused(rope, "mscale_all_dim");
  json ranks = with(hybrid(), "layer_rank_list", {{"5", {{"q_rank", 8}, {"kv_rank", 8}}}});
  check_hybrid_refused(ranks, "layer_rank_list: 5");
  ranks["layer_rank_list"] = {{"0", {{"q_rank", 8}}}};
  check_hybrid_refused(ranks, "layer_rank_list: 0: kv_rank");
  ranks["layer_rank_list"] = {{"0", {{"q_rank", 12}, {"kv_rank", 8}}}};
  check_hybrid_refused(ranks, "12 is not a multiple of 8");
}

TEST_CASE("X-EcoMLA's sidecars: attention layers stay, ranks of each layer, the full form") {
  Folder folder(llama());
  folder.write("MLA_config.json", {{"d_model", 32},
                                   {"rms_norm_eps", 1e-6},
                                   {"vocab_size", nullptr},
                                   {"d_inner", 32},
                                   {"d_xb", 16},
                                   {"intermediate_size", 48},
                                   {"hidden_act", "silu"},
                                   {"n_layer", 3},
                                   {"attn_layers", {1}}});
  json layer = {{"model_type", "deepseek_v3"},
                {"hidden_size", 32},
                {"num_attention_heads", 4},
                {"mla_num_key_value_heads", 4},
                {"q_lora_rank", 16},
                {"kv_lora_rank", 8},
                {"qk_nope_head_dim", 4},
                {"qk_rope_head_dim", 4},
                {"v_head_dim", 8},
                {"rope_theta", 500000.0},
                {"rope_scaling", {{"type", "yarn"}, {"factor", 8.0}}},
                {"layer_rank_list", {{"2", {{"q_rank", 24}, {"kv_rank", 16}}}}}};
  folder.write("mla_layer_config.json", layer);
  const auto options = folder.read();
  CHECK((options.layers == std::vector{MixerKind::kMla, MixerKind::kAttention, MixerKind::kMla}));
  CHECK(options.mla.num_kv_heads == 4);
  CHECK(options.mla.q_lora_rank == 16);
  CHECK(options.mla_of_layer(2).q_lora_rank == 24);
  CHECK((options.mla.rope.scaling == RopeScaling::kYarn));
  CHECK(options.mla.rope.factor == 8.0);
  CHECK(options.mla.rope.original_max_position_embeddings == 4096);
  CHECK(options.mla.rope.theta == 500000.0);

  layer["rope_scaling"] = kLlama3;  // the base's, as the training script writes it
  folder.write("mla_layer_config.json", layer);
  CHECK((folder.read().mla.rope.scaling == RopeScaling::kYarn));
  CHECK(folder.read().mla.rope.factor == 32.0);
  layer["num_attention_heads"] = 8;
  folder.write("mla_layer_config.json", layer);
  check_refused(folder, "mla_layer_config.json", "num_attention_heads: expected 4");
  folder.write("hybrid_config.json", hybrid());
  CHECK_THROWS_WITH(folder.read(), ContainsSubstring("got both"));
}

TEST_CASE("written options: a Llama's config.json has what transformers reads") {
  const TempDir folder;
  auto options =
      Folder(with(with(llama(), "rope_theta", 500000.0), "rope_scaling", kLlama3)).read();
  write_model_options(folder.path(), options, at::kBFloat16);
  const auto config = read_json(folder / "config.json");
  CHECK(config["architectures"] == json({"LlamaForCausalLM"}));
  CHECK(config["model_type"] == "llama");
  CHECK(config["torch_dtype"] == "bfloat16");
  CHECK(config["rope_theta"] == 500000.0);
  CHECK(config["rope_scaling"] == kLlama3);
  CHECK(config["eos_token_id"] == 2);
  CHECK(!fs::exists(folder / "hybrid_config.json"));
}

TEST_CASE("written options: a hybrid with attention layers and own ranks comes back") {
  json config = with(hybrid(), "attention_layers", {1});
  config["layer_rank_list"] = {{"2", {{"q_rank", 24}, {"kv_rank", 16}}}};
  const auto options = Folder(llama(), config).read();
  CHECK((options.layers[1] == MixerKind::kAttention));
  const TempDir folder;
  write_model_options(folder.path(), options, at::kFloat);
  const auto again = read_model_options(folder.path());
  CHECK((again.layers == options.layers));
  CHECK(again.mla_of_layer(2).q_lora_rank == 24);
  const auto written = read_json(folder / "hybrid_config.json");
  CHECK(written["attention_layers"] == json({1}));
  CHECK(written["layer_rank_list"]["2"]["kv_rank"] == 16);
  // The other kind of model's config in the same folder would be half replaced.
  CHECK_THROWS_WITH(write_model_options(folder.path(), Folder(llama()).read(), at::kFloat),
                    ContainsSubstring("hybrid_config.json"));
}

TEST_CASE("written options: what hybrid_config.json cannot say is refused") {
  const TempDir folder;
  auto options = Folder(llama(), hybrid()).read();
  options.mla.rope.scaling = RopeScaling::kLlama3;
  CHECK_THROWS_WITH(write_model_options(folder.path(), options, at::kFloat),
                    ContainsSubstring("mla.rope"));
  options = Folder(llama(), hybrid()).read();
  options.mamba2.num_kv_heads = 4;
  CHECK_THROWS_WITH(write_model_options(folder.path(), options, at::kFloat),
                    ContainsSubstring("mamba2.num_kv_heads: expected the model's 2, got 4"));
  CHECK_THROWS_AS(write_model_options(folder.path(), Folder(llama()).read(), at::kLong),
                  ConfigError);
}

TEST_CASE("written options: a published hybrid's sidecar comes back field by field", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/hybrid");
  for (const auto& entry : fs::directory_iterator(shared_path("goldens/hybrid"))) {
    INFO(entry.path());
    const TempDir folder;
    write_model_options(folder.path(), read_model_options(entry.path() / "hybrid"), at::kFloat);
    CHECK(read_json(folder / "hybrid_config.json") ==
          read_json(entry.path() / "hybrid/hybrid_config.json"));
    auto expected = read_json(entry.path() / "hybrid/config.json");
    expected.erase("transformers_version");
    CHECK(read_json(folder / "config.json") == expected);
  }
}
