// What Python's str, random and repr do, where scores of lm-evaluation-harness depend on it.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace zebra {

// ---- str

std::string_view python_lstrip(std::string_view text);
std::string_view python_rstrip(std::string_view text);  // Unicode white space, as str.isspace
std::string_view python_strip(std::string_view text);
int64_t python_length(std::string_view text);     // code points
std::string python_lower(std::string_view text);  // code point by code point
std::string python_upper(std::string_view text);
std::string python_capitalize(std::string_view text);  // the first upper, the others lower
int64_t count_words(std::string_view text);            // len(re.split(r"\s+", text))
std::string replace_all(const std::string& text, std::string_view from, std::string_view to);

// ---- literals and JSON

// The value of the string literal at text[at], where its quote is; `at` moves behind it. nullopt
// where it is not closed (`at` is the text's end) or an escape is none (`at` is there).
std::optional<std::string> python_string(std::string_view text, size_t& at);

// A literal of strings, numbers, True, False, None, lists, tuples and dicts. ConfigError with
// `where` for anything else, and for more than 100 of them within each other.
nlohmann::ordered_json parse_python_literal(std::string_view text, const std::string& where);

// json.dumps of a string with its default ensure_ascii: "\u00e9" in place of é.
std::string python_json_string(const std::string& text);

// The beginning of a text on one line, for messages.
std::string excerpt(std::string_view text);

// ---- random.Random

// The generator of random.Random(seed): MT19937, seeded by an array of 32-bit words.
class PythonRandom {
 public:
  explicit PythonRandom(uint64_t seed);

  uint32_t next();                                              // getrandbits(32)
  double random();                                              // [0, 1), 53 bits
  size_t below(size_t count);                                   // randrange(count), count >= 1
  std::vector<size_t> sample(size_t population, size_t count);  // indices, in the order drawn
  template <class T>
  void shuffle(std::vector<T>& values) {
    for (size_t i = values.size(); i-- > 1;) std::swap(values[i], values[below(i + 1)]);
  }

 private:
  static constexpr size_t kWords = 624;
  void twist();
  std::array<uint32_t, kWords> state_{};
  size_t used_ = kWords;
};

}  // namespace zebra
