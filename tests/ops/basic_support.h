// What the tests of the basic operations and losses share.
#pragma once

#include "support/close_to.h"
#include "support/gradcheck.h"
#include "support/testing.h"

#include <string>
#include <vector>

namespace zebra::testing {

// Normal values, a function of shape and seed alone.
inline at::Tensor normal(at::IntArrayRef sizes, int64_t seed, at::ScalarType dtype = at::kDouble) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  return at::randn(sizes, generator, at::TensorOptions(at::kDouble)).to(dtype);
}

inline at::Tensor integers(at::IntArrayRef sizes, int64_t below, int64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(seed));
  return at::randint(below, sizes, generator, at::TensorOptions(at::kLong));
}

struct Result {
  at::Tensor value;
  std::vector<at::Tensor> grads;  // of every input
};

// The function's value, and the gradients of its sum weighted by a fixed cotangent.
inline Result evaluate(const TensorFunction& function, const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : inputs) {
    leaves.push_back(input.detach().clone(at::MemoryFormat::Preserve).requires_grad_(true));
  }
  const at::Tensor value = function(leaves);
  const at::Tensor cotangent = ::zebra::testing::cotangent(value.sizes()).to(value.scalar_type());
  const at::Tensor loss = (value * cotangent).sum();
  return {value.detach(), torch::autograd::grad({loss}, leaves)};
}

// Fast path against twin: 1e-10 in float64; 2e-5 forward and 1e-4 backward in float32.
inline void check_twin(const TensorFunction& fast, const TensorFunction& twin,
                       const std::vector<at::Tensor>& inputs) {
  const bool wide = inputs[0].scalar_type() == at::kDouble;
  const Result actual = evaluate(fast, inputs), expected = evaluate(twin, inputs);
  check_close(actual.value, expected.value, wide ? kTwin64 : kForward32, "output");
  for (size_t i = 0; i < inputs.size(); ++i) {
    check_close(actual.grads[i], expected.grads[i], wide ? kTwin64 : kBackward32,
                "gradient of input " + std::to_string(i));
  }
}

}  // namespace zebra::testing
