#include "eval/tasks/score.h"

#include <algorithm>

#include "eval/python.h"

namespace zebra {

namespace {

// The first of the greatest wins; lengths are those of the choices without their delimiter.
double score_choices(const TaskQuestion& question, const std::vector<LogLikelihood>& scores,
                     const std::string& metric) {
  size_t best = 0;
  std::vector<double> values;
  for (size_t c = 0; c < scores.size(); ++c) {
    double length = 1;
    if (metric == "acc_norm") length = static_cast<double>(python_length(question.choices[c]));
    if (metric == "acc_bytes") length = static_cast<double>(question.choices[c].size());
    values.push_back(scores[c].sum / length);
    if (values[c] > values[best]) best = c;
  }
  return static_cast<int64_t>(best) == question.answer ? 1 : 0;
}

MetricValue score_rolling(const TaskSpec& task, const TaskDocument& document,
                          const TaskAnswer& answer, const std::string& text,
                          const std::string& metric) {
  double sum = 0;
  for (const auto& window : answer.scores) sum += window.sum;
  const auto& counted = task.counted_field.empty()
                            ? text
                            : document.fields.at(task.counted_field).get_ref<const std::string&>();
  const auto weight =
      metric == "word_perplexity" ? count_words(counted) : static_cast<int64_t>(counted.size());
  return {.value = sum, .weight = static_cast<double>(weight)};
}

MetricValue score_metric(const TaskSpec& task, const TaskDocument& document,
                         const TaskQuestion& question, const TaskAnswer& answer,
                         const std::string& metric) {
  switch (task.kind) {
    case TaskKind::kRolling:
      return score_rolling(task, document, answer, question.requests[0].continuation, metric);
    case TaskKind::kLogLikelihood: {
      const auto& score = answer.scores[0];
      return {metric == "acc" ? (score.greedy ? 1.0 : 0.0) : score.sum};
    }
    default:
      return {task.score ? task.score(document.fields, answer.scores)
                         : score_choices(question, answer.scores, metric)};
  }
}

}  // namespace

std::vector<std::string> filter_names(const TaskSpec& task) {
  if (task.kind != TaskKind::kGenerate) return {"none"};
  std::vector<std::string> names;
  for (const auto& filter : gsm8k_filters()) names.push_back(filter.name);
  return names;
}

std::string filtered_answer(const std::string& text, const std::string& filter) {
  for (const auto& known : gsm8k_filters()) {
    if (known.name == filter) return known.extract(text);
  }
  return text;
}

std::vector<MetricValue> score_document(const TaskSpec& task, const TaskDocument& document,
                                        const TaskQuestion& question, const TaskAnswer& answer,
                                        const std::string& filter) {
  std::vector<MetricValue> values;
  at_document(document, [&] {
    for (const auto& metric : task.metrics) {
      if (task.kind == TaskKind::kGenerate) {
        const bool equal =
            gsm8k_equal(filtered_answer(answer.text, filter), question.target.get<std::string>());
        values.push_back({equal ? 1.0 : 0.0});
      } else {
        values.push_back(score_metric(task, document, question, answer, metric.name));
      }
    }
  });
  return values;
}

}  // namespace zebra
