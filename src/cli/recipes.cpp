// zebra recipes
#include <algorithm>

#include "base/file.h"
#include "cli/command.h"
#include "zebra/error.h"
#include "zebra/recipe.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

// The installed recipes lie beside the program; those of the source tree serve a build folder.
fs::path default_folder() {
  std::error_code ignored;
  const auto program = fs::read_symlink("/proc/self/exe", ignored);
  const auto installed = program.parent_path().parent_path() / "share/zebra/recipes";
  return fs::is_directory(installed, ignored) ? installed : fs::path(ZEBRA_SOURCE_RECIPES);
}

// Names such as tiny/quickstart, in order.
std::vector<std::string> names_in(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
    if (entry.path().extension() != ".yaml") continue;
    names.push_back(entry.path().lexically_relative(folder).replace_extension().string());
  }
  if (error || names.empty()) {
    throw ConfigError(str("recipes: expected YAML files in ", folder.string(), ", got ",
                          error ? error.message() : "none", "; name the folder with --recipes"));
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string text_of(const fs::path& folder, std::string name) {
  if (name.ends_with(".yaml")) name.resize(name.size() - 5);
  const auto names = names_in(folder);
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    const auto nearest = nearest_name(name, names);
    throw ConfigError(
        str("recipes: there is none named '", name, "'",
            nearest.empty() ? "; see zebra recipes list" : str("; did you mean '", nearest, "'?")));
  }
  return read_file(folder / (name + ".yaml"));
}

// The first line of a recipe is a comment that says what it does.
std::string title_of(const std::string& text) {
  return text.starts_with("# ") ? text.substr(2, text.find('\n') - 2) : "";
}

void list(const fs::path& folder) {
  const auto names = names_in(folder);
  size_t width = 0;
  for (const auto& name : names) width = std::max(width, name.size());
  for (const auto& name : names) {
    print(name + std::string(width + 2 - name.size(), ' ') + title_of(text_of(folder, name)) +
          "\n");
  }
}

void copy(const fs::path& folder, const std::string& name, const fs::path& target) {
  if (fs::exists(target)) {
    throw ConfigError(str(target.string(), ": exists already; remove it or choose another name"));
  }
  write_file_atomic(target, text_of(folder, name));
  print(target.string() + "\n");
}

struct RecipesFlags {
  fs::path folder = default_folder();
  std::string name, file;
};

}  // namespace

void add_recipes(CLI::App& app, Action& action) {
  auto flags = std::make_shared<RecipesFlags>();
  auto* verb =
      add_verb(app, "recipes", "The recipes that come with zebra, and what may stand in one",
               "zebra recipes copy zebra-llama/1b-4mla-12m2 my.yaml");
  verb->require_subcommand(1);
  verb->add_option("--recipes", flags->folder, "Another folder of recipes")->type_name("DIR");
  const auto set = [&action](CLI::App* part, Action todo) {
    part->callback([&action, todo] { action = todo; });
  };
  set(verb->add_subcommand("list", "Names and what each does"), [flags] { list(flags->folder); });

  auto* show = verb->add_subcommand("show", "Print one");
  show->add_option("name", flags->name)->required()->type_name("NAME");
  set(show, [flags] { print(text_of(flags->folder, flags->name)); });

  auto* copied = verb->add_subcommand("copy", "Write one to a new file");
  copied->add_option("name", flags->name)->required()->type_name("NAME");
  copied->add_option("file", flags->file)->required()->type_name("FILE");
  set(copied, [flags] { copy(flags->folder, flags->name, flags->file); });

  set(verb->add_subcommand("schema", "JSON schema of a recipe, for editors"),
      [] { print(recipe_schema()); });
  set(verb->add_subcommand("keys", "Markdown table of every key, its default and meaning"),
      [] { print(recipe_reference()); });
}

}  // namespace zebra
