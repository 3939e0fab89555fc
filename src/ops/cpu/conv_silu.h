// Depthwise causal convolution with SiLU, forward and backward. Lanes run along the channels; a
// tile of channels is walked token by token so that its weights stay in the first-level cache.
// The backward pass makes g = dy silu'(pre), pre being computed again, in a ring of K rows, and
// emits dx of a token when the last g that it needs is there. An item takes the K - 1 tokens after
// its own along for that, which makes items independent of each other.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/vec.h"

namespace zebra::detail::ZEBRA_ISA {

// Rows of numbers with their weights: sum_i weight_i * row_i.
template <class Real>
struct Taps {
  const Real* rows[kMaxConvWidth];
  const Real* weights[kMaxConvWidth];
  int64_t count = 0;

  ZEBRA_INLINE void add(const Real* row, const Real* weight) {
    rows[count] = row;
    weights[count] = weight;
    ++count;
  }
};

// start + sum of the taps at channel c.
template <class Real, int W, int kCount>
ZEBRA_INLINE typename Simd<Real, W>::V weigh(const Taps<Real>& taps, int64_t c, int64_t left,
                                             typename Simd<Real, W>::V start) {
  using S = Simd<Real, W>;
  const int64_t count = kCount > 0 ? kCount : taps.count;
  for (int64_t i = 0; i < count; ++i) {
    start += S::load(taps.weights[i] + c, left) * S::load(taps.rows[i] + c, left);
  }
  return start;
}

// Calls body(c, channels left) for whole vectors first and then for the rest, so that the common
// part has no partial loads.
template <int W, class Body>
ZEBRA_INLINE void for_channels(int64_t begin, int64_t end, const Body& body) {
  int64_t c = begin;
  for (; c + W <= end; c += W) body(c, static_cast<int64_t>(W));
  if (c < end) body(c, end - c);
}

// The inputs that token t sees, newest first, with their weights.
template <class Real>
ZEBRA_INLINE Taps<Real> visible_taps(const ConvInputs<Real>& in, int64_t b, int64_t t) {
  int64_t reach = in.reach == nullptr ? in.K - 1 : in.reach[b * in.T + t];
  if (in.history == nullptr && reach > t) reach = t;
  Taps<Real> taps;
  for (int64_t back = 0; back <= reach; ++back) {
    const Real* row = t >= back ? in.x.at(b, t - back)
                                : in.history + (b * (in.K - 1) + in.K - 1 + t - back) * in.C;
    taps.add(row, in.weight + (in.K - 1 - back) * in.C);
  }
  return taps;
}

template <class Real, int W, int kCount>
ZEBRA_INLINE void conv_row(const ConvInputs<Real>& in, const Taps<Real>& taps, int64_t c0,
                           int64_t c1, Real* __restrict y) {
  using S = Simd<Real, W>;
  using V = typename S::V;
  for_channels<W>(
      c0, c1, [&](int64_t c, int64_t left) __attribute__((always_inline)) {
        const V bias = in.bias == nullptr ? V{} : S::load(in.bias + c, left);
        const V pre = weigh<Real, W, kCount>(taps, c, left, bias);
        S::store(y + c, pre * S::sigmoid(pre), left);
      });
}

template <class Real>
void conv_forward(const ConvForward<Real>& args, int64_t begin, int64_t end) {
  constexpr int W = kFullWidth<Real>;
  const ConvInputs<Real>& in = args.in;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / in.blocks(), t0 = item % in.blocks() * kConvTokens;
    const int64_t t1 = t0 + kConvTokens < in.T ? t0 + kConvTokens : in.T;
    for (int64_t c0 = 0; c0 < in.C; c0 += kConvTile) {
      const int64_t c1 = c0 + kConvTile < in.C ? c0 + kConvTile : in.C;
      for (int64_t t = t0; t < t1; ++t) {
        const Taps<Real> taps = visible_taps(in, b, t);
        Real* y = args.y + (b * in.T + t) * in.C;
        if (taps.count == 4) {
          conv_row<Real, W, 4>(in, taps, c0, c1, y);
        } else {
          conv_row<Real, W, 0>(in, taps, c0, c1, y);
        }
      }
    }
  }
}

// ---- backward -----------------------------------------------------------------------------------

// g of one token into `g` (tile) and, for the item's own tokens, its share of the weight gradients.
template <class Real, int W, int kCount>
// Everything is in registers. NOLINTNEXTLINE(readability-function-size)
ZEBRA_INLINE void conv_backward_row(const ConvBackward<Real>& args, const Taps<Real>& taps,
                                    const Real* dy, int64_t c0, int64_t c1, Real* __restrict g,
                                    Real* __restrict partial) {
  using S = Simd<Real, W>;
  using V = typename S::V;
  const ConvInputs<Real>& in = args.in;
  const int64_t count = kCount > 0 ? kCount : taps.count;
  for_channels<W>(
      c0, c1, [&](int64_t c, int64_t left) __attribute__((always_inline)) {
        const V bias = in.bias == nullptr ? V{} : S::load(in.bias + c, left);
        const V pre = weigh<Real, W, kCount>(taps, c, left, bias);
        const V sigmoid = S::sigmoid(pre);
        const V slope = sigmoid * (pre * (Real{1} - sigmoid) + Real{1});
        const V flow = S::load(dy + c, left) * slope;
        S::store(g + (c - c0), flow, left);
        if (partial == nullptr) return;
        for (int64_t back = 0; back < count; ++back) {
          Real* to = partial + (in.K - 1 - back) * in.C + c;
          S::store(to, S::load(to, left) + flow * S::load(taps.rows[back] + c, left), left);
        }
        Real* to = partial + in.K * in.C + c;
        S::store(to, S::load(to, left) + flow, left);
      });
}

// dx of token t: every later g that saw it. `ring` holds g of token s at row s % K.
template <class Real>
// Everything is in registers. NOLINTNEXTLINE(readability-function-size)
ZEBRA_INLINE void emit_dx(const ConvBackward<Real>& args, int64_t b, int64_t t, int64_t c0,
                          int64_t c1, const Real* ring) {
  constexpr int W = kFullWidth<Real>;
  using S = Simd<Real, W>;
  const ConvInputs<Real>& in = args.in;
  Taps<Real> taps;
  for (int64_t ahead = 0; ahead < in.K && t + ahead < in.T; ++ahead) {
    if (in.reach != nullptr && in.reach[b * in.T + t + ahead] < ahead) break;
    taps.add(ring + (t + ahead) % in.K * kConvTile, in.weight + (in.K - 1 - ahead) * in.C + c0);
  }
  Real* dx = args.dx + (b * in.T + t) * in.C + c0;
  for_channels<W>(
      0, c1 - c0, [&](int64_t c, int64_t left) __attribute__((always_inline)) {
        const auto sum = taps.count == 4 ? weigh<Real, W, 4>(taps, c, left, typename S::V{})
                                         : weigh<Real, W, 0>(taps, c, left, typename S::V{});
        S::store(dx + c, sum, left);
      });
}

template <class Real>
void conv_backward(const ConvBackward<Real>& args, int64_t begin, int64_t end, Real* scratch) {
  constexpr int W = kFullWidth<Real>;
  const ConvInputs<Real>& in = args.in;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / in.blocks(), t0 = item % in.blocks() * kConvTokens;
    const int64_t t1 = t0 + kConvTokens < in.T ? t0 + kConvTokens : in.T;
    const int64_t stop = t1 + in.K - 1 < in.T ? t1 + in.K - 1 : in.T;
    Real* partial = args.partial + item * (in.K + 1) * in.C;
    for (int64_t c0 = 0; c0 < in.C; c0 += kConvTile) {
      const int64_t c1 = c0 + kConvTile < in.C ? c0 + kConvTile : in.C;
      int64_t next = t0;  // the token whose dx comes next
      for (int64_t t = t0; t < stop; ++t) {
        const Taps<Real> taps = visible_taps(in, b, t);
        const Real* dy = args.dy + (b * in.T + t) * in.C;
        Real* g = scratch + t % in.K * kConvTile;
        Real* sums = t < t1 ? partial : nullptr;
        if (taps.count == 4) {
          conv_backward_row<Real, W, 4>(args, taps, dy, c0, c1, g, sums);
        } else {
          conv_backward_row<Real, W, 0>(args, taps, dy, c0, c1, g, sums);
        }
        if (t - next == in.K - 1) emit_dx(args, b, next++, c0, c1, scratch);
      }
      while (next < t1) emit_dx(args, b, next++, c0, c1, scratch);
    }
  }
}

}  // namespace zebra::detail::ZEBRA_ISA
