#include "zebra/tokenizer.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "data/harness_tokenizer.h"
#include "data/records.h"
#include "data/sources.h"
#include "data/tokenizer_train.h"
#include "fixtures.h"
#include "support/tokenizer_files.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

std::string file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

nlohmann::json golden_vectors() {
  return nlohmann::json::parse(file_bytes(shared_path("goldens/tokenizers/encode.json").string()));
}

// A tokenizer trained on a few sentences.
std::string small_model(const Folder& folder, int64_t vocab_size = 300) {
  std::string text;
  for (int i = 0; i < 50; ++i)
    text += "the cat sat on the mat and the dog ran to the cat\nhello world\n";
  const auto output = folder.path("tokenizer.model");
  train_tokenizer(folder.write("texts.txt", text), vocab_size, output);
  return output;
}

}  // namespace

TEST_CASE("tokenizer: ids and text of a Llama tokenizer equal the golden vectors", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/tokenizers/encode.json");
  const auto tokenizer = load_tokenizer(shared_path("data/models/stories260k"));
  CHECK(tokenizer->vocab_size() == 512);
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->eos_id() == 2);
  for (const auto& vector : golden_vectors()) {
    const auto text = vector["text"].get<std::string>();
    const auto ids = vector["tok512_spm"].get<std::vector<int64_t>>();
    INFO(text);
    CHECK(tokenizer->encode(text) == ids);
    CHECK(tokenizer->decode(ids) == vector["tok512_spm_decoded"].get<std::string>());
  }
}

TEST_CASE("tokenizer: for scores every space counts, as Hugging Face reads a SentencePiece file",
          "[golden]") {
  ZEBRA_NEEDS_SHARED("data/models/stories260k");
  const auto folder = shared_path("data/models/stories260k");
  const auto tokenizer = load_harness_tokenizer(folder);
  using Ids = std::vector<int64_t>;
  // By transformers 5.23.
  CHECK(tokenizer->encode("a  b ") == Ids{261, 410, 268, 410});
  CHECK(tokenizer->encode("  a") == Ids{410, 261});
  CHECK(tokenizer->encode(" Hello") == Ids{346, 306, 414});
  CHECK(tokenizer->encode("x\n\n y") == Ids{410, 444, 13, 13, 348});
  CHECK(load_tokenizer(folder)->encode("a  b ") == Ids{261, 268});
}

TEST_CASE("tokenizer: ids of a unigram model without byte fallback equal the golden vectors",
          "[golden]") {
  ZEBRA_NEEDS_SHARED("data/tokenizers/spm-2000.model");
  const auto tokenizer = load_tokenizer(shared_path("data/tokenizers/spm-2000.model"));
  CHECK(tokenizer->vocab_size() == 2000);
  for (const auto& vector : golden_vectors()) {
    INFO(vector["text"].get<std::string>());
    CHECK(tokenizer->encode(vector["text"].get<std::string>()) ==
          vector["spm2000"].get<std::vector<int64_t>>());
  }
}

TEST_CASE("tokenizer: a folder without a tokenizer is refused with what was looked for") {
  const Folder folder;
  const auto path = folder.path("");
  CHECK(config_error([&] { load_tokenizer(path); }) ==
        "tokenizer: looked for tokenizer.json and tokenizer.model in " + path + ", found neither");
  CHECK_THAT(config_error([&] { load_tokenizer(folder.path("nowhere")); }),
             ContainsSubstring("does not exist"));
}

TEST_CASE("tokenizer: tokenizer.json goes before tokenizer.model") {
  const Folder folder;
  small_model(folder);
  folder.write("tokenizer.json", small_tokenizer_json().dump());
  CHECK(load_tokenizer(folder.path(""))->vocab_size() == kSmallVocabulary);
}

TEST_CASE("tokenizer: an empty or damaged model is refused") {
  const Folder folder;
  CHECK_THAT(config_error([&] { load_tokenizer(folder.write("empty.model", "")); }),
             ContainsSubstring("empty.model"));
  const auto bytes = file_bytes(small_model(folder));
  const auto cut = folder.write("cut.model", bytes.substr(0, bytes.size() / 2));
  CHECK_THAT(config_error([&] { load_tokenizer(cut); }),
             ContainsSubstring("cut.model: expected a SentencePiece model"));
}

TEST_CASE("tokenizer: a trained model has Llama's ids and loses no text") {
  const Folder folder;
  const auto tokenizer = load_tokenizer(small_model(folder));
  CHECK(tokenizer->vocab_size() == 300);
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->eos_id() == 2);
  CHECK(tokenizer->piece(0) == "<unk>");
  CHECK(tokenizer->piece(3) == "<0x00>");
  CHECK(tokenizer->piece(258) == "<0xFF>");
  for (const std::string text :
       {"the cat", "a  b", " x ", "Zo\xC3\xAB \xF0\x9F\x90\x8E\n\ttab 1234", ""}) {
    const auto ids = tokenizer->encode(text);
    CHECK(tokenizer->decode(ids) == text);
    CHECK(std::count(ids.begin(), ids.end(), 0) == 0);
  }
  CHECK(tokenizer->encode("the").size() == 1);
}

TEST_CASE("tokenizer: training twice gives the same file") {
  const Folder a, b;
  CHECK(file_bytes(small_model(a)) == file_bytes(small_model(b)));
}

TEST_CASE("tokenizer: a vocabulary that cannot be is refused") {
  const Folder folder;
  CHECK_THAT(config_error([&] { small_model(folder, 100); }),
             ContainsSubstring("cannot train a tokenizer of 100"));
  CHECK_THAT(config_error([&] { small_model(folder, 5000); }),
             ContainsSubstring("cannot train a tokenizer of 5000"));
  CHECK_THAT(
      config_error([&] { train_tokenizer(folder.write("e.txt", "\n"), 300, folder.path("o")); }),
      ContainsSubstring("expected text, got an empty file"));
}

TEST_CASE("tokenizer: any ids decode to valid UTF-8") {
  const Folder folder;
  const auto tokenizer = load_tokenizer(small_model(folder));
  torch::Generator generator = at::detail::createCPUGenerator(3);
  for (int round = 0; round < 50; ++round) {
    const auto ids = values(torch::randint(0, 300, {40}, generator, torch::kInt64));
    const auto file = folder.write("decoded.txt", tokenizer->decode(ids));
    CHECK_NOTHROW(read_text(file));
  }
  CHECK(tokenizer->decode({3 + 0xE2, 3 + 0x82}).size() % 3 == 0);  // replacement characters
  CHECK(tokenizer->decode({1, 2}).empty());
}

TEST_CASE("tokenizer: ids outside the vocabulary are refused") {
  const Folder folder;
  const auto tokenizer = load_tokenizer(small_model(folder));
  CHECK_THROWS_AS(tokenizer->decode({300}), c10::Error);
  CHECK_THROWS_AS(tokenizer->decode({-1}), c10::Error);
  CHECK_THROWS_AS(tokenizer->piece(300), c10::Error);
}

TEST_CASE("tokenizer: threads share one object") {
  const Folder folder;
  const auto tokenizer = load_tokenizer(small_model(folder));
  const std::string text = "the dog sat on the hello mat and the world ran";
  const auto expected = tokenizer->encode(text);
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i)
        wrong[t] += tokenizer->encode(text) != expected || tokenizer->decode(expected) != text;
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}
