#include "train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstring>

#include "base/file.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli's, bits reversed

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) {
      value = (value & 1) != 0 ? (value >> 1) ^ kPolynomial : value >> 1;
    }
    table[i] = value;
  }
  return table;
}

constexpr auto kTable = make_table();

template <class T>
std::string little_endian(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);  // x86 and ARM are little-endian
  return bytes;
}

// The wire format of protocol buffers: a key (field number and type), then the value.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  while (value >= 0x80) {
    bytes += static_cast<char>(value | 0x80);
    value >>= 7;
  }
  return bytes + static_cast<char>(value);
}

std::string key(uint64_t field, WireType type) { return varint(field << 3 | type); }

std::string bytes_field(uint64_t field, const std::string& bytes) {
  return key(field, kBytes) + varint(bytes.size()) + bytes;
}

// Event: 1 wall_time, 2 step, 3 file_version, 5 summary, 7 session_log.
std::string event(double wall_time, int64_t step) {
  return key(1, kFixed64) + little_endian(wall_time) + key(2, kVarint) +
         varint(static_cast<uint64_t>(step));
}

double now() {
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration<double>(time).count();
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t value = 0xFFFFFFFF;
  for (const char byte : bytes) {
    value = kTable[(value ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (value >> 8);
  }
  return ~value;
}

uint32_t masked_crc32c(std::string_view bytes) {
  constexpr uint32_t kDelta = 0xA282EAD8;
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + kDelta;
}

std::string tf_record(std::string_view bytes) {
  const std::string length = little_endian(static_cast<uint64_t>(bytes.size()));
  return length + little_endian(masked_crc32c(length)) + std::string(bytes) +
         little_endian(masked_crc32c(bytes));
}

std::string version_event(double wall_time) {
  return event(wall_time, 0) + bytes_field(3, "brain.Event:2");
}

std::string scalars_event(double wall_time, int64_t step,
                          const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;  // repeated Value: 1 tag, 2 simple_value
  for (const auto& [name, value] : values) {
    summary += bytes_field(
        1, bytes_field(1, name) + key(2, kFixed32) + little_endian(static_cast<float>(value)));
  }
  return event(wall_time, step) + bytes_field(5, summary);
}

std::string restart_event(double wall_time, int64_t step) {
  constexpr uint64_t kStart = 1;  // SessionLog.START
  return event(wall_time, step) + bytes_field(7, key(1, kVarint) + varint(kStart));
}

EventWriter::EventWriter(const std::filesystem::path& folder, int64_t first_step) {
  make_folders(folder);
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  const double time = now();
  const auto micros = static_cast<int64_t>(time * 1e6);
  // TensorBoard reads a folder's files in the order of their names.
  char name[400];
  std::snprintf(name, sizeof name, "events.out.tfevents.%010" PRId64 ".%s.%d.%06" PRId64,
                micros / 1000000, host.data(), ::getpid(), micros % 1000000);
  path_ = folder / name;
  file_.reset(std::fopen(path_.c_str(), "wbe"));
  if (!file_) throw ConfigError(str(path_.string(), ": cannot be opened: ", std::strerror(errno)));
  put(version_event(time));
  put(restart_event(time, first_step));
}

void EventWriter::write(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  put(scalars_event(now(), step, values));
}

void EventWriter::put(const std::string& event) {
  const std::string record = tf_record(event);
  const bool written = std::fwrite(record.data(), 1, record.size(), file_.get()) == record.size();
  if (!written || std::fflush(file_.get()) != 0) {
    throw ConfigError(str(path_.string(), ": cannot be written: ", std::strerror(errno)));
  }
}

}  // namespace zebra
