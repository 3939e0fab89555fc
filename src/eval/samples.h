// What is kept of a document: prompts, answers, scores and hashes, as the harness writes them.
#pragma once

#include <string>
#include <vector>

#include "eval/tasks/score.h"

namespace zebra {

struct Sample {
  int64_t id = 0;
  const Document& document;
  const TaskQuestion& question;
  const TaskAnswer& answer;
  const TaskSpec& spec;
  const std::string& filter;
  const std::vector<MetricValue>& values;  // one for each metric
};

// One JSON object without line breaks. Its doc_hash, prompt_hash and target_hash are those of the
// harness for the same document.
std::string sample_json(const Sample& sample);

}  // namespace zebra
