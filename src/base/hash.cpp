#include "base/hash.h"

#include <xxhash.h>

#include <algorithm>

#include "base/file.h"
#include "base/progress.h"
#include "zebra/error.h"

namespace zebra {

struct Hasher::State {
  State() : stream(XXH3_createState()) { XXH3_64bits_reset(stream); }
  ~State() { XXH3_freeState(stream); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  XXH3_state_t* stream;
};

uint64_t hash_bytes(const void* bytes, size_t count) { return XXH3_64bits(bytes, count); }

uint64_t hash_string(std::string_view text) { return hash_bytes(text.data(), text.size()); }

// Piece by piece, so that a file larger than memory does not fill it.
uint64_t hash_file(const std::filesystem::path& path) {
  constexpr uint64_t kPiece = 16 << 20;
  const MappedFile file(path);
  Hasher hasher;
  Progress progress(str("hash ", path.filename().string()),
                    static_cast<int64_t>(file.size() / kPiece), /*tokens_per_step=*/0);
  for (uint64_t begin = 0; begin < file.size(); begin += kPiece) {
    progress.update(static_cast<int64_t>(begin / kPiece), "");
    const uint64_t end = std::min(begin + kPiece, file.size());
    hasher.add_bytes(file.data() + begin, end - begin);
    file.release(begin, end);
  }
  return hasher.value();
}

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::add_bytes(const void* bytes, size_t count) {
  XXH3_64bits_update(state_->stream, bytes, count);
}

void Hasher::add(std::string_view text) {
  add(text.size());
  add_bytes(text.data(), text.size());
}

uint64_t Hasher::value() const { return XXH3_64bits_digest(state_->stream); }

}  // namespace zebra
