// What a model's answer to one document is worth.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "eval/tasks/documents.h"
#include "zebra/error.h"

namespace zebra {

struct TaskAnswer {
  std::vector<LogLikelihood> scores;  // of each request
  std::string text;                   // of a kGenerate task, before any filter
};

// How answers are read: "none", or the filters of a kGenerate task.
std::vector<std::string> filter_names(const TaskSpec& task);

// What a filter makes of a generated text.
std::string filtered_answer(const std::string& text, const std::string& filter);

// One value for each of the task's metrics.
std::vector<MetricValue> score_document(const TaskSpec& task, const TaskDocument& document,
                                        const TaskQuestion& question, const TaskAnswer& answer,
                                        const std::string& filter);

// A ConfigError that `action` throws begins with the document's file and line.
template <class Action>
void at_document(const TaskDocument& document, Action&& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    const std::string what = error.what();
    throw ConfigError(what.starts_with(document.where) ? what : document.where + ": " + what);
  }
}

}  // namespace zebra
