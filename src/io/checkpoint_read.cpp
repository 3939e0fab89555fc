// The reading side of checkpoints.
#include "io/checkpoint_read.h"
#include "base/file.h"
#include "io/checkpoint_files.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

// Whatever a damaged file makes the readers throw, as damage.
template <class Function>
auto as_damage(Function&& function) {
  try {
    return function();
  } catch (const DamagedCheckpoint&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;  // says nothing about the files
  } catch (const std::exception& error) {
    throw DamagedCheckpoint(error.what());
  }
}

}  // namespace

Manifest verify_part(const fs::path& folder, int64_t rank, int64_t world) {
  return as_damage([&] {
    Manifest manifest = read_manifest(folder);
    int64_t number = 0;
    for (const auto& [name, facts] : manifest.files) {
      if (number++ % world == rank) check_file(folder, name, facts);
    }
    return manifest;
  });
}

struct SavedCheckpoint::Impl {
  Impl(fs::path where, Manifest what) : folder(std::move(where)), manifest(std::move(what)) {
    as_damage([this] {
      state =
          parse_json(read_file(folder / kState), kState).get<std::map<std::string, std::string>>();
      for (const auto& [name, facts] : manifest.files) {
        if (name != kState) shards.emplace(name, SafetensorsFile(folder / name));
      }
      for (const auto& [name, tensor] : manifest.tensors) tensors[name] = tensor.info;
    });
  }

  const Manifest::Tensor& tensor(const std::string& name) const {
    const auto found = manifest.tensors.find(name);
    if (found != manifest.tensors.end()) return found->second;
    throw DamagedCheckpoint(str(folder.string(), ": expected tensor '", name, "', got none"));
  }

  fs::path folder;
  Manifest manifest;
  std::map<std::string, std::string> state;
  std::map<std::string, SafetensorsFile> shards;  // by file
  std::map<std::string, TensorInfo> tensors;
};

SavedCheckpoint SavedCheckpoint::open_verified(const fs::path& folder, Manifest manifest) {
  return SavedCheckpoint(std::make_unique<Impl>(folder, std::move(manifest)));
}

SavedCheckpoint::SavedCheckpoint(const fs::path& folder)
    : SavedCheckpoint(open_verified(folder, verify_part(folder, /*rank=*/0, /*world=*/1))) {}
SavedCheckpoint::SavedCheckpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SavedCheckpoint::~SavedCheckpoint() = default;
SavedCheckpoint::SavedCheckpoint(SavedCheckpoint&&) noexcept = default;
SavedCheckpoint& SavedCheckpoint::operator=(SavedCheckpoint&&) noexcept = default;

int64_t SavedCheckpoint::step() const { return impl_->manifest.step; }
int64_t SavedCheckpoint::world() const { return impl_->manifest.world; }
const fs::path& SavedCheckpoint::folder() const { return impl_->folder; }

const std::map<std::string, std::string>& SavedCheckpoint::state() const { return impl_->state; }

const std::string& SavedCheckpoint::state(const std::string& key) const {
  const auto found = impl_->state.find(key);
  if (found != impl_->state.end()) return found->second;
  throw DamagedCheckpoint(
      str(impl_->folder.string(), ": ", kState, ": expected '", key, "', got none"));
}

const std::map<std::string, TensorInfo>& SavedCheckpoint::tensors() const { return impl_->tensors; }

at::Tensor SavedCheckpoint::read(const std::string& name, int64_t begin, int64_t end) const {
  const Manifest::Tensor& tensor = impl_->tensor(name);
  const int64_t count = element_count(tensor.info.shape);
  TORCH_CHECK(0 <= begin && begin <= end && end <= count, "checkpoint: tensor '", name,
              "': expected elements within ", count, ", got ", begin, " to ", end);
  const at::Tensor values = torch::empty({end - begin}, at::TensorOptions(tensor.info.dtype));
  auto* const bytes = static_cast<char*>(values.data_ptr());
  const auto size = static_cast<int64_t>(values.element_size());
  as_damage([&] {
    for (const auto& piece : tensor.pieces) {
      const int64_t first = std::max(begin, piece.begin), last = std::min(end, piece.end);
      if (first >= last) continue;
      impl_->shards.at(piece.file)
          .read_elements(piece_key(name, piece.begin), first - piece.begin, last - piece.begin,
                         bytes + (first - begin) * size);
    }
  });
  return values;
}

at::Tensor SavedCheckpoint::read(const std::string& name) const {
  const auto& shape = impl_->tensor(name).info.shape;
  return read(name, 0, element_count(shape)).view(shape);
}

std::string weight_key(const std::string& model, const std::string& name) {
  return model + "/parameter." + name;
}

namespace {

// A folder of its name, or with what else shows a checkpoint.
bool is_single(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return false;
  const fs::path plain = fs::absolute(path).lexically_normal();
  const auto name = plain.has_filename() ? plain.filename() : plain.parent_path().filename();
  return parse_folder_name(name.string()) || fs::is_regular_file(path / kManifest, error);
}

}  // namespace

bool is_checkpoint(const fs::path& path) {
  std::error_code error;
  return is_single(path) || (fs::is_directory(path, error) && !committed_entries(path).empty());
}

SavedCheckpoint open_checkpoint(const fs::path& path) {
  if (is_single(path)) return SavedCheckpoint(path);
  if (is_checkpoint(path)) return *CheckpointStore(path, {}).load_newest();
  throw ConfigError(str(path.string(), ": expected a training checkpoint, got none"));
}

}  // namespace zebra
