#include "eval/tasks/metrics.h"

#include <cmath>

#include "support/testing.h"

namespace zebra::testing {

TEST_CASE("metrics: means and their standard errors") {
  const std::vector<MetricValue> values = {{1}, {0}, {0}, {1}, {1}};
  CHECK(aggregate("acc", values) == Approx(0.6));
  CHECK(*standard_error("acc", values, 100) == Approx(std::sqrt(0.3 / 5)));
  CHECK_FALSE(standard_error("acc", {{1}}, 100).has_value());
  CHECK_FALSE(standard_error("acc", values, 0).has_value());
}

TEST_CASE("metrics: perplexities of words, bytes and bits are weighted") {
  const std::vector<MetricValue> values = {{-10, 4}, {-2, 2}};
  CHECK(aggregate("word_perplexity", values) == Approx(std::exp(2.0)));
  CHECK(aggregate("bits_per_byte", values) == Approx(2 / std::log(2.0)));
  CHECK_FALSE(standard_error("byte_perplexity", values, 100).has_value());
}

TEST_CASE("metrics: a perplexity's error is bootstrapped with Python's draws") {
  const std::vector<MetricValue> values = {{-1.0}, {-2.5}, {-0.25}, {-4.0}, {-3.125}};
  CHECK(aggregate("perplexity", values) == Approx(std::exp(2.175)));
  // 2,000 samples, by CPython 3.11 with the harness's order of draws.
  CHECK(*standard_error("perplexity", values, 2000) == Approx(6.947691601297642).epsilon(1e-12));
}

TEST_CASE("metrics: tasks are joined by their documents") {
  const std::vector<PooledTask> tasks = {{0.5, 0.1, 10}, {0.25, 0.05, 30}};
  CHECK(pooled_mean(tasks) == Approx(0.3125));
  const double variance = (9 * 0.01 * 10 + 29 * 0.0025 * 30) / 38;
  CHECK(*pooled_error(tasks) == Approx(std::sqrt(variance / 40)));
  CHECK_FALSE(pooled_error({{0.5, 0.1, 10}, {0.25, std::nullopt, 1}}).has_value());
}

}  // namespace zebra::testing
