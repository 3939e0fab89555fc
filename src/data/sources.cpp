#include "data/sources.h"

#include <glob.h>
#include <utf8proc.h>

#include <algorithm>

#include "base/file.h"
#include "zebra/error.h"

namespace zebra {
namespace {

// Offset of the first byte that is not part of a well-formed character, or npos.
size_t find_invalid_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  size_t at = 0;
  while (at < text.size()) {
    utf8proc_int32_t code = 0;
    const auto length =
        utf8proc_iterate(bytes + at, static_cast<utf8proc_ssize_t>(text.size() - at), &code);
    if (length <= 0) return at;
    at += static_cast<size_t>(length);
  }
  return std::string_view::npos;
}

// Every \r\n and every other \r as \n.
std::string with_line_feeds(std::string text) {
  size_t size = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') continue;
    text[size++] = text[i] == '\r' ? '\n' : text[i];
  }
  text.resize(size);
  return text;
}

bool blank(std::string_view line) {
  return line.find_first_not_of(" \t") == std::string_view::npos;
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    lines.push_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

std::vector<std::string> split_stories(const std::string& text) {
  std::vector<std::string> stories;
  bool open = false;  // whether the last story still grows
  for (const auto line : split_lines(text)) {
    if (blank(line)) {
      open = false;
    } else if (open) {
      stories.back().append("\n").append(line);
    } else {
      stories.emplace_back(line);
      open = true;
    }
  }
  return stories;
}

std::string shown_role(const std::string& role) {
  if (role == "system") return "System";
  return role == "user" ? "User" : "Assistant";
}

}  // namespace

std::string read_text(const std::filesystem::path& file) {
  auto text = read_file(file);
  const auto bad = find_invalid_utf8(text);
  if (bad != std::string::npos) {
    throw ConfigError(str(file.string(), ": expected UTF-8, got an invalid byte at offset ", bad));
  }
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  return with_line_feeds(std::move(text));
}

std::vector<std::filesystem::path> expand_glob(const std::string& pattern) {
  if (std::filesystem::is_directory(pattern)) {
    throw ConfigError(str("data: expected a file, got ", pattern, ", which is a folder"));
  }
  if (std::filesystem::exists(pattern)) return {pattern};
  if (pattern.find_first_of("*?[") == std::string::npos) {
    throw ConfigError(str("data: expected a file, got ", pattern, ", which does not exist"));
  }
  glob_t found{};  // in the order of the user's language; sorted below
  std::vector<std::filesystem::path> files;
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    files.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  globfree(&found);
  std::erase_if(files, [](const auto& file) { return std::filesystem::is_directory(file); });
  if (files.empty()) throw ConfigError(str("data: expected files, got none that match ", pattern));
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<JsonRecord> read_json_records(const std::filesystem::path& file) {
  const auto text = read_text(file);
  std::vector<JsonRecord> records;
  const auto start = text.find_first_not_of(" \t\n");
  if (start != std::string::npos && text[start] == '[') {
    auto items = parse_json(text, file.string());
    int64_t number = 0;
    for (auto& item : items) {
      records.push_back({std::move(item), str(file.string(), ": item ", ++number)});
    }
    return records;
  }
  int64_t number = 0;
  for (const auto line : split_lines(text)) {
    const auto where = str(file.string(), ":", ++number);
    if (!blank(line)) records.push_back({parse_json(line, where), where});
  }
  return records;
}

Message parse_message(const json& item, const std::string& where) {
  if (!item.is_object()) fail_json(where, "message", "an object", item);
  auto role = require<std::string>(item, item.contains("from") ? "from" : "role", where);
  if (role == "human") role = "user";
  if (role == "gpt") role = "assistant";
  if (role != "system" && role != "user" && role != "assistant") {
    fail_json(where, "role", "system, user or assistant", role);
  }
  return {role, require<std::string>(item, item.contains("value") ? "value" : "content", where)};
}

std::vector<Message> parse_messages(const json& list, const std::string& where) {
  if (!list.is_array() || list.empty()) fail_json(where, "messages", "a list of messages", list);
  std::vector<Message> messages;
  for (const auto& item : list) messages.push_back(parse_message(item, where));
  return messages;
}

std::string render_plain(const std::vector<Message>& messages) {
  std::string text;
  for (const auto& message : messages) {
    if (!text.empty()) text += "\n";
    text += shown_role(message.role) + ": " + message.content;
  }
  return text;
}

std::vector<std::string> read_documents(const SourceOptions& source) {
  std::vector<std::string> documents;
  for (const auto& file : expand_glob(source.path)) {
    if (source.format == SourceFormat::kText) {
      documents.push_back(read_text(file));
    } else if (source.format == SourceFormat::kStories) {
      for (auto& story : split_stories(read_text(file))) documents.push_back(std::move(story));
    } else {
      for (const auto& record : read_json_records(file)) {
        documents.push_back(
            source.format == SourceFormat::kJsonl
                ? require<std::string>(record.value, "text", record.where)
                : render_plain(parse_messages(require<json>(record.value, "messages", record.where),
                                              record.where)));
      }
    }
  }
  std::erase_if(documents, [](const auto& text) { return text.empty(); });
  return documents;
}

}  // namespace zebra
