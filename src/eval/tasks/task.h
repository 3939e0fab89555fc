// What a harness task is: a table entry, and where templates do not reach, a function.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "eval/tasks/template.h"

namespace zebra {

enum class TaskKind { kMultipleChoice, kLogLikelihood, kRolling, kGenerate };
enum class FewshotOrder { kSampled, kFirst };  // drawn by random.Random(seed), or the first n

// A request's answer: the log-probability of its continuation, and whether every token of it was
// the likeliest.
struct LogLikelihood {
  double sum = 0;
  bool greedy = false;
};

// One value of a metric for one document: a plain value, or one with a weight (words, bytes).
struct MetricValue {
  double value = 0, weight = 1;
};

struct Metric {
  std::string name;  // acc, acc_norm, perplexity, word_perplexity, byte_perplexity, bits_per_byte,
                     // exact_match
  bool higher_is_better = true;
};

struct TaskSpec {
  std::string name = {}, alias = {}, folder = {};  // rows are in folder/SPLIT.jsonl below --data,
  std::map<std::string, std::string> files = {};   // or in the file that stands here for a split
  double version = 1;
  TaskKind kind = TaskKind::kMultipleChoice;
  // Splits by their names; empty: the data set has none. Documents come from test, else validation.
  std::string training = {}, validation = {}, test = {};
  std::string fewshot_split = {};  // empty: training, else validation, else test
  FewshotOrder fewshot_order = FewshotOrder::kSampled;
  std::optional<int64_t> shots = {};  // examples unless asked otherwise; 0 cannot be changed

  // Templates, or names of fields.
  std::string description = {}, text = {}, target = {};
  std::vector<std::string> choices = {};  // one that gives a list, or the plain text of each choice
  // The target is the continuation, and text gives the answer; make_questions finds it out.
  bool choices_are_contexts = false;
  std::string target_delimiter = " ", fewshot_delimiter = "\n\n";

  std::vector<Metric> metrics = {};
  std::vector<std::string> stop = {};  // of a kGenerate task
  int64_t max_new_tokens = 256;

  // Adds fields that templates use. `prepared_is_document`: they count as part of the document, as
  // the harness's process_docs has it.
  Document (*prepare)(Document document, const std::string& where) = nullptr;
  bool prepared_is_document = false;
  // In place of the usual score of a multiple-choice document (acc).
  double (*score)(const Document& document, const std::vector<LogLikelihood>& answers) = nullptr;
  // A rolling task counts words and bytes of this field instead of the text that is scored.
  std::string counted_field = {};

  const std::string& eval_split() const { return test.empty() ? validation : test; }
  const std::string& fewshot_pool() const;
};

// Tasks whose results are joined, weighted by their documents.
struct TaskGroup {
  std::string name, alias;
  std::vector<std::string> members;  // groups or tasks
};

const std::vector<TaskSpec>& known_tasks();
const std::vector<TaskGroup>& known_groups();

// A task of the user's own, from YAML with the keys of the harness: task, output_type, doc_to_text,
// doc_to_choice, doc_to_target, metric_list, ... A mistake is a ConfigError with file, line and
// key.
TaskSpec read_task(const std::filesystem::path& file);

// A task's settings as a JSON object with the keys of the harness: what of them we have.
std::string task_config_json(const TaskSpec& task, int64_t shots);

// ---- functions of the table (functions.cpp)

Document prepare_hellaswag(Document document, const std::string& where);
Document prepare_winogrande(Document document, const std::string& where);
Document prepare_race(Document document, const std::string& where);
Document prepare_wikitext(Document document, const std::string& where);
Document prepare_truthfulqa(Document document, const std::string& where);  // checks labels alone
double score_truthfulqa(const Document& document, const std::vector<LogLikelihood>& answers);

// What gsm8k compares: the answer that a text ends with, by two rules.
struct AnswerFilter {
  std::string name;  // strict-match, flexible-extract
  std::string (*extract)(const std::string& text);
};
const std::vector<AnswerFilter>& gsm8k_filters();
bool gsm8k_equal(const std::string& answer, const std::string& reference);

}  // namespace zebra
