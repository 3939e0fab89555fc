#include "eval/requests.h"

#include "data/fixtures.h"

namespace zebra::testing {

namespace {

using Ids = std::vector<int64_t>;

// "ab" is one token where both letters stand together: what is joined depends on what follows.
// "<s>" is BOS, as the markers of a template are.
class PairTokenizer : public ByteTokenizer {
 public:
  std::vector<int64_t> encode(std::string_view text) const override {
    Ids ids;
    if (text.starts_with("<s>")) {
      ids.push_back(1);
      text.remove_prefix(3);
    }
    for (size_t i = 0; i < text.size(); ++i) {
      const bool pair = text.substr(i, 2) == "ab";
      ids.push_back(pair ? 300 : static_cast<unsigned char>(text[i]) + 3);
      i += pair ? 1 : 0;
    }
    return ids;
  }
  std::string piece(int64_t id) const override {
    return id == 1 ? "<s>" : ByteTokenizer::piece(id);
  }
};

class WithoutBos : public ByteTokenizer {
 public:
  int64_t bos_id() const override { return -1; }
};

class Without : public WithoutBos {
 public:
  int64_t eos_id() const override { return -1; }
};

int64_t byte(char c) { return static_cast<unsigned char>(c) + 3; }

TokenRequest only(const Tokenizer& tokenizer, const TextRequest& request, int64_t max_length) {
  return encode_requests(tokenizer, {request}, max_length, LongEndings::kRefuse).at(0);
}

}  // namespace

TEST_CASE("requests: BOS, the context and all of the continuation but its last token are read") {
  const auto request = only(ByteTokenizer(), {"xy", " z."}, 100);
  CHECK(request.input == Ids{1, byte('x'), byte('y'), byte(' '), byte('z')});
  CHECK(request.targets == Ids{byte(' '), byte('z'), byte('.')});
  CHECK_FALSE(request.cut);
}

TEST_CASE("requests: the context's tokens come from the context alone") {
  // Together "xab" is x and ab, the context is x and a: ab is what lies behind two tokens.
  const auto request = only(PairTokenizer(), {"xa", "bc"}, 100);
  CHECK(request.targets == Ids{byte('c')});
  CHECK(request.input == Ids{1, byte('x'), byte('a')});
}

TEST_CASE("requests: white space at the context's end belongs to the continuation") {
  const auto request = only(ByteTokenizer(), {"x \n", "y"}, 100);
  CHECK(request.targets == Ids{byte(' '), byte('\n'), byte('y')});
  CHECK(request.input.size() == 4);
}

TEST_CASE("requests: without a context BOS stands before the continuation, or else EOS") {
  CHECK(only(ByteTokenizer(), {"", "ab"}, 100).input == Ids{1, byte('a')});
  CHECK(only(WithoutBos(), {"", "ab"}, 100).input == Ids{2, byte('a')});
  CHECK_THROWS_WITH(only(Without(), {"", "ab"}, 100),
                    ContainsSubstring("expected a context or a tokenizer with BOS, got neither"));
  CHECK_THROWS_AS(only(WithoutBos(), {" ", "ab"}, 100), ConfigError);
}

TEST_CASE("requests: a text that begins with BOS gets no second one") {
  CHECK(only(PairTokenizer(), {"<s>x", "y"}, 100).input == Ids{1, byte('x')});
}

TEST_CASE("requests: a long context loses its beginning, a long continuation is refused") {
  const auto request = only(ByteTokenizer(), {"abcdef", "gh"}, 4);
  CHECK(request.input == Ids{byte('d'), byte('e'), byte('f'), byte('g')});
  CHECK(request.targets == Ids{byte('g'), byte('h')});
  CHECK(request.cut);
  CHECK_FALSE(only(ByteTokenizer(), {"ab", "cd"}, 4).cut);
  CHECK_THROWS_WITH(only(ByteTokenizer(), {"a", "bcdef"}, 4),
                    ContainsSubstring("expected an ending of at most 4 tokens, got 5"));
  CHECK_THROWS_WITH(only(ByteTokenizer(), {"a", ""}, 4),
                    ContainsSubstring("expected an ending that adds tokens to its context"));
}

TEST_CASE("requests: of an ending that is longer than the context the end can be scored") {
  const auto request =
      encode_requests(ByteTokenizer(), {{"a", "bcdefg"}}, 4, LongEndings::kCut).at(0);
  CHECK(request.input == Ids{byte('c'), byte('d'), byte('e'), byte('f')});
  CHECK(request.targets == Ids{byte('d'), byte('e'), byte('f'), byte('g')});
  CHECK(request.cut);
}

TEST_CASE("requests: rolling windows predict every token once, the last one looks back") {
  // BOS of the window, then BOS of the text and its letters.
  const auto windows = encode_rolling(ByteTokenizer(), "abcdef", 3);
  REQUIRE(windows.size() == 3);
  CHECK(windows[0].input == Ids{1, 1, byte('a')});
  CHECK(windows[0].targets == Ids{1, byte('a'), byte('b')});
  CHECK(windows[1].input == Ids{byte('b'), byte('c'), byte('d')});
  CHECK(windows[1].targets == Ids{byte('c'), byte('d'), byte('e')});
  CHECK(windows[2].input == Ids{byte('c'), byte('d'), byte('e')});
  CHECK(windows[2].targets == Ids{byte('f')});
  CHECK(encode_rolling(ByteTokenizer(), "ab", 3).size() == 1);
}

TEST_CASE("requests: a prompt that is too long loses its beginning, an empty one is refused") {
  CHECK(encode_prompt(ByteTokenizer(), "abc", 2) == Ids{byte('b'), byte('c')});
  CHECK(encode_prompt(ByteTokenizer(), "", 2) == Ids{1});
  CHECK_THROWS_WITH(encode_prompt(WithoutBos(), "", 2),
                    ContainsSubstring("expected a prompt with at least one token, got none"));
}

}  // namespace zebra::testing
