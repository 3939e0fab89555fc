#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "zebra/checkpoint.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

// "process 4711 on host node-3"
std::string who_am_i() {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  return str("process ", ::getpid(), " on host ", host.data(), "\n");
}

}  // namespace

RunFolder::RunFolder(const fs::path& root, int64_t rank)
    : root_(root), of_rank_(rank == 0 ? "" : str(".rank-", rank)) {
  if (rank > 0) return;
  std::error_code error;
  fs::create_directories(root_ / "stages", error);
  if (error) throw ConfigError(str(root_.string(), ": cannot be created: ", error.message()));
  const auto path = root_ / ".lock";
  lock_ = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (lock_ < 0) throw ConfigError(str(path.string(), ": ", std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const bool held = errno == EWOULDBLOCK;
    const std::string reason = held ? "" : str(path.string(), ": ", std::strerror(errno));
    ::close(lock_);
    if (!held) throw ConfigError(reason);
    const std::string holder = read_file(path);
    throw ConfigError(str(root_.string(), ": another process is running in this folder",
                          holder.empty() ? "" : ": " + holder.substr(0, holder.find('\n'))));
  }
  const std::string self = who_am_i();
  if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, self.data(), self.size(), 0) < 0) {
    throw ConfigError(str(path.string(), ": cannot be written: ", std::strerror(errno)));
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

void RunFolder::complete(const std::string& stage, const StageRecord& record, int64_t keep_every) {
  const nlohmann::json json = {{"stage", stage}, {"key", record.key}, {"seconds", record.seconds}};
  write_file_atomic(record_path(stage), json.dump(2) + "\n");
  CheckpointStore store(checkpoints(stage), {.keep_every = keep_every});
  store.retire();
  if (store.steps().empty()) fs::remove_all(checkpoints(stage));
}

void RunFolder::discard(const std::string& name) {
  fs::remove(record_path(name));
  fs::remove_all(stage(name));
  fs::remove_all(checkpoints(name));
}

}  // namespace zebra
