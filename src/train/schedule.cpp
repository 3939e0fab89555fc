#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace zebra {

namespace {

// The learning rate after warm-up as a share of the peak; p in 0 ... 1 is the share of steps done.
double between(double minimum, double share) { return minimum + (1.0 - minimum) * share; }

double wsd(const ScheduleOptions& schedule, int64_t step, int64_t total_steps) {
  const auto decay = std::llround(schedule.decay_ratio * static_cast<double>(total_steps));
  const int64_t done = step - (total_steps - decay);
  if (done < 0) return 1.0;
  const double p = static_cast<double>(done) / static_cast<double>(std::max<int64_t>(decay, 1));
  return between(schedule.min_ratio, 1.0 - std::min(p, 1.0));
}

}  // namespace

double learning_rate(const OptimizerOptions& options, int64_t step, int64_t total_steps) {
  const ScheduleOptions& schedule = options.schedule;
  const auto total = static_cast<double>(total_steps);
  const auto warmup = static_cast<int64_t>(std::ceil(schedule.warmup_ratio * total));
  if (step < warmup) {
    return options.learning_rate * (static_cast<double>(step) / static_cast<double>(warmup));
  }
  const double after = static_cast<double>(std::max<int64_t>(total_steps - warmup, 1));
  const double p = std::min(static_cast<double>(step - warmup) / after, 1.0);
  double share = 1.0;
  switch (schedule.kind) {
    case ScheduleKind::kCosine:
      share = between(schedule.min_ratio, 0.5 * (1.0 + std::cos(std::numbers::pi * p)));
      break;
    case ScheduleKind::kLinear:
      share = between(schedule.min_ratio, 1.0 - p);
      break;
    case ScheduleKind::kConstant:
      break;
    case ScheduleKind::kWsd:
      share = wsd(schedule, step, total_steps);
      break;
  }
  return options.learning_rate * share;
}

}  // namespace zebra
