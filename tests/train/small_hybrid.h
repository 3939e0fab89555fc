// A hybrid of one layer of each kind, small enough for many steps in a test.
#pragma once

#include <mutex>

#include "support/testing.h"
#include "zebra/model.h"

namespace zebra::testing {

inline ModelOptions small_hybrid_options(bool tied) {
  ModelOptions options;
  options.vocab_size = 60;
  options.hidden_size = 32;
  options.intermediate_size = 48;
  options.num_heads = 4;
  options.num_kv_heads = 2;
  options.head_dim = 8;
  options.max_position_embeddings = 64;
  options.tie_word_embeddings = tied;
  options.attention_bias = options.mlp_bias = true;
  options.layers = {MixerKind::kAttention, MixerKind::kMla, MixerKind::kMamba2, MixerKind::kMla};
  options.mla = {.hidden_size = 32,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .q_lora_rank = 16,
                 .kv_lora_rank = 8,
                 .qk_nope_head_dim = 4,
                 .qk_rope_head_dim = 4,
                 .v_head_dim = 8,
                 .latent_norm = true,
                 .bias = true};
  options.mamba2 = {.hidden_size = 32,
                    .num_heads = 4,
                    .num_kv_heads = 2,
                    .head_dim = 8,
                    .chunk_size = 16,
                    .bias = true};
  return options;
}

// The same weights in every call, from whatever thread.
inline CausalLm small_hybrid(bool tied = true) {
  static std::mutex generator;  // the default generator is one for all threads
  const std::lock_guard lock(generator);
  torch::manual_seed(7);
  return CausalLm(small_hybrid_options(tied));
}

struct SmallBatch {
  at::Tensor ids;       // (B, T)
  at::Tensor segments;  // (B, T) or undefined
};

inline SmallBatch small_batch(int64_t seed, int64_t rows, bool packed) {
  const int64_t T = 24;
  const auto ids = (torch::arange(rows * T) * (7 + 2 * seed) + seed).remainder(60).view({rows, T});
  if (!packed) return {ids, {}};
  return {ids,
          torch::arange(T).ge(10).to(torch::kLong).unsqueeze(0).expand({rows, T}).contiguous()};
}

// A loss that every parameter has a part in: cross-entropy of the next token, summed over this
// batch's rows and divided by `tokens`.
inline at::Tensor small_loss(CausalLm& model, const SmallBatch& batch, double tokens) {
  const auto hidden = model->forward(batch.ids, batch.segments);  // (B, T, D)
  const auto logits = at::linear(hidden, model->head_weight());   // (B, T, V)
  const auto targets = batch.ids.roll(-1, 1);
  return at::cross_entropy_loss(logits.flatten(0, 1), targets.flatten(), {}, at::Reduction::Sum) /
         tokens;
}

}  // namespace zebra::testing
