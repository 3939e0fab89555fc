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

}  // namespace

std::string recipe_mistake_text(const std::filesystem::path& path, const RecipeMistake& mistake) {
  const auto key = mistake.path.empty() ? "" : mistake.path + ": ";
  if (mistake.line > 0) return str(path.string(), ":", mistake.line, ": ", key, mistake.message);
  return str(mistake.path.empty() ? "" : "--set ", key, mistake.message);
}

Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides) {
  RecipeNotes notes;
  auto recipe = read_noting(path, overrides, notes);
  std::string text;
  for (const auto& mistake : notes.mistakes()) {
    text += (text.empty() ? "" : "\n") + recipe_mistake_text(path, mistake);
  }
  if (!text.empty()) throw ConfigError(text);
  return recipe;
}

bool ranks_divide(const Recipe& recipe, int64_t ranks) {
  const auto divides = [&](const auto& stage) { return !stage || stage->batch_size % ranks == 0; };
  const auto& stages = recipe.stages;
  return divides(stages.pretrain) && divides(stages.ild) && divides(stages.distill) &&
         divides(stages.dpo);
}

std::vector<RecipeMistake> check_recipe(const std::filesystem::path& path,
                                        const std::vector<std::string>& overrides) {
  try {
    RecipeNotes notes;
    read_noting(path, overrides, notes);
    return notes.mistakes();
  } catch (const ConfigError& error) {  // the file cannot be read; the text names it
    return {{.line = 0, .path = "", .message = error.what()}};
  }
}

}  // namespace zebra
