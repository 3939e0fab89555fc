// Attention over the tokens that a cache holds, read as they are stored.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace zebra {

// Keys, values or latents of sequences that grow. A row of W numbers consists of parts; int8
// numbers have one scale a token and part.
struct CachedTokens {
  at::Tensor values;  // (B, S, W) of a floating type, or int8; S is the room, not the length
  at::Tensor scales;  // (B, S, parts) float32, number = int8 * scale; undefined for other types
  std::vector<int64_t> parts;  // widths; their sum is W

  int64_t room() const { return values.defined() ? values.size(1) : 0; }
  int64_t bytes_per_token() const;  // of one sequence
};

// Makes room for at least `tokens` tokens in `batch` sequences, in whole blocks of `block_tokens`;
// what is stored stays. `options`: type and device of the numbers.
void reserve_tokens(CachedTokens& store, int64_t batch, int64_t tokens, int64_t block_tokens,
                    const at::TensorOptions& options);

// fresh: (B, T, W) goes to positions first[b] ... first[b] + T - 1 of row b. REQUIRES: room.
void put_tokens(CachedTokens& store, const at::Tensor& fresh, const std::vector<int64_t>& first);

// The first `count` tokens as numbers of `dtype`, (B, count, W); no copy where none is needed.
at::Tensor get_tokens(const CachedTokens& store, int64_t count, at::ScalarType dtype);

struct CachedAttentionInput {
  at::Tensor q;             // (B, T, N, H)
  CachedTokens keys;        // rows of G keys of width H
  CachedTokens values;      // rows of G values; nothing stored: a value is the beginning of its key
  int64_t groups = 1;       // G; query head n reads group n / (N / G)
  int64_t value_width = 0;  // Hv
  double scale = 1;
  std::vector<int64_t> first;  // (B) position of each row's first query, which sees itself
};

// Softmax attention of query t at position first[b] + t over the positions up to it.
// -> (B, T, N, Hv) in q's dtype. A row's result does not depend on the other rows. Not
// differentiable.
at::Tensor cached_attention(const CachedAttentionInput& in);

}  // namespace zebra
