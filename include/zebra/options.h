// Options are plain structs with one list of their fields:
//
//   struct AdamOptions {
//     double beta1 = 0.9;
//     template <class Visitor> void fields(Visitor&& visit) { visit("beta1", beta1, "Decay of the
//     first moment."); }
//   };
//
// Reading YAML, writing the resolved recipe, the schema, the documentation and the check for
// unknown keys are visitors over that list. A field is a bool, int64_t, double, std::string, an
// enum with names, a std::optional or std::vector of those, or another struct with fields.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace zebra {

// Specialised beside each enum: static constexpr std::array<std::pair<Enum, std::string_view>, n>
// names.
template <class Enum>
struct EnumNames;

template <class Enum>
std::string_view enum_name(Enum value) {
  for (const auto& [candidate, name] : EnumNames<Enum>::names) {
    if (candidate == value) return name;
  }
  return "?";
}

// A mistake in a recipe, with the place where it was made.
struct RecipeMistake {
  int line = 0;         // 1-based; 0: not known (an override from the command line)
  std::string path;     // dotted key
  std::string message;  // expected and got, nearest key
};

// The name in `known` that is nearest to `word` by edit distance, or "" when none is near.
std::string nearest_name(std::string_view word, const std::vector<std::string>& known);

}  // namespace zebra
