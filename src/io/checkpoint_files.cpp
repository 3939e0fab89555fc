#include "io/checkpoint_files.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>

#include "base/file.h"
#include "base/hash.h"
#include "io/safetensors_header.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr const char* kStep = "step-";

std::string existing_text(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    throw DamagedCheckpoint(str(path.filename().string(), ": missing"));
  }
  return read_file(path);
}

json piece_json(const Manifest::Piece& piece) {
  return {{"begin", piece.begin}, {"end", piece.end}, {"file", piece.file}};
}

Manifest::Tensor tensor_from_json(const json& value) {
  Manifest::Tensor tensor;
  tensor.info.dtype = dtype_of_name(value.at("dtype").get<std::string>(), kManifest);
  tensor.info.shape = value.at("shape").get<std::vector<int64_t>>();
  for (const json& piece : value.at("pieces")) {
    tensor.pieces.push_back({.begin = piece.at("begin").get<int64_t>(),
                             .end = piece.at("end").get<int64_t>(),
                             .file = piece.at("file").get<std::string>()});
  }
  return tensor;
}

}  // namespace

std::string folder_name(const CheckpointEntry& entry) {
  std::string digits = std::to_string(entry.step);
  if (digits.size() < 8) digits.insert(0, 8 - digits.size(), '0');
  return kStep + digits + (entry.revision > 0 ? str(".", entry.revision) : "");
}

std::optional<CheckpointEntry> parse_folder_name(const std::string& name) {
  const std::string start = kStep;
  if (!name.starts_with(start)) return std::nullopt;
  CheckpointEntry entry;
  const char* const end = name.data() + name.size();
  auto [at, error] = std::from_chars(name.data() + start.size(), end, entry.step);
  if (error == std::errc() && at != end && *at == '.') {
    const auto rest = std::from_chars(at + 1, end, entry.revision);
    at = rest.ptr;
    error = rest.ec;
  }
  if (error != std::errc() || at != end || folder_name(entry) != name) return std::nullopt;
  return entry;
}

std::vector<CheckpointEntry> committed_entries(const fs::path& folder) {
  std::vector<CheckpointEntry> entries;
  if (!fs::exists(folder)) return entries;
  for (const auto& item : fs::directory_iterator(folder)) {
    const auto entry = parse_folder_name(item.path().filename().string());
    if (entry && item.is_directory()) entries.push_back(*entry);
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::string shard_file(int64_t rank, int64_t world) {
  char name[64];
  std::snprintf(name, sizeof name, "rank-%05" PRId64 "-of-%05" PRId64 ".safetensors", rank, world);
  return name;
}

std::string piece_key(const std::string& name, int64_t begin) { return str(name, "@", begin); }

std::string hex16(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

int64_t element_count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

json Manifest::to_json() const {
  json all_files = json::object(), all_tensors = json::object();
  for (const auto& [name, facts] : files) {
    all_files[name] = {{"bytes", facts.bytes}, {"xxh3", facts.xxh3}};
  }
  for (const auto& [name, tensor] : tensors) {
    json pieces = json::array();
    for (const Piece& piece : tensor.pieces) pieces.push_back(piece_json(piece));
    all_tensors[name] = {{"dtype", dtype_name(tensor.info.dtype, name)},
                         {"shape", tensor.info.shape},
                         {"pieces", std::move(pieces)}};
  }
  return {{"format", kCheckpointFormat},
          {"step", step},
          {"world", world},
          {"files", std::move(all_files)},
          {"tensors", std::move(all_tensors)}};
}

Manifest Manifest::from_json(const json& value) {
  const json& format = value.at("format");
  if (format.get<int64_t>() != kCheckpointFormat) {
    throw DamagedCheckpoint(
        str(kManifest, ": expected format ", kCheckpointFormat, ", got ", format.dump()));
  }
  Manifest manifest;
  manifest.step = value.at("step").get<int64_t>();
  manifest.world = value.at("world").get<int64_t>();
  for (const auto& [name, facts] : value.at("files").items()) {
    manifest.files[name] = {.bytes = facts.at("bytes").get<uint64_t>(),
                            .xxh3 = facts.at("xxh3").get<std::string>()};
  }
  for (const auto& [name, tensor] : value.at("tensors").items()) {
    manifest.tensors[name] = tensor_from_json(tensor);
  }
  return manifest;
}

Manifest read_manifest(const fs::path& folder) {
  const std::string commit = existing_text(folder / kCommit);
  const std::string text = existing_text(folder / kManifest);
  if (commit != hex16(hash_string(text)) + "\n") {
    throw DamagedCheckpoint(str(kManifest, ": hash is not that of ", kCommit));
  }
  auto manifest = Manifest::from_json(parse_json(text, kManifest));
  const auto entry = parse_folder_name(folder.filename().string());
  if (entry && entry->step != manifest.step) {
    throw DamagedCheckpoint(
        str(kManifest, ": expected step ", entry->step, ", got ", manifest.step));
  }
  return manifest;
}

void check_file(const fs::path& folder, const std::string& name, const FileFacts& expected) {
  const fs::path path = folder / name;
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) throw DamagedCheckpoint(str(name, ": ", error.message()));
  if (size != expected.bytes) {
    throw DamagedCheckpoint(str(name, ": expected ", expected.bytes, " bytes, got ", size));
  }
  const std::string got = hex16(hash_file(path));
  if (got != expected.xxh3) {
    throw DamagedCheckpoint(str(name, ": expected hash ", expected.xxh3, ", got ", got));
  }
}

}  // namespace zebra
