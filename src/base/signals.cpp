#include "base/signals.h"

#include <atomic>
#include <csignal>

namespace zebra {

namespace {

// A handler may touch lock-free atomics only.
std::atomic<bool> stop{false};
std::atomic<bool> save{false};
static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void handle_signal(int signal) {
  if (signal == SIGUSR1) {
    save.store(true);
  } else if (stop.exchange(true) && signal == SIGINT) {
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
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
}

bool stop_requested() { return stop.load(); }

bool take_save_request() { return save.exchange(false); }

}  // namespace zebra
