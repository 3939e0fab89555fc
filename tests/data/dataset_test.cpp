#include <set>

#include "data/records.h"
#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

// Three documents: "abcdefg", "hi", "jklmnopqrst" (20 bytes).
const std::string kStories = "abcdefg\n\nhi\n\njklmnopqrst\n";

TokenDataset dataset(const Folder& folder, const DatasetOptions& options,
                     const std::string& text = kStories) {
  return {{{folder.write("stories.txt", text), SourceFormat::kStories}}, ByteTokenizer(), options};
}

// A row's tokens as text: ^ BOS, $ EOS, padding left out.
std::string shown(const Batch& batch, int64_t row) {
  std::string text;
  for (int64_t t = 0; t < batch.input_ids.size(1); ++t) {
    if (batch.loss_mask[row][t].item<float>() == 0) continue;
    const auto id = batch.input_ids[row][t].item<int64_t>();
    text += id == 1 ? '^' : id == 2 ? '$' : static_cast<char>(id - 3);
  }
  return text;
}

std::vector<int64_t> segments(const Batch& batch, int64_t row) {
  return values(batch.segments[row]);
}

// Checks targets by their definition.
void check_targets(const Batch& batch) {
  const auto segments =
      batch.segments.defined() ? batch.segments : torch::zeros_like(batch.input_ids);
  const auto T = batch.input_ids.size(1);
  CHECK((batch.targets.select(1, T - 1) == -1).all().item<bool>());
  const auto here = segments.narrow(1, 0, T - 1), next = segments.narrow(1, 1, T - 1);
  const auto same = (here == next) & (here >= 0);
  const auto expected =
      torch::where(same, batch.input_ids.narrow(1, 1, T - 1), torch::full({}, -1, torch::kInt64));
  CHECK(torch::equal(batch.targets.narrow(1, 0, T - 1), expected));
}

std::string long_text(int64_t documents) {
  std::string text;
  for (int64_t i = 0; i < documents; ++i) {
    for (int64_t k = 0; k < 1 + (i * 37) % 29; ++k)
      text += static_cast<char>('a' + (i * 7 + k) % 26);
    text += "\n\n";
  }
  return text;
}

}  // namespace

TEST_CASE("dataset: concat cuts the joined documents anywhere and drops the tail") {
  const Folder folder;
  const auto data = dataset(folder, {.sequence_length = 8, .shuffle = false});
  // ^abcdefg$^hi$^jklmnopqrst$: 26 tokens
  REQUIRE(data.size() == 3);
  CHECK(data.tokens() == 24);
  const auto batch = data.sequential(0, 3);
  CHECK(shown(batch, 0) == "^abcdefg");
  CHECK(shown(batch, 1) == "$^hi$^jk");
  CHECK(shown(batch, 2) == "lmnopqrs");
  CHECK(segments(batch, 0) == std::vector<int64_t>(8, 0));
  CHECK(segments(batch, 1) == std::vector<int64_t>{0, 1, 1, 1, 1, 2, 2, 2});
  CHECK(values(batch.targets[1]) ==
        std::vector<int64_t>{-1, 'h' + 3, 'i' + 3, 2, -1, 'j' + 3, 'k' + 3, -1});
  CHECK((batch.loss_mask == 1).all().item<bool>());
  CHECK(batch.sample_ids == std::vector<int64_t>{0, 1, 2});
  check_targets(batch);
  CHECK(data.bytes() == 7 + 2 + 10);  // the last document lost its t and its EOS
}

TEST_CASE("dataset: rows of one segment need no segments") {
  const Folder folder;
  const auto data = dataset(folder, {.sequence_length = 8, .shuffle = false});
  CHECK_FALSE(data.sequential(0, 1).segments.defined());
  CHECK_FALSE(data.sequential(2, 1).segments.defined());
  CHECK(data.sequential(1, 2).segments.defined());
  check_targets(data.sequential(0, 1));
}

TEST_CASE("dataset: documents of a row are one segment when they may see each other") {
  const Folder folder;
  const auto data =
      dataset(folder, {.sequence_length = 8, .cross_document = true, .shuffle = false});
  const auto batch = data.sequential(0, 3);
  CHECK_FALSE(batch.segments.defined());
  CHECK(values(batch.targets[1]) ==
        std::vector<int64_t>{1, 'h' + 3, 'i' + 3, 2, 1, 'j' + 3, 'k' + 3, -1});
}

TEST_CASE("dataset: a BOS before each sequence takes one place and belongs to its first document") {
  const Folder folder;
  const auto data = dataset(
      folder,
      {.sequence_length = 6, .bos = BosPlacement::kSequence, .eos = false, .shuffle = false});
  REQUIRE(data.size() == 4);
  CHECK(data.tokens() == 24);
  const auto batch = data.sequential(0, 4);
  CHECK(shown(batch, 0) == "^abcde");
  CHECK(shown(batch, 1) == "^fghij");
  CHECK(segments(batch, 1) == std::vector<int64_t>{0, 0, 0, 1, 1, 2});
  CHECK(values(batch.targets[1]) == std::vector<int64_t>{'f' + 3, 'g' + 3, -1, 'i' + 3, -1, -1});
  CHECK(data.bytes() == 20);
  check_targets(batch);
}

TEST_CASE("dataset: one document a sequence is cut at the length or padded on the right") {
  const Folder folder;
  const auto data =
      dataset(folder, {.sequence_length = 10, .packing = Packing::kNone, .shuffle = false});
  REQUIRE(data.size() == 3);
  const auto batch = data.sequential(0, 3);
  CHECK(shown(batch, 0) == "^abcdefg$");
  CHECK(shown(batch, 1) == "^hi$");
  CHECK(shown(batch, 2) == "^jklmnopqr");
  CHECK(segments(batch, 1) == std::vector<int64_t>{0, 0, 0, 0, -1, -1, -1, -1, -1, -1});
  CHECK(values(batch.loss_mask[1]) == std::vector<int64_t>{1, 1, 1, 1, 0, 0, 0, 0, 0, 0});
  CHECK(values(batch.targets[1]) ==
        std::vector<int64_t>{'h' + 3, 'i' + 3, 2, -1, -1, -1, -1, -1, -1, -1});
  CHECK(data.tokens() == 9 + 4 + 10);
  CHECK(data.bytes() == 7 + 2 + 9);
  CHECK_FALSE(data.sequential(2, 1).segments.defined());
  check_targets(batch);
}

TEST_CASE("dataset: BOS and EOS can be left out") {
  const Folder folder;
  const auto data =
      dataset(folder, {.sequence_length = 20, .bos = BosPlacement::kNone, .eos = false});
  CHECK(shown(data.sequential(0, 1), 0) == "abcdefghijklmnopqrst");
}

TEST_CASE("dataset: every token of the corpus comes once an epoch, but for the tail") {
  const Folder folder;
  const auto text = long_text(60);
  const auto everything = dataset(folder, {.sequence_length = 2}, text);
  for (const int64_t T : {2, 7, 16, 33, 200}) {
    for (const auto bos : {BosPlacement::kDocument, BosPlacement::kSequence, BosPlacement::kNone}) {
      const auto data = dataset(folder, {.sequence_length = T, .bos = bos}, text);
      const auto joined = dataset(
          folder,
          {.sequence_length = 2, .bos = bos == BosPlacement::kDocument ? bos : BosPlacement::kNone},
          text);
      std::vector<std::string> rows(data.size());
      const auto batch = data.batch(/*seed=*/3, /*first=*/data.size() * 2, data.size());
      for (int64_t b = 0; b < data.size(); ++b) {
        auto& row = rows[batch.sample_ids[b]];
        CHECK(row.empty());
        row = shown(batch, b).substr(bos == BosPlacement::kSequence ? 1 : 0);
      }
      std::string seen, stream;
      for (const auto& row : rows) seen += row;
      for (int64_t i = 0; i < joined.size(); ++i) stream += shown(joined.sequential(i, 1), 0);
      const auto lost = static_cast<int64_t>(stream.size()) - static_cast<int64_t>(seen.size());
      CHECK(stream.substr(0, seen.size()) == seen.substr(0, stream.size()));
      CHECK(lost < T);
      check_targets(batch);
    }
  }
}

TEST_CASE(
    "dataset: with recut, the sequences of an epoch are one stretch of the corpus at a moving "
    "offset") {
  const Folder folder;
  const auto text = long_text(60);
  const auto fixed = dataset(folder, {.sequence_length = 16}, text);
  const auto data = dataset(folder, {.sequence_length = 16, .recut = true}, text);
  CHECK(data.size() <= fixed.size());
  CHECK(data.size() >= fixed.size() - 1);
  std::string stream;
  for (int64_t i = 0; i < fixed.size(); ++i) stream += shown(fixed.sequential(i, 1), 0);
  std::set<size_t> offsets;
  for (int64_t epoch = 0; epoch < 12; ++epoch) {
    const auto batch = data.batch(/*seed=*/1, epoch * data.size(), data.size());
    std::vector<std::string> rows(data.size());
    for (int64_t b = 0; b < data.size(); ++b) rows[batch.sample_ids[b]] = shown(batch, b);
    std::string seen;
    for (const auto& row : rows) seen += row;
    const auto offset = stream.find(seen.substr(0, 200));
    REQUIRE(offset < 16);
    CHECK(seen.compare(0, stream.size() - offset, stream, offset, seen.size()) == 0);
    offsets.insert(offset);
    check_targets(batch);
  }
  CHECK(offsets.size() > 4);
  CHECK(shown(data.sequential(0, 1), 0) == stream.substr(0, 16));
}

TEST_CASE("dataset: the order does not depend on how it is cut into batches") {
  const Folder folder;
  for (const bool recut : {false, true}) {
    const auto data = dataset(folder, {.sequence_length = 8, .recut = recut}, long_text(30));
    const int64_t count = data.size() * 2 + 5;
    const auto whole = data.batch(/*seed=*/11, /*first=*/0, count);
    for (const int64_t size : {1, 3, 8}) {
      for (int64_t first = 0; first + size <= count; first += size) {
        const auto part = data.batch(/*seed=*/11, first, size);
        CHECK(torch::equal(part.input_ids, whole.input_ids.narrow(0, first, size)));
        CHECK(torch::equal(part.targets, whole.targets.narrow(0, first, size)));
      }
    }
  }
}

TEST_CASE("dataset: epochs and seeds have orders of their own, and every epoch is complete") {
  const Folder folder;
  const auto data = dataset(folder, {.sequence_length = 8}, long_text(30));
  std::set<std::vector<int64_t>> orders;
  for (const uint64_t seed : {1u, 2u}) {
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      auto ids = data.batch(seed, epoch * data.size(), data.size()).sample_ids;
      orders.insert(ids);
      std::sort(ids.begin(), ids.end());
      for (int64_t i = 0; i < data.size(); ++i) CHECK(ids[i] == i);
    }
  }
  CHECK(orders.size() == 6);
}

TEST_CASE("dataset: seeking far into the stream gives the batch that stands there") {
  const Folder folder;
  const auto data = dataset(folder, {.sequence_length = 8}, long_text(30));
  const int64_t far = data.size() * 1'000'000'000 + 3;
  const auto batch = data.batch(/*seed=*/5, far, 2);
  CHECK(batch.sample_ids == data.batch(/*seed=*/5, far, 1 + 1).sample_ids);
  CHECK(batch.sample_ids[0] < data.size());
}

TEST_CASE("dataset: without shuffle every epoch is in file order") {
  const Folder folder;
  const auto data = dataset(folder, {.sequence_length = 8, .shuffle = false});
  CHECK(data.batch(/*seed=*/9, 0, 7).sample_ids == std::vector<int64_t>{0, 1, 2, 0, 1, 2, 0});
}

TEST_CASE("dataset: sources follow each other and formats mix") {
  const Folder folder;
  const std::vector<SourceOptions> sources{
      {folder.write("b.txt", "first"), SourceFormat::kText},
      {folder.write("a.jsonl", "{\"text\": \"second\"}"), SourceFormat::kJsonl}};
  const TokenDataset data(sources, ByteTokenizer(), {.sequence_length = 15});
  CHECK(shown(data.sequential(0, 1), 0) == "^first$^second$");
}

TEST_CASE("dataset: the hash sees tokens, boundaries and options") {
  const Folder folder;
  const DatasetOptions options{.sequence_length = 4, .bos = BosPlacement::kNone, .eos = false};
  const auto hash = dataset(folder, options, "abcd\n\nefgh").hash();
  CHECK(dataset(folder, options, "abcd\n\nefgh\n").hash() == hash);
  CHECK(dataset(folder, options, "abcd\n\nefgx").hash() != hash);
  CHECK(dataset(folder, options, "abcde\n\nfgh").hash() != hash);
  auto other = options;
  other.cross_document = true;
  CHECK(dataset(folder, other, "abcd\n\nefgh").hash() != hash);
  other = options;
  other.sequence_length = 5;
  CHECK(dataset(folder, other, "abcd\n\nefgh").hash() != hash);
}

TEST_CASE("dataset: an empty or too small corpus is refused with its files") {
  const Folder folder;
  const auto file = folder.path("stories.txt");
  CHECK(config_error([&] { dataset(folder, {}, ""); }) ==
        "data: expected text, got no token from " + file);
  CHECK(config_error([&] { dataset(folder, {}, "\n \n"); }) ==
        "data: expected text, got no token from " + file);
  CHECK(config_error([&] { TokenDataset({}, ByteTokenizer(), {}); }) ==
        "data: expected text, got no token from no source");
  CHECK(config_error([&] { dataset(folder, {.sequence_length = 100}, "abc"); }) ==
        "data: expected at least 100 tokens, enough for one sequence, got 5 from " + file);
  CHECK(config_error([&] { dataset(folder, {.sequence_length = 4, .recut = true}, "abc"); }) ==
        "data: expected at least 7 tokens, enough for one sequence, got 5 from " + file);
}

TEST_CASE("dataset: options that cannot be are refused") {
  const Folder folder;
  CHECK(config_error([&] { dataset(folder, {.sequence_length = 1}); }) ==
        "data.sequence_length: expected at least 2, got 1");
  CHECK(config_error([&] { dataset(folder, {.packing = Packing::kNone, .recut = true}); }) ==
        "data.recut: expected packing concat, got none");
  struct Bare : ByteTokenizer {
    int64_t bos_id() const override { return -1; }
    int64_t eos_id() const override { return -1; }
  };
  const std::vector<SourceOptions> sources{{folder.write("a.txt", "abcdef"), SourceFormat::kText}};
  CHECK(config_error([&] { TokenDataset(sources, Bare(), {.sequence_length = 4}); }) ==
        "data.bos: expected a tokenizer with a BOS token, got one without");
  CHECK(config_error([&] {
          TokenDataset(sources, Bare(), {.sequence_length = 4, .bos = BosPlacement::kNone});
        }) == "data.eos: expected a tokenizer with an EOS token, got one without");
  CHECK(TokenDataset(sources, Bare(),
                     {.sequence_length = 4, .bos = BosPlacement::kNone, .eos = false})
            .size() == 1);
}

TEST_CASE("dataset: ranges outside the sequences are refused") {
  const Folder folder;
  const auto data = dataset(folder, {.sequence_length = 8});
  CHECK_THROWS_AS(data.sequential(2, 2), c10::Error);
  CHECK_THROWS_AS(data.sequential(-1, 1), c10::Error);
  CHECK_THROWS_AS(data.batch(0, -1, 1), c10::Error);
}

TEST_CASE("dataset: a held-out text is cut as the published measurements cut it", "[golden]") {
  ZEBRA_NEEDS_SHARED("data/corpora/tinystories-valid.txt");
  const auto tokenizer = load_tokenizer(shared_path("data/models/stories260k"));
  const auto file = shared_path("data/corpora/tinystories-valid.txt").string();
  const TokenDataset data(
      {{file, SourceFormat::kText}}, *tokenizer,
      {.sequence_length = 256, .bos = BosPlacement::kSequence, .eos = false, .shuffle = false});
  REQUIRE(data.size() == 60);
  CHECK(data.tokens() == 60 * 256);
  const auto batch = data.sequential(0, 60);
  CHECK_FALSE(batch.segments.defined());
  CHECK((batch.input_ids.select(1, 0) == 1).all().item<bool>());
  CHECK((batch.targets >= 0).sum().item<int64_t>() == 60 * 255);
  const auto ids = tokenizer->encode(read_text(file));
  CHECK(ids.size() == 15536);
  const auto kept = values(batch.input_ids.narrow(1, 1, 255));
  CHECK(std::equal(kept.begin(), kept.end(), ids.begin()));
  CHECK(data.bytes() == static_cast<int64_t>(tokenizer->decode(kept).size()));
}
