#include <bit>

#include "data/random.h"
#include "zebra/dataset.h"

namespace zebra {

// A balanced Feistel network over the smallest even number of bits that holds `count`; it permutes
// at most 4 * count values, and walking its cycle until a value below `count` comes up makes a
// permutation of those (fewer than four steps on average).
int64_t permuted(int64_t index, int64_t count, uint64_t key) {
  TORCH_CHECK(index >= 0 && index < count, "permuted: expected an index in [0, ", count, "), got ",
              index);
  constexpr int kRounds = 8;
  const auto bits = std::bit_width(static_cast<uint64_t>(count - 1));
  const int half = std::max(1, (static_cast<int>(bits) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half) - 1;
  auto value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half, right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (mix_keys(key, round, right) >> (64 - half));
      left = right;
      right = next;
    }
    value = (left << half) | right;
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

}  // namespace zebra
