#include "zebra/dataset.h"

#include <algorithm>

#include "base/hash.h"
#include "data/mixture.h"
#include "data/packed_tokens.h"
#include "data/random.h"
#include "data/shard_maker.h"
#include "zebra/error.h"

namespace zebra {
namespace {

constexpr uint64_t kOrderKey = 1, kCutKey = 2, kSourceKey = 3;  // what a number is drawn for

void check_options(const DatasetOptions& options) {
  if (options.sequence_length < 2) {
    throw ConfigError(
        str("data.sequence_length: expected at least 2, got ", options.sequence_length));
  }
  if (options.recut && options.packing != Packing::kConcat) {
    throw ConfigError(str("data.recut: expected packing concat, got ", enum_name(options.packing)));
  }
  if (options.packing == Packing::kBestFit && options.bos == BosPlacement::kSequence) {
    throw ConfigError("data.bos: expected document or none with packing best_fit, got sequence");
  }
  if (options.packing_window < 1) {
    throw ConfigError(
        str("data.packing_window: expected at least 1, got ", options.packing_window));
  }
}

bool is_mixed(const std::vector<SourceOptions>& sources) {
  return std::any_of(sources.begin(), sources.end(), [](const SourceOptions& source) {
    return source.weight.has_value() || source.epochs != 1;
  });
}

void check_mixture(const std::vector<SourceOptions>& sources) {
  for (const auto& source : sources) {
    if (source.weight.has_value() != sources[0].weight.has_value()) {
      throw ConfigError(str("data: expected a weight for every source or for none, got ",
                            source.weight ? sources[0].path : source.path, " without"));
    }
    if (!(source.epochs > 0) || (source.weight && !(*source.weight > 0))) {
      throw ConfigError(str("data: ", source.path, ": expected weight and epochs above 0"));
    }
  }
}

std::vector<std::shared_ptr<const TokenStore>> read_sources(
    const std::vector<SourceOptions>& sources, const Tokenizer& tokenizer,
    const DatasetOptions& options) {
  check_options(options);
  std::vector<std::shared_ptr<const TokenStore>> stores;
  for (const auto& source : sources) {
    stores.push_back(
        read_source(source, DocumentKind::kText, document_options(options), tokenizer));
  }
  return stores;
}

}  // namespace

DocumentOptions document_options(const DatasetOptions& options) {
  const bool sequence_bos =
      options.packing == Packing::kConcat && options.bos == BosPlacement::kSequence;
  return {.bos = options.bos != BosPlacement::kNone && !sequence_bos,
          .eos = options.eos,
          .chat_template = options.chat_template};
}

double PackingReport::efficiency() const {
  return static_cast<double>(kept) / static_cast<double>(std::max<int64_t>(kept + padding, 1));
}

TokenDataset::TokenDataset(const std::vector<SourceOptions>& sources, const Tokenizer& tokenizer,
                           const DatasetOptions& options)
    : TokenDataset(sources, read_sources(sources, tokenizer, options), tokenizer, options) {}

TokenDataset::TokenDataset(const std::vector<SourceOptions>& sources,
                           const std::vector<std::shared_ptr<const TokenStore>>& stores,
                           const Tokenizer& tokenizer, const DatasetOptions& options)
    : options_(options), bos_id_(tokenizer.bos_id()), eos_id_(tokenizer.eos_id()) {
  check_options(options);
  if (options.bos != BosPlacement::kNone && bos_id_ < 0) {
    throw ConfigError("data.bos: expected a tokenizer with a BOS token, got one without");
  }
  pack(sources, stores, tokenizer);
  mix(sources);
}

// Sources that are not mixed make one corpus.
void TokenDataset::pack(const std::vector<SourceOptions>& sources,
                        const std::vector<std::shared_ptr<const TokenStore>>& stores,
                        const Tokenizer& tokenizer) {
  TORCH_CHECK(sources.size() == stores.size(), "dataset: expected a store for each of ",
              sources.size(), " sources, got ", stores.size());
  const auto wanted =
      is_mixed(sources)
          ? stores
          : std::vector<std::shared_ptr<const TokenStore>>{TokenStore::joined(stores)};
  for (const auto& store : wanted) {
    parts_.push_back(std::make_shared<PackedTokens>(store, tokenizer, options_));
  }
}

void TokenDataset::mix(const std::vector<SourceOptions>& sources) {
  if (!is_mixed(sources)) {
    first_ = {0, parts_[0]->size()};
    return;
  }
  check_mixture(sources);
  std::vector<MixtureSource> mixture;
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& report = parts_[i]->report();
    const auto amount = options_.mix_by == MixBy::kTokens ? report.kept : report.documents;
    mixture.push_back({.sequences = report.sequences,
                       .amount = static_cast<double>(amount),
                       .weight = sources[i].weight,
                       .epochs = sources[i].epochs});
  }
  first_ = {0};
  for (const auto count : mixture_sequences(mixture)) first_.push_back(first_.back() + count);
}

int64_t TokenDataset::size() const { return first_.back(); }

namespace {

// A part's number in proportion to how often the mixture holds the part.
int64_t in_proportion(int64_t number, int64_t count, int64_t size) {
  if (count == size) return number;
  return static_cast<int64_t>(static_cast<double>(number) * static_cast<double>(count) /
                              static_cast<double>(size));
}

}  // namespace

int64_t TokenDataset::tokens() const {
  int64_t sum = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    sum += in_proportion(parts_[i]->report().kept, first_[i + 1] - first_[i], parts_[i]->size());
  }
  return sum;
}

int64_t TokenDataset::bytes() const {
  int64_t sum = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    sum += in_proportion(parts_[i]->bytes(), first_[i + 1] - first_[i], parts_[i]->size());
  }
  return sum;
}

uint64_t TokenDataset::hash() const {
  Hasher hasher;
  for (const auto& part : parts_) hasher.add(part->store().hash());
  for (const auto first : first_) hasher.add(first);
  const std::vector<int64_t> settings{options_.sequence_length,
                                      static_cast<int64_t>(options_.packing),
                                      static_cast<int64_t>(options_.bos),
                                      options_.eos,
                                      options_.cross_document,
                                      options_.shuffle,
                                      options_.recut,
                                      static_cast<int64_t>(options_.long_documents),
                                      options_.packing_window,
                                      static_cast<int64_t>(options_.loss_on),
                                      bos_id_,
                                      eos_id_};
  hasher.add(hash_values(settings));
  return hasher.value();
}

PackingReport TokenDataset::packing() const {
  PackingReport sum;
  for (const auto& part : parts_) {
    const auto& report = part->report();
    sum.documents += report.documents;
    sum.sequences += report.sequences;
    sum.tokens += report.tokens;
    sum.kept += report.kept;
    sum.padding += report.padding;
    sum.truncated += report.truncated;
    sum.truncated_tokens += report.truncated_tokens;
    sum.split += report.split;
    sum.dropped_tokens += report.dropped_tokens;
  }
  return sum;
}

std::vector<MixtureShare> TokenDataset::mixture() const {
  std::vector<MixtureShare> shares;
  double sum = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const auto& report = parts_[i]->report();
    MixtureShare share{.name = parts_[i]->store().name(), .sequences = first_[i + 1] - first_[i]};
    share.epochs = static_cast<double>(share.sequences) / static_cast<double>(report.sequences);
    const auto amount = options_.mix_by == MixBy::kTokens ? report.kept : report.documents;
    share.share = share.epochs * static_cast<double>(amount);
    sum += share.share;
    shares.push_back(share);
  }
  for (auto& share : shares) share.share /= sum;
  return shares;
}

// Position `index` of the endless stream: a place in an epoch of the mixture, then in the stream
// of its source, which goes through the whole source before anything of it comes again.
TokenDataset::Row TokenDataset::row(uint64_t seed, int64_t index) const {
  const int64_t epoch = index / size(), place = index % size();
  const auto shift = [&](uint64_t key, const PackedTokens& part) {
    return options_.recut ? static_cast<int64_t>(pick(key, part.text_length())) : 0;
  };
  const auto chosen =
      options_.shuffle ? permuted(place, size(), mix_keys(seed, epoch, kOrderKey)) : place;
  if (parts_.size() == 1 && size() == parts_[0]->size()) {
    return {.part = 0, .id = chosen, .shift = shift(mix_keys(seed, epoch, kCutKey), *parts_[0])};
  }
  const auto part = std::upper_bound(first_.begin(), first_.end(), chosen) - first_.begin() - 1;
  const auto& packed = *parts_[part];
  const int64_t count = first_[part + 1] - first_[part];
  const int64_t position = epoch * count + chosen - first_[part];  // in the source's own stream
  const int64_t pass = position / packed.size(), at = position % packed.size();
  const auto key = mix_keys(seed, pass, kSourceKey, part);
  return {.part = part,
          .id = options_.shuffle ? permuted(at, packed.size(), key) : at,
          .shift = shift(mix_keys(key, kCutKey), packed)};
}

Batch TokenDataset::batch(uint64_t seed, int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0, "dataset.batch: expected first >= 0 and count > 0, got ",
              first, " and ", count);
  std::vector<Row> rows;
  for (int64_t i = first; i < first + count; ++i) rows.push_back(row(seed, i));
  return gather(rows);
}

Batch TokenDataset::sequential(int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0 && first + count <= size(),
              "dataset.sequential: expected a range within ", size(), " sequences, got ", first,
              " + ", count);
  std::vector<Row> rows;
  for (int64_t i = first; i < first + count; ++i) {
    const auto part = std::upper_bound(first_.begin(), first_.end(), i) - first_.begin() - 1;
    rows.push_back({.part = part, .id = (i - first_[part]) % parts_[part]->size(), .shift = 0});
  }
  return gather(rows);
}

Batch TokenDataset::gather(const std::vector<Row>& rows) const {
  const int64_t B = static_cast<int64_t>(rows.size()), T = options_.sequence_length;
  Batch batch;
  batch.input_ids = torch::full({B, T}, std::max<int64_t>(eos_id_, 0), torch::kInt64);  // (B, T)
  batch.segments = torch::full({B, T}, -1, torch::kInt64);                              // (B, T)
  batch.loss_mask = torch::zeros({B, T}, torch::kFloat32);                              // (B, T)
  batch.targets = torch::full({B, T}, -1, torch::kInt64);                               // (B, T)
  bool one_segment = true;
  for (int64_t b = 0; b < B; ++b) {
    const PackedTokens::Row row{.ids = batch.input_ids.data_ptr<int64_t>() + b * T,
                                .segments = batch.segments.data_ptr<int64_t>() + b * T,
                                .loss_mask = batch.loss_mask.data_ptr<float>() + b * T,
                                .targets = batch.targets.data_ptr<int64_t>() + b * T};
    const bool whole = parts_[rows[b].part]->write(rows[b].id, rows[b].shift, row);
    one_segment = one_segment && whole;
    int64_t before = 0;  // sequences of the parts before this one
    for (int64_t p = 0; p < rows[b].part; ++p) before += parts_[p]->size();
    batch.sample_ids.push_back(before + rows[b].id);
  }
  batch.loss_everywhere = batch.loss_mask.min().item<float>() == 1;
  if (one_segment) batch.segments = torch::Tensor();
  return batch;
}

}  // namespace zebra
