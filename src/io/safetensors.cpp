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

at::Tensor SafetensorsFile::read(const std::string& name) const {
  const auto found = tensors().find(name);
  if (found == tensors().end()) {
    throw ConfigError(str(path().string(), ": expected tensor '", name, "', got none"));
  }
  const TensorInfo& info = found->second;
  const auto tensor = torch::empty(info.shape, at::TensorOptions(info.dtype));
  const uint64_t bytes = info.end - info.begin;
  if (bytes > 0) {
    const uint64_t begin = impl_->header.data_begin + info.begin;
    std::memcpy(tensor.data_ptr(), impl_->file.data() + begin, bytes);
    impl_->file.release(begin, begin + bytes);  // or a whole model read once would stay mapped
  }
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
