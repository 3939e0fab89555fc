#include "train/smart.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "zebra/error.h"

namespace zebra {

namespace {

// The index of the largest value in [begin, end); the smaller one of equals.
int64_t largest(const std::vector<double>& values, int64_t begin, int64_t end) {
  const auto found = std::max_element(values.begin() + begin, values.begin() + end);
  return found - values.begin();
}

// The layouts between fixed ends: `gaps` steps of `stride` or, exactly `wide` of them, stride + 1.
struct Layout {
  int64_t first, gaps, stride, wide;
};

// The best of those layouts. A state is (k, w): layer k of the choice, reached by w wide steps; it
// lies at first + k * stride + w. best[k][w] is the largest sum from there to the last layer.
std::vector<int64_t> best_layout(const std::vector<double>& sensitivity, const Layout& layout) {
  const int64_t gaps = layout.gaps, wide = layout.wide;
  const auto position = [&](int64_t k, int64_t w) { return layout.first + k * layout.stride + w; };
  const double unreachable = -HUGE_VAL;
  std::vector<std::vector<double>> best(gaps + 1, std::vector<double>(wide + 2, unreachable));
  best[gaps][wide] = sensitivity[position(gaps, wide)];
  for (int64_t k = gaps - 1; k >= 0; --k) {
    for (int64_t w = 0; w <= std::min(k, wide); ++w) {
      const double rest = std::max(best[k + 1][w], best[k + 1][w + 1]);
      if (rest != unreachable) best[k][w] = sensitivity[position(k, w)] + rest;
    }
  }
  std::vector<int64_t> chosen{layout.first};
  for (int64_t k = 0, w = 0; k < gaps; ++k) {
    if (best[k + 1][w + 1] > best[k + 1][w]) ++w;  // a tie takes the nearer layer
    chosen.push_back(position(k + 1, w));
  }
  return chosen;
}

}  // namespace

std::vector<int64_t> smart_layers(const std::vector<double>& sensitivity, int64_t count) {
  const auto layers = static_cast<int64_t>(sensitivity.size());
  if (count < 1 || count > layers) {
    throw ConfigError(str("smart: number of MLA layers: expected 1 to ", layers, ", got ", count));
  }
  for (int64_t i = 0; i < layers; ++i) {
    if (!std::isfinite(sensitivity[i])) {
      throw ConfigError(str("smart: sensitivity of layer ", i, ": expected a finite number, got ",
                            sensitivity[i]));
    }
  }
  if (count == 1) return {largest(sensitivity, 0, layers)};
  const int64_t window = layers / count;
  const int64_t first = largest(sensitivity, 0, window);
  const int64_t last = largest(sensitivity, layers - window, layers);
  const int64_t gaps = count - 1, distance = last - first;
  return best_layout(
      sensitivity,
      {.first = first, .gaps = gaps, .stride = distance / gaps, .wide = distance % gaps});
}

}  // namespace zebra
