#include "train/recipe_notes.h"

#include <algorithm>

namespace zebra {

namespace {

// "a.b.c" -> "a.b" -> "a" -> ""
std::string parent_of(const std::string& path) {
  const auto dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot);
}

}  // namespace

void RecipeNotes::place(const std::string& path, int line) { lines_[path] = line; }

int RecipeNotes::line_of(const std::string& path) const {
  for (auto key = path; !key.empty(); key = parent_of(key)) {
    if (overrides_.contains(key)) return 0;
  }
  for (auto key = path; !key.empty(); key = parent_of(key)) {
    if (const auto found = lines_.find(key); found != lines_.end()) return found->second;
  }
  const auto root = lines_.find("");
  return root == lines_.end() ? 1 : root->second;
}

bool RecipeNotes::failed(const std::string& path) const {
  return std::any_of(mistakes_.begin(), mistakes_.end(), [&](const RecipeMistake& mistake) {
    return mistake.path.empty() || mistake.path == path || path.starts_with(mistake.path + ".");
  });
}

void RecipeNotes::fail(const std::string& path, const std::string& message) {
  if (failed(path)) return;
  mistakes_.push_back({.line = line_of(path), .path = path, .message = message});
}

std::vector<RecipeMistake> RecipeNotes::mistakes() const {
  auto sorted = mistakes_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const auto& a, const auto& b) { return a.line < b.line; });
  return sorted;
}

}  // namespace zebra
