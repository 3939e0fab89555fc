#define PCRE2_CODE_UNIT_WIDTH 8
#include "eval/regex.h"

#include <pcre2.h>

#include <memory>

namespace zebra {

namespace {

PCRE2_SPTR bytes_of(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

Regex::Regex(std::string_view pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_ = pcre2_compile(bytes_of(pattern), pattern.size(),
                        PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF, &error, &offset, nullptr);
  TORCH_CHECK(code_ != nullptr, "regex ", std::string(pattern), ": error ", error, " at ", offset);
}

Regex::~Regex() { pcre2_code_free(code_); }

std::vector<std::vector<std::string>> Regex::find_all(std::string_view text) const {
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code_, nullptr), pcre2_match_data_free);
  std::vector<std::vector<std::string>> found;
  for (size_t at = 0; at <= text.size();) {
    const int groups = pcre2_match(code_, bytes_of(text), text.size(), at, 0, match.get(), nullptr);
    if (groups < 0) break;
    const auto* ends = pcre2_get_ovector_pointer(match.get());
    auto& parts = found.emplace_back(pcre2_get_ovector_count(match.get()));
    for (int g = 0; g < groups; ++g) {
      if (ends[2 * g] == PCRE2_UNSET) continue;
      parts[g] = text.substr(ends[2 * g], ends[2 * g + 1] - ends[2 * g]);
    }
    at = ends[1] + (ends[1] == ends[0] ? 1 : 0);
  }
  return found;
}

std::string Regex::replace(std::string_view text, std::string_view to) const {
  std::string result(text.size() + 64, '\0');
  while (true) {
    PCRE2_SIZE size = result.size();
    const int done = pcre2_substitute(code_, bytes_of(text), text.size(), 0,
                                      PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH,
                                      nullptr, nullptr, bytes_of(to), to.size(),
                                      reinterpret_cast<PCRE2_UCHAR*>(result.data()), &size);
    if (done == PCRE2_ERROR_NOMEMORY) {
      result.resize(size);
      continue;
    }
    TORCH_CHECK(done >= 0, "regex: substitution failed with ", done);
    result.resize(size);
    return result;
  }
}

}  // namespace zebra
