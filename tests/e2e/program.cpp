#include "e2e/program.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "support/testing.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

std::string program() {
  const char* path = std::getenv("ZEBRA_BIN");
  return path != nullptr ? path : ZEBRA_BINARY;
}

void surround(const Surroundings& surroundings) {
  for (const auto& [name, value] : surroundings.environment) {
    ::setenv(name.c_str(), value.c_str(), /*replace=*/1);
  }
  if (surroundings.file_limit == 0) return;
  const rlimit limit{surroundings.file_limit, surroundings.file_limit};
  ::setrlimit(RLIMIT_FSIZE, &limit);
}

// Files `in`, `out` and `err` of `logs` are its standard streams.
[[noreturn]] void become(const std::vector<std::string>& arguments, const fs::path& folder,
                         const fs::path& logs) {
  const int in_file = ::open((logs / "in").c_str(), O_RDONLY);
  const int out_file = ::open((logs / "out").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0644);
  const int err_file = ::open((logs / "err").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0644);
  ::dup2(in_file, STDIN_FILENO);
  ::dup2(out_file, STDOUT_FILENO);
  ::dup2(err_file, STDERR_FILENO);
  if (::chdir(folder.c_str()) != 0) ::_exit(126);
  const std::string binary = program();
  std::vector<char*> words = {const_cast<char*>(binary.c_str())};
  for (const auto& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  ::execv(binary.c_str(), words.data());
  ::_exit(127);
}

}  // namespace

Outcome run_zebra(const std::vector<std::string>& arguments, const fs::path& folder,
                  const std::optional<Interruption>& interruption,
                  const Surroundings& surroundings) {
  const TempFolder logs;
  const auto out = logs.path() / "out", err = logs.path() / "err";
  write_text(logs.path() / "in", surroundings.input);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    surround(surroundings);
    become(arguments, folder, logs.path());
  }
  const auto begin = std::chrono::steady_clock::now();
  bool sent = false;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    const bool watches = interruption && !sent && interruption->when;
    const bool due =
        watches ? interruption->when() : interruption && spent.count() >= interruption->seconds;
    if (due && !sent) {
      ::kill(child, interruption->signal);
      sent = true;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(watches ? 100 : 2000));
  }
  return {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
          .interrupted = sent,
          .out = read_text(out),
          .err = read_text(err)};
}

TempFolder::TempFolder() {
  std::string pattern = (fs::temp_directory_path() / "zebra-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
  path_ = pattern;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::string read_text(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void write_text(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

std::string require_success(const Outcome& outcome) {
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  return outcome.out;
}

void check_refused(const Outcome& outcome, const std::string& what) {
  INFO(outcome.out);
  INFO(outcome.err);
  CHECK(outcome.exit_code == 2);
  CHECK(outcome.out.empty());
  std::istringstream lines(outcome.err);
  std::string told;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" info ") != std::string("2026-01-01 00:00:00").size()) told += line + "\n";
  }
  CHECK(std::count(told.begin(), told.end(), '\n') == 1);
  CHECK(told.starts_with("zebra: error: "));
  CHECK_THAT(told, ContainsSubstring(what));
}

void make_text(const fs::path& folder, const TextSizes& sizes) {
  const auto text = [](int number) { return std::to_string(number); };
  require_success(run_zebra({"data", "stories", "--out", "text", "--seed", "5", "--stories",
                             text(sizes.stories), "--held-out", text(sizes.held_out), "--questions",
                             text(sizes.questions), "--pairs", text(sizes.pairs)},
                            folder));
  require_success(run_zebra({"data", "tokenizer", "--input", "text/train.txt", "--vocab", "400",
                             "--output", "text/tokenizer.model"},
                            folder));
}

std::string measures(const fs::path& metrics) {
  std::istringstream lines(read_text(metrics));
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    auto json = nlohmann::ordered_json::parse(line);
    for (const char* key : {"tokens_per_second", "step_seconds", "data_seconds", "memory_bytes",
                            "model_tflops", "mfu"}) {
      json.erase(key);
    }
    kept += json.dump() + "\n";
  }
  return kept;
}

}  // namespace zebra::testing
