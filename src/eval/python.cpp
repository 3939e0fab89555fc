#include "eval/python.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>

#include "zebra/error.h"

namespace zebra {

namespace {

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

// A character and its bytes; a byte that is not UTF-8 counts as one character.
struct Character {
  uint32_t code = 0;
  size_t bytes = 1;
};

Character first_character(std::string_view text) {
  utf8proc_int32_t code = 0;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto used = utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size()), &code);
  if (used <= 0) return {0xfffd, 1};
  return {static_cast<uint32_t>(code), static_cast<size_t>(used)};
}

void append(std::string& text, utf8proc_int32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto count = utf8proc_encode_char(code, bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

std::string mapped(std::string_view text, utf8proc_int32_t (*map)(utf8proc_int32_t)) {
  std::string result;
  while (!text.empty()) {
    const auto first = first_character(text);
    append(result, map(static_cast<utf8proc_int32_t>(first.code)));
    text.remove_prefix(first.bytes);
  }
  return result;
}

}  // namespace

// ---- str ----------------------------------------------------------------------------------------

std::string_view python_lstrip(std::string_view text) {
  while (!text.empty()) {
    const auto first = first_character(text);
    if (!is_space(first.code)) break;
    text.remove_prefix(first.bytes);
  }
  return text;
}

std::string_view python_rstrip(std::string_view text) {
  while (!text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && continues(text[begin])) --begin;
    if (!is_space(first_character(text.substr(begin)).code)) break;
    text.remove_suffix(text.size() - begin);
  }
  return text;
}

std::string_view python_strip(std::string_view text) { return python_lstrip(python_rstrip(text)); }

int64_t python_length(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return !continues(c); });
}

std::string python_lower(std::string_view text) { return mapped(text, utf8proc_tolower); }

std::string python_upper(std::string_view text) { return mapped(text, utf8proc_toupper); }

std::string python_capitalize(std::string_view text) {
  if (text.empty()) return "";
  const auto first = first_character(text);
  std::string result;
  append(result, utf8proc_totitle(static_cast<utf8proc_int32_t>(first.code)));
  return result + python_lower(text.substr(first.bytes));
}

int64_t count_words(std::string_view text) {
  int64_t gaps = 0;
  bool in_gap = false;
  while (!text.empty()) {
    const auto first = first_character(text);
    const bool space = is_space(first.code);
    if (space && !in_gap) ++gaps;
    in_gap = space;
    text.remove_prefix(first.bytes);
  }
  return gaps + 1;
}

// Nothing, as `from`, stands before every character and at the end.
std::string replace_all(const std::string& text, std::string_view from, std::string_view to) {
  std::string result;
  size_t begin = 0;
  for (size_t end = 0; (end = text.find(from, end)) != std::string::npos;) {
    result.append(text, begin, end - begin).append(to);
    begin = end + from.size();
    end = begin;
    if (!from.empty()) continue;
    if (end == text.size()) break;
    end += first_character(std::string_view(text).substr(end)).bytes;
  }
  return result.append(text, begin);
}

// ---- literals and JSON --------------------------------------------------------------------------

namespace {

using Json = nlohmann::ordered_json;

constexpr int kDeepest = 100;  // brackets within brackets

// The value of the escape whose backslash is before `text`; returns its length, 0 where it is none.
size_t read_escape(std::string_view text, std::string& value) {
  static constexpr std::string_view kNames = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
  const char name = text.empty() ? 'N' : text[0];
  if (name == 'N') return 0;  // characters by their names
  if (name == '\n') return 1;
  if (const auto plain = kNames.find(name); plain != std::string_view::npos) {
    value += kValues[plain];
    return 1;
  }
  const bool octal = name >= '0' && name <= '7';
  if (!octal && name != 'x' && name != 'u' && name != 'U') {
    value += {'\\', name};  // as Python keeps escapes that it does not know
    return 1;
  }
  const size_t begin = octal ? 0 : 1, most = octal ? 3 : name == 'x' ? 2 : name == 'u' ? 4 : 8;
  const auto digits = text.substr(begin, most);
  uint32_t code = 0;
  const auto* last =
      std::from_chars(digits.data(), digits.data() + digits.size(), code, octal ? 8 : 16).ptr;
  const auto used = static_cast<size_t>(last - digits.data());
  if (!octal && used < most) return 0;
  if (!utf8proc_codepoint_valid(static_cast<utf8proc_int32_t>(code))) return 0;
  append(value, static_cast<utf8proc_int32_t>(code));
  return begin + used;
}

class LiteralParser {
 public:
  LiteralParser(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  Json parse() {
    auto value = item();
    skip();
    if (at_ != text_.size()) fail("the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* expected) const {
    throw ConfigError(str(where_, ": expected a Python literal with ", expected, " at offset ", at_,
                          ", got '", excerpt(text_.substr(at_, 20)), "'"));
  }
  void skip() { at_ = text_.size() - python_lstrip(text_.substr(at_)).size(); }
  bool take(std::string_view word) {
    skip();
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  Json item() {
    if (++depth_ > kDeepest) fail("at most 100 brackets in each other");
    auto value = any();
    --depth_;
    return value;
  }

  Json any() {
    if (take("[")) return list(']');
    if (take("(")) return list(')');
    if (take("{")) return dict();
    if (take("True")) return true;
    if (take("False")) return false;
    if (take("None")) return nullptr;
    skip();
    if (at_ < text_.size() && (text_[at_] == '\'' || text_[at_] == '"')) return string();
    return number();
  }

  Json list(char end) {
    Json values = Json::array();
    while (!take({&end, 1})) {
      values.push_back(item());
      if (!take(",") && !text_.substr(at_).starts_with(end)) fail("a comma");
    }
    return values;
  }

  Json dict() {
    Json values = Json::object();
    while (!take("}")) {
      const auto key = item();
      if (!key.is_string() || !take(":")) fail("a key and a colon");
      values[key.get<std::string>()] = item();
      if (!take(",") && !text_.substr(at_).starts_with('}')) fail("a comma");
    }
    return values;
  }

  Json number() {
    const auto end = std::min(text_.find_first_not_of("+-.0123456789eE_", at_), text_.size());
    const auto digits = text_.substr(at_, end - at_);
    int64_t whole = 0;
    double real = 0;
    const auto* last = digits.data() + digits.size();
    const bool is_whole = std::from_chars(digits.data(), last, whole).ptr == last;
    const bool is_real = std::from_chars(digits.data(), last, real).ptr == last;
    if (digits.empty() || !(is_whole || is_real)) fail("a value");
    at_ = end;
    return is_whole ? Json(whole) : Json(real);
  }

  Json string() {
    const auto value = python_string(text_, at_);
    if (!value) fail(at_ == text_.size() ? "a closing quote" : "an escape");
    return *value;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::optional<std::string> python_string(std::string_view text, size_t& at) {
  const char quote = text[at++];
  std::string value;
  while (at < text.size() && text[at] != quote) {
    if (text[at] != '\\') {
      value += text[at++];
      continue;
    }
    const auto used = read_escape(text.substr(at + 1), value);
    if (used == 0) return std::nullopt;
    at += 1 + used;
  }
  if (at == text.size()) return std::nullopt;
  ++at;
  return value;
}

Json parse_python_literal(std::string_view text, const std::string& where) {
  return LiteralParser(text, where).parse();
}

std::string python_json_string(const std::string& text) {
  return Json(text).dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
}

std::string excerpt(std::string_view text) {
  constexpr size_t kShown = 200;
  size_t end = std::min(text.size(), kShown);
  while (end > 0 && end < text.size() && continues(text[end])) --end;
  const std::string shown(text.substr(0, end));
  return replace_all(replace_all(shown, "\n", "\\n"), "\r", "\\r") +
         (end < text.size() ? "..." : "");
}

// ---- random.Random ------------------------------------------------------------------------------

PythonRandom::PythonRandom(uint64_t seed) {
  std::vector<uint32_t> key = {static_cast<uint32_t>(seed)};
  if (seed >> 32) key.push_back(static_cast<uint32_t>(seed >> 32));
  auto& s = state_;
  s[0] = 19650218;
  for (uint32_t i = 1; i < kWords; ++i) s[i] = 1812433253 * (s[i - 1] ^ (s[i - 1] >> 30)) + i;
  size_t i = 1, j = 0;
  const auto advance = [&] {
    if (++i < kWords) return;
    s[0] = s[kWords - 1];
    i = 1;
  };
  for (size_t k = std::max(kWords, key.size()); k > 0; --k) {
    s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1664525)) + key[j] + static_cast<uint32_t>(j);
    j = (j + 1) % key.size();
    advance();
  }
  for (size_t k = kWords - 1; k > 0; --k) {
    s[i] = (s[i] ^ ((s[i - 1] ^ (s[i - 1] >> 30)) * 1566083941)) - static_cast<uint32_t>(i);
    advance();
  }
  s[0] = 0x80000000;
}

void PythonRandom::twist() {
  constexpr size_t kShift = 397;
  for (size_t i = 0; i < kWords; ++i) {
    const uint32_t mixed = (state_[i] & 0x80000000) | (state_[(i + 1) % kWords] & 0x7fffffff);
    state_[i] = state_[(i + kShift) % kWords] ^ (mixed >> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
  }
  used_ = 0;
}

uint32_t PythonRandom::next() {
  if (used_ == kWords) twist();
  uint32_t y = state_[used_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680;
  y ^= (y << 15) & 0xefc60000;
  return y ^ (y >> 18);
}

double PythonRandom::random() {
  const double high = next() >> 5, low = next() >> 6;
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

size_t PythonRandom::below(size_t count) {
  int bits = 0;
  while ((count >> bits) != 0) ++bits;
  TORCH_CHECK(count > 0 && bits <= 32, "below: expected a count in [1, 2^32), got ", count);
  while (true) {
    const size_t drawn = next() >> (32 - bits);
    if (drawn < count) return drawn;
  }
}

// CPython draws from a shrinking pool, or, where the population is much larger than the sample,
// again and again until an index is new.
std::vector<size_t> PythonRandom::sample(size_t population, size_t count) {
  TORCH_CHECK(count <= population, "sample: expected at most ", population, ", got ", count);
  size_t pool_limit = 21;
  if (count > 5) {
    size_t power = 1;
    while (power < count * 3) power *= 4;
    pool_limit += power;
  }
  std::vector<size_t> drawn;
  if (population <= pool_limit) {
    std::vector<size_t> pool(population);
    for (size_t i = 0; i < population; ++i) pool[i] = i;
    for (size_t i = 0; i < count; ++i) {
      const size_t j = below(population - i);
      drawn.push_back(pool[j]);
      pool[j] = pool[population - i - 1];
    }
    return drawn;
  }
  while (drawn.size() < count) {
    const size_t j = below(population);
    if (std::find(drawn.begin(), drawn.end(), j) == drawn.end()) drawn.push_back(j);
  }
  return drawn;
}

}  // namespace zebra
