#include "io/shard_image.h"

#include <algorithm>

#include "base/file.h"
#include "base/hash.h"
#include "io/checkpoint_files.h"
#include "io/safetensors_header.h"

namespace zebra {

namespace {

// `size` bytes at a multiple of kDirectAlignment.
at::Tensor aligned_bytes(int64_t size, bool pinned) {
  const auto alignment = static_cast<int64_t>(kDirectAlignment);
  const auto memory =
      torch::empty({size + alignment}, at::TensorOptions(at::kByte).pinned_memory(pinned));
  const auto address = reinterpret_cast<uintptr_t>(memory.data_ptr());
  const auto start =
      static_cast<int64_t>((kDirectAlignment - address % kDirectAlignment) % kDirectAlignment);
  return memory.narrow(0, start, size);
}

}  // namespace

void ShardImage::take(const std::vector<TensorPiece>& pieces) {
  if (!image_.defined() || !same_layout(pieces)) lay_out(pieces);
  auto at = static_cast<int64_t>(header_.size());
  for (const auto& piece : pieces) {
    const auto bytes = piece.values.contiguous().view(at::kByte);  // (n * size of an element)
    image_.narrow(0, at, bytes.numel()).copy_(bytes);
    at += bytes.numel();
  }
}

bool ShardImage::same_layout(const std::vector<TensorPiece>& pieces) const {
  return std::equal(pieces.begin(), pieces.end(), layout_.begin(), layout_.end(),
                    [](const TensorPiece& piece, const Place& place) {
                      return piece.name == place.name && piece.shape == place.shape &&
                             piece.begin == place.begin && piece.values.numel() == place.count &&
                             piece.values.scalar_type() == place.dtype;
                    });
}

void ShardImage::lay_out(const std::vector<TensorPiece>& pieces) {
  image_.reset();  // undefined until all is well, and never twice in memory
  layout_.clear();
  told_ = json::array();
  NamedInfos infos;
  int64_t size = 0;
  bool from_gpu = false;
  for (const auto& piece : pieces) {
    const auto dtype = piece.values.scalar_type();
    const int64_t count = piece.values.numel();
    layout_.push_back({piece.name, piece.shape, piece.begin, count, dtype});
    told_.push_back(
        {piece.name, dtype_name(dtype, piece.name), piece.shape, piece.begin, piece.begin + count});
    infos.push_back({piece_key(piece.name, piece.begin), {.dtype = dtype, .shape = {count}}});
    size += static_cast<int64_t>(piece.values.nbytes());
    from_gpu = from_gpu || piece.values.is_cuda();
  }
  header_ = make_safetensors_header(infos, {{"format", "pt"}});
  image_ = aligned_bytes(static_cast<int64_t>(header_.size()) + size, /*pinned=*/from_gpu);
  std::copy(header_.begin(), header_.end(), image_.data_ptr<uint8_t>());
}

json ShardImage::write(const std::filesystem::path& path) const {
  OutputFile file(path);
  file.write_direct(image_.data_ptr(), image_.nbytes());
  Hasher hasher;
  hasher.add_bytes(image_.data_ptr(), image_.nbytes());
  file.commit();
  return {{"bytes", image_.nbytes()}, {"xxh3", hex16(hasher.value())}, {"pieces", told_}};
}

}  // namespace zebra
