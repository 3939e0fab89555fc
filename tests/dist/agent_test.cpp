// The agent on ranks that are shell scripts.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "support/temp_dir.h"
#include "support/testing.h"
#include "zebra/dist.h"

namespace zebra::testing {

namespace {

AgentOptions script(const std::string& text, std::vector<int64_t> sizes, int64_t max_restarts = 3) {
  return {.command = {"/bin/sh", "-c", text},
          .sizes = std::move(sizes),
          .max_restarts = max_restarts,
          .grace = std::chrono::milliseconds(300)};
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool is_running(pid_t pid) { return ::kill(pid, 0) == 0; }

// Waits until `done` holds, for ten seconds at most.
bool soon(const std::function<bool()>& done) {
  for (int i = 0; i < 1000; ++i) {
    if (done()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace

TEST_CASE("agent: every rank gets torchrun's variables", "[dist]") {
  const TempDir folder;
  const auto result =
      run_agent(script("echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR "
                       "$TORCHELASTIC_RESTART_COUNT > " +
                           (folder / "out").string() + ".$RANK",
                       {3}));
  CHECK(result.exit_code == 0);
  CHECK(result.message.empty());
  CHECK(read(folder / "out.0") == "0 3 0 3 127.0.0.1 0\n");
  CHECK(read(folder / "out.2") == "2 3 2 3 127.0.0.1 0\n");
}

TEST_CASE("agent: a rank that was killed is named and the group starts again", "[dist]") {
  const TempDir folder;
  const auto mark = (folder / "killed").string();
  const auto result =
      run_agent(script("[ $RANK = 1 ] && [ ! -e " + mark + " ] && touch " + mark +
                           " && kill -9 $$; "
                           "[ $TORCHELASTIC_RESTART_COUNT = 1 ] && exit 0; sleep 30",
                       {2}));
  CHECK(result.exit_code == 0);
}

TEST_CASE("agent: the budget of restarts ends with the message that matters", "[dist]") {
  const auto result = run_agent(script("[ $RANK = 2 ] && kill -9 $$; exit 76", {4}, 2));
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.message, ContainsSubstring("rank 2 was killed by signal 9"));
  CHECK_THAT(result.message, ContainsSubstring("after 2 restarts"));
}

TEST_CASE("agent: a rank that the others miss, and that does not end, is named", "[dist]") {
  const auto result = run_agent(script("[ $RANK = 1 ] && sleep 60; exit 76", {3}, 0));
  CHECK(result.exit_code == 1);
  CHECK(result.message == "rank 1 did not answer in time");
}

TEST_CASE("agent: a user's mistake, giving up and stopping are final", "[dist]") {
  const TempDir folder;
  for (const int code : {2, 70, 75}) {
    const auto log = folder / std::to_string(code);
    const auto result =
        run_agent(script("echo x >> " + log.string() + "; exit " + std::to_string(code), {2}));
    CHECK(result.exit_code == code);
    CHECK(read(log) == "x\nx\n");
  }
}

TEST_CASE("agent: a group that makes no step twice starts with fewer ranks", "[dist]") {
  const TempDir folder;
  const auto log = (folder / "sizes").string();
  const auto result = run_agent(script(
      "[ $RANK = 0 ] && echo $WORLD_SIZE >> " + log + "; [ $WORLD_SIZE -gt 2 ] && exit 1; exit 0",
      {4, 2, 1}, 5));
  CHECK(result.exit_code == 0);
  CHECK(read(log) == "4\n4\n2\n");
}

// In a process of its own, which has no other threads that a signal could find.
TEST_CASE("agent: signals reach every rank, and all may take their time to stop", "[dist]") {
  const TempDir folder;
  const auto ready = (folder / "ready").string(), stop = (folder / "stop").string();
  const auto asked = (folder / "asked").string();
  const pid_t agent = ::fork();
  if (agent == 0) {
    ::signal(SIGQUIT, SIG_DFL);  // a shell's background jobs ignore it, and then cannot trap it
    const auto result = run_agent(
        script("trap 'touch " + asked + ".$RANK' QUIT; trap 'sleep 0.6; echo stopped > " + stop +
                   ".$RANK; exit 75' TERM; touch " + ready + ".$RANK; while sleep 0.02; do :; done",
               {2}));
    ::_exit(result.exit_code);
  }
  const auto of_both = [](const std::string& file) {
    return std::filesystem::exists(file + ".0") && std::filesystem::exists(file + ".1");
  };
  REQUIRE(soon([&] { return of_both(ready); }));
  ::kill(agent, SIGQUIT);  // of which a sleep would die
  CHECK(soon([&] { return of_both(asked); }));
  ::kill(agent, SIGTERM);
  int status = 0;
  ::waitpid(agent, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 75);
  CHECK(read(stop + ".0") == "stopped\n");
  CHECK(read(stop + ".1") == "stopped\n");
}

TEST_CASE("agent: no rank outlives an agent that was killed", "[dist]") {
  const TempDir folder;
  const pid_t agent = ::fork();
  if (agent == 0) {
    run_agent(script("echo $$ > " + (folder / "pid").string() + ".$RANK; exec sleep 60", {2}));
    ::_exit(0);
  }
  const auto pid_of = [&](int rank) { return read(folder / ("pid." + std::to_string(rank))); };
  REQUIRE(soon([&] { return !pid_of(0).empty() && !pid_of(1).empty(); }));
  const pid_t ranks[] = {std::stoi(pid_of(0)), std::stoi(pid_of(1))};
  ::kill(agent, SIGKILL);
  ::waitpid(agent, nullptr, 0);
  for (const pid_t rank : ranks) CHECK(soon([&] { return !is_running(rank); }));
}

}  // namespace zebra::testing
