// The two implementations of causal_conv1d() and gated_rms_norm(), for tests and benchmarks.
#pragma once

#include "zebra/ops.h"

namespace zebra::detail {

// One for the CPU in float32 and float64 (REQUIRES: K <= 16), one for any device and dtype.
ConvOutput causal_conv1d_cpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& state, const at::Tensor& segments);
ConvOutput causal_conv1d_any(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& state, const at::Tensor& segments);

at::Tensor gated_rms_norm_cpu(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                              int64_t group_size, double eps);
at::Tensor gated_rms_norm_any(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                              int64_t group_size, double eps);

}  // namespace zebra::detail
