// A verb's work on several ranks: those that a launcher started, or --nproc of our own.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "zebra/dist.h"

namespace zebra {

struct RankOptions {
  int64_t nproc = 0;                // of --nproc; 0: none are started
  std::vector<int64_t> sizes = {};  // numbers of ranks that may run, `nproc` first
  int64_t max_restarts = 0;         // of a group that lost a rank
};

// Runs `work` in this process, as one rank or alone. With `nproc`, the process that the user
// started becomes the agent of ranks that run the same command. What goes wrong on several ranks
// is told once, by the rank that failed first. ConfigError for --nproc under another launcher.
void run_on_ranks(const RankOptions& options, const std::function<void(Group&)>& work);

}  // namespace zebra
