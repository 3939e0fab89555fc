// tokenizer.model of Llama 3: base64 and ranks.
#include <nlohmann/json.hpp>

#include "data/fixtures.h"
#include "data/tokenizer/tokenizer_golden.h"
#include "zebra/tokenizer.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

using Ids = std::vector<int64_t>;

std::string base64_byte(int byte) {
  static const std::string kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  return {kDigits[byte >> 2], kDigits[(byte & 3) << 4], '=', '='};
}

// All bytes, then "ab" (YWI=), "abc" (YWJj), " a" (IGE=).
std::string small_ranks() {
  std::string file;
  for (int byte = 0; byte < 256; ++byte) {
    file += base64_byte(byte) + " " + std::to_string(byte) + "\n";
  }
  return file + "YWI= 256\nYWJj 257\nIGE= 258\n";
}

}  // namespace

TEST_CASE("ranks: tokens merge by rank, special tokens follow, BOS is added") {
  const Folder folder;
  folder.write("tokenizer.model", small_ranks());
  const auto tokenizer = load_tokenizer(folder.path(""));
  CHECK(tokenizer->vocab_size() == 259 + 256);
  CHECK(tokenizer->bos_id() == 259);
  CHECK(tokenizer->eos_id() == 260);
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->id_of("<|start_header_id|>") == 259 + 6);
  CHECK(tokenizer->id_of("<|eot_id|>") == 259 + 9);
  CHECK(tokenizer->id_of("<|python_tag|>") == 259 + 10);
  CHECK(tokenizer->id_of("<|reserved_special_token_247|>") == 259 + 255);
  CHECK(tokenizer->encode("abc ab") == Ids{257, ' ', 256});
  CHECK(tokenizer->encode("<|eot_id|>abab") == Ids{268, 256, 256});
  CHECK(tokenizer->decode({257, ' ', 256, 268}) == "abc ab");
  CHECK(tokenizer->piece(258) ==
        "\u0120"
        "a");
}

TEST_CASE("ranks: the tokens of a config take the place of those of Llama 3") {
  const Folder folder;
  folder.write("tokenizer.model", small_ranks());
  folder.write("tokenizer_config.json",
               R"({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": false,
                   "added_tokens_decoder": {"259": {"content": "<s>", "special": true},
                                            "260": {"content": "</s>", "special": true}}})");
  const auto tokenizer = load_tokenizer(folder.path(""));
  CHECK(tokenizer->vocab_size() == 261);
  CHECK(tokenizer->bos_id() == 259);
  CHECK(!tokenizer->adds_bos());
}

TEST_CASE("ranks: a file of ranks decodes to every golden text", "[golden]") {
  ZEBRA_NEEDS_SHARED("data/tokenizers/tiktoken-small.model");
  const auto tokenizer = load_tokenizer(shared_path("data/tokenizers/tiktoken-small.model"));
  CHECK(tokenizer->vocab_size() == 2256);
  for (const auto& vector : golden_json("encode.json")) {
    const auto text = vector["text"].get<std::string>();
    INFO(text);
    CHECK(tokenizer->decode_with_special(tokenizer->encode(text)) == text);
  }
}

TEST_CASE("ranks: wrong lines are refused by number") {
  const Folder folder;
  const auto refusal = [&](const std::string& more) {
    return config_error([&] { load_tokenizer(folder.write("r.model", small_ranks() + more)); });
  };
  CHECK_THAT(refusal("YWJj 259\n"), ContainsSubstring("r.model:260: expected a new token"));
  CHECK_THAT(refusal("YWJk 260\n"),
             ContainsSubstring("r.model:260: expected a new token in base64"));
  CHECK_THAT(refusal("YW?k 259\n"), ContainsSubstring("got 'YW?k 259'"));
  CHECK_THAT(refusal("\n"), ContainsSubstring("r.model:260"));
  CHECK(refusal("YWJk 259").empty());
}
