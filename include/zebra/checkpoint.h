// Training checkpoints: a folder a step, complete or not there at all, written by any number of
// ranks and read by any other number. docs/checkpoint_format.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "zebra/error.h"
#include "zebra/safetensors.h"

namespace zebra {

// A run of a tensor's elements in row-major order. A rank may hold all of a tensor, a part or none.
struct TensorPiece {
  std::string name;
  std::vector<int64_t> shape;  // of the whole tensor
  int64_t begin = 0;           // place of the first element in the flattened tensor
  at::Tensor values;           // (elements), on any device
};

// All of a tensor, and the part of a tensor that every rank holds which rank `rank` is to write.
TensorPiece whole_tensor(const std::string& name, const at::Tensor& tensor);
TensorPiece share_of_tensor(const std::string& name, const at::Tensor& tensor, int64_t rank,
                            int64_t world);

// What one rank gives to a checkpoint. The pieces of all ranks must cover each tensor exactly once.
struct Checkpoint {
  int64_t step = 0;                          // optimiser steps done
  std::vector<TensorPiece> pieces;           // parameters, moments, generators
  std::map<std::string, std::string> state;  // everything else, as text; rank 0's counts
  // Makes durable what the checkpoint counts on beside itself; called before the commit, by the
  // writing thread where there is one. Rank 0's counts.
  std::function<void()> sync = nullptr;
};

// How the ranks of a job talk about a checkpoint; one process alone needs none of it.
struct RankExchange {
  int64_t rank = 0, world = 1;
  // Gives this rank's text to all and returns everyone's, by rank. All ranks call it equally often,
  // so it is a barrier too. Throws after a time-out of its own. An asynchronous store calls it from
  // its writing thread: it must not share a channel with what the training says meanwhile.
  std::function<std::vector<std::string>(const std::string&)> exchange;

  std::vector<std::string> operator()(const std::string& text) const;
};

struct Manifest;  // io/checkpoint_files.h

// What keeps a checkpoint from being used; the text names the file.
class DamagedCheckpoint : public ConfigError {
 public:
  using ConfigError::ConfigError;
};

// A committed checkpoint, opened for reading. Files are mapped, tensors copied when asked for.
class SavedCheckpoint {
 public:
  // Verifies every byte. DamagedCheckpoint names what is wrong.
  explicit SavedCheckpoint(const std::filesystem::path& folder);
  ~SavedCheckpoint();
  SavedCheckpoint(SavedCheckpoint&&) noexcept;
  SavedCheckpoint& operator=(SavedCheckpoint&&) noexcept;

  int64_t step() const;
  int64_t world() const;  // ranks that wrote it
  const std::filesystem::path& folder() const;
  const std::map<std::string, std::string>& state() const;
  const std::string& state(const std::string& key) const;    // DamagedCheckpoint when there is none
  const std::map<std::string, TensorInfo>& tensors() const;  // whole ones; offsets are 0

  // A tensor, or its elements [begin, end) in row-major order. A name that is not there is a
  // DamagedCheckpoint.
  at::Tensor read(const std::string& name) const;                              // its shape
  at::Tensor read(const std::string& name, int64_t begin, int64_t end) const;  // (end - begin)

 private:
  friend class CheckpointStore;
  struct Impl;
  explicit SavedCheckpoint(std::unique_ptr<Impl> impl);
  static SavedCheckpoint open_verified(const std::filesystem::path& folder, Manifest manifest);
  std::unique_ptr<Impl> impl_;
};

// The weight `name` of the model that a stage trains as `model` ("" when there is one only).
std::string weight_key(const std::string& model, const std::string& name);

// Whether a path means a checkpoint, good or not, or a folder of them.
bool is_checkpoint(const std::filesystem::path& path);

// The checkpoint that a path means: one itself, or the newest good one of a folder of them.
// ConfigError when there is neither.
SavedCheckpoint open_checkpoint(const std::filesystem::path& path);

class ShardImage;

struct CheckpointOptions {
  int64_t keep = 2;           // newest ones kept
  int64_t keep_every = 0;     // steps: multiples of it are kept for good; 0: none
  bool asynchronous = false;  // written by a thread while the caller goes on
};

// The checkpoints of one stage in one folder. Every rank has a store on the same folder, and all
// call save, wait, load_newest and clear together. One store at a time may save into a folder.
class CheckpointStore {
 public:
  CheckpointStore(std::filesystem::path folder, const CheckpointOptions& options,
                  RankExchange ranks = {});
  ~CheckpointStore();  // waits for what is being written; an error is told in a warning
  CheckpointStore(const CheckpointStore&) = delete;
  CheckpointStore& operator=(const CheckpointStore&) = delete;

  // Writes step-NNNNNNNN: every rank its data, synced; then a manifest with size and XXH3 of each
  // file; then the commit record and the name; only then are older ones removed. A crash at any
  // moment leaves the older ones good. What the system refuses on any rank is a ConfigError on all,
  // naming the file, and nothing is left of what was begun.
  //
  // Asynchronous: copies the values, returns, and writes on a thread. A save that is still under
  // way is waited for first; its error is thrown here, in poll() or in wait().
  void save(const Checkpoint& checkpoint);
  void poll();  // throws the error of a save that has ended; returns at once while one is under way
  void wait();  // until nothing is being written
  bool writing() const;

  // The newest good checkpoint; damaged ones are named in a warning, passed over, and removed by
  // the next save. nullopt when none was ever committed; GaveUpError when there are some and all
  // are damaged.
  std::optional<SavedCheckpoint> load_newest();

  std::vector<int64_t> steps() const;  // committed, ascending
  void clear();                        // removes all
  void retire();                       // removes all but those that are kept for good

 private:
  void write(const Checkpoint& told, const std::exception_ptr& failure) const;

  std::filesystem::path folder_;
  CheckpointOptions options_;
  RankExchange ranks_;
  std::set<std::string> damaged_;      // folders that were passed over
  std::unique_ptr<ShardImage> shard_;  // of the step that is written, or was last
  std::future<void> writing_;
};

}  // namespace zebra
