// tokenizer.json: golden vectors, every part by hand-made files, and what is refused.
#include <nlohmann/json.hpp>

#include "data/fixtures.h"
#include "data/tokenizer/tokenizer_golden.h"
#include "support/tokenizer_files.h"
#include "zebra/tokenizer.h"

using namespace zebra;
using namespace zebra::testing;
using json = nlohmann::json;

namespace {

using Ids = std::vector<int64_t>;

std::unique_ptr<Tokenizer> load(const json& file) {
  const Folder folder;
  return load_tokenizer(folder.write("tokenizer.json", file.dump()));
}

std::string refusal(const json& file) {
  return config_error([&] { load(file); });
}

// A file of characters and merges without a pre-tokenizer.
json plain_file(const std::vector<std::string>& tokens,
                const std::vector<std::pair<std::string, std::string>>& merges) {
  json vocab = json::object();
  for (const auto& token : tokens) vocab[token] = vocab.size();
  json list = json::array();
  for (const auto& [left, right] : merges) list.push_back({left, right});
  return {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", list}}},
          {"decoder", {{"type", "Fuse"}}}};
}

// The pieces that a pre-tokenizer cuts "a" ... "d", digits, dots and spaces into: nothing merges
// across them, and everything within them does.
std::vector<std::string> pieces(const json& pre_tokenizer, const std::string& text) {
  std::vector<std::string> tokens = {"a", "b", "1", "2", ".", " ", "\u2581"};
  std::vector<std::pair<std::string, std::string>> merges;
  const auto single = tokens;
  for (int round = 0; round < 2; ++round) {
    const auto left = tokens;
    for (const auto& a : left) {
      for (const auto& b : single) {
        if (std::find(tokens.begin(), tokens.end(), a + b) != tokens.end()) continue;
        tokens.push_back(a + b);
        merges.emplace_back(a, b);
      }
    }
  }
  auto file = plain_file(tokens, merges);
  file["pre_tokenizer"] = pre_tokenizer;
  const auto tokenizer = load(file);
  std::vector<std::string> result;
  for (const auto id : tokenizer->encode(text)) result.push_back(tokenizer->piece(id));
  return result;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("tokenizer.json: ids and texts equal the golden vectors", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/tokenizers/encode.json");
  check_golden({.file = "data/tokenizers/llama3-style",
                .ids = "llama3_style",
                .text = "llama3_style_decoded",
                .text_without_special = "llama3_style_decoded_skip_special",
                .bos = true});
  // SentencePiece gave these ids; it takes extra spaces away, which this file does not ask for.
  check_golden({.file = "data/tokenizers/tok512-json",
                .ids = "tok512_spm",
                .text_without_special = "tok512_spm_decoded",
                .extra_spaces = false});
  check_golden({.file = "data/tokenizers/tiny-bpe-tokenizer.json",
                .ids = "tiny_bpe",
                .text = "tiny_bpe_decoded"});
}

TEST_CASE("tokenizer.json: a folder's config names BOS and EOS, the post-processor adds BOS") {
  const Folder folder;
  folder.write("tokenizer.json", small_tokenizer_json().dump());
  folder.write("tokenizer_config.json", small_tokenizer_config().dump());
  const auto tokenizer = load_tokenizer(folder.path(""));
  CHECK(tokenizer->vocab_size() == kSmallVocabulary);
  CHECK(tokenizer->bos_id() == kSmallBos);
  CHECK(tokenizer->eos_id() == kSmallEot);
  CHECK(tokenizer->adds_bos());
  CHECK(!tokenizer->adds_eos());
  CHECK(tokenizer->is_special(kSmallEot));
  CHECK(!tokenizer->is_special(0));
  CHECK(tokenizer->id_of("<|eot_id|>") == kSmallEot);
  CHECK(tokenizer->id_of("no such") == -1);
  CHECK(encode_with_bos(*tokenizer, "hello") == Ids{kSmallBos, 259});
  CHECK(encode_with_bos(*tokenizer, "<|begin_of_text|>hello") == Ids{kSmallBos, 259});
  CHECK(encode_with_bos(*tokenizer, "") == Ids{kSmallBos});
}

TEST_CASE("tokenizer.json: the file alone gives the BOS that its post-processor adds") {
  const auto tokenizer = load(small_tokenizer_json());
  CHECK(tokenizer->bos_id() == kSmallBos);
  CHECK(tokenizer->eos_id() == -1);
  CHECK(tokenizer->adds_bos());
}

TEST_CASE("tokenizer.json: add_bos_token of the config replaces the post-processor") {
  const Folder folder;
  folder.write("tokenizer.json", small_tokenizer_json().dump());
  auto config = small_tokenizer_config();
  config["add_bos_token"] = false;
  config["add_eos_token"] = true;
  folder.write("tokenizer_config.json", config.dump());
  const auto tokenizer = load_tokenizer(folder.path(""));
  CHECK(!tokenizer->adds_bos());
  CHECK(tokenizer->adds_eos());
  CHECK(encode_with_bos(*tokenizer, "hello") == Ids{259});
}

TEST_CASE("tokenizer.json: merges go by rank, a piece that is a token stays whole when told so") {
  // "abc" is "a" + "bc" by rank, although "ab" comes first from the left.
  auto file = plain_file({"a", "b", "c", "bc", "ab", "abc"}, {{"b", "c"}, {"a", "b"}, {"ab", "c"}});
  CHECK(load(file)->encode("abc") == Ids{0, 3});
  file["model"]["ignore_merges"] = true;
  CHECK(load(file)->encode("abc") == Ids{5});
  CHECK(load(file)->encode("abca") == Ids{0, 3, 0});
}

TEST_CASE("tokenizer.json: merges are read as pairs and as texts") {
  auto file = plain_file({"a", "b", "ab"}, {});
  file["model"]["merges"] = {"a b"};
  CHECK(load(file)->encode("ab") == Ids{2});
  file["model"]["merges"] = json::array({json::array({"a", "b"})});
  CHECK(load(file)->encode("ab") == Ids{2});
}

TEST_CASE("tokenizer.json: what has no token is left out, unknown, fused, or bytes") {
  auto file = plain_file({"a", "<unk>"}, {});
  CHECK(load(file)->encode("axxa") == Ids{0, 0});
  file["model"]["unk_token"] = "<unk>";
  CHECK(load(file)->encode("axxa") == Ids{0, 1, 1, 0});
  file["model"]["fuse_unk"] = true;
  CHECK(load(file)->encode("axxa") == Ids{0, 1, 0});
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    file["model"]["vocab"][name] = byte + 2;
  }
  file["model"]["byte_fallback"] = true;
  file["decoder"] = {{"type", "ByteFallback"}};
  const auto tokenizer = load(file);
  CHECK(tokenizer->encode("a\xC3\xA9") == Ids{0, 2 + 0xC3, 2 + 0xA9});
  CHECK(tokenizer->decode({0, 2 + 0xC3, 2 + 0xA9}) == "a\xC3\xA9");
  CHECK(tokenizer->decode({2 + 0xC3, 0}) ==
        "\xEF\xBF\xBD"
        "a");
}

TEST_CASE("tokenizer.json: bytes that are no UTF-8 count as U+FFFD, NUL is a character") {
  const auto tokenizer = load(small_tokenizer_json());
  const std::string replacement = "\xEF\xBF\xBD";
  const auto same = [&](const std::string& bad, const std::string& good) {
    CHECK(tokenizer->encode(bad) == tokenizer->encode(good));
  };
  same("a\xFFz", "a" + replacement + "z");
  same("a\xE2\x82z", "a" + replacement + "z");  // the beginning of a character is one
  same("\xE2\x82\xF0\x9F", replacement + replacement);
  same("\xC0\x80", replacement + replacement);                    // overlong
  same("\xED\xA0\x80", replacement + replacement + replacement);  // a surrogate
  CHECK(tokenizer->encode(std::string("a\0b", 3)) == Ids{97, 0, 98});
  CHECK(tokenizer->decode({97, 0, 98}) == std::string("a\0b", 3));
  CHECK(tokenizer->decode({0xE2, 0x82}) == replacement);
  const auto spans = tokenizer->encode_with_spans("a\xFFz").spans;
  CHECK((spans.front() == TextSpan{0, 1}));
  CHECK((spans.back() == TextSpan{2, 3}));
}

TEST_CASE("tokenizer.json: added tokens take the white space they ask for, and whole words") {
  auto file = small_tokenizer_json();
  const auto add = [&](const char* name, json flags) {
    flags["id"] = kSmallVocabulary + file["added_tokens"].size() - 5;
    flags["content"] = name;
    flags["normalized"] = false;
    file["added_tokens"].push_back(flags);
  };
  add("<l>", {{"lstrip", true}});
  add("<r>", {{"rstrip", true}});
  add("word", {{"single_word", true}});
  add("<l>long", json::object());
  const auto tokenizer = load(file);
  const int64_t l = kSmallVocabulary, r = l + 1, word = l + 2, longer = l + 3;
  CHECK(tokenizer->encode("x \n<l> y") == Ids{'x', l, ' ', 'y'});
  CHECK(tokenizer->encode("x <r> \xC2\xA0y") == Ids{'x', ' ', r, 'y'});
  CHECK(tokenizer->encode("<r>  <l>") == Ids{r, l});
  CHECK(tokenizer->encode("word") == Ids{word});
  CHECK(tokenizer->encode("(word)") == Ids{'(', word, ')'});
  CHECK(tokenizer->encode("swords").size() == 5);
  CHECK(tokenizer->encode("word\xC3\xA9").size() > 2);
  CHECK(tokenizer->encode("<l>long") == Ids{longer});
  CHECK(tokenizer->decode({l}) == "<l>");  // added, not special
}

TEST_CASE("tokenizer.json: normalised tokens are found in the normalised text") {
  auto file = plain_file({"a", "e", "\u00E9"}, {});
  file["normalizer"] = {{"type", "NFC"}};
  file["added_tokens"] = {{{"id", 3}, {"content", "e\u0301!"}, {"normalized", true}},
                          {{"id", 4}, {"content", "e\u0301?"}, {"normalized", false}}};
  const auto tokenizer = load(file);
  CHECK(tokenizer->encode("e\u0301") == Ids{2});
  CHECK(tokenizer->encode("a\u00E9!") == Ids{0, 3});
  CHECK(tokenizer->encode("ae\u0301!") == Ids{0, 3});
  CHECK(tokenizer->encode("ae\u0301?") == Ids{0, 4});
  CHECK(tokenizer->encode("a\u00E9?") == Ids{0, 2});
}

TEST_CASE("tokenizer.json: tokens named by the config alone get ids behind the vocabulary") {
  const Folder folder;
  folder.write("tokenizer.json", small_tokenizer_json().dump());
  auto config = small_tokenizer_config();
  config["additional_special_tokens"] = {"<tool>"};
  config["added_tokens_decoder"] = {{"273", {{"content", "<x>"}, {"special", false}}}};
  folder.write("tokenizer_config.json", config.dump());
  const auto tokenizer = load_tokenizer(folder.path(""));
  CHECK(tokenizer->vocab_size() == kSmallVocabulary + 2);
  CHECK(tokenizer->id_of("<x>") + tokenizer->id_of("<tool>") == 2 * kSmallVocabulary + 1);
  CHECK(tokenizer->is_special(tokenizer->id_of("<tool>")));
  config["eos_token"] = "</nowhere>";
  folder.write("tokenizer_config.json", config.dump());
  CHECK_THAT(config_error([&] { load_tokenizer(folder.path("")); }),
             ContainsSubstring("tokenizer_config.json: eos_token: expected a token of the "
                               "vocabulary, got </nowhere>"));
}

TEST_CASE("tokenizer.json: normalisers change the text as they are named") {
  const auto ids = [&](const json& normalizer, const std::string& text) {
    auto file = plain_file({"a", "_", "\u00E9", "e", "\u0301", "1"}, {});
    file["normalizer"] = normalizer;
    return load(file)->encode(text);
  };
  CHECK(ids({{"type", "NFC"}}, "ae\u0301") == Ids{0, 2});
  CHECK(ids({{"type", "NFD"}}, "\u00E9") == Ids{3, 4});
  CHECK(ids({{"type", "NFKC"}}, "\u2460e\u0301") == Ids{5, 2});
  CHECK(ids({{"type", "NFKD"}}, "\u2460\u00E9") == Ids{5, 3, 4});
  CHECK(ids({{"type", "Prepend"}, {"prepend", "_"}}, "a") == Ids{1, 0});
  CHECK(ids({{"type", "Prepend"}, {"prepend", "_"}}, "") == Ids{});
  CHECK(ids({{"type", "Replace"}, {"pattern", {{"String", "xx"}}}, {"content", "_"}}, "axxxa") ==
        Ids{0, 1, 0});
  CHECK(ids({{"type", "Replace"}, {"pattern", {{"Regex", "x+"}}}, {"content", "_"}}, "axxxa") ==
        Ids{0, 1, 0});
  CHECK(ids({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, "\n\u3000a") ==
        Ids{0});
  CHECK(ids({{"type", "Sequence"},
             {"normalizers",
              {{{"type", "Prepend"}, {"prepend", "x"}},
               {{"type", "Replace"}, {"pattern", {{"String", "x"}}}, {"content", "_"}}}}},
            "ax") == Ids{1, 0, 1});
}

TEST_CASE("tokenizer.json: pre-tokenizers cut the text as they are named") {
  const auto split = [](const char* behavior, bool invert = false) {
    return json{{"type", "Split"},
                {"pattern", {{"String", "."}}},
                {"behavior", behavior},
                {"invert", invert}};
  };
  CHECK(pieces(split("Isolated"), "ab..a") == Texts{"ab", ".", ".", "a"});
  CHECK(pieces(split("Removed"), "ab..a") == Texts{"ab", "a"});
  CHECK(pieces(split("Removed", true), "ab..a") == Texts{".", "."});
  CHECK(pieces(split("Contiguous"), "ab..a") == Texts{"ab", "..", "a"});
  CHECK(pieces(split("MergedWithPrevious"), "ab..a") == Texts{"ab.", ".", "a"});
  CHECK(pieces(split("MergedWithNext"), "ab..a") == Texts{"ab", ".", ".a"});
  CHECK(pieces({{"type", "Digits"}, {"individual_digits", true}}, "a12b") ==
        Texts{"a", "1", "2", "b"});
  CHECK(pieces({{"type", "Digits"}, {"individual_digits", false}}, "a12b") ==
        Texts{"a", "12", "b"});
  CHECK(pieces({{"type", "Punctuation"}}, "a.b") == Texts{"a", ".", "b"});
  CHECK(pieces({{"type", "Whitespace"}}, "a1 .b") == Texts{"a1", ".", "b"});
  CHECK(pieces({{"type", "WhitespaceSplit"}}, "a1 .b") == Texts{"a1", ".b"});
  const json both = {{"type", "Sequence"},
                     {"pretokenizers", {{{"type", "Digits"}}, split("Isolated")}}};
  CHECK(pieces(both, "a.12.b") == Texts{"a", ".", "12", ".", "b"});
}

TEST_CASE("tokenizer.json: words that Whitespace cuts out hold marks and joiners") {
  auto file = plain_file({"\u0915", "\u093F", "\u200D", "\u0915\u093F", "\u0915\u093F\u200D"},
                         {{"\u0915", "\u093F"}, {"\u0915\u093F", "\u200D"}});
  file["pre_tokenizer"] = {{"type", "Whitespace"}};
  CHECK(load(file)->encode("\u0915\u093F\u200D") == Ids{4});
}

TEST_CASE("tokenizer.json: Metaspace marks words, and the first one as its scheme says") {
  const auto metaspace = [](const char* scheme, bool split) {
    return json{{"type", "Metaspace"},
                {"replacement", "\u2581"},
                {"prepend_scheme", scheme},
                {"split", split}};
  };
  CHECK(pieces(metaspace("always", true), "a b") == Texts{"\u2581"
                                                          "a",
                                                          "\u2581"
                                                          "b"});
  CHECK(pieces(metaspace("never", true), "a b") == Texts{"a",
                                                         "\u2581"
                                                         "b"});
  CHECK(pieces(metaspace("first", true), " a") == Texts{"\u2581"
                                                        "a"});
  CHECK(pieces(metaspace("always", true), "a  b") == Texts{"\u2581"
                                                           "a",
                                                           "\u2581",
                                                           "\u2581"
                                                           "b"});
  auto file = small_tokenizer_json();
  file["pre_tokenizer"] = metaspace("first", false);
  file["model"]["vocab"]["\u2581"] = 400;
  auto tokenizer = load(file);
  CHECK(tokenizer->encode("a<|eot_id|>a") == Ids{400, 'a', kSmallEot, 'a'});
  file["pre_tokenizer"] = metaspace("always", false);
  tokenizer = load(file);
  CHECK(tokenizer->encode("a<|eot_id|>a") == Ids{400, 'a', kSmallEot, 400, 'a'});
}

TEST_CASE("tokenizer.json: spans tell where tokens come from, whatever changed the text") {
  auto file = plain_file({"a", "\u2581", "\u00E9",
                          "\u2581"
                          "a"},
                         {{"\u2581", "a"}});
  file["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       {{{"type", "NFC"}},
        {{"type", "Prepend"}, {"prepend", "\u2581"}},
        {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}};
  const auto [ids, spans] = load(file)->encode_with_spans("ae\u0301 \u00E9 a");
  CHECK(ids == Ids{3, 2, 1, 2, 3});
  const std::vector<TextSpan> expected = {{0, 1}, {1, 4}, {4, 5}, {5, 7}, {7, 9}};
  CHECK((spans == expected));
}

TEST_CASE("tokenizer.json: words of a Metaspace text are found wherever they stand") {
  // Cached words, long words and words across marks give what the text gives as a whole.
  auto file = plain_file({"\u2581", "a", "b",
                          "\u2581"
                          "a",
                          "ab",
                          "\u2581"
                          "ab",
                          "b\u2581"},
                         {{"\u2581", "a"},
                          {"a", "b"},
                          {"\u2581"
                           "a",
                           "b"}});
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", "always"}, {"split", false}};
  file["model"]["vocab"]["<unk>"] = 8;
  file["model"]["unk_token"] = "<unk>";
  const auto apart = load(file);
  file["model"]["merges"].push_back({"b", "\u2581"});  // now a merge may cross words
  const auto whole = load(file);
  std::string text;
  Ids expected;
  for (int i = 0; i < 40; ++i) {
    text += i == 0 ? "ab" : " ab";
    expected.push_back(5);
  }
  CHECK(apart->encode(text) == expected);
  CHECK(whole->encode(text) == expected);
  // Without an unknown token "x" is left out, and what was at its sides merges: words are no more.
  file["model"]["unk_token"] = nullptr;
  file["model"]["merges"] = json::array();
  file["model"]["merges"].push_back({"\u2581", "\u2581"});
  file["model"]["merges"].push_back({"\u2581", "a"});
  file["model"]["vocab"]["\u2581\u2581"] = 7;
  CHECK(load(file)->encode("x a") == Ids{7, 1});
  CHECK(apart->encode("b b") == Ids{0, 2, 0, 2});
  CHECK(whole->encode("b b") == Ids{0, 6, 2});
}

TEST_CASE("tokenizer.json: decoders change the tokens as they are named") {
  const auto text = [&](const json& decoder, const Ids& ids) {
    auto file = plain_file({"\u2581"
                            "a",
                            "b", "a  "},
                           {});
    file["decoder"] = decoder;
    return load(file)->decode(ids);
  };
  CHECK(text(nullptr, {0, 1}) ==
        "\u2581"
        "a b");
  CHECK(text({{"type", "Fuse"}}, {0, 1}) ==
        "\u2581"
        "ab");
  CHECK(text({{"type", "Metaspace"}, {"prepend_scheme", "always"}}, {0, 0}) == "a a");
  CHECK(text({{"type", "Metaspace"}, {"prepend_scheme", "never"}}, {0, 0}) == " a a");
  CHECK(text({{"type", "Replace"}, {"pattern", {{"String", "\u2581"}}}, {"content", "-"}},
             {0, 1, 0}) == "-ab-a");
  CHECK(text({{"type", "Strip"}, {"content", " "}, {"start", 0}, {"stop", 1}}, {2, 1}) == "a b");
}

TEST_CASE("tokenizer.json: components that are not known are refused by name") {
  const auto with = [](const char* part, const json& value) {
    auto file = small_tokenizer_json();
    file[part] = value;
    return refusal(file);
  };
  CHECK_THAT(with("normalizer", {{"type", "Precompiled"}}),
             ContainsSubstring("tokenizer.json: normalizer: type: expected Sequence, NFC") &&
                 ContainsSubstring("got \"Precompiled\""));
  CHECK_THAT(with("pre_tokenizer", {{"type", "BertPreTokenizer"}}),
             ContainsSubstring("pre_tokenizer: type: expected") &&
                 ContainsSubstring("got \"BertPreTokenizer\""));
  CHECK_THAT(with("decoder", {{"type", "WordPiece"}}), ContainsSubstring("got \"WordPiece\""));
  CHECK_THAT(with("post_processor", {{"type", "RobertaProcessing"}}),
             ContainsSubstring("got \"RobertaProcessing\""));
  CHECK_THAT(with("model", {{"type", "Unigram"}}),
             ContainsSubstring("model: type: expected BPE, got \"Unigram\""));
}

TEST_CASE("tokenizer.json: wrong values are refused with their place") {
  const auto changed = [](const std::function<void(json&)>& change) {
    auto file = small_tokenizer_json();
    change(file);
    return refusal(file);
  };
  CHECK_THAT(changed([](json& file) {
               file["model"]["merges"].push_back({"q", "q"});
             }),
             ContainsSubstring("model: merges[12]: expected two tokens of the vocabulary"));
  CHECK_THAT(changed([](json& file) { file["model"]["merges"][3] = "hello"; }),
             ContainsSubstring("merges[3]: expected two tokens"));
  CHECK_THAT(changed([](json& file) { file["model"]["vocab"]["a"] = -1; }),
             ContainsSubstring("model.vocab: a: expected an id"));
  CHECK_THAT(changed([](json& file) { file["model"]["vocab"]["a"] = 98; }),
             ContainsSubstring("does not have"));
  CHECK_THAT(changed([](json& file) { file["model"]["dropout"] = 0.1; }),
             ContainsSubstring("dropout: expected none"));
  CHECK_THAT(changed([](json& file) { file["model"]["end_of_word_suffix"] = "</w>"; }),
             ContainsSubstring("end_of_word_suffix: expected none"));
  CHECK_THAT(changed([](json& file) { file["added_tokens"][0]["id"] = 5; }),
             ContainsSubstring("added_tokens"));
  CHECK_THAT(changed([](json& file) { file["added_tokens"][0].erase("content"); }),
             ContainsSubstring("added_tokens: content"));
  CHECK_THAT(changed([](json& file) {
               file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(";
             }),
             ContainsSubstring("pre_tokenizer: expected a regular expression"));
  CHECK_THAT(
      changed([](json& file) { file["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Kept"; }),
      ContainsSubstring("behavior: expected Removed"));
  CHECK_THAT(changed([](json& file) { file.erase("model"); }), ContainsSubstring("model"));
  const Folder folder;
  CHECK_THAT(config_error([&] { load_tokenizer(folder.write("t.json", "{\"model\"")); }),
             ContainsSubstring("t.json: expected JSON"));
  CHECK_THAT(config_error([&] { load_tokenizer(folder.write("t.json", "[]")); }),
             ContainsSubstring("expected an object"));
}

TEST_CASE("tokenizer.json: equal files have equal hashes, others do not") {
  const auto file = small_tokenizer_json();
  auto other = file;
  other["model"]["ignore_merges"] = true;
  CHECK(load(file)->hash() == load(file)->hash());
  CHECK(load(file)->hash() != load(other)->hash());
}
