#include "cli/ranks.h"

#include <chrono>
#include <cstdlib>
#include <exception>

#include "cli/command.h"
#include "cli/ending.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr std::chrono::seconds kJoinTimeout{300};
constexpr std::chrono::milliseconds kPatience{3000};  // for the rank that failed first to say so

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

void run_as_rank(const RankInfo& rank, const std::function<void(Group&)>& work) {
  Group group(rank, kJoinTimeout);
  try {
    work(group);
    group.barrier();  // the store may live in rank 0, which must not leave before the others
  } catch (...) {
    // At once: collectives that the others will never join must not be waited for.
    std::_Exit(tell(ending_of_rank(group, std::current_exception())));
  }
}

void run_under_agent(const RankOptions& ranks) {
  const auto result = run_agent(
      {.command = own_command(), .sizes = ranks.sizes, .max_restarts = ranks.max_restarts});
  if (result.exit_code != kDone) throw EndingError({result.exit_code, result.message});
}

}  // namespace

void run_on_ranks(const RankOptions& options, const std::function<void(Group&)>& work) {
  const auto launcher = launcher_in_environment();
  if (options.nproc > 0 && launcher.empty()) return run_under_agent(options);
  if (options.nproc > 0 && launcher != "--nproc") {
    throw ConfigError(str("--nproc: expected no other launcher, got the ranks of ", launcher));
  }
  if (!launcher.empty()) return run_as_rank(rank_from_environment(), work);
  Group alone;
  work(alone);
}

}  // namespace zebra
