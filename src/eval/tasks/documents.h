// The rows of a task, and the prompts made of them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/requests.h"
#include "eval/tasks/task.h"
#include "zebra/tasks.h"

namespace zebra {

struct TaskDocument {
  Document row;       // what counts as the document, in hashes and when examples are compared
  Document fields;    // what templates see
  std::string where;  // file:line, for messages
};

// The rows of a split, the first `limit` of them (0: all), prepared. `available` counts them all.
struct TaskRows {
  std::vector<TaskDocument> documents;
  int64_t available = 0;
};
TaskRows read_rows(const TaskSpec& task, const std::string& data, const std::string& split,
                   int64_t limit);

// A document with its prompt.
struct TaskQuestion {
  std::vector<TextRequest> requests;  // a kGenerate task's has no continuation
  std::vector<std::string> choices;   // without delimiters
  int64_t answer = -1;                // index of the right choice
  Document target;                    // what the harness calls so
};

// Prompts of all documents in their order, as examples are drawn one document after the other.
// `pool` holds the documents that examples come from.
std::vector<TaskQuestion> make_questions(TaskSpec task, const std::vector<TaskDocument>& documents,
                                         const std::vector<TaskDocument>& pool, int64_t shots,
                                         const TaskOptions& options);

}  // namespace zebra
