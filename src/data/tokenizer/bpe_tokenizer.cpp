#include "data/tokenizer/bpe_tokenizer.h"

#include <c10/util/Exception.h>

#include <limits>

#include "zebra/error.h"

namespace zebra {

struct BpeTokenizer::Scratch {
  Bpe::Scratch model;
  PatternScratch pattern;
  std::vector<BpeToken> tokens;
};

// A scratch of the tokenizer's for as long as the lease lives. It comes back with the pieces that
// it has met.
class BpeTokenizer::ScratchLease {
 public:
  explicit ScratchLease(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {
    const std::lock_guard lock(tokenizer_.mutex_);
    if (tokenizer_.scratch_.empty()) {
      scratch_ = std::make_unique<Scratch>();
    } else {
      scratch_ = std::move(tokenizer_.scratch_.back());
      tokenizer_.scratch_.pop_back();
    }
  }
  ~ScratchLease() {
    const std::lock_guard lock(tokenizer_.mutex_);
    tokenizer_.scratch_.push_back(std::move(scratch_));
  }
  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;
  Scratch& get() { return *scratch_; }

 private:
  const BpeTokenizer& tokenizer_;
  std::unique_ptr<Scratch> scratch_;
};

// One text on its way through the parts.
class BpeTokenizer::Run final : public PieceSink {
 public:
  Run(const BpeTokenizerParts& parts, Scratch& scratch, bool wants_spans)
      : parts_(parts), scratch_(scratch), wants_spans_(wants_spans) {}

  Encoding encode(std::string_view text) {
    std::optional<MappedText> valid;
    add_raw(valid_text(text, wants_spans_, valid));
    return std::move(result_);
  }

  void take(const Piece& piece) override {
    scratch_.tokens.clear();
    parts_.model.encode(piece.text, scratch_.model, scratch_.tokens);
    for (const auto& [id, begin, end] : scratch_.tokens) {
      result_.ids.push_back(id);
      if (wants_spans_) result_.spans.push_back({piece.origin(begin), piece.origin(end)});
    }
  }

 private:
  void add_token(const Piece& piece, const AddedTokens::Part& part) {
    result_.ids.push_back(part.id);
    if (wants_spans_) result_.spans.push_back({piece.origin(part.begin), piece.origin(part.end)});
  }

  void add_raw(const Piece& piece) {
    if (!parts_.added.any_raw()) return add_text(piece);
    for (const auto& part : parts_.added.split_raw(piece.text)) {
      if (part.id >= 0) {
        add_token(piece, part);
      } else {
        add_text(piece.part(part.begin, part.end));
      }
    }
  }

  void add_text(const Piece& piece) {
    if (parts_.normalizer.empty()) return add_normalized(piece);
    std::deque<MappedText> texts;
    add_normalized(parts_.normalizer.apply(piece, wants_spans_, texts, scratch_.pattern));
  }

  void add_normalized(const Piece& piece) {
    const CutContext context{wants_spans_, scratch_.pattern, *this};
    if (!parts_.added.any_normalized()) return parts_.pre_tokenizer.cut(piece, context);
    for (const auto& part : parts_.added.split_normalized(piece.text)) {
      if (part.id >= 0) {
        add_token(piece, part);
      } else {
        parts_.pre_tokenizer.cut(piece.part(part.begin, part.end), context);
      }
    }
  }

  const BpeTokenizerParts& parts_;
  Scratch& scratch_;
  bool wants_spans_;
  Encoding result_;
};

BpeTokenizer::BpeTokenizer(BpeTokenizerParts parts) : parts_(std::move(parts)) {
  parts_.added.index([&](const std::string& content) { return parts_.normalizer.apply(content); });
  for (size_t id = 0; id < parts_.names.size(); ++id) {
    if (!parts_.names[id].empty()) by_name_[parts_.names[id]] = static_cast<int64_t>(id);
  }
}

BpeTokenizer::~BpeTokenizer() = default;

Encoding BpeTokenizer::run(std::string_view text, bool wants_spans) const {
  if (text.size() >= std::numeric_limits<uint32_t>::max()) {
    throw ConfigError(
        str("tokenizer: expected a text of less than 4 GiB, got one of ", text.size(), " bytes"));
  }
  ScratchLease lease(*this);
  return Run(parts_, lease.get(), wants_spans).encode(text);
}

std::vector<int64_t> BpeTokenizer::encode(std::string_view text) const {
  return run(text, /*wants_spans=*/false).ids;
}

Encoding BpeTokenizer::encode_with_spans(std::string_view text) const {
  return run(text, /*wants_spans=*/true);
}

void BpeTokenizer::check_id(const char* subject, int64_t id) const {
  TORCH_CHECK(id >= 0 && id < vocab_size(), subject, ": expected ids in [0, ", vocab_size(),
              "), got ", id);
}

std::string BpeTokenizer::decode(const std::vector<int64_t>& ids) const {
  std::vector<int64_t> kept;
  for (const auto id : ids) {
    check_id("tokenizer.decode", id);
    if (!is_special(id)) kept.push_back(id);
  }
  return decode_with_special(kept);
}

std::string BpeTokenizer::decode_with_special(const std::vector<int64_t>& ids) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const auto id : ids) {
    check_id("tokenizer.decode", id);
    if (!parts_.names[id].empty()) tokens.push_back(parts_.names[id]);
  }
  return parts_.decoder.decode(std::move(tokens));
}

std::string BpeTokenizer::piece(int64_t id) const {
  check_id("tokenizer.piece", id);
  return parts_.names[id];
}

int64_t BpeTokenizer::id_of(std::string_view piece) const {
  const auto found = by_name_.find(piece);
  return found == by_name_.end() ? -1 : found->second;
}

bool BpeTokenizer::is_special(int64_t id) const {
  const auto* token = parts_.added.find(id);
  return token != nullptr && token->special;
}

}  // namespace zebra
