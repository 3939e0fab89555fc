// One step of each stage that trains: forward and backward of a rank's batches. Gradients add up in
// the parameters, losses and metrics are this rank's part of the global batch's.
#pragma once

#include <vector>

#include "train/loop.h"
#include "zebra/dataset.h"
#include "zebra/recipe.h"

namespace zebra {

constexpr int64_t kChunkTokens = 2048;  // whose logits stand at a time, where no recipe says

// Mean cross-entropy.
double pretrain_step(CausalLm& model, const StepBatches& batches);

// One set of metrics a student. Layers that are attention in a student stay as they are.
std::vector<Metrics> ild_step(const IldStage& stage, CausalLm& base, std::vector<Trainee>& students,
                              const StepBatches& batches);

Metrics distill_step(const DistillStage& stage, CausalLm& teacher, CausalLm& student,
                     const StepBatches& step);

struct DpoPlan {
  const DpoStage& stage;
  const PreferenceDataset& pairs;
  at::Tensor reference;  // (2, P): log-probabilities of chosen and rejected before the stage
  BatchPlan batches;     // of pairs
  at::Device device;
};
Metrics dpo_step(const DpoPlan& plan, CausalLm& model, int64_t step);

}  // namespace zebra
