#include "eval/tasks/metrics.h"

#include <ATen/Parallel.h>

#include <cmath>

#include "eval/python.h"

namespace zebra {

namespace {

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

double sample_deviation(const std::vector<double>& values) {
  const double center = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - center) * (value - center);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

std::vector<double> plain(const std::vector<MetricValue>& values) {
  std::vector<double> result;
  for (const auto& item : values) result.push_back(item.value);
  return result;
}

double weighted_mean(const std::vector<MetricValue>& values) {
  double sum = 0, weight = 0;
  for (const auto& item : values) {
    sum += item.value;
    weight += item.weight;
  }
  return sum / weight;
}

// Chunk i of a thousand samples comes from a generator with seed i.
double bootstrap_perplexity_error(const std::vector<double>& values, int64_t iterations) {
  const int64_t chunk = std::min<int64_t>(iterations, 1000), chunks = iterations / chunk;
  const auto n = static_cast<int64_t>(values.size());
  std::vector<double> samples(static_cast<size_t>(chunks * chunk));
  at::parallel_for(0, chunks, /*grain_size=*/1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      PythonRandom random(static_cast<uint64_t>(i));
      for (int64_t s = 0; s < chunk; ++s) {
        double sum = 0;
        for (int64_t k = 0; k < n; ++k) {
          sum += values[static_cast<size_t>(random.random() * static_cast<double>(n))];
        }
        samples[static_cast<size_t>(i * chunk + s)] = std::exp(-sum / static_cast<double>(n));
      }
    }
  });
  return sample_deviation(samples);
}

bool is_weighted(const std::string& metric) {
  return metric == "word_perplexity" || metric == "byte_perplexity" || metric == "bits_per_byte";
}

}  // namespace

std::string aggregation_name(const std::string& metric) {
  if (metric == "perplexity" || metric == "bits_per_byte") return metric;
  return is_weighted(metric) ? "weighted_perplexity" : "mean";
}

double aggregate(const std::string& metric, const std::vector<MetricValue>& values) {
  if (metric == "bits_per_byte") return -weighted_mean(values) / std::log(2.0);
  if (is_weighted(metric)) return std::exp(-weighted_mean(values));
  const double center = mean(plain(values));
  return metric == "perplexity" ? std::exp(-center) : center;
}

std::optional<double> standard_error(const std::string& metric,
                                     const std::vector<MetricValue>& values,
                                     int64_t bootstrap_iterations) {
  if (is_weighted(metric) || values.size() < 2 || bootstrap_iterations <= 0) return std::nullopt;
  const auto numbers = plain(values);
  if (metric == "perplexity") return bootstrap_perplexity_error(numbers, bootstrap_iterations);
  return sample_deviation(numbers) / std::sqrt(static_cast<double>(numbers.size()));
}

double pooled_mean(const std::vector<PooledTask>& tasks) {
  double sum = 0, count = 0;
  for (const auto& task : tasks) {
    sum += task.value * static_cast<double>(task.documents);
    count += static_cast<double>(task.documents);
  }
  return sum / count;
}

std::optional<double> pooled_error(const std::vector<PooledTask>& tasks) {
  double sum = 0, count = 0;
  for (const auto& task : tasks) {
    if (!task.error) return std::nullopt;
    const auto n = static_cast<double>(task.documents);
    sum += (n - 1) * *task.error * *task.error * n;
    count += n;
  }
  return std::sqrt(sum / (count - static_cast<double>(tasks.size())) / count);
}

}  // namespace zebra
