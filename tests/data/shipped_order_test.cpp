// The sequences that the shipped recipes train on, in their order: trained numbers hang on them.
#include "base/hash.h"
#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

void add(Hasher& hasher, const torch::Tensor& tensor) {
  hasher.add(static_cast<int64_t>(tensor.defined()));
  if (!tensor.defined()) return;
  const auto flat = values(tensor);
  hasher.add(hash_values(flat));
}

void add(Hasher& hasher, const Batch& batch) {
  add(hasher, batch.input_ids);
  add(hasher, batch.segments);
  add(hasher, batch.loss_mask);
  add(hasher, batch.targets);
  hasher.add(hash_values(batch.sample_ids));
}

uint64_t stage_seed(const std::string& stage) {
  Hasher hasher;
  hasher.add(uint64_t{42});
  hasher.add(stage);
  return hasher.value();
}

// What two stages see in their first steps and far on, and the file order.
uint64_t order_of(const TokenDataset& data) {
  Hasher hasher;
  for (const int64_t number : {data.size(), data.tokens(), data.bytes()}) hasher.add(number);
  for (const char* stage : {"ild", "distill"}) {
    for (const int64_t first : {int64_t{0}, int64_t{160}, 7 * data.size() - 9}) {
      add(hasher, data.batch(stage_seed(stage), first, 32));
    }
  }
  add(hasher, data.sequential(0, std::min<int64_t>(data.size(), 64)));
  return hasher.value();
}

uint64_t order_of(const PreferenceDataset& pairs) {
  Hasher hasher;
  hasher.add(pairs.size());
  for (const int64_t first : {int64_t{0}, 3 * pairs.size() - 5}) {
    const auto batch = pairs.batch(stage_seed("dpo"), first, 16);
    add(hasher, batch.input_ids);
    add(hasher, batch.targets);
    hasher.add(hash_values(batch.sample_ids));
  }
  return hasher.value();
}

}  // namespace

TEST_CASE("shipped order: the quickstart's text, cut anywhere behind BOS and EOS") {
  const auto tokenizer = load_tokenizer(source_path("data/tiny/tokenizer.model"));
  const auto read = [&](const char* file, const DatasetOptions& options) {
    const auto path = source_path("data/tiny").string() + "/" + file;
    return order_of(TokenDataset({{path, SourceFormat::kStories}}, *tokenizer, options));
  };
  CHECK(read("train.txt", {.sequence_length = 256}) == 11383604498289197082u);
  CHECK(read("valid.txt", {.sequence_length = 256}) == 9875392671337655959u);
  CHECK(read("valid.txt", {.sequence_length = 256, .recut = true}) == 6471070822033763396u);
  CHECK(read("valid.txt", {.sequence_length = 128, .packing = Packing::kNone}) ==
        17184177533031330162u);
  CHECK(read("valid.txt", {.sequence_length = 128, .cross_document = true}) ==
        12303016711759776344u);
}

TEST_CASE("shipped order: the quickstart's pairs") {
  const auto tokenizer = load_tokenizer(source_path("data/tiny/tokenizer.model"));
  const auto file = source_path("data/tiny/pairs.jsonl").string();
  CHECK(order_of(
            PreferenceDataset({file}, *tokenizer, {.max_length = 256, .max_prompt_length = 192})) ==
        4091869515829001867u);
}

TEST_CASE("shipped order: stories260k's text behind a BOS a sequence", "[golden]") {
  ZEBRA_NEEDS_SHARED("data/corpora/tinystories-train.txt");
  const auto tokenizer = load_tokenizer(shared_path("data/models/stories260k"));
  for (const auto& [name, expected] :
       {std::pair{"tinystories-train.txt", uint64_t{766617311696938751u}},
        std::pair{"tinystories-valid.txt", uint64_t{2549195830294715536u}}}) {
    const auto path = shared_path(std::string("data/corpora/") + name).string();
    CHECK(order_of(TokenDataset(
              {{path, SourceFormat::kText}}, *tokenizer,
              {.sequence_length = 256, .bos = BosPlacement::kSequence, .eos = false})) == expected);
  }
}
