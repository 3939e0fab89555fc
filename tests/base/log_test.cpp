#include "base/log.h"

#include "support/capture.h"
#include "support/temp_dir.h"
#include "support/testing.h"

#include <regex>

#include "zebra/error.h"

namespace fs = std::filesystem;
using zebra::testing::StderrCapture;
using zebra::testing::TempDir;
using zebra::testing::text_of;

TEST_CASE("log: lines go to stderr with date, time and level") {
  StderrCapture capture;
  zebra::log_info("{} braces stay as they are");
  zebra::log_warning("look out");
  const std::string text = capture.text();
  const std::string time = "\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d:\\d\\d ";
  CHECK(std::regex_search(text, std::regex(time + "info \\{\\} braces stay as they are\n")));
  CHECK(std::regex_search(text, std::regex(time + "warning look out\n")));
}

TEST_CASE("log: a file gets every line too, after what it held") {
  const TempDir folder;
  const fs::path file = folder / "deeper" / "log.txt";
  fs::create_directories(file.parent_path());
  std::ofstream(file) << "before\n";
  {
    StderrCapture capture;
    zebra::log_to_file(file);
    zebra::log_to_file(folder / "deeper" / "." / "log.txt");  // the same
    zebra::log_info("hello");
    CHECK(capture.text().find("info hello\n") != std::string::npos);
    zebra::log_to_file(folder / "new" / "log.txt");
    zebra::log_warning("bye");
  }
  CHECK(std::regex_match(text_of(file), std::regex("before\n[^\n]*info hello\n[^\n]*bye\n")));
  CHECK(std::regex_match(text_of(folder / "new" / "log.txt"), std::regex("[^\n]*warning bye\n")));
}

TEST_CASE("log: a file that cannot be opened is the user's to mend") {
  CHECK_THROWS_AS(zebra::log_to_file("/proc/nowhere/log.txt"), zebra::ConfigError);
}
