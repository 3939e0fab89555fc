#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>

#include "base/hash.h"
#include "base/signals.h"
#include "data/random.h"
#include "data/sources.h"
#include "zebra/dataset.h"
#include "zebra/error.h"

namespace zebra {
namespace {

constexpr uint64_t kOrderKey = 1, kCutKey = 2;  // what a number is drawn for

std::string joined_paths(const std::vector<SourceOptions>& sources) {
  std::string paths;
  for (const auto& source : sources) paths += (paths.empty() ? "" : ", ") + source.path;
  return paths.empty() ? "no source" : paths;
}

std::vector<std::vector<int64_t>> encode_all(const std::vector<std::string>& texts,
                                             const Tokenizer& tokenizer) {
  std::vector<std::vector<int64_t>> ids(texts.size());
  at::parallel_for(0, static_cast<int64_t>(texts.size()), /*grain_size=*/1,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       throw_if_stopped("data: tokens");
                       ids[i] = tokenizer.encode(texts[i]);
                     }
                   });
  return ids;
}

void check_options(const DatasetOptions& options, const Tokenizer& tokenizer) {
  if (options.sequence_length < 2) {
    throw ConfigError(
        str("data.sequence_length: expected at least 2, got ", options.sequence_length));
  }
  if (options.bos != BosPlacement::kNone && tokenizer.bos_id() < 0) {
    throw ConfigError("data.bos: expected a tokenizer with a BOS token, got one without");
  }
  if (options.eos && tokenizer.eos_id() < 0) {
    throw ConfigError("data.eos: expected a tokenizer with an EOS token, got one without");
  }
  if (options.recut && options.packing != Packing::kConcat) {
    throw ConfigError("data.recut: expected packing concat, got none");
  }
}

}  // namespace

TokenDataset::TokenDataset(const std::vector<SourceOptions>& sources, const Tokenizer& tokenizer,
                           const DatasetOptions& options)
    : options_(options), bos_id_(tokenizer.bos_id()), eos_id_(tokenizer.eos_id()) {
  check_options(options, tokenizer);
  std::vector<std::string> texts;
  for (const auto& source : sources) {
    for (auto& text : read_documents(source)) texts.push_back(std::move(text));
  }
  const auto ids = encode_all(texts, tokenizer);
  const auto starts = append_documents(ids);
  if (tokens_.empty()) {
    throw ConfigError(str("data: expected text, got no token from ", joined_paths(sources)));
  }
  cut(starts);
  if (sequences_.empty()) {
    const int64_t needed = text_length() * (options_.recut ? 2 : 1) - (options_.recut ? 1 : 0);
    throw ConfigError(str("data: expected at least ", needed,
                          " tokens, enough for one sequence, got ", tokens_.size(), " from ",
                          joined_paths(sources)));
  }
  count_bytes(texts, ids, tokenizer);
}

// Tokens of text that a sequence holds besides a BOS of its own.
int64_t TokenDataset::text_length() const {
  return options_.sequence_length - (sequence_bos() ? 1 : 0);
}

bool TokenDataset::sequence_bos() const {
  return options_.packing == Packing::kConcat && options_.bos == BosPlacement::kSequence;
}

// Joins the documents and returns where each begins, and the end. Documents without tokens stay
// empty: they get neither BOS nor EOS.
std::vector<int64_t> TokenDataset::append_documents(const std::vector<std::vector<int64_t>>& ids) {
  const bool bos = options_.bos != BosPlacement::kNone && !sequence_bos();
  std::vector<int64_t> starts{0};
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!ids[i].empty()) {
      if (bos) tokens_.push_back(static_cast<int32_t>(bos_id_));
      for (const auto id : ids[i]) tokens_.push_back(static_cast<int32_t>(id));
      if (options_.eos) tokens_.push_back(static_cast<int32_t>(eos_id_));
    }
    documents_.resize(tokens_.size(), static_cast<int32_t>(i));
    starts.push_back(static_cast<int64_t>(tokens_.size()));
  }
  return starts;
}

void TokenDataset::cut(const std::vector<int64_t>& starts) {
  const int64_t total = static_cast<int64_t>(tokens_.size()), length = text_length();
  if (options_.packing == Packing::kConcat) {
    const int64_t usable = options_.recut ? total - (length - 1) : total;  // room for any offset
    for (int64_t begin = 0; begin + length <= usable; begin += length) {
      sequences_.push_back({begin, begin + length});
    }
  } else {
    for (size_t i = 0; i + 1 < starts.size(); ++i) {
      const auto end = std::min(starts[i + 1], starts[i] + length);
      if (end > starts[i]) sequences_.push_back({starts[i], end});
    }
  }
  for (const auto& sequence : sequences_) kept_tokens_ += sequence.end - sequence.begin;
  if (sequence_bos()) kept_tokens_ += size();
}

// A document kept whole counts the bytes of its text as they stand in the file, a document that is
// cut counts the bytes its tokens decode to.
void TokenDataset::count_bytes(const std::vector<std::string>& texts,
                               const std::vector<std::vector<int64_t>>& ids,
                               const Tokenizer& tokenizer) {
  std::vector<int64_t> kept(texts.size(),
                            0);  // tokens of each document, its BOS and EOS among them
  for (const auto& sequence : sequences_) {
    for (int64_t t = sequence.begin; t < sequence.end; ++t) ++kept[documents_[t]];
  }
  const int64_t before = options_.bos != BosPlacement::kNone && !sequence_bos() ? 1 : 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto tokens =
        std::clamp<int64_t>(kept[i] - before, 0, static_cast<int64_t>(ids[i].size()));
    if (tokens == static_cast<int64_t>(ids[i].size())) {
      bytes_ += static_cast<int64_t>(ids[i].empty() ? 0 : texts[i].size());
    } else if (tokens > 0) {
      bytes_ +=
          static_cast<int64_t>(tokenizer.decode({ids[i].begin(), ids[i].begin() + tokens}).size());
    }
  }
}

int64_t TokenDataset::size() const { return static_cast<int64_t>(sequences_.size()); }
int64_t TokenDataset::tokens() const { return kept_tokens_; }
int64_t TokenDataset::bytes() const { return bytes_; }

uint64_t TokenDataset::hash() const {
  const std::vector<int64_t> settings{options_.sequence_length,
                                      static_cast<int64_t>(options_.packing),
                                      static_cast<int64_t>(options_.bos),
                                      options_.eos,
                                      options_.cross_document,
                                      options_.shuffle,
                                      options_.recut,
                                      bos_id_,
                                      eos_id_};
  return mix_keys(hash_values(tokens_), hash_values(documents_), hash_values(settings));
}

Batch TokenDataset::batch(uint64_t seed, int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0, "dataset.batch: expected first >= 0 and count > 0, got ",
              first, " and ", count);
  std::vector<Row> rows;
  for (int64_t i = first; i < first + count; ++i) {
    const int64_t epoch = i / size(), index = i % size();
    const auto id =
        options_.shuffle ? permuted(index, size(), mix_keys(seed, epoch, kOrderKey)) : index;
    const auto shift = options_.recut ? pick(mix_keys(seed, epoch, kCutKey), text_length()) : 0;
    rows.push_back({id, static_cast<int64_t>(shift)});
  }
  return gather(rows);
}

Batch TokenDataset::sequential(int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0 && first + count <= size(),
              "dataset.sequential: expected a range within ", size(), " sequences, got ", first,
              " + ", count);
  std::vector<Row> rows;
  for (int64_t id = first; id < first + count; ++id) rows.push_back({id, 0});
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
    auto* ids = batch.input_ids.data_ptr<int64_t>() + b * T;
    auto* segments = batch.segments.data_ptr<int64_t>() + b * T;
    auto* mask = batch.loss_mask.data_ptr<float>() + b * T;
    auto* targets = batch.targets.data_ptr<int64_t>() + b * T;
    const auto begin = sequences_[rows[b].id].begin + rows[b].shift;
    const auto end = sequences_[rows[b].id].end + rows[b].shift;
    int64_t t = 0, segment = 0;
    const auto put = [&](int64_t id) {
      ids[t] = id;
      segments[t] = segment;
      mask[t] = 1.0F;
      if (t > 0 && segments[t - 1] == segment) targets[t - 1] = id;
      ++t;
    };
    if (sequence_bos()) put(bos_id_);
    for (auto at = begin; at < end; ++at) {
      const bool starts = at > begin && documents_[at] != documents_[at - 1];
      if (starts && !options_.cross_document) ++segment;
      put(tokens_[at]);
    }
    one_segment = one_segment && segment == 0 && t == T;
    batch.sample_ids.push_back(rows[b].id);
  }
  if (one_segment) batch.segments = torch::Tensor();
  return batch;
}

}  // namespace zebra
