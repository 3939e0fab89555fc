#include "zebra/safetensors.h"

#include <cstring>

#include "base/file.h"
#include "io/safetensors_header.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

struct SafetensorsFile::Impl {
  explicit Impl(const fs::path& path)
      : file(path),
        header(parse_safetensors({reinterpret_cast<const char*>(file.data()), file.size()},
                                 path.string())) {}

  MappedFile file;
  SafetensorsHeader header;
};

SafetensorsFile::SafetensorsFile(const fs::path& path) : impl_(std::make_unique<Impl>(path)) {}
SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::map<std::string, TensorInfo>& SafetensorsFile::tensors() const {
  return impl_->header.tensors;
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return impl_->header.metadata;
}

const fs::path& SafetensorsFile::path() const { return impl_->file.path(); }

const TensorInfo& SafetensorsFile::info(const std::string& name) const {
  const auto found = tensors().find(name);
  if (found == tensors().end()) {
    throw ConfigError(str(path().string(), ": expected tensor '", name, "', got none"));
  }
  return found->second;
}

void SafetensorsFile::read_elements(const std::string& name, int64_t begin, int64_t end,
                                    void* to) const {
  const TensorInfo& info = this->info(name);
  const uint64_t element = c10::elementSize(info.dtype);
  const auto count = static_cast<int64_t>((info.end - info.begin) / element);
  TORCH_CHECK(0 <= begin && begin <= end && end <= count, "safetensors: tensor '", name,
              "': expected elements within ", count, ", got ", begin, " to ", end);
  if (begin == end) return;
  const uint64_t at = impl_->header.data_begin + info.begin;
  const uint64_t first = at + static_cast<uint64_t>(begin) * element;
  const uint64_t last = at + static_cast<uint64_t>(end) * element;
  std::memcpy(to, impl_->file.data() + first, last - first);
  impl_->file.release(first, last);  // or a whole model read once would stay mapped
}

at::Tensor SafetensorsFile::read(const std::string& name) const {
  const TensorInfo& info = this->info(name);
  const auto tensor = torch::empty(info.shape, at::TensorOptions(info.dtype));
  read_elements(name, 0, tensor.numel(), tensor.data_ptr());
  if (info.dtype != at::kBool) return tensor;
  return tensor.view(at::kByte).ne(0);  // a byte of 2 would be no bool
}

void write_safetensors(const fs::path& path, const std::map<std::string, at::Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  NamedInfos infos;
  for (const auto& [name, tensor] : tensors) {
    infos.push_back({name, {.dtype = tensor.scalar_type(), .shape = tensor.sizes().vec()}});
  }
  OutputFile file(path);
  file.write(make_safetensors_header(infos, metadata));
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor data = tensor.detach().to(at::kCPU).contiguous();
    file.write(data.data_ptr(), data.nbytes());
  }
  file.commit();
}

}  // namespace zebra
