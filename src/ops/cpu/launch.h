// From tensors to the kernels of cpu/kernels.h.
#pragma once

#include "ops/cpu/kernels.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <memory>

namespace zebra::detail {

// The tensor itself when the dimensions after the second are dense, else a dense copy.
inline at::Tensor with_dense_tokens(const at::Tensor& tensor) {
  int64_t expected = 1;
  for (int64_t d = tensor.dim() - 1; d >= 2; --d) {
    if (tensor.size(d) != 1 && tensor.stride(d) != expected) return tensor.contiguous();
    expected *= tensor.size(d);
  }
  return tensor;
}

// REQUIRES: tensor came from with_dense_tokens().
template <class Real>
Rows<const Real> rows_of(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<Real>(), tensor.stride(0), tensor.stride(1)};
}

// The data of a dense tensor, or null for an undefined one.
template <class Real>
const Real* data_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<Real>() : nullptr;
}

// A thread's scratch memory, on a cache line of its own.
template <class Real>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : memory_(std::make_unique_for_overwrite<Real[]>(static_cast<size_t>(count) + kLine)) {}
  Real* data() {
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    return memory_.get() + (64 - address % 64) % 64 / sizeof(Real);
  }

 private:
  static constexpr size_t kLine = 64 / sizeof(Real);
  std::unique_ptr<Real[]> memory_;
};

// Runs body(begin, end) over the items on all threads; `work` is the cost of one item in
// arithmetic operations, and small jobs stay on the calling thread.
template <class Body>
void for_items(int64_t items, int64_t work, const Body& body) {
  constexpr int64_t kWorkOfOneTask = 400'000;
  if (items == 0) return;
  const int64_t grain = std::max<int64_t>(1, kWorkOfOneTask / std::max<int64_t>(1, work));
  at::parallel_for(0, items, grain, body);
}

}  // namespace zebra::detail
