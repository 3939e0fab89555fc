#include "base/hash.h"

#include "support/testing.h"

#include "base/file.h"
#include "support/temp_dir.h"
#include "zebra/error.h"

using namespace zebra;

TEST_CASE("hash: known XXH3 values") {
  CHECK(hash_string("") == 0x2d06800538d394c2u);  // from the specification's reference program
  CHECK(hash_string("a") == 0xe6c632b61e964e1fu);
  CHECK(hash_string("abc") == 0x78af5f94892f3950u);
}

TEST_CASE("hash: bytes, values, a file and a stream of pieces agree") {
  std::vector<uint16_t> values(50'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i * i);
  const auto* bytes = reinterpret_cast<const char*>(values.data());
  const size_t count = values.size() * sizeof values[0];
  const testing::TempDir folder;
  write_file_atomic(folder / "f", {bytes, count});
  Hasher pieces;
  for (size_t at = 0; at < count; at += 777)
    pieces.add_bytes(bytes + at, std::min<size_t>(777, count - at));
  CHECK(hash_values(values) == hash_bytes(bytes, count));
  CHECK(hash_file(folder / "f") == hash_bytes(bytes, count));
  CHECK(pieces.value() == hash_bytes(bytes, count));
  CHECK_THROWS_AS(hash_file(folder / "none"), ConfigError);
}

TEST_CASE("hash: a file of many pieces has the hash of its bytes") {
  const testing::TempDir folder;
  std::string bytes(33'000'001, 'x');
  for (size_t i = 0; i < bytes.size(); i += 1009) bytes[i] = static_cast<char>(i / 1009);
  write_file_atomic(folder / "f", bytes);
  CHECK(hash_file(folder / "f") == hash_string(bytes));
}

TEST_CASE("hasher: texts do not run into each other and order counts") {
  const auto of = [](const std::vector<std::string>& texts) {
    Hasher hasher;
    for (const auto& text : texts) hasher.add(text);
    return hasher.value();
  };
  CHECK(of({"ab", "c"}) != of({"a", "bc"}));
  CHECK(of({"a", "b"}) != of({"b", "a"}));
  CHECK(of({"a", ""}) != of({"a"}));
  Hasher narrow, wide;
  narrow.add(7);
  wide.add(uint64_t{7});
  CHECK(narrow.value() == wide.value());
}
