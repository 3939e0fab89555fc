// Records into shards: read one after the other, made into tokens in parallel.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/documents.h"
#include "data/records.h"
#include "data/shard.h"
#include "data/token_store.h"
#include "zebra/dataset.h"

namespace zebra {

class ShardMaker {
 public:
  struct Options {
    DocumentKind kind = DocumentKind::kText;
    BadLines bad_lines = BadLines::kRefuse;
    uint64_t identity = 0;
    uint64_t bad_records = 0;        // counted before the reader's place
    int64_t max_documents = -1;      // where to stop; -1: at the end
    uint64_t shard_text = 32 << 20;  // bytes of records in a shard
  };
  ShardMaker(RecordReader reader, const DocumentEncoder& encoder, const Options& options);

  // The bytes of the next shard; nullopt when all is made. Where a shard ends depends on the text
  // alone, so that a preparation that was stopped goes on to the same bytes. Bad records are
  // ConfigErrors or, when they are to be counted, warnings. `on_batch` is called now and then.
  template <class OnBatch>
  std::optional<std::string> next(OnBatch&& on_batch) {
    while (!done_ && shard_text_ < options_.shard_text) {
      add_batch();
      on_batch(*this);
    }
    return take();
  }
  std::optional<std::string> next() {
    return next([](const ShardMaker&) {});
  }

  uint64_t bad_records() const { return options_.bad_records; }
  const RecordReader& reader() const { return reader_; }

 private:
  void add_batch();
  void add(std::vector<EncodedDocument> documents);
  void note_bad(const std::string& error);
  std::optional<std::string> take();

  RecordReader reader_;
  const DocumentEncoder& encoder_;
  Options options_;
  ShardBuilder builder_;
  uint64_t shard_text_ = 0;
  int64_t made_ = 0;  // documents
  int64_t warned_ = 0;
  bool done_ = false;
};

// All documents of a source in memory, or its first `max_documents`.
std::shared_ptr<const TokenStore> read_source(const SourceOptions& source, DocumentKind kind,
                                              const DocumentOptions& options,
                                              const Tokenizer& tokenizer,
                                              int64_t max_documents = -1);

}  // namespace zebra
