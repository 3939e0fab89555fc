// A JSON object of a configuration file, read with errors that name file and key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"

namespace zebra {

class ConfigReader {
 public:
  explicit ConfigReader(const std::filesystem::path& file);

  bool has(const std::string& key) const;       // there, and not null
  int64_t count(const std::string& key) const;  // a positive integer
  int64_t count_or(const std::string& key, int64_t fallback) const;
  double positive_or(const std::string& key, double fallback) const;  // a positive number
  bool flag_or(const std::string& key, bool fallback) const;
  std::string text_or(const std::string& key, const std::string& fallback) const;
  std::vector<int64_t> integers_or(const std::string& key, std::vector<int64_t> fallback) const;
  ConfigReader object(const std::string& key) const;  // its errors name this key too

  // ConfigError unless the key is absent or holds this value; `why` says where it comes from.
  void expect(const std::string& key, const json& value, std::string_view why) const;
  [[noreturn]] void fail(const std::string& key, std::string_view expected) const;

  const json& value() const { return object_; }
  const std::string& where() const { return where_; }

 private:
  ConfigReader(json object, std::string where);

  json object_;
  std::string where_;
};

}  // namespace zebra
