// Pure functions on tensors: every operation that a layer is made of, differentiable, for any
// device. Shapes use the alphabet of docs/notation.md. Each has its slow, obvious twin in
// src/ops/reference.h. A tensor argument that may be absent is an undefined at::Tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace zebra {

// ---- normalisation
// -------------------------------------------------------------------------------------------------

// RMSNorm over the last dimension, computed in float32 (float64 stays float64).
// x: (..., D), weight: (D) -> (..., D) in x's dtype.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// Mamba2's output norm: RMSNorm over groups of `group_size` channels of x * silu(gate); the gate
// comes before the norm. x, gate: (..., D), weight: (D), D % group_size == 0 -> (..., D).  Dao & Gu
// 2024 (arXiv 2405.21060), section 7.
at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                          int64_t group_size, double eps);

// silu(gate) * up. gate, up: (..., F) -> (..., F)
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

// ---- rotary position embedding
// ---------------------------------------------------------------------------------------

// How a head's dimensions form the pairs that are rotated together.
enum class RopePairing {
  kHalfSplit,    // (i, i + H/2): Hugging Face Llama
  kInterleaved,  // (2i, 2i + 1): DeepSeek's MLA; the output is in half-split order, as published
};

// Cosines and sines of one forward pass; already carry the attention factor of the scaling (YaRN).
struct RopeTable {
  at::Tensor cos;  // (B or 1, T, H/2) float32 (float64 for a float64 model)
  at::Tensor sin;  // (B or 1, T, H/2)
};

// x: (B, T, N, H) -> (B, T, N, H), rotated in float32 and returned in x's dtype.
at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table, RopePairing pairing);

// ---- attention
// -------------------------------------------------------------------------------------------------------

// Softmax attention with grouped keys and values: query head n reads key head n / (N / G).
// q: (B, T, N, H), k: (B, S, G, H), v: (B, S, G, Hv) -> (B, T, N, Hv). Hv may differ from H.
// Query t stands at key position S - T + t and sees no later key.
// segments: undefined, or (B, S) int64: a query sees only keys of its own segment (documents of a
// packed sequence).
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, const at::Tensor& segments);

// ---- Mamba2
// ----------------------------------------------------------------------------------------------------------

struct ConvOutput {
  at::Tensor y;      // (B, T, C)
  at::Tensor state;  // (B, C, K): the last K inputs, newest last, zeros before the first token; not
                     // differentiable
};

// Depthwise causal convolution of width K with bias, then SiLU.
// x: (B, T, C), weight: (C, K), bias: (C) or undefined, state: (B, C, K) of an earlier piece or
// undefined. segments: undefined or (B, T) int64: taps never reach back over a change of segment
// (nor, then, into `state` unless segments[:, 0] continues it, which the caller says by passing
// `state`).
ConvOutput causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& state, const at::Tensor& segments);

struct SsdInput {
  at::Tensor x;        // (B, T, G, P)   values
  at::Tensor dt;       // (B, T, N)      step before bias and softplus
  at::Tensor A_log;    // (N)            A = -exp(A_log), read in float32
  at::Tensor B;        // (B, T, G, Z)   keys
  at::Tensor C;        // (B, T, N, Z)   queries
  at::Tensor D;        // (N)            skip
  at::Tensor dt_bias;  // (N)
  at::Tensor
      state;  // (B, N, P, Z) of an earlier piece, float32, or undefined (zeros); not differentiable
  at::Tensor segments;  // undefined or (B, T) int64: the state is zero at the first token of each
                        // new segment
  int64_t chunk_size = 64;  // L of the product form; any T works
};

struct SsdOutput {
  at::Tensor y;      // (B, T, N, P) in x's dtype
  at::Tensor state;  // (B, N, P, Z) float32 (float64 for float64 input), after the last token; not
                     // differentiable
};

// State-space duality scan: S_t = exp(dt'_t A) S_{t-1} + dt'_t x_t B_t^T, y_t = S_t C_t + D x_t,
// with dt' = softplus(dt + dt_bias) and head n reading group n / (N / G) of x and B.
// docs/math/ssd.md.
SsdOutput ssd(const SsdInput& in);

// ---- pieces of a sequence
// --------------------------------------------------------------------------------------------

// Positions that restart at 0 with each segment. segments: (B, T) int64 -> (B, T) int64
at::Tensor segment_positions(const at::Tensor& segments);

}  // namespace zebra
