// Training checkpoints: a folder a step, complete or not there at all. docs/checkpoint_format.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace zebra {

// What a stage needs to go on exactly where it was.
struct Checkpoint {
  int64_t step = 0;                           // optimiser steps done
  std::map<std::string, at::Tensor> tensors;  // parameters, moments
  std::map<std::string, std::string> state;   // everything else, as text (positions, sums, hashes)
};

// A folder of checkpoints of one stage.
class CheckpointStore {
 public:
  CheckpointStore(std::filesystem::path folder, int64_t keep);

  // Writes step-NNNNNNNN: data files, then a manifest with size and XXH3 of each, fsync of files
  // and folder, then the commit record; only then are older checkpoints beyond `keep` removed. A
  // crash at any moment leaves the older ones good. A full disk is a ConfigError naming the file;
  // what was begun is removed.
  void save(const Checkpoint& checkpoint);

  // The newest good checkpoint, verified; damaged ones are named in a warning and passed over.
  // None: nullopt when none was ever committed; GaveUpError when there are some and all are
  // damaged.
  std::optional<Checkpoint> load_newest() const;

  std::vector<int64_t> steps() const;  // committed, ascending
  void clear();                        // removes all

 private:
  std::filesystem::path folder_;
  int64_t keep_;
};

}  // namespace zebra
