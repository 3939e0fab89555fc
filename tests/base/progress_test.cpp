#include "base/progress.h"

#include "support/capture.h"
#include "support/testing.h"

#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>
#include <algorithm>

#include "base/log.h"

using zebra::Progress;
using zebra::progress_text;
using zebra::testing::ContainsSubstring;
using zebra::testing::StderrCapture;

namespace {

// What a terminal was sent, read from its other end until nothing has come for half a second: the
// system hands it over in its own time.
std::string shown_on(int reader) {
  std::string text;
  pollfd ready{.fd = reader, .events = POLLIN, .revents = 0};
  char piece[4096];
  while (::poll(&ready, 1, /*milliseconds=*/500) == 1) {
    const ssize_t got = ::read(reader, piece, sizeof piece);
    if (got <= 0) break;
    text.append(piece, static_cast<size_t>(got));
  }
  return text;
}

}  // namespace

TEST_CASE("progress: the line in full and with what is not known yet left out") {
  CHECK(progress_text({.title = "distill",
                       .step = 105,
                       .total_steps = 250,
                       .tokens_per_second = 8812.4,
                       .elapsed = 62,
                       .left = 85.2,
                       .detail = "loss 1.234"}) ==
        "distill  42% 105/250  8,812 tok/s  1:02 elapsed, 1:25 left  loss 1.234");
  CHECK(progress_text({.title = "ild", .step = 0, .total_steps = 5, .detail = ""}) ==
        "ild   0% 0/5  0:00 elapsed");
  CHECK(progress_text({.title = "ild",
                       .step = 5,
                       .total_steps = 5,
                       .tokens_per_second = 1234567.8,
                       .elapsed = 3661,
                       .left = 0,
                       .detail = ""}) ==
        "ild 100% 5/5  1,234,568 tok/s  1:01:01 elapsed, 0:00 left");
}

TEST_CASE("progress: away from a terminal quick steps show nothing but the end") {
  StderrCapture capture;
  {
    Progress progress("ild", 100, 4096);
    for (int64_t step = 1; step <= 100; ++step) progress.update(step, "loss 2");
    CHECK(capture.text().empty());
    progress.finish();
  }
  const std::string text = capture.text();
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK_THAT(text, ContainsSubstring("ild 100% 100/100"));
  CHECK_THAT(text, ContainsSubstring(" tok/s"));
  CHECK_THAT(text, ContainsSubstring("0:00 left  loss 2\n"));
  CHECK(text.find('\r') == std::string::npos);
}

TEST_CASE("progress: a loop without tokens shows no rate") {
  StderrCapture capture;
  Progress progress("smart", 2, 0);
  progress.update(1, "");
  progress.finish();
  CHECK(capture.text().find("tok/s") == std::string::npos);
}

TEST_CASE("progress: on a terminal one line is rewritten at most ten times a second") {
  int reader = -1, terminal = -1;
  REQUIRE(::openpty(&reader, &terminal, nullptr, nullptr, nullptr) == 0);
  std::string text;
  const auto begin = std::chrono::steady_clock::now();
  std::chrono::duration<double> time{};
  {
    const StderrCapture capture(terminal);
    Progress progress("ild", 1'000'000, 1);
    while (time.count() < 0.35) {
      progress.update(1000, "loss");
      time = std::chrono::steady_clock::now() - begin;
    }
    progress.finish();
    text = shown_on(reader);
  }
  ::close(reader);
  const auto shown = std::count(text.begin(), text.end(), '\r') - 1;  // a line's end is \r\n
  CHECK(shown >= 2);
  CHECK(static_cast<double>(shown) <= time.count() / 0.1 + 1);
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
  CHECK(text.back() == '\n');
}

TEST_CASE("progress: on a terminal a line that was not finished is taken away") {
  int reader = -1, terminal = -1;
  REQUIRE(::openpty(&reader, &terminal, nullptr, nullptr, nullptr) == 0);
  std::string text;
  {
    const StderrCapture capture(terminal);
    {
      Progress progress("held-out text", 10, 0);
      const auto begin = std::chrono::steady_clock::now();
      while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(150)) {
        progress.update(3, "");
      }
    }
    text = shown_on(reader);
  }
  ::close(reader);
  CHECK_THAT(text, ContainsSubstring("held-out text  30% 3/10"));
  CHECK(text.ends_with("\r\x1b[K"));
}

TEST_CASE("progress: a rank that does not speak leaves the terminal alone") {
  int reader = -1, terminal = -1;
  REQUIRE(::openpty(&reader, &terminal, nullptr, nullptr, nullptr) == 0);
  const pid_t rank = ::fork();  // what the log does is for the whole process
  if (rank == 0) {
    ::dup2(terminal, STDERR_FILENO);
    zebra::log_to_files_only();
    Progress progress("ild", 10, 1);
    const auto begin = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(150)) {
      progress.update(3, "");
    }
    progress.finish();
    ::_exit(0);
  }
  int status = -1;
  CHECK(::waitpid(rank, &status, 0) == rank);
  CHECK(status == 0);
  CHECK(shown_on(reader).empty());
  ::close(reader);
  ::close(terminal);
}
