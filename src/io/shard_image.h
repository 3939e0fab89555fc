// One rank's shard of a checkpoint as the bytes of its file: taken at a step, written later.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "zebra/checkpoint.h"

namespace zebra {

class ShardImage {
 public:
  // Copies the values. The same memory and header serve as long as the pieces have the same form:
  // fresh pages would cost more than the copy.
  void take(const std::vector<TensorPiece>& pieces);

  // Writes the file, synced. What the manifest must know of it: {"bytes", "xxh3", "pieces": [[name,
  // dtype, shape, begin, end], ...]}.
  json write(const std::filesystem::path& path) const;

 private:
  struct Place {
    std::string name;
    std::vector<int64_t> shape;  // of the whole tensor
    int64_t begin, count;
    at::ScalarType dtype;
  };
  bool same_layout(const std::vector<TensorPiece>& pieces) const;
  void lay_out(const std::vector<TensorPiece>& pieces);

  std::vector<Place> layout_;
  std::string header_;
  json told_;
  at::Tensor image_;  // (bytes) header and values, at an address that direct writing asks for
};

}  // namespace zebra
