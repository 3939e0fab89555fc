#include "train/loop.h"

#include <cmath>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signals.h"
#include "base/stopwatch.h"
#include "convert/model_config.h"
#include "train/health.h"
#include "train/schedule.h"
#include "train/step_recorder.h"
#include "zebra/checkpoint.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr int kMaxNonFiniteInRow = 5;
constexpr const char* kGenerator = "generator.cpu";

// What is wanted after a step. Any rank may ask for it; all do it.
constexpr int64_t kStop = 1, kSave = 2, kTrace = 4;

// Everything that a stage must remember between two steps.
class LoopState {
 public:
  LoopState(Job& job, const LoopPlan& plan, std::vector<Trainee>& trainees)
      : job_(job),
        plan_(plan),
        trainees_(trainees),
        store_(job.folder.checkpoints(plan.stage),
               {.keep = job.recipe.checkpoint.keep,
                .keep_every = job.recipe.checkpoint.keep_every,
                .asynchronous = job.recipe.checkpoint.asynchronous},
               job.saver_ranks) {
    for (auto& trainee : trainees)
      optimizers_.emplace_back(trainable(*trainee.model), plan.optimizer);
    restore();
  }

  // Begins to write a checkpoint of this step, unless there is one.
  void save() {
    if (saved_step_ == step) return;
    Checkpoint checkpoint{.step = step, .pieces = {}, .state = description()};
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      optimizers_[i].save(trainees_[i].name + "/", checkpoint);
    }
    if (job_.ranks.rank == 0) {
      job_.metrics.sync();
      const auto generator = at::globalContext().defaultGenerator(at::kCPU);
      checkpoint.pieces.push_back(whole_tensor(kGenerator, generator.get_state()));
    }
    store_.save(checkpoint);
    saved_step_ = step;
    since_save_ = Stopwatch();
  }

  void save_and_wait() {
    save();
    store_.wait();
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

  // What signals, the time limit and rank 0's clock ask for. An error of a checkpoint that was
  // being written is thrown here.
  int64_t requests() {
    store_.poll();
    const auto& recipe = job_.recipe.checkpoint;
    const bool late = recipe.every_minutes > 0 && job_.ranks.rank == 0 &&
                      since_save_.seconds() >= 60 * recipe.every_minutes;
    const bool due = recipe.every_steps > 0 && step % recipe.every_steps == 0;
    const bool permanent = recipe.keep_every > 0 && step % recipe.keep_every == 0;
    const bool save = take_save_request() || late || due || permanent;
    return any_of(job_.ranks, (stop_requested() ? kStop : 0) | (save ? kSave : 0) |
                                  (take_trace_request() ? kTrace : 0));
  }

  double seconds() const { return seconds_before_ + since_start_.seconds(); }

  int64_t step = 0;  // optimiser steps done

 private:
  // What a reader needs to go on, and to make model folders of the weights without the recipe.
  std::map<std::string, std::string> description() const {
    std::map<std::string, std::string> state = {
        {"stage", plan_.stage},
        {"key", std::to_string(plan_.key)},
        {"seconds", std::to_string(seconds())},
        {"steps", std::to_string(plan_.steps)},
        {"tokenizer", std::filesystem::absolute(job_.tokenizer_source()).string()}};
    for (const auto& trainee : trainees_) {
      const auto& options = trainee.model->options();
      const auto prefix = trainee.name + "/";
      state[prefix + kLlamaConfig] = llama_config(options, job_.dtype).dump();
      if (!options.is_llama()) state[prefix + kHybridConfig] = hybrid_config(options).dump();
    }
    return state;
  }

  void restore() {
    const auto checkpoint = store_.load_newest();
    if (!checkpoint) return;
    if (checkpoint->state("key") != std::to_string(plan_.key)) {
      throw ConfigError(str("stage ", plan_.stage,
                            ": its checkpoint was made from other inputs or "
                            "settings; run with --from ",
                            plan_.stage, " to begin it again"));
    }
    step = saved_step_ = checkpoint->step();
    seconds_before_ = std::stod(checkpoint->state("seconds"));
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      optimizers_[i].load(trainees_[i].name + "/", *checkpoint);
    }
    auto generator = at::globalContext().defaultGenerator(at::kCPU);
    generator.set_state(checkpoint->read(kGenerator));
    log_info(str(plan_.stage, ": continuing after step ", step, " of ", plan_.steps,
                 checkpoint->world() == job_.ranks.world
                     ? ""
                     : str(", saved by ", checkpoint->world(), " ranks")));
  }

  Job& job_;
  const LoopPlan& plan_;
  std::vector<Trainee>& trainees_;
  CheckpointStore store_;
  std::vector<AdamW> optimizers_;
  double seconds_before_ = 0;
  int64_t saved_step_ = -1;
  Stopwatch since_start_, since_save_;
};

std::string losses_text(const std::vector<Metrics>& metrics) {
  std::string text;
  for (const auto& of_one : metrics) {
    char number[48];
    std::snprintf(number, sizeof number, "%s%.4f", text.empty() ? "loss " : " / ",
                  of_one.at(0).second);
    text += number;
  }
  return text;
}

// Counts steps in a row whose gradients were not finite, explains the first and gives up in time.
class NonFinite {
 public:
  explicit NonFinite(std::string stage) : stage_(std::move(stage)) {}

  void step(int64_t step, bool finite, const std::function<std::string()>& explain) {
    in_row_ = finite ? 0 : in_row_ + 1;
    if (finite) return;
    log_warning(str(stage_, " step ", step, ": gradient not finite, step skipped",
                    in_row_ == 1 ? "; " + explain() : ""));
    if (in_row_ >= kMaxNonFiniteInRow) {
      throw GaveUpError(str(stage_, " step ", step, ": ", in_row_,
                            " steps in a row had a gradient that is not finite"));
    }
  }

 private:
  std::string stage_;
  int in_row_ = 0;
};

}  // namespace

double run_loop(Job& job, const LoopPlan& plan, std::vector<Trainee>& trainees,
                const std::function<std::vector<Metrics>(int64_t step)>& forward_backward) {
  LoopState state(job, plan, trainees);
  StepRecorder recorder(job, plan, trainees, state.step);
  Health health(job.recipe.health, job.ranks, plan.stage);
  NonFinite non_finite(plan.stage);
  Progress progress(plan.stage, plan.steps, plan.tokens_per_step);
  const int64_t first = state.step;
  bool trace = false;
  while (state.step < plan.steps) {
    job.doing(str(plan.stage, " step ", state.step + 1, " of ", plan.steps));
    const Stopwatch clock;
    const int64_t index = state.step;
    std::vector<Metrics> metrics;
    const auto work = [&] { metrics = forward_backward(index); };
    if (trace || index + 1 == job.recipe.metrics.trace_step) {
      trace_to(job.trace_file(plan.stage, index + 1), work);
    } else {
      work();
    }
    health.replay(index, trainees, forward_backward);
    const auto measured = metrics;
    const bool finite = state.update(metrics);
    ++state.step;
    recorder.write(state.step, metrics, clock.seconds());
    progress.update(state.step, losses_text(metrics));
    non_finite.step(state.step, finite, [&] {
      return health.explain_non_finite(index, measured, trainees, forward_backward);
    });
    health.after_step(state.step, trainees);
    if (state.step == first + 1) {
      log_info(str(plan.stage, ": first step done ", job.since_start.seconds(),
                   " s after the start; memory: ", memory_text(job, trainees)));
    }
    const int64_t asked = state.requests();
    trace = (asked & kTrace) != 0;
    if ((asked & kSave) != 0) state.save();
    if ((asked & kStop) == 0) continue;
    state.save_and_wait();
    throw StoppedError(str(plan.stage, ": stopped after step ", state.step, " by ", stop_reason(),
                           ", checkpoint saved"));
  }
  state.save_and_wait();  // what follows, writing the model, may be cut short too
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
  const Stopwatch clock;
  StepBatches batches;
  for (int64_t first = 0; first < plan.batch_size; first += plan.micro_batch_size) {
    const int64_t count = std::min(plan.micro_batch_size, plan.batch_size - first);
    auto batch = data.batch(plan.seed, step * plan.batch_size + first, count);
    batches.samples += sample_mark(step * plan.batch_size + first, batch.sample_ids);
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
  batches.seconds = clock.seconds();
  // A batch without any answer has no loss; its denominators shall not make it 0 / 0.
  for (auto* count : {&batches.text, &batches.tokens, &batches.predictions}) {
    *count = std::max(*count, 1.0);
  }
  return batches;
}

double sample_mark(int64_t first, const std::vector<int64_t>& sample_ids) {
  constexpr uint64_t kMask = (uint64_t{1} << 24) - 1;  // sums of 2^29 of them are exact in a double
  double mark = 0;
  for (size_t i = 0; i < sample_ids.size(); ++i) {
    const std::vector<int64_t> place = {first + static_cast<int64_t>(i), sample_ids[i]};
    mark += static_cast<double>(hash_values(place) & kMask);
  }
  return mark;
}

uint64_t stage_seed(int64_t seed, const std::string& stage) {
  Hasher hasher;
  hasher.add(static_cast<uint64_t>(seed));
  hasher.add(stage);
  return hasher.value();
}

}  // namespace zebra
