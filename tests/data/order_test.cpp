#include "data/random.h"
#include "fixtures.h"

using namespace zebra;

TEST_CASE("order: permuted is a bijection for every size and key") {
  for (int64_t count = 1; count <= 130; ++count) {
    for (const uint64_t key : {0u, 1u, 77u, 0xffffffffu}) {
      std::vector<bool> seen(count, false);
      for (int64_t i = 0; i < count; ++i) {
        const auto at = permuted(i, count, key);
        REQUIRE(at >= 0);
        REQUIRE(at < count);
        REQUIRE_FALSE(seen[at]);
        seen[at] = true;
      }
    }
  }
}

TEST_CASE("order: permuted is a bijection for large sizes around powers of two") {
  for (const int64_t count : {1023, 1024, 1025, 4097, 65536, 70001}) {
    std::vector<bool> seen(count, false);
    for (int64_t i = 0; i < count; ++i) seen[permuted(i, count, 5)] = true;
    CHECK(std::count(seen.begin(), seen.end(), true) == count);
  }
}

TEST_CASE("order: a position beyond memory's reach costs nothing") {
  const int64_t count = int64_t{1} << 40;
  const auto at = permuted(count - 12345, count, 9);
  CHECK(at >= 0);
  CHECK(at < count);
  CHECK(at == permuted(count - 12345, count, 9));
}

TEST_CASE("order: every value comes up about equally often at every position") {
  constexpr int64_t kCount = 5, kKeys = 20000;
  std::vector<int64_t> hits(kCount * kCount, 0);
  for (int64_t key = 0; key < kKeys; ++key) {
    for (int64_t i = 0; i < kCount; ++i)
      ++hits[i * kCount + permuted(i, kCount, static_cast<uint64_t>(key))];
  }
  // 4000 expected, standard deviation 57: five of them.
  for (const auto hit : hits) CHECK(std::abs(hit - kKeys / kCount) < 285);
}

TEST_CASE("order: the numbers behind everything stay the same") {
  CHECK(mix64(0) == 0xe220a8397b1dcdafu);  // splitmix64's first output for the state 0
  CHECK(permuted(0, 1, 3) == 0);
  CHECK_THROWS_AS(permuted(3, 3, 0), c10::Error);
}
