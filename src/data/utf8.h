// Characters of UTF-8 texts.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace zebra {

struct Character {
  char32_t code = 0;
  size_t length = 0;  // bytes
};
// The character that begins at `at`. REQUIRES: valid UTF-8, at < text.size().
Character character_at(std::string_view text, size_t at);

std::string to_utf8(char32_t code);

// Bytes of the text up to the first that is not part of a well-formed character.
size_t valid_prefix(std::string_view text);

// Length of what is wrong at the beginning of a text whose valid_prefix() is 0: the longest
// beginning of a character that does not go on as it must, or one byte that begins none.
size_t invalid_prefix(std::string_view text);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

// U+FFFD in place of each such: what Python's errors="replace" and Rust's from_utf8_lossy give.
std::string replace_invalid(std::string_view text);

bool is_white_space(char32_t code);     // Unicode's property, as \s in a pattern
bool is_word_character(char32_t code);  // letters, marks, decimal digits, connectors, as \w

// Without the white space at both ends that Python's str.strip() takes away.
std::string_view strip_white_space(std::string_view text);

}  // namespace zebra
