// SMART: which layers become MLA. docs/math/smart.md.
#pragma once

#include <cstdint>
#include <vector>

namespace zebra {

// The `count` layers, ascending, that the published rule picks: the most sensitive one at each end,
// near-uniform gaps between, and the largest sum of sensitivities among the layouts left; ties go
// to the lexicographically smallest. `sensitivity[i]` is what replacing layer i gains. One layer:
// the most sensitive of all. All layers: all. ConfigError when count is not in 1 ... layers, or a
// sensitivity is not finite.
std::vector<int64_t> smart_layers(const std::vector<double>& sensitivity, int64_t count);

}  // namespace zebra
