#include "ops/basic_support.h"

#include "ops/reference_basic.h"
#include "zebra/losses.h"

#include <cmath>

namespace zebra {
namespace {

using namespace zebra::testing;

TEST_CASE("dpo_loss: equals its slow twin, gradients included") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor rc = normal({6}, 3, dtype), rr = normal({6}, 4, dtype);
  check_twin([&](const auto& x) { return dpo_loss(x[0], x[1], rc, rr, 0.7, 0.25).loss; },
             [&](const auto& x) { return reference::dpo_loss(x[0], x[1], rc, rr, 0.7, 0.25).loss; },
             {normal({6}, 1, dtype), normal({6}, 2, dtype)});
}

TEST_CASE("dpo_loss: gradients equal finite differences") {
  const at::Tensor rc = normal({4}, 3), rr = normal({4}, 4);
  check_gradients([&](const auto& x) { return dpo_loss(x[0], x[1], rc, rr, 0.3, 0.5).loss; },
                  {{"chosen", normal({4}, 1)}, {"rejected", normal({4}, 2)}});
}

TEST_CASE("dpo_loss: a model that is its own reference loses log 2 a pair") {
  const at::Tensor chosen = normal({8}, 1, at::kFloat) * 50 - 300;
  const at::Tensor rejected = normal({8}, 2, at::kFloat) * 50 - 300;
  const DpoOutput out = dpo_loss(chosen, rejected, chosen, rejected, 0.1, 1.0 / 8);
  CHECK(std::abs(out.loss.item<double>() - std::log(2.0)) < 1e-6);
  check_equal(out.margins, at::zeros({8}));
}

TEST_CASE("dpo_loss: margins are beta times the preference gained over the reference") {
  const at::Tensor one = at::ones({1}, at::kDouble);
  const DpoOutput out = dpo_loss(one * -3, one * -8, one * -4, one * -6, 0.5, 1.0);
  CHECK(out.margins.item<double>() == Approx(1.5));
  CHECK(out.loss.item<double>() == Approx(std::log(1 + std::exp(-1.5))));
  CHECK_FALSE(out.margins.requires_grad());
}

TEST_CASE("dpo_loss: extreme margins stay finite") {
  const at::Tensor chosen = at::tensor({-1e4f, 1e4f}).requires_grad_(true);
  const at::Tensor zero = at::zeros({2});
  const DpoOutput out = dpo_loss(chosen, zero, zero, zero, 1.0, 1.0);
  CHECK(out.loss.item<float>() == Approx(1e4f));
  out.loss.backward();
  check_close(chosen.grad(), at::tensor({-1.0f, 0.0f}), kForward32);
}

TEST_CASE("dpo_loss: the reference gets no gradient") {
  const at::Tensor reference = at::zeros({2}).requires_grad_(true);
  const at::Tensor chosen = at::ones({2}).requires_grad_(true), zero = at::zeros({2});
  dpo_loss(chosen, zero, reference, zero, 0.1, 1.0).loss.backward();
  CHECK_FALSE(reference.grad().defined());
}

TEST_CASE("dpo_loss: unequal numbers of pairs are refused") {
  CHECK_THROWS_WITH(dpo_loss(at::ones({2}), at::ones({3}), at::ones({2}), at::ones({2}), 0.1, 1.0),
                    ContainsSubstring("dpo_loss rejected: expected shape [2], got [3]"));
}

}  // namespace
}  // namespace zebra
