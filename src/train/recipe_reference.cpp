// Every key of a recipe as a Markdown table, and as a JSON schema.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/recipe_fields.h"
#include "zebra/recipe.h"

namespace zebra {

namespace {

using ordered_json = nlohmann::ordered_json;

bool is_required(const std::string& path) {
  const auto& keys = required_keys();
  return std::find(keys.begin(), keys.end(), path) != keys.end();
}

template <class T>
struct Inner {
  using Type = T;
};
template <class T>
struct Inner<std::optional<T>> {
  using Type = T;
};
template <class T>
struct Inner<std::vector<T>> {
  using Type = T;
};

template <class T>
std::string type_name() {
  using Item = typename Inner<T>::Type;
  if constexpr (IsListField<T>::value) {
    return "list of " + type_name<Item>() + (HasFields<Item> ? "" : "s");
  } else if constexpr (IsOptionalField<T>::value) {
    return type_name<Item>();
  } else if constexpr (HasFields<T>) {
    return "keys";
  } else if constexpr (std::is_enum_v<T>) {
    return enum_choices<T>();
  } else if constexpr (std::is_same_v<T, LayerChoice>) {
    return "list of integers, or keys";
  } else if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return "integer";
  } else {
    return std::is_same_v<T, double> ? "number" : "text";
  }
}

// The default as JSON; null where there is none.
template <class T>
ordered_json default_of(const T& value) {
  if constexpr (HasFields<T> || IsOptionalField<T>::value || std::is_same_v<T, LayerChoice>) {
    return nullptr;
  } else if constexpr (IsListField<T>::value) {
    return ordered_json::array();
  } else if constexpr (std::is_enum_v<T>) {
    return std::string(enum_name(value));
  } else {
    return value;
  }
}

// ---- Markdown

std::string default_text(const std::string& path, const ordered_json& value, bool optional) {
  if (is_required(path)) return "required";
  if (optional) return "absent";
  if (value.is_null()) return "";
  return "`" + (value.is_string() ? value.get<std::string>() : value.dump()) + "`";
}

// A bar would end the table's cell.
std::string cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2)
    text.insert(at, 1, '\\');
  return text;
}

template <HasFields T>
void add_rows(T& value, const std::string& path, std::string& text) {
  value.fields([&](const char* name, auto& field, const char* meaning) {
    using Field = std::remove_cvref_t<decltype(field)>;
    using Item = typename Inner<Field>::Type;
    const auto key = join_key(path, name);
    auto usual = default_text(key, default_of(field), IsOptionalField<Field>::value);
    if (usual == "``") usual = "empty";
    text +=
        "| `" + key + "` | " + type_name<Field>() + " | " + usual + " | " + cell(meaning) + " |\n";
    if constexpr (HasFields<Item>) {
      Item item{};
      add_rows(item, IsListField<Field>::value ? key + ".*" : key, text);
    }
  });
}

// ---- JSON schema

template <HasFields T>
ordered_json object_schema(T& value, const std::string& path);

template <class T>
ordered_json value_schema(const std::string& path) {
  using Item = typename Inner<T>::Type;
  if constexpr (HasFields<T>) {
    T value{};
    return object_schema(value, path);
  } else if constexpr (IsListField<T>::value) {
    return {{"type", "array"}, {"items", value_schema<Item>(path + ".*")}};
  } else if constexpr (IsOptionalField<T>::value) {
    auto schema = value_schema<Item>(path);
    if constexpr (!HasFields<Item>) schema["type"] = {schema["type"], "null"};
    return schema;
  } else if constexpr (std::is_enum_v<T>) {
    ordered_json names = ordered_json::array();
    for (const auto& entry : EnumNames<T>::names) names.push_back(std::string(entry.second));
    return {{"enum", names}};
  } else if constexpr (std::is_same_v<T, LayerChoice>) {
    const ordered_json smart = {
        {"type", "object"},
        {"properties", {{"select", {{"const", "smart"}}}, {"count", {{"type", "integer"}}}}},
        {"required", {"select", "count"}},
        {"additionalProperties", false}};
    return {{"oneOf", {value_schema<std::vector<int64_t>>(path), smart}}};
  } else if constexpr (std::is_same_v<T, bool>) {
    return {{"type", "boolean"}};
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return {{"type", "integer"}};
  } else {
    return {{"type", std::is_same_v<T, double> ? "number" : "string"}};
  }
}

template <HasFields T>
ordered_json object_schema(T& value, const std::string& path) {
  ordered_json properties = ordered_json::object(), required = ordered_json::array();
  value.fields([&](const char* name, auto& field, const char* meaning) {
    using Field = std::remove_cvref_t<decltype(field)>;
    const auto key = join_key(path, name);
    auto schema = value_schema<Field>(key);
    schema["description"] = meaning;
    if (is_required(key)) {
      required.push_back(name);
    } else if (const auto usual = default_of(field); !usual.is_null()) {
      schema["default"] = usual;
    }
    properties[name] = schema;
  });
  ordered_json schema = {{"type", "object"}, {"properties", properties}};
  if (!required.empty()) schema["required"] = required;
  schema["additionalProperties"] = false;
  return schema;
}

}  // namespace

std::string recipe_reference() {
  std::string text = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n";
  Recipe recipe;
  add_rows(recipe, "", text);
  return text;
}

std::string recipe_schema() {
  Recipe recipe;
  ordered_json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                         {"title", "zebra recipe"}};
  schema.update(object_schema(recipe, ""));
  return schema.dump(2) + "\n";
}

}  // namespace zebra
