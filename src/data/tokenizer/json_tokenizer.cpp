#include "base/file.h"
#include "base/json.h"
#include "data/tokenizer/bpe_tokenizer.h"
#include "data/tokenizer/named_tokens.h"
#include "zebra/error.h"

namespace zebra {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 24U;

// What a post-processor puts around a text.
struct Around {
  std::vector<int64_t> before, after;
};

class Reader {
 public:
  explicit Reader(const std::string& where) : where_(where) {}

  BpeTokenizerParts read(const json& root, TokenizerFiles& files) {
    const auto model = require<json>(root, "model", where_);
    check_model(model);
    PreTokenizer pre_tokenizer(part(root, "pre_tokenizer"), at("pre_tokenizer"));
    NamedTokens named(read_names(require<json>(model, "vocab", at("model"))));
    auto vocabulary = read_vocabulary(model, named, pre_tokenizer.is_byte_level());
    read_added(root, named);
    named.add(files);
    BpeTokenizerParts parts{
        .normalizer = Normalizer(part(root, "normalizer"), at("normalizer")),
        .pre_tokenizer = std::move(pre_tokenizer),
        .model = Bpe(std::move(vocabulary)),
        .decoder = Decoder(part(root, "decoder"), at("decoder")),
        .added = named.added(),
        .names = named.names(),
        .bos_id = named.bos_id(),
        .eos_id = named.eos_id(),
        .hash = files.hash.value(),
    };
    set_around(read_around(part(root, "post_processor")), files, parts);
    return parts;
  }

 private:
  std::string at(const std::string& key) const { return str(where_, ": ", key); }

  static json part(const json& root, const char* key) {
    const auto found = root.find(key);
    return found == root.end() ? json() : *found;
  }

  void check_model(const json& model) const {
    if (!model.is_object()) fail_json(where_, "model", "an object", model);
    const auto where = at("model");
    const auto type = find_value<std::string>(model, "type", where);
    if (type.value_or("BPE") != "BPE") fail_json(where, "type", "BPE", *type);
    if (find_value<double>(model, "dropout", where).value_or(0) != 0) {
      fail_json(where, "dropout", "none", model["dropout"]);
    }
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!find_value<std::string>(model, key, where).value_or("").empty()) {
        fail_json(where, key, "none", model[key]);
      }
    }
  }

  std::vector<std::string> read_names(const json& vocab) const {
    if (!vocab.is_object() || vocab.empty()) {
      fail_json(at("model"), "vocab", "an object of tokens and ids", vocab);
    }
    std::vector<std::string> names;
    for (const auto& [token, value] : vocab.items()) {
      const bool fits = value.is_number_integer() && value >= 0 && value < kMostTokens;
      if (!fits) fail_json(at("model.vocab"), token, str("an id below ", kMostTokens), value);
      const auto id = value.get<size_t>();
      if (id >= names.size()) names.resize(id + 1);
      if (!names[id].empty()) {
        fail_json(at("model.vocab"), token, str("an id that ", names[id], " does not have"), value);
      }
      names[id] = token;
    }
    return names;
  }

  BpeVocabulary read_vocabulary(const json& model, const NamedTokens& named,
                                bool byte_level) const {
    const auto where = at("model");
    const auto flag = [&](const char* key) {
      return find_value<bool>(model, key, where).value_or(false);
    };
    BpeVocabulary result{.tokens = {},
                         .merges = read_merges(require<json>(model, "merges", where), named),
                         .byte_level = byte_level,
                         .ignore_merges = flag("ignore_merges"),
                         .fuse_unk = flag("fuse_unk"),
                         .byte_ids = {},
                         .word_mark = byte_level ? "" : "\xE2\x96\x81"};
    for (const auto& name : named.names()) {
      const bool bytes = byte_level && is_byte_level_text(name);
      result.tokens.push_back(bytes ? characters_to_bytes(name) : byte_level ? "" : name);
    }
    if (const auto unk = find_value<std::string>(model, "unk_token", where)) {
      result.unk_id = static_cast<int32_t>(named.id_of(*unk));
      if (result.unk_id < 0) fail_json(where, "unk_token", "a token of the vocabulary", *unk);
    }
    if (flag("byte_fallback")) {
      result.byte_ids.assign(256, -1);
      for (size_t id = 0; id < named.names().size(); ++id) {
        const int byte = fallback_byte(named.names()[id]);
        if (byte >= 0) result.byte_ids[byte] = static_cast<int32_t>(id);
      }
    }
    return result;
  }

  // An item is a list of two tokens or, in older files, one text with a space between them.
  std::vector<BpeMerge> read_merges(const json& list, const NamedTokens& named) const {
    if (!list.is_array()) fail_json(at("model"), "merges", "a list", list);
    std::vector<BpeMerge> merges;
    merges.reserve(list.size());
    for (const auto& item : list) {
      const auto rank = static_cast<int32_t>(merges.size());
      const auto [left, right] = split_merge(item, rank);
      BpeMerge merge{.left = static_cast<int32_t>(named.id_of(left)),
                     .right = static_cast<int32_t>(named.id_of(right)),
                     .result = static_cast<int32_t>(named.id_of(left + right)),
                     .rank = rank};
      if (merge.left < 0 || merge.right < 0 || merge.result < 0) {
        fail_json(at("model"), str("merges[", rank, "]"),
                  "two tokens of the vocabulary that together are a third", item);
      }
      merges.push_back(merge);
    }
    return merges;
  }

  std::pair<std::string, std::string> split_merge(const json& item, int32_t rank) const {
    if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      return {item[0].get<std::string>(), item[1].get<std::string>()};
    }
    if (item.is_string()) {
      const auto& text = item.get_ref<const std::string&>();
      const auto space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        return {text.substr(0, space), text.substr(space + 1)};
      }
    }
    fail_json(at("model"), str("merges[", rank, "]"), "two tokens", item);
  }

  void read_added(const json& root, NamedTokens& named) const {
    const auto list = find_value<std::vector<json>>(root, "added_tokens", where_);
    if (!list) return;
    for (const auto& item : *list) {
      auto token = added_token_from_json(item, at("added_tokens"));
      if (token.id < 0) fail_json(at("added_tokens"), "id", "an id", item);
      const int64_t known = named.id_of(token.content);
      if (known >= 0 && known != token.id) {
        fail_json(at("added_tokens"), token.content, str("its id in the vocabulary, ", known),
                  token.id);
      }
      named.add(std::move(token), at("added_tokens"));
    }
  }

  Around read_around(const json& processor) const {
    if (processor.is_null()) return {};
    const auto where = at("post_processor");
    const auto type = require<std::string>(processor, "type", where);
    if (type == "ByteLevel") return {};  // it moves offsets alone
    if (type == "TemplateProcessing") return read_template(processor, where);
    if (type != "Sequence") {
      fail_json(where, "type", "TemplateProcessing, ByteLevel or Sequence", type);
    }
    Around all;
    for (const auto& item : require<std::vector<json>>(processor, "processors", where)) {
      const auto around = read_around(item);
      all.before.insert(all.before.begin(), around.before.begin(), around.before.end());
      all.after.insert(all.after.end(), around.after.begin(), around.after.end());
    }
    return all;
  }

  Around read_template(const json& processor, const std::string& where) const {
    Around around;
    bool text = false;
    for (const auto& item : require<std::vector<json>>(processor, "single", where)) {
      if (item.contains("Sequence")) {
        text = true;
        continue;
      }
      const auto token = require<json>(item, "SpecialToken", where);
      const auto id = require<std::string>(token, "id", where);
      const auto known = require<json>(processor, "special_tokens", where);
      const auto ids = require<std::vector<int64_t>>(require<json>(known, id, where), "ids", where);
      auto& side = text ? around.after : around.before;
      side.insert(side.end(), ids.begin(), ids.end());
    }
    return around;
  }

  // Explicit settings of tokenizer_config.json replace the post-processor, as in Hugging Face.
  void set_around(const Around& around, const TokenizerFiles& files,
                  BpeTokenizerParts& parts) const {
    if (files.add_bos || files.add_eos) {
      parts.adds_bos = files.add_bos.value_or(false) && parts.bos_id >= 0;
      parts.adds_eos = files.add_eos.value_or(false) && parts.eos_id >= 0;
    }
    const bool replaced = files.add_bos || files.add_eos;
    set_side(around.before, replaced, parts.bos_id, parts.adds_bos);
    set_side(around.after, replaced, parts.eos_id, parts.adds_eos);
  }

  void set_side(const std::vector<int64_t>& ids, bool replaced, int64_t& id, bool& adds) const {
    if (ids.empty()) return;
    if (id < 0 && ids.size() == 1) id = ids[0];
    if (replaced) return;
    if (ids.size() > 1 || ids[0] != id) {
      fail_json(at("post_processor"), "single", "BOS before a text, EOS after it, or neither", ids);
    }
    adds = true;
  }

  std::string where_;
};

}  // namespace

std::unique_ptr<Tokenizer> read_json_tokenizer(TokenizerFiles files) {
  const auto text = read_file(files.file);
  files.hash.add(text);
  const auto root = parse_json(text, files.where());
  if (!root.is_object()) fail_json(files.where(), "file", "an object", root);
  return std::make_unique<BpeTokenizer>(Reader(files.where()).read(root, files));
}

}  // namespace zebra
