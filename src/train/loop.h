// The loop that every training stage runs in: steps, checkpoints, metrics, progress, stopping.
#pragma once

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
  OptimizerOptions optimizer;
};

// Runs forward_backward(step) for every step that is left, after which each trainee's gradients are
// those of the global batch; it returns the metrics of each trainee. Saves as the recipe says, and
// when asked to by a signal. Returns the seconds spent, over all attempts. StoppedError after a
// stop request, once a checkpoint is saved. GaveUpError after too many non-finite steps in a row.
double run_loop(Job& job, const LoopPlan& plan, std::vector<Trainee>& trainees,
                const std::function<std::vector<Metrics>(int64_t step)>& forward_backward);

// Steps that cover `tokens` (at least one), or one epoch of `sequences` when tokens is 0.
int64_t steps_for(double tokens, int64_t batch_size, int64_t sequence_length, int64_t sequences);

// Sequences of one forward.
inline int64_t micro_batch(int64_t batch_size, int64_t micro_batch_size) {
  return micro_batch_size > 0 ? micro_batch_size : batch_size;
}

// The global batch of one step in micro batches, on the job's device, with the counts that
// normalise its loss.
struct StepBatches {
  std::vector<Batch> micro;
  double sequences = 0;
  double text = 0;         // tokens, padding left out
  double tokens = 0;       // with loss_mask 1
  double predictions = 0;  // with a target
};
// (B, T) bool: where a batch has no padding.
at::Tensor text_mask(const Batch& batch);
struct BatchPlan {
  uint64_t seed = 0;
  int64_t batch_size = 1, micro_batch_size = 1;
};
StepBatches step_batches(const TokenDataset& data, const BatchPlan& plan, int64_t step,
                         at::Device device);

// Seed of a stage's data order: stages see the text in different orders.
uint64_t stage_seed(int64_t seed, const std::string& stage);

}  // namespace zebra
