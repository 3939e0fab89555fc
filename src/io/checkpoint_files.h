// What lies in a checkpoint's folder, shared by the writing and the reading side.
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "zebra/checkpoint.h"

namespace zebra {

inline constexpr int64_t kCheckpointFormat = 2;
inline constexpr const char* kState = "state.json";
inline constexpr const char* kManifest = "manifest.json";
inline constexpr const char* kCommit = "COMMIT";
inline constexpr const char* kTemporary = "tmp-";  // what crashes leave behind begins with it

// A committed checkpoint. A step that is saved again becomes a new folder with the next revision.
struct CheckpointEntry {
  int64_t step = 0, revision = 0;
  auto operator<=>(const CheckpointEntry&) const = default;
};

// "step-00000120", later "step-00000120.1"
std::string folder_name(const CheckpointEntry& entry);
// Only of names that folder_name would give, so that a copy such as step-7.bak is left alone.
std::optional<CheckpointEntry> parse_folder_name(const std::string& name);
std::vector<CheckpointEntry> committed_entries(const std::filesystem::path& folder);  // ascending

std::string shard_file(int64_t rank, int64_t world);  // "rank-00001-of-00004.safetensors"

// Name of a piece in its shard: "NAME@BEGIN".
std::string piece_key(const std::string& name, int64_t begin);

std::string hex16(uint64_t value);  // 16 digits

struct FileFacts {
  uint64_t bytes = 0;
  std::string xxh3;
};

// manifest.json
struct Manifest {
  struct Piece {
    int64_t begin = 0, end = 0;
    std::string file;
  };
  struct Tensor {
    TensorInfo info;            // of the whole tensor; offsets unused
    std::vector<Piece> pieces;  // ascending, without gaps
  };
  int64_t step = 0, world = 1;
  std::map<std::string, FileFacts> files;
  std::map<std::string, Tensor> tensors;

  json to_json() const;
  static Manifest from_json(const json& value);  // DamagedCheckpoint for another format
};

// COMMIT and manifest.json of a folder, checked against each other and against its step.
Manifest read_manifest(const std::filesystem::path& folder);

// Size and hash of one file that the manifest lists; DamagedCheckpoint names it.
void check_file(const std::filesystem::path& folder, const std::string& name,
                const FileFacts& expected);

int64_t element_count(const std::vector<int64_t>& shape);

}  // namespace zebra
