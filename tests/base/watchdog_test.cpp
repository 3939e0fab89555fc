#include "base/watchdog.h"

#include "support/capture.h"
#include "support/temp_dir.h"
#include "support/testing.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <nlohmann/json.hpp>

#include "base/signals.h"

using zebra::Watchdog;
using zebra::testing::ContainsSubstring;
using zebra::testing::StderrCapture;
using zebra::testing::TempDir;
using zebra::testing::text_of;

namespace {

// Waits until `holds`, at most ten seconds.
template <class Condition>
bool eventually(const Condition& holds) {
  for (int i = 0; i < 1000 && !holds(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return holds();
}

}  // namespace

TEST_CASE("watchdog: the stacks of all threads are told, those of waiting ones too") {
  std::mutex mutex;
  std::condition_variable wake;
  bool end = false;
  std::atomic<bool> waits{false};
  std::thread sleeper([&] {
    ::pthread_setname_np(::pthread_self(), "the-sleeper");
    std::unique_lock lock(mutex);
    waits = true;
    wake.wait(lock, [&] { return end; });
  });
  REQUIRE(eventually([&] { return waits.load(); }));
  const auto text = zebra::stacks_of_all_threads();
  {
    const std::lock_guard lock(mutex);
    end = true;
  }
  wake.notify_all();
  sleeper.join();
  CHECK_THAT(text, ContainsSubstring("(the-sleeper)"));
  CHECK_THAT(text, ContainsSubstring("pthread_cond_wait"));
  CHECK_THAT(text, ContainsSubstring(std::to_string(::getpid())));
}

TEST_CASE("watchdog: loops that stop asking are a hang, told with what the job was doing") {
  const StderrCapture capture;
  std::atomic<bool> hangs{false};
  Watchdog watchdog({.hang_seconds = 0.5,
                     .heartbeat_seconds = 0,
                     .heartbeat = {},
                     .who = "rank 3",
                     .on_hang = [&] { hangs = true; }});
  watchdog.doing("distill step 7");
  CHECK(eventually([&] { return hangs.load(); }));
  const auto text = capture.text();
  CHECK_THAT(text, ContainsSubstring("rank 3, distill step 7: hangs"));
  CHECK_THAT(text, ContainsSubstring("thread "));
}

TEST_CASE("watchdog: loops that ask are left alone") {
  std::atomic<bool> hangs{false};
  Watchdog watchdog(
      {.hang_seconds = 1.5, .heartbeat_seconds = 0, .heartbeat = {}, .who = "", .on_hang = [&] {
         hangs = true;
       }});
  for (int i = 0; i < 25; ++i) {
    zebra::stop_requested();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK_FALSE(hangs);
}

TEST_CASE("watchdog: a process that hangs ends with code 70") {
  const pid_t child = ::fork();
  if (child == 0) {
    const Watchdog watchdog({.hang_seconds = 0.3, .heartbeat = {}, .who = "", .on_hang = {}});
    for (;;) ::pause();
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 70);
}

TEST_CASE("watchdog: signs of life are written, and SIGQUIT asks for the stacks") {
  const TempDir folder;
  const StderrCapture capture;
  Watchdog watchdog({.hang_seconds = 0,
                     .heartbeat_seconds = 0.1,
                     .heartbeat = folder / "heartbeat.json",
                     .who = "me",
                     .on_hang = {}});
  watchdog.doing("ild step 2");
  const auto sign = [&]() -> nlohmann::json {
    const auto text = text_of(folder / "heartbeat.json");
    return text.empty() ? nlohmann::json::object() : nlohmann::json::parse(text);
  };
  REQUIRE(eventually([&] { return sign().value("doing", "") == "ild step 2"; }));
  CHECK(sign().at("pid") == ::getpid());
  CHECK(sign().at("unix_time").get<double>() > 1.6e9);
  ::kill(::getpid(), SIGQUIT);
  CHECK(eventually(
      [&] { return capture.text().find("stacks of all threads") != std::string::npos; }));
}
