// Bases and students that the tests of initialisation share.
#pragma once

#include "support/testing.h"

#include "base/rng.h"
#include "support/close_to.h"
#include "zebra/init.h"

namespace zebra::testing {

inline constexpr int64_t kHidden = 32, kHeads = 4, kKvHeads = 2, kHeadDim = 8;

inline ModelOptions base_options() {
  ModelOptions options;
  options.vocab_size = 61;
  options.hidden_size = kHidden;
  options.intermediate_size = 48;
  options.num_heads = kHeads;
  options.num_kv_heads = kKvHeads;
  options.head_dim = kHeadDim;
  options.max_position_embeddings = 128;
  options.layers.assign(4, MixerKind::kAttention);
  return options;
}

inline MlaOptions mla_options() {
  return {.hidden_size = kHidden,
          .num_heads = kHeads,
          .num_kv_heads = kKvHeads,
          .q_lora_rank = 16,
          .kv_lora_rank = 8,
          .qk_nope_head_dim = 4,
          .qk_rope_head_dim = 4,
          .v_head_dim = kHeadDim};
}

inline ModelOptions student_options(const std::vector<MixerKind>& layers) {
  ModelOptions options = base_options();
  options.layers = layers;
  options.mla = mla_options();
  options.mamba2 = {
      .hidden_size = kHidden, .num_heads = kHeads, .num_kv_heads = kKvHeads, .head_dim = kHeadDim};
  return options;
}

inline std::vector<MixerKind> pure(MixerKind kind) { return std::vector<MixerKind>(4, kind); }

inline CausalLm seeded_model(const ModelOptions& options, uint64_t seed = 5) {
  const KeepDefaultGenerator keep;
  torch::manual_seed(seed);
  return CausalLm(options);
}

// Random weights of one attention layer in float64.
inline AttentionWeights random_weights(uint64_t seed = 1) {
  auto generator = make_generator(seed);
  const auto normal = [&](int64_t out, int64_t in) {
    return torch::randn({out, in}, generator, at::TensorOptions(at::kDouble));
  };
  return {.q = normal(kHeads * kHeadDim, kHidden),
          .k = normal(kKvHeads * kHeadDim, kHidden),
          .v = normal(kKvHeads * kHeadDim, kHidden),
          .o = normal(kHidden, kHeads * kHeadDim)};
}

// (N * H, D) -> (N, H, D)
inline at::Tensor heads(const at::Tensor& weight, int64_t count) {
  return weight.reshape({count, -1, weight.size(-1)});
}

}  // namespace zebra::testing
