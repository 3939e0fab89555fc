// Runs the built program as a user does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace zebra::testing {

struct Outcome {
  int exit_code = 0;         // -1 when a signal ended it
  bool interrupted = false;  // the interruption's signal was sent
  std::string out, err;
};

// When a signal is sent: after so many seconds, or as soon as `when` holds, which is looked at all
// the time.
struct Interruption {
  double seconds = 0;
  int signal = 0;
  std::function<bool()> when = {};
};

// What the program meets.
struct Surroundings {
  std::map<std::string, std::string> environment;  // beside ours
  uint64_t file_limit = 0;                         // bytes that no file can grow beyond; 0: none
  std::string input = {};                          // on stdin
};

// zebra ARGUMENTS in `folder`, waited for.
Outcome run_zebra(const std::vector<std::string>& arguments, const std::filesystem::path& folder,
                  const std::optional<Interruption>& interruption = std::nullopt,
                  const Surroundings& surroundings = {});

// A folder of its own under the system's temporary folder, removed at the end.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Its output; the test ends here when it failed.
std::string require_success(const Outcome& outcome);

// Exit code 2, nothing on stdout, and one line on stderr, beside the log's, that begins as all
// errors do.
void check_refused(const Outcome& outcome, const std::string& what);

// Generated stories and what belongs to them in FOLDER/text, with a tokenizer of 400 pieces.
struct TextSizes {
  int stories, held_out, questions, pairs;
};
void make_text(const std::filesystem::path& folder, const TextSizes& sizes);

// A metrics.jsonl without what depends on the machine and its clock.
std::string measures(const std::filesystem::path& metrics);

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace zebra::testing
