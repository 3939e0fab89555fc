// y = q rstd w with q = x silu(gate) and rstd = 1 / sqrt(mean(q^2) + eps) over a group of channels;
// with n = q rstd and dn = dy w: dq = rstd (dn - n mean(dn n)), dx = dq silu(gate),
// dgate = dq x silu'(gate), dw = sum over the rows of dy n.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/vec.h"

namespace zebra::detail::ZEBRA_ISA {

ZEBRA_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
ZEBRA_INLINE double square_root(double x) { return __builtin_sqrt(x); }

// One group of one row: q into `q`, and rstd.
template <class Real, int W>
ZEBRA_INLINE Real gate_and_measure(const GatedNormInputs<Real>& in, const Real* x, const Real* gate,
                                   Real* __restrict q) {
  using S = Simd<Real, W>;
  using V = typename S::V;
  V squares = V{};
  for (int64_t c = 0; c < in.group_size; c += W) {
    const int64_t left = in.group_size - c;
    const V z = S::load(gate + c, left);
    const V value = S::load(x + c, left) * z * S::sigmoid(z);
    squares += value * value;
    S::store(q + c, value);
  }
  return Real{1} / square_root(S::sum(squares) / static_cast<Real>(in.group_size) + in.eps);
}

template <class Real, int W>
void norm_rows(const GatedNormForward<Real>& args, int64_t begin, int64_t end, Real* q) {
  using S = Simd<Real, W>;
  const GatedNormInputs<Real>& in = args.in;
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t first = 0; first < in.D; first += in.group_size) {
      const Real* x = in.x + row * in.x_stride + first;
      const Real* gate = in.gate + row * in.gate_stride + first;
      const Real rstd = gate_and_measure<Real, W>(in, x, gate, q);
      Real* y = args.y + row * in.D + first;
      for (int64_t c = 0; c < in.group_size; c += W) {
        const int64_t left = in.group_size - c;
        S::store(y + c, S::load(q + c) * rstd * S::load(in.weight + first + c, left), left);
      }
    }
  }
}

template <class Real, int W>
ZEBRA_INLINE void norm_backward_group(const GatedNormBackward<Real>& args, int64_t row,
                                      int64_t first, Real* __restrict q, Real* __restrict partial) {
  using S = Simd<Real, W>;
  using V = typename S::V;
  const GatedNormInputs<Real>& in = args.in;
  const Real* x = in.x + row * in.x_stride + first;
  const Real* gate = in.gate + row * in.gate_stride + first;
  const Real* dy = args.dy + row * in.D + first;
  const Real rstd = gate_and_measure<Real, W>(in, x, gate, q);
  V products = V{};
  for (int64_t c = 0; c < in.group_size; c += W) {
    const int64_t left = in.group_size - c;
    const V n = S::load(q + c) * rstd, out = S::load(dy + c, left);
    products += out * S::load(in.weight + first + c, left) * n;
    S::store(partial + first + c, S::load(partial + first + c, left) + out * n, left);
  }
  const Real mean = S::sum(products) / static_cast<Real>(in.group_size);
  for (int64_t c = 0; c < in.group_size; c += W) {
    const int64_t left = in.group_size - c;
    const V z = S::load(gate + c, left), sigmoid = S::sigmoid(z);
    const V dn = S::load(dy + c, left) * S::load(in.weight + first + c, left);
    const V dq = (dn - S::load(q + c) * (rstd * mean)) * rstd;
    const V slope = sigmoid * (z * (Real{1} - sigmoid) + Real{1});
    S::store(args.dx + row * in.D + first + c, dq * z * sigmoid, left);
    S::store(args.dgate + row * in.D + first + c, dq * S::load(x + c, left) * slope, left);
  }
}

template <class Real>
void gated_norm_forward(const GatedNormForward<Real>& args, int64_t begin, int64_t end,
                        Real* scratch) {
  constexpr int kFull = kFullWidth<Real>;
  constexpr int kHalf = kFull < 8 ? kFull : 8;
  if (args.in.group_size % kFull == 0) return norm_rows<Real, kFull>(args, begin, end, scratch);
  norm_rows<Real, kHalf>(args, begin, end, scratch);
}

template <class Real>
void gated_norm_backward(const GatedNormBackward<Real>& args, int64_t begin, int64_t end,
                         Real* scratch) {
  constexpr int kFull = kFullWidth<Real>;
  constexpr int kHalf = kFull < 8 ? kFull : 8;
  const GatedNormInputs<Real>& in = args.in;
  for (int64_t item = begin; item < end; ++item) {
    Real* partial = args.partial + item * in.D;
    const int64_t stop = (item + 1) * args.rows_per_block;
    for (int64_t row = item * args.rows_per_block; row < stop && row < in.rows; ++row) {
      for (int64_t first = 0; first < in.D; first += in.group_size) {
        if (in.group_size % kFull == 0) {
          norm_backward_group<Real, kFull>(args, row, first, scratch, partial);
        } else {
          norm_backward_group<Real, kHalf>(args, row, first, scratch, partial);
        }
      }
    }
  }
}

}  // namespace zebra::detail::ZEBRA_ISA
