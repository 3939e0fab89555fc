// zebra bench: one entry per thing that is measured
#include "cli/command.h"

namespace zebra {

void add_bench(CLI::App& app, Action& action) {
  auto* verb = add_verb(app, "bench", "Measure parts of the program", "zebra bench packing --json");
  verb->require_subcommand(1);
  add_bench_packing(*verb, action);
}

}  // namespace zebra
