// tokenizer.model of SentencePiece, with the files that lie beside it.
#include <nlohmann/json.hpp>

#include "data/fixtures.h"
#include "data/tokenizer_train.h"
#include "zebra/tokenizer.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

using Ids = std::vector<int64_t>;
constexpr int64_t kPieces = 300;

// A model folder whose config says this.
std::unique_ptr<Tokenizer> with_config(const nlohmann::json& config) {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 50; ++i) text += "the cat sat on the mat and the dog ran to the cat\n";
  train_tokenizer(folder.write("t.txt", text), kPieces, folder.path("tokenizer.model"));
  folder.write("tokenizer_config.json", config.dump());
  return load_tokenizer(folder.path(""));
}

Ids joined(Ids a, const Ids& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

TEST_CASE("sentencepiece: names of special tokens in a text are these tokens") {
  const auto tokenizer = with_config(nlohmann::json::object());
  CHECK(tokenizer->encode("<s>") == Ids{1});
  CHECK(tokenizer->encode("the</s>") == joined(tokenizer->encode("the"), {2}));
  CHECK(tokenizer->is_special(1));
  CHECK(tokenizer->id_of("</s>") == 2);
  CHECK(tokenizer->id_of("nowhere") == -1);
  CHECK(tokenizer->adds_bos());
  CHECK(!tokenizer->adds_eos());
  CHECK(encode_with_bos(*tokenizer, "<s>the") == joined({1}, tokenizer->encode("the")));
}

TEST_CASE("sentencepiece: text behind a special token has a space of its own, unless told not to") {
  const auto legacy = with_config({{"legacy", true}}), now = with_config({{"legacy", false}});
  const auto the = legacy->encode("the");  // with the space in front
  CHECK(now->encode("the") == the);
  CHECK(legacy->encode("<s>the") == joined({1}, the));
  const auto bare = now->encode("<s>the");
  CHECK(bare != joined({1}, the));
  CHECK(now->decode(bare) == "the");
  CHECK(now->encode("<s> the") == joined({1}, the));
}

TEST_CASE("sentencepiece: tokens of the config are added, and shown or left out") {
  const auto tokenizer = with_config(
      {{"added_tokens_decoder",
        {{"300", {{"content", "<|im_start|>"}, {"special", true}, {"normalized", false}}},
         {"301", {{"content", "<keep>"}, {"special", false}, {"normalized", false}}}}},
       {"eos_token", "<|im_start|>"}});
  CHECK(tokenizer->vocab_size() == 302);
  CHECK(tokenizer->eos_id() == 300);
  const auto ids = tokenizer->encode("the<|im_start|>cat<keep>");
  CHECK(ids ==
        joined(joined(tokenizer->encode("the"), {300}), joined(tokenizer->encode("cat"), {301})));
  CHECK(tokenizer->decode(ids) == "the cat<keep>");
  CHECK(tokenizer->decode_with_special(ids) == "the<|im_start|> cat<keep>");
}

TEST_CASE("sentencepiece: tokens of added_tokens.json are added") {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 50; ++i) text += "the cat sat on the mat and the dog ran to the cat\n";
  train_tokenizer(folder.write("t.txt", text), kPieces, folder.path("tokenizer.model"));
  folder.write("added_tokens.json", R"({"<extra>": 300})");
  CHECK(load_tokenizer(folder.path(""))->encode("<extra>") == Ids{300});
  folder.write("added_tokens.json", R"({"<extra>": 5})");
  CHECK_THAT(config_error([&] { load_tokenizer(folder.path("")); }),
             ContainsSubstring("id 5: expected <0x02>, which the vocabulary has there"));
}

TEST_CASE("sentencepiece: spans tell where tokens come from") {
  const auto tokenizer = with_config(nlohmann::json::object());
  const std::string text = "the cat<s>\xFF zo\u00EB";
  const auto [ids, spans] = tokenizer->encode_with_spans(text);
  CHECK(ids == tokenizer->encode(text));
  size_t last = 0;
  for (const auto& [begin, end] : spans) {
    CHECK(begin >= last);
    CHECK(end >= begin);
    last = end;
  }
  CHECK(last == text.size());
  CHECK((spans[0] == TextSpan{0, 3}));
}
