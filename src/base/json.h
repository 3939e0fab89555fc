// JSON files with errors that say where.
#pragma once

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace zebra {

using json = nlohmann::json;

// `where` begins the text of a ConfigError, which then gives line and column.
json parse_json(std::string_view text, const std::string& where);

// A whole file. ConfigError also when it cannot be read.
json read_json(const std::filesystem::path& file);

// Throws the ConfigError "where: key: expected X, got Y".
[[noreturn]] void fail_json(const std::string& where, const std::string& key,
                            std::string_view expected, const json& got);

namespace detail {

template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

// `key` is the full name for the error text, such as "rope_scaling.factor".
template <class T>
T json_to(const json& value, const std::string& key, const std::string& where) {
  if constexpr (std::is_same_v<T, json>) {
    return value;
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) fail_json(where, key, "true or false", value);
    return value.get<bool>();
  } else if constexpr (std::integral<T>) {
    const bool fits = value.is_number_unsigned()
                          ? std::in_range<T>(value.get<uint64_t>())
                          : value.is_number_integer() && std::in_range<T>(value.get<int64_t>());
    if (!fits) fail_json(where, key, "an integer in range", value);
    return value.get<T>();
  } else if constexpr (std::floating_point<T>) {
    if (!value.is_number()) fail_json(where, key, "a number", value);
    return value.get<T>();
  } else if constexpr (IsVector<T>::value) {
    if (!value.is_array()) fail_json(where, key, "a list", value);
    T result;
    for (const auto& item : value) {
      result.push_back(json_to<typename T::value_type>(item, key, where));
    }
    return result;
  } else {
    static_assert(std::is_same_v<T, std::string>, "no such JSON value");
    if (!value.is_string()) fail_json(where, key, "a string", value);
    return value.get<std::string>();
  }
}

}  // namespace detail

// The value at `key`; none, or one of another type, is a ConfigError that names `where` and the
// key.
template <class T>
T require(const json& object, const std::string& key, const std::string& where) {
  if (!object.is_object()) fail_json(where, key, "an object around it", object);
  const auto found = object.find(key);
  if (found == object.end()) fail_json(where, key, "a value", json(json::value_t::discarded));
  return detail::json_to<T>(*found, key, where);
}

// nullopt where the key is absent or null; another type is a ConfigError.
template <class T>
std::optional<T> find_value(const json& object, const std::string& key, const std::string& where) {
  if (!object.is_object()) fail_json(where, key, "an object around it", object);
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return detail::json_to<T>(*found, key, where);
}

}  // namespace zebra
