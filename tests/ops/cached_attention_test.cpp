// Attention over stored tokens against the slow twin, row by row.
#include "ops/cached_attention.h"

#include "ops/basic_support.h"
#include "ops/reference_basic.h"

namespace zebra {
namespace {

using namespace zebra::testing;

struct Shape {
  std::vector<int64_t> first;
  int64_t T, N, G, H, Hv;
  bool shared;  // values are the beginning of their keys
};

const Shape kShapes[] = {
    {{0}, 1, 2, 2, 8, 8, false},
    {{5, 0, 63}, 1, 4, 2, 16, 16, false},
    {{300, 255, 256, 64}, 1, 8, 4, 64, 64, false},
    {{700, 3}, 5, 6, 2, 12, 20, false},
    {{19, 320}, 3, 12, 1, 44, 32, true},
    {{1000}, 1, 32, 1, 160, 128, true},
    {{255, 511}, 9, 8, 1, 24, 16, true},
};

std::vector<int64_t> equal_parts(int64_t count, int64_t width) {
  return std::vector<int64_t>(static_cast<size_t>(count), width);
}

CachedTokens filled(const Shape& s, std::vector<int64_t> parts, uint64_t seed,
                    at::ScalarType stored, at::ScalarType computed) {
  const auto B = static_cast<int64_t>(s.first.size());
  const int64_t S = *std::max_element(s.first.begin(), s.first.end()) + s.T;
  CachedTokens store{.values = {}, .scales = {}, .parts = std::move(parts)};
  int64_t W = 0;
  for (const int64_t part : store.parts) W += part;
  reserve_tokens(store, B, S, /*block_tokens=*/96, at::TensorOptions(stored));
  put_tokens(store, normal({B, S, W}, seed, computed),
             std::vector<int64_t>(static_cast<size_t>(B), 0));
  return store;
}

CachedAttentionInput input_of(const Shape& s, at::ScalarType stored, at::ScalarType computed) {
  const auto B = static_cast<int64_t>(s.first.size());
  CachedAttentionInput in;
  in.q = normal({B, s.T, s.N, s.H}, 1, computed);
  in.keys = filled(s, s.shared ? std::vector{s.Hv, s.H - s.Hv} : equal_parts(s.G, s.H), 2, stored,
                   computed);
  if (!s.shared) in.values = filled(s, equal_parts(s.G, s.Hv), 3, stored, computed);
  in.groups = s.G;
  in.value_width = s.Hv;
  in.scale = 0.3;
  in.first = s.first;
  return in;
}

// Each row alone, over exactly the tokens that it sees.
at::Tensor twin(const CachedAttentionInput& in) {
  std::vector<at::Tensor> rows;
  const int64_t T = in.q.size(1), H = in.q.size(3);
  for (int64_t b = 0; b < in.q.size(0); ++b) {
    const int64_t S = in.first[static_cast<size_t>(b)] + T;
    const auto k = get_tokens(in.keys, S, at::kDouble).narrow(0, b, 1).view({1, S, in.groups, H});
    const auto v = in.values.values.defined() ? get_tokens(in.values, S, at::kDouble)
                                                    .narrow(0, b, 1)
                                                    .view({1, S, in.groups, in.value_width})
                                              : k.narrow(3, 0, in.value_width);
    rows.push_back(reference::causal_attention(in.q.narrow(0, b, 1).to(at::kDouble), k, v, in.scale,
                                               at::Tensor()));
  }
  return at::cat(rows, 0);
}

using Form = at::Tensor (*)(const CachedAttentionInput&);

TEST_CASE("cached_attention: kernel and LibTorch's form equal the slow twin, rows of any length") {
  const Form form =
      GENERATE(Form{detail::cached_attention_cpu}, Form{detail::cached_attention_any});
  for (const auto& shape : kShapes) {
    INFO("T " << shape.T << ", N " << shape.N << ", H " << shape.H);
    const auto exact = input_of(shape, at::kDouble, at::kDouble);
    check_close(form(exact), twin(exact), kTwin64, "float64");
    const auto single = input_of(shape, at::kFloat, at::kFloat);
    check_close(form(single), twin(single), kForward32, "float32");
  }
}

TEST_CASE("cached_attention: bfloat16 and int8 tokens are read as the numbers they stand for") {
  const Form form =
      GENERATE(Form{detail::cached_attention_cpu}, Form{detail::cached_attention_any});
  const auto stored = GENERATE(at::kBFloat16, at::kChar);
  for (const auto& shape : kShapes) {
    INFO("T " << shape.T << ", N " << shape.N << ", H " << shape.H);
    const auto in = input_of(shape, stored, at::kFloat);
    check_close(form(in), twin(in), kForward32, "stored");
  }
}

TEST_CASE("cached_attention: a row gives the same bits alone as among others") {
  for (const auto& shape : kShapes) {
    const auto in = input_of(shape, at::kFloat, at::kFloat);
    const auto together = cached_attention(in);
    for (size_t b = 0; b < shape.first.size(); ++b) {
      const auto row = static_cast<int64_t>(b);
      auto alone = in;
      alone.q = in.q.narrow(0, row, 1);
      alone.keys.values = in.keys.values.narrow(0, row, 1);
      if (in.values.values.defined()) alone.values.values = in.values.values.narrow(0, row, 1);
      alone.first = {shape.first[b]};
      check_equal(cached_attention(alone), together.narrow(0, row, 1), "row");
    }
  }
}

TEST_CASE("cached_attention: what lies behind a row's tokens is never seen") {
  auto in = input_of({{40, 7}, 2, 4, 2, 8, 8, false}, at::kFloat, at::kFloat);
  const auto before = cached_attention(in);
  for (auto* store : {&in.keys, &in.values}) {
    store->values.select(0, 1).slice(0, 9).fill_(1e4);
    store->values.select(0, 0).slice(0, 42).fill_(std::numeric_limits<float>::quiet_NaN());
  }
  check_equal(cached_attention(in), before, "output");
}

TEST_CASE("cached tokens: int8 errs by at most half a step of each part's largest magnitude") {
  CachedTokens store{.values = {}, .scales = {}, .parts = {24, 8}};
  auto fresh = normal({2, 5, 32}, 4, at::kFloat);
  fresh.narrow(2, 24, 8).mul_(100);  // parts of unlike size do not spoil each other
  fresh.select(1, 3).zero_();
  reserve_tokens(store, 2, 5, 4, at::TensorOptions(at::kChar));
  CHECK(store.room() == 8);
  CHECK(store.bytes_per_token() == 32 + 2 * 4);
  put_tokens(store, fresh, {0, 0});
  const auto parts = fresh.split_with_sizes({24, 8}, -1);
  const auto back = get_tokens(store, 5, at::kFloat).split_with_sizes({24, 8}, -1);
  for (size_t i = 0; i < 2; ++i) {
    const auto step = parts[i].abs().amax(-1, /*keepdim=*/true) / 127;
    CHECK(((back[i] - parts[i]).abs() <= 0.5001 * step).all().item<bool>());
  }
}

TEST_CASE("cached tokens: growing keeps what is stored and takes whole blocks") {
  CachedTokens store{.values = {}, .scales = {}, .parts = {6}};
  const auto fresh = normal({2, 7, 6}, 5, at::kFloat);
  reserve_tokens(store, 2, 3, 4, fresh.options());
  put_tokens(store, fresh.narrow(1, 0, 3), {0, 0});
  const auto* const before = store.values.const_data_ptr<float>();
  reserve_tokens(store, 2, 4, 4, fresh.options());
  CHECK(store.values.const_data_ptr<float>() == before);  // there was room
  reserve_tokens(store, 2, 7, 4, fresh.options());
  CHECK(store.room() == 8);
  put_tokens(store, fresh.narrow(1, 3, 4), {3, 3});
  check_equal(get_tokens(store, 7, at::kFloat), fresh, "stored");
}

TEST_CASE("cached_attention: shapes that do not fit are refused by name") {
  auto in = input_of({{5}, 1, 4, 2, 8, 8, false}, at::kFloat, at::kFloat);
  const auto refused = [](const CachedAttentionInput& wrong, const std::string& what) {
    CHECK_THROWS_WITH(cached_attention(wrong), ContainsSubstring(what));
  };
  auto wrong = in;
  wrong.groups = 3;
  refused(wrong, "expected heads that are a multiple of the groups, got 4 and 3");
  wrong = in;
  wrong.first = {5, 6};
  refused(wrong, "first: expected 1 positions, got 2");
  wrong = in;
  wrong.first = {96};
  refused(wrong, "expected room for 97 tokens, got 96");
  wrong = in;
  wrong.value_width = 9;
  refused(wrong, "values: expected shape (1, S, 18)");
  wrong = in;
  wrong.values = {};
  refused(wrong, "expected one group whose values begin its keys");
}

}  // namespace
}  // namespace zebra
