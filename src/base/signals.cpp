#include "base/signals.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <limits>

#include "zebra/error.h"

namespace zebra {

namespace {

// A handler may touch lock-free atomics only.
std::atomic<int> stop{0};  // the signal
std::atomic<bool> save{false};
std::atomic<bool> trace{false};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
std::atomic<int64_t> deadline{kNever};  // nanoseconds of the steady clock
std::atomic<double> limit{0};           // minutes
std::atomic<int64_t> asked{0};          // when the last loop asked

int64_t now() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

extern "C" void handle_signal(int signal) {
  if (signal == SIGUSR1) {
    save.store(true);
  } else if (signal == SIGUSR2) {
    trace.store(true);
  } else if (stop.exchange(signal) != 0 && signal == SIGINT) {
    std::signal(SIGINT, SIG_DFL);  // takes effect when this handler returns
    std::raise(SIGINT);
  }
}

}  // namespace

void install_stop_handlers() {
  struct sigaction action {};
  action.sa_handler = handle_signal;
  action.sa_flags = SA_RESTART;  // no file operation fails with EINTR
  sigemptyset(&action.sa_mask);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) {
    sigaction(signal, &action, nullptr);
  }
}

void set_time_limit(double minutes) {
  limit.store(minutes);
  deadline.store(minutes > 0 ? now() + static_cast<int64_t>(minutes * 60e9) : kNever);
}

bool stop_requested() {
  const int64_t time = now();
  asked.store(time);
  return stop.load() != 0 || time >= deadline.load();
}

std::string stop_reason() {
  const int signal = stop.load();
  if (signal != 0) return signal == SIGINT ? "SIGINT" : "SIGTERM";
  return now() >= deadline.load() ? str("the time limit of ", limit.load(), " minutes") : "";
}

void throw_if_stopped(const std::string& doing) {
  if (stop_requested()) throw StoppedError(str(doing, ": stopped by ", stop_reason()));
}

bool take_save_request() { return save.exchange(false); }

bool take_trace_request() { return trace.exchange(false); }

double seconds_since_asked() {
  const int64_t last = asked.load();
  return last == 0 ? 0 : static_cast<double>(now() - last) * 1e-9;
}

}  // namespace zebra
