// What the basic operations share, and the forms that each of them has: CPU kernels for float32 and
// float64, LibTorch's operations for every other device and dtype. Tests reach the forms one by one
// through this header.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>

#include "zebra/ops.h"

namespace zebra::detail {

// ---- shared -------------------------------------------------------------------------------------

// What sums, exponentials and rotations are computed in: float64 for float64, else float32.
inline at::ScalarType compute_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

inline bool has_cpu_kernel(const at::Tensor& x) {
  return x.device().is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble);
}

// The last dimension has stride 1 in the result; a copy only where it must be.
inline at::Tensor with_dense_rows(const at::Tensor& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

inline void check_shape(const char* subject, const at::Tensor& tensor, at::IntArrayRef expected) {
  TORCH_CHECK(tensor.defined(), subject, ": expected shape ", expected, ", got no tensor");
  TORCH_CHECK(tensor.sizes() == expected, subject, ": expected shape ", expected, ", got ",
              tensor.sizes());
}

inline void check_dtype(const char* subject, const at::Tensor& tensor, at::ScalarType expected) {
  TORCH_CHECK(tensor.scalar_type() == expected, subject, ": expected ", expected, ", got ",
              tensor.scalar_type());
}

inline void check_device(const char* subject, const at::Tensor& tensor,
                         const at::Device& expected) {
  TORCH_CHECK(tensor.device() == expected, subject, ": expected device ", expected, ", got ",
              tensor.device());
}

// ---- RMSNorm ------------------------------------------------------------------------------------

struct RmsNormResult {
  at::Tensor y;     // (..., D)
  at::Tensor rstd;  // (..., 1) in the compute type
};
struct RmsNormGrads {
  at::Tensor dx;       // (..., D)
  at::Tensor dweight;  // (D)
};
RmsNormResult rms_norm_aten(const at::Tensor& x, const at::Tensor& weight, double eps);
RmsNormGrads rms_norm_aten_backward(const at::Tensor& dy, const at::Tensor& x,
                                    const at::Tensor& weight, const at::Tensor& rstd);

// ---- SwiGLU -------------------------------------------------------------------------------------

struct SwigluGrads {
  at::Tensor dgate, dup;
};
SwigluGrads swiglu_aten_backward(const at::Tensor& dy, const at::Tensor& gate,
                                 const at::Tensor& up);

// ---- rotary position embedding ------------------------------------------------------------------

at::Tensor rope_aten(const at::Tensor& x, const RopeTable& table, RopePairing pairing);
at::Tensor rope_aten_backward(const at::Tensor& dy, const RopeTable& table, RopePairing pairing);

// ---- attention ----------------------------------------------------------------------------------

// LibTorch's fused attention, any device and dtype.
at::Tensor attention_sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          double scale, const at::Tensor& segments);

// Our CPU kernel. REQUIRES: has_cpu_kernel, no segment comes back after another one has begun.
at::Tensor attention_small_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 double scale, const at::Tensor& segments);

}  // namespace zebra::detail
