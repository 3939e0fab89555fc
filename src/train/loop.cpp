#include "train/loop.h"

#include <chrono>
#include <cmath>

#include "base/hash.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signals.h"
#include "train/schedule.h"
#include "zebra/checkpoint.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr int kMaxNonFiniteInRow = 5;

double now_seconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(now).count();
}

// Everything that a stage must remember between two steps.
class LoopState {
 public:
  LoopState(Job& job, const LoopPlan& plan, std::vector<Trainee>& trainees)
      : plan_(plan),
        trainees_(trainees),
        store_(job.folder.checkpoints(plan.stage), job.recipe.checkpoint.keep) {
    for (auto& trainee : trainees)
      optimizers_.emplace_back(trainable(*trainee.model), plan.optimizer);
    restore();
    for (const auto& trainee : trainees) job.metrics.keep_until(metrics_stage(trainee), step);
    start_ = now_seconds() - seconds_before_;
  }

  void save() {
    Checkpoint checkpoint;
    checkpoint.step = step;
    checkpoint.state["key"] = std::to_string(plan_.key);
    checkpoint.state["seconds"] = std::to_string(seconds());
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      optimizers_[i].save(trainees_[i].name + "/", checkpoint);
    }
    store_.save(checkpoint);
  }

  // One update of every trainee; false when any gradient was not finite.
  bool update(std::vector<Metrics>& metrics) {
    bool finite = true;
    const double rate = learning_rate(plan_.optimizer, step, plan_.steps);
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      const auto result = optimizers_[i].step(rate);
      finite = finite && result.finite;
      metrics[i].emplace_back("learning_rate", rate);
      metrics[i].emplace_back("grad_norm", result.grad_norm);
    }
    return finite;
  }

  std::string metrics_stage(const Trainee& trainee) const {
    return trainee.name.empty() ? plan_.stage : plan_.stage + "." + trainee.name;
  }
  double seconds() const { return now_seconds() - start_; }

  int64_t step = 0;  // optimiser steps done

 private:
  void restore() {
    const auto checkpoint = store_.load_newest();
    if (!checkpoint) return;
    if (checkpoint->state.at("key") != std::to_string(plan_.key)) {
      throw ConfigError(str("stage ", plan_.stage,
                            ": its checkpoint was made from other inputs or "
                            "settings; run with --from ",
                            plan_.stage, " to begin it again"));
    }
    step = checkpoint->step;
    seconds_before_ = std::stod(checkpoint->state.at("seconds"));
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      optimizers_[i].load(trainees_[i].name + "/", *checkpoint);
    }
    log_info(str(plan_.stage, ": continuing after step ", step, " of ", plan_.steps));
  }

  const LoopPlan& plan_;
  std::vector<Trainee>& trainees_;
  CheckpointStore store_;
  std::vector<AdamW> optimizers_;
  double seconds_before_ = 0, start_ = 0;
};

std::string detail(const std::vector<Metrics>& metrics) {
  std::string text;
  for (const auto& of_one : metrics) {
    char number[48];
    std::snprintf(number, sizeof number, "%s%.4f", text.empty() ? "loss " : " / ",
                  of_one.at(0).second);
    text += number;
  }
  return text;
}

}  // namespace

double run_loop(Job& job, const LoopPlan& plan, std::vector<Trainee>& trainees,
                const std::function<std::vector<Metrics>(int64_t step)>& forward_backward) {
  LoopState state(job, plan, trainees);
  Progress progress(plan.stage, plan.steps, plan.tokens_per_step);
  int non_finite = 0;
  while (state.step < plan.steps) {
    const double began = now_seconds();
    auto metrics = forward_backward(state.step);
    non_finite = state.update(metrics) ? 0 : non_finite + 1;
    ++state.step;
    const double rate = plan.tokens_per_step / (now_seconds() - began);
    for (size_t i = 0; i < trainees.size(); ++i) {
      metrics[i].emplace_back("tokens", plan.tokens_per_step * static_cast<double>(state.step));
      metrics[i].emplace_back("tokens_per_second", rate);
      job.metrics.write(state.metrics_stage(trainees[i]), state.step, metrics[i]);
    }
    progress.update(state.step, detail(metrics));
    if (non_finite > 0)
      log_warning(str(plan.stage, " step ", state.step, ": gradient not finite, step skipped"));
    if (non_finite >= kMaxNonFiniteInRow) {
      throw GaveUpError(str(plan.stage, " step ", state.step, ": ", non_finite,
                            " steps in a row had a gradient that is not finite"));
    }
    const bool stop = stop_requested();
    const bool due = state.step % job.recipe.checkpoint.every_steps == 0 && state.step < plan.steps;
    if (take_save_request() || due || stop) state.save();
    if (stop)
      throw StoppedError(
          str(plan.stage, ": stopped after step ", state.step, ", checkpoint saved"));
  }
  progress.finish();
  return state.seconds();
}

int64_t steps_for(double tokens, int64_t batch_size, int64_t sequence_length, int64_t sequences) {
  const double per_step = static_cast<double>(batch_size * sequence_length);
  const double wanted = tokens > 0 ? tokens : static_cast<double>(sequences * sequence_length);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(wanted / per_step)));
}

at::Tensor text_mask(const Batch& batch) {
  return batch.segments.defined() ? batch.segments.ge(0)
                                  : torch::ones_like(batch.input_ids, torch::kBool);
}

StepBatches step_batches(const TokenDataset& data, const BatchPlan& plan, int64_t step,
                         at::Device device) {
  StepBatches batches;
  for (int64_t first = 0; first < plan.batch_size; first += plan.micro_batch_size) {
    const int64_t count = std::min(plan.micro_batch_size, plan.batch_size - first);
    auto batch = data.batch(plan.seed, step * plan.batch_size + first, count);
    batches.sequences += static_cast<double>(count);
    batches.text += static_cast<double>(text_mask(batch).sum().item<int64_t>());
    batches.tokens += batch.loss_mask.sum().item<double>();
    batches.predictions += batch.targets.ge(0).sum().item<double>();
    batch.input_ids = batch.input_ids.to(device);
    batch.loss_mask = batch.loss_mask.to(device);
    batch.targets = batch.targets.to(device);
    if (batch.segments.defined()) batch.segments = batch.segments.to(device);
    batches.micro.push_back(std::move(batch));
  }
  // A batch without any answer has no loss; its denominators shall not make it 0 / 0.
  for (auto* count : {&batches.text, &batches.tokens, &batches.predictions}) {
    *count = std::max(*count, 1.0);
  }
  return batches;
}

uint64_t stage_seed(int64_t seed, const std::string& stage) {
  Hasher hasher;
  hasher.add(static_cast<uint64_t>(seed));
  hasher.add(stage);
  return hasher.value();
}

}  // namespace zebra
