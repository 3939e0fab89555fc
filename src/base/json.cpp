#include "base/json.h"

#include "base/file.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr size_t kShown = 60;  // characters of a wrong value

std::string shown(const json& value) {
  if (value.is_discarded()) return "none";
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return text;
}

}  // namespace

json parse_json(std::string_view text, const std::string& where) {
  try {
    return json::parse(text);
  } catch (const json::exception& error) {
    const std::string message =
        error.what();  // "[json.exception.parse_error.101] parse error at line ..."
    const auto end = message.find("] ");
    throw ConfigError(str(
        where, ": expected JSON: ", end == std::string::npos ? message : message.substr(end + 2)));
  }
}

json read_json(const std::filesystem::path& file) {
  return parse_json(read_file(file), file.string());
}

void fail_json(const std::string& where, const std::string& key, std::string_view expected,
               const json& got) {
  throw ConfigError(str(where, ": ", key, ": expected ", expected, ", got ", shown(got)));
}

}  // namespace zebra
