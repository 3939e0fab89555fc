// What must hold between the values of a recipe.
#pragma once

#include "train/recipe_notes.h"
#include "zebra/recipe.h"

namespace zebra {

// Notes every rule that is broken. Values that could not be read are left out.
void check_rules(const Recipe& recipe, RecipeNotes& notes);

}  // namespace zebra
