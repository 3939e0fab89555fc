// The agent: one process that starts the ranks of a job on this machine and outlives them.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/log.h"
#include "zebra/dist.h"
#include "zebra/error.h"

extern char** environ;

namespace zebra {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kUserError = 2, kGaveUp = 70, kStopped = 75;
constexpr int kPassedOn[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

bool is_final(int exit_code) {
  return exit_code == 0 || exit_code == kUserError || exit_code == kGaveUp || exit_code == kStopped;
}

// Signals come to the agent as results of sigtimedwait, in this thread alone.
class SignalGate {
 public:
  SignalGate() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGCHLD);
    for (const int signal : kPassedOn) sigaddset(&set_, signal);
    ::pthread_sigmask(SIG_BLOCK, &set_, &before_);
  }
  ~SignalGate() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalGate(const SignalGate&) = delete;
  SignalGate& operator=(const SignalGate&) = delete;

  // The next signal, or 0 after a while.
  int next() const {
    const timespec patience{.tv_sec = 0, .tv_nsec = 100'000'000};
    const int signal = ::sigtimedwait(&set_, nullptr, &patience);
    return signal > 0 ? signal : 0;
  }
  const sigset_t& before() const { return before_; }

 private:
  sigset_t set_{}, before_{};
};

// How a rank ended: by itself with a code, or by a signal.
struct End {
  int code = 0, signal = 0;
  // A rank that stops on request may leave others at work on their part of the checkpoint.
  bool good() const { return signal == 0 && (code == 0 || code == kStopped); }
};

// The ranks of one generation.
class Ranks {
 public:
  Ranks(const AgentOptions& options, const SignalGate& gate) : options_(options), gate_(gate) {}
  ~Ranks() { kill_all(); }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  void start(int64_t size, int64_t port, int64_t restart) {
    ends_.clear();
    for (int64_t rank = 0; rank < size; ++rank) {
      running_[spawn(rank_environment(rank, size, port, restart))] = rank;
    }
  }

  // Collects who has ended; the ends so far, by rank.
  const std::map<int64_t, End>& collect() {
    int status = 0;
    for (auto at = running_.begin(); at != running_.end();) {
      if (::waitpid(at->first, &status, WNOHANG) != at->first) {
        ++at;
        continue;
      }
      ends_[at->second] = {.code = WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                           .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0};
      at = running_.erase(at);
    }
    return ends_;
  }

  bool any_running() const { return !running_.empty(); }
  std::vector<int64_t> still_running() const {
    std::vector<int64_t> ranks;
    for (const auto& [pid, rank] : running_) ranks.push_back(rank);
    std::sort(ranks.begin(), ranks.end());
    return ranks;
  }
  bool any_failed() const {
    return std::any_of(ends_.begin(), ends_.end(),
                       [](const auto& end) { return !end.second.good(); });
  }

  // To the ranks alone: what they have started may know no such signal.
  void pass_on(int signal) const {
    for (const auto& [pid, rank] : running_) ::kill(pid, signal);
  }

  // What a rank has started dies with it: each rank leads a process group.
  void kill_all() {
    for (const auto& [pid, rank] : running_) ::kill(-pid, SIGKILL);
    for (const auto& [pid, rank] : running_) ::waitpid(pid, nullptr, 0);
    running_.clear();
  }

 private:
  static std::vector<std::string> rank_environment(int64_t rank, int64_t size, int64_t port,
                                                   int64_t restart) {
    const std::map<std::string, std::string> own = {
        {"RANK", str(rank)},
        {"WORLD_SIZE", str(size)},
        {"LOCAL_RANK", str(rank)},
        {"LOCAL_WORLD_SIZE", str(size)},
        {"MASTER_ADDR", "127.0.0.1"},
        {"MASTER_PORT", str(port)},
        {"TORCHELASTIC_USE_AGENT_STORE", "True"},
        {"TORCHELASTIC_RESTART_COUNT", str(restart)},
        {"ZEBRA_AGENT", str(::getpid())},
    };
    std::vector<std::string> all;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string text = *entry;
      if (!own.contains(text.substr(0, text.find('=')))) all.push_back(text);
    }
    for (const auto& [name, value] : own) all.push_back(name + "=" + value);
    return all;
  }

  static std::vector<char*> pointers(const std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (const auto& text : texts) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
  }

  // Between fork and exec only what is safe there: everything was allocated before.
  pid_t spawn(const std::vector<std::string>& environment) const {
    const auto arguments = pointers(options_.command);
    const auto variables = pointers(environment);
    const pid_t agent = ::getpid(), child = ::fork();
    if (child < 0)
      throw ConfigError(str("--nproc: a rank cannot be started: ", std::strerror(errno)));
    if (child > 0) {
      ::setpgid(child, child);  // as the child does; whoever comes first
      return child;
    }
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // no orphan, however the agent ends
    if (::getppid() != agent) ::_exit(127);
    ::pthread_sigmask(SIG_SETMASK, &gate_.before(), nullptr);
    ::execve(arguments[0], arguments.data(), variables.data());
    ::_exit(127);
  }

  const AgentOptions& options_;
  const SignalGate& gate_;
  std::map<pid_t, int64_t> running_;
  std::map<int64_t, End> ends_;
};

// What the store knows of one generation.
class Generation {
 public:
  Generation(const c10::intrusive_ptr<c10d::TCPStore>& store, int64_t restart)
      : store_(c10::make_intrusive<c10d::PrefixStore>(str("zebra/", restart), store)) {}

  std::optional<nlohmann::json> failure() {
    if (!store_->check({"failure"})) return std::nullopt;
    const auto bytes = store_->get("failure");
    return nlohmann::json::parse(bytes.begin(), bytes.end());
  }
  bool made_a_step() { return store_->check({"progress"}); }

 private:
  c10::intrusive_ptr<c10d::Store> store_;
};

// Which rank brought the generation down, and how. `silent`: those that had to be killed.
AgentResult verdict(const std::map<int64_t, End>& ends, const std::vector<int64_t>& silent,
                    Generation& generation) {
  if (const auto failure = generation.failure()) {
    return {failure->at("exit_code").get<int>(), ""};
  }
  for (const auto& [rank, end] : ends) {
    if (end.signal == 0) continue;
    return {1, str("rank ", rank, " was killed by signal ", end.signal, " (",
                   ::strsignal(end.signal), ")")};
  }
  bool peer_lost = false, stopped = false;
  for (const auto& [rank, end] : ends) {
    peer_lost = peer_lost || end.code == kPeerLostExit;
    stopped = stopped || end.code == kStopped;
    if (end.good() || end.code == kPeerLostExit) continue;
    return {end.code, str("rank ", rank, " ended with exit code ", end.code)};
  }
  if (!peer_lost) return {stopped ? kStopped : 0, ""};
  // All that ended missed another one, which then is among those that did not end.
  return {1, silent.empty() ? "the ranks lost each other"
                            : str("rank ", silent[0], " did not answer in time")};
}

// Runs one generation to its end.
AgentResult run_generation(Ranks& ranks, Generation& generation, const SignalGate& gate,
                           std::chrono::milliseconds grace) {
  std::optional<Clock::time_point> failed;
  std::vector<int64_t> silent;
  bool asked_to_stop = false;
  while (ranks.any_running()) {
    const int signal = gate.next();
    if (signal != 0 && signal != SIGCHLD) {
      ranks.pass_on(signal == SIGHUP ? SIGTERM : signal);
      asked_to_stop = asked_to_stop || signal == SIGTERM || signal == SIGINT || signal == SIGHUP;
    }
    ranks.collect();
    if (!failed && ranks.any_failed()) failed = Clock::now();
    if (failed && Clock::now() - *failed > grace) {
      silent = ranks.still_running();
      ranks.kill_all();
    }
  }
  const auto result = verdict(ranks.collect(), silent, generation);
  if (asked_to_stop && !is_final(result.exit_code)) return {kStopped, ""};
  return result;
}

c10::intrusive_ptr<c10d::TCPStore> serve_store() {
  c10d::TCPStoreOptions options;
  options.port = 0;  // any free one
  options.isServer = true;
  options.waitWorkers = false;
  return c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
}

}  // namespace

AgentResult run_agent(const AgentOptions& options) {
  const SignalGate gate;  // before the store's thread, which inherits the mask
  const auto store = serve_store();
  Ranks ranks(options, gate);
  size_t size = 0;    // index into options.sizes
  int fruitless = 0;  // generations in a row without a step
  for (int64_t restart = 0;; ++restart) {
    Generation generation(store, restart);
    ranks.start(options.sizes.at(size), store->getPort(), restart);
    auto result = run_generation(ranks, generation, gate, options.grace);
    if (is_final(result.exit_code)) return result;
    if (restart == options.max_restarts) {
      if (restart > 0 && !result.message.empty())
        result.message += str(", after ", restart, " restarts");
      return result;
    }
    fruitless = generation.made_a_step() ? 0 : fruitless + 1;
    if (fruitless >= 2 && size + 1 < options.sizes.size()) {
      ++size;
      fruitless = 0;
    }
    log_warning(str(result.message.empty() ? "a rank failed" : result.message, "; restart ",
                    restart + 1, " of ", options.max_restarts, " with ", options.sizes[size],
                    options.sizes[size] == 1 ? " rank" : " ranks"));
  }
}

}  // namespace zebra
