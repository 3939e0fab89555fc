#include "data/shard.h"

#include <bit>
#include <cstring>

#include "base/hash.h"
#include "zebra/error.h"

namespace zebra {

static_assert(std::endian::native == std::endian::little, "shards are little-endian");

namespace {

constexpr char kMagic[8] = {'Z', 'E', 'B', 'R', 'A', 'T', 'O', 'K'};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kMost = uint64_t{1} << 40;  // documents or tokens of one shard

uint64_t answer_words(uint64_t tokens) { return (tokens + 63) / 64; }

uint64_t shard_size(uint64_t documents, uint64_t tokens) {
  return sizeof(ShardHeader) + 8 * (2 * documents + 1 + answer_words(tokens)) + 4 * tokens;
}

uint64_t header_hash(const ShardHeader& header) {
  return hash_bytes(&header, offsetof(ShardHeader, header_hash));
}

}  // namespace

Shard::Shard(const std::filesystem::path& file) : bytes_(MappedFile(file)) { check_header(); }

Shard::Shard(std::string bytes) : bytes_(std::move(bytes)) { check_header(); }

void Shard::check_header() const {
  if (size() < sizeof(ShardHeader) || std::memcmp(data(), kMagic, sizeof kMagic) != 0) {
    throw ConfigError(name() + ": expected a token shard, got another file");
  }
  if (header().version != kVersion) {
    throw ConfigError(
        str(name(), ": expected version ", kVersion, " of the format, got ", header().version));
  }
  const bool sane = header().header_hash == header_hash(header()) && header().documents < kMost &&
                    header().tokens < kMost;
  if (!sane) throw ConfigError(name() + ": the header is damaged");
  const auto expected = shard_size(header().documents, header().tokens);
  if (size() != expected) {
    throw ConfigError(str(name(), ": expected ", expected, " bytes, got ", size()));
  }
}

void Shard::check_body() const {
  const auto begin = sizeof(ShardHeader);
  if (hash_bytes(data() + begin, size() - begin) != header().body_hash) {
    throw ConfigError(name() + ": is damaged: its contents do not have the hash in its header");
  }
}

void Shard::release() const {
  if (const auto* file = std::get_if<MappedFile>(&bytes_)) file->release(0, file->size());
}

Place Shard::next() const {
  return {.file = header().next_file,
          .offset = header().next_offset,
          .number = static_cast<int64_t>(header().next_number)};
}

const uint32_t* Shard::ids() const {
  const auto before = 2 * header().documents + 1 + answer_words(header().tokens);
  return reinterpret_cast<const uint32_t*>(words(before));
}

const char* Shard::data() const {
  if (const auto* file = std::get_if<MappedFile>(&bytes_)) {
    return reinterpret_cast<const char*>(file->data());
  }
  return std::get<std::string>(bytes_).data();
}

uint64_t Shard::size() const {
  if (const auto* file = std::get_if<MappedFile>(&bytes_)) return file->size();
  return std::get<std::string>(bytes_).size();
}

std::string Shard::name() const {
  const auto* file = std::get_if<MappedFile>(&bytes_);
  return file != nullptr ? file->path().string() : "token shard";
}

void ShardBuilder::add(const EncodedDocument& document) {
  const auto begin = ids_.size();
  for (const auto id : document.ids) ids_.push_back(static_cast<uint32_t>(id));
  answer_.resize(answer_words(ids_.size()), 0);
  for (size_t i = 0; i < document.ids.size(); ++i) {
    const bool set = document.answer.empty() || document.answer[i] != 0;
    if (set) answer_[(begin + i) / 64] |= uint64_t{1} << ((begin + i) % 64);
  }
  starts_.push_back(ids_.size());
  text_bytes_.push_back(document.bytes);
  total_bytes_ += document.bytes;
}

std::string ShardBuilder::take(const Facts& facts) {
  ShardHeader header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.kind = static_cast<uint32_t>(facts.kind);
  header.documents = documents();
  header.tokens = tokens();
  header.text_bytes = total_bytes_;
  header.identity = facts.identity;
  header.next_file = facts.next.file;
  header.next_offset = facts.next.offset;
  header.next_number = static_cast<uint64_t>(facts.next.number);
  header.bad_records = facts.bad_records;
  std::string bytes(sizeof header, '\0');
  bytes.reserve(shard_size(header.documents, header.tokens));
  const auto append = [&](const auto& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
  };
  append(starts_);
  append(text_bytes_);
  append(answer_);
  append(ids_);
  header.body_hash = hash_bytes(bytes.data() + sizeof header, bytes.size() - sizeof header);
  header.header_hash = header_hash(header);
  std::memcpy(bytes.data(), &header, sizeof header);
  *this = ShardBuilder();
  return bytes;
}

}  // namespace zebra
