// The loop that every training stage runs in: steps, checkpoints, metrics, progress, stopping.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "train/job.h"
#include "train/optimizer.h"

namespace zebra {

using Metrics = std::vector<std::pair<std::string, double>>;

// A model that a stage trains, with its own optimiser.
struct Trainee {
  std::string name;  // "" when the stage trains one model; else its metrics go to "stage.name"
  CausalLm model{nullptr};
};

struct LoopPlan {
  std::string stage;
  uint64_t key = 0;  // of the stage's inputs: a checkpoint of other inputs is refused
  int64_t steps = 0;
  double tokens_per_step = 0;  // of one trainee
  double flops_per_step = 0;   // operations of all models together, for MFU; 0: not counted
  OptimizerOptions optimizer;
  int64_t micro_batches = 1;  // backward passes of a step on one rank
  // Ids of the global batch's samples, for the record of a step that is skipped.
  std::function<std::vector<int64_t>(int64_t step)> samples;
};

// Runs forward_backward(step) for every step that is left, after which each trainee's gradients,
// summed over the ranks, are those of the global batch; it returns this rank's part of the metrics
// of each trainee, sums with the denominators of the global batch, the loss first. Saves as the
// recipe says, at the end, and when asked to by a signal. Returns the seconds spent, over all
// attempts. StoppedError after a stop request, once a checkpoint is saved. GaveUpError after too
// many skipped steps in a row.
double run_loop(Job& job, const LoopPlan& plan, std::vector<Trainee>& trainees,
                const std::function<std::vector<Metrics>(int64_t step)>& forward_backward);

// Steps that cover `tokens` (at least one), or one epoch of `sequences` when tokens is 0.
int64_t steps_for(double tokens, int64_t batch_size, int64_t sequence_length, int64_t sequences);

// Which rows of every step's global batch this rank takes, and how many in one forward: rank r of W
// takes the r-th W-th. What a batch holds is a function of the step alone.
struct BatchPlan {
  uint64_t seed = 0;
  int64_t batch_size = 1;  // of the global batch
  int64_t begin = 0, end = 1;
  int64_t micro_batch_size = 1;

  int64_t micro_batches() const { return (end - begin + micro_batch_size - 1) / micro_batch_size; }
  // Calls visit(first, count) for each forward; positions are those of the stage's endless order.
  template <class Visit>
  void visit_micro_batches(int64_t step, const Visit& visit) const {
    for (int64_t row = begin; row < end; row += micro_batch_size) {
      visit(step * batch_size + row, std::min(micro_batch_size, end - row));
    }
  }
};
// micro_batch_size 0: all of a rank's rows at once. With parallel.bit_equal: one. ConfigError when
// the ranks do not divide the batch.
BatchPlan batch_plan(const Job& job, const std::string& stage, int64_t batch_size,
                     int64_t micro_batch_size);

// This rank's part of one step in micro batches, on the job's device, with the counts of the global
// batch that normalise its loss.
struct StepBatches {
  std::vector<Batch> micro;
  double sequences = 0;
  double text = 0;         // tokens, padding left out
  double tokens = 0;       // with loss_mask 1
  double predictions = 0;  // with a target
  double samples = 0;      // sample_mark of this rank's rows
  double seconds = 0;      // spent on making it

  void add(Batch batch);  // with its text, tokens and predictions
};
// (B, T) bool: where a batch has no padding.
at::Tensor text_mask(const Batch& batch);
StepBatches step_batches(Job& job, const TokenDataset& data, const BatchPlan& plan, int64_t step);

// LoopPlan::samples of a stage on sequences or pairs.
template <class Dataset>
std::function<std::vector<int64_t>(int64_t step)> sample_ids_of(const Dataset& data,
                                                                const BatchPlan& plan) {
  return [&data, plan](int64_t step) {
    return data.batch(plan.seed, step * plan.batch_size, plan.batch_size).sample_ids;
  };
}

// Stands for the samples at positions `first` ... of a stage's order in metrics.jsonl: equal
// numbers mean equal samples. An exact sum over the positions, so that parts of a batch add up.
double sample_mark(int64_t first, const std::vector<int64_t>& sample_ids);

// Seed of a stage's data order: stages see the text in different orders.
uint64_t stage_seed(int64_t seed, const std::string& stage);

}  // namespace zebra
