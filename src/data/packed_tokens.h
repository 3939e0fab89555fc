// A store of tokens cut into sequences of one length.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/token_store.h"
#include "zebra/dataset.h"

namespace zebra {

class PackedTokens {
 public:
  // ConfigError when there is not a single sequence.
  PackedTokens(std::shared_ptr<const TokenStore> store, const Tokenizer& tokenizer,
               const DatasetOptions& options);

  const TokenStore& store() const { return *store_; }
  int64_t size() const;                     // sequences
  int64_t bytes() const { return bytes_; }  // of text, see TokenDataset
  const PackingReport& report() const { return report_; }
  int64_t text_length() const;  // tokens of a full sequence besides a BOS of its own

  // One row of a batch. Each points to T elements, filled as padding is.
  struct Row {
    int64_t* ids;
    int64_t* segments;
    float* loss_mask;
    int64_t* targets;
  };
  // Whether the row is one segment without padding.
  bool write(int64_t sequence, int64_t shift, const Row& row) const;

 private:
  bool sequence_bos() const;
  void cut_anywhere();
  void lay_out();
  void count_bytes(const Tokenizer& tokenizer);
  int64_t kept_of(int64_t document) const;
  int64_t piece_end(int64_t begin) const;

  std::shared_ptr<const TokenStore> store_;
  DatasetOptions options_;
  int64_t bos_id_, eos_id_;
  PackingReport report_;
  int64_t bytes_ = 0;
  // best_fit and none: where the pieces of each sequence begin in the stream. A piece reaches to
  // the end of its document, at most one length.
  std::vector<int64_t> pieces_;
  std::vector<int64_t> first_piece_;  // of each sequence, and the number of pieces
};

}  // namespace zebra
