#include "train/smart.h"

#include "support/testing.h"

#include <cmath>
#include <limits>
#include <random>

#include "zebra/error.h"

using zebra::smart_layers;
using zebra::testing::ContainsSubstring;

namespace {

using Layers = std::vector<int64_t>;

int64_t best_of(const std::vector<double>& values, int64_t begin, int64_t end) {
  int64_t best = begin;
  for (int64_t i = begin; i < end; ++i) {
    if (values[i] > values[best]) best = i;
  }
  return best;
}

// The rule as it is printed, by trying every set of layers in lexicographic order.
Layers exhaustive(const std::vector<double>& s, int64_t N) {
  const auto L = static_cast<int64_t>(s.size());
  const int64_t first = best_of(s, 0, L / N), last = best_of(s, L - L / N, L);
  const double t = static_cast<double>(last - first - N + 1) / static_cast<double>(N - 1);
  Layers best;
  double best_sum = -HUGE_VAL;
  for (uint32_t set = 0; set < (1U << L); ++set) {
    Layers layers;
    double sum = 0;
    for (int64_t i = 0; i < L; ++i) {
      if (((set >> i) & 1U) != 0) layers.push_back(i), sum += s[i];
    }
    if (static_cast<int64_t>(layers.size()) != N) continue;
    bool allowed = layers.front() == first && layers.back() == last;
    for (int64_t k = 0; k + 1 < N; ++k) {
      const auto gap = static_cast<double>(layers[k + 1] - layers[k] - 1);
      allowed = allowed && (gap == std::floor(t) || gap == std::ceil(t));
    }
    if (!allowed) continue;
    if (sum > best_sum || (sum == best_sum && layers < best)) best = layers, best_sum = sum;
  }
  return best;
}

std::vector<double> high_on(int64_t layers, const Layers& listed) {
  std::vector<double> result;
  for (int64_t i = 0; i < layers; ++i) result.push_back(0.01 * static_cast<double>((i * 7) % 5));
  for (const int64_t i : listed) result[i] += 1.0;
  return result;
}

}  // namespace

TEST_CASE("smart: an exhaustive search of the published rule agrees on random scores") {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  for (int64_t L = 2; L <= 16; ++L) {
    for (int64_t N = 2; N <= L; ++N) {
      for (int round = 0; round < (L > 12 ? 2 : 8); ++round) {
        std::vector<double> scores;
        for (int64_t i = 0; i < L; ++i) scores.push_back(normal(random));
        INFO("layers " << L << ", chosen " << N);
        REQUIRE(smart_layers(scores, N) == exhaustive(scores, N));
      }
    }
  }
}

TEST_CASE("smart: of equal sums the lexicographically smallest layout is taken") {
  std::mt19937_64 random(11);
  std::uniform_int_distribution<int> few(0, 2);  // whole numbers: sums tie exactly
  for (int round = 0; round < 200; ++round) {
    const int64_t L = 4 + round % 9, N = 2 + round % 4;
    if (N > L) continue;
    std::vector<double> scores;
    for (int64_t i = 0; i < L; ++i) scores.push_back(few(random));
    INFO("layers " << L << ", chosen " << N);
    REQUIRE(smart_layers(scores, N) == exhaustive(scores, N));
  }
  // the ends are windows of four layers, each with the smaller index
  CHECK(smart_layers(std::vector<double>(16, 0.5), 4) == Layers{0, 4, 8, 12});
  // 0 ... 15 in four gaps of 3 or 4 layers: the narrow ones come first
  CHECK(smart_layers({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 5) ==
        Layers{0, 3, 7, 11, 15});
}

TEST_CASE("smart: every published list is what suitable scores give") {
  const std::vector<std::pair<int64_t, Layers>> published = {
      {16, {0, 2, 4, 6, 8, 10, 12, 14}},
      {16, {0, 2, 5, 8, 11, 14}},
      {16, {0, 5, 10, 14}},
      {28, {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26}},
      {28, {0, 3, 7, 10, 14, 18, 22, 26}},
      {28, {0, 5, 10, 16, 21, 26}},
      {32, {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}},
      {32, {0, 4, 8, 12, 16, 20, 25, 30}},
      {16, {1, 5, 10, 14}},
      {28, {1, 5, 9, 13, 17, 21, 25}},
  };
  for (const auto& [layers, list] : published) {
    INFO("of " << layers << " layers, " << list.size());
    CHECK(smart_layers(high_on(layers, list), static_cast<int64_t>(list.size())) == list);
  }
}

TEST_CASE("smart: half of the layers leave only the even or the odd layout") {
  std::vector<double> scores(16, 0.0);
  scores[1] = scores[15] = 1.0;  // the ends decide; what lies between cannot
  scores[4] = scores[6] = 50.0;
  CHECK(smart_layers(scores, 8) == Layers{1, 3, 5, 7, 9, 11, 13, 15});
}

TEST_CASE("smart: one layer is the most sensitive of all, all layers are all") {
  const std::vector<double> scores = {0.1, -0.4, 0.9, 0.9, 0.2};
  CHECK(smart_layers(scores, 1) == Layers{2});
  CHECK(smart_layers(scores, 5) == Layers{0, 1, 2, 3, 4});
  CHECK(smart_layers(scores, 2) == Layers{0, 3});
  CHECK(smart_layers({-3.0}, 1) == Layers{0});
}

TEST_CASE("smart: an impossible count and a score that is no number are refused") {
  const std::vector<double> scores = {0.1, 0.2, 0.3};
  CHECK_THROWS_AS(smart_layers(scores, 0), zebra::ConfigError);
  CHECK_THROWS_AS(smart_layers(scores, -2), zebra::ConfigError);
  CHECK_THROWS_WITH(smart_layers(scores, 4), ContainsSubstring("expected 1 to 3, got 4"));
  CHECK_THROWS_AS(smart_layers({}, 1), zebra::ConfigError);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH(smart_layers({0.1, nan}, 1), ContainsSubstring("layer 1"));
}
