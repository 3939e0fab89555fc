// summary.json of a run folder: every number of the final table.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace zebra {

// Measures of one model. What was not measured is absent.
struct StageScores {
  // On held-out text.
  std::optional<double> nats_per_token = {}, bits_per_byte = {};
  // Against the teacher.
  std::optional<double> kl_per_token = {}, top1_agreement = {};
  // Multiple choice.
  std::optional<double> accuracy = {}, accuracy_norm = {};
  std::optional<double> preference_accuracy = {}, preference_margin = {};
  // Harness tasks, by "task,metric"; standard errors by "task,metric_stderr".
  std::map<std::string, double> tasks = {};

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("nats_per_token", nats_per_token);
    visit("bits_per_byte", bits_per_byte);
    visit("kl_per_token", kl_per_token);
    visit("top1_agreement", top1_agreement);
    visit("accuracy", accuracy);
    visit("accuracy_norm", accuracy_norm);
    visit("preference_accuracy", preference_accuracy);
    visit("preference_margin", preference_margin);
    visit("tasks", tasks);
  }
};

// Values, not bytes, of the hybrid's cache and its base's.
struct CacheSummary {
  std::optional<int64_t> kv_values_per_token;
  std::optional<double> kv_share;  // of the base's, 0 ... 1
  std::optional<int64_t> state_values_per_sequence;
  std::optional<int64_t> base_kv_values_per_token;
  // The same in bytes, in bfloat16 with float32 SSM states, as the caches hold them.
  std::optional<int64_t> bytes_per_token, bytes_per_sequence, base_bytes_per_token;
  std::optional<int64_t> max_tokens;  // of a sequence, the model's

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("kv_values_per_token", kv_values_per_token);
    visit("kv_share", kv_share);
    visit("state_values_per_sequence", state_values_per_sequence);
    visit("base_kv_values_per_token", base_kv_values_per_token);
    visit("bytes_per_token", bytes_per_token);
    visit("bytes_per_sequence", bytes_per_sequence);
    visit("base_bytes_per_token", base_bytes_per_token);
    visit("max_tokens", max_tokens);
  }
};

struct SpeedSummary {
  std::optional<double> base_decode_tokens_per_second, hybrid_decode_tokens_per_second;
  std::optional<double> ild_tokens_per_second, distill_tokens_per_second;
  std::map<std::string, double> seconds;  // by stage

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("base_decode_tokens_per_second", base_decode_tokens_per_second);
    visit("hybrid_decode_tokens_per_second", hybrid_decode_tokens_per_second);
    visit("ild_tokens_per_second", ild_tokens_per_second);
    visit("distill_tokens_per_second", distill_tokens_per_second);
    visit("seconds", seconds);
  }
};

struct SmartSummary {
  std::vector<double> sensitivity;  // one a layer
  std::vector<int64_t> chosen;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("sensitivity", sensitivity);
    visit("chosen", chosen);
  }
};

// A column of the table of tasks, and what is published about it (a share, 0 ... 1).
struct TaskColumn {
  std::string task, metric;
  std::optional<double> published_base, published_hybrid;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("task", task);
    visit("metric", metric);
    visit("published_base", published_base);
    visit("published_hybrid", published_hybrid);
  }
};

struct Summary {
  std::optional<std::string> name;
  std::optional<int64_t> seed;
  std::optional<int64_t> parameters;  // of the hybrid
  std::vector<std::string> layers;    // the hybrid's kinds: attention, mla, mamba2
  // By model: base, init (the hybrid of initialised layers), composed, distill, dpo.
  std::map<std::string, StageScores> stages;
  // Pure students, by kind (mla, mamba2), then by what made them (init, ild).
  std::map<std::string, std::map<std::string, StageScores>> students;
  CacheSummary cache;
  SpeedSummary speed;
  SmartSummary smart;
  std::vector<TaskColumn> task_columns;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name);
    visit("seed", seed);
    visit("parameters", parameters);
    visit("layers", layers);
    visit("stages", stages);
    visit("students", students);
    visit("cache", cache);
    visit("speed", speed);
    visit("smart", smart);
    visit("task_columns", task_columns);
  }
};

std::filesystem::path summary_path(const std::filesystem::path& run_folder);

// What the folder's summary.json holds; an empty summary when there is none. A file that cannot be
// understood is a ConfigError naming it and the key.
Summary read_summary(const std::filesystem::path& run_folder);

// Replaces the file in one go.
void write_summary(const std::filesystem::path& run_folder, const Summary& summary);

// `older` with everything that `newer` has: a stage or value that only one of them holds is kept.
Summary merge_summaries(Summary older, const Summary& newer);

// The final table as aligned text: a row a model, a column a measure; a measure that no model has
// makes no column. Ends with a newline.
std::string summary_table(const Summary& summary);

// The same in parts, for other forms: cells are formatted, a value that is absent is "".
struct SummaryTable {
  std::vector<std::string> columns;  // titles in one or two lines; the first column names the model
  std::vector<std::vector<std::string>> rows;
};
SummaryTable summary_cells(const Summary& summary);

// Scores of the harness's tasks in percent: a row a model (the pure students after ILD among them),
// the published numbers last; a column a task, and their mean where there are several. No rows when
// no task was run.
SummaryTable task_cells(const Summary& summary);

}  // namespace zebra
