#include "data/tokenizer/pattern.h"

#include <c10/util/Exception.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "data/utf8.h"
#include "zebra/error.h"

namespace zebra {
namespace {

// Unicode's White_Space, which is \s to Oniguruma; PCRE2 has U+180E among it, too.
constexpr std::string_view kSpace =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNoSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}!-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{d7ff}\x{e000}-\x{10ffff})";

[[noreturn]] void refuse(const std::string& where, const std::string& expression,
                         const std::string& what) {
  throw ConfigError(str(where, ": expected a regular expression that can be read, got ", what,
                        " in ", expression));
}

// A letter, mark, digit or connecting mark; PCRE2's own \w knows no marks.
constexpr const char* kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

std::string word_class(char letter, bool in_class, const std::string& where,
                       const std::string& expression) {
  if (in_class && letter == 'W') refuse(where, expression, "\\W in a class");
  return in_class ? kWord : str(letter == 'w' ? "[" : "[^", kWord, "]");
}

std::string space_class(char letter, bool in_class) {
  if (in_class) return std::string(letter == 's' ? kSpace : kNoSpace);
  return str(letter == 's' ? "[" : "[^", kSpace, "]");
}

// The expression in PCRE2's words.
std::string translate(const std::string& expression, const std::string& where) {
  std::string result;
  bool in_class = false, counting = false;  // counting: the last { began a {n,m}
  for (size_t i = 0; i < expression.size(); ++i) {
    const char c = expression[i];
    const char next = i + 1 < expression.size() ? expression[i + 1] : '\0';
    if (c == '\\' && (next == 's' || next == 'S')) {
      result += space_class(next, in_class);
      ++i;
    } else if (c == '\\' && (next == 'w' || next == 'W')) {
      result += word_class(next, in_class, where, expression);
      ++i;
    } else if (c == '\\') {
      if (next != '\0' && std::string_view("hHbBXZ").find(next) != std::string_view::npos) {
        refuse(where, expression, str('\\', next));
      }
      result += c;
      if (++i < expression.size()) result += next;
    } else {
      if (in_class && c == '&' && next == '&') refuse(where, expression, "&& in a class");
      if (c == '{' && !in_class)
        counting = i < 2 || expression[i - 2] != '\\';  // not \p{L}, \x{a0}
      if (counting && !in_class && c == '}' && next == '+') refuse(where, expression, "{n,m}+");
      if (c == '{' && !in_class && next == ',') refuse(where, expression, "{,m}");
      if (in_class && c == '[') {
        refuse(where, expression, next == ':' ? "[:name:]" : "a class in a class");
      }
      in_class = c == '[' || (in_class && c != ']');
      result += c;
    }
  }
  return result;
}

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};

std::string error_text(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

constexpr size_t kLeastStack = size_t{32} << 10U, kMostStack = size_t{64} << 20U;

std::string escaped(const std::string& literal) {
  std::string result;
  for (const char c : literal) {
    const bool plain = (c & 0x80) != 0 || std::isalnum(static_cast<unsigned char>(c)) != 0;
    result += plain ? std::string(1, c) : str('\\', c);
  }
  return result;
}

}  // namespace

struct PatternScratch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kLeastStack, kMostStack, nullptr);

  State() {
    TORCH_CHECK(data != nullptr && context != nullptr && stack != nullptr, "pcre2: no memory");
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
};

PatternScratch::PatternScratch() : state_(std::make_shared<State>()) {}

Pattern::Pattern(const std::string& expression, const std::string& where)
    : expression_(expression) {
  const std::string text = translate(expression, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, nullptr);
  if (code == nullptr) refuse(where, expression, error_text(error));
  code_ = std::shared_ptr<const pcre2_code>(code, FreeCode{});
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without it matching is slower, and the same
}

Pattern Pattern::from_json(const json& value, const std::string& where) {
  if (value.is_object() && value.size() == 1) {
    if (value.contains("Regex")) return {require<std::string>(value, "Regex", where), where};
    if (value.contains("String")) {
      return {escaped(require<std::string>(value, "String", where)), where};
    }
  }
  fail_json(where, "pattern", R"({"String": ...} or {"Regex": ...})", value);
}

Pattern::Match Pattern::find(std::string_view text, size_t from, PatternScratch& scratch) const {
  auto& state = *scratch.state_;
  const int count = pcre2_match(static_cast<const pcre2_code*>(code_.get()),
                                reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                PCRE2_NO_UTF_CHECK, state.data, state.context);
  if (count == PCRE2_ERROR_NOMATCH) return {};
  if (count < 0) {
    throw ConfigError(str("tokenizer: a text of ", text.size(), " bytes cannot be split by ",
                          expression_, ": ", error_text(count)));
  }
  const auto* ends = pcre2_get_ovector_pointer(state.data);
  return {ends[0], ends[1], true};
}

std::vector<Segment> segments(const Pattern& pattern, std::string_view text,
                              PatternScratch& scratch) {
  std::vector<Segment> result;
  const auto add = [&](size_t begin, size_t end, bool match) {
    if (begin < end) result.push_back({begin, end, match});
  };
  size_t done = 0;
  for (size_t from = 0; from <= text.size();) {
    const auto [begin, end, found] = pattern.find(text, from, scratch);
    if (!found) break;
    add(done, begin, false);
    add(begin, end, true);
    done = end;
    const bool empty = begin == end;  // it ends a segment; the next match starts a character on
    from =
        empty && end < text.size() ? end + character_at(text, end).length : end + (empty ? 1 : 0);
  }
  add(done, text.size(), false);
  return result;
}

}  // namespace zebra
