#include <algorithm>

#include "base/hash.h"
#include "data/random.h"
#include "data/shard_maker.h"
#include "zebra/dataset.h"
#include "zebra/error.h"

namespace zebra {
namespace {

// How much of a pair a batch holds: the last tokens of the prompt behind its BOS, and the first of
// the answers.
struct Kept {
  int64_t prompt = 0, chosen = 0, rejected = 0;
};

Kept kept_of(const Kept& sizes, const PreferenceOptions& options) {
  Kept kept = sizes;
  const int64_t longest = std::max(sizes.chosen, sizes.rejected);
  if (kept.prompt + longest > options.max_length) {
    kept.prompt = std::min(kept.prompt, options.max_prompt_length);
  }
  if (kept.prompt + longest > options.max_length) {
    const int64_t room = options.max_length - options.max_prompt_length;
    kept.chosen = std::min(kept.chosen, room);
    kept.rejected = std::min(kept.rejected, room);
  }
  return kept;
}

Kept sizes_of(const TokenStore& store, int64_t index) {
  return {.prompt = store.document(3 * index).count,
          .chosen = store.document(3 * index + 1).count,
          .rejected = store.document(3 * index + 2).count};
}

std::vector<std::shared_ptr<const TokenStore>> read_pairs(const std::vector<std::string>& paths,
                                                          const Tokenizer& tokenizer,
                                                          const PreferenceOptions& options) {
  const DocumentOptions documents{.bos = false,
                                  .eos = false,
                                  .chat_template = options.chat_template,
                                  .bad_lines = options.bad_lines};
  std::vector<std::shared_ptr<const TokenStore>> stores;
  for (const auto& path : paths) {
    stores.push_back(read_source({.path = path}, DocumentKind::kPairs, documents, tokenizer));
  }
  return stores;
}

}  // namespace

PreferenceDataset::PreferenceDataset(const std::vector<std::string>& paths,
                                     const Tokenizer& tokenizer, const PreferenceOptions& options)
    : PreferenceDataset(read_pairs(paths, tokenizer, options), tokenizer, options) {}

PreferenceDataset::PreferenceDataset(const std::vector<std::shared_ptr<const TokenStore>>& stores,
                                     const Tokenizer& tokenizer, const PreferenceOptions& options)
    : options_(options),
      store_(TokenStore::joined(stores)),
      bos_id_(tokenizer.bos_id()),
      pad_id_(std::max<int64_t>(tokenizer.eos_id(), 0)) {
  if (options.max_prompt_length < 1 || options.max_length <= options.max_prompt_length) {
    throw ConfigError(str("data.max_length: expected 1 <= max_prompt_length < max_length, got ",
                          options.max_prompt_length, " and ", options.max_length));
  }
  if (store_->documents() == 0) {
    throw ConfigError(str("data: expected preference pairs, got none from ",
                          stores.empty() ? "no file" : store_->name()));
  }
}

int64_t PreferenceDataset::size() const { return store_->documents() / 3; }

uint64_t PreferenceDataset::hash() const {
  return mix_keys(store_->hash(), options_.max_length, options_.max_prompt_length);
}

PreferencePair PreferenceDataset::pair(int64_t index) const {
  TORCH_CHECK(index >= 0 && index < size(), "preference.pair: expected an index in [0, ", size(),
              "), got ", index);
  const auto kept = kept_of(sizes_of(*store_, index), options_);
  const auto prompt = store_->document(3 * index);
  const auto head = [&](int64_t document, int64_t count) {
    const auto* ids = store_->document(document).ids();
    return std::vector<int64_t>(ids, ids + count);
  };
  PreferencePair pair{
      .prompt = {prompt.ids() + prompt.count - kept.prompt, prompt.ids() + prompt.count},
      .chosen = head(3 * index + 1, kept.chosen),
      .rejected = head(3 * index + 2, kept.rejected)};
  if (bos_id_ >= 0) pair.prompt[0] = bos_id_;
  return pair;
}

PreferenceDataset::Cuts PreferenceDataset::cuts() const {
  Cuts cuts;
  for (int64_t i = 0; i < size(); ++i) {
    const auto sizes = sizes_of(*store_, i), kept = kept_of(sizes, options_);
    cuts.prompts += kept.prompt < sizes.prompt ? 1 : 0;
    cuts.answers += kept.chosen < sizes.chosen || kept.rejected < sizes.rejected ? 1 : 0;
  }
  return cuts;
}

PreferenceBatch PreferenceDataset::batch(uint64_t seed, int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0, "preference.batch: expected first >= 0 and count > 0, got ",
              first, " and ", count);
  std::vector<int64_t> ids;
  for (int64_t i = first; i < first + count; ++i) {
    ids.push_back(permuted(i % size(), size(), mix_keys(seed, i / size())));
  }
  return gather(ids);
}

PreferenceBatch PreferenceDataset::sequential(int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0 && first + count <= size(),
              "preference.sequential: expected a range within ", size(), " pairs, got ", first,
              " + ", count);
  std::vector<int64_t> ids;
  for (int64_t id = first; id < first + count; ++id) ids.push_back(id);
  return gather(ids);
}

PreferenceBatch PreferenceDataset::gather(const std::vector<int64_t>& ids) const {
  const int64_t B = static_cast<int64_t>(ids.size());
  size_t longest = 0;
  std::vector<PreferencePair> pairs;
  for (const auto id : ids) {
    const auto& pair = pairs.emplace_back(this->pair(id));
    longest =
        std::max(longest, pair.prompt.size() + std::max(pair.chosen.size(), pair.rejected.size()));
  }
  const int64_t T = static_cast<int64_t>(longest);
  PreferenceBatch batch;
  batch.input_ids = torch::full({2 * B, T}, pad_id_, torch::kInt64);  // (2B, T)
  batch.targets = torch::full({2 * B, T}, -1, torch::kInt64);         // (2B, T)
  for (int64_t row = 0; row < 2 * B; ++row) {
    const auto& pair = pairs[row % B];
    const auto& answer = row < B ? pair.chosen : pair.rejected;
    auto* input = batch.input_ids.data_ptr<int64_t>() + row * T;
    auto* targets = batch.targets.data_ptr<int64_t>() + row * T;
    const auto start = pair.prompt.size();  // at least 1: BOS or a token of the prompt
    std::copy(pair.prompt.begin(), pair.prompt.end(), input);
    std::copy(answer.begin(), answer.end(), input + start);
    std::copy(answer.begin(), answer.end(), targets + start - 1);
  }
  batch.sample_ids = ids;
  return batch;
}

}  // namespace zebra
