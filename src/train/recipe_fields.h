// What the visitors over a recipe's fields share: kinds of fields, and paths of keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "zebra/recipe.h"

namespace zebra {

template <class T>
concept HasFields = requires(T& value) {
  value.fields([](const char*, auto&, const char*) {});
};

template <class T>
struct IsOptionalField : std::false_type {};
template <class T>
struct IsOptionalField<std::optional<T>> : std::true_type {};

template <class T>
struct IsListField : std::false_type {};
template <class T>
struct IsListField<std::vector<T>> : std::true_type {};

inline std::string join_key(const std::string& parent, const std::string& key) {
  return parent.empty() ? key : parent + "." + key;
}

// Keys that a file must give once the key above them is there; `*` stands for any entry of a list.
inline const std::vector<std::string>& required_keys() {
  static const std::vector<std::string> keys = {"name",
                                                "output",
                                                "base.model",
                                                "teacher.model",
                                                "data",
                                                "data.train",
                                                "data.train.*.path",
                                                "data.validation.*.path",
                                                "hybrid.mla_layers",
                                                "new_model.tokenizer",
                                                "eval.published.*.task",
                                                "stages.dpo.train"};
  return keys;
}

// "a, b or c"
template <class Enum>
std::string enum_choices() {
  std::string text;
  const auto& names = EnumNames<Enum>::names;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i > 0) text += i + 1 == names.size() ? " or " : ", ";
    text += names[i].second;
  }
  return text;
}

}  // namespace zebra
