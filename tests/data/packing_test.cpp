#include "data/packing.h"

#include <numeric>
#include <set>

#include "data/mixture.h"
#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

std::string letters(int64_t count, char letter) { return std::string(count, letter); }

// Documents of these lengths, BOS and EOS among them, each of one letter.
std::string documents(const std::vector<int64_t>& lengths) {
  std::string text;
  for (size_t i = 0; i < lengths.size(); ++i) {
    text += letters(lengths[i] - 2, static_cast<char>('a' + i % 26)) + "\n\n";
  }
  return text;
}

TokenDataset packed(const Folder& folder, const std::string& text, DatasetOptions options) {
  options.shuffle = false;
  return {{{folder.write("s.txt", text), SourceFormat::kStories}}, ByteTokenizer(), options};
}

std::string row_text(const Batch& batch, int64_t row) {
  std::string text;
  for (int64_t t = 0; t < batch.input_ids.size(1); ++t) {
    const auto id = batch.input_ids[row][t].item<int64_t>();
    const bool padding = batch.segments.defined() && batch.segments[row][t].item<int64_t>() < 0;
    text += padding ? '.' : id == 1 ? '^' : id == 2 ? '$' : static_cast<char>(id - 3);
  }
  return text;
}

std::vector<std::string> rows(const TokenDataset& data) {
  const auto batch = data.sequential(0, data.size());
  std::vector<std::string> texts;
  for (int64_t i = 0; i < data.size(); ++i) texts.push_back(row_text(batch, i));
  return texts;
}

}  // namespace

TEST_CASE("packing: best fit puts every item into one bin, and none overflows") {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 500; ++i) lengths.push_back(1 + (i * i * 31 + 7 * i) % 97);
  const auto bins = best_fit_decreasing(lengths, 100);
  std::multiset<int64_t> seen;
  for (const auto& bin : bins) {
    int64_t filled = 0;
    for (const auto item : bin) filled += lengths[item];
    CHECK(filled <= 100);
    seen.insert(bin.begin(), bin.end());
  }
  std::vector<int64_t> all(lengths.size());
  std::iota(all.begin(), all.end(), 0);
  CHECK(std::equal(seen.begin(), seen.end(), all.begin(), all.end()));
  const auto sum = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  CHECK(static_cast<int64_t>(bins.size()) * 100 < sum * 11 / 9 + 600);  // the rule's known bound
}

TEST_CASE("packing: best fit takes the longest first and the fullest bin that has room") {
  const std::vector<int64_t> lengths{3, 6, 4, 2, 5};
  CHECK(best_fit_decreasing(lengths, 10) == std::vector<std::vector<int64_t>>{{1, 2}, {4, 0, 3}});
  CHECK(best_fit_decreasing({}, 10).empty());
}

TEST_CASE("packing: best fit keeps documents whole, several a sequence") {
  const Folder folder;
  const auto data = packed(folder, documents({5, 8, 3, 4}),
                           {.sequence_length = 12, .packing = Packing::kBestFit});
  CHECK(rows(data) == std::vector<std::string>{"^bbbbbb$^dd$", "^aaa$^c$...."});
  const auto batch = data.sequential(0, 2);
  CHECK(values(batch.segments[1]) == std::vector<int64_t>{0, 0, 0, 0, 0, 1, 1, 1, -1, -1, -1, -1});
  CHECK(values(batch.loss_mask[1]) == std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0});
  CHECK(values(batch.targets[1]) ==
        std::vector<int64_t>{'a' + 3, 'a' + 3, 'a' + 3, 2, -1, 'c' + 3, 2, -1, -1, -1, -1, -1});
  const auto report = data.packing();
  CHECK(report.documents == 4);
  CHECK(report.sequences == 2);
  CHECK(report.kept == 20);
  CHECK(report.padding == 4);
  CHECK(report.truncated + report.split + report.dropped_tokens == 0);
  CHECK(report.efficiency() == Approx(20.0 / 24));
  CHECK(data.bytes() == 12);
}

TEST_CASE("packing: documents that are too long are truncated or split") {
  const Folder folder;
  const auto text = documents({11, 3});
  DatasetOptions options{.sequence_length = 5, .packing = Packing::kBestFit};
  const auto cut = packed(folder, text, options);
  CHECK(rows(cut) == std::vector<std::string>{"^aaaa", "^b$.."});
  CHECK(cut.packing().truncated == 1);
  CHECK(cut.packing().truncated_tokens == 6);
  CHECK(cut.bytes() == 4 + 1);
  auto uncounted = options;
  uncounted.count_bytes = false;
  CHECK(packed(folder, text, uncounted).bytes() == 0);
  options.long_documents = LongDocuments::kSplit;
  const auto split = packed(folder, text, options);
  CHECK(rows(split) == std::vector<std::string>{"^aaaa", "aaaaa", "^b$$."});
  CHECK(split.packing().split == 1);
  CHECK(split.packing().truncated == 0);
  CHECK(split.bytes() == 9 + 1);
  CHECK(values(split.sequential(2, 1).segments[0]) == std::vector<int64_t>{0, 0, 0, 1, -1});
  options.packing = Packing::kNone;
  CHECK(rows(packed(folder, text, options)) ==
        std::vector<std::string>{"^aaaa", "aaaaa", "$....", "^b$.."});
}

TEST_CASE("packing: a window's documents are packed with each other alone") {
  const Folder folder;
  const auto data =
      packed(folder, documents({6, 6, 4, 4}),
             {.sequence_length = 10, .packing = Packing::kBestFit, .packing_window = 2});
  CHECK(rows(data) == std::vector<std::string>{"^aaaa$....", "^bbbb$....", "^cc$^dd$.."});
  const auto wide = packed(folder, documents({6, 6, 4, 4}),
                           {.sequence_length = 10, .packing = Packing::kBestFit});
  CHECK(rows(wide) == std::vector<std::string>{"^aaaa$^cc$", "^bbbb$^dd$"});
}

TEST_CASE("packing: concat reports what it cuts and drops") {
  const Folder folder;
  const auto report = packed(folder, documents({6, 3, 9, 4}), {.sequence_length = 5}).packing();
  CHECK(report.sequences == 4);
  CHECK(report.kept == 20);
  CHECK(report.dropped_tokens == 2);
  CHECK(report.split == 2);
  CHECK(report.padding == 0);
}

TEST_CASE("packing: a loss on answers alone stands before their tokens") {
  const Folder folder;
  const auto file = folder.write("a.jsonl", R"({"prompt": "ab", "completion": "cd"})"
                                            "\n"
                                            R"({"prompt": "e", "completion": "f"})");
  const TokenDataset data({{file, SourceFormat::kPromptCompletion}}, ByteTokenizer(),
                          {.sequence_length = 10,
                           .packing = Packing::kBestFit,
                           .shuffle = false,
                           .loss_on = LossOn::kAssistant});
  const auto batch = data.sequential(0, 1);
  REQUIRE(row_text(batch, 0) == "^abcd$^ef$");
  CHECK(values(batch.targets[0]) ==
        std::vector<int64_t>{-1, -1, 'c' + 3, 'd' + 3, 2, -1, -1, 'f' + 3, 2, -1});
  CHECK(values(batch.loss_mask[0]) == std::vector<int64_t>{0, 0, 1, 1, 1, 0, 0, 1, 1, 0});
  CHECK_FALSE(batch.loss_everywhere);
}

TEST_CASE("mixture: without weights each source gives what its epochs say") {
  CHECK(mixture_sequences({{.sequences = 10, .amount = 100}, {.sequences = 8, .amount = 50}}) ==
        std::vector<int64_t>{10, 8});
  CHECK(mixture_sequences({{.sequences = 10, .amount = 1, .epochs = 2.5},
                           {.sequences = 8, .amount = 1, .epochs = 0.25}}) ==
        std::vector<int64_t>{25, 2});
  CHECK(mixture_sequences({{.sequences = 10, .amount = 1, .epochs = 0.001}}) ==
        std::vector<int64_t>{1});
}

TEST_CASE("mixture: weights share amounts, and the scarcest source sets the size") {
  // A third of the second source goes with all of the first.
  CHECK(mixture_sequences({{.sequences = 10, .amount = 1000, .weight = 1.0},
                           {.sequences = 90, .amount = 9000, .weight = 3.0}}) ==
        std::vector<int64_t>{10, 30});
  // The first may be repeated: three times as much of both.
  CHECK(mixture_sequences({{.sequences = 10, .amount = 1000, .weight = 1.0, .epochs = 3},
                           {.sequences = 90, .amount = 9000, .weight = 3.0}}) ==
        std::vector<int64_t>{30, 90});
  // By documents: the second source has ten a sequence.
  CHECK(mixture_sequences({{.sequences = 100, .amount = 100, .weight = 1.0},
                           {.sequences = 100, .amount = 1000, .weight = 1.0}}) ==
        std::vector<int64_t>{100, 10});
}

namespace {

TokenDataset mixed(const Folder& folder, DatasetOptions options = {}) {
  std::string first, second;
  for (int i = 0; i < 30; ++i) first += letters(8, static_cast<char>('a' + i % 26)) + "\n\n";
  for (int i = 0; i < 50; ++i) second += letters(8, static_cast<char>('A' + i % 26)) + "\n\n";
  options.sequence_length = 10;
  options.packing = Packing::kBestFit;
  return {
      {{.path = folder.write("a.txt", first), .format = SourceFormat::kStories, .weight = 3.0},
       {.path = folder.write("b.txt", second), .format = SourceFormat::kStories, .weight = 1.0}},
      ByteTokenizer(),
      options};
}

}  // namespace

TEST_CASE(
    "mixture: every epoch has the shares of the weights, and sources go round by themselves") {
  const Folder folder;
  const auto data = mixed(folder);
  REQUIRE(data.size() == 40);  // 30 of the first, 10 of the second
  const auto shares = data.mixture();
  REQUIRE(shares.size() == 2);
  CHECK(shares[0].share == Approx(0.75));
  CHECK(shares[1].epochs == Approx(0.2));
  std::set<int64_t> of_second;
  for (int64_t epoch = 0; epoch < 5; ++epoch) {
    const auto ids = data.batch(/*seed=*/1, epoch * 40, 40).sample_ids;
    std::set<int64_t> unlike(ids.begin(), ids.end());
    CHECK(unlike.size() == 40);
    const auto first = std::count_if(ids.begin(), ids.end(), [](int64_t id) { return id < 30; });
    CHECK(first == 30);
    for (const auto id : ids) {
      if (id >= 30) CHECK(of_second.insert(id).second);  // no repeat before all have been seen
    }
  }
  CHECK(of_second.size() == 50);
}

TEST_CASE("mixture: any number of ranks that divides the batch sees the same sequence") {
  const Folder folder;
  const auto data = mixed(folder);
  const int64_t batch = 12, steps = 11;
  const auto whole = data.batch(/*seed=*/3, 0, batch * steps);
  for (const int64_t ranks : {1, 2, 3, 4, 6, 12}) {
    std::vector<int64_t> ids;
    for (int64_t step = 0; step < steps; ++step) {
      for (int64_t rank = 0; rank < ranks; ++rank) {
        const auto count = batch / ranks;
        const auto part = data.batch(/*seed=*/3, step * batch + rank * count, count);
        ids.insert(ids.end(), part.sample_ids.begin(), part.sample_ids.end());
      }
    }
    CHECK(ids == whole.sample_ids);
  }
  const int64_t far = 1'000'000'000'000;
  CHECK(data.batch(/*seed=*/3, far, 3).sample_ids[2] ==
        data.batch(/*seed=*/3, far + 2, 1).sample_ids[0]);
}

TEST_CASE("mixture: weights that cannot be are refused") {
  const Folder folder;
  const auto file = folder.write("a.txt", documents({20, 20}));
  const auto refused = [&](std::optional<double> first, std::optional<double> second,
                           double epochs = 1) {
    return config_error([&] {
      TokenDataset(
          {{.path = file, .format = SourceFormat::kStories, .weight = first},
           {.path = file, .format = SourceFormat::kStories, .weight = second, .epochs = epochs}},
          ByteTokenizer(), {.sequence_length = 4});
    });
  };
  CHECK_THAT(refused(1.0, std::nullopt),
             ContainsSubstring("a weight for every source or for none"));
  CHECK_THAT(refused(1.0, 0.0), ContainsSubstring("weight and epochs above 0"));
  CHECK_THAT(refused(1.0, 1.0, -1), ContainsSubstring("weight and epochs above 0"));
  CHECK(config_error([&] {
          TokenDataset({{file, SourceFormat::kStories}}, ByteTokenizer(),
                       {.packing = Packing::kBestFit, .bos = BosPlacement::kSequence});
        }) == "data.bos: expected document or none with packing best_fit, got sequence");
}
