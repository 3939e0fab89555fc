// Checkpoints whose content follows from their step, and what the tests ask of them.
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "support/close_to.h"
#include "support/testing.h"
#include "zebra/checkpoint.h"

namespace zebra::testing {

using Tensors = std::map<std::string, at::Tensor>;

// What a checkpoint holds follows from its step. Small enough that no thread is started to copy it.
inline Tensors tensors_of(int64_t step) {
  return {{"a/parameter.weight", at::arange(10000, at::kFloat).view({100, 100}) + step},
          {"b", at::full({3}, step, at::kLong)}};
}

inline Checkpoint make_checkpoint(int64_t step, const Tensors& tensors) {
  Checkpoint checkpoint{.step = step, .pieces = {}, .state = {}};
  for (const auto& [name, tensor] : tensors) {
    checkpoint.pieces.push_back(whole_tensor(name, tensor));
  }
  checkpoint.state["position"] = std::to_string(1000 * step);
  return checkpoint;
}

inline Checkpoint checkpoint_of(int64_t step) { return make_checkpoint(step, tensors_of(step)); }

inline void check_tensors(const SavedCheckpoint& saved, const Tensors& expected) {
  CHECK(saved.tensors().size() == expected.size());
  for (const auto& [name, tensor] : expected) {
    REQUIRE(saved.tensors().contains(name));
    const auto read = saved.read(name);
    CHECK(read.dtype() == tensor.dtype());
    check_equal(read, tensor, name);
  }
}

inline void check_same(const std::optional<SavedCheckpoint>& actual, int64_t step) {
  REQUIRE(actual.has_value());
  CHECK(actual->step() == step);
  CHECK(actual->state("position") == std::to_string(1000 * step));
  check_tensors(*actual, tensors_of(step));
}

inline std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& item : std::filesystem::directory_iterator(folder))
    names.insert(item.path().filename());
  return names;
}

using Names = std::set<std::string>;

inline void flip_bit(const std::filesystem::path& path, uint64_t at) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<int64_t>(at));
  const char byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<int64_t>(at));
  file.put(byte);
}

}  // namespace zebra::testing
