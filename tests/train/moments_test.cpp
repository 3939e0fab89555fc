#include "train/moments.h"

#include <cmath>

#include "support/close_to.h"
#include "support/testing.h"
#include "train/optimizer.h"

namespace zebra::testing {

namespace {

// Values over many magnitudes, as moments have them.
at::Tensor spread(int64_t size, bool with_sign) {
  torch::manual_seed(5);
  const auto magnitude = torch::pow(10.0, torch::rand({size}) * -5 - 1);
  return with_sign ? magnitude * torch::randn({size}).sign() : magnitude;
}

}  // namespace

TEST_CASE("moments: what was written and read is written as itself again") {
  for (const auto format : {MomentFormat::kFp32, MomentFormat::kBf16, MomentFormat::kInt8}) {
    for (const auto kind : {Moment::Kind::kFirst, Moment::Kind::kSecond}) {
      const auto values = spread(4096, kind == Moment::Kind::kFirst);
      Moment moment(values, format, kind), copy(values, format, kind);
      moment.write(0, values, /*step=*/3);
      const auto once = moment.read(0, 4096).clone();
      copy.write(0, once, /*step=*/8);
      CHECK(at::equal(copy.read(0, 4096), once));
    }
  }
}

TEST_CASE("moments: a range is read as the whole is, at any place") {
  const auto values = spread(2048, true);
  for (const auto format : {MomentFormat::kBf16, MomentFormat::kInt8}) {
    Moment moment(values, format, Moment::Kind::kFirst);
    moment.write(0, values, 1);
    const auto all = moment.read(0, 2048);
    CHECK(at::equal(moment.read(300, 700), all.narrow(0, 300, 700)));
    moment.write(512, values.narrow(0, 0, 256), 2);
    CHECK(at::equal(moment.read(0, 512), all.narrow(0, 0, 512)));
  }
}

TEST_CASE("moments: int8 keeps a block's largest value and is near for the others") {
  for (const auto kind : {Moment::Kind::kFirst, Moment::Kind::kSecond}) {
    const auto values = spread(256 * 16, kind == Moment::Kind::kFirst);
    Moment moment(values, MomentFormat::kInt8, kind);
    moment.write(0, values, 1);
    const auto got = moment.read(0, values.numel());
    const auto largest = values.abs().view({-1, 256}).amax({1});
    CHECK(at::allclose(got.abs().view({-1, 256}).amax({1}), largest, 1e-6, 0));
    // The tree has 64 levels between 0.1 and 1 of the largest, so half a step is 0.7 %.
    const auto error = ((got - values).abs().view({-1, 256}) / largest.unsqueeze(1)).max();
    CHECK(error.item<double>() < 0.015);
  }
}

TEST_CASE("moments: bf16 is right on average where rounding to the nearest stands still") {
  // One unit in the last place of 1.0 is 2^-7; a hundredth of it is added 1000 times.
  Moment moment(torch::zeros({4096}), MomentFormat::kBf16, Moment::Kind::kSecond);
  moment.write(0, torch::ones({4096}), 0);
  const double each = std::pow(2.0, -7) / 100;
  for (int64_t step = 1; step <= 1000; ++step) {
    moment.write(0, moment.read(0, 4096) + each, step);
  }
  const double mean = moment.read(0, 4096).mean().item<double>();
  CHECK(mean == Approx(1 + 1000 * each).epsilon(0.005));
}

TEST_CASE("moments: they take the bytes that their format promises") {
  const auto like = torch::zeros({int64_t{1} << 16});
  CHECK(Moment(like, MomentFormat::kFp32, Moment::Kind::kFirst).bytes() == 4 << 16);
  CHECK(Moment(like, MomentFormat::kBf16, Moment::Kind::kFirst).bytes() == 2 << 16);
  CHECK(Moment(like, MomentFormat::kInt8, Moment::Kind::kFirst).bytes() == (1 << 16) + (4 << 8));
}

TEST_CASE("moments: AdamW with low-bit moments goes nearly where AdamW goes") {
  // Least squares: the distance to the solution after 300 steps.
  const auto distance = [](MomentFormat format) {
    torch::manual_seed(1);
    const auto target = torch::randn({64, 32});
    auto x = torch::zeros({64, 32}).requires_grad_(true);
    OptimizerOptions options;
    options.moments = format;
    options.clip_norm = 0;
    AdamW optimizer({{"x.weight", x}}, options);
    for (int i = 0; i < 300; ++i) {
      (x - target).square().sum().backward();
      optimizer.step(0.02 * (1 - i / 300.0));
    }
    return (x - target).square().mean().item<double>();
  };
  const double exact = distance(MomentFormat::kFp32);
  CHECK(distance(MomentFormat::kBf16) < exact + 0.01);
  CHECK(distance(MomentFormat::kInt8) < exact + 0.01);
}

}  // namespace zebra::testing
