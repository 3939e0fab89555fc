#include "base/signals.h"

#include "support/testing.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

#include "zebra/error.h"

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

TEST_CASE("signals: SIGUSR2 asks for a trace once") {
  CHECK(good(status_of([] {
    zebra::install_stop_handlers();
    const bool before = zebra::take_trace_request();
    std::raise(SIGUSR2);
    return !before && zebra::take_trace_request() && !zebra::take_trace_request() &&
           !zebra::take_save_request() && !zebra::stop_requested();
  })));
}

TEST_CASE("signals: a time limit asks to stop when it is over, and says so") {
  CHECK(good(status_of([] {
    zebra::set_time_limit(0.001);  // 60 ms
    const bool before = zebra::stop_requested();
    std::this_thread::sleep_for(std::chrono::milliseconds(80));
    const bool after = zebra::stop_requested();
    const auto reason = zebra::stop_reason();
    zebra::set_time_limit(0);
    return !before && after && reason == "the time limit of 0.001 minutes" &&
           !zebra::stop_requested() && zebra::stop_reason().empty();
  })));
}

TEST_CASE("signals: a loop that is to stop ends with a StoppedError that says by what") {
  CHECK(good(status_of([] {
    zebra::install_stop_handlers();
    zebra::throw_if_stopped("eval");
    std::raise(SIGTERM);
    try {
      zebra::throw_if_stopped("eval");
    } catch (const zebra::StoppedError& error) {
      return std::string(error.what()) == "eval: stopped by SIGTERM";
    }
    return false;
  })));
}
