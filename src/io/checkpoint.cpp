#include "zebra/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "zebra/error.h"
#include "zebra/safetensors.h"

namespace zebra {

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

constexpr int64_t kFormat = 1;
constexpr const char* kTensors = "tensors.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kManifest = "manifest.json";
constexpr const char* kCommit = "COMMIT";
constexpr const char* kStep = "step-";
constexpr const char* kTemporary = "tmp-";  // what crashes leave behind begins with it

// What keeps a checkpoint from being used; the text goes into a warning.
class Damage : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A committed checkpoint. A step that is saved again becomes a new folder with the next revision.
struct Entry {
  int64_t step = 0, revision = 0;
  auto operator<=>(const Entry&) const = default;
};

// "step-00000120", later "step-00000120.1"
std::string folder_name(const Entry& entry) {
  std::string digits = std::to_string(entry.step);
  if (digits.size() < 8) digits.insert(0, 8 - digits.size(), '0');
  return kStep + digits + (entry.revision > 0 ? str(".", entry.revision) : "");
}

std::optional<Entry> parse_folder_name(const std::string& name) {
  const std::string start = kStep;
  if (name.compare(0, start.size(), start) != 0) return std::nullopt;
  Entry entry;
  const char* const end = name.data() + name.size();
  auto [at, error] = std::from_chars(name.data() + start.size(), end, entry.step);
  if (error == std::errc() && at != end && *at == '.') {
    const auto rest = std::from_chars(at + 1, end, entry.revision);
    at = rest.ptr;
    error = rest.ec;
  }
  // Only names that we would give, so that a copy such as step-7.bak is left alone.
  if (error != std::errc() || at != end || folder_name(entry) != name) return std::nullopt;
  return entry;
}

std::vector<Entry> committed(const fs::path& folder) {
  std::vector<Entry> entries;
  if (!fs::exists(folder)) return entries;
  for (const auto& item : fs::directory_iterator(folder)) {
    const auto entry = parse_folder_name(item.path().filename().string());
    if (entry && item.is_directory()) entries.push_back(*entry);
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016" PRIx64, value);
  return text;
}

// Under a temporary name first: a removal that is cut short leaves nothing that looks committed.
void remove_committed(const fs::path& folder, const Entry& entry) {
  const fs::path doomed = folder / (kTemporary + folder_name(entry) + "-old");
  fs::remove_all(doomed);
  fs::rename(folder / folder_name(entry), doomed);
  fs::remove_all(doomed);
}

void remove_leftovers(const fs::path& folder) {
  const std::string start = kTemporary;
  std::vector<fs::path> leftovers;
  for (const auto& item : fs::directory_iterator(folder)) {
    if (item.path().filename().string().compare(0, start.size(), start) == 0) {
      leftovers.push_back(item.path());
    }
  }
  for (const fs::path& path : leftovers) fs::remove_all(path);
}

Json manifest_of(const fs::path& folder, int64_t step) {
  Json files = Json::object();
  for (const char* name : {kTensors, kState}) {
    const fs::path path = folder / name;
    files[name] = {{"bytes", fs::file_size(path)}, {"xxh3", hex(hash_file(path))}};
  }
  return {{"format", kFormat}, {"step", step}, {"files", std::move(files)}};
}

std::string state_text(const Checkpoint& checkpoint) {
  try {
    return Json(checkpoint.state).dump(2) + "\n";
  } catch (const Json::exception&) {
    throw std::invalid_argument("checkpoint state: expected text in UTF-8");
  }
}

// Everything a checkpoint consists of, synced.
void write_contents(const fs::path& folder, const Checkpoint& checkpoint) {
  write_safetensors(folder / kTensors, checkpoint.tensors);
  write_file_atomic(folder / kState, state_text(checkpoint));
  write_file_atomic(folder / kManifest, manifest_of(folder, checkpoint.step).dump(2) + "\n");
  write_file_atomic(folder / kCommit, hex(hash_file(folder / kManifest)) + "\n");
  fsync_folder(folder);
}

// Makes the checkpoint appear in `folder`, whole or not at all.
void commit(const fs::path& folder, const Checkpoint& checkpoint,
            const std::vector<Entry>& others) {
  Entry entry{.step = checkpoint.step};
  for (const Entry& other : others) {
    if (other.step == entry.step) entry.revision = other.revision + 1;
  }
  const fs::path temporary = folder / (kTemporary + folder_name(entry));
  try {
    fs::create_directory(temporary);
    write_contents(temporary, checkpoint);
    fs::rename(temporary, folder / folder_name(entry));  // the commit
  } catch (...) {
    std::error_code ignored;  // the first error is the one to report
    fs::remove_all(temporary, ignored);
    throw;
  }
  fsync_folder(folder);
}

// Which of the `others` go once `step` is committed. Later ones belong to a future that was given
// up (damaged, or not resumed from): left in place they would be taken for the newest.
std::vector<Entry> outdated(const std::vector<Entry>& others, int64_t step, int64_t keep) {
  std::vector<Entry> earlier, result;
  for (const Entry& other : others) (other.step < step ? earlier : result).push_back(other);
  const auto room = static_cast<size_t>(keep - 1);
  const size_t surplus = earlier.size() > room ? earlier.size() - room : 0;
  result.insert(result.end(), earlier.begin(), earlier.begin() + static_cast<int64_t>(surplus));
  return result;
}

void check_file(const fs::path& path, uint64_t bytes, const std::string& xxh3) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) throw Damage(str(path.filename().string(), ": ", error.message()));
  if (size != bytes) {
    throw Damage(str(path.filename().string(), ": expected ", bytes, " bytes, got ", size));
  }
  const std::string got = hex(hash_file(path));
  if (got != xxh3) {
    throw Damage(str(path.filename().string(), ": expected hash ", xxh3, ", got ", got));
  }
}

std::string existing_text(const fs::path& path) {
  if (!fs::is_regular_file(path)) throw Damage(str(path.filename().string(), ": missing"));
  return read_file(path);
}

Checkpoint read_verified(const fs::path& folder, int64_t step) {
  const std::string commit = existing_text(folder / kCommit);
  const std::string manifest = existing_text(folder / kManifest);
  const std::string hash = hex(hash_file(folder / kManifest));
  if (commit != hash + "\n") throw Damage(str(kManifest, ": hash is not that of ", kCommit));
  const Json json = Json::parse(manifest);
  if (json.at("format").get<int64_t>() != kFormat) {
    throw Damage(str(kManifest, ": expected format ", kFormat, ", got ", json.at("format").dump()));
  }
  Checkpoint checkpoint;
  checkpoint.step = json.at("step").get<int64_t>();
  if (checkpoint.step != step) {
    throw Damage(str(kManifest, ": expected step ", step, ", got ", checkpoint.step));
  }
  for (const auto& [name, facts] : json.at("files").items()) {
    check_file(folder / name, facts.at("bytes").get<uint64_t>(),
               facts.at("xxh3").get<std::string>());
  }
  const SafetensorsFile file(folder / kTensors);
  for (const auto& [name, info] : file.tensors()) checkpoint.tensors[name] = file.read(name);
  checkpoint.state =
      Json::parse(read_file(folder / kState)).get<std::map<std::string, std::string>>();
  return checkpoint;
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path folder, int64_t keep)
    : folder_(std::move(folder)), keep_(keep) {
  if (keep < 1) throw ConfigError(str("checkpoint.keep: expected at least 1, got ", keep));
}

void CheckpointStore::save(const Checkpoint& checkpoint) {
  try {
    fs::create_directories(folder_);
    remove_leftovers(folder_);
    const auto others = committed(folder_);
    commit(folder_, checkpoint, others);
    for (const Entry& entry : outdated(others, checkpoint.step, keep_)) {
      remove_committed(folder_, entry);
    }
  } catch (const std::system_error& error) {  // also std::filesystem's
    throw ConfigError(str(folder_.string(), ": checkpoint cannot be written: ", error.what()));
  }
}

std::optional<Checkpoint> CheckpointStore::load_newest() const {
  auto entries = committed(folder_);
  if (entries.empty()) return std::nullopt;
  std::string damages;
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    const fs::path folder = folder_ / folder_name(*entry);
    try {
      return read_verified(folder, entry->step);
    } catch (const std::bad_alloc&) {
      throw;  // says nothing about the files
    } catch (const std::exception& error) {
      log_warning(str(folder.string(), ": damaged checkpoint passed over: ", error.what()));
      damages += str("; ", folder_name(*entry), ": ", error.what());
    }
  }
  throw GaveUpError(str(folder_.string(), ": no good checkpoint is left: ", damages.substr(2)));
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> result;
  for (const Entry& entry : committed(folder_)) {
    if (result.empty() || result.back() != entry.step) result.push_back(entry.step);
  }
  return result;
}

void CheckpointStore::clear() {
  if (!fs::exists(folder_)) return;
  remove_leftovers(folder_);
  for (const Entry& entry : committed(folder_)) remove_committed(folder_, entry);
}

}  // namespace zebra
