// Runs a recipe: every stage that is missing, nothing twice, from the last good checkpoint inside a
// stage.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "zebra/recipe.h"

namespace zebra {

struct RunOptions {
  std::filesystem::path root = ".";  // where relative model and data paths start
  std::vector<std::string> only;     // stage names; empty: all
  std::string from;                  // first stage to run again; empty: continue
  bool fresh = false;                // discard what the run folder holds
};

// Stage names in order: pretrain, init, ild, smart, compose, distill, dpo, eval.
const std::vector<std::string>& stage_names();

// Runs the job. Throws ConfigError, StoppedError, GaveUpError (error.h).
void run_recipe(const Recipe& recipe, const RunOptions& options);

}  // namespace zebra
