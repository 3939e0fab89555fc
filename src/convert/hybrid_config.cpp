#include <algorithm>
#include <charconv>
#include <set>

#include "convert/config_reader.h"
#include "convert/model_config.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOfLlama = "as in config.json";
constexpr const char* kSupported = "the only value that is supported";

// Layers of one kind; they must exist and have no other kind yet.
void set_kind(const ConfigReader& config, const std::string& key, MixerKind kind,
              std::vector<std::optional<MixerKind>>& kinds) {
  const auto depth = static_cast<int64_t>(kinds.size());
  for (const int64_t layer : config.integers_or(key, {})) {
    if (layer < 0 || layer >= depth) config.fail(key, str("layers from 0 to ", depth - 1));
    if (kinds[layer]) config.fail(key, str("every layer once, but ", layer, " is named twice"));
    kinds[layer] = kind;
  }
}

std::vector<MixerKind> filled(const std::vector<std::optional<MixerKind>>& kinds, MixerKind rest) {
  std::vector<MixerKind> layers;
  for (const auto& kind : kinds) layers.push_back(kind.value_or(rest));
  return layers;
}

// The top-level rope_type decides. Older files hold the base's llama3 settings in rope_scaling, of
// which YaRN takes factor and original length.
RopeOptions read_mla_rope(const ConfigReader& config) {
  RopeOptions rope;
  rope.theta = config.positive_or("rope_theta", 10000.0);
  if (!config.has("rope_scaling")) return rope;
  config.expect("rope_type", "yarn", kSupported);
  const ConfigReader scaling = config.object("rope_scaling");
  const char* const key = scaling.has("rope_type") ? "rope_type" : "type";
  const std::string type = scaling.text_or(key, "yarn");
  if (type == "default") return rope;
  if (type != "yarn" && type != "llama3") scaling.fail(key, "yarn, or llama3 in older files");
  rope.scaling = RopeScaling::kYarn;
  rope.factor = scaling.positive_or("factor", 0.0);
  if (rope.factor < 1.0) scaling.fail("factor", "a number of at least 1");
  rope.original_max_position_embeddings =
      scaling.count_or("original_max_position_embeddings", 4096);
  rope.beta_fast = scaling.positive_or("beta_fast", 32.0);
  rope.beta_slow = scaling.positive_or("beta_slow", 1.0);
  scaling.expect("mscale", 1, kSupported);
  scaling.expect("mscale_all_dim", 0, kSupported);
  return rope;
}

// What hybrid_config.json and mla_layer_config.json call by the same names. The defaults are those
// of the published classes where both have the same.
MlaOptions read_mla(const ConfigReader& config, const ModelOptions& llama, const MlaRanks& ranks) {
  MlaOptions mla;
  mla.hidden_size = llama.hidden_size;
  mla.num_heads = llama.num_heads;
  if (config.value().contains("q_lora_rank")) config.count("q_lora_rank");  // null is refused
  mla.q_lora_rank = config.count_or("q_lora_rank", ranks.q_lora_rank);
  mla.kv_lora_rank = config.count_or("kv_lora_rank", ranks.kv_lora_rank);
  mla.qk_nope_head_dim = config.count_or("qk_nope_head_dim", 128);
  mla.qk_rope_head_dim = config.count_or("qk_rope_head_dim", 64);
  mla.v_head_dim = config.count_or("v_head_dim", 128);
  mla.latent_norm = config.flag_or("use_lora_layer_norm", false);
  mla.bias = config.flag_or("attention_bias", false);
  mla.rank_divisor = config.count_or("qkv_rank_divisor", 8);
  mla.rope = read_mla_rope(config);
  for (const char* key : {"q_lora_rank", "kv_lora_rank"}) {
    const int64_t rank = key[0] == 'q' ? mla.q_lora_rank : mla.kv_lora_rank;
    if (rank % mla.rank_divisor != 0) config.fail(key, str("a multiple of ", mla.rank_divisor));
  }
  return mla;
}

// {"3": {"q_rank": 1344, "kv_rank": 128}}; layers that have the common ranks are left out.
std::vector<std::optional<MlaRanks>> read_rank_list(const ConfigReader& config,
                                                    const ModelOptions& options) {
  constexpr const char* kKey = "layer_rank_list";
  std::vector<std::optional<MlaRanks>> ranks(options.layers.size());
  if (!config.has(kKey)) return {};
  const ConfigReader list = config.object(kKey);
  bool any = false;
  for (const auto& [name, unused] : list.value().items()) {
    int64_t layer = -1;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), layer);
    if (parsed.ptr != name.data() + name.size() || layer < 0 || layer >= options.num_layers()) {
      list.fail(name, str("a layer from 0 to ", options.num_layers() - 1));
    }
    const ConfigReader entry = list.object(name);
    const MlaRanks own{.q_lora_rank = entry.count("q_rank"),
                       .kv_lora_rank = entry.count("kv_rank")};
    if (own.q_lora_rank == options.mla.q_lora_rank &&
        own.kv_lora_rank == options.mla.kv_lora_rank) {
      continue;
    }
    ranks[layer] = own;
    any = true;
  }
  if (!any) ranks.clear();
  return ranks;
}

// ssm_cfg holds arguments of the published Mamba2 module. What changes its mathematics in a way
// that we lack is refused; what only serves initialisation or speed is passed over.
void check_ssm_keys(const ConfigReader& ssm) {
  static const std::set<std::string> read = {
      "d_state", "ngroups", "d_conv", "chunk_size", "bias", "conv_bias", "repeat_kv_before_conv"};
  static const std::set<std::string> without_effect = {
      "expand",        "headdim",          "conv_init", "A_init_range",      "dt_min", "dt_max",
      "dt_init_floor", "use_mem_eff_path", "layer_idx", "sequence_parallel", "device", "dtype"};
  ssm.expect("rmsnorm", true, kSupported);
  ssm.expect("norm_before_gate", false, kSupported);
  ssm.expect("D_has_hdim", false, kSupported);
  for (const auto& [key, value] : ssm.value().items()) {
    if (read.contains(key) || without_effect.contains(key) || value.is_null()) continue;
    if (key == "rmsnorm" || key == "norm_before_gate" || key == "D_has_hdim") continue;
    if (key == "d_ssm" || key == "dt_limit" || key == "process_group") {
      ssm.fail(key, "no such key: only its default is supported");
    }
    ssm.fail(key, "an argument of the published Mamba2 module");
  }
}

Mamba2Options read_mamba2(const ConfigReader& config, const ModelOptions& llama) {
  Mamba2Options mamba2;
  mamba2.hidden_size = llama.hidden_size;
  mamba2.num_heads = llama.num_heads;
  mamba2.num_kv_heads = llama.num_kv_heads;
  mamba2.head_dim = llama.head_dim;
  config.expect("d_inner", llama.num_heads * llama.head_dim, "heads times their width");
  config.expect("d_xb", llama.num_kv_heads * llama.head_dim, "key/value heads times their width");
  const ConfigReader ssm = config.object("ssm_cfg");
  check_ssm_keys(ssm);
  if (ssm.count("ngroups") != llama.num_heads)
    ssm.fail("ngroups", str(llama.num_heads, " (heads)"));
  if (ssm.count("d_state") != llama.head_dim) {
    ssm.fail("d_state", str(llama.head_dim, " (the heads' width)"));
  }
  mamba2.d_conv = ssm.count_or("d_conv", 4);
  mamba2.chunk_size = ssm.count_or("chunk_size", 256);
  mamba2.repeat_kv_before_conv = ssm.flag_or("repeat_kv_before_conv", false);
  mamba2.conv_bias = ssm.flag_or("conv_bias", true);
  mamba2.bias = ssm.flag_or("bias", false);
  return mamba2;
}

void expect_llama_sizes(const ConfigReader& config, const ModelOptions& llama) {
  config.expect("n_layer", llama.num_layers(), kOfLlama);
  config.expect("d_model", llama.hidden_size, kOfLlama);
  config.expect("intermediate_size", llama.intermediate_size, kOfLlama);
  config.expect("rms_norm_eps", llama.rms_norm_eps, kOfLlama);
  config.expect("hidden_act", "silu", kSupported);
}

}  // namespace

ModelOptions read_hybrid_config(const fs::path& file, ModelOptions llama) {
  const ConfigReader config(file);
  expect_llama_sizes(config, llama);
  config.expect("hidden_size", llama.hidden_size, kOfLlama);
  config.expect("num_attention_heads", llama.num_heads, kOfLlama);
  if (!config.has("mla_layers")) config.fail("mla_layers", "a list of layers");

  ModelOptions options = std::move(llama);
  std::vector<std::optional<MixerKind>> kinds(options.layers.size());
  set_kind(config, "mla_layers", MixerKind::kMla, kinds);
  set_kind(config, "attention_layers", MixerKind::kAttention, kinds);
  options.layers = filled(kinds, MixerKind::kMamba2);

  options.mla = read_mla(config, options, {.q_lora_rank = 1536, .kv_lora_rank = 128});
  options.mla.num_kv_heads = config.count_or("num_key_value_heads", 8);
  if (config.flag_or("use_full_kv_head", false)) options.mla.num_kv_heads = options.num_heads;
  if (options.num_heads % options.mla.num_kv_heads != 0) {
    config.fail("num_key_value_heads", str("a divisor of num_attention_heads ", options.num_heads));
  }
  options.mla_ranks = read_rank_list(config, options);
  if (std::count(options.layers.begin(), options.layers.end(), MixerKind::kMamba2) > 0) {
    options.mamba2 = read_mamba2(config, options);
  }
  return options;
}

ModelOptions read_eco_mla_configs(const fs::path& folder, ModelOptions llama) {
  const ConfigReader config(folder / kEcoMlaConfig);
  expect_llama_sizes(config, llama);
  ModelOptions options = std::move(llama);
  std::vector<std::optional<MixerKind>> kinds(options.layers.size());
  set_kind(config, "attn_layers", MixerKind::kAttention, kinds);
  options.layers = filled(kinds, MixerKind::kMla);

  // Only what differs from the class's defaults is written: 128 heads are not.
  const ConfigReader layer(folder / kEcoMlaLayerConfig);
  layer.expect("hidden_size", options.num_heads * options.head_dim, "heads times their width");
  if (layer.count_or("num_attention_heads", 128) != options.num_heads) {
    layer.fail("num_attention_heads", str(options.num_heads, " (", kOfLlama, ")"));
  }
  options.mla = read_mla(layer, options, {.q_lora_rank = 1536, .kv_lora_rank = 512});
  options.mla.num_kv_heads = options.num_heads;  // always the full form
  options.mla_ranks = read_rank_list(layer, options);
  return options;
}

std::vector<int64_t> layers_of(const ModelOptions& options, MixerKind kind) {
  std::vector<int64_t> layers;
  for (int64_t i = 0; i < options.num_layers(); ++i) {
    if (options.layers[i] == kind) layers.push_back(i);
  }
  return layers;
}

namespace {

void require_equal(const char* what, int64_t got, int64_t expected) {
  if (got == expected) return;
  throw ConfigError(
      str(kHybridConfig, ": ", what, ": expected the model's ", expected, ", got ", got));
}

// The file has one place for sizes that our options have two of.
void check_representable(const ModelOptions& options) {
  if (!layers_of(options, MixerKind::kMla).empty()) {
    require_equal("mla.hidden_size", options.mla.hidden_size, options.hidden_size);
    require_equal("mla.num_heads", options.mla.num_heads, options.num_heads);
    if (options.mla.rope.scaling == RopeScaling::kLlama3) {
      throw ConfigError(str(kHybridConfig, ": mla.rope: expected yarn or no scaling, got llama3"));
    }
  }
  if (!layers_of(options, MixerKind::kMamba2).empty()) {
    require_equal("mamba2.hidden_size", options.mamba2.hidden_size, options.hidden_size);
    require_equal("mamba2.num_heads", options.mamba2.num_heads, options.num_heads);
    require_equal("mamba2.num_kv_heads", options.mamba2.num_kv_heads, options.num_kv_heads);
    require_equal("mamba2.head_dim", options.mamba2.head_dim, options.head_dim);
    if (options.mamba2.norm_eps != 1e-5) {
      throw ConfigError(
          str(kHybridConfig, ": mamba2.norm_eps: expected 1e-05, got ", options.mamba2.norm_eps));
    }
  }
}

nlohmann::ordered_json mla_rope_json(const RopeOptions& rope) {
  if (rope.scaling == RopeScaling::kDefault) return nullptr;
  nlohmann::ordered_json scaling = {
      {"factor", rope.factor},
      {"original_max_position_embeddings", rope.original_max_position_embeddings},
      {"rope_type", "yarn"}};
  if (rope.beta_fast != 32.0) scaling["beta_fast"] = rope.beta_fast;
  if (rope.beta_slow != 1.0) scaling["beta_slow"] = rope.beta_slow;
  return scaling;
}

nlohmann::ordered_json ssm_json(const ModelOptions& options) {
  const Mamba2Options& mamba2 = options.mamba2;
  nlohmann::ordered_json ssm = {{"expand", 1},
                                {"ngroups", options.num_heads},
                                {"d_state", options.head_dim},
                                {"repeat_kv_before_conv", mamba2.repeat_kv_before_conv}};
  const Mamba2Options usual;  // the published module's defaults
  if (mamba2.d_conv != usual.d_conv) ssm["d_conv"] = mamba2.d_conv;
  if (mamba2.chunk_size != usual.chunk_size) ssm["chunk_size"] = mamba2.chunk_size;
  if (mamba2.conv_bias != usual.conv_bias) ssm["conv_bias"] = mamba2.conv_bias;
  if (mamba2.bias != usual.bias) ssm["bias"] = mamba2.bias;
  return ssm;
}

nlohmann::ordered_json rank_list_json(const ModelOptions& options) {
  nlohmann::ordered_json list = nlohmann::ordered_json::object();
  for (size_t i = 0; i < options.mla_ranks.size(); ++i) {
    const auto& ranks = options.mla_ranks[i];
    if (!ranks || options.layers[i] != MixerKind::kMla) continue;
    list[std::to_string(i)] = {{"q_rank", ranks->q_lora_rank}, {"kv_rank", ranks->kv_lora_rank}};
  }
  return list;
}

}  // namespace

nlohmann::ordered_json hybrid_config(const ModelOptions& options) {
  check_representable(options);
  const MlaOptions& mla = options.mla;
  const auto mla_layers = layers_of(options, MixerKind::kMla);
  const auto attention_layers = layers_of(options, MixerKind::kAttention);
  const bool grouped = options.num_kv_heads != options.num_heads;
  const bool full = grouped && mla.num_kv_heads == options.num_heads;
  const bool own_heads = !full && !mla_layers.empty();
  nlohmann::ordered_json config = {
      {"hidden_size", options.hidden_size},
      {"intermediate_size", options.intermediate_size},
      {"hidden_act", "silu"},
      {"n_layer", options.num_layers()},
      {"mla_layers", mla_layers},
      {"rms_norm_eps", options.rms_norm_eps},
      {"num_attention_heads", options.num_heads},
      {"num_key_value_heads", own_heads ? mla.num_kv_heads : options.num_kv_heads},
      {"kv_lora_rank", mla.kv_lora_rank},
      {"q_lora_rank", mla.q_lora_rank},
      {"use_lora_layer_norm", mla.latent_norm},
      {"use_full_kv_head", full},
      {"qk_rope_head_dim", mla.qk_rope_head_dim},
      {"v_head_dim", mla.v_head_dim},
      {"qk_nope_head_dim", mla.qk_nope_head_dim},
      {"qkv_rank_divisor", mla.rank_divisor},
      {"max_position_embeddings", options.max_position_embeddings},
      {"rope_theta", mla.rope.theta},
      {"rope_scaling", mla_rope_json(mla.rope)},
      {"attention_bias", mla.bias},
      {"attention_dropout", 0.0},
      {"rope_type", "yarn"},
      {"d_model", options.hidden_size},
      {"ssm_cfg", ssm_json(options)},
      {"d_inner", options.num_heads * options.head_dim},
      {"d_xb", options.num_kv_heads * options.head_dim}};
  // Fields of ours and of older versions, only where they say something.
  if (!attention_layers.empty()) config["attention_layers"] = attention_layers;
  if (const auto list = rank_list_json(options); !list.empty()) config["layer_rank_list"] = list;
  return config;
}

}  // namespace zebra
