#include "cli/bench/peer.h"

#include <array>
#include <cstdio>

#include "zebra/error.h"

namespace zebra {

std::string shell_quoted(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

CommandResult run_command(const std::string& command) {
  CommandResult result;
  FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) throw ConfigError("--peer: expected to start a program, got no process");
  std::array<char, 4096> buffer{};
  for (size_t n = 0; (n = fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    result.out.append(buffer.data(), n);
  }
  result.status = pclose(pipe);
  return result;
}

}  // namespace zebra
