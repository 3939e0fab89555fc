// Attention of few queries over many stored tokens. A piece of the tokens is walked in blocks; a
// block of another type than the products' is widened once and then serves every query that reads
// the group. Scores: lanes run along the queries, so that a key's numbers are broadcast and no sum
// crosses lanes. Mixing: lanes run along the value, four queries at a time. Softmax is online: sums
// and mixtures of a piece are relative to the greatest score so far.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/vec.h"

namespace zebra::detail::ZEBRA_ISA {

// (kAttentionBlock, width) numbers of one group, `stride` apart.
template <class Real>
struct TokenBlock {
  const Real* data;
  int64_t stride;
};

ZEBRA_INLINE float widen(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// Tokens begin ... begin + count - 1 of row b, group g. Reals are read in place.
template <class Real>
ZEBRA_INLINE TokenBlock<Real> load_tokens(const StoredTokens& from, int64_t row, int64_t g,
                                          int64_t groups, int64_t count, Real* __restrict scratch) {
  const int64_t width = from.width / groups, offset = row * from.width + g * width;
  if (from.type == StoredType::kReal) {
    return {static_cast<const Real*>(from.data) + offset, from.width};
  }
  if (from.type == StoredType::kBfloat16) {
    const auto* data = static_cast<const uint16_t*>(from.data) + offset;
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t h = 0; h < width; ++h) scratch[k * width + h] = widen(data[k * from.width + h]);
    }
    return {scratch, width};
  }
  const auto* data = static_cast<const int8_t*>(from.data) + offset;
  const int64_t parts = from.part_count / groups;
  for (int64_t k = 0; k < count; ++k) {
    const float* scales = from.scales + (row + k) * from.part_count + g * parts;
    int64_t h = 0;
    for (int64_t part = 0; part < parts; ++part) {
      const Real scale = scales[part];
      const int64_t end = h + from.parts[g * parts + part];
      for (; h < end; ++h) {
        scratch[k * width + h] = scale * static_cast<Real>(data[k * from.width + h]);
      }
    }
  }
  return {scratch, width};
}

// scores[k][r] = sum_h keys[k][h] q[h][r] for kKeys keys and kVectors vectors of queries.
template <class Real, int W, int kKeys, int kVectors>
ZEBRA_INLINE void score_tile(const Real* q, int64_t lanes, const TokenBlock<Real>& keys, int64_t H,
                             Real* __restrict scores) {
  using S = Simd<Real, W>;
  typename S::V sums[kKeys][kVectors] = {};
  for (int64_t h = 0; h < H; ++h) {
    typename S::V queries[kVectors];
    for (int v = 0; v < kVectors; ++v) queries[v] = S::load(q + h * lanes + v * W);
    for (int k = 0; k < kKeys; ++k) {
      const Real key = keys.data[k * keys.stride + h];
      for (int v = 0; v < kVectors; ++v) sums[k][v] += queries[v] * key;
    }
  }
  for (int k = 0; k < kKeys; ++k) {
    for (int v = 0; v < kVectors; ++v) S::store(scores + k * lanes + v * W, sums[k][v]);
  }
}

// mixed[r][h] += sum_k p[k][r] values[k][h] for kRows queries and one or two vectors of h.
template <class Real, int W, int kRows, int kVectors>
ZEBRA_INLINE void mix_tile(const Real* p, int64_t lanes, const TokenBlock<Real>& values,
                           int64_t count, Real* __restrict mixed, int64_t stride) {
  using S = Simd<Real, W>;
  typename S::V sums[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) sums[r][v] = S::load(mixed + r * stride + v * W);
  }
  for (int64_t k = 0; k < count; ++k) {
    typename S::V value[kVectors];
    for (int v = 0; v < kVectors; ++v) value[v] = S::load(values.data + k * values.stride + v * W);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) sums[r][v] += value[v] * p[k * lanes + r];
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) S::store(mixed + r * stride + v * W, sums[r][v]);
  }
}

template <class Real, int W>
struct PieceOfAttention {
  using S = Simd<Real, W>;
  using V = typename S::V;

  const CachedAttention<Real>& args;
  int64_t b, g, piece;
  int64_t R, lanes, stride;  // queries; padded to vectors; width of a padded mixture
  Real *q, *scores, *mixed, *largest, *sums, *fade, *key_scratch, *value_scratch;

  PieceOfAttention(const CachedAttention<Real>& all, int64_t item, Real* scratch)
      : args(all),
        b(item / (all.pieces * all.G)),
        g(item / all.pieces % all.G),
        piece(item % all.pieces),
        R(all.rows()),
        lanes(all.lanes()),
        stride(all.value_stride()) {
    q = scratch;                                            // (H, lanes)
    scores = q + all.H * lanes;                             // (block, lanes)
    mixed = scores + kAttentionBlock * lanes;               // (R, stride)
    largest = mixed + R * stride;                           // (lanes)
    sums = largest + lanes;                                 // (lanes)
    fade = sums + lanes;                                    // (lanes)
    key_scratch = fade + lanes;                             // (block, H)
    value_scratch = key_scratch + kAttentionBlock * all.H;  // (block, Hv)
  }

  // Queries scaled and transposed, r = t * (N / G) + head of the group; zeros in the padding.
  ZEBRA_INLINE void start() {
    const int64_t repeat = args.N / args.G;
    for (int64_t r = 0; r < lanes; ++r) {
      const Real* from = args.q.at(b, r / repeat) + (g * repeat + r % repeat) * args.H;
      for (int64_t h = 0; h < args.H; ++h) {
        q[h * lanes + r] = r < R ? from[h] * args.scale : Real{0};
      }
    }
    for (int64_t i = 0; i < R * stride; ++i) mixed[i] = 0;
    for (int64_t r = 0; r < lanes; ++r) {
      largest[r] = kLowestScore<Real>;
      sums[r] = 0;
    }
  }

  ZEBRA_INLINE void run() {
    const int64_t begin = piece * kAttentionPiece;
    const int64_t seen = args.first[b] + args.T;
    const int64_t end = begin + kAttentionPiece < seen ? begin + kAttentionPiece : seen;
    if (begin >= end) return;
    start();
    for (int64_t at = begin; at < end; at += kAttentionBlock) {
      const int64_t count = end - at < kAttentionBlock ? end - at : kAttentionBlock;
      block(at, count);
    }
    finish();
  }

  ZEBRA_INLINE void block(int64_t at, int64_t count) {
    const int64_t row = b * args.keys.room + at;
    const TokenBlock<Real> keys = load_tokens(args.keys, row, g, args.G, count, key_scratch);
    score(keys, count);
    hide(at, count);
    normalise(count);
    if (args.values.data == args.keys.data) return mix(keys, count);
    mix(load_tokens(args.values, b * args.values.room + at, g, args.G, count, value_scratch),
        count);
  }

  ZEBRA_INLINE void score(const TokenBlock<Real>& keys, int64_t count) {
    int64_t k = 0;
    for (; k + 4 <= count; k += 4) score_keys<4>(keys, k);
    for (; k < count; ++k) score_keys<1>(keys, k);
  }

  template <int kKeys>
  ZEBRA_INLINE void score_keys(const TokenBlock<Real>& keys, int64_t k) {
    const TokenBlock<Real> from{keys.data + k * keys.stride, keys.stride};
    Real* const to = scores + k * lanes;
    int64_t r = 0;
    for (; r + 2 * W <= lanes; r += 2 * W) {
      score_tile<Real, W, kKeys, 2>(q + r, lanes, from, args.H, to + r);
    }
    if (r < lanes) score_tile<Real, W, kKeys, 1>(q + r, lanes, from, args.H, to + r);
  }

  // Query t sees the positions up to first + t.
  ZEBRA_INLINE void hide(int64_t at, int64_t count) {
    if (at + count <= args.first[b] + 1) return;
    const int64_t repeat = args.N / args.G;
    for (int64_t r = 0; r < R; ++r) {
      const int64_t visible = args.first[b] + r / repeat + 1 - at;
      for (int64_t k = visible > 0 ? visible : 0; k < count; ++k) {
        scores[k * lanes + r] = 2 * kLowestScore<Real>;
      }
    }
  }

  // Scores become exp(score - greatest); `fade` is what earlier sums are multiplied by.
  ZEBRA_INLINE void normalise(int64_t count) {
    for (int64_t r = 0; r < lanes; r += W) {
      const V before = S::load(largest + r);
      V most = before;
      for (int64_t k = 0; k < count; ++k) {
        const V score = S::load(scores + k * lanes + r);
        most = score > most ? score : most;
      }
      const V faded = S::exp_nonpositive(before - most);
      V sum = S::load(sums + r) * faded;
      for (int64_t k = 0; k < count; ++k) {
        const V p = S::exp_nonpositive(S::load(scores + k * lanes + r) - most);
        S::store(scores + k * lanes + r, p);
        sum += p;
      }
      S::store(largest + r, most);
      S::store(sums + r, sum);
      S::store(fade + r, faded);
    }
    for (int64_t r = 0; r < R; ++r) {
      for (int64_t h = 0; h < stride; ++h) mixed[r * stride + h] *= fade[r];
    }
  }

  ZEBRA_INLINE void mix(const TokenBlock<Real>& values, int64_t count) {
    int64_t r = 0;
    for (; r + 4 <= R; r += 4) mix_rows<4>(values, count, r);
    for (; r + 2 <= R; r += 2) mix_rows<2>(values, count, r);
    if (r < R) mix_rows<1>(values, count, r);
  }

  template <int kRows>
  ZEBRA_INLINE void mix_rows(const TokenBlock<Real>& values, int64_t count, int64_t r) {
    const Real* const p = scores + r;
    Real* const to = mixed + r * stride;
    int64_t h = 0;
    const auto from = [&] { return TokenBlock<Real>{values.data + h, values.stride}; };
    for (; h + 2 * W <= args.Hv; h += 2 * W) {
      mix_tile<Real, W, kRows, 2>(p, lanes, from(), count, to + h, stride);
    }
    for (; h + W <= args.Hv; h += W) {
      mix_tile<Real, W, kRows, 1>(p, lanes, from(), count, to + h, stride);
    }
    for (; h < args.Hv; ++h) {
      for (int row = 0; row < kRows; ++row) {
        Real sum = to[row * stride + h];
        for (int64_t k = 0; k < count; ++k) {
          sum += p[k * lanes + row] * values.data[k * values.stride + h];
        }
        to[row * stride + h] = sum;
      }
    }
  }

  ZEBRA_INLINE void finish() {
    const int64_t first = ((b * args.G + g) * args.pieces + piece) * R;
    for (int64_t r = 0; r < R; ++r) {
      args.largest[first + r] = largest[r];
      args.sums[first + r] = sums[r];
      for (int64_t h = 0; h < args.Hv; ++h) {
        args.mixed[(first + r) * args.Hv + h] = mixed[r * stride + h];
      }
    }
  }
};

template <class Real>
void cached_attention(const CachedAttention<Real>& args, int64_t begin, int64_t end,
                      Real* scratch) {
  constexpr int W = kFullWidth<Real> < 8 ? kFullWidth<Real> : 8;
  for (int64_t item = begin; item < end; ++item) {
    PieceOfAttention<Real, W>(args, item, scratch).run();
  }
}

}  // namespace zebra::detail::ZEBRA_ISA
