// What the program writes on stderr while an object of this class lives.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace zebra::testing {

// A whole file.
inline std::string text_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class StderrCapture {
 public:
  // Into a file of its own, so that nothing blocks however much is written.
  StderrCapture()
      : path_(std::filesystem::temp_directory_path() /
              ("zebra-stderr-" + std::to_string(::getpid()))) {
    redirect(::open(path_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600));
  }
  // Into an open file, such as a terminal; it is closed.
  explicit StderrCapture(int file) { redirect(file); }
  ~StderrCapture() {
    std::fflush(stderr);
    ::dup2(saved_, STDERR_FILENO);
    ::close(saved_);
    if (!path_.empty()) std::filesystem::remove(path_);
  }
  StderrCapture(const StderrCapture&) = delete;
  StderrCapture& operator=(const StderrCapture&) = delete;

  std::string text() const {
    std::fflush(stderr);
    return text_of(path_);
  }

 private:
  void redirect(int file) {
    std::fflush(stderr);
    saved_ = ::dup(STDERR_FILENO);
    ::dup2(file, STDERR_FILENO);
    ::close(file);
  }

  std::filesystem::path path_;
  int saved_ = -1;
};

}  // namespace zebra::testing
