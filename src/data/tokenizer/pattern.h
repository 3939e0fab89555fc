// Patterns of tokenizer files: regular expressions or plain strings.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace zebra {

// What a thread needs to match; not to be shared between threads.
class PatternScratch {
 public:
  PatternScratch();

 private:
  friend class Pattern;
  struct Free;
  struct State;
  std::shared_ptr<State> state_;
};

// A regular expression as the Hugging Face library reads it (Oniguruma, Ruby's syntax), matched by
// PCRE2. \s and \w are written out as the former has them; what else the two read differently is
// refused: \h \H \b \B \X \Z, && or a class in a class, {,m} and {n,m}+.
class Pattern {
 public:
  // `where` begins the text of the ConfigError for an expression that does not compile.
  Pattern(const std::string& expression, const std::string& where);
  // From {"String": ...} or {"Regex": ...}.
  static Pattern from_json(const json& value, const std::string& where);

  struct Match {
    size_t begin = 0, end = 0;
    bool found = false;
  };
  // The first match at or after `from`. REQUIRES: valid UTF-8.
  Match find(std::string_view text, size_t from, PatternScratch& scratch) const;

 private:
  std::shared_ptr<const void> code_;
  std::string expression_;
};

// A range of a text, and whether the pattern matches it.
struct Segment {
  size_t begin = 0, end = 0;
  bool match = false;
};
// All of the text, in order, none empty.
std::vector<Segment> segments(const Pattern& pattern, std::string_view text,
                              PatternScratch& scratch);

}  // namespace zebra
