// Against values that CPython 3.11 printed.
#include "eval/python.h"

#include "support/testing.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace {

using Indices = std::vector<size_t>;

}  // namespace

TEST_CASE("PythonRandom: the words and numbers of random.Random") {
  PythonRandom words(1234);
  CHECK(words.next() == 4150886329u);
  CHECK(words.next() == 3342196574u);
  CHECK(words.next() == 1892932127u);
  PythonRandom numbers(1234);
  CHECK(numbers.random() == 0.9664535356921388);
  CHECK(numbers.random() == 0.4407325991753527);
  CHECK(numbers.random() == 0.007491470058587191);
}

TEST_CASE("PythonRandom: many words, and seeds of more than 32 bits") {
  PythonRandom many(0);
  for (int i = 0; i < 2000; ++i) many.next();
  CHECK(many.next() == 4065999976u);
  PythonRandom wide((uint64_t{1} << 40) + 7);
  CHECK(wide.next() == 2635837658u);
  CHECK(wide.below(1000) == 765);
}

TEST_CASE("PythonRandom: samples from small and large populations are those of random.sample") {
  PythonRandom random(1234);
  CHECK(random.sample(100, 5) == Indices{99, 56, 14, 0, 11});
  CHECK(random.sample(1000, 3) == Indices{932, 965, 961});
  CHECK(random.sample(21, 4) == Indices{18, 1, 2, 3});
  CHECK(random.sample(50, 6) == Indices{49, 22, 15, 1, 46, 45});
  CHECK(random.sample(300, 10) == Indices{177, 247, 237, 76, 46, 93, 58, 7, 257, 249});
}

TEST_CASE("PythonRandom: shuffles as random.shuffle") {
  std::vector<int> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  PythonRandom(42).shuffle(values);
  CHECK(values == std::vector<int>{7, 3, 2, 8, 5, 6, 9, 4, 0, 1});
}

TEST_CASE("python text: strip takes every white space of Unicode, and nothing else") {
  CHECK(python_strip("\u00a0\t a b\u2003\u3000\n") == "a b");
  CHECK(python_lstrip("\x1c\x85x ") == "\x85x ");   // a lone byte is no character
  CHECK(python_rstrip(" x\u200b ") == " x\u200b");  // a space of no width is none
  CHECK(python_strip(" \n").empty());
}

TEST_CASE("python text: length, case and words count characters") {
  CHECK(python_length("\u00e4b\U0001f993") == 3);
  CHECK(python_capitalize("\u00c4\u00d6 stra\u00dfe") == "\u00c4\u00f6 stra\u00dfe");
  CHECK(python_capitalize("\u00e9lan VITAL") == "\u00c9lan vital");
  CHECK(python_capitalize("\u01c6abc") == "\u01c5abc");
  CHECK(python_capitalize("").empty());
  CHECK(count_words(" a  b\u00a0c\n") == 5);
}

TEST_CASE("python text: replace, and nothing is before each character and at the end") {
  CHECK(replace_all("a--b-", "-", "+-") == "a+-+-b+-");
  CHECK(replace_all("\u00e91", "", "x") == "x\u00e9x1x");
  CHECK(replace_all("", "", "x") == "x");
}

TEST_CASE("python literals: escapes are Python's, and what Python cannot read is refused") {
  const auto value = [](const std::string& text) { return parse_python_literal(text, "f"); };
  CHECK(value(R"('\q\x41\101\0018\u20ac\U0001f993')") ==
        "\\qAA\x01"
        "8\u20ac\U0001f993");
  for (const auto* text :
       {R"('\x4')", R"('\x-1')", R"('\ud83e')", R"('\U00110000')", R"('\N{x}')"}) {
    CHECK_THROWS_WITH(value(text), ContainsSubstring("with an escape at offset 1"));
  }
}

TEST_CASE("python literals: nested lists and dicts with both quotes and escapes") {
  const auto value = parse_python_literal(
      R"([{'q': "It's", 'n': -3, 'x': 1.5, 'o': ['a\n', 'b\'', '\u00e9'], 't': (True, None)},])",
      "f");
  CHECK(value.size() == 1);
  CHECK(value[0]["q"] == "It's");
  CHECK(value[0]["n"] == -3);
  CHECK(value[0]["x"] == 1.5);
  CHECK(value[0]["o"] == nlohmann::ordered_json{"a\n", "b'", "\u00e9"});
  CHECK(value[0]["t"][0] == true);
  CHECK(value[0]["t"][1].is_null());
}

TEST_CASE("python literals: what is cut off or is code is refused with its place") {
  CHECK_THROWS_WITH(parse_python_literal("['a'", "f:3"),
                    ContainsSubstring("f:3: expected a Python literal with a comma at offset 4"));
  CHECK_THROWS_AS(parse_python_literal("['a", "f"), ConfigError);
  CHECK_THROWS_AS(parse_python_literal("open('x')", "f"), ConfigError);
  CHECK_THROWS_AS(parse_python_literal("[1] 2", "f"), ConfigError);
  CHECK_THROWS_WITH(parse_python_literal("[1 a\nb", "f"), ContainsSubstring("got 'a\\nb'"));
  CHECK_THROWS_WITH(parse_python_literal(std::string(100'000, '['), "f"),
                    ContainsSubstring("at most 100 brackets in each other"));
}

TEST_CASE("python JSON: what is not ASCII is escaped, in pairs above U+FFFF") {
  CHECK(python_json_string("a\"\u00e9\n\U0001f993\x7f") == R"("a\"\u00e9\n\ud83e\udd93\u007f")");
}

TEST_CASE("python: an excerpt is one line, and no character of it is cut") {
  CHECK(excerpt("a\r\nb") == "a\\r\\nb");
  CHECK(excerpt(std::string(199, 'x') + "\u00e9") == std::string(199, 'x') + "...");
}

}  // namespace zebra::testing
