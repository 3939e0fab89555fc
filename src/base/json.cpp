#include "base/json.h"

#include <algorithm>

#include "base/file.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr size_t kShown = 60;  // characters of a wrong value
constexpr std::string_view kFirstLine = "line 1, ";
constexpr int kDeepest = 1000;  // lists and objects within each other

std::string shown(const json& value) {
  if (value.is_discarded()) return "none";
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return text;
}

}  // namespace

json parse_json(std::string_view text, const std::string& where) {
  const auto deep = [&](int depth, json::parse_event_t /*event*/, json& /*value*/) {
    if (depth <= kDeepest) return true;
    throw ConfigError(str(where, ": expected JSON of at most ", kDeepest, " levels, got more"));
  };
  try {
    // The check slows reading down, and few texts need it.
    const auto brackets =
        std::count_if(text.begin(), text.end(), [](char c) { return c == '[' || c == '{'; });
    return brackets <= kDeepest ? json::parse(text) : json::parse(text, deep);
  } catch (const json::exception& error) {
    const std::string message =
        error.what();  // "[json.exception.parse_error.101] parse error at line ..."
    const auto end = message.find("] ");
    auto reason = end == std::string::npos ? message : message.substr(end + 2);
    const auto line = reason.find(kFirstLine);  // of one line, whose place `where` tells
    if (line != std::string::npos && text.find('\n') == std::string_view::npos) {
      reason.erase(line, kFirstLine.size());
    }
    throw ConfigError(str(where, ": expected JSON: ", reason));
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
