#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

RunFolder::RunFolder(const fs::path& root) : root_(root) {
  std::error_code error;
  fs::create_directories(root_ / "stages", error);
  if (error) throw ConfigError(str(root_.string(), ": cannot be created: ", error.message()));
  const auto path = root_ / ".lock";
  lock_ = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (lock_ < 0) throw ConfigError(str(path.string(), ": ", std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw ConfigError(str(root_.string(), ": another process is running in this folder"));
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);  // releases the lock
}

fs::path RunFolder::record_path(const std::string& stage) const {
  return root_ / "stages" / (stage + ".json");
}

std::optional<StageRecord> RunFolder::record(const std::string& stage) const {
  const auto path = record_path(stage);
  if (!fs::exists(path)) return std::nullopt;
  const auto json = read_json(path);
  return StageRecord{.key = require<uint64_t>(json, "key", path.string()),
                     .seconds = require<double>(json, "seconds", path.string())};
}

void RunFolder::complete(const std::string& stage, const StageRecord& record) {
  const nlohmann::json json = {{"stage", stage}, {"key", record.key}, {"seconds", record.seconds}};
  write_file_atomic(record_path(stage), json.dump(2) + "\n");
  fs::remove_all(checkpoints(stage));
}

void RunFolder::discard(const std::string& name) {
  fs::remove(record_path(name));
  fs::remove_all(stage(name));
  fs::remove_all(checkpoints(name));
}

}  // namespace zebra
