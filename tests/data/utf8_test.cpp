#include "data/utf8.h"

#include "support/testing.h"

using namespace zebra;

TEST_CASE("utf8: every character is read back as it was written") {
  for (char32_t code = 0; code <= 0x10FFFF; code += code < 0x3000 ? 1 : 251) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    const auto text = to_utf8(code);
    CHECK(character_at(text, 0).code == code);
    CHECK(character_at(text, 0).length == text.size());
    CHECK(valid_prefix(text) == text.size());
  }
}

TEST_CASE("utf8: each wrong sequence becomes one replacement, as in Python") {
  const std::string bad = "\xEF\xBF\xBD";
  CHECK(replace_invalid("a\x80z") == "a" + bad + "z");
  CHECK(replace_invalid("\xC3") == bad);
  CHECK(replace_invalid("\xC3(") == bad + "(");
  CHECK(replace_invalid("\xE2\x28\xA1") == bad + "(" + bad);
  CHECK(replace_invalid("\xF0\x9F\x98") == bad);
  CHECK(replace_invalid("\xF4\x90\x80\x80") == bad + bad + bad + bad);
  CHECK(replace_invalid("\xED\xA0\x80") == bad + bad + bad);
  CHECK(replace_invalid("\xE0\x9F\xBF") == bad + bad + bad);
  CHECK(replace_invalid("12345678\xFF"
                        "12345678") == "12345678" + bad + "12345678");
  CHECK(replace_invalid("").empty());
}

TEST_CASE("utf8: the valid beginning of a text ends before the first wrong byte") {
  CHECK(valid_prefix("abcdefghi\xC3") == 9);
  CHECK(valid_prefix("\xC3\xA9\xFF") == 2);
  CHECK(valid_prefix("\xFF") == 0);
  CHECK(invalid_prefix("\xF0\x9F\x98z") == 3);
}

TEST_CASE("utf8: white space is stripped as Python strips it") {
  CHECK(strip_white_space(" \n\u00A0\u3000a b\u2028\x1F ") == "a b");
  CHECK(strip_white_space("\u200Ba") == "\u200Ba");
  CHECK(strip_white_space(" \t ").empty());
}

TEST_CASE("utf8: letters, marks and digits are of words") {
  for (const char32_t code : {U'a', U'\u00E9', U'\u0301', U'7', U'_', U'\u4F60'}) {
    CHECK(is_word_character(code));
  }
  for (const char32_t code : {U' ', U'-', U'\u2581', U'\u00BD'}) CHECK(!is_word_character(code));
}
