// The processes of one job: who they are, how they are started, and what they say to each other.
// Collectives are c10d's: Gloo for tensors on the CPU, NCCL for those on a GPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace zebra {

// ---- who this process is
// --------------------------------------------------------------------------------------------------

// This process among those of the job (W = world).
struct RankInfo {
  int64_t rank = 0, world = 1;
  int64_t local_rank = 0, local_world = 1;  // on this machine
  std::string address = "127.0.0.1";        // where the store is served
  int64_t port = 0;
  bool agent_store = false;  // an agent serves the store; otherwise rank 0 does
  int64_t restart = 0;       // how often an agent has started the group before
  std::string source;        // "torchrun", "Slurm", "Open MPI", "--nproc"; "" when alone
};

// Reads RANK, WORLD_SIZE, ... (torchrun, our agent), else SLURM_PROCID, ..., else
// OMPI_COMM_WORLD_RANK, ...; alone when there is none of them. Slurm and Open MPI need MASTER_ADDR
// and MASTER_PORT, which scripts/launch_slurm.sbatch sets. What is missing or no number is a
// ConfigError that names the variable.
RankInfo rank_from_environment();

// The same launcher's name, also where variables are missing that its ranks need; "" when alone.
std::string launcher_in_environment();

// ---- what they say to each other
// ------------------------------------------------------------------------------------------

// Another rank is gone, hangs, or has failed before this one: not the cause of the job's end.
class PeerError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Why the job ends, as the rank tells it that failed first.
struct Failure {
  int64_t rank = 0;
  int exit_code = 1;
  std::string message;
};

// A collective under way. The tensors given to it must not be touched before `wait`, which orders
// the device's work behind the collective (and waits for it on the CPU). PeerError when another
// rank is lost or the time-out is over.
class Pending {
 public:
  Pending() = default;  // nothing to wait for
  explicit Pending(std::function<void()> wait) : wait_(std::move(wait)) {}
  void wait() {
    if (wait_) std::exchange(wait_, nullptr)();
  }

 private:
  std::function<void()> wait_;
};

// All ranks of a job. Every rank must call the same collectives in the same order, with tensors of
// the same size. A process alone does nothing (but copies, where in and out are two tensors).
class Group {
 public:
  Group();  // one rank alone
  // Connects to the store and to the other ranks. ConfigError when they do not come within
  // `timeout`.
  Group(const RankInfo& info, std::chrono::seconds timeout);
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  const RankInfo& info() const { return info_; }
  int64_t rank() const { return info_.rank; }
  int64_t size() const { return info_.world; }
  bool leads() const { return info_.rank == 0; }  // rank 0: it alone writes results

  // How long a collective waits for the other ranks.
  void set_timeout(std::chrono::seconds timeout);

  // Sums over ranks, in place. flat: contiguous, float32 or float64.
  Pending all_reduce(const at::Tensor& flat);
  // Rank r's `out` becomes the r-th W-th of the sum of all ranks' `in`. in: (W * n), out: (n).
  Pending reduce_scatter(const at::Tensor& out, const at::Tensor& in);
  // `out` becomes the ranks' `in`, one behind the other. in: (n), out: (W * n); `in` may be the
  // rank's own part of `out`.
  Pending all_gather(const at::Tensor& out, const at::Tensor& in);

  // Sums and maxima of a few host numbers, the same bits on every rank.
  std::vector<double> sum(const std::vector<double>& values);
  std::vector<double> max(const std::vector<double>& values);
  // Every rank's numbers in the order of ranks; each gives the same count.
  std::vector<std::vector<double>> gather(const std::vector<double>& values);
  void barrier();

  // A channel of its own, which a thread of its own may use: gives this rank's text to all and
  // returns everyone's, by rank. All ranks open the same channels in the same order. The function
  // must not outlive the group.
  using Exchange = std::function<std::vector<std::string>(const std::string& text)>;
  Exchange open_channel(const std::string& name);

  // Rank 0 does `work`, and the others wait for it as long as it takes; a rank 0 that gives no sign
  // of life for the time-out is a PeerError. The second form gives its text to all.
  void led(const std::function<void()>& work);
  std::string led_text(const std::function<std::string()>& work);

  // Tells the other ranks why this one ends. True when it is the first to say so: then, and only
  // then, the user should read its message.
  bool publish_failure(const Failure& failure);
  // What the first rank that failed said; waits for it up to `patience`.
  std::optional<Failure> first_failure(std::chrono::milliseconds patience);

  // Tells the agent that the job advances.
  void note_progress();

 private:
  void wait_for_leader(const std::string& key);

  struct Connections;
  RankInfo info_;
  std::unique_ptr<Connections> connections_;  // null for a process alone
  int64_t turns_ = 0;                         // calls of led
};

// ---- how they are started on one machine
// --------------------------------------------------------------------------------------

struct AgentOptions {
  std::vector<std::string> command;       // program and arguments of every rank
  std::vector<int64_t> sizes;             // numbers of ranks that may run, the wanted one first
  int64_t max_restarts = 3;               // of the whole group
  std::chrono::milliseconds grace{3000};  // for ranks to end by themselves after one has failed
};

// How a job under the agent ended.
struct AgentResult {
  int exit_code = 0;
  std::string message;  // "" when a rank has told it already, or there is nothing to tell
};

// Starts the ranks, serves their store, passes signals on to them, and starts all of them again
// after one was lost, up to `max_restarts` times. A group that made no step in two tries in a row
// is started with the next smaller size. Exit codes 2 (the user's mistake), 70 (gave up) and 75
// (stopped) are final. No rank outlives the call, nor the calling process.
// REQUIRES: called from the main thread, before the process has other threads.
AgentResult run_agent(const AgentOptions& options);

// What a rank exits with that fails because another one did.
constexpr int kPeerLostExit = 76;

}  // namespace zebra
