#include "data/utf8.h"

#include <utf8proc.h>

#include <cstdint>
#include <cstring>

namespace zebra {
namespace {

uint8_t byte_at(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

struct Lead {
  size_t following = 0;       // bytes that must follow
  uint8_t low = 0, high = 0;  // range of the first of them (Unicode, table 3-7)
};

Lead lead_of(uint8_t first) {
  if (first >= 0xC2 && first <= 0xDF) return {1, 0x80, 0xBF};
  if (first == 0xE0) return {2, 0xA0, 0xBF};
  if (first == 0xED) return {2, 0x80, 0x9F};
  if (first >= 0xE1 && first <= 0xEF) return {2, 0x80, 0xBF};
  if (first == 0xF0) return {3, 0x90, 0xBF};
  if (first >= 0xF1 && first <= 0xF3) return {3, 0x80, 0xBF};
  if (first == 0xF4) return {3, 0x80, 0x8F};
  return {};
}

struct Sequence {
  size_t length = 0;
  bool whole = false;  // a well-formed character; else the longest beginning of one, or one byte
};

Sequence sequence_at(std::string_view text, size_t at) {
  if (byte_at(text, at) < 0x80) return {1, true};
  Lead lead = lead_of(byte_at(text, at));
  if (lead.following == 0) return {1, false};
  for (size_t i = 1; i <= lead.following; ++i) {
    if (at + i >= text.size()) return {i, false};
    const uint8_t next = byte_at(text, at + i);
    if (next < lead.low || next > lead.high) return {i, false};
    lead.low = 0x80, lead.high = 0xBF;
  }
  return {lead.following + 1, true};
}

// Length of the ASCII at the beginning, in whole words of eight bytes.
size_t ascii_words(std::string_view text, size_t at) {
  size_t end = at;
  for (uint64_t word = 0; end + sizeof word <= text.size(); end += sizeof word) {
    std::memcpy(&word, text.data() + end, sizeof word);
    if ((word & 0x8080808080808080ULL) != 0) break;
  }
  return end - at;
}

bool python_space(char32_t code) { return is_white_space(code) || (code >= 0x1C && code <= 0x1F); }

}  // namespace

Character character_at(std::string_view text, size_t at) {
  const uint8_t first = byte_at(text, at);
  if (first < 0x80) return {first, 1};
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  char32_t code = first & (0xFFU >> (length + 1));
  for (size_t i = 1; i < length; ++i) code = (code << 6U) | (byte_at(text, at + i) & 0x3FU);
  return {code, length};
}

std::string to_utf8(char32_t code) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code), bytes);
  return {reinterpret_cast<const char*>(bytes), static_cast<size_t>(length)};
}

size_t valid_prefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    at += ascii_words(text, at);
    if (at == text.size()) break;
    const Sequence next = sequence_at(text, at);
    if (!next.whole) return at;
    at += next.length;
  }
  return at;
}

size_t invalid_prefix(std::string_view text) { return sequence_at(text, 0).length; }

std::string replace_invalid(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t good = valid_prefix(text);
    result += text.substr(0, good);
    text.remove_prefix(good);
    if (text.empty()) break;
    result += kReplacementCharacter;
    text.remove_prefix(invalid_prefix(text));
  }
  return result;
}

bool is_white_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 ||
         code == 0x202F || code == 0x205F || code == 0x3000;
}

bool is_word_character(char32_t code) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // the joiners, and circled letters, which count as alphabetic
      return code == 0x200C || code == 0x200D || (code >= 0x24B6 && code <= 0x24E9);
  }
}

std::string_view strip_white_space(std::string_view text) {
  while (!text.empty()) {
    const auto [code, length] = character_at(text, 0);
    if (!python_space(code)) break;
    text.remove_prefix(length);
  }
  while (!text.empty()) {
    size_t last = text.size() - 1;
    while (last > 0 && (byte_at(text, last) & 0xC0) == 0x80) --last;
    if (!python_space(character_at(text, last).code)) break;
    text.remove_suffix(text.size() - last);
  }
  return text;
}

}  // namespace zebra
