// The main function of every test executable, and the functions testing.h declares.
// Prints one closing line, `cases: N passed, N failed, N skipped`, which scripts/test.sh adds up.
#define CATCH_CONFIG_RUNNER
#include "support/testing.h"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <iostream>
#include <set>

namespace zebra::testing {
namespace {

std::string environment(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : fallback;
}

struct Run {
  std::string current;            // the running test case
  std::set<std::string> skipped;  // test cases that called note_skip
  uint64_t passed = 0, failed = 0;
};

Run& run() {
  static Run state;
  return state;
}

#if __has_include(<catch2/catch_all.hpp>)
using ListenerBase = Catch::EventListenerBase;
#else
using ListenerBase = Catch::TestEventListenerBase;
#endif

struct Listener : ListenerBase {
  using ListenerBase::ListenerBase;
  void testCaseStarting(const Catch::TestCaseInfo& info) override { run().current = info.name; }
  void testRunEnded(const Catch::TestRunStats& stats) override {
    run().passed = stats.totals.testCases.passed;
    run().failed = stats.totals.testCases.failed + stats.totals.testCases.failedButOk;
  }
};
CATCH_REGISTER_LISTENER(Listener)

}  // namespace

std::filesystem::path shared_path(const std::string& relative) {
  const auto fallback = source_path("../shared").string();
  return std::filesystem::path(environment("ZEBRA_SHARED", fallback)) / relative;
}

std::filesystem::path source_path(const std::string& relative) {
  return std::filesystem::path(ZEBRA_SOURCE_DIR) / relative;
}

torch::Device test_device() { return torch::Device(environment("ZEBRA_TEST_DEVICE", "cpu")); }

torch::Dtype test_dtype() {
  const auto name = environment("ZEBRA_TEST_DTYPE", "float32");
  TORCH_CHECK(name == "float32" || name == "bfloat16", "ZEBRA_TEST_DTYPE: unknown dtype ", name);
  return name == "float32" ? torch::kFloat32 : torch::kBFloat16;
}

void note_skip(const std::string& reason) {
  if (run().skipped.insert(run().current).second) {
    std::cout << "skipped: " << run().current << ": " << reason << "\n";
  }
}

}  // namespace zebra::testing

int main(int argc, char** argv) {
  at::set_num_threads(2);
  Catch::Session session;
#if __has_include(<catch2/catch_all.hpp>)
  session.configData().allowZeroTests = true;
#endif
  const int rc = session.run(argc, argv);
  const auto& totals = zebra::testing::run();
  const auto skipped = totals.skipped.size();
  std::cout << "cases: " << totals.passed - std::min<uint64_t>(skipped, totals.passed)
            << " passed, " << totals.failed << " failed, " << skipped << " skipped" << std::endl;
  return rc;
}
