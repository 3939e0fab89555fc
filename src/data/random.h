// Numbers that are the same on every machine: no std:: distribution, no state shared.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zebra {

// The finaliser of splitmix64: every bit of the result hangs on every bit of `x`.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// One key made of several numbers; their order counts.
template <class... Rest>
constexpr uint64_t mix_keys(uint64_t first, Rest... rest) {
  uint64_t key = mix64(first);
  ((key = mix64(key ^ static_cast<uint64_t>(rest))), ...);
  return key;
}

// `key` scaled to 0 ... count - 1. The bias is at most count / 2^32.
constexpr size_t pick(uint64_t key, size_t count) {
  return static_cast<size_t>(((key >> 32) * static_cast<uint64_t>(count)) >> 32);
}

// A sequence of such keys.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() { return mix64(state_++); }
  size_t below(size_t count) { return pick(next(), count); }

 private:
  uint64_t state_;
};

}  // namespace zebra
