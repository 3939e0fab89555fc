// Small models for the tests of src/eval.
#pragma once

#include <cmath>
#include <vector>

#include "data/fixtures.h"
#include "support/close_to.h"
#include "support/testing.h"
#include "zebra/eval.h"

namespace zebra::testing {

inline constexpr int64_t kVocabulary = 264;  // ByteTokenizer's 259 and some that never occur

inline ModelOptions tiny_options(std::vector<MixerKind> layers, int64_t width = 32) {
  ModelOptions options;
  options.vocab_size = kVocabulary;
  options.hidden_size = width;
  options.intermediate_size = 48;
  options.num_heads = 4;
  options.num_kv_heads = 2;
  options.head_dim = 8;
  options.max_position_embeddings = 128;
  options.initializer_range = 0.3;
  options.tie_word_embeddings = false;
  options.mla = {.hidden_size = width,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .q_lora_rank = 16,
                 .kv_lora_rank = 8,
                 .qk_nope_head_dim = 4,
                 .qk_rope_head_dim = 4,
                 .v_head_dim = 8,
                 .rope = {}};
  options.mamba2 = {.hidden_size = width, .num_heads = 4, .num_kv_heads = 2, .head_dim = 8};
  options.layers = std::move(layers);
  return options;
}

inline CausalLm tiny_model(const std::vector<MixerKind>& layers, uint64_t seed,
                           torch::Dtype dtype = torch::kFloat, int64_t width = 32) {
  torch::manual_seed(seed);
  CausalLm model(tiny_options(layers, width));
  model->to(dtype);
  return model;
}

// A model that knows one thing: log p(b | a) = log_softmax(table[a])[b], whatever came before a.
// table: (V, V) float64
inline CausalLm bigram_model(const at::Tensor& table) {
  const at::NoGradGuard no_grad;
  const int64_t V = table.size(0);
  auto options = tiny_options({MixerKind::kAttention}, V);
  options.rms_norm_eps = 1e-12;
  CausalLm model(options);
  model->to(torch::kDouble);
  for (auto& item : model->named_parameters()) {
    const auto& name = item.key();
    if (name.find("o_proj") != std::string::npos || name.find("down_proj") != std::string::npos) {
      item.value().zero_();  // the layer adds nothing
    } else if (name == "model.embed_tokens.weight") {
      item.value().copy_(torch::eye(V));
    } else if (name == "lm_head.weight") {
      item.value().copy_(table.t() / std::sqrt(static_cast<double>(V)));  // undoes the final norm
    }
  }
  return model;
}

// (V, V) float64
inline at::Tensor random_table(uint64_t seed) {
  torch::manual_seed(seed);
  return torch::randn({kVocabulary, kVocabulary}, torch::kDouble) * 2;
}

inline at::Tensor row(const std::vector<int64_t>& ids) {
  return torch::tensor(ids, torch::kLong).unsqueeze(0);  // (1, T)
}

}  // namespace zebra::testing
