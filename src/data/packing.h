// Which tokens make which sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace zebra {

// Lays items of these lengths, none above `capacity`, into as few bins as best-fit decreasing
// finds: longest first, each into the fullest bin that still takes it. -> items of each bin
std::vector<std::vector<int64_t>> best_fit_decreasing(std::span<const int64_t> lengths,
                                                      int64_t capacity);

}  // namespace zebra
