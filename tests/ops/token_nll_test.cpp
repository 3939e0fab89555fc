#include "ops/basic_support.h"

#include "ops/reference_basic.h"
#include "zebra/losses.h"

#include <cmath>

namespace zebra {
namespace {

using namespace zebra::testing;

TensorFunction nll(const at::Tensor& targets, int64_t chunk_tokens) {
  return [=](const std::vector<at::Tensor>& x) {
    return token_nll(x[0], x[1], targets, chunk_tokens);
  };
}

TEST_CASE("token_nll: equals its slow twin, gradients included, for every chunk size") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const int64_t chunk = GENERATE(1, 4, 13, 100);
  const int64_t V = GENERATE(2, 33, 600);
  const at::Tensor targets = integers({13}, V, 3);
  check_twin(nll(targets, chunk),
             [&](const auto& x) { return reference::token_nll(x[0], x[1], targets); },
             {normal({13, 7}, 1, dtype), normal({V, 7}, 2, dtype)});
}

TEST_CASE("token_nll: gradients equal finite differences") {
  check_gradients(nll(integers({5}, 8, 3), 2),
                  {{"hidden", normal({5, 4}, 1)}, {"head", normal({8, 4}, 2)}});
}

TEST_CASE("token_nll: equal logits cost log V") {
  const at::Tensor out =
      token_nll(normal({4, 3}, 1), at::zeros({50, 3}, at::kDouble), integers({4}, 50, 2), 3);
  check_close(out, at::full({4}, std::log(50.0), at::kDouble), kTwin64);
}

TEST_CASE("token_nll: one token, and none") {
  CHECK(token_nll(normal({1, 3}, 1), normal({5, 3}, 2), integers({1}, 5, 3), 8).size(0) == 1);
  const Result none = evaluate(nll(integers({0}, 5, 3), 8), {normal({0, 3}, 1), normal({5, 3}, 2)});
  CHECK(none.value.size(0) == 0);
  check_equal(none.grads[1], at::zeros({5, 3}, at::kDouble));
}

TEST_CASE("token_nll: the gradient of a sum reaches every token, and only what wants one") {
  const at::Tensor hidden = normal({6, 3}, 1).requires_grad_(true), head = normal({9, 3}, 2);
  token_nll(hidden, head, integers({6}, 9, 3), 4).sum().backward();
  CHECK(hidden.grad().abs().amax(-1).gt(0).all().item<bool>());
  CHECK_FALSE(head.grad().defined());
}

TEST_CASE("token_nll: bfloat16 gives float32 values") {
  const at::Tensor hidden = normal({6, 8}, 1, at::kBFloat16),
                   head = normal({9, 8}, 2, at::kBFloat16);
  const at::Tensor targets = integers({6}, 9, 3);
  const at::Tensor out = token_nll(hidden, head, targets, 4);
  CHECK(out.scalar_type() == at::kFloat);
  check_close(out, reference::token_nll(hidden, head, targets), kForward32);
  const Result result = evaluate(nll(targets, 4), {hidden, head});
  CHECK(result.grads[0].scalar_type() == at::kBFloat16);
  CHECK(result.grads[1].scalar_type() == at::kBFloat16);
}

TEST_CASE("token_nll: a target outside the vocabulary is refused") {
  const at::Tensor hidden = at::ones({2, 3}), head = at::ones({5, 3});
  CHECK_THROWS_WITH(token_nll(hidden, head, at::tensor({1, 5}, at::kLong), 4),
                    ContainsSubstring("expected ids in [0, 5), got 5"));
  CHECK_THROWS_WITH(token_nll(hidden, head, at::tensor({-1, 2}, at::kLong), 4),
                    ContainsSubstring("expected ids in [0, 5), got -1"));
}

}  // namespace
}  // namespace zebra
