#include "data/shard_maker.h"

#include <ATen/Parallel.h>

#include <exception>

#include "base/log.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr uint64_t kBatchText = 4 << 20;  // bytes of records that are made into tokens at a time
constexpr int64_t kWarnings = 5;          // bad records that are told one by one

struct Made {
  std::vector<EncodedDocument> documents;
  std::string error;  // empty: none
};

std::vector<Made> encode_all(const std::vector<Record>& records, const DocumentEncoder& encoder) {
  std::vector<Made> made(records.size());
  at::parallel_for(0, static_cast<int64_t>(records.size()), /*grain_size=*/1,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       try {
                         made[i].documents = encoder.encode(records[i]);
                       } catch (const ConfigError& error) {
                         made[i].error = error.what();
                       }
                     }
                   });
  return made;
}

}  // namespace

ShardMaker::ShardMaker(RecordReader reader, const DocumentEncoder& encoder, const Options& options)
    : reader_(std::move(reader)), encoder_(encoder), options_(options) {}

void ShardMaker::add_batch() {
  std::vector<Record> records;
  uint64_t text = 0;
  std::exception_ptr unreadable;  // told after what is wrong with the records before it
  while (text < kBatchText && shard_text_ + text < options_.shard_text) {
    std::optional<Record> record;
    try {
      record = reader_.next();
    } catch (const ConfigError&) {
      unreadable = std::current_exception();
    }
    if (!record) {
      done_ = true;
      break;
    }
    text += record->text.size() + 1;
    records.push_back(std::move(*record));
  }
  shard_text_ += text;
  for (auto& made : encode_all(records, encoder_)) {
    if (!made.error.empty()) {
      note_bad(made.error);
    } else {
      add(std::move(made.documents));
    }
  }
  if (unreadable) std::rethrow_exception(unreadable);
}

void ShardMaker::add(std::vector<EncodedDocument> documents) {
  for (const auto& document : documents) {
    if (options_.max_documents >= 0 && made_ >= options_.max_documents) {
      done_ = true;
      return;
    }
    builder_.add(document);
    ++made_;
  }
}

void ShardMaker::note_bad(const std::string& error) {
  if (options_.bad_lines == BadLines::kRefuse) throw ConfigError(error);
  ++options_.bad_records;
  if (++warned_ <= kWarnings) log_warning(str("left out: ", error));
  if (warned_ == kWarnings) log_warning("further bad lines are counted in silence");
}

std::optional<std::string> ShardMaker::take() {
  shard_text_ = 0;
  if (builder_.empty() && done_) return std::nullopt;
  return builder_.take({.kind = options_.kind,
                        .identity = options_.identity,
                        .next = reader_.place(),
                        .bad_records = options_.bad_records});
}

std::shared_ptr<const TokenStore> read_source(const SourceOptions& source, DocumentKind kind,
                                              const DocumentOptions& options,
                                              const Tokenizer& tokenizer, int64_t max_documents) {
  const DocumentEncoder encoder(kind, source.format, options, tokenizer);
  ShardMaker maker(RecordReader(expand_glob(source.path), encoder.record_kind()), encoder,
                   {.kind = kind, .bad_lines = options.bad_lines, .max_documents = max_documents});
  std::vector<std::shared_ptr<const Shard>> shards;
  while (auto bytes = maker.next()) {
    shards.push_back(std::make_shared<Shard>(std::move(*bytes)));
  }
  return std::make_shared<TokenStore>(std::move(shards), source.path);
}

}  // namespace zebra
