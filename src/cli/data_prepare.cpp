// zebra data prepare
#include <ATen/Parallel.h>

#include <iomanip>
#include <sstream>
#include <thread>

#include "base/signals.h"
#include "cli/command.h"
#include "train/recipe_data.h"
#include "zebra/prepare.h"
#include "zebra/recipe.h"

namespace zebra {

namespace {

struct PrepareFlags {
  std::string recipe, root;
  std::vector<std::string> overrides;
  int64_t threads = 0;
  bool fresh = false, json = false;
};

nlohmann::ordered_json facts(const PreparePlan& plan, const PreparedSource& source) {
  const double megabytes = static_cast<double>(source.made_bytes) / 1e6;
  nlohmann::ordered_json json = {{"role", plan.role},
                                 {"path", plan.source.path},
                                 {"folder", source.folder.string()},
                                 {"documents", source.documents},
                                 {"tokens", source.tokens},
                                 {"text_bytes", source.text_bytes},
                                 {"bad_lines", source.bad_records},
                                 {"seconds", source.seconds}};
  if (source.seconds > 0) json["megabytes_per_second"] = megabytes / source.seconds;
  return json;
}

std::string line_of(const nlohmann::ordered_json& source) {
  std::ostringstream out;
  out << source["path"].get<std::string>() << ": " << source["documents"] << " documents, "
      << source["tokens"] << " tokens";
  if (source["bad_lines"] != 0) out << ", " << source["bad_lines"] << " bad lines left out";
  out << std::fixed << std::setprecision(1);
  if (source.contains("megabytes_per_second")) {
    out << " (" << source["seconds"].get<double>() << " s, "
        << source["megabytes_per_second"].get<double>() << " MB/s of text)";
  } else {
    out << " (all there)";
  }
  return out.str() + "\n";
}

void prepare_recipe(const PrepareFlags& flags) {
  const auto recipe = read_recipe(flags.recipe, flags.overrides);
  const auto wanted = flags.threads > 0 ? flags.threads : recipe.threads;
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  at::set_num_threads(static_cast<int>(wanted > 0 ? wanted : cores));
  install_stop_handlers();
  const auto tokenizer = load_tokenizer(tokenizer_path(recipe, flags.root));
  const auto plans = plan_data(recipe, flags.root, *tokenizer);
  const PrepareOptions options{.cache = data_cache(recipe, flags.root), .replace = flags.fresh};
  auto sources = nlohmann::ordered_json::array();
  for (const auto* plan : plans.all()) {
    sources.push_back(facts(*plan, prepare(*plan, *tokenizer, options)));
  }
  if (flags.json) return print_json({{"sources", sources}});
  for (const auto& source : sources) print(line_of(source));
}

}  // namespace

void add_data_prepare(CLI::App& data, Action& action) {
  auto flags = std::make_shared<PrepareFlags>();
  auto* verb = add_verb(data, "prepare", "Make a recipe's text into tokens, once",
                        "zebra data prepare my.yaml --set data.cache=tokens");
  verb->add_option("recipe", flags->recipe, "YAML file")->required()->type_name("RECIPE");
  add_overrides(verb, flags->overrides);
  verb->add_option("--root", flags->root, "Where relative model and data paths start [.]")
      ->type_name("DIR");
  verb->add_flag("--fresh", flags->fresh, "Make again what was made from something else");
  verb->add_option("--threads", flags->threads, "CPU threads, instead of the recipe's")
      ->check(whole_number(0))
      ->type_name("N");
  verb->add_flag("--json", flags->json, "JSON on stdout");
  verb->callback([flags, &action] { action = [flags] { prepare_recipe(*flags); }; });
}

}  // namespace zebra
