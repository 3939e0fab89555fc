#include "data/prepared_index.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "data/records.h"
#include "zebra/error.h"
#include "zebra/options.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "zebra-tokens";
constexpr int64_t kIndexVersion = 1;

json file_json(const IndexedFile& file) {
  return {{"path", file.path},
          {"bytes", file.stamp.bytes},
          {"changed_ns", file.stamp.changed_ns},
          {"hash", file.hash}};
}

std::vector<IndexedFile> files_of(const json& index, const std::string& key,
                                  const std::string& where) {
  std::vector<IndexedFile> files;
  for (const auto& item : require<std::vector<json>>(index, key, where)) {
    files.push_back({.path = require<std::string>(item, "path", where),
                     .stamp = {.bytes = require<uint64_t>(item, "bytes", where),
                               .changed_ns = require<int64_t>(item, "changed_ns", where)},
                     .hash = require<uint64_t>(item, "hash", where)});
  }
  return files;
}

template <class Enum>
Enum enum_at(const json& object, const std::string& key, const std::string& where) {
  const auto name = require<std::string>(object, key, where);
  for (const auto& [value, known] : EnumNames<Enum>::names) {
    if (known == name) return value;
  }
  fail_json(where, key, "a known name", name);
}

}  // namespace

FileStamp stamp_of(const fs::path& file) {
  struct stat facts {};
  if (::stat(file.c_str(), &facts) != 0) {
    throw ConfigError(str(file.string(), ": cannot be read: ", std::strerror(errno)));
  }
  const auto nanoseconds = [](const timespec& time) {
    return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
  };
  return {.bytes = static_cast<uint64_t>(facts.st_size),
          .changed_ns = std::max(nanoseconds(facts.st_mtim), nanoseconds(facts.st_ctim))};
}

uint64_t PreparedIndex::text_hash() const {
  Hasher hasher;
  for (const auto& file : files) {
    hasher.add(fs::path(file.path).filename().string());
    hasher.add(file.hash);
  }
  return hasher.value();
}

uint64_t PreparedIndex::identity() const {
  Hasher hasher;
  hasher.add(text_hash());
  hasher.add(format);
  hasher.add(tokenizer);
  hasher.add(documents.chat_template);
  for (const bool flag : {documents.bos, documents.eos}) hasher.add(static_cast<int64_t>(flag));
  hasher.add(static_cast<int64_t>(documents.bad_lines));
  hasher.add(static_cast<int64_t>(documents.split));
  hasher.add(documents.held_out);
  return hasher.value();
}

std::string PreparedIndex::difference(const PreparedIndex& wanted) const {
  std::string text;
  const auto note = [&](bool differs, const char* what) {
    if (differs) text += (text.empty() ? "" : ", ") + std::string(what);
  };
  note(text_hash() != wanted.text_hash(), "text");
  note(format != wanted.format, "format");
  note(tokenizer != wanted.tokenizer, "tokenizer");
  note(documents.chat_template != wanted.documents.chat_template, "chat_template");
  note(documents.bos != wanted.documents.bos, "bos");
  note(documents.eos != wanted.documents.eos, "eos");
  note(documents.bad_lines != wanted.documents.bad_lines, "bad_lines");
  note(documents.split != wanted.documents.split || documents.held_out != wanted.documents.held_out,
       "validation_split");
  return text;
}

fs::path index_path(const fs::path& folder) { return folder / "index.json"; }

std::optional<PreparedIndex> read_index(const fs::path& folder) {
  const auto path = index_path(folder);
  if (!fs::exists(path)) return std::nullopt;
  const auto where = path.string();
  const auto object = read_json(path);
  if (require<std::string>(object, "format", where) != kFormat ||
      require<int64_t>(object, "version", where) != kIndexVersion) {
    fail_json(where, "version", str("format ", kFormat, ", version ", kIndexVersion),
              object.value("version", json()));
  }
  PreparedIndex index;
  index.complete = require<bool>(object, "complete", where);
  index.path = require<std::string>(object, "source", where);
  index.format = require<std::string>(object, "source_format", where);
  index.tokenizer = require<uint64_t>(object, "tokenizer", where);
  index.documents = {.bos = require<bool>(object, "bos", where),
                     .eos = require<bool>(object, "eos", where),
                     .chat_template = require<std::string>(object, "chat_template", where),
                     .bad_lines = enum_at<BadLines>(object, "bad_lines", where),
                     .split = enum_at<Split>(object, "split", where),
                     .held_out = require<double>(object, "held_out", where)};
  index.files = files_of(object, "files", where);
  index.shards = files_of(object, "shards", where);
  index.total_documents = require<int64_t>(object, "documents", where);
  index.total_tokens = require<int64_t>(object, "tokens", where);
  index.text_bytes = require<int64_t>(object, "text_bytes", where);
  index.bad_records = require<int64_t>(object, "bad_records", where);
  return index;
}

void write_index(const fs::path& folder, const PreparedIndex& index) {
  json object = {{"format", kFormat},
                 {"version", kIndexVersion},
                 {"complete", index.complete},
                 {"source", index.path},
                 {"source_format", index.format},
                 {"tokenizer", index.tokenizer},
                 {"bos", index.documents.bos},
                 {"eos", index.documents.eos},
                 {"chat_template", index.documents.chat_template},
                 {"bad_lines", enum_name(index.documents.bad_lines)},
                 {"split", enum_name(index.documents.split)},
                 {"held_out", index.documents.held_out},
                 {"files", json::array()},
                 {"shards", json::array()},
                 {"documents", index.total_documents},
                 {"tokens", index.total_tokens},
                 {"text_bytes", index.text_bytes},
                 {"bad_records", index.bad_records}};
  for (const auto& file : index.files) object["files"].push_back(file_json(file));
  for (const auto& shard : index.shards) object["shards"].push_back(file_json(shard));
  const auto text = object.dump(2, ' ', false, json::error_handler_t::replace);
  write_file_atomic(index_path(folder), text + "\n");
}

PreparedIndex wanted_index(const PreparePlan& plan, const Tokenizer& tokenizer,
                           const std::optional<PreparedIndex>& known) {
  PreparedIndex index;
  index.path = plan.source.path;
  index.format = plan.pairs ? "pairs" : std::string(enum_name(plan.source.format));
  index.tokenizer = tokenizer.hash();
  index.documents = plan.documents;
  for (const auto& path : expand_glob(plan.source.path)) {
    IndexedFile file{.path = path.string(), .stamp = stamp_of(path)};
    const auto same = [&](const IndexedFile& other) {
      return other.path == file.path && other.stamp == file.stamp;
    };
    const auto* before = known ? &known->files : nullptr;
    const auto found = before == nullptr ? std::vector<IndexedFile>::const_iterator()
                                         : std::find_if(before->begin(), before->end(), same);
    const bool unchanged = before != nullptr && found != before->end();
    file.hash = unchanged ? found->hash : hash_file(path);
    index.files.push_back(file);
  }
  return index;
}

}  // namespace zebra
