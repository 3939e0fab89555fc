// The slow, obvious twins of the Mamba2 operations of zebra/ops.h: same arguments, same results,
// written token by token in LibTorch's own differentiable operations. For tests.
#pragma once

#include "zebra/ops.h"

namespace zebra::reference {

SsdOutput ssd(const SsdInput& in);

ConvOutput causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& state, const at::Tensor& segments);

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                          int64_t group_size, double eps);

}  // namespace zebra::reference
