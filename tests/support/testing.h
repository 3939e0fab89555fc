// The only header that includes Catch2. LibTorch comes first: both define CHECK, and Catch2's must
// win. Serves Catch2 2 (Debian 12) and 3.
//
// A guard by macro, not #pragma once: this header is part of a precompiled one, which a compiler
// cache may take from before a change of comments here. GCC would then see two different files.
#ifndef ZEBRA_TESTS_SUPPORT_TESTING_H
#define ZEBRA_TESTS_SUPPORT_TESTING_H

#include "base/libtorch.h"

#undef CHECK
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
namespace zebra::testing {
using Catch::Approx;
using Catch::Matchers::ContainsSubstring;
}  // namespace zebra::testing
#else
#include <catch2/catch.hpp>
namespace zebra::testing {
using Catch::Detail::Approx;
inline auto ContainsSubstring(const std::string& text) { return Catch::Matchers::Contains(text); }
}  // namespace zebra::testing
#endif

#include <filesystem>
#include <string>

namespace zebra::testing {

// The folder of goldens and data that lies outside the repository ($ZEBRA_SHARED, by default
// ../shared from the root), with `relative` appended. It may not exist.
std::filesystem::path shared_path(const std::string& relative = "");

// The root of the source tree, with `relative` appended.
std::filesystem::path source_path(const std::string& relative = "");

// $ZEBRA_TEST_DEVICE (cpu, cuda) and $ZEBRA_TEST_DTYPE (float32, bfloat16): what golden tests run
// on. By default cpu and float32.
torch::Device test_device();
torch::Dtype test_dtype();

// Counts the running test case as skipped. Use the macros below, which also leave the test.
void note_skip(const std::string& reason);

}  // namespace zebra::testing

// Leaves the test case; it is reported as skipped, with the reason.
#define ZEBRA_SKIP(reason)               \
  do {                                   \
    ::zebra::testing::note_skip(reason); \
    return;                              \
  } while (false)

// Skips the test case unless `relative` exists in the shared folder.
#define ZEBRA_NEEDS_SHARED(relative)                                     \
  if (!std::filesystem::exists(::zebra::testing::shared_path(relative))) \
  ZEBRA_SKIP(::zebra::testing::shared_path(relative).string() + " missing")

#endif  // ZEBRA_TESTS_SUPPORT_TESTING_H
