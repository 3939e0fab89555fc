#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace zebra {

std::vector<int64_t> mixture_sequences(const std::vector<MixtureSource>& sources) {
  // The mixture's amount for each unit of weight: the scarcest source limits it.
  double unit = std::numeric_limits<double>::infinity();
  for (const auto& source : sources) {
    if (source.weight) unit = std::min(unit, source.epochs * source.amount / *source.weight);
  }
  std::vector<int64_t> counts;
  for (const auto& source : sources) {
    const double passes = source.weight ? unit * *source.weight / source.amount : source.epochs;
    const double count = std::round(passes * static_cast<double>(source.sequences));
    counts.push_back(std::max<int64_t>(1, static_cast<int64_t>(count)));
  }
  return counts;
}

}  // namespace zebra
