// zebra run, zebra validate
#include "base/file.h"
#include "cli/command.h"
#include "cli/ranks.h"
#include "train/summary.h"
#include "zebra/error.h"
#include "zebra/recipe.h"
#include "zebra/trainer.h"

namespace zebra {

namespace {

struct RunFlags {
  std::string recipe;
  std::vector<std::string> overrides;
  RunOptions options;
  int64_t threads = 0, nproc = 0;
  bool json = false;
};

void run_and_print(const RunFlags& flags, Group& group) {
  auto recipe = read_recipe(flags.recipe, flags.overrides);
  if (flags.threads > 0) recipe.threads = flags.threads;
  run_recipe(recipe, flags.options, group);
  if (!group.leads() || !std::filesystem::exists(summary_path(recipe.output))) return;
  print(flags.json ? read_file(summary_path(recipe.output))
                   : summary_table(read_summary(recipe.output)));
}

// The sizes that --nproc may fall back to when ranks are lost, the wanted one first.
RankOptions rank_options(const RunFlags& flags) {
  if (flags.nproc == 0) return {};
  const auto recipe = read_recipe(flags.recipe, flags.overrides);
  RankOptions ranks{.nproc = flags.nproc, .max_restarts = recipe.parallel.max_restarts};
  for (int64_t size = flags.nproc; size >= 1; --size) {
    if (ranks_divide(recipe, size)) ranks.sizes.push_back(size);
  }
  if (ranks.sizes.empty() || ranks.sizes[0] != flags.nproc) {
    throw ConfigError(
        str("--nproc: expected a number that divides the batch_size of every stage, got ",
            flags.nproc));
  }
  return ranks;
}

void run(const RunFlags& flags) {
  run_on_ranks(rank_options(flags), [&](Group& group) { run_and_print(flags, group); });
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto flags = std::make_shared<RunFlags>();
  auto* verb =
      add_verb(app, "run", "Do what is missing of a recipe's job, and nothing twice",
               "zebra run recipes/tiny/quickstart.yaml --set seed=43 --set output=runs/43");
  verb->add_option("recipe", flags->recipe, "YAML file")->required()->type_name("RECIPE");
  verb->add_option("--only", flags->options.only, "These stages alone, separated by commas")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("STAGE[,STAGE]");
  verb->add_option("--from", flags->options.from, "Do this stage and those after it again")
      ->type_name("STAGE");
  add_overrides(verb, flags->overrides);
  verb->add_option("--root", flags->options.root, "Where relative model and data paths start [.]")
      ->type_name("DIR");
  verb->add_option("--nproc", flags->nproc,
                   "Start this many ranks on this machine, and start them again when one is lost")
      ->check(whole_number(1))
      ->type_name("N");
  verb->add_flag("--fresh", flags->options.fresh, "Discard what the run folder holds");
  verb->add_option("--threads", flags->threads, "CPU threads, instead of the recipe's")
      ->check(whole_number(0))
      ->type_name("N");
  verb->add_flag("--json", flags->json, "Print summary.json instead of the table");
  verb->callback([flags, &action] { action = [flags] { run(*flags); }; });
}

void add_validate(CLI::App& app, Action& action) {
  struct Flags {
    std::string recipe;
    std::vector<std::string> overrides;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = add_verb(app, "validate", "Tell every mistake of a recipe at once; loads nothing",
                        "zebra validate recipes/stories260k.yaml");
  verb->add_option("recipe", flags->recipe, "YAML file")->required()->type_name("RECIPE");
  add_overrides(verb, flags->overrides);
  verb->callback([flags, &action] {
    action = [flags] {
      read_recipe(flags->recipe, flags->overrides);
      print(flags->recipe + ": ok\n");
    };
  });
}

}  // namespace zebra
