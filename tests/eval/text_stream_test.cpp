// Text as it comes: whole characters, and stop strings that lie across tokens.
#include "eval/text_stream.h"

#include "eval/models.h"

namespace zebra::testing {

namespace {

// As real tokenizers do: bytes that are no character yet are decoded as U+FFFD.
class CarefulTokenizer : public ByteTokenizer {
 public:
  std::string decode(const std::vector<int64_t>& ids) const override {
    const auto bytes = ByteTokenizer::decode(ids);
    std::string text;
    for (size_t i = 0; i < bytes.size();) {
      const auto lead = static_cast<unsigned char>(bytes[i]);
      const size_t length = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
      const bool whole = i + length <= bytes.size() && (lead < 0x80 || lead >= 0xC0);
      text += whole ? bytes.substr(i, length) : "\xEF\xBF\xBD";
      i += whole ? length : 1;
    }
    return text;
  }
};

// What was shown after each byte, with | between, and at the end.
std::string shown(TextStream& stream, const std::string& text) {
  std::string all;
  for (const auto id : ByteTokenizer().encode(text)) all += stream.add(id) + "|";
  return all + stream.finish();
}

}  // namespace

TEST_CASE("text stream: a character is shown when its last byte has come") {
  const CarefulTokenizer tokenizer;
  TextStream stream(tokenizer, tokenizer.encode("x"), {});
  CHECK(shown(stream, "a\u00e9\u20acz") == "a||\u00e9|||\u20ac|z|");
  CHECK(stream.text() == "a\u00e9\u20acz");
  TextStream cut(tokenizer, {}, {});
  CHECK(shown(cut, "a\xe2\x82") == "a|||\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST_CASE("text stream: what may become a stop string waits, and the stop string is not shown") {
  const CarefulTokenizer tokenizer;
  TextStream stream(tokenizer, {}, {"END", "\n\n"});
  CHECK(shown(stream, "aE\nENEX") == "a||E|\n||EN|EX|");
  CHECK_FALSE(stream.stopped());
  TextStream stopped(tokenizer, {}, {"END", "\n\n"});
  CHECK(shown(stopped, "ab\nEND, and more") == "a|b||\n" + std::string(13, '|'));
  CHECK(stopped.stopped());
  CHECK(stopped.text() == "ab\n");
}

TEST_CASE("text stream: the first of several stop strings ends the text") {
  const CarefulTokenizer tokenizer;
  TextStream stream(tokenizer, {}, {"bcd", "c", ""});
  shown(stream, "abcd");
  CHECK(stream.text() == "ab");
  TextStream same_start(tokenizer, {}, {"abab", "abc"});
  shown(same_start, "ababc");
  CHECK(same_start.text().empty());
}

TEST_CASE("text stream: a half stop string at the end is text") {
  const CarefulTokenizer tokenizer;
  TextStream stream(tokenizer, {}, {"<end>"});
  CHECK(shown(stream, "a<en") == "a||||<en");
  CHECK(stream.text() == "a<en");
}

}  // namespace zebra::testing
