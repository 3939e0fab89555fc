// How a training job watches itself: replayed steps, equal weights on all ranks, slow ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "train/loop.h"

namespace zebra {

using StepFunction = std::function<std::vector<Metrics>(int64_t step)>;

// XXH3 of the bytes of every parameter, in the order of their names.
uint64_t hash_parameters(const std::vector<Trainee>& trainees);

// What is asked of a job between two steps, and why it shall stop: "" when it shall not.
struct Requests {
  int64_t flags = 0;
  std::string stop_reason;
};
// Bitwise or of every rank's flags, and the reason of the first rank that has one.
Requests any_of(const RankExchange& ranks, const Requests& own);

// Tells a broken run from a broken machine, and finds the rank that differs. Every rank calls the
// same functions at the same steps.
class Health {
 public:
  Health(const HealthRecipe& recipe, const RankExchange& ranks, std::string stage);

  // Before `step`, where the recipe asks for it: does its forwards and backwards twice, each rank
  // for itself. Other bits are a GaveUpError that names the rank and its host: this machine does
  // not compute reproducibly.
  void replay(int64_t step, std::vector<AdamW>& optimizers, const StepFunction& forward_backward);

  // After a step whose gradients were not finite and which changed nothing: does it again and says
  // which it was. "the same again: the numbers themselves", or "other numbers: this machine".
  std::string explain_non_finite(int64_t step, const std::vector<Metrics>& before,
                                 std::vector<AdamW>& optimizers,
                                 const StepFunction& forward_backward);

  // After `step` steps: weights that must be equal on all ranks, and how long each takes. Weights
  // that differ are a GaveUpError with every rank's hash.
  void after_step(int64_t step, const std::vector<Trainee>& trainees);

 private:
  void compare_weights(int64_t step, const std::vector<Trainee>& trainees) const;
  void report_slow_ranks(int64_t step);

  HealthRecipe recipe_;
  RankExchange ranks_;
  std::string stage_;
  double cpu_at_report_ = 0;  // seconds
};

// The text of a report on each rank's seconds a step: "" unless one takes over 1.2 times the
// median.
std::string slow_rank_text(const std::vector<double>& seconds,
                           const std::vector<std::string>& hosts);

// Runs `body` under LibTorch's profiler and writes what it did, in the format of Chrome's trace
// viewer and Perfetto.
void trace_to(const std::filesystem::path& file, const std::function<void()>& body);

}  // namespace zebra
