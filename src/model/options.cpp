#include <algorithm>

#include "model/cache.h"
#include "zebra/error.h"
#include "zebra/model.h"

namespace zebra {

namespace {

void require(bool holds, const std::string& message) {
  if (!holds) throw ConfigError("model: " + message);
}

void validate_mla(const MlaOptions& mla) {
  require(mla.rank_divisor > 0 && mla.q_lora_rank % mla.rank_divisor == 0,
          str("q_lora_rank ", mla.q_lora_rank, " is not a multiple of ", mla.rank_divisor));
  require(mla.kv_lora_rank % mla.rank_divisor == 0,
          str("kv_lora_rank ", mla.kv_lora_rank, " is not a multiple of ", mla.rank_divisor));
  require(mla.q_lora_rank > 0 && mla.kv_lora_rank > 0, "MLA ranks must be positive");
  require(mla.qk_nope_head_dim >= 0 && mla.qk_rope_head_dim > 0 && mla.v_head_dim > 0,
          "MLA head widths must be positive");
  require(mla.qk_rope_head_dim % 2 == 0,
          str("qk_rope_head_dim ", mla.qk_rope_head_dim, " is not even"));
  require(mla.num_kv_heads > 0 && mla.num_heads % mla.num_kv_heads == 0,
          str("MLA: ", mla.num_heads, " heads are not divisible by ", mla.num_kv_heads,
              " key/value heads"));
}

int64_t linear_size(int64_t in, int64_t out, bool bias) { return in * out + (bias ? out : 0); }

int64_t attention_size(const ModelOptions& o) {
  const int64_t D = o.hidden_size, NH = o.num_heads * o.head_dim, GH = o.num_kv_heads * o.head_dim;
  const bool bias = o.attention_bias;
  return linear_size(D, NH, bias) + 2 * linear_size(D, GH, bias) + linear_size(NH, D, bias);
}

int64_t mla_size(const MlaOptions& o) {
  const int64_t Hq = o.qk_nope_head_dim + o.qk_rope_head_dim;
  const int64_t latent = o.kv_lora_rank + o.qk_rope_head_dim;
  return linear_size(o.hidden_size, o.q_lora_rank, o.bias) +
         linear_size(o.q_lora_rank, o.num_heads * Hq, false) +
         linear_size(o.hidden_size, latent, o.bias) +
         linear_size(o.kv_lora_rank, o.num_kv_heads * (o.qk_nope_head_dim + o.v_head_dim), false) +
         linear_size(o.num_heads * o.v_head_dim, o.hidden_size, o.bias) +
         (o.latent_norm ? o.q_lora_rank + o.kv_lora_rank : 0);
}

int64_t conv_channels(const Mamba2Options& o) {
  const int64_t inner = o.num_heads * o.head_dim, narrow = o.num_kv_heads * o.head_dim;
  return o.repeat_kv_before_conv ? 3 * inner : inner + 2 * narrow;
}

int64_t mamba2_size(const Mamba2Options& o) {
  const int64_t inner = o.num_heads * o.head_dim, narrow = o.num_kv_heads * o.head_dim;
  return linear_size(o.hidden_size, 2 * inner + 2 * narrow + o.num_heads, o.bias) +
         conv_channels(o) * (o.d_conv + (o.conv_bias ? 1 : 0)) + 3 * o.num_heads + inner +
         linear_size(inner, o.hidden_size, o.bias);
}

}  // namespace

MlaOptions ModelOptions::mla_of_layer(int64_t layer) const {
  MlaOptions own = mla;
  if (!mla_ranks.empty() && mla_ranks.at(layer)) {
    own.q_lora_rank = mla_ranks[layer]->q_lora_rank;
    own.kv_lora_rank = mla_ranks[layer]->kv_lora_rank;
  }
  return own;
}

bool ModelOptions::is_llama() const {
  return std::all_of(layers.begin(), layers.end(),
                     [](MixerKind kind) { return kind == MixerKind::kAttention; });
}

void ModelOptions::validate() const {
  require(vocab_size > 0 && hidden_size > 0 && intermediate_size > 0 && head_dim > 0,
          "vocabulary, hidden, intermediate and head sizes must be positive");
  require(!layers.empty(), "expected at least one layer");
  require(num_kv_heads > 0 && num_heads % num_kv_heads == 0,
          str(num_heads, " heads are not divisible by ", num_kv_heads, " key/value heads"));
  require(head_dim % 2 == 0, str("head_dim ", head_dim, " is not even"));
  require(mla_ranks.empty() || mla_ranks.size() == layers.size(),
          str("expected ranks for ", layers.size(), " layers, got ", mla_ranks.size()));
  for (int64_t i = 0; i < num_layers(); ++i) {
    if (layers[i] == MixerKind::kMla) validate_mla(mla_of_layer(i));
  }
}

int64_t count_parameters(const ModelOptions& o) {
  const int64_t D = o.hidden_size, F = o.intermediate_size;
  int64_t total = o.vocab_size * D * (o.tie_word_embeddings ? 1 : 2) + D;
  for (int64_t i = 0; i < o.num_layers(); ++i) {
    total += 2 * D + 2 * linear_size(D, F, o.mlp_bias) + linear_size(F, D, o.mlp_bias);
    switch (o.layers[i]) {
      case MixerKind::kAttention:
        total += attention_size(o);
        break;
      case MixerKind::kMla:
        total += mla_size(o.mla_of_layer(i));
        break;
      case MixerKind::kMamba2:
        total += mamba2_size(o.mamba2);
        break;
    }
  }
  return total;
}

CacheSize cache_size(const ModelOptions& o) {
  CacheSize size;
  for (int64_t i = 0; i < o.num_layers(); ++i) {
    switch (o.layers[i]) {
      case MixerKind::kAttention:
        size.kv_values_per_token += 2 * o.num_kv_heads * o.head_dim;
        size.kv_parts_per_token += 2 * o.num_kv_heads;
        break;
      case MixerKind::kMla: {
        const auto mla = o.mla_of_layer(i);
        size.kv_values_per_token += mla.kv_lora_rank + mla.qk_rope_head_dim;
        size.kv_parts_per_token += 2;
        break;
      }
      case MixerKind::kMamba2: {
        const int64_t ssm = o.mamba2.num_heads * o.mamba2.head_dim * o.mamba2.head_dim;
        size.ssm_values_per_sequence += ssm;
        size.state_values_per_sequence += ssm + conv_channels(o.mamba2) * o.mamba2.d_conv;
        break;
      }
    }
  }
  return size;
}

CacheBytes cache_bytes(const ModelOptions& options, const CacheOptions& cache,
                       at::ScalarType model_dtype) {
  constexpr int64_t kScaleBytes = 4;
  const auto size = cache_size(options);
  const auto bytes = [](at::ScalarType type) {
    return static_cast<int64_t>(c10::elementSize(type));
  };
  const auto tokens = stored_type(cache.tokens, model_dtype);
  const auto computed = model_dtype == at::kDouble ? at::kDouble : at::kFloat;
  const auto ssm = cache.state == CacheDtype::kBfloat16 ? at::kBFloat16 : computed;
  const int64_t conv = size.state_values_per_sequence - size.ssm_values_per_sequence;
  return {.per_token = size.kv_values_per_token * bytes(tokens) +
                       (tokens == at::kChar ? size.kv_parts_per_token * kScaleBytes : 0),
          .per_sequence = size.ssm_values_per_sequence * bytes(ssm) + conv * bytes(model_dtype)};
}

ModelOptions as_llama(ModelOptions options) {
  std::fill(options.layers.begin(), options.layers.end(), MixerKind::kAttention);
  return options;
}

}  // namespace zebra
