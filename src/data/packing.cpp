#include "data/packing.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

namespace zebra {

std::vector<std::vector<int64_t>> best_fit_decreasing(std::span<const int64_t> lengths,
                                                      int64_t capacity) {
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<int64_t>> bins;
  std::set<std::pair<int64_t, int64_t>> open;  // (room left, bin); the fullest and oldest first
  for (const auto item : order) {
    const auto found = open.lower_bound({lengths[item], 0});
    int64_t bin = static_cast<int64_t>(bins.size()), room = capacity;
    if (found == open.end()) {
      bins.emplace_back();
    } else {
      std::tie(room, bin) = *found;
      open.erase(found);
    }
    bins[bin].push_back(item);
    if (room > lengths[item]) open.insert({room - lengths[item], bin});
  }
  return bins;
}

}  // namespace zebra
