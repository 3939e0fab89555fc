// The CPU kernels of the Mamba2 operations: plain pointers and sizes, no LibTorch. Each is built
// once for every instruction set (isa_*.cpp); kernels<Real>() picks the best one at run time.
// A kernel works on the items [begin, end) of its own unit of work and touches no other item's
// output, so the caller may split the range over threads in any way and always gets the same bits.
#pragma once

#include <cstdint>

namespace zebra::detail {

inline constexpr int64_t kMaxLanes = 16;  // numbers in the widest vector of any instruction set

// A (B, T, ...) tensor whose inner dimensions are dense. Strides count elements.
template <class Real>
struct Rows {
  Real* data = nullptr;
  int64_t batch_stride = 0;
  int64_t token_stride = 0;

  Real* at(int64_t batch, int64_t token) const {
    return data + batch * batch_stride + token * token_stride;
  }
};

// ---- ssd ----------------------------------------------------------------------------------------

// The scan walks the tokens in chunks of this length; a checkpoint of the state precedes each.
inline constexpr int64_t kScanChunk = 64;

// Tokens taken at once; the last ones of a chunk come singly.
inline constexpr int kScanBlock = 4;
inline constexpr int64_t kScanBlocks =
    kScanChunk / kScanBlock + kScanBlock;  // of one chunk at most

// Rows of a state are padded to whole vectors of every instruction set.
constexpr int64_t padded_state_width(int64_t Z) { return Z <= 8 ? 8 : (Z + 15) / 16 * 16; }

struct SsdShape {
  int64_t B = 0, T = 0, G = 0, N = 0, P = 0, Z = 0;
  int64_t chunks() const { return (T + kScanChunk - 1) / kScanChunk; }
};

template <class Real>
struct SsdInputs {
  SsdShape shape;
  Rows<const Real> x, dt, B, C;     // (B, T, G, P), (B, T, N), (B, T, G, Z), (B, T, N, Z)
  const Real* A = nullptr;          // (N) negative
  const Real* D = nullptr;          // (N)
  const Real* dt_bias = nullptr;    // (N)
  const uint8_t* starts = nullptr;  // (B, T) 1 where the state is cut, or null
};

// Items: heads, B * N.
template <class Real>
struct SsdForward {
  SsdInputs<Real> in;
  const Real* state_in = nullptr;  // (B, N, P, Z) or null
  Real* y = nullptr;               // (B, T, N, P)
  Real* state_out = nullptr;       // (B, N, P, Z)
  Real* checkpoints = nullptr;     // (B, N, chunks, P, padded Z) or null: not wanted
};

// Items: groups, B * G.
template <class Real>
struct SsdBackward {
  SsdInputs<Real> in;
  const Real* dy = nullptr;           // (B, T, N, P)
  const Real* checkpoints = nullptr;  // (B, N, chunks, P, padded Z)
  Real* dx = nullptr;                 // (B, T, G, P)
  Real* ddt = nullptr;                // (B, T, N)
  Real* dB = nullptr;                 // (B, T, G, Z)
  Real* dC = nullptr;                 // (B, T, N, Z)
  double* dscalars = nullptr;         // (B, N, 3): dA, dD, ddt_bias of one sequence
};

// ---- causal_conv1d ------------------------------------------------------------------------------

inline constexpr int64_t kConvTokens = 128;   // tokens of one item
inline constexpr int64_t kConvTile = 256;     // channels walked together
inline constexpr int64_t kMaxConvWidth = 16;  // REQUIRES: K is not larger

template <class Real>
struct ConvInputs {
  int64_t B = 0, T = 0, C = 0, K = 0;
  Rows<const Real> x;              // (B, T, C)
  const Real* weight = nullptr;    // (K, C), the newest tap last
  const Real* bias = nullptr;      // (C) or null
  const Real* history = nullptr;   // (B, K - 1, C) inputs before the first, or null: zeros
  const int32_t* reach = nullptr;  // (B, T) earlier tokens that a token may see, or null: all
  int64_t blocks() const { return (T + kConvTokens - 1) / kConvTokens; }
};

// Items: B * blocks().
template <class Real>
struct ConvForward {
  ConvInputs<Real> in;
  Real* y = nullptr;  // (B, T, C)
};

// Items: B * blocks().
template <class Real>
struct ConvBackward {
  ConvInputs<Real> in;
  const Real* dy = nullptr;  // (B, T, C)
  Real* dx = nullptr;        // (B, T, C)
  Real* partial = nullptr;   // (items, K + 1, C): weight gradients, then the bias's; zeros
};

// ---- gated_rms_norm -----------------------------------------------------------------------------

template <class Real>
struct GatedNormInputs {
  int64_t rows = 0, D = 0, group_size = 0;
  const Real* x = nullptr;     // (rows, D)
  const Real* gate = nullptr;  // (rows, D)
  int64_t x_stride = 0, gate_stride = 0;
  const Real* weight = nullptr;  // (D)
  Real eps = 0;
};

// Items: rows.
template <class Real>
struct GatedNormForward {
  GatedNormInputs<Real> in;
  Real* y = nullptr;  // (rows, D)
};

// Items: blocks of rows_per_block rows.
template <class Real>
struct GatedNormBackward {
  GatedNormInputs<Real> in;
  int64_t rows_per_block = 0;
  const Real* dy = nullptr;  // (rows, D)
  Real* dx = nullptr;        // (rows, D)
  Real* dgate = nullptr;     // (rows, D)
  Real* partial = nullptr;   // (items, D): weight gradients; zeros
};

// ---- attention over cached tokens ---------------------------------------------------------------

inline constexpr int64_t kAttentionPiece = 256;  // tokens of one item
inline constexpr int64_t kAttentionBlock = 64;   // tokens walked together

// Below every score; twice of it still is a number.
template <class Real>
inline constexpr Real kLowestScore = Real{-1e30F};

enum class StoredType { kReal, kBfloat16, kInt8 };

// (B, room, width) numbers; int8 ones have a scale for each token and part: (B, room, part_count).
struct StoredTokens {
  const void* data = nullptr;
  const float* scales = nullptr;
  StoredType type = StoredType::kReal;
  int64_t room = 0, width = 0;
  const int64_t* parts = nullptr;  // (part_count) widths
  int64_t part_count = 0;          // a multiple of the groups
};

// Items: B * G * pieces. A piece that no query of its row sees writes nothing.
template <class Real>
struct CachedAttention {
  int64_t B = 0, T = 0, N = 0, G = 0, H = 0, Hv = 0, pieces = 0;
  Real scale = 1;
  Rows<const Real> q;              // (B, T, N, H)
  const int64_t* first = nullptr;  // (B) position of a row's first query
  StoredTokens keys, values;       // the same data: values are the beginning of their keys
  Real* mixed = nullptr;           // (items, rows, Hv): sum of exp(score - largest) value
  Real* largest = nullptr;         // (items, rows)
  Real* sums = nullptr;            // (items, rows): sum of exp(score - largest)

  int64_t rows() const { return T * (N / G); }            // queries of a group
  int64_t lanes() const { return (rows() + 7) / 8 * 8; }  // padded to vectors
  int64_t value_stride() const { return (Hv + 7) / 8 * 8; }
  int64_t pieces_of(int64_t b) const { return (first[b] + T - 1) / kAttentionPiece + 1; }
};

// ---- the table ----------------------------------------------------------------------------------

// `scratch` holds at least *_scratch(...) elements, one buffer a thread.
template <class Real>
struct Kernels {
  void (*ssd_forward)(const SsdForward<Real>&, int64_t begin, int64_t end, Real* scratch);
  void (*ssd_backward)(const SsdBackward<Real>&, int64_t begin, int64_t end, Real* scratch);
  void (*conv_forward)(const ConvForward<Real>&, int64_t begin, int64_t end);
  void (*conv_backward)(const ConvBackward<Real>&, int64_t begin, int64_t end, Real* scratch);
  void (*gated_norm_forward)(const GatedNormForward<Real>&, int64_t begin, int64_t end,
                             Real* scratch);
  void (*gated_norm_backward)(const GatedNormBackward<Real>&, int64_t begin, int64_t end,
                              Real* scratch);
  void (*cached_attention)(const CachedAttention<Real>&, int64_t begin, int64_t end, Real* scratch);
};

inline int64_t ssd_forward_scratch(const SsdShape& shape) {
  return kScanChunk * (3 + shape.P) + (2 * kScanChunk + shape.P) * padded_state_width(shape.Z);
}

inline int64_t ssd_backward_scratch(const SsdShape& shape) {
  const int64_t state = shape.P * padded_state_width(shape.Z);
  return kScanChunk * (4 + 2 * shape.P) + shape.P * kScanBlock * kMaxLanes +
         (1 + kScanBlocks) * state;
}

template <class Real>
int64_t conv_backward_scratch(const ConvInputs<Real>& in) {
  return in.K * kConvTile;
}

template <class Real>
int64_t gated_norm_scratch(const GatedNormInputs<Real>& in) {
  return in.group_size + kMaxLanes;
}

template <class Real>
int64_t cached_attention_scratch(const CachedAttention<Real>& in) {
  return (in.H + kAttentionBlock + 3) * in.lanes() + in.rows() * in.value_stride() +
         kAttentionBlock * (in.H + in.Hv);
}

// The set for this processor; ATEN_CPU_CAPABILITY (default, avx2, avx512) lowers it as for ATen.
template <class Real>
const Kernels<Real>& kernels();

}  // namespace zebra::detail
