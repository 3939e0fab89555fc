// Runs a recipe: every stage that is missing, nothing twice, from the last good checkpoint inside a
// stage.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "zebra/dist.h"
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
// The same as one rank of several; PeerError (dist.h) when another one is lost.
void run_recipe(const Recipe& recipe, const RunOptions& options, Group& group);

}  // namespace zebra
