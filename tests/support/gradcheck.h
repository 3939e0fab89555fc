// Finite differences in float64 against autograd.
#pragma once

#include "support/close_to.h"
#include "support/testing.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace zebra::testing {

// A function of several tensors whose gradient is in question; its result may have any shape.
using TensorFunction = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

// An input with the name that a failure shows.
struct NamedInput {
  std::string name;
  at::Tensor value;  // float64, or undefined: then it is passed on and not differentiated
};

// The step h: its error is about h^2 + 1e-16 / h. And the most elements of one input that are
// checked; of larger inputs an even sample is.
inline constexpr double kDifferenceStep = 1e-5;
inline constexpr int64_t kMaxDifferences = 160;

// Fixed numbers in [-1, 1] without a generator: the gradient that flows into the result.
inline at::Tensor cotangent(at::IntArrayRef sizes) {
  const auto options = at::TensorOptions(at::kDouble);
  int64_t count = 1;
  for (const int64_t size : sizes) count *= size;
  return at::cos(at::arange(count, options) * 1.7 + 0.3).view(sizes);
}

inline double weighted_sum(const TensorFunction& function, const std::vector<at::Tensor>& inputs) {
  const at::Tensor result = function(inputs).detach().to(at::kDouble);
  return (result * cotangent(result.sizes())).sum().item<double>();
}

// (f(x + h) - f(x - h)) / 2h for each of the elements `indices` of inputs[which].
inline at::Tensor finite_differences(const TensorFunction& function, std::vector<at::Tensor> inputs,
                                     size_t which, const std::vector<int64_t>& indices) {
  const at::NoGradGuard no_grad;
  const at::Tensor original = inputs[which].detach().contiguous();
  at::Tensor result = at::empty({static_cast<int64_t>(indices.size())}, original.options());
  for (size_t i = 0; i < indices.size(); ++i) {
    double sums[2];
    for (const int side : {0, 1}) {
      inputs[which] = original.clone();
      inputs[which].view({-1})[indices[i]] += side == 0 ? kDifferenceStep : -kDifferenceStep;
      sums[side] = weighted_sum(function, inputs);
    }
    result[static_cast<int64_t>(i)] = (sums[0] - sums[1]) / (2 * kDifferenceStep);
  }
  return result;
}

// Checks autograd's gradient of every defined input against central differences, within
// kFiniteDifference of the gradient's largest magnitude. REQUIRES: inputs are float64 and the
// function is smooth over a step of 1e-5.
inline void check_gradients(const TensorFunction& function, const std::vector<NamedInput>& inputs) {
  std::vector<at::Tensor> leaves, differentiable;
  for (const NamedInput& input : inputs) {
    if (input.value.defined()) {
      REQUIRE(input.value.scalar_type() == at::kDouble);
      leaves.push_back(input.value.detach().clone().requires_grad_(true));
      differentiable.push_back(leaves.back());
    } else {
      leaves.emplace_back();
    }
  }
  const at::Tensor result = function(leaves);
  const auto gradients = torch::autograd::grad(
      {(result * cotangent(result.sizes())).sum()}, differentiable,
      /*grad_outputs=*/{}, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);

  size_t next = 0;
  for (size_t which = 0; which < inputs.size(); ++which) {
    if (!leaves[which].defined()) continue;
    const at::Tensor& gradient = gradients[next++];
    INFO("gradient of " << inputs[which].name);
    REQUIRE(gradient.defined());
    const int64_t count = gradient.numel();
    const int64_t stride = std::max<int64_t>(1, count / kMaxDifferences);
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < count; i += stride) indices.push_back(i);
    const at::Tensor flat =
        gradient.reshape({-1}).index_select(0, at::tensor(indices, at::TensorOptions(at::kLong)));
    check_close(flat, finite_differences(function, leaves, which, indices), kFiniteDifference,
                "gradient of " + inputs[which].name);
  }
}

}  // namespace zebra::testing
