// The last stage: every model of the run on the same held-out text, choices and pairs; summary,
// table and report.
#include <chrono>

#include "base/json.h"
#include "base/log.h"
#include "train/report.h"
#include "train/stages/stages.h"
#include "train/summary.h"
#include "zebra/convert.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

// What all models are measured on.
class Measures {
 public:
  explicit Measures(Job& job) : job_(job), teacher_(job.teacher()) {
    const auto& eval = job.recipe.eval;
    if (!eval.choices.empty()) choices_ = read_multiple_choice(job.input(eval.choices).string());
    if (job.recipe.stages.dpo && !job.recipe.stages.dpo->validation.empty()) {
      pairs_ = std::make_unique<PreferenceDataset>(job.held_out_pairs());
    }
  }

  StageScores operator()(CausalLm model) {
    const auto& eval = job_.recipe.eval;
    StageScores scores;
    const auto text =
        score_text(model, &teacher_, job_.validation_data(), eval.batch_size, eval.max_sequences);
    scores.nats_per_token = text.nats_per_token;
    scores.bits_per_byte = text.bits_per_byte;
    scores.kl_per_token = text.kl_per_token;
    scores.top1_agreement = text.top1_agreement;
    if (!choices_.empty()) {
      const auto choice = score_choices(model, job_.tokenizer(), choices_);
      scores.accuracy = choice.accuracy;
      scores.accuracy_norm = choice.accuracy_norm;
    }
    if (pairs_) {
      const auto preference = score_preferences(model, *pairs_, eval.batch_size);
      scores.preference_accuracy = preference.accuracy;
      scores.preference_margin = preference.margin;
    }
    return scores;
  }

 private:
  Job& job_;
  CausalLm teacher_;
  std::vector<MultipleChoice> choices_;
  std::unique_ptr<PreferenceDataset> pairs_;
};

StageScores measure_folder(Job& job, Measures& measure, const fs::path& folder) {
  return measure(job.load(folder));
}

// The hybrid as it would be without any training: the chosen layers of the initialised students.
CausalLm initialised_hybrid(Job& job) {
  const auto load = [&](MixerKind kind, const char* name) {
    return job.needs_student(kind) ? job.load(job.folder.stage("init") / name) : CausalLm(nullptr);
  };
  return compose(job.base(), load(MixerKind::kMla, "mla"), load(MixerKind::kMamba2, "mamba2"),
                 job.hybrid_options(job.hybrid_layers(chosen_mla_layers(job))));
}

void measure_hybrid(Job& job, Measures& measure, Summary& summary) {
  log_info("eval: initialised and composed hybrid");
  summary.stages["init"] = measure(initialised_hybrid(job));
  summary.stages["composed"] = measure_folder(job, measure, job.folder.stage("compose"));
  for (const auto& [name, kind] :
       {std::pair{"mla", MixerKind::kMla}, std::pair{"mamba2", MixerKind::kMamba2}}) {
    if (!job.needs_student(kind)) continue;
    log_info(str("eval: ", name, " student"));
    for (const char* stage : {"init", "ild"}) {
      if (stage == std::string("ild") && !job.recipe.stages.ild) continue;
      summary.students[name][stage] = measure_folder(job, measure, job.folder.stage(stage) / name);
    }
  }
}

const char* kind_name(MixerKind kind) {
  switch (kind) {
    case MixerKind::kAttention:
      return "attention";
    case MixerKind::kMla:
      return "mla";
    case MixerKind::kMamba2:
      return "mamba2";
  }
  return "?";
}

void describe_hybrid(Job& job, const CausalLm& hybrid, Summary& summary) {
  const auto& options = hybrid->options();
  summary.parameters = count_parameters(options);
  for (const auto kind : options.layers) summary.layers.emplace_back(kind_name(kind));
  const auto own = cache_size(options), base = cache_size(job.base()->options());
  summary.cache = {.kv_values_per_token = own.kv_values_per_token,
                   .kv_share = static_cast<double>(own.kv_values_per_token) /
                               static_cast<double>(base.kv_values_per_token),
                   .state_values_per_sequence = own.state_values_per_sequence,
                   .base_kv_values_per_token = base.kv_values_per_token};
}

void measure_speed(Job& job, CausalLm hybrid, Summary& summary) {
  constexpr int64_t kBatch = 1, kNew = 64;
  const int64_t prompt = job.recipe.data.sequence_length;
  log_info("eval: decode speed");
  summary.speed.base_decode_tokens_per_second =
      measure_decode(job.base(), kBatch, prompt, kNew).tokens_per_second;
  summary.speed.hybrid_decode_tokens_per_second =
      measure_decode(hybrid, kBatch, prompt, kNew).tokens_per_second;
}

// Stage times, and training tokens a second over a whole stage (ILD's per student).
void describe_times(Job& job, Summary& summary) {
  for (const auto& stage : run_stages()) {
    if (const auto record = job.folder.record(stage.name)) {
      summary.speed.seconds[stage.name] = record->seconds;
    }
  }
  const auto rate = [&](const char* stage, double tokens) -> std::optional<double> {
    const auto found = summary.speed.seconds.find(stage);
    if (found == summary.speed.seconds.end() || tokens <= 0) return std::nullopt;
    return tokens / found->second;
  };
  const auto& stages = job.recipe.stages;
  if (stages.ild) summary.speed.ild_tokens_per_second = rate("ild", stages.ild->tokens);
  if (stages.distill)
    summary.speed.distill_tokens_per_second = rate("distill", stages.distill->tokens);
}

void describe_smart(const Job& job, Summary& summary) {
  if (!job.recipe.hybrid->smart_count) return;
  const auto path = job.folder.stage("smart") / "smart.json";
  const auto json = read_json(path);
  summary.smart.sensitivity = require<std::vector<double>>(json, "sensitivity", path.string());
  summary.smart.chosen = require<std::vector<int64_t>>(json, "chosen", path.string());
}

}  // namespace

StageResult run_eval(Job& job, uint64_t /*key*/) {
  const auto began = std::chrono::steady_clock::now();
  Measures measure(job);
  Summary summary;
  summary.name = job.recipe.name;
  summary.seed = job.recipe.seed;
  log_info("eval: base");
  summary.stages["base"] = measure(job.base());
  const bool hybrid = job.recipe.hybrid && job.recipe.base;
  if (hybrid) {
    measure_hybrid(job, measure, summary);
    describe_smart(job, summary);
  }
  std::string last = hybrid ? "compose" : "";
  for (const auto& [stage, wanted] : {std::pair{"distill", job.recipe.stages.distill.has_value()},
                                      std::pair{"dpo", job.recipe.stages.dpo.has_value()}}) {
    if (!wanted) continue;
    log_info(str("eval: ", stage));
    summary.stages[stage] = measure_folder(job, measure, job.folder.stage(stage));
    last = stage;
  }
  if (hybrid) {
    const auto model = job.load(job.folder.stage(last));
    describe_hybrid(job, model, summary);
    if (job.recipe.eval.speed) measure_speed(job, model, summary);
  }
  describe_times(job, summary);
  write_summary(job.folder.root(), summary);
  write_report(job.folder.root());
  log_info(str("report: ", (job.folder.root() / "report.html").string()));
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  return {spent.count()};
}

}  // namespace zebra
