// The folder of one run: where everything lies, which stages are complete, and that only one
// process works in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace zebra {

// Written when a stage is complete; a stage without one is unfinished whatever lies in its folder.
struct StageRecord {
  uint64_t key = 0;    // hash of everything that the stage's result depends on
  double seconds = 0;  // time spent, over all attempts
};

class RunFolder {
 public:
  // Creates the folder and takes its lock, in which it writes who it is. ConfigError when the
  // folder cannot be written or another process holds the lock, which is named. Of several ranks
  // the first holds the lock for all.
  explicit RunFolder(const std::filesystem::path& root, int64_t rank = 0);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path stage(const std::string& name) const { return root_ / "stages" / name; }
  std::filesystem::path checkpoints(const std::string& stage) const {
    return root_ / "checkpoints" / stage;
  }
  std::filesystem::path metrics() const { return root_ / "metrics.jsonl"; }
  std::filesystem::path tensorboard() const { return root_ / "tensorboard"; }
  std::filesystem::path traces() const { return root_ / "traces"; }
  std::filesystem::path heartbeat() const { return root_ / ("heartbeat" + of_rank_ + ".json"); }
  std::filesystem::path resolved_recipe() const { return root_ / "recipe.resolved.yaml"; }
  std::filesystem::path log() const { return root_ / ("log" + of_rank_ + ".txt"); }

  std::optional<StageRecord> record(const std::string& stage) const;
  // ConfigError unless all files of a complete stage are what the record says of them; a record
  // from before they were recorded says nothing.
  void verify(const std::string& stage) const;
  // Writes the record, with size and hash of the stage's files, and removes the stage's checkpoints
  // but those whose step is a multiple of `keep_every` (0: all).
  void complete(const std::string& stage, const StageRecord& record, int64_t keep_every);
  void discard(const std::string& stage);  // its record, model folders and checkpoints

 private:
  std::filesystem::path record_path(const std::string& stage) const;

  std::filesystem::path root_;
  std::string of_rank_;  // ".rank-2" in the names of files that each rank has; "" for the first
  int lock_ = -1;
};

}  // namespace zebra
