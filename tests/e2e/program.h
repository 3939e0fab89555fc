// Runs the built program as a user does.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace zebra::testing {

struct Outcome {
  int exit_code = 0;  // -1 when a signal ended it
  std::string out, err;
};

// zebra ARGUMENTS in `folder`, waited for. `signal_after`: seconds after which `signal` is sent to
// it.
struct Interruption {
  double seconds = 0;
  int signal = 0;
};
// `input`: what it reads on stdin.
Outcome run_zebra(const std::vector<std::string>& arguments, const std::filesystem::path& folder,
                  const std::optional<Interruption>& interruption = std::nullopt,
                  const std::string& input = "");

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

std::string read_text(const std::filesystem::path& path);
void write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace zebra::testing
