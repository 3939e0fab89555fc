// zebra bench: one entry per thing that is measured
#include "cli/command.h"

namespace zebra {

void add_bench(CLI::App& app, Action& action) {
  auto* verb =
      add_verb(app, "bench", "Measure parts of the program", "zebra bench generate --json");
  verb->require_subcommand(1);
  add_bench_cache_drift(*verb, action);
  add_bench_checkpoint(*verb, action);
  add_bench_generate(*verb, action);
  add_bench_long_context(*verb, action);
  add_bench_memory(*verb, action);
  add_bench_packing(*verb, action);
  add_bench_tokenizer(*verb, action);
}

}  // namespace zebra
