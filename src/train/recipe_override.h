// key.path=value of the command line.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>

#include "train/recipe_notes.h"

namespace zebra {

// Puts the value into the tree, with what is missing above it. What cannot be done is noted.
void apply_override(YAML::Node& root, const std::string& override, RecipeNotes& notes);

}  // namespace zebra
