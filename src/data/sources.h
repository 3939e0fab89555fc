// Reading documents from the file formats of SourceFormat.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "zebra/dataset.h"

namespace zebra {

// A whole file that must be UTF-8. A leading byte order mark is dropped, and lines end in \n
// whatever they ended in (\r\n, \r). Anything else is a ConfigError that names the file and the
// offset of the first wrong byte.
std::string read_text(const std::filesystem::path& file);

// The file `pattern` names, or all files that the glob matches, sorted. None is a ConfigError.
std::vector<std::filesystem::path> expand_glob(const std::string& pattern);

// One JSON value of a file, and where it stands: "file:12" or, in an array, "file: item 12".
struct JsonRecord {
  json value;
  std::string where;
};
// JSON lines, blank ones left out, or the items of one JSON array.
std::vector<JsonRecord> read_json_records(const std::filesystem::path& file);

struct Message {
  std::string role;  // system, user or assistant
  std::string content;
  bool operator==(const Message&) const = default;
};
// A list of {role, content} or {from, value}; `where` begins the error text.
std::vector<Message> parse_messages(const json& list, const std::string& where);
Message parse_message(const json& item, const std::string& where);

// "System: ...", "User: ...", "Assistant: ...", one message a line. No chat template.
std::string render_plain(const std::vector<Message>& messages);

// The documents of a source in file order, none empty.
std::vector<std::string> read_documents(const SourceOptions& source);

}  // namespace zebra
