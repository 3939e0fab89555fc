// What the two implementations of ssd() share; tests reach them one by one through this header.
#pragma once

#include "zebra/ops.h"

#include <vector>

namespace zebra::detail {

// The recurrence, token by token, in CPU kernels. REQUIRES: CPU; x, dt, B and C all float32 or all
// float64.
SsdOutput ssd_scan(const SsdInput& in);

// The product form, chunk by chunk, in LibTorch's operations: any device and dtype.
SsdOutput ssd_chunked(const SsdInput& in);

// What states and decays are kept in: float64 for float64, else float32.
at::ScalarType accumulation_type(at::ScalarType dtype);

// -exp(A_log), no lower than -1e20. (N)
at::Tensor decay_rates(const at::Tensor& A_log, at::ScalarType dtype);

// True where segments[:, t] differs from segments[:, t - 1]; false at t = 0. (B, T) bool
at::Tensor segment_starts(const at::Tensor& segments);

// The nine tensors of an input in the order of its fields, and back; for what autograd saves.
std::vector<at::Tensor> ssd_tensors(const SsdInput& in);
SsdInput ssd_input(const std::vector<at::Tensor>& tensors, int64_t chunk_size);

// Those of them that have gradients: the first seven.
std::vector<at::Tensor> ssd_leaves(const SsdInput& in);

// Whether autograd will want the backward pass of an operation on these tensors.
bool wants_gradient(const std::vector<at::Tensor>& tensors);

}  // namespace zebra::detail
