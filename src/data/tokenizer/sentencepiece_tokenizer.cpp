#include <c10/util/Exception.h>
#include <sentencepiece_processor.h>

#include "data/tokenizer/bpe_tokenizer.h"
#include "data/tokenizer/mapped_text.h"
#include "data/tokenizer/named_tokens.h"
#include "zebra/error.h"

namespace zebra {
namespace {

using sentencepiece::SentencePieceProcessor;

constexpr std::string_view kMark = "\xE2\x96\x81";  // U+2581

// A NormalizerSpec that says add_dummy_prefix: false. Messages that come twice are merged, so that
// it may stand behind a model.
constexpr std::string_view kNoPrefix("\x1A\x02\x18\x00", 4);
// Likewise remove_extra_whitespaces: false.
constexpr std::string_view kKeepSpaces("\x1A\x02\x20\x00", 4);

void load(SentencePieceProcessor& processor, const std::string& bytes, const std::string& where) {
  const auto status = processor.LoadFromSerializedProto(bytes);
  if (!status.ok() || processor.GetPieceSize() <= 0) {
    throw ConfigError(
        str(where, ": expected a SentencePiece model or Llama 3's ranks, got another file"));
  }
}

// sentencepiece keeps no state between calls of its const methods, so one object serves all
// threads.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(TokenizerFiles files, std::string bytes, Spaces spaces)
      : legacy_(files.legacy), spaces_(spaces) {
    if (spaces == Spaces::kKept) bytes += kKeepSpaces;
    load(processor_, bytes, files.where());
    if (!legacy_) load(no_prefix_, bytes + std::string(kNoPrefix), files.where());
    files.hash.add(bytes);
    hash_ = files.hash.value();
    read_tokens(files);
    adds_bos_ = bos_id_ >= 0 && files.add_bos.value_or(true);
    adds_eos_ = eos_id_ >= 0 && files.add_eos.value_or(false);
  }

  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int64_t> ids;
    std::optional<MappedText> valid;
    // The prefix that sentencepiece adds is this space again.
    if (spaces_ == Spaces::kKept && text.size() > 1 && text.front() == ' ') text.remove_prefix(1);
    text = valid_text(text, /*wants_map=*/false, valid).text;
    for (const auto& part : added_.split_raw(text)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
        continue;
      }
      std::vector<int> found;
      const auto words = text.substr(part.begin, part.end - part.begin);
      check("tokenizer.encode", processor_for(part).Encode(words, &found));
      ids.insert(ids.end(), found.begin(), found.end());
    }
    return ids;
  }

  Encoding encode_with_spans(std::string_view text) const override {
    Encoding result;
    std::optional<MappedText> valid;
    const auto whole = valid_text(text, /*wants_map=*/true, valid);
    const auto add = [&](int64_t id, size_t begin, size_t end) {
      result.ids.push_back(id);
      result.spans.push_back({whole.origin(begin), whole.origin(end)});
    };
    for (const auto& part : added_.split_raw(whole.text)) {
      if (part.id >= 0) {
        add(part.id, part.begin, part.end);
        continue;
      }
      const auto words = whole.text.substr(part.begin, part.end - part.begin);
      const auto found = processor_for(part).EncodeAsImmutableProto(words);
      for (const auto& piece : found.pieces()) {
        add(piece.id(), part.begin + piece.begin(), part.begin + piece.end());
      }
    }
    return result;
  }

  std::string decode(const std::vector<int64_t>& ids) const override {
    std::vector<int64_t> kept;
    for (const auto id : ids) {
      check_id("tokenizer.decode", id);
      if (!is_special(id)) kept.push_back(id);
    }
    return decode_with_special(kept);
  }

  std::string decode_with_special(const std::vector<int64_t>& ids) const override {
    std::string text;
    std::vector<int> words;  // since the last added token
    for (const auto id : ids) {
      check_id("tokenizer.decode", id);
      if (added_.find(id) == nullptr) {
        words.push_back(static_cast<int>(id));
      } else {
        add_words(words, text);
        text += names_[id];
      }
    }
    add_words(words, text);
    return text;
  }

  int64_t vocab_size() const override { return static_cast<int64_t>(names_.size()); }
  int64_t bos_id() const override { return bos_id_; }
  int64_t eos_id() const override { return eos_id_; }
  bool adds_bos() const override { return adds_bos_; }
  bool adds_eos() const override { return adds_eos_; }

  std::string piece(int64_t id) const override {
    check_id("tokenizer.piece", id);
    return names_[id];
  }

  int64_t id_of(std::string_view piece) const override {
    if (const int64_t id = added_.id_of(piece); id >= 0) return id;
    const int id = processor_.PieceToId(piece);
    return names_[id] == piece ? id : -1;
  }

  bool is_special(int64_t id) const override {
    const auto* token = added_.find(id);
    return token != nullptr && token->special;
  }

  uint64_t hash() const override { return hash_; }

 private:
  void read_tokens(TokenizerFiles& files) {
    std::vector<std::string> names(processor_.GetPieceSize());
    for (int id = 0; id < processor_.GetPieceSize(); ++id) names[id] = processor_.IdToPiece(id);
    const auto own = [&](int id) -> std::optional<AddedToken> {
      if (id < 0) return std::nullopt;
      return AddedToken{.content = names[id], .normalized = false, .special = true};
    };
    if (!files.bos) files.bos = own(processor_.bos_id());
    if (!files.eos) files.eos = own(processor_.eos_id());
    if (!files.unk) files.unk = own(processor_.unk_id());
    NamedTokens named(std::move(names));
    named.add(files);
    names_ = named.names();
    added_ = named.added();
    bos_id_ = named.bos_id();
    eos_id_ = named.eos_id();
    added_.index([](const std::string& content) { return content; });
  }

  // Hugging Face's `legacy` puts a space before every part of a text, else before the text alone.
  const SentencePieceProcessor& processor_for(const AddedTokens::Part& part) const {
    return legacy_ || part.begin == 0 ? processor_ : no_prefix_;
  }

  // Decoding takes the space away that words begin with. Behind other text it was one of the text.
  void add_words(std::vector<int>& words, std::string& text) const {
    if (words.empty()) return;
    if (!text.empty() && names_[words[0]].starts_with(kMark)) text += ' ';
    std::string decoded;
    check("tokenizer.decode", processor_.Decode(words, &decoded));
    text += decoded;
    words.clear();
  }

  void check_id(const char* subject, int64_t id) const {
    TORCH_CHECK(id >= 0 && id < vocab_size(), subject, ": expected ids in [0, ", vocab_size(),
                "), got ", id);
  }

  static void check(const char* subject, const sentencepiece::util::Status& status) {
    TORCH_CHECK(status.ok(), subject, ": ", status.ToString());
  }

  SentencePieceProcessor processor_, no_prefix_;  // the second is loaded when it is needed
  bool legacy_;
  Spaces spaces_;
  std::vector<std::string> names_;
  AddedTokens added_;
  int64_t bos_id_ = -1, eos_id_ = -1;
  bool adds_bos_ = false, adds_eos_ = false;
  uint64_t hash_ = 0;
};

}  // namespace

std::unique_ptr<Tokenizer> read_sentencepiece_tokenizer(TokenizerFiles files,
                                                        const std::string& bytes, Spaces spaces) {
  return std::make_unique<SentencePieceTokenizer>(std::move(files), bytes, spaces);
}

}  // namespace zebra
