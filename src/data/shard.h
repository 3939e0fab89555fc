// A run of documents as token ids, in one block of bytes that is read where it lies: in a mapped
// file or in memory. docs/data_format.md describes it byte by byte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/file.h"
#include "data/documents.h"

namespace zebra {

struct ShardHeader {
  char magic[8];         // "ZEBRATOK"
  uint32_t version;      // 1
  uint32_t kind;         // DocumentKind
  uint64_t documents;    // n
  uint64_t tokens;       // m
  uint64_t text_bytes;   // of the documents' text, UTF-8
  uint64_t identity;     // of what the tokens were made from
  uint64_t next_file;    // where the records of the next shard begin
  uint64_t next_offset;  //
  uint64_t next_number;  //
  uint64_t bad_records;  // counted so far, this shard's among them
  uint64_t body_hash;    // XXH3 of what follows the header
  uint64_t header_hash;  // XXH3 of the bytes above
  uint64_t reserved[4];  // 0
};
static_assert(sizeof(ShardHeader) == 128);

class Shard {
 public:
  // A file. ConfigError when it is no shard, is cut off, or its header is damaged; `name` in the
  // error texts is the file's.
  explicit Shard(const std::filesystem::path& file);
  // The same bytes in memory.
  explicit Shard(std::string bytes);

  const ShardHeader& header() const { return *reinterpret_cast<const ShardHeader*>(data()); }
  int64_t documents() const { return static_cast<int64_t>(header().documents); }
  int64_t tokens() const { return static_cast<int64_t>(header().tokens); }
  Place next() const;

  // Of document i: [starts()[i], starts()[i + 1]) of the shard's tokens, and its text's bytes.
  std::span<const uint64_t> starts() const { return {words(0), header().documents + 1}; }
  uint64_t text_bytes(int64_t document) const { return words(header().documents + 1)[document]; }
  bool in_answer(int64_t token) const {
    return ((words(2 * header().documents + 1)[token / 64] >> (token % 64)) & 1) != 0;
  }
  const uint32_t* ids() const;

  void check_body() const;  // ConfigError unless its hash is what the header says
  void release() const;     // takes a mapped file's bytes out of this process's memory

 private:
  void check_header() const;
  const char* data() const;
  uint64_t size() const;
  std::string name() const;
  const uint64_t* words(uint64_t index) const {
    return reinterpret_cast<const uint64_t*>(data() + sizeof(ShardHeader)) + index;
  }

  std::variant<MappedFile, std::string> bytes_;
};

// Documents gathered for one shard.
class ShardBuilder {
 public:
  void add(const EncodedDocument& document);
  bool empty() const { return starts_.size() == 1; }
  uint64_t documents() const { return starts_.size() - 1; }
  uint64_t tokens() const { return ids_.size(); }
  uint64_t text_bytes() const { return total_bytes_; }

  struct Facts {
    DocumentKind kind = DocumentKind::kText;
    uint64_t identity = 0;
    Place next;
    uint64_t bad_records = 0;
  };
  // The shard's bytes; the builder is empty again.
  std::string take(const Facts& facts);

 private:
  std::vector<uint64_t> starts_{0}, text_bytes_, answer_;
  std::vector<uint32_t> ids_;
  uint64_t total_bytes_ = 0;
};

}  // namespace zebra
