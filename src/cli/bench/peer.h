// Other people's programs, started to be measured beside ours (--peer).
#pragma once

#include <string>

namespace zebra {

// A word of a command line, whatever it holds.
std::string shell_quoted(const std::string& word);

struct CommandResult {
  int status = 0;   // as of waitpid()
  std::string out;  // stdout
};
// Waits for its end; stderr is ours. ConfigError when no process can be started.
CommandResult run_command(const std::string& command);

}  // namespace zebra
