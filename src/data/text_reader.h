// Text files that may be larger than memory, plain or gzip, character by character or line by line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace zebra {

// Offset of the first byte that is not part of a well-formed UTF-8 character, or npos.
size_t find_invalid_utf8(std::string_view text);

class TextReader {
 public:
  // A leading byte order mark is skipped. A file that cannot be read or unpacked is a ConfigError,
  // here or when its damage is reached.
  explicit TextReader(const std::filesystem::path& file);
  ~TextReader();
  TextReader(const TextReader&) = delete;
  TextReader& operator=(const TextReader&) = delete;

  // The next line without its end, which is \n, \r\n or \r; valid until the next call. nullopt at
  // the end of the file.
  std::optional<std::string_view> line();

  static constexpr int kEnd = -1;
  int peek();  // the next byte, or kEnd
  int get();   // the same, and steps over it

  // Bytes of text before the next one; of a gzip file, of what it unpacks to.
  uint64_t offset() const { return start_ + at_; }
  uint64_t line_offset() const { return line_offset_; }  // of the last line's first byte
  void seek(uint64_t offset);                            // to a value that offset() gave
  uint64_t file_bytes() const;  // of the file itself, read so far: for progress

 private:
  bool fill();  // appends to the buffer; false at the end

  struct File;
  std::filesystem::path path_;
  std::unique_ptr<File> file_;
  std::string buffer_;
  size_t at_ = 0;       // next byte in buffer_
  uint64_t start_ = 0;  // offset of buffer_'s first byte
  uint64_t line_offset_ = 0;
};

}  // namespace zebra
