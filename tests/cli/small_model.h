// A Llama that takes no time, and a recipe that makes a hybrid of it.
#pragma once

#include <cstdint>
#include <string>

#include "zebra/model.h"

namespace zebra::testing {

inline ModelOptions small_llama(int64_t vocab_size) {
  ModelOptions options;
  options.vocab_size = vocab_size;
  options.hidden_size = 32;
  options.intermediate_size = 48;
  options.num_heads = 4;
  options.num_kv_heads = 2;
  options.head_dim = 8;
  options.max_position_embeddings = 128;
  options.layers.assign(3, MixerKind::kAttention);
  return options;
}

// Of `llama`, on stories of two files; `stages` and what follows it are the caller's.
inline std::string small_recipe(const std::string& output, const std::string& train,
                                const std::string& validation, const std::string& rest) {
  return "name: small\noutput: " + output +
         "\nbase: {model: llama}\n"
         "hybrid:\n"
         "  mla_layers: [1]\n"
         "  mla: {q_lora_rank: 16, kv_lora_rank: 8, qk_nope_head_dim: 4, qk_rope_head_dim: 4,\n"
         "        v_head_dim: 8, rope: default}\n"
         "data:\n"
         "  sequence_length: 32\n"
         "  train: [{path: " +
         train +
         ", format: stories}]\n"
         "  validation: [{path: " +
         validation + ", format: stories}]\n" + rest;
}

}  // namespace zebra::testing
