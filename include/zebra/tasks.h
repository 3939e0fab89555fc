// The tasks of lm-evaluation-harness: the same prompts, rules and numbers, from rows of the Hugging
// Face data sets as JSONL. docs/evaluation.md tells how tasks and files are named.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "zebra/chat_template.h"
#include "zebra/model.h"
#include "zebra/tokenizer.h"

namespace zebra {

struct TaskOptions {
  std::vector<std::string> tasks = {};  // names of tasks or groups, or YAML files of tasks
  std::string data = {};                // folder of TASK/SPLIT.jsonl
  std::optional<int64_t> shots =
      {};  // examples before each question; absent: the task's own number
  uint64_t fewshot_seed = 1234;
  int64_t limit = 0;       // documents of each task, the first ones; 0: all
  int64_t max_length = 0;  // tokens of context; 0: the model's
  // Endings of more tokens than the context holds: only their end is scored. Else they are refused,
  // as the harness does.
  bool cut_endings = false;
  int64_t batch_size = 0;                 // rows of one forward; 0: as many as 16,384 tokens hold
  int64_t bootstrap_iterations = 100000;  // of the standard error of a perplexity; 0: none
  bool samples = false;                   // keep a record of every document

  // Renders a conversation, the assistant's next turn begun. Empty: plain prompts.
  std::function<std::string(const std::vector<ChatMessage>&)> chat_template = {};
  bool fewshot_as_multiturn = false;  // examples as turns of their own, not within one user's turn
  std::string system_instruction = {};

  // Of several ranks, this one answers every `shard_count`-th document. `sum_over_ranks` adds a
  // float64 tensor of all ranks; every rank then has every result.
  int64_t shard_index = 0, shard_count = 1;
  std::function<at::Tensor(const at::Tensor&)> sum_over_ranks = {};
};

class Group;
// Every rank of a group answers its share of the documents, and has all results.
void share_documents(TaskOptions& options, Group& group);

struct TaskMetric {
  std::string name;    // acc, acc_norm, perplexity, exact_match, ...
  std::string filter;  // none; strict-match and flexible-extract of generated answers
  double value = 0;
  std::optional<double> error = {};  // standard error; absent where it is not known
  bool higher_is_better = true;
};

struct TaskResult {
  std::string name = {}, alias = {};
  double version = 0;
  int64_t shots = 0;
  int64_t documents = 0;  // evaluated
  int64_t available = 0;  // in the file
  std::vector<TaskMetric> metrics = {};
  std::vector<std::string> members = {};  // of a group; empty for a task
  std::string config = {};  // JSON: a task's settings under the harness's keys; empty for a group

  // nullptr when the task has no such metric.
  const TaskMetric* find(const std::string& metric) const;
};

struct TaskReport {
  std::vector<TaskResult> results;  // tasks and groups, a group before its members
  // By task: one JSON text a document and filter, as the harness's samples have it.
  std::vector<std::pair<std::string, std::vector<std::string>>> samples;
};

// Evaluates all tasks in one go. What the user got wrong is a ConfigError before the model runs: an
// unknown task (with the nearest name), a file or field that is missing, an answer out of range, an
// ending longer than the context, a token that the model lacks.
TaskReport evaluate_tasks(CausalLm model, const Tokenizer& tokenizer, const TaskOptions& options);

// Names for messages and help: tasks, then groups.
std::vector<std::string> task_names();

using JsonPairs = std::vector<std::pair<std::string, std::string>>;  // keys and JSON values

// The harness's results file, as text: results, groups, configs, versions, n-shot, n-samples,
// config, ... `config`: further pairs of "config", such as the model's path; `about`: of the file,
// such as the date.
std::string task_report_json(const TaskReport& report, const TaskOptions& options,
                             const JsonPairs& config, const JsonPairs& about = {});

// An aligned table: task, version, shots, filter, metric, value, standard error.
std::string task_report_table(const TaskReport& report);

}  // namespace zebra
