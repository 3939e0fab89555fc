#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "io/checkpoint_files.h"
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

// {"mla/model.safetensors": {"bytes": 123, "xxh3": "..."}, ...}
json facts_of_files(const fs::path& folder) {
  json files = json::object();
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    files[entry.path().lexically_relative(folder).string()] = {
        {"bytes", entry.file_size()}, {"xxh3", hex16(hash_file(entry.path()))}};
  }
  return files;
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

void RunFolder::verify(const std::string& name) const {
  const auto path = record_path(name);
  const auto files = find_value<json>(read_json(path), "files", path.string());
  if (!files) return;
  for (const auto& [file, facts] : files->items()) {
    try {
      check_file(stage(name), file,
                 {.bytes = require<uint64_t>(facts, "bytes", path.string()),
                  .xxh3 = require<std::string>(facts, "xxh3", path.string())});
    } catch (const DamagedCheckpoint& error) {
      throw ConfigError(str(stage(name).string(), "/", error.what(), "; run with --from ", name,
                            " to make it again"));
    }
  }
}

void RunFolder::complete(const std::string& name, const StageRecord& record, int64_t keep_every) {
  const json told = {{"stage", name},
                     {"key", record.key},
                     {"seconds", record.seconds},
                     {"files", facts_of_files(stage(name))}};
  write_file_atomic(record_path(name), told.dump(2) + "\n");
  CheckpointStore store(checkpoints(name), {.keep_every = keep_every});
  store.retire();
  if (store.steps().empty()) fs::remove_all(checkpoints(name));
}

void RunFolder::discard(const std::string& name) {
  fs::remove(record_path(name));
  fs::remove_all(stage(name));
  fs::remove_all(checkpoints(name));
}

}  // namespace zebra
