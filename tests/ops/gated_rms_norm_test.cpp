#include "ops/mamba2.h"
#include "ops/reference.h"
#include "support/close_to.h"
#include "support/gradcheck.h"
#include "support/testing.h"
#include "zebra/ops.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace zebra {

namespace {

using testing::check_close;
using testing::check_equal;
using testing::kBackward32;
using testing::kForward32;
using testing::kTwin64;

constexpr double kEps = 1e-5;

using Function = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                          int64_t, double)>;

struct Form {
  std::string name;
  Function run;
};

const std::vector<Form>& forms() {
  static const std::vector<Form> all = {{"cpu", detail::gated_rms_norm_cpu},
                                        {"any", detail::gated_rms_norm_any}};
  return all;
}

// x, gate and weight of the named shape; D is the last size.
std::vector<at::Tensor> random_tensors(at::IntArrayRef sizes, at::ScalarType dtype) {
  at::Generator generator = at::detail::createCPUGenerator(11);
  const auto normal = [&](at::IntArrayRef shape) {
    return at::randn(shape, generator, at::TensorOptions(at::kDouble)).to(dtype);
  };
  return {normal(sizes), normal(sizes) * 2, normal({sizes.back()})};
}

struct Evaluation {
  at::Tensor y;
  std::vector<at::Tensor> gradients;  // x, gate, weight
};

Evaluation evaluate(const Function& run, const std::vector<at::Tensor>& tensors, int64_t group) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& tensor : tensors) {
    leaves.push_back(tensor.detach().clone().requires_grad_(true));
  }
  Evaluation result;
  result.y = run(leaves[0], leaves[1], leaves[2], group, kEps);
  const at::Tensor weights = testing::cotangent(result.y.sizes()).to(result.y.scalar_type());
  result.gradients = torch::autograd::grad({(result.y * weights).sum()}, leaves);
  return result;
}

void compare_with_twin(at::IntArrayRef sizes, int64_t group, at::ScalarType dtype) {
  const bool exact = dtype == at::kDouble;
  const std::vector<at::Tensor> tensors = random_tensors(sizes, dtype);
  std::vector<at::Tensor> wide;
  for (const at::Tensor& tensor : tensors) wide.push_back(tensor.to(at::kDouble));
  const Evaluation expected = evaluate(reference::gated_rms_norm, wide, group);
  for (const Form& form : forms()) {
    INFO(form.name << ", x " << sizes << ", group " << group);
    const Evaluation actual = evaluate(form.run, tensors, group);
    check_close(actual.y, expected.y, exact ? kTwin64 : kForward32, "y");
    for (size_t i = 0; i < 3; ++i) {
      check_close(actual.gradients[i], expected.gradients[i], exact ? kTwin64 : kBackward32,
                  "gradient " + std::to_string(i));
    }
  }
}

}  // namespace

TEST_CASE("gated_rms_norm: equals its twin for any group") {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    compare_with_twin({3, 5, 64}, 8, dtype);
    compare_with_twin({2, 70, 64}, 16, dtype);
    compare_with_twin({1, 2, 128}, 64, dtype);
    compare_with_twin({4, 128}, 128, dtype);
    compare_with_twin({7, 36}, 12, dtype);
    compare_with_twin({1200, 6}, 2, dtype);
    compare_with_twin({5, 3}, 1, dtype);
  }
}

TEST_CASE("gated_rms_norm: gradients equal finite differences") {
  const std::vector<at::Tensor> tensors = random_tensors({3, 2, 10}, at::kDouble);
  for (const Form& form : forms()) {
    INFO(form.name);
    testing::check_gradients(
        [&](const std::vector<at::Tensor>& values) {
          return form.run(values[0], values[1], values[2], 5, kEps);
        },
        {{"x", tensors[0]}, {"gate", tensors[1]}, {"weight", tensors[2]}});
  }
}

TEST_CASE("gated_rms_norm: a group of equal numbers becomes the weight times their sign") {
  const at::Tensor x = at::full({2, 8}, -3.0, at::kDouble);
  const at::Tensor gate = at::full({2, 8}, 1.5, at::kDouble);
  const at::Tensor weight = at::arange(8, at::kDouble);
  for (const Form& form : forms()) {
    const at::Tensor y = form.run(x, gate, weight, 4, /*eps=*/0.0);
    check_close(y, -weight.expand({2, 8}), kTwin64, form.name);
  }
}

TEST_CASE("gated_rms_norm: zeros and huge gates stay finite") {
  for (const Form& form : forms()) {
    const at::Tensor zero = at::zeros({2, 16}, at::kFloat), one = at::ones({16}, at::kFloat);
    check_equal(form.run(zero, zero, one, 8, kEps), zero, form.name);
    const std::vector<at::Tensor> tensors = random_tensors({4, 16}, at::kFloat);
    for (const float gate : {-1e4F, -100.0F, 100.0F, 1e4F}) {
      const at::Tensor gates = at::full({4, 16}, gate, at::kFloat);
      const Evaluation result = evaluate(form.run, {tensors[0], gates, tensors[2]}, 8);
      CHECK(at::isfinite(result.y).all().item<bool>());
      for (const at::Tensor& gradient : result.gradients) {
        CHECK(at::isfinite(gradient).all().item<bool>());
      }
    }
  }
}

TEST_CASE("gated_rms_norm: a slice serves as gate, and an empty batch is no error") {
  const std::vector<at::Tensor> tensors = random_tensors({2, 5, 16}, at::kDouble);
  const at::Tensor slice = at::cat({tensors[0], tensors[1]}, 2).narrow(2, 16, 16);
  for (const Form& form : forms()) {
    check_equal(form.run(tensors[0], slice, tensors[2], 8, kEps),
                form.run(tensors[0], tensors[1], tensors[2], 8, kEps), form.name);
    const std::vector<at::Tensor> empty = random_tensors({2, 0, 16}, at::kDouble);
    const Evaluation result = evaluate(form.run, empty, 8);
    CHECK(result.y.sizes() == at::IntArrayRef({2, 0, 16}));
    CHECK(result.gradients[2].abs().sum().item<double>() == 0.0);
  }
}

TEST_CASE("gated_rms_norm: the number of threads changes no bit") {
  const std::vector<at::Tensor> tensors = random_tensors({5000, 16}, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Evaluation one = evaluate(gated_rms_norm, tensors, 8);
  at::set_num_threads(2);
  const Evaluation two = evaluate(gated_rms_norm, tensors, 8);
  at::set_num_threads(threads);
  for (size_t i = 0; i < 3; ++i) check_equal(one.gradients[i], two.gradients[i], "gradient");
}

TEST_CASE("gated_rms_norm: low precision is computed in float32") {
  std::vector<at::Tensor> tensors = random_tensors({6, 16}, at::kBFloat16);
  const at::Tensor y = gated_rms_norm(tensors[0], tensors[1], tensors[2], 8, kEps);
  CHECK(y.scalar_type() == at::kBFloat16);
  const at::Tensor exact = gated_rms_norm(tensors[0].to(at::kFloat), tensors[1].to(at::kFloat),
                                          tensors[2].to(at::kFloat), 8, kEps);
  check_close(y, exact, 1.0 / 128, "y");  // one unit of bfloat16
}

TEST_CASE("gated_rms_norm: wrong shapes are refused by name") {
  using testing::ContainsSubstring;
  const std::vector<at::Tensor> tensors = random_tensors({3, 16}, at::kFloat);
  CHECK_THROWS_WITH(gated_rms_norm(tensors[0], tensors[2], tensors[2], 8, kEps),
                    ContainsSubstring("gated_rms_norm gate: expected x's shape [3, 16]"));
  CHECK_THROWS_WITH(gated_rms_norm(tensors[0], tensors[1], tensors[1], 8, kEps),
                    ContainsSubstring("gated_rms_norm weight: expected shape (16), got [3, 16]"));
  CHECK_THROWS_WITH(gated_rms_norm(tensors[0], tensors[1], tensors[2], 7, kEps),
                    ContainsSubstring("gated_rms_norm group_size: expected a divisor of 16"));
}

}  // namespace zebra
