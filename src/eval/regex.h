// Regular expressions of PCRE2 with Python's meaning of \s and of `.`, over UTF-8.
#pragma once

#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace zebra {

class Regex {
 public:
  explicit Regex(std::string_view pattern);  // a pattern that does not compile is our bug
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  // Every match, left to right: the whole of it, then the groups ("" where one took no part).
  std::vector<std::vector<std::string>> find_all(std::string_view text) const;
  // `to` may name groups: $1.
  std::string replace(std::string_view text, std::string_view to) const;

 private:
  pcre2_real_code_8* code_;
};

}  // namespace zebra
