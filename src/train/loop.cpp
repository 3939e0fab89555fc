#include "train/loop.h"

#include <cmath>
#include <optional>

#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signals.h"
#include "base/stopwatch.h"
#include "convert/model_config.h"
#include "train/block_runner.h"
#include "train/health.h"
#include "train/schedule.h"
#include "train/stability.h"
#include "train/step_recorder.h"
#include "zebra/checkpoint.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr const char* kGenerator = "generator.cpu";

// What is wanted after a step. Any rank may ask for it; all do it.
constexpr int64_t kStop = 1, kSave = 2, kTrace = 4;

// The name that a trainee's metrics go by.
std::string metrics_stage(const LoopPlan& plan, const Trainee& trainee) {
  return trainee.name.empty() ? plan.stage : plan.stage + "." + trainee.name;
}

// Every rank's part of a step's metrics added up; what tells of the machine is averaged.
std::vector<Metrics> over_ranks(Group& group, std::vector<Metrics> metrics) {
  if (group.size() == 1) return metrics;
  std::vector<double> values;
  for (const auto& of_one : metrics) {
    for (const auto& [name, value] : of_one) values.push_back(value);
  }
  const auto sums = group.sum(values);
  size_t at = 0;
  for (auto& of_one : metrics) {
    for (auto& [name, value] : of_one) {
      value = sums[at++];
      if (is_machine_measure(name)) value /= static_cast<double>(group.size());
    }
  }
  return metrics;
}

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
               job.saver_ranks),
        stability_(job.recipe.stability, trainees.size()) {
    const auto& parallel = job.recipe.parallel;
    for (auto& trainee : trainees) {
      auto& optimizer =
          optimizers_.emplace_back(trainable(*trainee.model), plan.optimizer, job.group,
                                   ShardOptions{.sharding = parallel.sharding,
                                                .micro_batches = plan.micro_batches,
                                                .exact_sums = parallel.bit_equal});
      trainee.model->set_block_runner(std::make_shared<TrainingBlocks>(
          &optimizer.shards(), BlockRunOptions{.recompute = parallel.recompute,
                                               .offload_inputs = parallel.offload_inputs}));
    }
    restore();
  }
  ~LoopState() {
    for (auto& trainee : trainees_) trainee.model->set_block_runner(nullptr);
  }
  LoopState(const LoopState&) = delete;
  LoopState& operator=(const LoopState&) = delete;

  // Begins to write a checkpoint of this step, unless there is one.
  void save() {
    if (saved_step_ == step) return;
    Checkpoint checkpoint{.step = step, .pieces = {}, .state = description()};
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      optimizers_[i].save(trainees_[i].name + "/", checkpoint);
    }
    if (job_.ranks.rank == 0) {
      checkpoint.sync = [this] { job_.metrics.sync(); };  // no step may be without its line
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

  // One update of every trainee that its numbers allow; `metrics` are of the global batch.
  std::vector<StepVerdict> update(std::vector<Metrics>& metrics) {
    std::vector<StepVerdict> verdicts;
    const double rate = learning_rate(plan_.optimizer, step, plan_.steps);
    for (size_t i = 0; i < optimizers_.size(); ++i) {
      const double norm = optimizers_[i].finish_gradients();
      const auto verdict = stability_.judge(i, metrics[i].at(0).second, norm);
      if (verdict.skip) {
        optimizers_[i].discard();
      } else {
        optimizers_[i].update(rate, norm);
      }
      metrics[i].emplace_back("learning_rate", rate);
      metrics[i].emplace_back("grad_norm", norm);
      if (verdict.skip) metrics[i].emplace_back("skipped", 1);
      if (verdict.spike) {
        metrics[i].emplace_back("loss_zscore", verdict.loss_zscore);
        metrics[i].emplace_back("grad_norm_zscore", verdict.grad_norm_zscore);
      }
      verdicts.push_back(verdict);
    }
    return verdicts;
  }

  // Tells of skipped steps and spikes; GaveUpError when there were too many. `explain` says more of
  // a step that was not finite.
  void tell(const std::vector<StepVerdict>& verdicts, const std::function<std::string()>& explain) {
    bool skipped = false;
    for (size_t i = 0; i < verdicts.size(); ++i) {
      if (verdicts[i].text().empty()) continue;
      const auto stage = metrics_stage(plan_, trainees_[i]);
      log_warning(str(stage, " step ", step, ": ", verdicts[i].text(),
                      verdicts[i].skip ? ", step skipped" : "",
                      verdicts[i].finite || skipped ? "" : "; " + explain()));
      skipped = skipped || verdicts[i].skip;
      if (!verdicts[i].skip) continue;
      const auto samples = plan_.samples(step - 1);
      log_warning(zebra::str(stage, " step ", step, ": its samples: ", at::IntArrayRef(samples)));
      job_.metrics.write_list(stage, step, "skipped_samples", samples);
    }
    stability_.end_step(skipped, str(plan_.stage, " step ", step));
  }

  // All parameters whole, for whoever reads the models next.
  void finish() {
    save_and_wait();  // what follows, writing the model, may be cut short too
    for (auto& optimizer : optimizers_) optimizer.shards().materialize();
  }

  std::vector<AdamW>& optimizers() { return optimizers_; }

  // What signals, the time limit and rank 0's clock ask for. An error of a checkpoint that was
  // being written is thrown here.
  Requests requests() {
    store_.poll();
    const auto& recipe = job_.recipe.checkpoint;
    const bool late = recipe.every_minutes > 0 && job_.ranks.rank == 0 &&
                      since_save_.seconds() >= 60 * recipe.every_minutes;
    const bool due = recipe.every_steps > 0 && step % recipe.every_steps == 0;
    const bool permanent = recipe.keep_every > 0 && step % recipe.keep_every == 0;
    const bool save = take_save_request() || late || due || permanent;
    const bool stop = stop_requested();
    const int64_t flags =
        (stop ? kStop : 0) | (save ? kSave : 0) | (take_trace_request() ? kTrace : 0);
    return any_of(job_.ranks, {.flags = flags, .stop_reason = stop ? stop_reason() : ""});
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
        {"stability", stability_.state()},
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
    stability_.restore(checkpoint->state("stability"));
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
  Stability stability_;
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

}  // namespace

double run_loop(Job& job, const LoopPlan& plan, std::vector<Trainee>& trainees,
                const std::function<std::vector<Metrics>(int64_t step)>& forward_backward) {
  LoopState state(job, plan, trainees);
  StepRecorder recorder(job, plan, trainees, state.step);
  Health health(job.recipe.health, job.ranks, plan.stage);
  std::optional<Progress> progress;
  if (job.group.leads()) progress.emplace(plan.stage, plan.steps, plan.tokens_per_step);
  // With full sharding a weight exists once, and there is nothing to compare it with.
  const bool copies = job.recipe.parallel.sharding != Sharding::kFull;
  const auto compared = copies ? trainees : std::vector<Trainee>();
  const int64_t first = state.step;
  bool trace = false;
  while (state.step < plan.steps) {
    job.doing(str(plan.stage, " step ", state.step + 1, " of ", plan.steps));
    const Stopwatch clock;
    const int64_t index = state.step;
    health.replay(index, state.optimizers(), forward_backward);
    std::vector<Metrics> of_rank;
    const auto work = [&] { of_rank = forward_backward(index); };
    if (trace || index + 1 == job.recipe.metrics.trace_step) {
      trace_to(job.trace_file(plan.stage, index + 1), work);
    } else {
      work();
    }
    auto metrics = over_ranks(job.group, of_rank);
    const auto verdicts = state.update(metrics);
    ++state.step;
    recorder.write(state.step, metrics, clock.seconds());
    if (progress) progress->update(state.step, losses_text(metrics));
    state.tell(verdicts, [&] {
      return health.explain_non_finite(index, of_rank, state.optimizers(), forward_backward);
    });
    health.after_step(state.step, compared);
    if (state.step == first + 1) {
      log_info(str(plan.stage, ": first step done ", job.since_start.seconds(),
                   " s after the start; memory: ", memory_text(job, state.optimizers())));
    }
    job.group.note_progress();
    const auto asked = state.requests();
    trace = (asked.flags & kTrace) != 0;
    if ((asked.flags & kSave) != 0) state.save();
    if ((asked.flags & kStop) == 0) continue;
    state.save_and_wait();
    throw StoppedError(str(plan.stage, ": stopped after step ", state.step, " by ",
                           asked.stop_reason, ", checkpoint saved"));
  }
  state.finish();
  if (progress) progress->finish();
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

BatchPlan batch_plan(const Job& job, const std::string& stage, int64_t batch_size,
                     int64_t micro_batch_size) {
  const int64_t W = job.group.size(), rank = job.group.rank(), own = batch_size / W;
  if (batch_size % W != 0) {
    throw ConfigError(str("stages.", stage, ".batch_size: expected a multiple of the ", W,
                          " ranks, got ", batch_size));
  }
  // Matrix products may round differently with other rows beside a row.
  const int64_t most = job.recipe.parallel.bit_equal ? 1 : own;
  return {.seed = stage_seed(job.recipe.seed, stage),
          .batch_size = batch_size,
          .begin = rank * own,
          .end = (rank + 1) * own,
          .micro_batch_size = micro_batch_size > 0 ? std::min(micro_batch_size, most) : most};
}

void StepBatches::add(Batch batch) {
  text += static_cast<double>(text_mask(batch).sum().item<int64_t>());
  tokens += batch.loss_mask.sum().item<double>();
  predictions += static_cast<double>(batch.targets.ge(0).sum().item<int64_t>());
  micro.push_back(std::move(batch));
}

StepBatches step_batches(Job& job, const TokenDataset& data, const BatchPlan& plan, int64_t step) {
  const Stopwatch clock;
  StepBatches batches;
  plan.visit_micro_batches(step, [&](int64_t first, int64_t count) {
    batches.add(data.batch(plan.seed, first, count));  // counted before a device has it
    auto& batch = batches.micro.back();
    batches.samples += sample_mark(first, batch.sample_ids);
    batch.input_ids = batch.input_ids.to(job.device);
    batch.loss_mask = batch.loss_mask.to(job.device);
    batch.targets = batch.targets.to(job.device);
    if (batch.segments.defined()) batch.segments = batch.segments.to(job.device);
  });
  batches.sequences = static_cast<double>(plan.batch_size);
  const auto counts = job.group.sum({batches.text, batches.tokens, batches.predictions});
  batches.text = counts[0];
  batches.tokens = counts[1];
  batches.predictions = counts[2];
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
