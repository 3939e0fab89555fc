#include "data/tokenizer/pattern.h"

#include "data/fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

std::vector<std::string> matches(const std::string& expression, const std::string& text) {
  PatternScratch scratch;
  std::vector<std::string> result;
  for (const auto& [begin, end, match] : segments({expression, "test"}, text, scratch)) {
    if (match) result.push_back(text.substr(begin, end - begin));
  }
  return result;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("pattern: letters, numbers and case follow Unicode") {
  CHECK(matches(R"(\p{L}+|\p{N}{1,3})", "Z\u00FCrich 1234 \u4F60\u597D \u0661") ==
        Texts{"Z\u00FCrich", "123", "4", "\u4F60\u597D", "\u0661"});
  CHECK(matches("(?i:'s|'ll)", "he's HE'LL") == Texts{"'s", "'LL"});
  CHECK(matches(R"(\s+(?!\S)|\s+)", "a  \n b ") == Texts{"  \n", " ", " "});
}

TEST_CASE("pattern: white space is Unicode's property, in and out of classes") {
  for (const char* space : {"\t", "\u0085", "\u00A0", "\u1680", "\u2009", "\u2028", "\u3000"}) {
    CHECK(matches(R"(\s)", space).size() == 1);
    CHECK(matches(R"([\s])", space).size() == 1);
    CHECK(matches(R"(\S)", space).empty());
    CHECK(matches(R"([\S])", space).empty());
    CHECK(matches(R"([^\s])", space).empty());
  }
  for (const char* other : {"a", "\u180E", "\u200B", "\uFEFF"}) {  // PCRE2's \s has U+180E
    CHECK(matches(R"(\s)", other).empty());
    CHECK(matches(R"([\s])", other).empty());
    CHECK(matches(R"(\S)", other).size() == 1);
    CHECK(matches(R"([\S])", other).size() == 1);
  }
}

TEST_CASE("pattern: segments cover the text, with empty matches as cuts") {
  PatternScratch scratch;
  const auto all = segments({"x*", "test"}, "ab\u00E9xx", scratch);
  std::string text;
  for (const auto& [begin, end, match] : all)
    text += std::string("ab\u00E9xx").substr(begin, end - begin);
  CHECK(text == "ab\u00E9xx");
  CHECK(all.size() == 4);
  CHECK(all.back().match);
}

TEST_CASE("pattern: plain strings match as they are written") {
  PatternScratch scratch;
  const auto dots = Pattern::from_json(json{{"String", "a.\\s[+"}}, "test");
  const auto found = dots.find("ab\\s[+ a.\\s[+", 0, scratch);
  CHECK(found.found);
  CHECK(found.begin == 7);
}

TEST_CASE("pattern: what cannot be read, or would be read otherwise, is refused") {
  const auto refusal = [](const std::string& expression) {
    return config_error([&] { Pattern(expression, "file: pre_tokenizer"); });
  };
  CHECK_THAT(refusal("(a"),
             ContainsSubstring("file: pre_tokenizer: expected a regular expression"));
  CHECK_THAT(refusal(R"(\h)"), ContainsSubstring(R"(got \h in \h)"));
  CHECK_THAT(refusal("[a&&b]"), ContainsSubstring("&& in a class"));
  CHECK_THAT(refusal("[a[bc]]"), ContainsSubstring("a class in a class"));
  CHECK_THAT(refusal("a{1,2}+"), ContainsSubstring("{n,m}+"));
  for (const char* other :
       {R"(\b)", R"(\B)", R"(\X)", R"(a\Z)", "a{,3}", "[[:alpha:]]", R"([\W])"}) {
    INFO(other);
    CHECK_THAT(refusal(other), ContainsSubstring("got "));
  }
  CHECK(refusal(R"(\p{L}+[\w.]\w\x{a0}+a++[\[\]]&&)").empty());
  CHECK_THAT(config_error([] { Pattern::from_json(json("x"), "file"); }),
             ContainsSubstring("file: pattern: expected"));
}

TEST_CASE("pattern: words hold marks, as in the peers' classes") {
  CHECK(matches(R"(\w+|[^\w\s]+)", "हि, a_1") == Texts{"हि", ",", "a_1"});
}

TEST_CASE("pattern: a long text of one kind is one match") {
  const std::string text(2'000'000, 'a');
  CHECK(matches(R"([^\r\n\p{L}\p{N}]?\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+)", text) == Texts{text});
  const std::string spaces(300'000, ' ');
  CHECK(matches(R"(\s*[\r\n]+|\s+(?!\S)|\s+)", spaces) == Texts{spaces});
}
