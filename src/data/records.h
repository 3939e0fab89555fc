// The records of a source's files, one after the other: lines, list items, stories, whole texts.
// Reading can stop after any record and go on there later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/text_reader.h"

namespace zebra {

// The file `pattern` names, or all files that the glob matches, sorted. None is a ConfigError.
std::vector<std::filesystem::path> expand_glob(const std::string& pattern);

// A whole file (plain or gzip) that must be UTF-8. A leading byte order mark is dropped, and lines
// end in \n whatever they ended in (\r\n, \r). Anything else is a ConfigError that names the file
// and the offset of the first wrong byte.
std::string read_text(const std::filesystem::path& file);

enum class RecordKind {
  kFile,     // the whole file
  kStories,  // parts between blank lines
  kJson,     // JSON lines (blank ones left out), or the items of one JSON array
};

struct Record {
  std::string text;
  std::string where;  // "file", "file:12" or, in an array, "file: item 12"
  std::string error;  // what is wrong with it, beginning with `where`; empty: nothing so far
};

// Where the next record begins.
struct Place {
  uint64_t file = 0;    // which of the files
  uint64_t offset = 0;  // in its text; 0: its beginning
  int64_t number = 0;   // lines or items before it
  bool operator==(const Place&) const = default;
};

class RecordReader {
 public:
  // ConfigError for a file that is JSON by its name where plain text is wanted.
  RecordReader(std::vector<std::filesystem::path> files, RecordKind kind, Place start = {});

  // In file order; nullopt after the last. What is wrong with one record stands in it; what makes
  // the rest of a file unreadable (not UTF-8 outside of JSON lines, a list that is not one) is a
  // ConfigError.
  std::optional<Record> next();

  Place place() const { return place_; }
  uint64_t bytes_read() const;  // of the files
  uint64_t bytes() const { return total_; }

 private:
  bool open();  // the file at place_; false after the last
  void close();
  std::optional<Record> next_story();
  std::optional<Record> next_line();
  std::optional<Record> next_item();
  std::string item_text();
  std::string here() const;  // the file's name
  void check_utf8(std::string_view text, uint64_t offset) const;

  std::vector<std::filesystem::path> files_;
  RecordKind kind_;
  Place place_;
  std::unique_ptr<TextReader> reader_;
  bool array_ = false;
  uint64_t before_ = 0, total_ = 0;  // bytes of the files before this one, and of all
};

}  // namespace zebra
