#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>
#include <mutex>

#include "zebra/error.h"

namespace zebra {

namespace {

// The logger writes to a set of sinks that may grow while others log.
struct Log {
  std::mutex mutex;
  spdlog::logger logger{"zebra"};
  std::filesystem::path file;
  bool on_stderr = true;  // by the first sink

  Log() {
    auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
    // On a terminal a line replaces the progress line, which comes back with its next update.
    const bool terminal = ::isatty(STDERR_FILENO) == 1;
    sink->set_pattern(std::string(terminal ? "\r\x1b[K" : "") + "%Y-%m-%d %H:%M:%S %^%l%$ %v");
    logger.sinks().push_back(std::move(sink));
    logger.flush_on(spdlog::level::info);
  }
};

Log& instance() {
  static Log log;
  return log;
}

void write(spdlog::level::level_enum level, const std::string& message) {
  Log& log = instance();
  const std::lock_guard lock(log.mutex);
  log.logger.log(level, spdlog::string_view_t(message));
}

}  // namespace

void log_info(const std::string& message) { write(spdlog::level::info, message); }

void log_warning(const std::string& message) { write(spdlog::level::warn, message); }

void log_to_file(const std::filesystem::path& path) {
  Log& log = instance();
  const std::lock_guard lock(log.mutex);
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error).lexically_normal();
  if (absolute == log.file) return;
  try {
    auto sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string());
    sink->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
    log.logger.sinks().push_back(std::move(sink));
  } catch (const spdlog::spdlog_ex& failure) {
    throw ConfigError(str(path.string(), ": log file cannot be opened: ", failure.what()));
  }
  log.file = absolute;
}

void log_to_files_only() {
  Log& log = instance();
  const std::lock_guard lock(log.mutex);
  if (!log.on_stderr) return;
  log.logger.sinks().erase(log.logger.sinks().begin());
  log.on_stderr = false;
}

bool logs_to_stderr() {
  Log& log = instance();
  const std::lock_guard lock(log.mutex);
  return log.on_stderr;
}

}  // namespace zebra
