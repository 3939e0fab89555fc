#include "zebra/recipe.h"

#include "base/file.h"
#include "train/recipe_check.h"
#include "train/recipe_read.h"
#include "zebra/error.h"

namespace zebra {

namespace {

Recipe read_noting(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                   RecipeNotes& notes) {
  auto recipe = read_recipe_text(read_file(path), overrides, notes);
  check_rules(recipe, notes);
  return recipe;
}

// FILE:LINE: key.path: message
std::string shown(const std::filesystem::path& file, const RecipeMistake& mistake) {
  std::string text = file.string();
  if (mistake.line > 0) text += ":" + std::to_string(mistake.line);
  if (!mistake.path.empty()) text += ": " + mistake.path;
  return text + ": " + mistake.message;
}

}  // namespace

Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  RecipeNotes notes;
  auto recipe = read_noting(path, overrides, notes);
  std::string text;
  for (const auto& mistake : notes.mistakes()) {
    text += (text.empty() ? "" : "\n") + shown(path, mistake);
  }
  if (!text.empty()) throw ConfigError(text);
  return recipe;
}

std::vector<RecipeMistake> check_recipe(const std::filesystem::path& path,
                                        const std::vector<std::string>& overrides) {
  RecipeNotes notes;
  read_noting(path, overrides, notes);
  return notes.mistakes();
}

}  // namespace zebra
