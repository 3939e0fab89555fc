// The last stage: every model of the run on the same held-out text, choices and pairs; summary,
// table and report.
#include <algorithm>
#include <chrono>
#include <set>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "data/harness_tokenizer.h"
#include "train/report.h"
#include "train/stages/stages.h"
#include "train/summary.h"
#include "zebra/convert.h"
#include "zebra/error.h"
#include "zebra/eval.h"
#include "zebra/tasks.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

// What all models are measured on. Rank 0 measures; the tasks are shared out over all ranks.
class Measures {
 public:
  explicit Measures(Job& job) : job_(job) {
    const auto& eval = job.recipe.eval;
    if (!eval.tasks.empty()) prepare_tasks();
    if (!eval.choices.empty()) choices_ = read_multiple_choice(job.input(eval.choices).string());
    if (job.recipe.stages.dpo && !job.recipe.stages.dpo->validation.empty()) {
      pairs_ = std::make_unique<PreferenceDataset>(job.held_out_pairs());
    }
  }

  // `name` is what eval.at calls the model; `file` names its results. Every rank calls this, and
  // rank 0 has the scores.
  StageScores operator()(const std::function<CausalLm()>& load, const std::string& name,
                         const std::string& file) {
    StageScores scores;
    CausalLm model(nullptr);
    job_.group.led([&] {
      log_info(str("eval: ", file));
      model = load();
      scores = measure(model);
    });
    if (!runs_tasks(name)) return scores;
    if (model.is_empty()) model = load();
    scores.tasks = run_tasks(model, file);
    return scores;
  }

  // What the table of tasks shows, known once tasks have run.
  const std::vector<TaskColumn>& task_columns() const { return columns_; }

 private:
  StageScores measure(CausalLm model) {
    const auto& eval = job_.recipe.eval;
    auto teacher = job_.teacher();
    StageScores scores;
    const auto text =
        score_text(model, &teacher, job_.validation_data(), eval.batch_size, eval.max_sequences);
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

  void prepare_tasks() {
    const auto& eval = job_.recipe.eval;
    tokenizer_ = load_harness_tokenizer(job_.base_folder());
    tasks_.tasks = job_.eval_tasks();
    tasks_.data = job_.eval_data();
    tasks_.shots = eval.fewshot;
    tasks_.limit = eval.limit;
    tasks_.max_length = eval.max_length;
    tasks_.cut_endings = eval.cut_endings;
    share_documents(tasks_, job_.group);
  }

  bool runs_tasks(const std::string& name) const {
    const auto& at = job_.recipe.eval.at;
    const auto listed = [&](const std::string& word) {
      return std::find(at.begin(), at.end(), word) != at.end();
    };
    if (tasks_.tasks.empty() || name.empty()) return false;
    return at.empty() || listed("all") || listed(name);
  }

  // The results go to tasks/FILE.json in the harness's form, the numbers of whole tasks and groups
  // into the summary.
  std::map<std::string, double> run_tasks(CausalLm model, const std::string& file) {
    log_info(str("eval: tasks of ", file));
    const auto report = evaluate_tasks(model, *tokenizer_, tasks_);
    if (!job_.group.leads()) return {};
    const auto folder = job_.folder.root() / "tasks";
    make_folders(folder);
    write_file_atomic(folder / (file + ".json"),
                      task_report_json(report, tasks_, {{"model", json(file).dump()}}));
    std::map<std::string, double> numbers;
    std::set<std::string> members;
    columns_.clear();
    for (const auto& result : report.results) {
      members.insert(result.members.begin(), result.members.end());
      if (members.contains(result.name)) continue;
      for (const auto& metric : result.metrics) {
        const auto key = result.name + "," + metric.name;
        if (!numbers.emplace(key, metric.value).second) continue;
        if (metric.error) numbers[key + "_stderr"] = *metric.error;
      }
      columns_.push_back(column_of(result));
    }
    return numbers;
  }

  // The published metric, else acc_norm where the task has it, else its first; perplexities are no
  // shares, and stand in the results alone.
  TaskColumn column_of(const TaskResult& result) const {
    TaskColumn column{.task = result.name,
                      .metric = result.find("acc_norm") ? "acc_norm" : result.metrics[0].name,
                      .published_base = {},
                      .published_hybrid = {}};
    if (result.find("acc") && !result.find("acc_norm")) column.metric = "acc";
    for (const auto& published : job_.recipe.eval.published) {
      if (published.task != result.name) continue;
      column.metric = published.metric;
      if (published.base) column.published_base = *published.base / 100;
      if (published.hybrid) column.published_hybrid = *published.hybrid / 100;
    }
    return column;
  }

  Job& job_;
  std::vector<MultipleChoice> choices_;
  std::unique_ptr<PreferenceDataset> pairs_;
  TaskOptions tasks_;
  std::unique_ptr<Tokenizer> tokenizer_;  // of the tasks
  std::vector<TaskColumn> columns_;
};

// The hybrid as it would be without any training: the chosen layers of the initialised students.
CausalLm initialised_hybrid(Job& job) {
  const auto load = [&](MixerKind kind, const char* name) {
    return job.needs_student(kind) ? job.load(job.folder.stage("init") / name) : CausalLm(nullptr);
  };
  return compose(job.base(), load(MixerKind::kMla, "mla"), load(MixerKind::kMamba2, "mamba2"),
                 job.hybrid_options(job.hybrid_layers(chosen_mla_layers(job))));
}

void measure_hybrid(Job& job, Measures& measure, Summary& summary) {
  const auto from = [&job](const fs::path& folder) {
    return [&job, folder] { return job.load(folder); };
  };
  summary.stages["init"] = measure([&] { return initialised_hybrid(job); }, "init", "init");
  summary.stages["composed"] = measure(from(job.folder.stage("compose")), "composed", "composed");
  for (const auto& [name, kind] :
       {std::pair{"mla", MixerKind::kMla}, std::pair{"mamba2", MixerKind::kMamba2}}) {
    if (!job.needs_student(kind)) continue;
    for (const char* stage : {"init", "ild"}) {
      if (stage == std::string("ild") && !job.recipe.stages.ild) continue;
      // The initialised students run no tasks: the hybrid of their layers does.
      const std::string at = stage == std::string("ild") ? "ild" : "";
      summary.students[name][stage] =
          measure(from(job.folder.stage(stage) / name), at, str(stage, "-", name));
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
  const auto bytes = cache_bytes(options, {}, at::kBFloat16);
  const auto base_bytes = cache_bytes(job.base()->options(), {}, at::kBFloat16);
  summary.cache = {.kv_values_per_token = own.kv_values_per_token,
                   .kv_share = static_cast<double>(own.kv_values_per_token) /
                               static_cast<double>(base.kv_values_per_token),
                   .state_values_per_sequence = own.state_values_per_sequence,
                   .base_kv_values_per_token = base.kv_values_per_token,
                   .bytes_per_token = bytes.per_token,
                   .bytes_per_sequence = bytes.per_sequence,
                   .base_bytes_per_token = base_bytes.per_token,
                   .max_tokens = options.max_position_embeddings};
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
  summary.stages["base"] = measure([&] { return job.base(); }, "base", "base");
  const bool hybrid = job.recipe.hybrid && job.recipe.base;
  if (hybrid) measure_hybrid(job, measure, summary);
  std::string last = hybrid ? "compose" : "";
  for (const auto& [stage, wanted] : {std::pair{"distill", job.recipe.stages.distill.has_value()},
                                      std::pair{"dpo", job.recipe.stages.dpo.has_value()}}) {
    if (!wanted) continue;
    const std::string name = stage;  // a lambda cannot hold what a pair was taken apart into
    summary.stages[name] = measure([&] { return job.load(job.folder.stage(name)); }, name, name);
    last = name;
  }
  summary.task_columns = measure.task_columns();
  job.group.led([&] {
    if (hybrid) {
      describe_smart(job, summary);
      const auto model = job.load(job.folder.stage(last));
      describe_hybrid(job, model, summary);
      if (job.recipe.eval.speed) measure_speed(job, model, summary);
    }
    describe_times(job, summary);
    write_summary(job.folder.root(), summary);
    write_report(job.folder.root());
    log_info(str("report: ", (job.folder.root() / "report.html").string()));
  });
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  return {spent.count()};
}

}  // namespace zebra
