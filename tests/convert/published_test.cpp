// The published models by their configuration alone: no weights are made or read.
#include "support/testing.h"

#include <numeric>

#include "base/file.h"
#include "base/json.h"
#include "convert/published.h"
#include "support/temp_dir.h"
#include "zebra/convert.h"

namespace zebra::testing {

namespace {

// A Llama as its config.json describes it.
struct Base {
  int64_t hidden, intermediate, layers, heads, head_dim;
  double rope_factor;
  bool tied;
};
const Base kBase1B{2048, 8192, 16, 32, 64, 32, true};
const Base kBase3B{3072, 8192, 28, 24, 128, 32, true};
const Base kBase8B{4096, 14336, 32, 32, 128, 8, false};

struct Published {
  const char* name;
  Base base;
  std::vector<int64_t> mla_layers;
  int64_t q_rank, kv_rank, nope, rope, value;
  int64_t parameters, stored;  // tied heads counted once, and as the files hold them
  double kv_percent;
  int64_t state_bytes;  // in bf16
};

std::vector<int64_t> even(int64_t layers) {
  std::vector<int64_t> result;
  for (int64_t i = 0; i < layers; i += 2) result.push_back(i);
  return result;
}

// Counts, shares and state sizes of the publication's models (arXiv 2505.17272).
std::vector<Published> published() {
  return {
      {"Zebra-Llama-1B-8MLA-8Mamba", kBase1B, even(16), 1344, 128, 32, 32, 64, 1'267'149'568,
       1'529'817'856, 7.8125, 8 * (2 * 32 * 64 * 64 + 2 * 3072 * 4)},
      {"Zebra-Llama-1B-4MLA-12Mamba",
       kBase1B,
       {0, 5, 10, 14},
       1344,
       128,
       32,
       32,
       64,
       1'285'700'736,
       1'548'369'024,
       3.90625,
       12 * (2 * 32 * 64 * 64 + 2 * 3072 * 4)},
      {"Zebra-Llama-3B-14MLA-14Mamba", kBase3B, even(28), 1536, 128, 64, 64, 128, 3'269'234'672,
       3'663'237'104, 4.6875, 14 * (2 * 24 * 128 * 128 + 2 * 5120 * 4)},
      {"Zebra-Llama-3B-6MLA-22Mamba",
       kBase3B,
       {0, 5, 10, 16, 21, 26},
       1536,
       128,
       64,
       64,
       128,
       3'389'592'112,
       3'783'594'544,
       2.00893,
       22 * (2 * 24 * 128 * 128 + 2 * 5120 * 4)},
      {"Zebra-Llama-8B-16MLA-16Mamba", kBase8B, even(32), 2048, 160, 64, 64, 128, 8'185'746'944,
       8'185'746'944, 5.46875, 16 * (2 * 32 * 128 * 128 + 2 * 6144 * 4)},
      {"Zebra-Llama-8B-8MLA-24Mamba",
       kBase8B,
       {0, 4, 8, 12, 16, 20, 25, 30},
       2048,
       160,
       64,
       64,
       128,
       8'379'095'296,
       8'379'095'296,
       2.734375,
       24 * (2 * 32 * 128 * 128 + 2 * 6144 * 4)},
  };
}

json config_of(const Base& base) {
  return {{"model_type", "llama"},
          {"vocab_size", 128256},
          {"hidden_size", base.hidden},
          {"intermediate_size", base.intermediate},
          {"num_hidden_layers", base.layers},
          {"num_attention_heads", base.heads},
          {"num_key_value_heads", 8},
          {"head_dim", base.head_dim},
          {"max_position_embeddings", 131072},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"rope_scaling",
           {{"rope_type", "llama3"},
            {"factor", base.rope_factor},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 8192}}},
          {"tie_word_embeddings", base.tied}};
}

json hybrid_config_of(const Published& model) {
  const auto& base = model.base;
  return {{"hidden_size", base.hidden},
          {"intermediate_size", base.intermediate},
          {"n_layer", base.layers},
          {"mla_layers", model.mla_layers},
          {"rms_norm_eps", 1e-5},
          {"num_attention_heads", base.heads},
          {"num_key_value_heads", 8},
          {"q_lora_rank", model.q_rank},
          {"kv_lora_rank", model.kv_rank},
          {"use_lora_layer_norm", false},
          {"use_full_kv_head", false},
          {"qk_nope_head_dim", model.nope},
          {"qk_rope_head_dim", model.rope},
          {"v_head_dim", model.value},
          {"max_position_embeddings", 131072},
          {"rope_theta", 500000.0},
          {"rope_scaling",
           {{"factor", base.rope_factor},
            {"original_max_position_embeddings", 8192},
            {"rope_type", "yarn"}}},
          {"d_model", base.hidden},
          {"d_inner", base.heads * base.head_dim},
          {"d_xb", 8 * base.head_dim},
          {"ssm_cfg",
           {{"expand", 1},
            {"ngroups", base.heads},
            {"d_state", base.head_dim},
            {"repeat_kv_before_conv", false}}}};
}

// The form in which the weights were first published.
json older_form(json config, const Base& base) {
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", base.rope_factor},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8192}};
  config["rope_type"] = "yarn";
  config["use_fixed_rank_for_first_and_last_block"] = false;
  config["layer_rank_list"] = json::object();
  config["q_energy_ratio"] = nullptr;
  config["kv_energy_ratio"] = nullptr;
  return config;
}

// A model of MLA layers alone in X-EcoMLA's files, made of a SmolLM.
struct EcoMla {
  const char* name;
  const char* llama;
  int64_t hidden, intermediate, layers, heads, kv_heads, q_rank, kv_rank;
  int64_t llama_parameters, parameters;  // with tied heads
};

// Ranks as published (arXiv 2503.11132); each keeps 12.5 % of its base's cache. SmolLM's counts are
// those of its publication, the others follow from the shapes.
const std::vector<EcoMla> kSmolLms = {{"X-EcoMLA-SmolLM-135M-fixed-kv16", "SmolLM-135M", 576, 1536,
                                       30, 9, 3, 400, 16, 134'515'008, 132'994'368},
                                      {"X-EcoMLA-SmolLM-360M-fixed-kv48", "SmolLM-360M", 960, 2560,
                                       32, 15, 5, 800, 48, 361'821'120, 366'490'560},
                                      {"X-EcoMLA-SmolLM-1.7B-fixed-kv480", "SmolLM-1.7B", 2048,
                                       8192, 24, 32, 32, 2048, 480, 1'711'376'384, 1'671'268'352}};

ModelOptions read_eco_mla(const EcoMla& model) {
  const TempDir folder;
  const json config = {{"model_type", "llama"},
                       {"vocab_size", 49152},
                       {"hidden_size", model.hidden},
                       {"intermediate_size", model.intermediate},
                       {"num_hidden_layers", model.layers},
                       {"num_attention_heads", model.heads},
                       {"num_key_value_heads", model.kv_heads},
                       {"max_position_embeddings", 2048},
                       {"rms_norm_eps", 1e-5},
                       {"tie_word_embeddings", true}};
  const json mla = {{"d_model", model.hidden},
                    {"intermediate_size", model.intermediate},
                    {"n_layer", model.layers},
                    {"rms_norm_eps", 1e-5},
                    {"attn_layers", json::array()}};
  const json layer = {{"num_attention_heads", model.heads},
                      {"q_lora_rank", model.q_rank},
                      {"kv_lora_rank", model.kv_rank},
                      {"qk_nope_head_dim", 32},
                      {"qk_rope_head_dim", 32},
                      {"v_head_dim", 64}};
  write_file_atomic(folder / "config.json", config.dump());
  write_file_atomic(folder / "MLA_config.json", mla.dump());
  write_file_atomic(folder / "mla_layer_config.json", layer.dump());
  return read_model_options(folder.path());
}

ModelOptions read_folder(const json& config, const json& hybrid_config) {
  const TempDir folder;
  write_file_atomic(folder / "config.json", config.dump());
  write_file_atomic(folder / "hybrid_config.json", hybrid_config.dump());
  return read_model_options(folder.path());
}

int64_t stored_values(const ModelOptions& options) {
  int64_t total = 0;
  for (const auto& [name, shape] : expected_tensors(options)) {
    total += std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  }
  return total;
}

}  // namespace

TEST_CASE("published: each released hybrid is known by its configuration, in both forms of it") {
  for (const auto& model : published()) {
    INFO(model.name);
    const auto config = config_of(model.base);
    const auto current = hybrid_config_of(model);
    for (const auto& sidecar : {current, older_form(current, model.base)}) {
      const auto options = read_folder(config, sidecar);
      CHECK(published_shape(options) == model.name);
      CHECK(count_parameters(options) == model.parameters);
      CHECK(stored_values(options) == model.stored);
      CHECK(options.mla.rope.scaling == RopeScaling::kYarn);
      CHECK(options.mla.rope.factor == model.base.rope_factor);
      const auto own = cache_size(options), llama = cache_size(as_llama(options));
      CHECK(100.0 * static_cast<double>(own.kv_values_per_token) /
                static_cast<double>(llama.kv_values_per_token) ==
            Approx(model.kv_percent).epsilon(1e-5));
      const CacheOptions bf16{.state = CacheDtype::kBfloat16};
      CHECK(cache_bytes(options, bf16, at::kBFloat16).per_sequence == model.state_bytes);
    }
  }
}

TEST_CASE("published: mixers have the published numbers of parameters") {
  const std::vector<std::array<int64_t, 3>> expected = {{10'485'760, 10'125'312, 14'763'104},
                                                        {25'165'824, 19'660'800, 34'705'480},
                                                        {41'943'040, 34'717'696, 58'886'240}};
  const auto models = published();
  for (size_t size = 0; size < 3; ++size) {
    const auto options =
        read_folder(config_of(models[2 * size].base), hybrid_config_of(models[2 * size]));
    const auto with = [&](MixerKind kind) {
      auto all = options;
      std::fill(all.layers.begin(), all.layers.end(), kind);
      return count_parameters(all);
    };
    const auto layers = options.num_layers();
    const int64_t llama = with(MixerKind::kAttention);
    const auto& [attention, mla, mamba2] = expected[size];
    CHECK(with(MixerKind::kMla) - llama == layers * (mla - attention));
    CHECK(with(MixerKind::kMamba2) - llama == layers * (mamba2 - attention));
  }
}

TEST_CASE("published: X-EcoMLA's SmolLMs are known by their configuration") {
  for (const auto& model : kSmolLms) {
    INFO(model.name);
    const auto options = read_eco_mla(model);
    const auto llama = as_llama(options);
    CHECK(published_shape(options) == model.name);
    CHECK(published_shape(llama) == model.llama);
    CHECK(count_parameters(options) == model.parameters);
    CHECK(count_parameters(llama) == model.llama_parameters);
    CHECK(8 * cache_size(options).kv_values_per_token == cache_size(llama).kv_values_per_token);
    auto other = options;
    other.mla.kv_lora_rank += 8;
    CHECK(published_shape(other).empty());
    other = options;
    other.mla_ranks.assign(options.layers.size(), MlaRanks{256, 8});
    CHECK(published_shape(other).empty());
  }
}

TEST_CASE("published: an all-MLA model of rank 512 is X-EcoMLA's, other shapes are nobody's") {
  auto model = published().front();
  model.mla_layers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  model.kv_rank = 512;
  const auto options = read_folder(config_of(model.base), hybrid_config_of(model));
  CHECK(published_shape(options) == "X-EcoMLA-1B1B-fixed-kv512");
  auto dynamic = options;
  dynamic.mla_ranks.assign(16, MlaRanks{1024, 256});
  CHECK(published_shape(dynamic) == "X-EcoMLA-1B1B-dynamic");
  auto large = published().back();
  large.mla_layers.resize(32);
  std::iota(large.mla_layers.begin(), large.mla_layers.end(), 0);
  dynamic = read_folder(config_of(large.base), hybrid_config_of(large));
  dynamic.mla_ranks.assign(32, MlaRanks{2048, 256});
  CHECK(published_shape(dynamic).empty());
  CHECK(published_shape(as_llama(options)) == "Llama-3.2-1B");
  auto other = options;
  other.mla.kv_lora_rank = 504;
  CHECK(published_shape(other).empty());
  other = options;
  other.vocab_size = 32000;
  CHECK(published_shape(other).empty());
}

}  // namespace zebra::testing
