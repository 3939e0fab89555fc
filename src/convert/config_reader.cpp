#include "convert/config_reader.h"

#include "zebra/error.h"

namespace zebra {

ConfigReader::ConfigReader(const std::filesystem::path& file)
    : ConfigReader(read_json(file), file.string()) {}

ConfigReader::ConfigReader(json object, std::string where)
    : object_(std::move(object)), where_(std::move(where)) {
  if (!object_.is_object()) {
    throw ConfigError(str(where_, ": expected an object, got ", object_.type_name()));
  }
}

bool ConfigReader::has(const std::string& key) const {
  return object_.contains(key) && !object_.at(key).is_null();
}

int64_t ConfigReader::count(const std::string& key) const {
  const auto value = require<int64_t>(object_, key, where_);
  if (value <= 0) fail(key, "a positive integer");
  return value;
}

int64_t ConfigReader::count_or(const std::string& key, int64_t fallback) const {
  return has(key) ? count(key) : fallback;
}

double ConfigReader::positive_or(const std::string& key, double fallback) const {
  const double value = find_value<double>(object_, key, where_).value_or(fallback);
  if (!(value > 0)) fail(key, "a positive number");
  return value;
}

bool ConfigReader::flag_or(const std::string& key, bool fallback) const {
  return find_value<bool>(object_, key, where_).value_or(fallback);
}

std::string ConfigReader::text_or(const std::string& key, const std::string& fallback) const {
  return find_value<std::string>(object_, key, where_).value_or(fallback);
}

std::vector<int64_t> ConfigReader::integers_or(const std::string& key,
                                               std::vector<int64_t> fallback) const {
  return find_value<std::vector<int64_t>>(object_, key, where_).value_or(std::move(fallback));
}

ConfigReader ConfigReader::object(const std::string& key) const {
  const auto value = require<json>(object_, key, where_);
  if (!value.is_object()) fail(key, "an object");
  return {value, where_ + ": " + key};
}

void ConfigReader::expect(const std::string& key, const json& value, std::string_view why) const {
  if (has(key) && object_.at(key) != value) fail(key, str(value.dump(), " (", why, ")"));
}

void ConfigReader::fail(const std::string& key, std::string_view expected) const {
  fail_json(where_, key, expected,
            object_.contains(key) ? object_.at(key) : json(json::value_t::discarded));
}

}  // namespace zebra
