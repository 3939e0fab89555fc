#include "ops/basic_support.h"

#include "ops/basic.h"
#include "ops/reference_basic.h"
#include "zebra/ops.h"

namespace zebra {
namespace {

using namespace zebra::testing;

constexpr RopePairing kBoth[] = {RopePairing::kHalfSplit, RopePairing::kInterleaved};

RopeTable table_of(int64_t B, int64_t T, int64_t H, at::ScalarType dtype) {
  const at::Tensor angle = normal({B, T, H / 2}, 99);
  return {angle.cos().to(dtype), angle.sin().to(dtype)};
}

TEST_CASE("apply_rope: equals its slow twin, gradients included") {
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const RopePairing pairing = GENERATE(from_range(std::begin(kBoth), std::end(kBoth)));
  const int64_t H = GENERATE(2, 4, 8, 64, 80);
  const int64_t tables = GENERATE(1, 3);
  const RopeTable table = table_of(tables, 5, H, dtype);
  check_twin([&](const auto& in) { return apply_rope(in[0], table, pairing); },
             [&](const auto& in) { return reference::apply_rope(in[0], table, pairing); },
             {normal({3, 5, 2, H}, 1, dtype)});
}

TEST_CASE("apply_rope: gradients equal finite differences") {
  const RopePairing pairing = GENERATE(from_range(std::begin(kBoth), std::end(kBoth)));
  const RopeTable table = table_of(2, 3, 6, at::kDouble);
  check_gradients([&](const auto& in) { return apply_rope(in[0], table, pairing); },
                  {{"x", normal({2, 3, 2, 6}, 2)}});
}

TEST_CASE("apply_rope: LibTorch's form equals the kernel, gradients included") {
  const RopePairing pairing = GENERATE(from_range(std::begin(kBoth), std::end(kBoth)));
  const RopeTable table = table_of(1, 4, 8, at::kDouble);
  const at::Tensor x = normal({2, 4, 3, 8}, 3).requires_grad_(true), dy = normal({2, 4, 3, 8}, 4);
  const at::Tensor y = apply_rope(x, table, pairing);
  check_close(detail::rope_aten(x.detach(), table, pairing), y, kTwin64, "y");
  const auto expected = torch::autograd::grad({y}, {x}, {dy});
  check_close(detail::rope_aten_backward(dy, table, pairing), expected[0], kTwin64, "dx");
}

TEST_CASE("apply_rope: interleaved input is half-split input in another order") {
  const RopeTable table = table_of(1, 4, 8, at::kFloat);
  const at::Tensor x = normal({2, 4, 3, 8}, 5, at::kFloat);
  const at::Tensor reordered = x.unflatten(-1, {4, 2}).transpose(-1, -2).flatten(-2);
  check_equal(apply_rope(x, table, RopePairing::kInterleaved),
              apply_rope(reordered, table, RopePairing::kHalfSplit));
}

TEST_CASE("apply_rope: scores depend on the distance of positions only") {
  const RopePairing pairing = GENERATE(from_range(std::begin(kBoth), std::end(kBoth)));
  const auto at_position = [&](const at::Tensor& x, double position) {
    const at::Tensor angle =
        at::full({1, 1, 4}, position, at::kDouble) * at::tensor({1.0, 0.3, 0.1, 0.01}, at::kDouble);
    return apply_rope(x, {angle.cos(), angle.sin()}, pairing);
  };
  const at::Tensor q = normal({1, 1, 1, 8}, 6), k = normal({1, 1, 1, 8}, 7);
  const at::Tensor near = (at_position(q, 5) * at_position(k, 2)).sum();
  const at::Tensor far = (at_position(q, 105) * at_position(k, 102)).sum();
  check_close(near, far, kTwin64);
}

TEST_CASE("apply_rope: a slice of a wider projection gives the same as its copy") {
  const RopeTable table = table_of(1, 4, 4, at::kFloat);
  const at::Tensor wide = normal({2, 4, 3, 10}, 8, at::kFloat);
  const at::Tensor part = wide.narrow(-1, 6, 4);
  check_equal(apply_rope(part, table, RopePairing::kInterleaved),
              apply_rope(part.contiguous(), table, RopePairing::kInterleaved));
}

TEST_CASE("apply_rope: bfloat16 is rotated in float32") {
  const RopeTable table = table_of(1, 4, 8, at::kFloat);
  const at::Tensor x = normal({2, 4, 3, 8}, 9, at::kBFloat16);
  const at::Tensor y = apply_rope(x, table, RopePairing::kHalfSplit);
  CHECK(y.scalar_type() == at::kBFloat16);
  check_equal(y, apply_rope(x.to(at::kFloat), table, RopePairing::kHalfSplit).to(at::kBFloat16));
}

TEST_CASE("apply_rope: a table of another length is refused with its shape") {
  const RopeTable table = table_of(1, 3, 8, at::kFloat);
  CHECK_THROWS_WITH(apply_rope(at::ones({2, 4, 3, 8}), table, RopePairing::kHalfSplit),
                    ContainsSubstring("apply_rope cos: expected shape (2 or 1, 4, 4)"));
}

TEST_CASE("segment_positions: positions restart where the segment changes") {
  const at::Tensor segments = at::tensor({3, 3, 3, 1, 1, 2, 1, 1}, at::kLong).view({1, 8});
  check_equal(segment_positions(segments),
              at::tensor({0, 1, 2, 0, 1, 0, 0, 1}, at::kLong).view({1, 8}));
  const at::Tensor many = integers({4, 50}, 2, 10);
  check_equal(segment_positions(many), reference::segment_positions(many));
  CHECK(segment_positions(many).scalar_type() == at::kLong);
}

}  // namespace
}  // namespace zebra
