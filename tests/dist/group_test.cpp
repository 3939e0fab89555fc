#include <signal.h>
#include <sys/wait.h>

#include <future>

#include "support/capture.h"
#include "support/group_ranks.h"
#include "support/testing.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace {

// Values that differ on every rank and whose sums are exact.
at::Tensor ramp(int64_t rank, int64_t size, at::ScalarType dtype) {
  return at::arange(size, at::kDouble).add(100 * (rank + 1)).to(dtype);
}

at::Tensor sum_of_ramps(int64_t world, int64_t size, at::ScalarType dtype) {
  at::Tensor sum = ramp(0, size, dtype);
  for (int64_t r = 1; r < world; ++r) sum = sum + ramp(r, size, dtype);
  return sum;
}

std::string error_of(const std::exception_ptr& thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

RankInfo one_of_two(int64_t rank, int64_t port) {
  return {.rank = rank, .world = 2, .port = port, .source = "test"};
}

// Rank 0 in a process of its own, which freezes as soon as the group stands.
pid_t frozen_leader(int64_t port) {
  const pid_t process = ::fork();
  if (process != 0) return process;
  try {
    const Group group(one_of_two(0, port), std::chrono::seconds(20));
    ::raise(SIGSTOP);
  } catch (const std::exception&) {
    // Rank 1 tells.
  }
  ::_exit(0);
}

}  // namespace

TEST_CASE("group: collectives give the sums and parts that they promise", "[dist]") {
  for (const int64_t world : {1, 2, 4}) {
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      run_ranks(world, [&](Group& group) {
        const int64_t n = 6, rank = group.rank();
        const at::Tensor expected = sum_of_ramps(world, world * n, dtype);
        const at::Tensor all = ramp(rank, world * n, dtype);
        group.all_reduce(all).wait();
        TORCH_CHECK(at::equal(all, expected), "all_reduce");
        const at::Tensor part = at::empty({n}, dtype);
        group.reduce_scatter(part, ramp(rank, world * n, dtype)).wait();
        TORCH_CHECK(at::equal(part, expected.narrow(0, rank * n, n)), "reduce_scatter");
        const at::Tensor gathered = at::empty({world * n}, dtype);
        group.all_gather(gathered, ramp(rank, n, dtype)).wait();
        for (int64_t r = 0; r < world; ++r) {
          TORCH_CHECK(at::equal(gathered.narrow(0, r * n, n), ramp(r, n, dtype)), "all_gather");
        }
      });
    }
  }
}

TEST_CASE("group: bf16 parameters are gathered", "[dist]") {
  run_ranks(2, [](Group& group) {
    const at::Tensor all = at::empty({8}, at::kBFloat16);
    group.all_gather(all, at::full({4}, group.rank() + 0.5, at::kBFloat16)).wait();
    TORCH_CHECK(all[0].item<double>() == 0.5 && all[7].item<double>() == 1.5, "all_gather");
  });
}

TEST_CASE("group: host numbers are added, compared and gathered", "[dist]") {
  run_ranks(3, [](Group& group) {
    const auto r = static_cast<double>(group.rank());
    TORCH_CHECK(group.sum({r, 1}) == (std::vector<double>{3, 3}), "sum");
    TORCH_CHECK(group.max({r, -r}) == (std::vector<double>{2, 0}), "max");
    TORCH_CHECK(
        group.gather({r, 2 * r}) == (std::vector<std::vector<double>>{{0, 0}, {1, 2}, {2, 4}}),
        "gather");
  });
}

TEST_CASE("group: several collectives may be under way at once", "[dist]") {
  run_ranks(4, [](Group& group) {
    std::vector<at::Tensor> tensors;
    std::vector<Pending> pending;
    for (int i = 0; i < 20; ++i) {
      tensors.push_back(at::full({1000}, i + group.rank(), at::kFloat));
      pending.push_back(group.all_reduce(tensors.back()));
    }
    for (auto& each : pending) each.wait();
    for (int i = 0; i < 20; ++i) {
      TORCH_CHECK(tensors[i].eq(4 * i + 6).all().item<bool>(), "sum ", i);
    }
  });
}

TEST_CASE("group: texts of any length are exchanged on channels of their own", "[dist]") {
  run_ranks(3, [](Group& group) {
    const auto first = group.open_channel("first"), second = group.open_channel("second");
    // A thread of the second channel does not disturb the first.
    std::thread saver([&] {
      for (int i = 0; i < 10; ++i) second(std::string(1 + group.rank() * 100, 's'));
    });
    for (int i = 0; i < 10; ++i) {
      const auto texts = first(group.rank() == 1 ? "" : std::string(group.rank() + 1, 'a'));
      TORCH_CHECK(texts == (std::vector<std::string>{"a", "", "aaa"}), "exchange");
    }
    saver.join();
  });
}

TEST_CASE("group: rank 0 leads, and all get its text", "[dist]") {
  run_ranks(3, [](Group& group) {
    int64_t calls = 0;
    for (int i = 0; i < 3; ++i) {
      const auto text = group.led_text([&]() -> std::string {
        ++calls;
        return str("turn ", i);
      });
      TORCH_CHECK(text == str("turn ", i), "led: ", text);
    }
    TORCH_CHECK(calls == (group.leads() ? 3 : 0), "led was called ", calls, " times");
  });
}

TEST_CASE("group: only the first failure is to be told, and all learn it", "[dist]") {
  std::atomic<int> first{0};
  run_ranks(4, [&](Group& group) {
    const Failure mine{.rank = group.rank(), .exit_code = 70, .message = str("by ", group.rank())};
    if (group.publish_failure(mine)) ++first;
    const auto told = group.first_failure(std::chrono::seconds(5));
    TORCH_CHECK(told && told->exit_code == 70 && told->message == str("by ", told->rank), "told");
  });
  CHECK(first == 1);
}

TEST_CASE("group: who waits for rank 0 hears of a failure elsewhere", "[dist]") {
  const auto thrown = try_ranks(3, [](Group& group) {
    if (group.rank() == 1) group.publish_failure({1, 2, "no"});
    if (group.rank() == 2) group.led([] {});
    if (group.rank() == 0) group.first_failure(std::chrono::seconds(5));
  });
  CHECK_FALSE(thrown[0]);
  CHECK_THROWS_AS(std::rethrow_exception(thrown[2]), PeerError);
}

TEST_CASE("group: a rank that does not come to a collective is a PeerError in time", "[dist]") {
  const auto began = std::chrono::steady_clock::now();
  const auto thrown = try_ranks(
      2,
      [](Group& group) {
        group.set_timeout(std::chrono::seconds(1));
        if (group.rank() == 0) group.sum({1});
      },
      std::chrono::seconds(10));
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  CHECK(spent.count() < 8);
  CHECK_THROWS_AS(std::rethrow_exception(thrown[0]), PeerError);
  CHECK_THAT(error_of(thrown[0]), ContainsSubstring("rank 0: lost another rank during all-reduce"));
}

TEST_CASE("group: rank 0 is waited for as long as it works, and no longer", "[dist]") {
  const auto thrown = try_ranks(2, [](Group& group) {
    group.set_timeout(std::chrono::seconds(1));
    group.led([] { std::this_thread::sleep_for(std::chrono::seconds(3)); });
    if (group.rank() == 1) group.led([] {});  // rank 0 does not come
  });
  CHECK_FALSE(thrown[0]);
  CHECK(error_of(thrown[1]) == "rank 1: rank 0 gave no sign of life for 1 s");
}

TEST_CASE("group: nobody waits for ever for the store of a rank 0 that is frozen", "[dist]") {
  const int64_t port = free_port();
  const pid_t leader = frozen_leader(port);
  {
    Group group(one_of_two(1, port), std::chrono::seconds(20));
    ::waitpid(leader, nullptr, WUNTRACED);
    group.set_timeout(std::chrono::seconds(1));
    CHECK_THROWS_WITH(group.led([] {}), "rank 1: the job's store gave no answer for 1 s");
    CHECK_FALSE(group.first_failure(std::chrono::milliseconds(0)));
    CHECK(group.publish_failure({1, kPeerLostExit, "rank 0 is lost"}));
    ::kill(leader, SIGKILL);
  }
  ::waitpid(leader, nullptr, 0);
}

TEST_CASE("group: ranks that never come are a ConfigError in time", "[dist]") {
  CHECK_THROWS_AS(Group(one_of_two(0, free_port()), std::chrono::seconds(1)), ConfigError);
}

TEST_CASE("group: a store that is not there is a ConfigError with its address, in time", "[dist]") {
  const StderrCapture captured;
  const auto began = std::chrono::steady_clock::now();
  CHECK_THROWS_WITH(Group(one_of_two(1, free_port()), std::chrono::seconds(2)),
                    ContainsSubstring("the job's store at 127.0.0.1:"));
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  CHECK(spent.count() < 6);
  CHECK(captured.text().empty());
}

TEST_CASE("group: a port that is taken is told at once, and as that", "[dist]") {
  const int64_t port = free_port();
  const auto other = std::async(std::launch::async, [port] {
    const Group group(one_of_two(0, port), std::chrono::seconds(3));
  });
  std::this_thread::sleep_for(std::chrono::seconds(1));  // until it listens
  CHECK_THROWS_WITH(Group(one_of_two(0, port), std::chrono::seconds(20)),
                    ContainsSubstring("expected a free port"));
}

}  // namespace zebra::testing
