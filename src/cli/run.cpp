// zebra run, zebra validate
#include <chrono>
#include <cstdlib>

#include "base/file.h"
#include "cli/command.h"
#include "cli/ending.h"
#include "train/summary.h"
#include "zebra/dist.h"
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

constexpr std::chrono::seconds kJoinTimeout{300};
constexpr std::chrono::milliseconds kPatience{3000};  // for the rank that failed first to say so

void run_and_print(const RunFlags& flags, Group& group) {
  auto recipe = read_recipe(flags.recipe, flags.overrides);
  if (flags.threads > 0) recipe.threads = flags.threads;
  run_recipe(recipe, flags.options, group);
  group.barrier();  // the store may live in rank 0, which must not leave before the others
  if (!group.leads() || !std::filesystem::exists(summary_path(recipe.output))) return;
  print(flags.json ? read_file(summary_path(recipe.output))
                   : summary_table(read_summary(recipe.output)));
}

// What one rank of several tells: only the one that failed first speaks.
Ending ending_of_rank(Group& group, const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const PeerError& error) {
    const bool agent = group.info().source == "--nproc";  // it knows who was lost
    if (const auto first = group.first_failure(kPatience)) {
      return {first->exit_code == kStopped ? kStopped : kPeerLostExit, ""};
    }
    if (agent) return {kPeerLostExit, ""};
    const bool speaks = group.publish_failure({group.rank(), kPeerLostExit, error.what()});
    return {kPeerLostExit, speaks ? error.what() : ""};
  } catch (...) {
    auto ending = ending_of(thrown);
    const bool first = group.publish_failure({group.rank(), ending.exit_code, ending.text});
    const bool speaks = ending.exit_code == kStopped ? group.leads() : first;
    if (group.rank() > 0) ending.text = str("rank ", group.rank(), ": ", ending.text);
    return {ending.exit_code, speaks ? ending.text : ""};
  }
}

void run_as_rank(const RunFlags& flags, const RankInfo& rank) {
  Group group(rank, kJoinTimeout);
  try {
    run_and_print(flags, group);
  } catch (...) {
    // At once: collectives that the others will never join must not be waited for.
    std::_Exit(tell(ending_of_rank(group, std::current_exception())));
  }
}

// --nproc: this process becomes the agent of ranks that run the same command.
void run_under_agent(const RunFlags& flags) {
  const auto recipe = read_recipe(flags.recipe, flags.overrides);
  AgentOptions options;
  options.command = own_command();
  options.max_restarts = recipe.parallel.max_restarts;
  for (int64_t size = flags.nproc; size >= 1; --size) {
    if (ranks_divide(recipe, size)) options.sizes.push_back(size);
  }
  if (options.sizes.empty() || options.sizes[0] != flags.nproc) {
    throw ConfigError(
        str("--nproc: expected a number that divides the batch_size of every stage, "
            "got ",
            flags.nproc));
  }
  const auto result = run_agent(options);
  if (result.exit_code != kDone) throw EndingError({result.exit_code, result.message});
}

void run(const RunFlags& flags) {
  const auto rank = rank_from_environment();
  if (flags.nproc > 0 && rank.source.empty()) return run_under_agent(flags);
  if (flags.nproc > 0 && rank.source != "--nproc") {
    throw ConfigError(str("--nproc: expected no other launcher, got the ranks of ", rank.source));
  }
  if (!rank.source.empty()) return run_as_rank(flags, rank);
  Group alone;
  run_and_print(flags, alone);
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
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  verb->add_flag("--fresh", flags->options.fresh, "Discard what the run folder holds");
  verb->add_option("--threads", flags->threads, "CPU threads, instead of the recipe's")
      ->check(CLI::NonNegativeNumber.description(""))
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
