// The exceptions that the program turns into exit codes. Anything else that escapes is a bug of
// ours (exit code 1).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace zebra {

// The user's recipe, file or argument is wrong: exit code 2, printed as one line without a trace.
// The text says what was expected, what came, and where (file, key or tensor).
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The run was asked to stop (SIGTERM, time limit) and has saved a checkpoint: exit code 75, run
// again to continue.
class StoppedError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The run cannot go on (non-finite loss beyond the allowance, no good checkpoint left): exit
// code 70.
class GaveUpError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// str("rank ", 3, " of ", 4) == "rank 3 of 4"
template <class... Parts>
std::string str(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace zebra
