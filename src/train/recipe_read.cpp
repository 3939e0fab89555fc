#include "train/recipe_read.h"

#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <map>

#include "train/recipe_fields.h"
#include "train/recipe_override.h"

namespace zebra {

namespace {

int line_of(const YAML::Node& node) { return node.Mark().line + 1; }

bool is_quoted(const YAML::Node& node) { return node.Tag() == "!"; }

// What stands in the file, for "expected X, got Y".
std::string shown(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Scalar:
      return is_quoted(node) ? str("the text '", node.Scalar(), "'") : node.Scalar();
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Map:
      return "keys below it";
    default:
      return "nothing";
  }
}

void fail_type(const YAML::Node& node, const std::string& path, const std::string& expected,
               RecipeNotes& notes) {
  notes.fail(path, str("expected ", expected, ", got ", shown(node)));
}

template <class Number>
bool parse_whole(const std::string& text, Number& number) {
  const auto* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end;
}

// An integer may be written as 1.5e6 as long as it is one.
bool parse_integer(const std::string& text, int64_t& number) {
  if (parse_whole(text, number)) return true;
  constexpr double kExact = 9007199254740992.0;  // 2^53
  double real = 0;
  if (!parse_whole(text, real) || std::abs(real) > kExact || real != std::floor(real)) return false;
  number = static_cast<int64_t>(real);
  return true;
}

void read(const YAML::Node& node, const std::string& path, int64_t& value, RecipeNotes& notes) {
  if (!node.IsScalar() || is_quoted(node) || !parse_integer(node.Scalar(), value)) {
    fail_type(node, path, "an integer", notes);
  }
}

void read(const YAML::Node& node, const std::string& path, double& value, RecipeNotes& notes) {
  double number = 0;
  if (!node.IsScalar() || is_quoted(node) || !parse_whole(node.Scalar(), number) ||
      !std::isfinite(number)) {
    return fail_type(node, path, "a number", notes);
  }
  value = number;
}

void read(const YAML::Node& node, const std::string& path, bool& value, RecipeNotes& notes) {
  const bool scalar = node.IsScalar() && !is_quoted(node);
  if (!scalar || (node.Scalar() != "true" && node.Scalar() != "false")) {
    return fail_type(node, path, "true or false", notes);
  }
  value = node.Scalar() == "true";
}

void read(const YAML::Node& node, const std::string& path, std::string& value, RecipeNotes& notes) {
  if (!node.IsScalar()) return fail_type(node, path, "a text", notes);
  value = node.Scalar();
}

template <class Enum>
requires std::is_enum_v<Enum>
void read(const YAML::Node& node, const std::string& path, Enum& value, RecipeNotes& notes) {
  if (node.IsScalar()) {
    for (const auto& [candidate, name] : EnumNames<Enum>::names) {
      if (node.Scalar() != name) continue;
      value = candidate;
      return;
    }
  }
  fail_type(node, path, enum_choices<Enum>(), notes);
}

template <HasFields T>
void read(const YAML::Node& node, const std::string& path, T& value, RecipeNotes& notes);

template <class T>
void read(const YAML::Node& node, const std::string& path, std::vector<T>& value,
          RecipeNotes& notes) {
  if (!node.IsSequence()) return fail_type(node, path, "a list", notes);
  value.clear();
  for (size_t i = 0; i < node.size(); ++i) {
    const auto key = join_key(path, std::to_string(i));
    notes.place(key, line_of(node[i]));
    T item{};
    read(node[i], key, item, notes);
    value.push_back(std::move(item));
  }
}

template <class T>
void read(const YAML::Node& node, const std::string& path, std::optional<T>& value,
          RecipeNotes& notes) {
  if (node.IsNull()) {
    value.reset();
    if constexpr (HasFields<T>) {
      notes.fail(path, "expected keys below it, got nothing; remove it, or write {} for defaults");
    }
    return;
  }
  T item{};
  read(node, path, item, notes);
  value = std::move(item);
}

// The keys of a map, each once.
std::map<std::string, YAML::Node> members_of(const YAML::Node& node, const std::string& path,
                                             RecipeNotes& notes) {
  std::map<std::string, YAML::Node> members;
  std::map<std::string, int> first_lines;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      notes.fail(path, str("expected names as keys, got ", shown(entry.first)));
      continue;
    }
    const auto& name = entry.first.Scalar();
    const auto key = join_key(path, name);
    const int line = line_of(entry.first);
    const auto [first, fresh] = first_lines.emplace(name, line);
    notes.place(key, line);
    if (!fresh) notes.fail(key, str("the key stands twice, first in line ", first->second));
    members.emplace(name, entry.second);
  }
  return members;
}

std::string unknown_key(const std::string& name, const std::vector<std::string>& known) {
  const auto nearest = nearest_name(name, known);
  if (!nearest.empty()) return str("unknown key '", name, "'; did you mean '", nearest, "'?");
  std::string all;
  for (const auto& key : known) all += (all.empty() ? "" : ", ") + key;
  return str("unknown key '", name, "'; known here: ", all);
}

// The map form of `mla_layers`.
struct LayerSelectionMap {
  LayerSelection select = LayerSelection::kList;
  std::optional<int64_t> count;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("select", select, "smart.");
    visit("count", count, "Number of MLA layers.");
  }
};

void read(const YAML::Node& node, const std::string& path, LayerChoice& value, RecipeNotes& notes) {
  if (node.IsSequence()) return read(node, path, value.indices, notes);
  if (!node.IsMap()) {
    return fail_type(node, path, "a list of layers, or {select: smart, count: n}", notes);
  }
  LayerSelectionMap choice;
  read(node, path, choice, notes);
  if (notes.failed(path + ".select") || notes.failed(path + ".count")) return;
  if (choice.select != LayerSelection::kSmart) {
    return notes.fail(path, "expected select: smart, or the list of layers itself");
  }
  if (!choice.count) return notes.fail(path + ".count", "the key is missing");
  value.smart_count = choice.count;
}

template <HasFields T>
void read(const YAML::Node& node, const std::string& path, T& value, RecipeNotes& notes) {
  if (!node.IsMap()) return fail_type(node, path, "keys below it", notes);
  auto members = members_of(node, path, notes);
  std::vector<std::string> known;
  value.fields([&](const char* name, auto& field, const char* /*meaning*/) {
    known.emplace_back(name);
    const auto found = members.find(name);
    if (found == members.end()) return;
    read(found->second, join_key(path, name), field, notes);
    members.erase(found);
  });
  for (const auto& [name, unused] : members) {
    notes.fail(join_key(path, name), unknown_key(name, known));
  }
}

// Notes the key `wanted` below `node` where it is absent and the one above it is there.
void check_required(const YAML::Node& node, const std::string& path, const std::string& wanted,
                    RecipeNotes& notes) {
  const auto dot = wanted.find('.');
  const auto name = wanted.substr(0, dot);
  const auto rest = dot == std::string::npos ? "" : wanted.substr(dot + 1);
  if (name == "*") {
    for (size_t i = 0; node.IsSequence() && i < node.size(); ++i) {
      check_required(node[i], join_key(path, std::to_string(i)), rest, notes);
    }
    return;
  }
  if (!node.IsMap()) return;
  const auto below = node[name];
  if (below.IsDefined()) {
    if (!rest.empty()) check_required(below, join_key(path, name), rest, notes);
  } else if (rest.empty()) {
    notes.fail(join_key(path, name), "the key is missing");
  }
}

YAML::Node parse_yaml(const std::string& text, RecipeNotes& notes) {
  try {
    const auto documents = YAML::LoadAll(text);
    if (documents.size() > 1) {
      notes.place("", line_of(documents[1]));
      notes.fail("", "expected one recipe a file, got a second document");
      return {};
    }
    if (documents.empty() || !documents[0].IsMap()) {
      notes.fail(
          "", str("expected a recipe, got ", documents.empty() ? "nothing" : shown(documents[0])));
      return {};
    }
    return documents[0];
  } catch (const YAML::Exception& error) {
    notes.place("", error.mark.line + 1);
    notes.fail("", str("not YAML: ", error.msg, " (column ", error.mark.column + 1, ")"));
    return {};
  }
}

}  // namespace

Recipe read_recipe_text(const std::string& text, const std::vector<std::string>& overrides,
                        RecipeNotes& notes) {
  Recipe recipe;
  auto root = parse_yaml(text, notes);
  if (!root.IsMap()) return recipe;
  for (const auto& override : overrides) apply_override(root, override, notes);
  read(root, "", recipe, notes);
  for (const auto& key : required_keys()) check_required(root, "", key, notes);
  return recipe;
}

}  // namespace zebra
