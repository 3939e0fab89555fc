// Steps that go wrong: values that are not finite, and spikes.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "zebra/recipe_running.h"

namespace zebra {

// How far a value lies above those of the steps before it.
class SpikeDetector {
 public:
  explicit SpikeDetector(int64_t window) : window_(static_cast<size_t>(window)) {}

  // Standard deviations above the mean of the last `window` values; 0 while half of them are not
  // there yet.
  double zscore(double value) const;
  void add(double value);

  const std::deque<double>& values() const { return values_; }

 private:
  size_t window_;
  std::deque<double> values_;
};

// What is to be done about one step of one trainee.
struct StepVerdict {
  bool finite = true, skip = false;
  double loss_zscore = 0, grad_norm_zscore = 0;
  bool spike = false;        // one of the two is at or above the recipe's
  std::string text() const;  // "loss 9.1 standard deviations above the mean"; "" when all is well
};

// Judges the steps of a stage. The same numbers on all ranks give the same verdicts, so that all
// skip the same steps.
class Stability {
 public:
  Stability(const StabilityRecipe& recipe, size_t trainees);

  StepVerdict judge(size_t trainee, double loss, double grad_norm);

  // Once all trainees of a step are judged: counts skips in a row. GaveUpError, which begins with
  // `where`, when they are more than the recipe allows.
  void end_step(bool skipped, const std::string& where);

  // For checkpoints.
  std::string state() const;
  void restore(const std::string& state);

 private:
  struct Watch {
    SpikeDetector loss, grad_norm;
  };
  StabilityRecipe recipe_;
  std::vector<Watch> watches_;
  int64_t in_row_ = 0;
};

}  // namespace zebra
