#include "base/signals.h"

#include "support/testing.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

namespace {

// How a child that runs `body` ends: flags and handlers stay in the child.
int status_of(const std::function<bool()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

bool good(int status) { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }

}  // namespace

TEST_CASE("signals: SIGTERM and SIGINT ask to stop, and the flag stays") {
  for (const int signal : {SIGTERM, SIGINT}) {
    CHECK(good(status_of([&] {
      zebra::install_stop_handlers();
      const bool before = zebra::stop_requested();
      std::raise(signal);
      return !before && zebra::stop_requested() && zebra::stop_requested() &&
             !zebra::take_save_request();
    })));
  }
}

TEST_CASE("signals: SIGUSR1 asks to save once and does not stop") {
  CHECK(good(status_of([] {
    zebra::install_stop_handlers();
    const bool before = zebra::take_save_request();
    std::raise(SIGUSR1);
    std::raise(SIGUSR1);
    const bool first = zebra::take_save_request(), second = zebra::take_save_request();
    return !before && first && !second && !zebra::stop_requested();
  })));
}

TEST_CASE("signals: a second SIGINT ends the program, a second SIGTERM does not") {
  const int interrupted = status_of([] {
    zebra::install_stop_handlers();
    std::raise(SIGINT);
    std::raise(SIGINT);
    return true;
  });
  CHECK(WIFSIGNALED(interrupted));
  CHECK(WTERMSIG(interrupted) == SIGINT);
  CHECK(good(status_of([] {
    zebra::install_stop_handlers();
    std::raise(SIGTERM);
    std::raise(SIGTERM);
    return zebra::stop_requested();
  })));
}
