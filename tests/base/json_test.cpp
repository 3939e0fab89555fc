#include "base/json.h"

#include "support/testing.h"

#include "base/file.h"
#include "support/temp_dir.h"
#include "zebra/error.h"

using namespace zebra;
using zebra::testing::ContainsSubstring;

TEST_CASE("json: a syntax error names file, line and column") {
  const testing::TempDir folder;
  write_file_atomic(folder / "c.json", "{\n  \"a\": 1,\n  \"b\": }\n");
  CHECK_THROWS_WITH(read_json(folder / "c.json"), ContainsSubstring((folder / "c.json").string()) &&
                                                      ContainsSubstring("line 3, column 8"));
  CHECK_THROWS_AS(read_json(folder / "c.json"), ConfigError);
  CHECK_THROWS_AS(read_json(folder / "none.json"), ConfigError);
  CHECK_THROWS_AS(parse_json("", "text"), ConfigError);
  CHECK_THROWS_WITH(parse_json("{\"a\": }", "lines:21"),
                    ContainsSubstring("lines:21: expected JSON: parse error at column 7"));
}

TEST_CASE("json: values that lie too deep are refused") {
  const auto nested = [](size_t levels) {
    return std::string(levels, '[') + std::string(levels, ']');
  };
  CHECK(parse_json(nested(1000), "text").is_array());
  CHECK_THROWS_WITH(parse_json(nested(100000), "text"), ContainsSubstring("at most 1000 levels"));
}

TEST_CASE("json: required values come in their type or as an error with file, key and value") {
  const auto object = parse_json(
      R"({"i": -3, "big": 18446744073709551615, "x": 1e-5, "s": "text", "list": [1, 2], "n": null, "t": true})",
      "c.json");
  CHECK(require<int64_t>(object, "i", "c.json") == -3);
  CHECK(require<uint64_t>(object, "big", "c.json") == 18446744073709551615u);
  CHECK(require<double>(object, "x", "c.json") == 1e-5);
  CHECK(require<double>(object, "i", "c.json") == -3.0);
  CHECK(require<std::string>(object, "s", "c.json") == "text");
  CHECK(require<std::vector<int64_t>>(object, "list", "c.json") == std::vector<int64_t>{1, 2});
  CHECK(require<bool>(object, "t", "c.json"));
  CHECK_THROWS_WITH(require<int64_t>(object, "none", "c.json"),
                    "c.json: none: expected a value, got none");
  CHECK_THROWS_WITH(require<int64_t>(object, "s", "c.json"),
                    "c.json: s: expected an integer in range, got \"text\"");
  CHECK_THROWS_AS(require<int64_t>(object, "x", "c.json"), ConfigError);
  CHECK_THROWS_AS(require<int64_t>(object, "big", "c.json"), ConfigError);
  CHECK_THROWS_AS(require<uint64_t>(object, "i", "c.json"), ConfigError);
  CHECK_THROWS_AS(require<bool>(object, "i", "c.json"), ConfigError);
  CHECK_THROWS_AS(require<int64_t>(object, "n", "c.json"), ConfigError);
  CHECK_THROWS_AS(require<std::vector<std::string>>(object, "list", "c.json"), ConfigError);
  CHECK_THROWS_AS(require<int64_t>(parse_json("[1]", "x"), "i", "c.json"), ConfigError);
}

TEST_CASE("json: optional values are absent when missing or null and errors when of another type") {
  const auto object = parse_json(R"({"n": null, "i": 4})", "c.json");
  CHECK(!find_value<int64_t>(object, "n", "c.json"));
  CHECK(!find_value<int64_t>(object, "none", "c.json"));
  CHECK(find_value<int64_t>(object, "i", "c.json") == 4);
  CHECK_THROWS_AS(find_value<std::string>(object, "i", "c.json"), ConfigError);
}
