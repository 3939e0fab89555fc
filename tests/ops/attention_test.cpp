#include "ops/basic_support.h"

#include "ops/basic.h"
#include "ops/reference_basic.h"
#include "zebra/ops.h"

namespace zebra {
namespace {

using namespace zebra::testing;

struct Shape {
  int64_t B, T, S, N, G, H, Hv;
};

std::vector<at::Tensor> inputs_of(const Shape& s, at::ScalarType dtype) {
  return {normal({s.B, s.T, s.N, s.H}, 1, dtype), normal({s.B, s.S, s.G, s.H}, 2, dtype),
          normal({s.B, s.S, s.G, s.Hv}, 3, dtype)};
}

// Ascending ids whose pieces have unequal lengths; the first rows of the batch begin differently.
at::Tensor segments_of(const Shape& s) {
  return integers({s.B, s.S}, 7, 4).eq(0).to(at::kLong).cumsum(1);
}

using Attention = at::Tensor (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, double,
                                 const at::Tensor&);

void check_against_twin(Attention attention, const Shape& shape, at::ScalarType dtype,
                        const at::Tensor& segments) {
  const double scale = 0.7;
  INFO("T " << shape.T << ", S " << shape.S << ", N " << shape.N << ", G " << shape.G << ", H "
            << shape.H << ", Hv " << shape.Hv << ", segments " << segments.defined());
  check_twin([&](const auto& in) { return attention(in[0], in[1], in[2], scale, segments); },
             [&](const auto& in) {
               return reference::causal_attention(in[0], in[1], in[2], scale, segments);
             },
             inputs_of(shape, dtype));
}

const Shape kShapes[] = {
    {2, 2, 2, 2, 2, 8, 8},   {2, 17, 17, 4, 2, 8, 8},  {1, 20, 20, 6, 1, 8, 16},
    {2, 16, 16, 3, 3, 4, 2}, {2, 33, 33, 4, 4, 24, 8}, {1, 5, 21, 4, 2, 8, 8},
    {2, 1, 19, 4, 2, 8, 8},  {1, 3, 40, 2, 1, 32, 12}, {2, 23, 23, 4, 2, 5, 3},
};

TEST_CASE("causal_attention: the kernel for small heads equals the slow twin, gradients included") {
  const Shape shape = GENERATE(from_range(std::begin(kShapes), std::end(kShapes)));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  check_against_twin(detail::attention_small_heads, shape, dtype, at::Tensor());
  check_against_twin(detail::attention_small_heads, shape, dtype, segments_of(shape));
}

TEST_CASE("causal_attention: LibTorch's form equals the slow twin, gradients included") {
  const Shape shape = GENERATE(from_range(std::begin(kShapes), std::end(kShapes)));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  check_against_twin(detail::attention_sdpa, shape, dtype, at::Tensor());
  check_against_twin(detail::attention_sdpa, shape, dtype, segments_of(shape));
}

TEST_CASE("causal_attention: wide heads equal the slow twin, gradients included") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  check_against_twin(causal_attention, {1, 19, 19, 4, 2, 64, 64}, dtype, at::Tensor());
  check_against_twin(causal_attention, {2, 19, 25, 4, 1, 48, 64}, dtype, at::Tensor());
  check_against_twin(causal_attention, {2, 1, 25, 4, 2, 64, 32}, dtype, at::Tensor());
}

TEST_CASE("causal_attention: gradients equal finite differences") {
  const at::Tensor segments = at::tensor({0, 0, 1, 1, 1}, at::kLong).view({1, 5});
  const auto with = [](const at::Tensor& ids) {
    return [ids](const std::vector<at::Tensor>& in) {
      return causal_attention(in[0], in[1], in[2], 0.6, ids);
    };
  };
  const at::Tensor k = normal({1, 5, 1, 4}, 2), v = normal({1, 5, 1, 3}, 3);
  check_gradients(with({}), {{"q", normal({1, 5, 2, 4}, 1)}, {"k", k}, {"v", v}});
  check_gradients(with(segments), {{"q", normal({1, 5, 2, 4}, 1)}, {"k", k}, {"v", v}});
  check_gradients(with({}), {{"q", normal({1, 2, 2, 4}, 4)}, {"k", k}, {"v", v}});
}

TEST_CASE("causal_attention: a lone token returns its value and asks nothing of its key") {
  const int64_t H = GENERATE(8, 64);
  const auto in = inputs_of({2, 1, 1, 2, 2, H, H}, at::kDouble);
  const Result result =
      evaluate([](const auto& x) { return causal_attention(x[0], x[1], x[2], 0.7, {}); }, in);
  check_close(result.value, in[2], kTwin64);
  CHECK(result.grads[0].abs().max().item<double>() < 1e-12);
  CHECK(result.grads[1].abs().max().item<double>() < 1e-12);
}

TEST_CASE("causal_attention: scores of zero average the values seen so far") {
  const at::Tensor q = at::zeros({1, 9, 1, 8}), v = normal({1, 9, 1, 8}, 5, at::kFloat);
  const at::Tensor count = at::arange(1, 10).view({1, 9, 1, 1});
  check_close(causal_attention(q, normal({1, 9, 1, 8}, 6, at::kFloat), v, 1.0, {}),
              v.cumsum(1) / count, kForward32);
}

TEST_CASE("causal_attention: a later token changes no earlier output, at any length") {
  const int64_t T = GENERATE(1, 63, 64, 65, 257, 600);
  const int64_t H = GENERATE(8, 64);
  auto in = inputs_of({1, T, T, 2, 1, H, H}, at::kFloat);
  const at::Tensor before = causal_attention(in[0], in[1], in[2], 0.3, {});
  const int64_t changed = T / 2;
  for (at::Tensor& tensor : in) tensor.narrow(1, changed, T - changed).add_(1.0);
  const at::Tensor after = causal_attention(in[0], in[1], in[2], 0.3, {});
  check_equal(after.narrow(1, 0, changed), before.narrow(1, 0, changed));
}

TEST_CASE("causal_attention: the last queries of a sequence equal those of the whole") {
  const int64_t T = GENERATE(1, 7, 64);
  const int64_t H = GENERATE(8, 64);
  const auto in = inputs_of({2, 70, 70, 4, 2, H, H}, at::kFloat);
  const at::Tensor whole = causal_attention(in[0], in[1], in[2], 0.3, {});
  const at::Tensor late = causal_attention(in[0].narrow(1, 70 - T, T), in[1], in[2], 0.3, {});
  check_close(late, whole.narrow(1, 70 - T, T), kForward32);
}

TEST_CASE("causal_attention: packed documents equal the documents alone, gradients included") {
  const int64_t H = GENERATE(8, 64);
  const std::vector<int64_t> lengths{5, 1, 18, 9};
  const at::Tensor segments =
      at::repeat_interleave(at::arange(4), at::tensor(lengths, at::kLong)).view({1, 33});
  check_twin(
      [&](const auto& in) { return causal_attention(in[0], in[1], in[2], 0.4, segments); },
      [&](const auto& in) {
        std::vector<at::Tensor> pieces;
        int64_t begin = 0;
        for (const int64_t n : lengths) {
          pieces.push_back(causal_attention(in[0].narrow(1, begin, n), in[1].narrow(1, begin, n),
                                            in[2].narrow(1, begin, n), 0.4, {}));
          begin += n;
        }
        return at::cat(pieces, 1);
      },
      inputs_of({1, 33, 33, 4, 2, H, H}, at::kDouble));
}

TEST_CASE("causal_attention: a segment that comes back is one document") {
  const at::Tensor segments = at::tensor({0, 0, 1, 0, 1, 1, 0}, at::kLong).view({1, 7});
  check_against_twin(causal_attention, {1, 7, 7, 2, 1, 8, 8}, at::kDouble, segments);
  CHECK_THROWS_WITH(detail::attention_small_heads(at::ones({1, 7, 1, 8}), at::ones({1, 7, 1, 8}),
                                                  at::ones({1, 7, 1, 8}), 1.0, segments),
                    ContainsSubstring("expected each segment in one piece"));
}

TEST_CASE("causal_attention: slices of a wider projection give the same as copies") {
  const at::Tensor wide = normal({2, 12, 2, 24}, 7, at::kFloat);
  const at::Tensor q = wide.narrow(-1, 0, 8), k = wide.narrow(-1, 8, 8), v = wide.narrow(-1, 16, 8);
  check_equal(causal_attention(q, k, v, 0.5, {}),
              causal_attention(q.contiguous(), k.contiguous(), v.contiguous(), 0.5, {}));
}

TEST_CASE("causal_attention: large scores do not overflow") {
  const auto in = inputs_of({1, 20, 20, 2, 1, 8, 8}, at::kFloat);
  const Result result =
      evaluate([](const auto& x) { return causal_attention(x[0], x[1], x[2], 200.0, {}); }, in);
  CHECK(at::isfinite(result.value).all().item<bool>());
  for (const at::Tensor& grad : result.grads) CHECK(at::isfinite(grad).all().item<bool>());
}

TEST_CASE("causal_attention: the result does not depend on the number of threads") {
  const auto in = inputs_of({3, 37, 37, 4, 2, 8, 8}, at::kFloat);
  const auto run = [&] {
    return evaluate([](const auto& x) { return causal_attention(x[0], x[1], x[2], 0.3, {}); }, in);
  };
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Result one = run();
  at::set_num_threads(2);
  const Result two = run();
  at::set_num_threads(threads);
  check_equal(one.value, two.value);
  for (size_t i = 0; i < 3; ++i) check_equal(one.grads[i], two.grads[i]);
}

TEST_CASE("causal_attention: heads that do not divide and too few keys are refused") {
  CHECK_THROWS_WITH(causal_attention(at::ones({1, 2, 3, 4}), at::ones({1, 2, 2, 4}),
                                     at::ones({1, 2, 2, 4}), 1.0, {}),
                    ContainsSubstring("a multiple of the key heads, got 3 and 2"));
  CHECK_THROWS_WITH(causal_attention(at::ones({1, 3, 2, 4}), at::ones({1, 2, 2, 4}),
                                     at::ones({1, 2, 2, 4}), 1.0, {}),
                    ContainsSubstring("got 2 keys and 3 queries"));
}

}  // namespace
}  // namespace zebra
