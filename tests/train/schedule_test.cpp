#include "train/schedule.h"

#include "support/testing.h"

#include <cmath>
#include <numbers>

using zebra::learning_rate;
using zebra::OptimizerOptions;
using zebra::ScheduleKind;
using zebra::testing::Approx;

namespace {

OptimizerOptions options(ScheduleKind kind) {
  OptimizerOptions result;
  result.learning_rate = 4e-3;
  result.schedule = {.kind = kind, .warmup_ratio = 0.1, .min_ratio = 0.0, .decay_ratio = 0.2};
  return result;
}

}  // namespace

TEST_CASE("schedule: warm-up rises linearly from zero and the peak follows it") {
  for (const auto kind : {ScheduleKind::kCosine, ScheduleKind::kLinear, ScheduleKind::kConstant,
                          ScheduleKind::kWsd}) {
    for (int64_t step = 0; step < 10; ++step) {
      CHECK(learning_rate(options(kind), step, 100) ==
            Approx(4e-3 * static_cast<double>(step) / 10).epsilon(1e-15));
    }
    CHECK(learning_rate(options(kind), 10, 100) == 4e-3);
  }
}

TEST_CASE("schedule: the number of warm-up steps is rounded up") {
  auto rounded = options(ScheduleKind::kCosine);
  rounded.schedule.warmup_ratio = 0.01;  // 1.01 of 101 steps: two
  CHECK(learning_rate(rounded, 0, 101) == 0.0);
  CHECK(learning_rate(rounded, 1, 101) == 2e-3);
  CHECK(learning_rate(rounded, 2, 101) == 4e-3);
  // 0.07 * 100 is a little above 7 in binary: eight, as in Python
  rounded.schedule.warmup_ratio = 0.07;
  CHECK(learning_rate(rounded, 7, 100) == Approx(4e-3 * 7 / 8).epsilon(1e-15));
}

TEST_CASE("schedule: cosine is that of get_cosine_schedule_with_warmup") {
  for (int64_t step = 10; step < 100; ++step) {
    const double progress = static_cast<double>(step - 10) / 90.0;
    const double share =
        std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * 0.5 * 2.0 * progress)));
    CHECK(learning_rate(options(ScheduleKind::kCosine), step, 100) ==
          Approx(4e-3 * share).epsilon(1e-15));
  }
  CHECK(learning_rate(options(ScheduleKind::kCosine), 55, 100) == Approx(2e-3).epsilon(1e-14));
}

TEST_CASE("schedule: min_ratio is where cosine, linear and wsd end") {
  for (const auto kind : {ScheduleKind::kCosine, ScheduleKind::kLinear, ScheduleKind::kWsd}) {
    auto raised = options(kind);
    raised.schedule.min_ratio = 0.25;
    CHECK(learning_rate(raised, 100, 100) == Approx(1e-3).epsilon(1e-14));
    CHECK(learning_rate(raised, 1000, 100) == Approx(1e-3).epsilon(1e-14));
    CHECK(learning_rate(options(kind), 100, 100) == Approx(0.0).margin(1e-18));
  }
}

TEST_CASE("schedule: linear falls by the same amount every step") {
  for (int64_t step = 10; step < 100; ++step) {
    CHECK(learning_rate(options(ScheduleKind::kLinear), step, 100) ==
          Approx(4e-3 * static_cast<double>(100 - step) / 90).epsilon(1e-14));
  }
}

TEST_CASE("schedule: constant stays at the peak") {
  CHECK(learning_rate(options(ScheduleKind::kConstant), 99, 100) == 4e-3);
}

TEST_CASE("schedule: wsd is level and falls over the last steps") {
  CHECK(learning_rate(options(ScheduleKind::kWsd), 50, 100) == 4e-3);
  CHECK(learning_rate(options(ScheduleKind::kWsd), 80, 100) == 4e-3);
  CHECK(learning_rate(options(ScheduleKind::kWsd), 90, 100) == Approx(2e-3).epsilon(1e-14));
  CHECK(learning_rate(options(ScheduleKind::kWsd), 99, 100) == Approx(2e-4).epsilon(1e-12));
}

TEST_CASE("schedule: without warm-up the first step has the peak") {
  auto none = options(ScheduleKind::kCosine);
  none.schedule.warmup_ratio = 0;
  CHECK(learning_rate(none, 0, 100) == 4e-3);
  CHECK(learning_rate(none, 0, 1) == 4e-3);
}
