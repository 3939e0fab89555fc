#include "train/stability.h"

#include <cmath>
#include <limits>

#include "support/testing.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

StabilityRecipe recipe(OnSpike on_spike = OnSpike::kLog) {
  return {.max_skips_in_row = 2, .spike_zscore = 4.0, .on_spike = on_spike, .spike_window = 16};
}

// Losses around 2 and norms around 1, with a deviation near 0.1.
void settle(Stability& stability) {
  for (int i = 0; i < 16; ++i)
    stability.judge(0, 2 + 0.1 * (i % 2 ? 1 : -1), 1 + 0.1 * (i % 2 ? 1 : -1));
}

}  // namespace

TEST_CASE("stability: the z-score is that of mean and deviation over the window") {
  SpikeDetector detector(4);
  for (const double value : {100.0, 1.0, 2.0, 3.0, 4.0}) detector.add(value);  // 100 has left
  CHECK(detector.zscore(2.5) == Approx(0).margin(1e-12));
  CHECK(detector.zscore(5.0) == Approx(2.5 / std::sqrt(1.25)));
}

TEST_CASE("stability: nothing is a spike before half of the window is known") {
  SpikeDetector detector(8);
  for (int i = 0; i < 3; ++i) detector.add(i);
  CHECK(detector.zscore(1000) == 0);
  detector.add(3);
  CHECK(detector.zscore(1000) > 100);
}

TEST_CASE("stability: loss or norm that is not finite is skipped") {
  Stability stability(recipe(), 1);
  CHECK(stability.judge(0, kNan, 1).skip);
  CHECK(stability.judge(0, 1, kInfinity).skip);
  CHECK_FALSE(stability.judge(0, 1, 1).skip);
}

TEST_CASE("stability: a spike is told, and skipped only when the recipe says so") {
  for (const auto on_spike : {OnSpike::kLog, OnSpike::kSkip}) {
    Stability stability(recipe(on_spike), 1);
    settle(stability);
    const auto verdict = stability.judge(0, 3.0, 1.0);
    CHECK(verdict.spike);
    CHECK(verdict.skip == (on_spike == OnSpike::kSkip));
    CHECK(verdict.loss_zscore == Approx(10).epsilon(0.01));
    CHECK_THAT(verdict.text(), ContainsSubstring("loss 10.0 standard deviations"));
    CHECK_FALSE(stability.judge(0, 1.0, 1.0).spike);  // downwards is no spike
  }
}

TEST_CASE("stability: skipped steps in a row end the run beyond the allowance") {
  Stability stability(recipe(), 1);
  stability.end_step(true, "s step 1");
  stability.end_step(true, "s step 2");
  stability.end_step(false, "s step 3");
  stability.end_step(true, "s step 4");
  stability.end_step(true, "s step 5");
  CHECK_THROWS_AS(stability.end_step(true, "s step 6"), GaveUpError);
}

TEST_CASE("stability: a state that was saved and restored judges alike") {
  Stability straight(recipe(), 2), resumed(recipe(), 2);
  settle(straight);
  straight.judge(1, 5, 6);
  straight.end_step(true, "s");
  resumed.restore(straight.state());
  CHECK(resumed.state() == straight.state());
  CHECK(resumed.judge(0, 2.3, 1.2).loss_zscore == straight.judge(0, 2.3, 1.2).loss_zscore);
}

}  // namespace zebra::testing
