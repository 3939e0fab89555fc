#include "data/records.h"

#include <glob.h>

#include <algorithm>

#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

bool blank(std::string_view line) {
  return line.find_first_not_of(" \t") == std::string_view::npos;
}

bool is_space(int byte) { return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r'; }

void skip_spaces(TextReader& reader) {
  while (is_space(reader.peek())) reader.get();
}

std::string invalid_utf8(const std::string& where, uint64_t offset) {
  return str(where, ": expected UTF-8, got an invalid byte at offset ", offset);
}

// Its braces would be learnt as text.
void refuse_json(const std::vector<fs::path>& files) {
  for (const auto& file : files) {
    const auto name = file.extension() == ".gz" ? file.stem() : file.filename();
    if (name.extension() != ".jsonl" && name.extension() != ".json") continue;
    throw ConfigError(str(file.string(),
                          ": expected plain text, got JSON by its name; choose the format jsonl, "
                          "messages, conversations or prompt_completion"));
  }
}

}  // namespace

std::vector<fs::path> expand_glob(const std::string& pattern) {
  if (fs::is_directory(pattern)) {
    throw ConfigError(str("data: expected a file, got ", pattern, ", which is a folder"));
  }
  if (fs::is_regular_file(pattern)) return {pattern};
  if (fs::exists(pattern)) {
    throw ConfigError(str("data: expected a plain file, got ", pattern));
  }
  if (pattern.find_first_of("*?[") == std::string::npos) {
    throw ConfigError(str("data: expected a file, got ", pattern, ", which does not exist"));
  }
  glob_t found{};  // in the order of the user's language; sorted below
  std::vector<fs::path> files;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  globfree(&found);
  std::erase_if(files, [](const auto& file) { return !fs::is_regular_file(file); });
  if (files.empty()) throw ConfigError(str("data: expected files, got none that match ", pattern));
  std::sort(files.begin(), files.end());
  return files;
}

std::string read_text(const fs::path& file) {
  TextReader reader(file);
  std::string text;
  uint64_t end = reader.offset();
  while (const auto line = reader.line()) {
    const auto bad = find_invalid_utf8(*line);
    if (bad != std::string_view::npos) {
      throw ConfigError(invalid_utf8(file.string(), reader.line_offset() + bad));
    }
    text += *line;
    end = reader.line_offset() + line->size();
    text += '\n';
  }
  if (!text.empty() && end == reader.offset()) text.pop_back();  // the last line has no end
  return text;
}

RecordReader::RecordReader(std::vector<fs::path> files, RecordKind kind, Place start)
    : files_(std::move(files)), kind_(kind), place_(start) {
  for (size_t i = 0; i < files_.size(); ++i) {
    const uint64_t bytes = fs::file_size(files_[i]);
    total_ += bytes;
    if (i < start.file) before_ += bytes;
  }
  if (kind_ != RecordKind::kJson) refuse_json(files_);
  if (start.offset > 0) open();  // so that bytes_read() tells what lies before the place
}

uint64_t RecordReader::bytes_read() const {
  return before_ + (reader_ ? reader_->file_bytes() : 0);
}

std::string RecordReader::here() const { return files_[place_.file].string(); }

void RecordReader::check_utf8(std::string_view text, uint64_t offset) const {
  const auto bad = find_invalid_utf8(text);
  if (bad != std::string_view::npos) throw ConfigError(invalid_utf8(here(), offset + bad));
}

bool RecordReader::open() {
  if (reader_) return true;
  if (place_.file >= files_.size()) return false;
  reader_ = std::make_unique<TextReader>(files_[place_.file]);
  if (kind_ == RecordKind::kJson) {
    const uint64_t begin = reader_->offset();
    skip_spaces(*reader_);
    array_ = reader_->peek() == '[';
    reader_->seek(begin);
  }
  if (place_.offset > 0) reader_->seek(place_.offset);
  return true;
}

void RecordReader::close() {
  reader_.reset();
  before_ += fs::file_size(files_[place_.file]);
  place_ = {.file = place_.file + 1, .offset = 0, .number = 0};
}

std::optional<Record> RecordReader::next() {
  if (kind_ == RecordKind::kFile) {
    if (place_.file >= files_.size()) return std::nullopt;
    Record record{.text = read_text(files_[place_.file]), .where = here(), .error = ""};
    close();
    return record;
  }
  while (open()) {
    auto record = kind_ == RecordKind::kStories ? next_story() : array_ ? next_item() : next_line();
    if (record) {
      place_.offset = reader_->offset();
      return record;
    }
    close();
  }
  return std::nullopt;
}

std::optional<Record> RecordReader::next_story() {
  Record record;
  bool open = false;
  while (const auto line = reader_->line()) {
    ++place_.number;
    check_utf8(*line, reader_->line_offset());
    if (blank(*line)) {
      if (open) return record;
    } else if (open) {
      record.text.append("\n").append(*line);
    } else {
      record.text = *line;
      record.where = str(here(), ":", place_.number);
      open = true;
    }
  }
  return open ? std::optional(record) : std::nullopt;
}

std::optional<Record> RecordReader::next_line() {
  while (const auto line = reader_->line()) {
    ++place_.number;
    if (blank(*line)) continue;
    Record record{
        .text = std::string(*line), .where = str(here(), ":", place_.number), .error = ""};
    const auto bad = find_invalid_utf8(*line);
    if (bad != std::string_view::npos) {
      record.error = invalid_utf8(record.where, reader_->line_offset() + bad);
    }
    return record;
  }
  return std::nullopt;
}

std::optional<Record> RecordReader::next_item() {
  const auto after = place_.number == 0 ? std::string("at the list's beginning")
                                        : str("after item ", place_.number);
  skip_spaces(*reader_);
  const int mark = reader_->get();  // what stands before an item
  skip_spaces(*reader_);
  const bool empty = place_.number == 0 && reader_->peek() == ']';
  if (mark == ']' || empty) {
    if (empty) reader_->get();
    skip_spaces(*reader_);
    if (reader_->peek() == TextReader::kEnd) return std::nullopt;
    throw ConfigError(str(here(), ": expected JSON: nothing after the list's end, got more"));
  }
  if (mark != (place_.number == 0 ? '[' : ',')) {
    throw ConfigError(str(here(), ": expected JSON: a comma or ] ", after, ", got ",
                          mark == TextReader::kEnd ? "the end of the file" : "something else"));
  }
  const uint64_t offset = reader_->offset();
  Record record{.text = item_text(), .where = "", .error = ""};
  record.where = str(here(), ": item ", ++place_.number);
  const auto bad = find_invalid_utf8(record.text);
  if (bad != std::string_view::npos) record.error = invalid_utf8(record.where, offset + bad);
  return record;
}

// Up to the comma or bracket that ends an item.
std::string RecordReader::item_text() {
  std::string text;
  int depth = 0;
  bool quoted = false;
  for (int byte = reader_->peek(); byte != TextReader::kEnd; byte = reader_->peek()) {
    if (!quoted && depth == 0 && (byte == ',' || byte == ']')) break;
    text += static_cast<char>(reader_->get());
    if (quoted && byte == '\\') {
      if (reader_->peek() != TextReader::kEnd) text += static_cast<char>(reader_->get());
    } else if (byte == '"') {
      quoted = !quoted;
    } else if (!quoted && (byte == '[' || byte == '{')) {
      ++depth;
    } else if (!quoted && (byte == ']' || byte == '}')) {
      --depth;
    }
  }
  return text;
}

}  // namespace zebra
