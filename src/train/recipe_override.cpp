#include "train/recipe_override.h"

#include <charconv>
#include <vector>

namespace zebra {

namespace {

struct Override {
  std::string path;
  std::vector<std::string> parts;
  YAML::Node value;
};

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= path.size();) {
    const auto end = std::min(path.find('.', begin), path.size());
    parts.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// An absent value removes the key. Handles to nodes are copied, never assigned: an assignment would
// change the tree.
void set_member(YAML::Node map, const std::string& name, const YAML::Node& value) {
  if (value.IsNull()) {
    map.remove(name);
  } else {
    map[name] = value;
  }
}

void descend(YAML::Node node, const Override& override, size_t depth, RecipeNotes& notes);

void descend_list(YAML::Node list, const Override& override, size_t depth, RecipeNotes& notes) {
  const auto& part = override.parts[depth];
  size_t index = 0;
  const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), index);
  if (error != std::errc() || stop != part.data() + part.size() || index >= list.size()) {
    return notes.fail(override.path,
                      str("expected an entry 0 to ", list.size() - 1, " of the list, got ", part));
  }
  if (depth + 1 == override.parts.size()) {
    list[index] = override.value;
  } else {
    descend(list[index], override, depth + 1, notes);
  }
}

void descend(YAML::Node node, const Override& override, size_t depth, RecipeNotes& notes) {
  const auto& part = override.parts[depth];
  if (node.IsSequence()) return descend_list(node, override, depth, notes);
  if (!node.IsMap()) {
    return notes.fail(override.path, str("there are no keys to set where '", part, "' would be"));
  }
  if (depth + 1 == override.parts.size()) return set_member(node, part, override.value);
  const auto& map = node;
  if (!map[part].IsDefined() || map[part].IsNull()) {
    node[part] = YAML::Node(YAML::NodeType::Map);
  }
  descend(node[part], override, depth + 1, notes);
}

}  // namespace

void apply_override(YAML::Node& root, const std::string& override, RecipeNotes& notes) {
  const auto equals = override.find('=');
  const bool complete = equals != std::string::npos && equals > 0;
  const auto path = complete ? override.substr(0, equals) : override;
  notes.overridden(path);
  if (!complete) return notes.fail(path, "expected key.path=value");
  try {
    descend(root, {path, split(path), YAML::Load(override.substr(equals + 1))}, 0, notes);
  } catch (const YAML::Exception& error) {
    notes.fail(path, str("not YAML: ", error.msg));
  }
}

}  // namespace zebra
