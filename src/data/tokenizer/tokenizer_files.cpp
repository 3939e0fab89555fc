#include "data/tokenizer/tokenizer_files.h"

#include <charconv>

#include "base/file.h"
#include "base/json.h"
#include "zebra/error.h"

namespace zebra {
namespace {

namespace fs = std::filesystem;

class Reader {
 public:
  Reader(TokenizerFiles& files, const fs::path& folder) : files_(files), folder_(folder) {}

  void read() {
    const auto config = read_object("tokenizer_config.json");
    files_.bos = named(config, "bos_token");
    files_.eos = named(config, "eos_token");
    files_.unk = named(config, "unk_token");
    files_.add_bos = find_value<bool>(config, "add_bos_token", where_);
    files_.add_eos = find_value<bool>(config, "add_eos_token", where_);
    files_.legacy = find_value<bool>(config, "legacy", where_).value_or(true);
    const auto decoder = find_value<json>(config, "added_tokens_decoder", where_);
    if (decoder) read_decoder(*decoder);
    read_lists(config);
    const auto map = read_object("special_tokens_map.json");
    if (!files_.bos) files_.bos = named(map, "bos_token");
    if (!files_.eos) files_.eos = named(map, "eos_token");
    if (!files_.unk) files_.unk = named(map, "unk_token");
    read_lists(map);
    if (!decoder) read_added(read_object("added_tokens.json"));
  }

 private:
  // An empty object where there is no such file.
  json read_object(const char* name) {
    const auto file = folder_ / name;
    where_ = file.string();
    if (!fs::exists(file)) return json::object();
    const auto text = read_file(file);
    files_.hash.add(text);
    auto object = parse_json(text, where_);
    if (!object.is_object()) fail_json(where_, "file", "an object", object);
    return object;
  }

  std::optional<AddedToken> named(const json& object, const char* key) const {
    const auto value = find_value<json>(object, key, where_);
    if (!value) return std::nullopt;
    auto token = added_token_from_json(*value, str(where_, ": ", key));
    token.special = true;
    token.where = where_;
    return token;
  }

  void read_lists(const json& object) {
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      const auto list = find_value<json>(object, key, where_);
      if (!list) continue;
      if (!list->is_structured()) fail_json(where_, key, "a list or an object", *list);
      for (const auto& item : *list) {
        files_.added.push_back(added_token_from_json(item, str(where_, ": ", key)));
        files_.added.back().special = true;
      }
    }
  }

  void read_decoder(const json& decoder) {
    const std::string key = "added_tokens_decoder";
    if (!decoder.is_object()) fail_json(where_, key, "an object", decoder);
    for (const auto& [id, item] : decoder.items()) {
      auto token = added_token_from_json(item, str(where_, ": ", key));
      const char* end = id.data() + id.size();
      const auto parsed = std::from_chars(id.data(), end, token.id);
      if (parsed.ec != std::errc() || parsed.ptr != end || token.id < 0) {
        fail_json(where_, key, "an id as key", id);
      }
      files_.added.push_back(std::move(token));
    }
  }

  void read_added(const json& object) {
    for (const auto& [content, id] : object.items()) {
      AddedToken token{.content = content, .normalized = false};
      token.id = require<int64_t>(object, content, where_);
      files_.added.push_back(std::move(token));
    }
  }

  TokenizerFiles& files_;
  const fs::path& folder_;
  std::string where_;
};

}  // namespace

TokenizerFiles read_tokenizer_files(const fs::path& file, const fs::path& folder) {
  TokenizerFiles files;
  files.file = file;
  if (!folder.empty()) Reader(files, folder).read();
  return files;
}

}  // namespace zebra
