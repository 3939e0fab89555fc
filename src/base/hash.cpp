#include "base/hash.h"

#include <xxhash.h>

#include <algorithm>

#include "base/file.h"

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

uint64_t hash_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return hash_bytes(file.data(), file.size());
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
