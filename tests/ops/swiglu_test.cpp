#include "ops/basic_support.h"

#include "ops/basic.h"
#include "ops/reference_basic.h"
#include "zebra/ops.h"

namespace zebra {
namespace {

using namespace zebra::testing;

at::Tensor glu(const std::vector<at::Tensor>& in) { return swiglu(in[0], in[1]); }
at::Tensor glu_twin(const std::vector<at::Tensor>& in) { return reference::swiglu(in[0], in[1]); }

TEST_CASE("swiglu: equals its slow twin, gradients included") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const int64_t F = GENERATE(1, 3, 16, 172, 20000);
  check_twin(glu, glu_twin, {normal({2, 3, F}, 1, dtype) * 4, normal({2, 3, F}, 2, dtype)});
}

TEST_CASE("swiglu: gradients equal finite differences") {
  check_gradients(glu, {{"gate", normal({3, 7}, 3)}, {"up", normal({3, 7}, 4)}});
}

TEST_CASE("swiglu: large gates saturate without overflow") {
  const at::Tensor gate = at::tensor({-200.0f, -90.0f, -20.0f, 0.0f, 20.0f, 90.0f, 200.0f});
  const at::Tensor up = at::full({7}, 2.0f);
  check_close(swiglu(gate, up), reference::swiglu(gate, up), kForward32);
  const Result result = evaluate(glu, {gate, up});
  CHECK(at::isfinite(result.grads[0]).all().item<bool>());
  CHECK(at::isfinite(result.grads[1]).all().item<bool>());
}

TEST_CASE("swiglu: a NaN stays a NaN") {
  const at::Tensor gate = at::full({33}, std::numeric_limits<float>::quiet_NaN());
  CHECK(at::isnan(swiglu(gate, at::ones({33}))).all().item<bool>());
}

TEST_CASE("swiglu: the float32 exponential keeps its precision over the whole range") {
  const at::Tensor gate = at::linspace(-80, 80, 100001, at::kDouble);
  const at::Tensor y = swiglu(gate.to(at::kFloat), at::ones({100001}));
  const at::Tensor expected =
      reference::swiglu(gate.to(at::kFloat).to(at::kDouble), at::ones({100001}, at::kDouble));
  const at::Tensor relative = ((y.to(at::kDouble) - expected) / expected).abs();
  CHECK(relative.nan_to_num(0.0).max().item<double>() < 1e-6);
}

TEST_CASE("swiglu: LibTorch's form of the backward equals the kernel") {
  const at::Tensor gate = normal({4, 5}, 5), up = normal({4, 5}, 6), dy = normal({4, 5}, 7);
  const auto grads = detail::swiglu_aten_backward(dy, gate, up);
  const auto g = gate.clone().requires_grad_(true), u = up.clone().requires_grad_(true);
  const auto expected = torch::autograd::grad({swiglu(g, u)}, {g, u}, {dy});
  check_close(grads.dgate, expected[0], kTwin64, "dgate");
  check_close(grads.dup, expected[1], kTwin64, "dup");
}

TEST_CASE("swiglu: views with other strides give the same") {
  const at::Tensor both = normal({6, 20}, 8, at::kFloat);
  const at::Tensor gate = both.narrow(1, 0, 10), up = both.narrow(1, 10, 10);
  check_equal(swiglu(gate, up), swiglu(gate.contiguous(), up.contiguous()));
}

TEST_CASE("swiglu: factors of unequal shape are refused with both shapes") {
  CHECK_THROWS_WITH(swiglu(at::ones({2, 4}), at::ones({2, 3})),
                    ContainsSubstring("swiglu up: expected shape [2, 4], got [2, 3]"));
}

}  // namespace
}  // namespace zebra
