#include "train/tensorboard.h"

#include "support/capture.h"
#include "support/temp_dir.h"
#include "support/testing.h"

#include <cstring>

using zebra::EventWriter;
using zebra::testing::TempDir;
using zebra::testing::text_of;
namespace fs = std::filesystem;

namespace {

// A reader of the formats, written from their descriptions and not from the writer.
uint64_t fixed(const std::string& bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes.at(at + i))) << (8 * i);
  }
  return value;
}

std::vector<std::string> records_of(const std::string& bytes) {
  std::vector<std::string> records;
  for (size_t at = 0; at < bytes.size();) {
    const auto length = fixed(bytes, at, 8);
    CHECK(fixed(bytes, at + 8, 4) == zebra::masked_crc32c(bytes.substr(at, 8)));
    records.push_back(bytes.substr(at + 12, length));
    CHECK(fixed(bytes, at + 12 + length, 4) == zebra::masked_crc32c(records.back()));
    at += 16 + length;
  }
  return records;
}

// Fields of a protocol buffer: (number, value as bytes).
using Fields = std::vector<std::pair<uint64_t, std::string>>;

uint64_t varint(const std::string& bytes, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes.at(at++));
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

Fields fields_of(const std::string& bytes) {
  Fields fields;
  for (size_t at = 0; at < bytes.size();) {
    const uint64_t key = varint(bytes, at);
    const size_t start = at;
    size_t size = 0;
    switch (key & 7) {
      case 0:
        varint(bytes, at);
        size = at - start;
        at = start;
        break;
      case 1:
        size = 8;
        break;
      case 2:
        size = varint(bytes, at);
        break;
      case 5:
        size = 4;
        break;
      default:
        FAIL("wire type " << (key & 7));
    }
    fields.emplace_back(key >> 3, bytes.substr(at, size));
    at += size;
  }
  return fields;
}

std::string field(const std::string& message, uint64_t number) {
  for (const auto& [key, value] : fields_of(message)) {
    if (key == number) return value;
  }
  return "";
}

int64_t number(const std::string& bytes) {
  size_t at = 0;
  return static_cast<int64_t>(varint(bytes, at));
}

template <class T>
T value_of(const std::string& bytes) {
  T value{};
  REQUIRE(bytes.size() == sizeof value);
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

fs::path only_file(const fs::path& folder) {
  fs::path found;
  for (const auto& item : fs::directory_iterator(folder)) {
    REQUIRE(found.empty());
    found = item.path();
  }
  return found;
}

}  // namespace

TEST_CASE("tensorboard: CRC-32C of the texts with published checksums") {
  CHECK(zebra::crc32c("") == 0);
  CHECK(zebra::crc32c("123456789") == 0xE3069283);
  CHECK(zebra::crc32c(std::string(32, '\0')) == 0x8A9136AA);  // RFC 3720, B.4
  CHECK(zebra::crc32c(std::string(32, '\xFF')) == 0x62A8AB43);
}

TEST_CASE("tensorboard: a record is length, checksum, bytes, checksum") {
  const auto record = zebra::tf_record("abc");
  REQUIRE(record.size() == 8 + 4 + 3 + 4);
  CHECK(fixed(record, 0, 8) == 3);
  CHECK(record.substr(12, 3) == "abc");
  const uint32_t crc = zebra::crc32c("abc");
  CHECK(fixed(record, 15, 4) == static_cast<uint32_t>((crc >> 15 | crc << 17) + 0xA282EAD8));
}

TEST_CASE("tensorboard: scalars come back with name, step and value") {
  const TempDir folder;
  {
    EventWriter writer(folder / "distill", /*first_step=*/1);
    writer.write(1, {{"loss", 0.5}, {"learning_rate", 1e-4}});
    writer.write(300, {{"loss", 0.25}});
  }
  const auto file = only_file(folder / "distill");
  CHECK(file.filename().string().starts_with("events.out.tfevents."));
  const auto records = records_of(text_of(file));
  REQUIRE(records.size() == 4);
  CHECK(field(records[0], 3) == "brain.Event:2");
  CHECK(value_of<double>(field(records[2], 1)) > 1.6e9);
  CHECK(number(field(records[2], 2)) == 1);
  CHECK(number(field(records[3], 2)) == 300);
  const auto summary = fields_of(field(records[2], 5));
  REQUIRE(summary.size() == 2);
  CHECK(field(summary[0].second, 1) == "loss");
  CHECK(value_of<float>(field(summary[0].second, 2)) == 0.5F);
  CHECK(field(summary[1].second, 1) == "learning_rate");
  CHECK(value_of<float>(field(summary[1].second, 2)) == 1e-4F);
}

TEST_CASE("tensorboard: a resumed stage says from which step on older points count no more") {
  const TempDir folder;
  const EventWriter writer(folder / "distill", /*first_step=*/41);
  const auto records = records_of(text_of(only_file(folder / "distill")));
  REQUIRE(records.size() == 2);
  CHECK(number(field(records[1], 2)) == 41);
  const auto session = field(records[1], 7);
  CHECK(number(field(session, 1)) == 1);  // SessionLog.START
}
