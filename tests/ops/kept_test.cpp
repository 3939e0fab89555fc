#include "ops/kept.h"

#include "support/testing.h"
#include "zebra/ops.h"

namespace zebra::testing {

namespace {

struct Gradients {
  at::Tensor x, weight, bias;
};

at::Tensor values(at::IntArrayRef sizes, int64_t seed) {
  torch::manual_seed(static_cast<uint64_t>(seed));
  return torch::randn(sizes).requires_grad_(true);
}

}  // namespace

TEST_CASE("kept: a linear map whose result was kept has the bits of the plain gradients") {
  for (const bool with_bias : {true, false}) {
    const auto x = values({3, 5, 24}, 1), weight = values({40, 24}, 2), bias = values({40}, 3);
    const auto b = with_bias ? bias : at::Tensor();
    const auto upstream = torch::randn({3, 5, 40});
    const auto run = [&](const std::function<at::Tensor()>& forward) {
      for (const auto& tensor : {x, weight, bias}) tensor.mutable_grad() = at::Tensor();
      forward().backward(upstream);
      return Gradients{x.grad(), weight.grad(), bias.grad()};
    };
    const auto plain = run([&] { return torch::nn::functional::linear(x, weight, b); });
    KeptTensors kept;
    at::Tensor value;
    {
      const torch::NoGradGuard no_grad;
      const KeepScope scope(kept);
      value = kept_linear(x, weight, b);
    }
    REQUIRE(kept.size() == 1);
    for (const auto& linear : {kept_linear, unread_linear}) {
      const auto again = run([&] {
        const ReplayScope scope(kept);
        return linear(x, weight, b);
      });
      CHECK(at::equal(again.x, plain.x));
      CHECK(at::equal(again.weight, plain.weight));
      CHECK(again.bias.defined() == with_bias);
      if (with_bias) CHECK(at::equal(again.bias, plain.bias));
    }
    const ReplayScope scope(kept);
    CHECK(at::equal(kept_linear(x, weight, b), value));
  }
}

TEST_CASE("kept: attention is not computed again, and its gradients have the same bits") {
  const auto q = values({2, 9, 4, 8}, 4), k = values({2, 9, 2, 8}, 5), v = values({2, 9, 2, 8}, 6);
  const auto attend = [&] { return causal_attention(q, k, v, 0.3, /*segments=*/{}); };
  attend().square().sum().backward();
  const auto plain = q.grad().clone();
  q.mutable_grad() = at::Tensor();
  KeptTensors kept;
  {
    const torch::NoGradGuard no_grad;
    const KeepScope scope(kept);
    attend();
  }
  REQUIRE(kept.size() == 1);
  const ReplayScope scope(kept);
  attend().square().sum().backward();
  CHECK(at::equal(q.grad(), plain));
}

TEST_CASE("kept: without a scope nothing is kept, and scopes do not nest") {
  KeptTensors kept;
  const torch::NoGradGuard no_grad;
  kept_linear(values({1, 2, 3}, 1), values({4, 3}, 2), {});
  CHECK(kept.empty());
  const KeepScope scope(kept);
  CHECK_THROWS(ReplayScope(kept));
  unread_linear(values({1, 2, 3}, 1), values({4, 3}, 2), {});
  CHECK(kept.empty());
}

}  // namespace zebra::testing
