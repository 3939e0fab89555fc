// The writing side of checkpoints: shards, manifest, commit, retention.
#include "zebra/checkpoint.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <tuple>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "io/checkpoint_files.h"
#include "io/checkpoint_read.h"
#include "io/safetensors_header.h"
#include "io/shard_image.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

// Under a temporary name first: a removal that is cut short leaves nothing that looks committed.
void remove_committed(const fs::path& folder, const CheckpointEntry& entry) {
  const fs::path doomed = folder / (kTemporary + folder_name(entry) + "-old");
  fs::remove_all(doomed);
  fs::rename(folder / folder_name(entry), doomed);
  fs::remove_all(doomed);
}

void remove_leftovers(const fs::path& folder) {
  std::vector<fs::path> leftovers;
  for (const auto& item : fs::directory_iterator(folder)) {
    if (item.path().filename().string().starts_with(kTemporary)) leftovers.push_back(item.path());
  }
  for (const fs::path& path : leftovers) fs::remove_all(path);
}

std::string state_text(const std::map<std::string, std::string>& state) {
  try {
    return json(state).dump(2) + "\n";
  } catch (const json::exception&) {
    throw std::invalid_argument("checkpoint state: expected text in UTF-8");
  }
}

// Whether a step stays for good.
bool permanent(int64_t step, int64_t keep_every) {
  return keep_every > 0 && step % keep_every == 0;
}

// Which of the `others` go once `step` is committed. Later ones belong to a future that was given
// up (damaged, or not resumed from): left in place they would be taken for the newest. Damaged ones
// must not stand in the way of a good one either.
std::vector<CheckpointEntry> outdated(const std::vector<CheckpointEntry>& others, int64_t step,
                                      const CheckpointOptions& options,
                                      const std::set<std::string>& damaged) {
  std::vector<CheckpointEntry> earlier, result;
  for (const auto& other : others) {
    if (other.step >= step || damaged.contains(folder_name(other))) {
      result.push_back(other);
    } else if (!permanent(other.step, options.keep_every)) {
      earlier.push_back(other);
    }
  }
  const auto room = static_cast<size_t>(options.keep - 1);
  const size_t surplus = earlier.size() > room ? earlier.size() - room : 0;
  result.insert(result.end(), earlier.begin(), earlier.begin() + static_cast<int64_t>(surplus));
  return result;
}

// The pieces of a tensor must lie one after another without a gap.
void check_cover(const std::string& name, const Manifest::Tensor& tensor) {
  int64_t at = 0;
  for (const auto& piece : tensor.pieces) {
    if (piece.begin != at) {
      throw std::logic_error(str("checkpoint: tensor '", name, "': expected a piece from element ",
                                 at, ", got one from ", piece.begin));
    }
    at = piece.end;
  }
  if (at != element_count(tensor.info.shape)) {
    throw std::logic_error(str("checkpoint: tensor '", name, "': expected pieces up to element ",
                               element_count(tensor.info.shape), ", got up to ", at));
  }
}

Manifest merge(const std::vector<json>& shards, int64_t step) {
  Manifest manifest;
  manifest.step = step;
  manifest.world = static_cast<int64_t>(shards.size());
  for (int64_t rank = 0; rank < manifest.world; ++rank) {
    const json& shard = shards[static_cast<size_t>(rank)];
    const std::string file = shard_file(rank, manifest.world);
    manifest.files[file] = {.bytes = shard.at("bytes").get<uint64_t>(),
                            .xxh3 = shard.at("xxh3").get<std::string>()};
    for (const json& told : shard.at("pieces")) {
      const TensorInfo info{.dtype = dtype_of_name(told.at(1).get<std::string>(), "checkpoint"),
                            .shape = told.at(2).get<std::vector<int64_t>>()};
      auto& tensor = manifest.tensors[told.at(0).get<std::string>()];
      if (!tensor.pieces.empty() &&
          (tensor.info.dtype != info.dtype || tensor.info.shape != info.shape)) {
        throw std::logic_error(str("checkpoint: tensor '", told.at(0).get<std::string>(),
                                   "': ranks differ in its dtype or shape"));
      }
      tensor.info = info;
      tensor.pieces.push_back(
          {.begin = told.at(3).get<int64_t>(), .end = told.at(4).get<int64_t>(), .file = file});
    }
  }
  for (auto& [name, tensor] : manifest.tensors) {
    std::sort(tensor.pieces.begin(), tensor.pieces.end(), [](const auto& a, const auto& b) {
      return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
    });
    check_cover(name, tensor);
  }
  return manifest;
}

FileFacts write_small(const fs::path& path, const std::string& text) {
  write_file_atomic(path, text);
  return {.bytes = text.size(), .xxh3 = hex16(hash_string(text))};
}

// Everything beside the shards, synced.
void write_manifest(const fs::path& folder, Manifest manifest, const std::string& state) {
  manifest.files[kState] = write_small(folder / kState, state);
  const std::string text = manifest.to_json().dump(1) + "\n";
  write_small(folder / kManifest, text);
  write_small(folder / kCommit, hex16(hash_string(text)) + "\n");
  fsync_folder(folder);
}

// One phase of a save: does `work` on this rank, tells the others what came of it, and throws on
// every rank what went wrong on any. The first word of a text says which it is.
std::vector<std::string> together(const RankExchange& ranks, const fs::path& folder,
                                  const std::function<std::string()>& work) {
  std::string told;
  std::exception_ptr own;
  try {
    told = "ok " + work();
  } catch (const std::system_error& error) {  // also std::filesystem's
    told = str("refused ", folder.string(), ": checkpoint cannot be written: ", error.what());
  } catch (const ConfigError& error) {
    told = str("refused ", error.what());
  } catch (const std::exception& error) {
    own = std::current_exception();
    told = str("failed ", error.what());
  }
  auto all = ranks(told);
  if (own) std::rethrow_exception(own);
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].starts_with("ok ")) {
      all[rank].erase(0, 3);
      continue;
    }
    const bool refused = all[rank].starts_with("refused ");
    const std::string text = all[rank].substr(all[rank].find(' ') + 1);
    const std::string where = all.size() > 1 ? str("rank ", rank, ": ") : "";
    if (refused) throw ConfigError(where + text);
    throw std::runtime_error(where + text);
  }
  return all;
}

// The writing thread takes what the training's threads leave of the processor, and makes none of
// them wait. While the job waits for a save its threads rest, and the save has all of it. Where
// there is no such policy the save is only dearer.
void lower_priority() {
  const sched_param unused{};
  (void)::sched_setscheduler(/*this thread*/ 0, SCHED_IDLE, &unused);
}

}  // namespace

TensorPiece whole_tensor(const std::string& name, const at::Tensor& tensor) {
  return {.name = name,
          .shape = tensor.sizes().vec(),
          .begin = 0,
          .values = tensor.detach().reshape({-1})};
}

TensorPiece share_of_tensor(const std::string& name, const at::Tensor& tensor, int64_t rank,
                            int64_t world) {
  auto piece = whole_tensor(name, tensor);
  const int64_t count = piece.values.numel(), each = (count + world - 1) / world;
  piece.begin = std::min(count, rank * each);
  piece.values = piece.values.narrow(0, piece.begin, std::min(count - piece.begin, each));
  return piece;
}

std::vector<std::string> RankExchange::operator()(const std::string& text) const {
  return world > 1 ? exchange(text) : std::vector<std::string>{text};
}

CheckpointStore::CheckpointStore(fs::path folder, const CheckpointOptions& options,
                                 RankExchange ranks)
    : folder_(std::move(folder)),
      options_(options),
      ranks_(std::move(ranks)),
      shard_(std::make_unique<ShardImage>()) {
  if (options.keep < 1) {
    throw ConfigError(str("checkpoint.keep: expected at least 1, got ", options.keep));
  }
}

CheckpointStore::~CheckpointStore() {
  try {
    wait();
  } catch (const std::exception& error) {
    // Where several ranks come to an end, the one that failed first tells why.
    if (ranks_.world == 1 || std::uncaught_exceptions() == 0) log_warning(error.what());
  }
}

bool CheckpointStore::writing() const {
  return writing_.valid() &&
         writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready;
}

void CheckpointStore::wait() {
  if (writing_.valid()) writing_.get();
}

void CheckpointStore::poll() {
  if (!writing()) wait();
}

void CheckpointStore::save(const Checkpoint& checkpoint) {
  wait();
  std::exception_ptr failure;  // told to the other ranks, which wait for this one
  try {
    shard_->take(checkpoint.pieces);
  } catch (...) {
    failure = std::current_exception();
  }
  const Checkpoint told{checkpoint.step, /*pieces=*/{}, checkpoint.state, checkpoint.sync};
  if (!options_.asynchronous) {
    write(told, failure);
    *shard_ = ShardImage();  // who does not save in the background would rather have the memory
    return;
  }
  writing_ = std::async(std::launch::async, [this, told, failure] {
    lower_priority();
    write(told, failure);
  });
}

// `told` is without the pieces: this rank's are in its shard's image.
void CheckpointStore::write(const Checkpoint& told, const std::exception_ptr& failure) const {
  const bool first = ranks_.rank == 0;
  std::vector<CheckpointEntry> others;
  const auto begin = [&]() -> std::string {
    if (!first) return "";
    make_folders(folder_);
    remove_leftovers(folder_);
    others = committed_entries(folder_);
    CheckpointEntry entry{.step = told.step};
    for (const auto& other : others) {
      if (other.step == entry.step) entry.revision = other.revision + 1;
    }
    fs::create_directory(folder_ / (kTemporary + folder_name(entry)));
    return folder_name(entry);
  };
  const std::string name = together(ranks_, folder_, begin)[0];
  const fs::path temporary = folder_ / (kTemporary + name);
  try {
    const auto shards = together(ranks_, folder_, [&] {
      if (failure) std::rethrow_exception(failure);
      const auto file = shard_file(ranks_.rank, ranks_.world);
      return shard_->write(temporary / file).dump();
    });
    together(ranks_, folder_, [&]() -> std::string {
      if (!first) return "";
      std::vector<json> facts;
      for (const auto& text : shards) facts.push_back(json::parse(text));
      write_manifest(temporary, merge(facts, told.step), state_text(told.state));
      if (told.sync) told.sync();
      fs::rename(temporary, folder_ / name);  // the commit
      fsync_folder(folder_);
      for (const auto& entry : outdated(others, told.step, options_, damaged_)) {
        remove_committed(folder_, entry);
      }
      return "";
    });
  } catch (...) {
    std::error_code ignored;  // the first error is the one to report
    if (first) fs::remove_all(temporary, ignored);
    throw;
  }
}

std::optional<SavedCheckpoint> CheckpointStore::load_newest() {
  const auto list = together(ranks_, folder_, [&] {
    std::string names;
    for (const auto& entry : committed_entries(folder_)) names += folder_name(entry) + "\n";
    return names;
  })[0];  // rank 0's, in case a file system shows other ranks other things
  std::vector<std::string> names;
  for (size_t at = 0, end; (end = list.find('\n', at)) != std::string::npos; at = end + 1) {
    names.push_back(list.substr(at, end - at));
  }
  if (names.empty()) return std::nullopt;
  std::string damages;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    const fs::path folder = folder_ / *name;
    std::optional<SavedCheckpoint> opened;
    std::string damage;
    try {
      auto manifest = verify_part(folder, ranks_.rank, ranks_.world);
      opened.emplace(SavedCheckpoint::open_verified(folder, std::move(manifest)));
    } catch (const DamagedCheckpoint& error) {
      damage = error.what();
    }
    for (const auto& told : ranks_(damage)) {
      if (damage.empty()) damage = told;
    }
    if (damage.empty()) return opened;
    damaged_.insert(*name);
    if (ranks_.rank == 0) {
      log_warning(str(folder.string(), ": damaged checkpoint passed over: ", damage));
    }
    damages += str("; ", *name, ": ", damage);
  }
  throw GaveUpError(str(folder_.string(), ": no good checkpoint is left: ", damages.substr(2)));
}

std::vector<int64_t> CheckpointStore::steps() const {
  std::vector<int64_t> result;
  for (const auto& entry : committed_entries(folder_)) {
    if (result.empty() || result.back() != entry.step) result.push_back(entry.step);
  }
  return result;
}

void CheckpointStore::clear() {
  wait();
  if (ranks_.rank != 0 || !fs::exists(folder_)) return;
  remove_leftovers(folder_);
  for (const auto& entry : committed_entries(folder_)) remove_committed(folder_, entry);
}

void CheckpointStore::retire() {
  wait();
  if (ranks_.rank != 0 || !fs::exists(folder_)) return;
  remove_leftovers(folder_);
  for (const auto& entry : committed_entries(folder_)) {
    if (!permanent(entry.step, options_.keep_every)) remove_committed(folder_, entry);
  }
}

}  // namespace zebra
