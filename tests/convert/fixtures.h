// Small models and comparisons that the tests of model folders share.
#pragma once

#include "support/testing.h"

#include "base/rng.h"
#include "support/close_to.h"
#include "support/temp_dir.h"
#include "zebra/convert.h"
#include "zebra/safetensors.h"

#include <cstring>

namespace zebra::testing {

inline ModelOptions small_llama(bool tied) {
  ModelOptions options;
  options.vocab_size = 61;
  options.hidden_size = 32;
  options.intermediate_size = 48;
  options.num_heads = 4;
  options.num_kv_heads = 2;
  options.head_dim = 8;
  options.max_position_embeddings = 128;
  options.tie_word_embeddings = tied;
  options.layers.assign(3, MixerKind::kAttention);
  return options;
}

// One layer of each kind.
inline ModelOptions small_hybrid(bool tied) {
  ModelOptions options = small_llama(tied);
  options.layers = {MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention};
  options.mla = {.hidden_size = 32,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .q_lora_rank = 16,
                 .kv_lora_rank = 8,
                 .qk_nope_head_dim = 4,
                 .qk_rope_head_dim = 4,
                 .v_head_dim = 8};
  options.mamba2 = {.hidden_size = 32, .num_heads = 4, .num_kv_heads = 2, .head_dim = 8};
  return options;
}

inline CausalLm seeded_model(const ModelOptions& options, uint64_t seed = 5) {
  const KeepDefaultGenerator keep;
  torch::manual_seed(seed);
  return CausalLm(options);
}

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.scalar_type() != b.scalar_type() || a.sizes() != b.sizes()) return false;
  const at::Tensor x = a.detach().cpu().contiguous(), y = b.detach().cpu().contiguous();
  return std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

inline void check_same_model(const CausalLm& actual, const CausalLm& expected) {
  const auto a = actual->named_parameters(), e = expected->named_parameters();
  CHECK(a.keys() == e.keys());
  for (const auto& item : e) {
    INFO(item.key());
    const at::Tensor* found = a.find(item.key());
    REQUIRE(found != nullptr);
    CHECK(same_bits(*found, item.value()));
  }
}

// Same names, dtypes and bits in two folders, however they are cut into files.
inline void check_same_weights(const std::filesystem::path& actual,
                               const std::filesystem::path& expected) {
  const WeightFolder a(actual), e(expected);
  CHECK(a.names() == e.names());
  for (const auto& name : e.names()) {
    INFO(name);
    REQUIRE(a.contains(name));
    CHECK(same_bits(a.read(name), e.read(name)));
  }
}

}  // namespace zebra::testing
