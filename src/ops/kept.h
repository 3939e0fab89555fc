// Results of dear operations that a block keeps for its backward, which computes the rest of the
// block again (recompute: smart). The operations ask for the scope of their thread: without one
// they do what they always do.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <vector>

namespace zebra {

// One entry an operation, in the order in which they were called.
using KeptTensors = std::vector<std::vector<at::Tensor>>;

// While it lives, dear operations of this thread add their results to `kept`.
class KeepScope {
 public:
  explicit KeepScope(KeptTensors& kept);
  ~KeepScope();
  KeepScope(const KeepScope&) = delete;
  KeepScope& operator=(const KeepScope&) = delete;
};

// While it lives, they take them from `kept` instead of computing them.
class ReplayScope {
 public:
  explicit ReplayScope(const KeptTensors& kept);
  ~ReplayScope();
  ReplayScope(const ReplayScope&) = delete;
  ReplayScope& operator=(const ReplayScope&) = delete;
};

bool replaying();

// What `compute` gives, or gave.
std::vector<at::Tensor> keep(const std::function<std::vector<at::Tensor>()>& compute);

// x W^T + b as torch::nn::Linear computes it, differentiable. x: (B, T, D), weight: (F, D), bias:
// (F) or undefined -> (B, T, F). Its result is kept.
at::Tensor kept_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

// The same, whose result no gradient depends on: it is neither kept nor computed again.
at::Tensor unread_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace zebra
