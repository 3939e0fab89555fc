#include "data/text_reader.h"

#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "data/utf8.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr size_t kPiece = 1 << 18;  // bytes read at a time

bool is_ascii(const char* bytes) {  // eight of them
  uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  return (word & 0x8080808080808080u) == 0;
}

// Of the first \r or \n from `from` on, or npos.
size_t find_line_end(const std::string& text, size_t from) {
  const char* begin = text.data() + from;
  const size_t left = text.size() - from;
  if (left == 0) return std::string::npos;
  const auto* feed = static_cast<const char*>(std::memchr(begin, '\n', left));
  const size_t limit = feed == nullptr ? left : static_cast<size_t>(feed - begin);
  const auto* back = static_cast<const char*>(std::memchr(begin, '\r', limit));
  if (back != nullptr) return from + static_cast<size_t>(back - begin);
  return feed == nullptr ? std::string::npos : from + limit;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at + sizeof(uint64_t) <= text.size() && is_ascii(text.data() + at)) {
    at += sizeof(uint64_t);
  }
  const auto end = at + valid_prefix(text.substr(at));
  return end == text.size() ? std::string_view::npos : end;
}

// zlib reads what is not gzip as it stands.
struct TextReader::File {
  explicit File(gzFile opened) : handle(opened) {}
  ~File() { gzclose_r(handle); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  gzFile handle;
};

TextReader::TextReader(const std::filesystem::path& file) : path_(file) {
  const gzFile handle = gzopen(file.c_str(), "rb");
  if (handle == nullptr) {
    throw ConfigError(str(file.string(), ": cannot be read: ", std::strerror(errno)));
  }
  file_ = std::make_unique<File>(handle);
  gzbuffer(handle, kPiece);
  while (buffer_.size() < 3 && fill()) {
  }
  if (buffer_.starts_with("\xEF\xBB\xBF")) at_ = 3;
}

TextReader::~TextReader() = default;

bool TextReader::fill() {
  buffer_.erase(0, at_);
  start_ += at_;
  at_ = 0;
  const size_t filled = buffer_.size();
  buffer_.resize(filled + kPiece);
  const int got = gzread(file_->handle, &buffer_[filled], kPiece);
  buffer_.resize(filled + static_cast<size_t>(std::max(got, 0)));
  if (got > 0) return true;
  int problem = Z_OK;
  const char* reason = gzerror(file_->handle, &problem);
  if (problem == Z_OK || problem == Z_STREAM_END) return false;
  if (problem == Z_ERRNO) reason = std::strerror(errno);
  const std::string text = reason;
  const auto colon = text.rfind(": ");  // zlib begins with the file's name
  throw ConfigError(str(path_.string(), ": cannot be read: ",
                        colon == std::string::npos ? text : text.substr(colon + 2)));
}

std::optional<std::string_view> TextReader::line() {
  size_t searched = 0;  // bytes from at_ on that hold no line's end
  while (true) {
    const auto end = find_line_end(buffer_, at_ + searched);
    const bool found = end != std::string::npos;
    // The byte after a \r decides whether it is part of the end.
    if (found && (buffer_[end] == '\n' || end + 1 < buffer_.size())) {
      const bool two = buffer_[end] == '\r' && buffer_[end + 1] == '\n';
      const std::string_view line(buffer_.data() + at_, end - at_);
      line_offset_ = offset();
      at_ = end + (two ? 2 : 1);
      return line;
    }
    searched = (found ? end : buffer_.size()) - at_;
    if (fill()) continue;
    if (at_ == buffer_.size()) return std::nullopt;
    const std::string_view line(buffer_.data() + at_, searched);
    line_offset_ = offset();
    at_ = buffer_.size();
    return line;
  }
}

int TextReader::peek() {
  if (at_ == buffer_.size() && !fill()) return kEnd;
  return static_cast<unsigned char>(buffer_[at_]);
}

int TextReader::get() {
  const int byte = peek();
  if (byte != kEnd) ++at_;
  return byte;
}

void TextReader::seek(uint64_t offset) {
  if (gzseek(file_->handle, static_cast<z_off_t>(offset), SEEK_SET) < 0) {
    throw ConfigError(str(path_.string(), ": cannot be read from offset ", offset));
  }
  buffer_.clear();
  at_ = 0;
  start_ = offset;
}

uint64_t TextReader::file_bytes() const {
  const auto packed = gzoffset(file_->handle);  // of what was read ahead
  const auto ahead = static_cast<z_off_t>(gzdirect(file_->handle) != 0 ? buffer_.size() - at_ : 0);
  return static_cast<uint64_t>(std::max<z_off_t>(packed - ahead, 0));
}

}  // namespace zebra
