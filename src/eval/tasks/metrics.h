// From values of documents to a task's numbers and their standard errors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/tasks/task.h"

namespace zebra {

// How the harness calls what aggregate() does.
std::string aggregation_name(const std::string& metric);

// The values of a metric over all documents as one number. `metric` names how: perplexity,
// word_perplexity, byte_perplexity and bits_per_byte are what they say, all others are means.
double aggregate(const std::string& metric, const std::vector<MetricValue>& values);

// Standard error: of a mean from the sample's deviation, of a perplexity by the harness's own
// bootstrap (the same draws in the same order, so the same number), else unknown.
std::optional<double> standard_error(const std::string& metric,
                                     const std::vector<MetricValue>& values,
                                     int64_t bootstrap_iterations);

// Of tasks that are joined: their mean weighted by documents, and its error.
struct PooledTask {
  double value = 0;
  std::optional<double> error;
  int64_t documents = 0;
};
double pooled_mean(const std::vector<PooledTask>& tasks);
std::optional<double> pooled_error(const std::vector<PooledTask>& tasks);

}  // namespace zebra
