#include "data/packed_tokens.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "data/packing.h"
#include "zebra/error.h"

namespace zebra {

PackedTokens::PackedTokens(std::shared_ptr<const TokenStore> store, const Tokenizer& tokenizer,
                           const DatasetOptions& options)
    : store_(std::move(store)),
      options_(options),
      bos_id_(tokenizer.bos_id()),
      eos_id_(tokenizer.eos_id()) {
  if (store_->tokens() == 0) {
    throw ConfigError(str("data: expected text, got no token from ", store_->name()));
  }
  report_.documents = store_->documents();
  report_.tokens = store_->tokens();
  options_.packing == Packing::kConcat ? cut_anywhere() : lay_out();
  if (report_.sequences == 0) {
    const int64_t needed = text_length() * (options_.recut ? 2 : 1) - (options_.recut ? 1 : 0);
    throw ConfigError(str("data: expected at least ", needed,
                          " tokens, enough for one sequence, got ", store_->tokens(), " from ",
                          store_->name()));
  }
  const int64_t own = sequence_bos() ? report_.sequences : 0;
  report_.kept += own;
  report_.padding = report_.sequences * options_.sequence_length - report_.kept;
  if (options_.count_bytes) count_bytes(tokenizer);
}

int64_t PackedTokens::size() const { return report_.sequences; }

int64_t PackedTokens::text_length() const {
  return options_.sequence_length - (sequence_bos() ? 1 : 0);
}

bool PackedTokens::sequence_bos() const {
  return options_.packing == Packing::kConcat && options_.bos == BosPlacement::kSequence;
}

void PackedTokens::cut_anywhere() {
  const int64_t total = store_->tokens(), length = text_length();
  const int64_t usable = options_.recut ? total - (length - 1) : total;  // room for any offset
  report_.sequences = std::max<int64_t>(usable, 0) / length;
  report_.kept = report_.sequences * length;
  report_.dropped_tokens = total - report_.kept;
  int64_t document = -1;  // the one that the sequence before ends with
  for (int64_t cut = length; cut < report_.kept; cut += length) {
    const auto here = store_->document_at(cut);
    if (here != document && store_->document_start(here) != cut) ++report_.split;
    document = here;
  }
}

// The stream position behind the piece that begins there.
int64_t PackedTokens::piece_end(int64_t begin) const {
  const auto document = store_->document_at(begin);
  return std::min(store_->document_start(document + 1), begin + options_.sequence_length);
}

void PackedTokens::lay_out() {
  const int64_t T = options_.sequence_length;
  const bool best_fit = options_.packing == Packing::kBestFit;
  const bool split = options_.long_documents == LongDocuments::kSplit;
  std::vector<int64_t> begins, lengths;  // the pieces of a window
  const auto lay_alone = [&](int64_t begin) {
    first_piece_.push_back(static_cast<int64_t>(pieces_.size()));
    pieces_.push_back(begin);
  };
  const auto lay_window = [&] {
    for (const auto& bin : best_fit_decreasing(lengths, T)) {
      first_piece_.push_back(static_cast<int64_t>(pieces_.size()));
      for (const auto item : bin) pieces_.push_back(begins[item]);
    }
    begins.clear();
    lengths.clear();
  };
  for (int64_t i = 0, start = 0; i < store_->documents(); ++i) {
    const int64_t size = store_->document(i).count;
    const int64_t kept = split ? size : std::min(size, T);
    report_.kept += kept;
    report_.truncated += kept < size ? 1 : 0;
    report_.truncated_tokens += size - kept;
    report_.split += kept > T ? 1 : 0;
    for (int64_t at = 0; at < kept; at += T) {
      if (!best_fit || kept - at >= T) {
        lay_alone(start + at);  // fills a sequence, or is to have one of its own
        continue;
      }
      begins.push_back(start + at);
      lengths.push_back(kept - at);
    }
    start += size;
    if (static_cast<int64_t>(begins.size()) >= options_.packing_window) lay_window();
  }
  lay_window();
  report_.sequences = static_cast<int64_t>(first_piece_.size());
  first_piece_.push_back(static_cast<int64_t>(pieces_.size()));
}

// Tokens of a document that the sequences hold.
int64_t PackedTokens::kept_of(int64_t document) const {
  const int64_t size = store_->document(document).count;
  if (options_.packing != Packing::kConcat) {
    return options_.long_documents == LongDocuments::kSplit
               ? size
               : std::min(size, options_.sequence_length);
  }
  const int64_t end = report_.sequences * text_length();
  return std::clamp<int64_t>(end - store_->document_start(document), 0, size);
}

// A document kept whole counts the bytes of its text as they stand in the file, a document that is
// cut counts the bytes its tokens decode to.
void PackedTokens::count_bytes(const Tokenizer& tokenizer) {
  std::atomic<int64_t> bytes{0};
  at::parallel_for(0, store_->documents(), /*grain_size=*/1024, [&](int64_t begin, int64_t end) {
    int64_t sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      const auto document = store_->document(i);
      const auto kept = kept_of(i);
      if (kept == 0) continue;
      // The text may be there whole although its EOS is cut off.
      const bool eos = options_.eos && document.ids()[document.count - 1] == eos_id_;
      if (kept >= document.count - (eos ? 1 : 0)) {
        sum += store_->document_bytes(i);
        continue;
      }
      const int64_t first = document.ids()[0] == bos_id_ ? 1 : 0;
      const std::vector<int64_t> ids(document.ids() + first, document.ids() + kept);
      if (!ids.empty()) sum += static_cast<int64_t>(tokenizer.decode(ids).size());
    }
    bytes += sum;
  });
  bytes_ = bytes;
}

bool PackedTokens::write(int64_t sequence, int64_t shift, const Row& row) const {
  int64_t t = 0, segment = -1;
  const auto put = [&](int64_t id, bool answer) {
    const bool counts = options_.loss_on == LossOn::kAll || answer;
    row.ids[t] = id;
    row.segments[t] = segment;
    if (options_.loss_on == LossOn::kAll) row.loss_mask[t] = 1.0F;
    if (t > 0 && counts && row.segments[t - 1] == segment) {
      row.targets[t - 1] = id;
      row.loss_mask[t - 1] = 1.0F;
    }
    ++t;
  };
  if (sequence_bos()) {
    segment = 0;
    put(bos_id_, /*answer=*/false);
  }
  bool first = true;
  const auto put_piece = [&](const TokenStore::Piece& piece) {
    if (segment < 0 || (!first && !options_.cross_document)) ++segment;
    first = false;
    for (int64_t i = 0; i < piece.count; ++i) {
      put(piece.ids()[i], piece.shard->in_answer(piece.first + i));
    }
  };
  if (options_.packing == Packing::kConcat) {
    const int64_t begin = sequence * text_length() + shift;
    store_->visit(begin, begin + text_length(), put_piece);
  } else {
    for (int64_t i = first_piece_[sequence]; i < first_piece_[sequence + 1]; ++i) {
      store_->visit(pieces_[i], piece_end(pieces_[i]), put_piece);
    }
  }
  return segment == 0 && t == options_.sequence_length;
}

}  // namespace zebra
