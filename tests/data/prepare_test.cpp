// Prepared text: made once, refused when something changed, gone on with after a kill.
#include "zebra/prepare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "base/signals.h"
#include "data/shard_maker.h"
#include "data/token_store.h"
#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace fs = std::filesystem;

namespace {

// A tokenizer that counts its calls, and may be another one in name.
struct CountingTokenizer : ByteTokenizer {
  std::vector<int64_t> encode(std::string_view text) const override {
    ++calls;
    return ByteTokenizer::encode(text);
  }
  uint64_t hash() const override { return name; }
  mutable std::atomic<int64_t> calls{0};
  uint64_t name = 7;
};

std::string lines(int64_t count, const std::string& word = "line") {
  std::string text;
  for (int64_t i = 0; i < count; ++i) text += str("{\"text\": \"", word, " ", i, "\"}\n");
  return text;
}

PreparePlan plan_of(const std::string& file, const DocumentOptions& documents = {}) {
  return {.role = "train", .source = {file, SourceFormat::kJsonl}, .documents = documents};
}

// All tokens of a store, and where documents begin.
std::vector<int64_t> contents(const TokenStore& store) {
  std::vector<int64_t> all;
  store.visit(0, store.tokens(), [&](const TokenStore::Piece& piece) {
    if (piece.starts) all.push_back(-1);
    all.insert(all.end(), piece.ids(), piece.ids() + piece.count);
  });
  return all;
}

std::vector<fs::path> shards_in(const fs::path& folder) {
  std::vector<fs::path> shards;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".tokens") shards.push_back(entry.path());
  }
  std::sort(shards.begin(), shards.end());
  return shards;
}

// More text than fits two shards.
constexpr uint64_t kShardText = 350'000;
std::string many_lines() {
  std::string text;
  const std::string filler(400, 'x');
  for (int64_t i = 0; i < 2000; ++i) text += str("{\"text\": \"", i, filler, "\"}\n");
  return text;
}

}  // namespace

TEST_CASE("prepare: what is mapped is what reading the text gives") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(500));
  const ByteTokenizer tokenizer;
  const auto prepared = prepare(plan_of(file), tokenizer, {.cache = folder.path("cache")});
  CHECK(prepared.documents == 500);
  CHECK(prepared.seconds > 0);
  const auto read = read_source({file, SourceFormat::kJsonl}, DocumentKind::kText, {}, tokenizer);
  CHECK(contents(*prepared.store) == contents(*read));
  CHECK(prepared.tokens == read->tokens());
  const std::vector<SourceOptions> sources{{file, SourceFormat::kJsonl}};
  const TokenDataset mapped(sources, {prepared.store}, tokenizer, {.sequence_length = 64});
  const TokenDataset memory(sources, tokenizer, {.sequence_length = 64});
  CHECK(mapped.hash() == memory.hash());
  CHECK(torch::equal(mapped.batch(1, 0, 99).input_ids, memory.batch(1, 0, 99).input_ids));
}

TEST_CASE("prepare: a second time nothing is read or made") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(50));
  const CountingTokenizer tokenizer;
  const PrepareOptions options{.cache = folder.path("cache")};
  const auto first = prepare(plan_of(file), tokenizer, options);
  const auto calls = tokenizer.calls.load();
  CHECK(calls == 50);
  const auto times = fs::last_write_time(first.folder / "index.json");
  const auto second = prepare(plan_of(file), tokenizer, options);
  CHECK(tokenizer.calls == calls);
  CHECK(second.seconds == 0);
  CHECK(second.text_hash == first.text_hash);
  CHECK(fs::last_write_time(first.folder / "index.json") == times);
  CHECK(find_prepared(plan_of(file), tokenizer, options.cache)->tokens == first.tokens);
}

TEST_CASE("prepare: another text, tokenizer, template or option is refused by its name") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(50));
  CountingTokenizer tokenizer;
  const PrepareOptions options{.cache = folder.path("cache")};
  prepare(plan_of(file), tokenizer, options);
  const auto refused = [&](const DocumentOptions& documents) {
    const auto error = config_error([&] { prepare(plan_of(file, documents), tokenizer, options); });
    CHECK(error.starts_with("data: " + file + " was prepared in " + folder.path("cache")));
    CHECK_FALSE(find_prepared(plan_of(file, documents), tokenizer, options.cache));
    const auto from = error.find("from another "), end = error.find(';');
    return error.substr(from + 13, end - from - 13);
  };
  CHECK(refused({.eos = false}) == "eos");
  CHECK(refused({.bos = false, .chat_template = "llama3"}) == "chat_template, bos");
  CHECK(refused({.bad_lines = BadLines::kCount}) == "bad_lines");
  CHECK(refused({.split = Split::kTrain, .held_out = 0.1}) == "validation_split");
  tokenizer.name = 8;
  CHECK(refused({}) == "tokenizer");
  tokenizer.name = 7;
  folder.write("a.jsonl", lines(50, "like"));
  CHECK(refused({}) == "text");
  const auto replaced =
      prepare(plan_of(file), tokenizer, {.cache = options.cache, .replace = true});
  CHECK(replaced.seconds > 0);
  CHECK(prepare(plan_of(file), tokenizer, options).seconds == 0);
}

TEST_CASE("prepare: bad text is refused with its line, and nothing is left") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(50) + "{\"text\": 3}\n");
  const ByteTokenizer tokenizer;
  const PrepareOptions options{.cache = folder.path("cache")};
  CHECK(config_error([&] { prepare(plan_of(file), tokenizer, options); }) ==
        file + ":51: text: expected a string, got 3");
  for (const auto& entry : fs::directory_iterator(folder.path("cache"))) {
    CHECK(entry.path().extension() == ".lock");
  }
  const auto counted = prepare(plan_of(file, {.bad_lines = BadLines::kCount}), tokenizer, options);
  CHECK(counted.documents == 50);
  CHECK(counted.bad_records == 1);
  const auto empty = folder.write("b.jsonl", "\n");
  CHECK(config_error([&] { prepare(plan_of(empty), tokenizer, options); }) ==
        "data: expected text, got no token from " + empty);
}

TEST_CASE("prepare: shards are cut off, damaged or foreign: refused by name") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(50));
  const ByteTokenizer tokenizer;
  const PrepareOptions options{.cache = folder.path("cache")};
  const auto prepared = prepare(plan_of(file), tokenizer, options);
  const auto shard = shards_in(prepared.folder).at(0);
  std::ifstream in(shard, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string advice = "; prepare it again with zebra data prepare --fresh";
  const auto refused = [&](std::string bytes) {
    std::ofstream(shard, std::ios::binary) << bytes;
    const auto error = config_error([&] { prepare(plan_of(file), tokenizer, options); });
    CHECK(error.starts_with(shard.string() + ": "));
    CHECK(error.ends_with(advice));
    const auto reason = error.substr(0, error.size() - std::min(error.size(), advice.size()));
    return reason.substr(std::min(reason.size(), shard.string().size() + 2));
  };
  CHECK(refused(whole.substr(0, 100)) == "expected a token shard, got another file");
  CHECK(refused(whole.substr(0, whole.size() - 1)) ==
        str("expected ", whole.size(), " bytes, got ", whole.size() - 1));
  for (const size_t at : {size_t{20}, size_t{90}}) {
    auto damaged = whole;
    damaged[at] ^= 1;
    CHECK(refused(damaged) == "the header is damaged");
  }
  for (const size_t at : {size_t{130}, whole.size() / 2, whole.size() - 1}) {
    auto damaged = whole;
    damaged[at] ^= 1;
    CHECK(refused(damaged) == "is damaged: its contents do not have the hash in its header");
  }
  auto newer = whole;
  newer[8] = 2;
  CHECK(refused(newer) == "expected version 1 of the format, got 2");
  std::ofstream(shard, std::ios::binary) << whole;  // another time stamp, the same bytes
  CHECK(prepare(plan_of(file), tokenizer, options).tokens == prepared.tokens);
  std::ofstream(prepared.folder / "index.json") << "{";
  CHECK_THAT(config_error([&] { prepare(plan_of(file), tokenizer, options); }),
             ContainsSubstring("index.json: expected JSON"));
}

TEST_CASE("prepare: what is damaged is made again where it may be replaced") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(50));
  const ByteTokenizer tokenizer;
  const PrepareOptions options{.cache = folder.path("cache")};
  const auto whole = prepare(plan_of(file), tokenizer, options);
  const auto index = whole.folder / "index.json";
  const auto shard = shards_in(whole.folder).at(0);
  const auto made_again = [&] {
    CHECK_THAT(config_error([&] { prepare(plan_of(file), tokenizer, options); }),
               ContainsSubstring("--fresh"));
    const auto replaced =
        prepare(plan_of(file), tokenizer, {.cache = options.cache, .replace = true});
    CHECK(replaced.tokens == whole.tokens);
    CHECK(replaced.seconds > 0);
    CHECK(prepare(plan_of(file), tokenizer, options).seconds == 0);
  };
  std::ofstream(index) << R"({"format": "zebra-tokens", "version": 2})";
  made_again();
  std::ofstream(index) << "{";
  made_again();
  fs::remove(shard);
  made_again();
  std::ofstream(shard) << "no shard";
  made_again();
}

TEST_CASE("prepare: files that were touched are hashed once") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(50));
  const ByteTokenizer tokenizer;
  const PrepareOptions options{.cache = folder.path("cache")};
  const auto index = prepare(plan_of(file), tokenizer, options).folder / "index.json";
  const auto listed = [&] { return nlohmann::json::parse(std::ifstream(index)); };
  const auto before = listed();
  folder.write("a.jsonl", lines(50));
  fs::last_write_time(file, fs::last_write_time(file) + std::chrono::seconds(1));
  CHECK(prepare(plan_of(file), tokenizer, options).seconds == 0);
  CHECK(listed()["files"][0]["changed_ns"] > before["files"][0]["changed_ns"]);
  CHECK(listed()["files"][0]["hash"] == before["files"][0]["hash"]);
  CHECK(listed()["shards"] == before["shards"]);
}

TEST_CASE("prepare: a stop request ends the wait for another process") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(5));
  const ByteTokenizer tokenizer;
  const PrepareOptions options{.cache = folder.path("cache")};
  const auto made = prepare(plan_of(file), tokenizer, options).folder;
  const auto lock = folder.path("cache/." + made.filename().string() + ".lock");
  const int held = ::open(lock.c_str(), O_RDWR);
  REQUIRE(::flock(held, LOCK_EX) == 0);
  set_time_limit(1e-9);
  CHECK_THROWS_AS(prepare(plan_of(file), tokenizer, options), StoppedError);
  set_time_limit(0);
  ::close(held);
  CHECK(prepare(plan_of(file), tokenizer, options).seconds == 0);
}

TEST_CASE("prepare: a side of the split without text is told by name") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", lines(1));
  const ByteTokenizer tokenizer;
  const auto side = [&](Split split) {
    return config_error([&] {
      prepare(plan_of(file, {.split = split, .held_out = 0.5}), tokenizer,
              {.cache = folder.path(str("cache", static_cast<int>(split)))});
    });
  };
  CHECK_THAT(side(Split::kTrain) + side(Split::kHeldOut),
             ContainsSubstring("data.validation_split from " + file));
}

TEST_CASE("prepare: a killed preparation goes on after its last shard to the same bytes") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", many_lines());
  const CountingTokenizer plain;
  const auto whole =
      prepare(plan_of(file), plain, {.cache = folder.path("whole"), .shard_text = kShardText});
  const auto expected = shards_in(whole.folder);
  REQUIRE(expected.size() == 3);

  // What a kill leaves: an index that is not complete, the shards so far, a piece of the next.
  const auto cut = fs::path(folder.path("cut")) / whole.folder.filename();
  fs::create_directories(cut);
  auto index = nlohmann::json::parse(std::ifstream(whole.folder / "index.json"));
  index["complete"] = false;
  index["shards"] = nlohmann::json::array();
  for (const char* key : {"documents", "tokens", "text_bytes", "bad_records"}) index[key] = 0;
  std::ofstream(cut / "index.json") << index;
  fs::copy(expected[0], cut);
  fs::copy(expected[1], cut);
  std::ofstream(cut / (expected[2].filename().string() + ".tmp")) << "half";

  const CountingTokenizer counting;
  const auto resumed =
      prepare(plan_of(file), counting, {.cache = folder.path("cut"), .shard_text = kShardText});
  CHECK(resumed.documents == whole.documents);
  CHECK(whole.made_bytes == whole.text_bytes);
  CHECK(resumed.made_bytes < whole.text_bytes / 2);
  CHECK(counting.calls < 2000 / 3);
  const auto shards = shards_in(resumed.folder);
  REQUIRE(shards.size() == 3);
  for (size_t i = 0; i < 3; ++i) {
    const auto bytes = [](const fs::path& path) {
      std::ifstream in(path, std::ios::binary);
      return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    };
    CHECK((bytes(shards[i]) == bytes(expected[i])));
  }
}

TEST_CASE("prepare: pairs are kept whole and cut when they are read") {
  const Folder folder;
  const auto file =
      folder.write("pairs.jsonl", R"({"prompt": "abcdefgh", "chosen": "ijklmn", "rejected": "op"})"
                                  "\n"
                                  R"({"prompt": "q", "chosen": "r", "rejected": "s"})");
  const ByteTokenizer tokenizer;
  const auto prepared = prepare({.role = "pairs",
                                 .source = {.path = file},
                                 .documents = {.bos = false, .eos = false},
                                 .pairs = true},
                                tokenizer, {.cache = folder.path("cache")});
  CHECK(prepared.documents == 6);
  for (const int64_t length : {9, 15, 16}) {
    const PreferenceOptions options{.max_length = length, .max_prompt_length = 4};
    const PreferenceDataset mapped({prepared.store}, tokenizer, options);
    const PreferenceDataset memory({file}, tokenizer, options);
    CHECK(mapped.hash() == memory.hash());
    CHECK(torch::equal(mapped.sequential(0, 2).input_ids, memory.sequential(0, 2).input_ids));
    CHECK(torch::equal(mapped.sequential(0, 2).targets, memory.sequential(0, 2).targets));
    CHECK(mapped.cuts().prompts == (length < 16 ? 1 : 0));
    CHECK(mapped.cuts().answers == (length < 10 ? 1 : 0));
  }
}
