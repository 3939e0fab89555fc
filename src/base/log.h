// Log lines on stderr, and in a file when asked. The logging library is hidden behind these
// functions.
#pragma once

#include <filesystem>
#include <string>

namespace zebra {

// One line each, with date, time and level. May be called from any thread.
void log_info(const std::string& message);
void log_warning(const std::string& message);

// From now on every line is also appended to this file, whose folder is created. A file that cannot
// be opened is a ConfigError. Naming the same file again changes nothing.
void log_to_file(const std::filesystem::path& path);

// From now on nothing is written to stderr: one rank of a job speaks for all.
void log_to_files_only();
bool logs_to_stderr();

}  // namespace zebra
