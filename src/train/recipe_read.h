// YAML into a recipe.
#pragma once

#include <string>
#include <vector>

#include "train/recipe_notes.h"
#include "zebra/recipe.h"

namespace zebra {

// Reads what can be read; every key that cannot be is noted, as are unknown, doubled and missing
// ones.
Recipe read_recipe_text(const std::string& text, const std::vector<std::string>& overrides,
                        RecipeNotes& notes);

}  // namespace zebra
