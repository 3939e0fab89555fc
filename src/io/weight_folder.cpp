#include <algorithm>
#include <cstdio>

#include "base/file.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/signals.h"
#include "io/safetensors_header.h"
#include "zebra/error.h"
#include "zebra/safetensors.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::map<std::string, std::string> files_of_index(const fs::path& folder) {
  const fs::path path = folder / kIndex;
  const json index = read_json(path);
  const auto map = require<json>(index, "weight_map", path);
  if (!map.is_object()) fail_json(path, "weight_map", "an object", map);
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : map.items()) {
    const auto name = require<std::string>(map, tensor, path.string() + ": weight_map");
    if (name.empty() || fs::path(name).filename() != fs::path(name)) {
      fail_json(path, "weight_map." + tensor, "the name of a file in the folder", file);
    }
    files[tensor] = name;
  }
  return files;
}

// A shard's header against the index, in both directions.
void check_shard(const SafetensorsFile& shard, const std::vector<std::string>& listed,
                 const std::map<std::string, std::string>& file_of) {
  const std::string path = shard.path().string();
  for (const auto& tensor : listed) {
    if (shard.tensors().contains(tensor)) continue;
    throw ConfigError(
        str(path, ": expected tensor '", tensor, "', which ", kIndex, " lists there, got none"));
  }
  for (const auto& [tensor, info] : shard.tensors()) {
    const auto found = file_of.find(tensor);
    if (found == file_of.end()) {
      throw ConfigError(str(path, ": tensor '", tensor, "': ", kIndex, " does not list it"));
    }
    if (found->second != shard.path().filename()) {
      throw ConfigError(
          str(path, ": tensor '", tensor, "': ", kIndex, " lists it in ", found->second));
    }
  }
}

[[noreturn]] void fail_without_weights(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw ConfigError(str(folder.string(), ": expected a model folder, got ",
                          fs::exists(folder, error) ? "a file" : "nothing there"));
  }
  std::string other;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().string();
    const bool pickled = entry.path().extension() == ".bin" || entry.path().extension() == ".pt" ||
                         entry.path().extension() == ".pth";
    if (pickled && (other.empty() || name < other)) other = name;
  }
  throw ConfigError(str(folder.string(), ": expected ", kSingle, " or ", kIndex, ", got ",
                        other.empty() ? "neither"
                                      : other + ", a format that is not read: save the model as "
                                                "safetensors"));
}

}  // namespace

WeightFolder::WeightFolder(const fs::path& folder) : folder_(folder) {
  const auto add = [this](const SafetensorsFile& file) {
    for (const auto& [tensor, info] : file.tensors()) {
      entries_[tensor] = {file.path().filename().string(), info};
    }
  };
  if (fs::exists(folder_ / kSingle)) {
    open_ = std::make_unique<SafetensorsFile>(folder_ / kSingle);
    add(*open_);
    return;
  }
  if (!fs::exists(folder_ / kIndex)) fail_without_weights(folder_);
  const auto file_of = files_of_index(folder_);
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& [tensor, file] : file_of) shards[file].push_back(tensor);
  for (const auto& [file, listed] : shards) {
    if (fs::exists(folder_ / file)) continue;
    throw ConfigError(str((folder_ / file).string(), ": missing; ", kIndex, " lists ",
                          listed.size(), " tensors in it"));
  }
  for (const auto& [file, listed] : shards) {
    const SafetensorsFile shard(folder_ / file);
    check_shard(shard, listed, file_of);
    add(shard);
  }
}

bool WeightFolder::contains(const std::string& name) const { return entries_.contains(name); }

std::vector<std::string> WeightFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [tensor, entry] : entries_) names.push_back(tensor);
  return names;
}

const WeightFolder::Entry& WeightFolder::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found != entries_.end()) return found->second;
  throw ConfigError(str(folder_.string(), ": expected tensor '", name, "', got none"));
}

fs::path WeightFolder::file_of(const std::string& name) const { return folder_ / entry(name).file; }

TensorInfo WeightFolder::info(const std::string& name) const { return entry(name).info; }

at::Tensor WeightFolder::read(const std::string& name) const {
  const fs::path path = file_of(name);
  if (!open_ || open_->path() != path) {
    open_.reset();  // unmapped before the next is mapped
    open_ = std::make_unique<SafetensorsFile>(path);
  }
  return open_->read(name);
}

namespace {

// How a source's tensors are cut into files, in the source's order.
std::vector<NamedInfos> cut_shards(const NamedInfos& infos, uint64_t shard_bytes) {
  std::vector<NamedInfos> shards(1);
  uint64_t filled = 0;
  for (const auto& item : infos) {
    const uint64_t bytes = data_bytes(item.second);
    if (!shards.back().empty() && filled + bytes > shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(item);
    filled += bytes;
  }
  return shards;
}

std::string shard_name(size_t number, size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", number, count);
  return name;
}

void write_shard(const fs::path& path, const NamedInfos& infos, WeightSource& source) {
  OutputFile file(path);
  file.write(make_safetensors_header(infos, {{"format", "pt"}}));
  const auto count = static_cast<int64_t>(infos.size());
  Progress progress(str("tensors of ", path.filename().string()), count, /*tokens_per_step=*/0);
  int64_t written = 0;
  for (const auto& [name, info] : infos) {
    throw_if_stopped(path.string());
    progress.update(written++, "");
    const at::Tensor tensor = source.tensor(name).detach().to(at::kCPU).contiguous();
    TORCH_CHECK(tensor.scalar_type() == info.dtype && tensor.sizes() == info.shape,
                "safetensors: tensor '", name, "': expected ", at::IntArrayRef(info.shape), " of ",
                info.dtype, ", got ", tensor.sizes(), " of ", tensor.scalar_type());
    file.write(tensor.data_ptr(), tensor.nbytes());
  }
  file.commit();
}

}  // namespace

void write_weight_folder(const fs::path& folder, WeightSource& source,
                         const WeightWriterOptions& options) {
  for (const char* name : {kSingle, kIndex}) {
    if (fs::exists(folder / name)) {
      throw ConfigError(str((folder / name).string(), ": expected a folder without weights"));
    }
  }
  const auto shards = cut_shards(source.infos(), options.shard_bytes);
  if (shards.size() == 1) {
    write_shard(folder / kSingle, shards[0], source);
    return;
  }
  json map = json::object();
  uint64_t total = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i + 1, shards.size());
    for (const auto& [tensor, info] : shards[i]) {
      map[tensor] = name;
      total += data_bytes(info);
    }
    write_shard(folder / name, shards[i], source);
  }
  const json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
  write_file_atomic(folder / kIndex, index.dump(2) + "\n");
}

}  // namespace zebra
