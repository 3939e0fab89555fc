// index.json of a prepared source: what its shards were made from, and which they are.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "zebra/prepare.h"

namespace zebra {

// A file as the system knows it: while this is the same, so are its contents.
struct FileStamp {
  uint64_t bytes = 0;
  int64_t changed_ns = 0;  // the later of the last changes of contents and of the entry
  bool operator==(const FileStamp&) const = default;
};
FileStamp stamp_of(const std::filesystem::path& file);

struct IndexedFile {
  std::string path;
  FileStamp stamp;
  uint64_t hash = 0;  // of the contents; not used for shards, which hold their own
  bool operator==(const IndexedFile&) const = default;
};

struct PreparedIndex {
  bool complete = false;
  std::string path, format;  // of the source; format is "pairs" for preference pairs
  uint64_t tokenizer = 0;
  DocumentOptions documents;
  std::vector<IndexedFile> files;   // of text
  std::vector<IndexedFile> shards;  // when complete
  int64_t total_documents = 0, total_tokens = 0, text_bytes = 0, bad_records = 0;

  uint64_t text_hash() const;
  uint64_t identity() const;  // of all that the tokens depend on

  // What differs from `wanted`, as words for an error text; empty: nothing.
  std::string difference(const PreparedIndex& wanted) const;
};

std::filesystem::path index_path(const std::filesystem::path& folder);
std::optional<PreparedIndex> read_index(const std::filesystem::path& folder);
void write_index(const std::filesystem::path& folder, const PreparedIndex& index);

// The index that a plan asks for, files hashed. Hashes of `known` serve for files that are as they
// were then.
PreparedIndex wanted_index(const PreparePlan& plan, const Tokenizer& tokenizer,
                           const std::optional<PreparedIndex>& known);

}  // namespace zebra
