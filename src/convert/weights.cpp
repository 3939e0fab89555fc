#include "convert/weights.h"

#include <algorithm>
#include <set>

#include "base/hash.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

using NamedShapes = std::vector<std::pair<std::string, std::vector<int64_t>>>;

// Adds prefix + "weight", and "bias" where there is one.
void add_linear(NamedShapes& list, const std::string& prefix, std::pair<int64_t, int64_t> out_in,
                bool bias) {
  list.push_back({prefix + ".weight", {out_in.first, out_in.second}});
  if (bias) list.push_back({prefix + ".bias", {out_in.first}});
}

void add_attention(NamedShapes& list, const std::string& prefix, const ModelOptions& o) {
  const int64_t D = o.hidden_size, NH = o.num_heads * o.head_dim, GH = o.num_kv_heads * o.head_dim;
  add_linear(list, prefix + "q_proj", {NH, D}, o.attention_bias);
  add_linear(list, prefix + "k_proj", {GH, D}, o.attention_bias);
  add_linear(list, prefix + "v_proj", {GH, D}, o.attention_bias);
  add_linear(list, prefix + "o_proj", {D, NH}, o.attention_bias);
}

void add_mla(NamedShapes& list, const std::string& prefix, const MlaOptions& o) {
  const int64_t D = o.hidden_size, N = o.num_heads, G = o.num_kv_heads;
  const int64_t Hn = o.qk_nope_head_dim, Hr = o.qk_rope_head_dim, Hv = o.v_head_dim;
  add_linear(list, prefix + "q_a_proj", {o.q_lora_rank, D}, o.bias);
  add_linear(list, prefix + "q_b_proj", {N * (Hn + Hr), o.q_lora_rank}, false);
  add_linear(list, prefix + "kv_a_proj_with_mqa", {o.kv_lora_rank + Hr, D}, o.bias);
  add_linear(list, prefix + "kv_b_proj", {G * (Hn + Hv), o.kv_lora_rank}, false);
  add_linear(list, prefix + "out_proj", {D, N * Hv}, o.bias);
  if (!o.latent_norm) return;
  list.push_back({prefix + "q_a_layernorm.weight", {o.q_lora_rank}});
  list.push_back({prefix + "kv_a_layernorm.weight", {o.kv_lora_rank}});
}

void add_mamba2(NamedShapes& list, const std::string& prefix, const Mamba2Options& o) {
  const int64_t D = o.hidden_size, N = o.num_heads, NP = N * o.head_dim;
  const int64_t GP = o.num_kv_heads * o.head_dim;
  const int64_t C = o.repeat_kv_before_conv ? 3 * NP : NP + 2 * GP;
  add_linear(list, prefix + "in_proj", {2 * NP + 2 * GP + N, D}, o.bias);
  list.push_back({prefix + "conv1d.weight", {C, 1, o.d_conv}});
  if (o.conv_bias) list.push_back({prefix + "conv1d.bias", {C}});
  for (const char* name : {"dt_bias", "A_log", "D"}) list.push_back({prefix + name, {N}});
  list.push_back({prefix + "norm.weight", {NP}});
  add_linear(list, prefix + "out_proj", {D, NP}, o.bias);
}

void add_mixer(NamedShapes& list, const std::string& prefix, const ModelOptions& options,
               int64_t layer) {
  switch (options.layers[layer]) {
    case MixerKind::kAttention:
      return add_attention(list, prefix + "self_attn.", options);
    case MixerKind::kMla:
      return add_mla(list, prefix + "mla.", options.mla_of_layer(layer));
    case MixerKind::kMamba2:
      return add_mamba2(list, prefix + "mamba.", options.mamba2);
  }
}

// Tables that old versions of transformers stored and nobody reads.
bool is_rope_table(const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); }

// Of a tensor's dtype and bits; only one tensor is in memory at a time.
uint64_t fingerprint(const WeightFolder& weights, const std::string& name) {
  const at::Tensor weight = weights.read(name);
  Hasher hasher;
  hasher.add(static_cast<int>(weight.scalar_type()));
  hasher.add_bytes(weight.data_ptr(), weight.nbytes());
  return hasher.value();
}

}  // namespace

std::string layer_prefix(int64_t layer) { return str("model.layers.", layer, "."); }

NamedShapes expected_tensors(const ModelOptions& options) {
  const int64_t V = options.vocab_size, D = options.hidden_size, F = options.intermediate_size;
  NamedShapes list = {{kEmbedding, {V, D}}};
  for (int64_t layer = 0; layer < options.num_layers(); ++layer) {
    const std::string prefix = layer_prefix(layer);
    list.push_back({prefix + "input_layernorm.weight", {D}});
    add_mixer(list, prefix, options, layer);
    list.push_back({prefix + "post_attention_layernorm.weight", {D}});
    add_linear(list, prefix + "mlp.gate_proj", {F, D}, options.mlp_bias);
    add_linear(list, prefix + "mlp.up_proj", {F, D}, options.mlp_bias);
    add_linear(list, prefix + "mlp.down_proj", {D, F}, options.mlp_bias);
  }
  list.push_back({kFinalNorm, {D}});
  const bool has_head = !options.tie_word_embeddings || !options.is_llama();
  if (has_head) list.push_back({kHead, {V, D}});
  return list;
}

at::ScalarType weight_dtype(const std::string& name, at::ScalarType model_dtype) {
  const bool exact = name.ends_with(".A_log") || name.ends_with(".dt_bias") ||
                     name.ends_with(".D") || name == "A_log" || name == "dt_bias" || name == "D";
  return exact && at::isReducedFloatingType(model_dtype) ? at::kFloat : model_dtype;
}

at::Tensor cast_weight(const at::Tensor& weight, at::ScalarType dtype, const std::string& name) {
  const at::Tensor cast = weight.to(dtype);
  if (dtype == at::kHalf && weight.scalar_type() != at::kHalf &&
      torch::isinf(cast).logical_and_(torch::isfinite(weight)).any().item<bool>()) {
    throw ConfigError(str("tensor '", name, "': expected values up to 65504 for float16, got ",
                          weight.abs().max().item<double>()));
  }
  return cast;
}

ModelFolder::ModelFolder(const fs::path& folder)
    : folder_(folder), weights_(folder), options_(read_model_options(folder)) {
  check();
  options_.tie_word_embeddings = decide_tied();
}

// Every problem is found; the first is told and the others are counted.
void ModelFolder::check() const {
  std::vector<std::string> problems;
  std::set<std::string> known;
  const auto where = [&](const std::string& name) { return weights_.file_of(name).string(); };
  for (const auto& [name, shape] : expected_tensors(options_)) {
    known.insert(name);
    if (!weights_.contains(name)) {
      if (name == kHead && options_.tie_word_embeddings) continue;
      problems.push_back(str(folder_.string(), ": expected tensor '", name, "', got none"));
      continue;
    }
    const TensorInfo info = weights_.info(name);
    if (info.shape != shape) {
      problems.push_back(zebra::str(where(name), ": tensor '", name, "': expected shape ",
                                    at::IntArrayRef(shape), ", got ", at::IntArrayRef(info.shape)));
    } else if (!at::isFloatingType(info.dtype)) {
      problems.push_back(zebra::str(where(name), ": tensor '", name,
                                    "': expected a floating dtype, got ",
                                    c10::toString(info.dtype)));
    }
  }
  const std::vector<int64_t> head_shape = {options_.vocab_size, options_.hidden_size};
  for (const auto& name : weights_.names()) {
    if (known.contains(name) || is_rope_table(name)) continue;
    if (name == kHead && weights_.info(name).shape == head_shape) continue;  // a tied Llama's
    problems.push_back(str(where(name), ": tensor '", name, "': not expected in this model"));
  }
  if (problems.empty()) return;
  const std::string more = problems.size() > 1 ? str(" (and ", problems.size() - 1, " more)") : "";
  throw ConfigError(problems[0] + more);
}

bool ModelFolder::decide_tied() const {
  if (!options_.tie_word_embeddings || !weights_.contains(kHead)) {
    return options_.tie_word_embeddings;
  }
  if (fingerprint(weights_, kHead) == fingerprint(weights_, kEmbedding)) return true;
  if (!options_.is_llama()) return false;  // published hybrids drift apart under a tied config.json
  throw ConfigError(str(weights_.file_of(kHead).string(), ": tensor '", kHead, "': expected '",
                        kEmbedding, "', to which config.json ties it, got other values"));
}

at::Tensor ModelFolder::read(const std::string& name) const {
  return weights_.read(name == kHead && options_.tie_word_embeddings ? kEmbedding : name);
}

std::vector<std::string> ModelFolder::by_file(std::vector<std::string> names) const {
  const auto file = [this](const std::string& name) {
    return weights_.contains(name) ? weights_.file_of(name) : fs::path();
  };
  std::stable_sort(names.begin(), names.end(),
                   [&](const std::string& a, const std::string& b) { return file(a) < file(b); });
  return names;
}

ModelOptions one_layer(const ModelOptions& options, int64_t layer, int64_t vocab_size) {
  ModelOptions one = options;
  one.vocab_size = vocab_size;
  one.tie_word_embeddings = true;
  one.layers = {options.layers.at(layer)};
  if (!options.mla_ranks.empty()) one.mla_ranks = {options.mla_ranks.at(layer)};
  return one;
}

void fill(torch::nn::Module& module, const std::string& prefix, const ModelFolder& folder,
          const LoadOptions& load) {
  const torch::NoGradGuard no_grad;
  auto parameters = module.named_parameters();
  std::vector<std::string> names;
  for (const auto& item : parameters) names.push_back(prefix + item.key());
  for (const auto& name : folder.by_file(names)) {
    const auto dtype = weight_dtype(name, load.dtype);
    const at::Tensor weight = cast_weight(folder.read(name), dtype, name);
    parameters[name.substr(prefix.size())].set_data(weight.to(load.device));
  }
}

}  // namespace zebra
