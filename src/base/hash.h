// XXH3 of bytes, numbers and files: fast, the same on every machine, not meant against attackers.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <type_traits>
#include <vector>

namespace zebra {

uint64_t hash_bytes(const void* bytes, size_t count);
uint64_t hash_string(std::string_view text);
uint64_t hash_file(const std::filesystem::path& path);  // of its contents; ConfigError as read_file

// Of the values' bytes.
template <class T>
requires std::is_arithmetic_v<T> &&(!std::is_same_v<T, bool>)uint64_t
    hash_values(const std::vector<T>& values) {
  return hash_bytes(values.data(), values.size() * sizeof(T));
}

// One hash of several values; their order counts, and where one text ends and the next begins.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void add_bytes(const void* bytes, size_t count);  // without their count
  void add(std::string_view text);                  // the length, then the bytes
  template <std::integral T>
  void add(T number) {  // as 64 bits, whatever its type
    const auto wide = static_cast<uint64_t>(number);
    add_bytes(&wide, sizeof wide);
  }
  void add(double number) { add_bytes(&number, sizeof number); }
  uint64_t value() const;  // of what was added so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace zebra
