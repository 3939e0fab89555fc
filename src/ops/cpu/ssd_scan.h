// The state-space scan as a recurrence, forward and backward; docs/math/ssd.md has the formulas.
// Lanes run along Z. Four tokens are taken at once, so that a state number is loaded and stored
// once for four updates. The backward pass starts each chunk from its checkpoint, rebuilds the
// states before every block of four, and walks the blocks in reverse: inside a block the four
// states live in registers. A gradient of the decay is then the plain product <dS, S>, which does
// not cancel. The heads of a group are taken one after another by one thread: no atomics.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/cpu/vec.h"

namespace zebra::detail::ZEBRA_ISA {

// What a chunk's tokens need of one head, prepared with whole vectors. In the scratch buffer.
template <class Real>
struct ChunkSteps {
  Real* dt;     // (chunk) after bias and softplus
  Real* decay;  // (chunk) exp(dt A); zero where the state is cut
  Real* raw;    // (chunk) dt before softplus; the backward pass puts softplus' derivative here
  Real* u;      // (chunk, P) dt x
  static int64_t size(const SsdShape& shape) { return kScanChunk * (3 + shape.P); }
};

template <class Real>
ZEBRA_INLINE ChunkSteps<Real> chunk_steps(Real* scratch) {
  return {scratch, scratch + kScanChunk, scratch + 2 * kScanChunk, scratch + 3 * kScanChunk};
}

// One head of one sequence.
template <class Real>
struct Head {
  const SsdInputs<Real>& in;
  int64_t b, n, g;

  const Real* x(int64_t t) const { return in.x.at(b, t) + g * in.shape.P; }
  const Real* B(int64_t t) const { return in.B.at(b, t) + g * in.shape.Z; }
  const Real* C(int64_t t) const { return in.C.at(b, t) + n * in.shape.Z; }
  int64_t index() const { return b * in.shape.N + n; }
};

template <class Real>
void raw_to_slope(const ChunkSteps<Real>& steps) {
  using S = Simd<Real, 8>;
  for (int64_t i = 0; i < kScanChunk; i += 8) {
    S::store(steps.raw + i, S::sigmoid(S::load(steps.raw + i)));
  }
}

template <class Real>
ZEBRA_INLINE void copy_row(Real* to, const Real* from, int64_t count) {
  using S = Simd<Real, 8>;
  for (int64_t i = 0; i < count; i += 8) S::store(to + i, S::load(from + i, count - i), count - i);
}

template <class Real>
void prepare_steps(const Head<Real>& head, int64_t t0, int64_t count, const ChunkSteps<Real>& to) {
  using S = Simd<Real, 8>;
  const SsdInputs<Real>& in = head.in;
  const int64_t P = in.shape.P;
  for (int64_t i = 0; i < count; ++i) {
    to.dt[i] = in.dt.at(head.b, t0 + i)[head.n] + in.dt_bias[head.n];
  }
  for (int64_t i = 0; i < count; i += 8) {
    const typename S::V raw = S::load(to.dt + i, count - i);
    const typename S::V dt = S::softplus(raw);
    S::store(to.dt + i, dt);
    S::store(to.decay + i, S::exp_nonpositive(dt * in.A[head.n]));
    S::store(to.raw + i, raw);
  }
  if (in.starts != nullptr) {
    const uint8_t* starts = in.starts + head.b * in.shape.T + t0;
    for (int64_t i = 0; i < count; ++i) to.decay[i] = starts[i] != 0 ? Real{0} : to.decay[i];
  }
  for (int64_t i = 0; i < count; ++i) {
    const Real* x = head.x(t0 + i);
    for (int64_t p = 0; p < P; p += 8) {
      S::store(to.u + i * P + p, S::load(x + p, P - p) * to.dt[i], P - p);
    }
  }
}

// ---- forward ------------------------------------------------------------------------------------

// K tokens' rows of B and C, `stride` apart.
template <class Real>
struct BlockRows {
  const Real* B;
  const Real* C;
  int64_t B_stride, C_stride;
};

// S_t = decay_t S_{t-1} + u_t B_t^T and y_t = S_t C_t for K tokens. `from` and `to` are states
// (P, padded Z) and may be the same; y: (K, N, P) of this head. kVectors: vectors of a state row, 0
// when it is only known at run time.
template <class Real, int W, int K, int kVectors>
// Everything is in registers. NOLINTNEXTLINE(readability-function-size)
ZEBRA_INLINE void forward_block(const SsdShape& shape, const Real* decay, const Real* u,
                                const BlockRows<Real>& rows, const Real* from, Real* to,
                                Real* __restrict y) {
  using S = Simd<Real, W>;
  using V = typename S::V;
  const int64_t P = shape.P;
  const int64_t width = kVectors > 0 ? kVectors * W : padded_state_width(shape.Z);
  V a[K], b[K], c[K];
  for (int k = 0; k < K; ++k) a[k] = V{} + decay[k];
  if constexpr (kVectors == 1) {
    for (int k = 0; k < K; ++k) b[k] = S::load(rows.B + k * rows.B_stride);
    for (int k = 0; k < K; ++k) c[k] = S::load(rows.C + k * rows.C_stride);
  }
  for (int64_t p = 0; p < P; ++p) {
    V sum[K] = {};
    for (int64_t z = 0; z < width; z += W) {
      V state = S::load(from + p * width + z);
      for (int k = 0; k < K; ++k) {
        if constexpr (kVectors != 1) {
          b[k] = S::load(rows.B + k * rows.B_stride + z);
          c[k] = S::load(rows.C + k * rows.C_stride + z);
        }
        state = state * a[k] + b[k] * u[k * P + p];
        sum[k] += state * c[k];
      }
      S::store(to + p * width + z, state);
    }
    for (int k = 0; k < K; ++k) y[k * shape.N * P + p] = S::sum(sum[k]);
  }
}

// Whole rows of B and C for a chunk: the tensors' own when Z needs no padding, else copies.
template <class Real>
ZEBRA_INLINE BlockRows<Real> chunk_rows(const Head<Real>& head, int64_t t0, int64_t count,
                                        Real* scratch) {
  const int64_t Z = head.in.shape.Z, width = padded_state_width(Z);
  if (width == Z) {
    return {head.B(t0), head.C(t0), head.in.B.token_stride, head.in.C.token_stride};
  }
  Real* B = scratch;
  Real* C = scratch + kScanChunk * width;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t z = 0; z < width; ++z) {
      B[i * width + z] = z < Z ? head.B(t0 + i)[z] : Real{0};
      C[i * width + z] = z < Z ? head.C(t0 + i)[z] : Real{0};
    }
  }
  return {B, C, width, width};
}

template <class Real>
ZEBRA_INLINE void add_skip(const Head<Real>& head, int64_t t, Real* y) {
  using S = Simd<Real, 8>;
  const int64_t P = head.in.shape.P;
  const Real* x = head.x(t);
  for (int64_t p = 0; p < P; p += 8) {
    const int64_t count = P - p;
    S::store(y + p, S::load(y + p, count) + S::load(x + p, count) * head.in.D[head.n], count);
  }
}

template <class Real, int W, int kVectors>
void forward_head(const SsdForward<Real>& args, const Head<Real>& head, Real* scratch) {
  const SsdShape& shape = args.in.shape;
  const int64_t T = shape.T, P = shape.P, Z = shape.Z, NP = shape.N * P;
  const int64_t width = padded_state_width(Z);
  const ChunkSteps<Real> steps = chunk_steps(scratch);
  Real* row_scratch = scratch + ChunkSteps<Real>::size(shape);
  Real* state_out = args.state_out + head.index() * P * Z;
  Real* state = width == Z ? state_out : row_scratch + 2 * kScanChunk * width;
  const Real* state_in = args.state_in == nullptr ? nullptr : args.state_in + head.index() * P * Z;
  for (int64_t i = 0; i < P * width; ++i) state[i] = Real{0};
  for (int64_t p = 0; state_in != nullptr && p < P; ++p) {
    copy_row(state + p * width, state_in + p * Z, Z);
  }

  Real* y = args.y + head.b * T * NP + head.n * P;
  for (int64_t t0 = 0; t0 < T; t0 += kScanChunk) {
    const int64_t count = T - t0 < kScanChunk ? T - t0 : kScanChunk;
    if (args.checkpoints != nullptr) {
      const int64_t index = head.index() * shape.chunks() + t0 / kScanChunk;
      copy_row(args.checkpoints + index * P * width, state, P * width);
    }
    prepare_steps(head, t0, count, steps);
    BlockRows<Real> rows = chunk_rows(head, t0, count, row_scratch);
    for (int64_t i = 0; i < count;) {
      const int64_t K = count - i >= kScanBlock ? kScanBlock : 1;
      const Real* u = steps.u + i * P;
      Real* y_row = y + (t0 + i) * NP;
      if (K == kScanBlock) {
        forward_block<Real, W, kScanBlock, kVectors>(shape, steps.decay + i, u, rows, state, state,
                                                     y_row);
      } else {
        forward_block<Real, W, 1, kVectors>(shape, steps.decay + i, u, rows, state, state, y_row);
      }
      rows.B += K * rows.B_stride;
      rows.C += K * rows.C_stride;
      i += K;
    }
    for (int64_t i = 0; i < count; ++i) add_skip(head, t0 + i, y + (t0 + i) * NP);
  }
  if (state != state_out) {
    for (int64_t p = 0; p < P; ++p) copy_row(state_out + p * Z, state + p * width, Z);
  }
}

// ---- backward -----------------------------------------------------------------------------------

// One head's tensors in the scratch buffer of ssd_backward_scratch elements.
template <class Real>
struct BackwardScratch {
  ChunkSteps<Real> steps;
  Real* dlog;    // (chunk) gradient of dt A
  Real* du;      // (chunk, P)
  Real* lanes;   // (P, kScanBlock, W) du before its lanes are added up
  Real* dstate;  // (P, padded Z) gradient of the state after the current token
  Real* states;  // (kScanBlocks, P, padded Z) states before each block of the chunk

  BackwardScratch(const SsdShape& shape, Real* buffer) {
    const int64_t P = shape.P, state = P * padded_state_width(shape.Z);
    steps = chunk_steps(buffer);
    dlog = buffer + ChunkSteps<Real>::size(shape);
    du = dlog + kScanChunk;
    lanes = du + kScanChunk * P;
    dstate = lanes + P * kScanBlock * kMaxLanes;
    states = dstate + state;
  }
};

// The state K tokens later.
template <class Real, int W, int K>
// Everything is in registers. NOLINTNEXTLINE(readability-function-size)
ZEBRA_INLINE void advance(const Head<Real>& head, int64_t t, const Real* decay, const Real* u,
                          const Real* from, Real* __restrict to) {
  using S = Simd<Real, W>;
  using V = typename S::V;
  const int64_t P = head.in.shape.P, Z = head.in.shape.Z, width = padded_state_width(Z);
  for (int64_t z = 0; z < width; z += W) {
    V a[K], b[K];
    for (int k = 0; k < K; ++k) {
      a[k] = V{} + decay[k];
      b[k] = S::load(head.B(t + k) + z, Z - z);
    }
    for (int64_t p = 0; p < P; ++p) {
      V state = S::load(from + p * width + z);
      for (int k = 0; k < K; ++k) state = state * a[k] + b[k] * u[k * P + p];
      S::store(to + p * width + z, state);
    }
  }
}

// One block in reverse: dC, dB (added unless `first` head of its group), du, dlog, and `dstate`
// moved from after the block's last token to before its first.
template <class Real, int W, int K>
// Everything is in registers. NOLINTNEXTLINE(readability-function-size)
ZEBRA_INLINE void backward_block(const SsdBackward<Real>& args, const Head<Real>& head, int64_t t0,
                                 int64_t i, const Real* __restrict start,
                                 const BackwardScratch<Real>& scratch) {
  using S = Simd<Real, W>;
  using V = typename S::V;
  const SsdShape& shape = args.in.shape;
  const int64_t P = shape.P, Z = shape.Z, N = shape.N, width = padded_state_width(Z);
  const int64_t t = t0 + i, row = head.b * shape.T + t;
  const bool first = head.n % (N / shape.G) == 0;
  const Real* __restrict u = scratch.steps.u + i * P;
  const Real* __restrict dy = args.dy + (row * N + head.n) * P;
  Real* __restrict dstate = scratch.dstate;
  Real* __restrict lanes = scratch.lanes;
  Real* dB = args.dB + (row * shape.G + head.g) * Z;
  Real* dC = args.dC + (row * N + head.n) * Z;
  V a[K], da[K] = {};
  for (int k = 0; k < K; ++k) a[k] = V{} + scratch.steps.decay[i + k];

  for (int64_t z = 0; z < width; z += W) {
    V b[K], c[K], db[K] = {}, dc[K] = {};
    for (int k = 0; k < K; ++k) b[k] = S::load(head.B(t + k) + z, Z - z);
    for (int k = 0; k < K; ++k) c[k] = S::load(head.C(t + k) + z, Z - z);
    for (int64_t p = 0; p < P; ++p) {
      V state[K + 1];
      state[0] = S::load(start + p * width + z);
      for (int k = 0; k < K; ++k) {
        state[k + 1] = state[k] * a[k] + b[k] * u[k * P + p];
        dc[k] += state[k + 1] * dy[k * N * P + p];
      }
      V d = S::load(dstate + p * width + z);
      for (int k = K - 1; k >= 0; --k) {
        Real* lane = lanes + (p * K + k) * W;
        d += c[k] * dy[k * N * P + p];
        db[k] += d * u[k * P + p];
        S::store(lane, z == 0 ? d * b[k] : S::load(lane) + d * b[k]);
        da[k] += d * state[k];
        d *= a[k];
      }
      S::store(dstate + p * width + z, d);
    }
    for (int k = 0; k < K; ++k) {
      Real* to = dB + k * shape.G * Z + z;
      S::store(to, first ? db[k] : S::load(to, Z - z) + db[k], Z - z);
      S::store(dC + k * N * Z + z, dc[k], Z - z);
    }
  }
  for (int k = 0; k < K; ++k) scratch.dlog[i + k] = S::sum(da[k]) * scratch.steps.decay[i + k];
  for (int64_t p = 0; p < P; ++p) {
    for (int k = 0; k < K; ++k) {
      scratch.du[(i + k) * P + p] = S::sum(S::load(lanes + (p * K + k) * W));
    }
  }
}

// From du and dlog of a chunk to dx (added unless first), ddt and the sums of the head's scalars.
template <class Real>
void finish_chunk(const SsdBackward<Real>& args, const Head<Real>& head, int64_t t0, int64_t count,
                  const BackwardScratch<Real>& scratch) {
  using S = Simd<Real, 8>;
  using V = typename S::V;
  const SsdShape& shape = args.in.shape;
  const int64_t P = shape.P, N = shape.N, n = head.n;
  const bool first = n % (N / shape.G) == 0;
  double* sums = args.dscalars + head.index() * 3;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = head.b * shape.T + t0 + i;
    const Real* x = head.x(t0 + i);
    const Real* dy = args.dy + (row * N + n) * P;
    const Real* du = scratch.du + i * P;
    Real* dx = args.dx + (row * shape.G + head.g) * P;
    const Real dt = scratch.steps.dt[i], dlog = scratch.dlog[i];
    V x_du = V{}, x_dy = V{};
    for (int64_t p = 0; p < P; p += 8) {
      const int64_t left = P - p;
      const V values = S::load(x + p, left), out = S::load(dy + p, left),
              in = S::load(du + p, left);
      const V sum = in * dt + out * args.in.D[n];
      x_du += values * in;
      x_dy += values * out;
      S::store(dx + p, first ? sum : S::load(dx + p, left) + sum, left);
    }
    const Real ddt = (S::sum(x_du) + args.in.A[n] * dlog) * scratch.steps.raw[i];
    args.ddt[row * N + n] = ddt;
    sums[0] += static_cast<double>(dt) * static_cast<double>(dlog);
    sums[1] += static_cast<double>(S::sum(x_dy));
    sums[2] += static_cast<double>(ddt);
  }
}

template <class Real, int W>
void backward_head(const SsdBackward<Real>& args, const Head<Real>& head, Real* buffer) {
  const SsdShape& shape = args.in.shape;
  const int64_t P = shape.P, size = P * padded_state_width(shape.Z);
  const BackwardScratch<Real> scratch(shape, buffer);
  for (int64_t i = 0; i < size; ++i) scratch.dstate[i] = Real{0};
  for (int i = 0; i < 3; ++i) args.dscalars[head.index() * 3 + i] = 0.0;

  for (int64_t chunk = shape.chunks() - 1; chunk >= 0; --chunk) {
    const int64_t t0 = chunk * kScanChunk;
    const int64_t count = shape.T - t0 < kScanChunk ? shape.T - t0 : kScanChunk;
    const int64_t whole = count / kScanBlock, blocks = whole + count % kScanBlock;
    const auto start_of = [&](int64_t block) {
      return block < whole ? block * kScanBlock : whole * kScanBlock + (block - whole);
    };
    prepare_steps(head, t0, count, scratch.steps);
    raw_to_slope(scratch.steps);
    copy_row(scratch.states, args.checkpoints + (head.index() * shape.chunks() + chunk) * size,
             size);
    for (int64_t block = 0; block + 1 < blocks; ++block) {
      const int64_t i = start_of(block);
      const Real* from = scratch.states + block * size;
      const Real* u = scratch.steps.u + i * P;
      const Real* decay = scratch.steps.decay + i;
      if (block < whole) {
        advance<Real, W, kScanBlock>(head, t0 + i, decay, u, from,
                                     scratch.states + (block + 1) * size);
      } else {
        advance<Real, W, 1>(head, t0 + i, decay, u, from, scratch.states + (block + 1) * size);
      }
    }
    for (int64_t block = blocks - 1; block >= 0; --block) {
      const Real* start = scratch.states + block * size;
      if (block < whole) {
        backward_block<Real, W, kScanBlock>(args, head, t0, start_of(block), start, scratch);
      } else {
        backward_block<Real, W, 1>(args, head, t0, start_of(block), start, scratch);
      }
    }
    finish_chunk(args, head, t0, count, scratch);
  }
}

// ---- entries ------------------------------------------------------------------------------------

// Vectors of 8 numbers for narrow states, of the whole register where the padded width allows it.
template <class Real>
inline constexpr int kScanWidth = kFullWidth<Real> < 16 ? kFullWidth<Real> : 16;
template <class Real>
inline constexpr int kNarrowWidth = kFullWidth<Real> < 8 ? kFullWidth<Real> : 8;

template <class Real>
void ssd_forward(const SsdForward<Real>& args, int64_t begin, int64_t end, Real* scratch) {
  const SsdShape& shape = args.in.shape;
  const int64_t width = padded_state_width(shape.Z);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t n = item % shape.N;
    const Head<Real> head{args.in, item / shape.N, n, n / (shape.N / shape.G)};
    if (width == kNarrowWidth<Real>) {
      forward_head<Real, kNarrowWidth<Real>, 1>(args, head, scratch);
    } else if (width % kScanWidth<Real> == 0) {
      forward_head<Real, kScanWidth<Real>, 0>(args, head, scratch);
    } else {
      forward_head<Real, kNarrowWidth<Real>, 0>(args, head, scratch);
    }
  }
}

template <class Real>
void ssd_backward(const SsdBackward<Real>& args, int64_t begin, int64_t end, Real* scratch) {
  const SsdShape& shape = args.in.shape;
  const int64_t heads = shape.N / shape.G;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t b = item / shape.G, g = item % shape.G;
    for (int64_t n = g * heads; n < (g + 1) * heads; ++n) {
      const Head<Real> head{args.in, b, n, g};
      if (padded_state_width(shape.Z) % kScanWidth<Real> == 0) {
        backward_head<Real, kScanWidth<Real>>(args, head, scratch);
      } else {
        backward_head<Real, kNarrowWidth<Real>>(args, head, scratch);
      }
    }
  }
}

}  // namespace zebra::detail::ZEBRA_ISA
