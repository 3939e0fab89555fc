#include "ops/basic_support.h"

#include "ops/basic.h"
#include "ops/reference_basic.h"
#include "zebra/ops.h"

namespace zebra {
namespace {

using namespace zebra::testing;

constexpr double kEps = 1e-5;

at::Tensor norm(const std::vector<at::Tensor>& in) { return rms_norm(in[0], in[1], kEps); }
at::Tensor norm_twin(const std::vector<at::Tensor>& in) {
  return reference::rms_norm(in[0], in[1], kEps);
}

TEST_CASE("rms_norm: equals its slow twin, gradients included") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const int64_t D = GENERATE(3, 7, 64, 96, 1000);
  const int64_t T = GENERATE(1, 5, 130);
  check_twin(norm, norm_twin, {normal({3, T, D}, 1, dtype), normal({D}, 2, dtype)});
}

TEST_CASE("rms_norm: gradients equal finite differences") {
  check_gradients(norm, {{"x", normal({2, 3, 5}, 3)}, {"weight", normal({5}, 4)}});
}

TEST_CASE("rms_norm: a row of equal values becomes the weight") {
  const at::Tensor weight = normal({6}, 5);
  check_close(rms_norm(at::full({2, 6}, -3.0, at::kDouble), weight, 0.0), (-weight).expand({2, 6}),
              kTwin64);
}

TEST_CASE("rms_norm: a view with other strides gives the same") {
  const at::Tensor x = normal({4, 6, 8}, 6, at::kFloat), weight = normal({8}, 7, at::kFloat);
  check_equal(rms_norm(x.transpose(0, 1), weight, kEps), rms_norm(x, weight, kEps).transpose(0, 1));
}

TEST_CASE("rms_norm: LibTorch's form equals the kernel, gradients included") {
  const at::Tensor x = normal({3, 4, 8}, 8), weight = normal({8}, 9), dy = normal({3, 4, 8}, 10);
  const auto result = detail::rms_norm_aten(x, weight, kEps);
  check_close(result.y, rms_norm(x, weight, kEps), kTwin64, "y");
  const auto grads = detail::rms_norm_aten_backward(dy, x, weight, result.rstd);
  const auto leaf_x = x.clone().requires_grad_(true), leaf_w = weight.clone().requires_grad_(true);
  const auto expected =
      torch::autograd::grad({rms_norm(leaf_x, leaf_w, kEps)}, {leaf_x, leaf_w}, {dy});
  check_close(grads.dx, expected[0], kTwin64, "dx");
  check_close(grads.dweight, expected[1], kTwin64, "dweight");
}

TEST_CASE("rms_norm: bfloat16 is normalised in float32 and rounded before the weight") {
  const at::Tensor x = normal({5, 16}, 11, at::kBFloat16), weight = normal({16}, 12, at::kBFloat16);
  const at::Tensor y = rms_norm(x, weight, kEps);
  CHECK(y.scalar_type() == at::kBFloat16);
  check_equal(y, reference::rms_norm(x, weight, kEps));
}

TEST_CASE("rms_norm: the weight's gradient does not depend on the number of threads") {
  const std::vector<at::Tensor> in{normal({4096, 24}, 13, at::kFloat),
                                   normal({24}, 14, at::kFloat)};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Result one = evaluate(norm, in);
  at::set_num_threads(2);
  const Result two = evaluate(norm, in);
  at::set_num_threads(threads);
  check_equal(one.value, two.value);
  check_equal(one.grads[0], two.grads[0]);
  check_equal(one.grads[1], two.grads[1]);
}

TEST_CASE("rms_norm: no rows are no work") {
  const Result result = evaluate(norm, {normal({0, 4}, 1), normal({4}, 2)});
  CHECK(result.value.sizes() == at::IntArrayRef({0, 4}));
  check_equal(result.grads[1], at::zeros({4}, at::kDouble));
}

TEST_CASE("rms_norm: a weight of another width is refused with both shapes") {
  CHECK_THROWS_WITH(rms_norm(at::ones({2, 4}), at::ones({3}), kEps),
                    ContainsSubstring("rms_norm weight: expected shape [4], got [3]"));
}

}  // namespace
}  // namespace zebra
