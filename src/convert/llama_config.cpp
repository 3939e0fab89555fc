#include "convert/config_reader.h"
#include "convert/model_config.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

// Names of `type` in rope settings; YaRN's fields that Hugging Face knows and RopeOptions does not
// must be absent or at the value that we compute with.
void read_yarn(const ConfigReader& scaling, RopeOptions& rope) {
  rope.beta_fast = scaling.positive_or("beta_fast", 32.0);
  rope.beta_slow = scaling.positive_or("beta_slow", 1.0);
  scaling.expect("truncate", true, "the only form that is supported");
  for (const char* key : {"attention_factor", "mscale", "mscale_all_dim"}) {
    if (scaling.has(key)) scaling.fail(key, "no such key: 0.1 ln(factor) + 1 is supported");
  }
}

void read_scaling(const ConfigReader& scaling, const std::string& type, ModelOptions& options) {
  RopeOptions& rope = options.rope;
  if (type == "default") return;
  if (type != "llama3" && type != "yarn") {
    scaling.fail(scaling.has("rope_type") ? "rope_type" : "type", "default, llama3 or yarn");
  }
  rope.factor = scaling.positive_or("factor", 0.0);
  if (rope.factor < 1.0) scaling.fail("factor", "a number of at least 1");
  const int64_t longest = options.max_position_embeddings;
  rope.original_max_position_embeddings =
      type == "llama3" ? scaling.count("original_max_position_embeddings")
                       : scaling.count_or("original_max_position_embeddings", longest);
  if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    read_yarn(scaling, rope);
    return;
  }
  rope.scaling = RopeScaling::kLlama3;
  rope.low_freq_factor = scaling.positive_or("low_freq_factor", 0.0);
  rope.high_freq_factor = scaling.positive_or("high_freq_factor", 0.0);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    scaling.fail("high_freq_factor", "more than low_freq_factor");
  }
}

std::string scaling_type(const ConfigReader& scaling) {
  return scaling.text_or("rope_type", scaling.text_or("type", "default"));
}

// transformers 5 writes rope_parameters {rope_theta, rope_type, ...}, older ones rope_theta beside
// rope_scaling {rope_type or type, ...} or null.
void read_rope(const ConfigReader& config, ModelOptions& options) {
  constexpr double kTheta = 10000.0;  // LlamaConfig's default
  options.rope.theta = config.positive_or("rope_theta", kTheta);
  if (config.has("rope_parameters")) {
    const ConfigReader rope = config.object("rope_parameters");
    options.rope.theta = rope.positive_or("rope_theta", options.rope.theta);
    rope.expect("partial_rotary_factor", 1.0, "whole heads are rotated");
    read_scaling(rope, scaling_type(rope), options);
  } else if (config.has("rope_scaling")) {
    const ConfigReader scaling = config.object("rope_scaling");
    read_scaling(scaling, scaling_type(scaling), options);
  }
}

void read_sizes(const ConfigReader& config, ModelOptions& options) {
  options.vocab_size = config.count("vocab_size");
  options.hidden_size = config.count("hidden_size");
  options.intermediate_size = config.count("intermediate_size");
  options.num_heads = config.count("num_attention_heads");
  options.num_kv_heads = config.count_or("num_key_value_heads", options.num_heads);
  if (options.num_heads % options.num_kv_heads != 0) {
    config.fail("num_key_value_heads", str("a divisor of num_attention_heads ", options.num_heads));
  }
  if (!config.has("head_dim") && options.hidden_size % options.num_heads != 0) {
    config.fail("num_attention_heads", str("a divisor of hidden_size ", options.hidden_size));
  }
  options.head_dim = config.count_or("head_dim", options.hidden_size / options.num_heads);
  if (options.head_dim % 2 != 0) {
    if (config.has("head_dim")) config.fail("head_dim", "an even number");
    config.fail("num_attention_heads", str("heads of an even width, not ", options.head_dim));
  }
  options.layers.assign(static_cast<size_t>(config.count("num_hidden_layers")),
                        MixerKind::kAttention);
  options.max_position_embeddings = config.count_or("max_position_embeddings", 2048);
}

void read_token_ids(const ConfigReader& config, ModelOptions& options) {
  const auto& object = config.value();
  const bool no_bos = object.contains("bos_token_id") && !config.has("bos_token_id");
  options.bos_token_id =
      no_bos ? -1 : find_value<int64_t>(object, "bos_token_id", config.where()).value_or(1);
  if (config.has("eos_token_id") && object.at("eos_token_id").is_array()) {
    options.eos_token_ids = config.integers_or("eos_token_id", {});
  } else if (config.has("eos_token_id")) {
    options.eos_token_ids = {require<int64_t>(object, "eos_token_id", config.where())};
  } else {
    options.eos_token_ids.clear();
    if (!object.contains("eos_token_id")) options.eos_token_ids.push_back(2);
  }
}

nlohmann::ordered_json rope_scaling(const RopeOptions& rope) {
  if (rope.scaling == RopeScaling::kDefault) return nullptr;
  nlohmann::ordered_json scaling = {
      {"factor", rope.factor},
      {"original_max_position_embeddings", rope.original_max_position_embeddings}};
  if (rope.scaling == RopeScaling::kLlama3) {
    scaling["low_freq_factor"] = rope.low_freq_factor;
    scaling["high_freq_factor"] = rope.high_freq_factor;
    scaling["rope_type"] = "llama3";
  } else {
    scaling["beta_fast"] = rope.beta_fast;
    scaling["beta_slow"] = rope.beta_slow;
    scaling["rope_type"] = "yarn";
  }
  return scaling;
}

nlohmann::ordered_json eos_json(const std::vector<int64_t>& ids) {
  if (ids.empty()) return nullptr;
  if (ids.size() == 1) return ids[0];
  return ids;
}

std::string torch_name(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    case at::kDouble:
      return "float64";
    default:
      throw ConfigError(zebra::str("model: weights cannot be of dtype ", c10::toString(dtype)));
  }
}

}  // namespace

ModelOptions read_llama_config(const fs::path& file) {
  const ConfigReader config(file);
  if (!config.has("model_type")) config.fail("model_type", "\"llama\"");
  config.expect("model_type", "llama", "the only architecture that is supported");
  config.expect("hidden_act", "silu", "the only activation that is supported");
  if (config.has("quantization_config")) {
    config.fail("quantization_config", "no such key: quantised weights are not supported");
  }
  ModelOptions options;
  read_sizes(config, options);
  read_rope(config, options);
  read_token_ids(config, options);
  options.rms_norm_eps = config.positive_or("rms_norm_eps", 1e-6);  // defaults of LlamaConfig
  options.attention_bias = config.flag_or("attention_bias", false);
  options.mlp_bias = config.flag_or("mlp_bias", false);
  options.tie_word_embeddings = config.flag_or("tie_word_embeddings", false);
  options.initializer_range = config.positive_or("initializer_range", 0.02);
  return options;
}

nlohmann::ordered_json llama_config(const ModelOptions& options, at::ScalarType dtype) {
  nlohmann::ordered_json bos = nullptr;
  if (options.bos_token_id >= 0) bos = options.bos_token_id;
  return {{"architectures", {"LlamaForCausalLM"}},
          {"attention_bias", options.attention_bias},
          {"attention_dropout", 0.0},
          {"bos_token_id", bos},
          {"eos_token_id", eos_json(options.eos_token_ids)},
          {"head_dim", options.head_dim},
          {"hidden_act", "silu"},
          {"hidden_size", options.hidden_size},
          {"initializer_range", options.initializer_range},
          {"intermediate_size", options.intermediate_size},
          {"max_position_embeddings", options.max_position_embeddings},
          {"mlp_bias", options.mlp_bias},
          {"model_type", "llama"},
          {"num_attention_heads", options.num_heads},
          {"num_hidden_layers", options.num_layers()},
          {"num_key_value_heads", options.num_kv_heads},
          {"pretraining_tp", 1},
          {"rms_norm_eps", options.rms_norm_eps},
          {"rope_scaling", rope_scaling(options.rope)},
          {"rope_theta", options.rope.theta},
          {"tie_word_embeddings", options.tie_word_embeddings},
          {"torch_dtype", torch_name(dtype)},
          {"use_cache", true},
          {"vocab_size", options.vocab_size}};
}

}  // namespace zebra
