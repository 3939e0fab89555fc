// Reading and writing safetensors files and folders of them. Knows tensors and names, not models.
// Format: 8 bytes little-endian header length, a JSON header {name: {dtype, shape, data_offsets}},
// the data.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace zebra {

struct TensorInfo {
  at::ScalarType dtype;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes within the data part
};

// One mapped file. Opening checks the whole header against the file: lengths, dtypes, shapes,
// offsets without gaps or overlaps. A header that lies is refused with the file's name
// (ConfigError).
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::map<std::string, TensorInfo>& tensors() const;
  const std::map<std::string, std::string>& metadata() const;
  const TensorInfo& info(const std::string& name) const;  // ConfigError when there is none
  at::Tensor read(const std::string& name) const;         // a copy, in the file's dtype
  // The elements [begin, end) in row-major order, copied to `to` (contiguous, of the file's dtype).
  void read_elements(const std::string& name, int64_t begin, int64_t end, void* to) const;
  const std::filesystem::path& path() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A folder's weights: model.safetensors, which wins where both exist, or the shards that
// model.safetensors.index.json names; these are checked against the index at once. A file is mapped
// when a tensor of its own is read and unmapped when another is opened, so host memory stays at one
// shard. A tensor that is not there is a ConfigError that names it and the folder.
class WeightFolder {
 public:
  explicit WeightFolder(const std::filesystem::path& folder);
  bool contains(const std::string& name) const;
  std::vector<std::string> names() const;  // sorted
  TensorInfo info(const std::string& name) const;
  at::Tensor read(const std::string& name) const;  // a copy, in the file's dtype
  std::filesystem::path file_of(const std::string& name) const;

 private:
  struct Entry {
    std::string file;
    TensorInfo info;
  };
  const Entry& entry(const std::string& name) const;

  std::filesystem::path folder_;
  std::map<std::string, Entry> entries_;  // by tensor
  mutable std::unique_ptr<SafetensorsFile> open_;
};

// Writes one file (to a temporary name, fsync, rename). Tensors may lie on any device; names are
// written sorted.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, at::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

// Writes a folder's weights one tensor at a time: a single file up to `shard_bytes`, beyond that
// numbered shards with an index. `tensor` is called once for each name, in the order of `infos`,
// and its result let go before the next call, so that the caller need not hold them all. The
// metadata
// {"format": "pt"} is what Hugging Face transformers asks for. Existing weights are not replaced.
struct WeightWriterOptions {
  uint64_t shard_bytes = 5'000'000'000;
};
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual std::vector<std::pair<std::string, TensorInfo>> infos() const = 0;  // offsets are ignored
  virtual at::Tensor tensor(const std::string& name) = 0;
};
void write_weight_folder(const std::filesystem::path& folder, WeightSource& source,
                         const WeightWriterOptions& options);

}  // namespace zebra
