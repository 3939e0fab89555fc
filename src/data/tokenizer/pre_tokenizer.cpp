#include "data/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "zebra/error.h"

namespace zebra {

class PreTokenizer::Step {
 public:
  using Next = std::function<void(const Piece&)>;
  virtual ~Step() = default;
  virtual void apply(const Piece& piece, const CutContext& context, const Next& next) const = 0;
};

namespace {

using Step = PreTokenizer::Step;

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581
constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Its words hold joiners, too: the peer matches them with another library than the patterns.
constexpr const char* kWords = R"([\w\x{200c}\x{200d}]+|[^\w\s\x{200c}\x{200d}]+)";
constexpr const char* kPunctuation = R"([!-/:-@\[-`{-~\p{P}])";

enum class Behavior { kRemoved, kIsolated, kContiguous, kWithPrevious, kWithNext };

std::optional<Behavior> behavior_of(const std::string& name) {
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Contiguous") return Behavior::kContiguous;
  if (name == "MergedWithPrevious") return Behavior::kWithPrevious;
  if (name == "MergedWithNext") return Behavior::kWithNext;
  return std::nullopt;
}

// Joins each segment that `joins` says belongs to the one before it.
template <class Joins>
std::vector<Segment> joined(const std::vector<Segment>& all, Joins joins) {
  std::vector<Segment> result;
  for (size_t i = 0; i < all.size(); ++i) {
    if (i > 0 && joins(all[i - 1], all[i])) {
      result.back().end = all[i].end;
    } else {
      result.push_back(all[i]);
    }
  }
  return result;
}

std::vector<Segment> arrange(std::vector<Segment> all, Behavior behavior) {
  switch (behavior) {
    case Behavior::kRemoved:
      std::erase_if(all, [](const Segment& segment) { return segment.match; });
      return all;
    case Behavior::kIsolated:
      return all;
    case Behavior::kContiguous:
      return joined(all, [](const auto& a, const auto& b) { return a.match == b.match; });
    case Behavior::kWithPrevious:
      return joined(all, [](const auto& a, const auto& b) { return b.match && !a.match; });
    case Behavior::kWithNext:
      return joined(all, [](const auto& a, const auto& b) { return a.match && !b.match; });
  }
  return all;
}

class Split final : public Step {
 public:
  Split(Pattern pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  void apply(const Piece& piece, const CutContext& context, const Next& next) const override {
    auto all = segments(pattern_, piece.text, context.scratch);
    for (auto& segment : all) segment.match = segment.match != invert_;
    for (const auto& [begin, end, match] : arrange(std::move(all), behavior_)) {
      next(piece.part(begin, end));
    }
  }

 private:
  Pattern pattern_;
  Behavior behavior_;
  bool invert_;
};

// Every match and every gap between two is a piece: the case that needs to be fast.
class Isolate final : public Step {
 public:
  explicit Isolate(Pattern pattern) : pattern_(std::move(pattern)) {}

  void apply(const Piece& piece, const CutContext& context, const Next& next) const override {
    size_t done = 0;
    while (done < piece.text.size()) {
      const auto [begin, end, found] = pattern_.find(piece.text, done, context.scratch);
      if (!found || begin == end) break;
      if (begin > done) next(piece.part(done, begin));
      next(piece.part(begin, end));
      done = end;
    }
    if (done == piece.text.size()) return;
    for (const auto& [begin, end, match] :
         segments(pattern_, piece.text.substr(done), context.scratch)) {
      next(piece.part(done + begin, done + end));
    }
  }

 private:
  Pattern pattern_;
};

class PrefixSpace final : public Step {
 public:
  void apply(const Piece& piece, const CutContext& context, const Next& next) const override {
    if (piece.text.starts_with(' ')) return next(piece);
    MappedText text(piece, context.wants_map);
    text.insert(" ", 0);
    text.copy(0, piece.text.size());
    next(text.finish(piece.text.size(), piece.at_start));
  }
};

enum class Prepend { kAlways, kFirst, kNever };

class Metaspace final : public Step {
 public:
  Metaspace(std::string replacement, Prepend prepend)
      : replacement_(std::move(replacement)), prepend_(prepend) {}

  void apply(const Piece& piece, const CutContext& context, const Next& next) const override {
    MappedText text(piece, context.wants_map);
    const bool marked = piece.text.starts_with(' ') || piece.text.starts_with(replacement_);
    const bool wanted =
        prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.at_start);
    if (wanted && !marked) text.insert(replacement_, 0);
    size_t done = 0;
    while (done < piece.text.size()) {
      const size_t space = std::min(piece.text.find(' ', done), piece.text.size());
      text.copy(done, space);
      if (space < piece.text.size()) text.insert(replacement_, space);
      done = space + 1;
    }
    next(text.finish(piece.text.size(), piece.at_start));
  }

 private:
  std::string replacement_;
  Prepend prepend_;
};

Prepend prepend_of(const json& value, const std::string& where) {
  const auto scheme = find_value<std::string>(value, "prepend_scheme", where);
  if (!scheme) {  // files of older versions
    const bool add = find_value<bool>(value, "add_prefix_space", where).value_or(true);
    return add ? Prepend::kAlways : Prepend::kNever;
  }
  if (*scheme == "always") return Prepend::kAlways;
  if (*scheme == "first") return Prepend::kFirst;
  if (*scheme == "never") return Prepend::kNever;
  fail_json(where, "prepend_scheme", "always, first or never", *scheme);
}

}  // namespace

PreTokenizer::PreTokenizer(const json& value, const std::string& where) {
  if (!value.is_null()) add(value, where);
}

PreTokenizer PreTokenizer::byte_level(const std::string& expression) {
  PreTokenizer result;
  result.steps_.push_back(std::make_shared<Isolate>(Pattern(expression, "tokenizer")));
  result.byte_level_ = true;
  return result;
}

void PreTokenizer::add(const json& value, const std::string& where) {
  const auto type = require<std::string>(value, "type", where);
  if (byte_level_) fail_json(where, "type", "no step after ByteLevel", type);
  if (type == "Sequence") {
    for (const auto& item : require<std::vector<json>>(value, "pretokenizers", where)) {
      add(item, where);
    }
  } else if (type == "Split") {
    add_split(Pattern::from_json(require<json>(value, "pattern", where), where),
              require<std::string>(value, "behavior", where),
              find_value<bool>(value, "invert", where).value_or(false), where);
  } else if (type == "ByteLevel") {
    add_byte_level(value, where);
  } else if (type == "Metaspace") {
    add_metaspace(value, where);
  } else if (type == "Digits") {
    const bool single = find_value<bool>(value, "individual_digits", where).value_or(false);
    add_split({R"(\p{N})", where}, single ? "Isolated" : "Contiguous", false, where);
  } else if (type == "Punctuation") {
    add_split({kPunctuation, where},
              find_value<std::string>(value, "behavior", where).value_or("Isolated"), false, where);
  } else if (type == "Whitespace") {
    add_split({kWords, where}, "Removed", /*invert=*/true, where);
  } else if (type == "WhitespaceSplit") {
    add_split({R"(\s)", where}, "Removed", /*invert=*/false, where);
  } else {
    fail_json(where, "type",
              "Sequence, Split, ByteLevel, Metaspace, Digits, Punctuation, Whitespace or "
              "WhitespaceSplit",
              type);
  }
}

void PreTokenizer::add_split(const Pattern& pattern, const std::string& behavior, bool invert,
                             const std::string& where) {
  const auto known = behavior_of(behavior);
  if (!known) {
    fail_json(where, "behavior",
              "Removed, Isolated, Contiguous, MergedWithPrevious or MergedWithNext", behavior);
  }
  if (*known == Behavior::kIsolated) {
    steps_.push_back(std::make_shared<Isolate>(pattern));
  } else {
    steps_.push_back(std::make_shared<Split>(pattern, *known, invert));
  }
}

void PreTokenizer::add_byte_level(const json& value, const std::string& where) {
  if (require<bool>(value, "add_prefix_space", where)) {
    steps_.push_back(std::make_shared<PrefixSpace>());
  }
  if (find_value<bool>(value, "use_regex", where).value_or(true)) {
    steps_.push_back(std::make_shared<Isolate>(Pattern(kGpt2, where)));
  }
  byte_level_ = true;
}

void PreTokenizer::add_metaspace(const json& value, const std::string& where) {
  replacement_ =
      find_value<std::string>(value, "replacement", where).value_or(std::string(kMetaspace));
  steps_.push_back(std::make_shared<Metaspace>(replacement_, prepend_of(value, where)));
  if (find_value<bool>(value, "split", where).value_or(true)) {
    const Pattern pattern = Pattern::from_json(json{{"String", replacement_}}, where);
    steps_.push_back(std::make_shared<Split>(pattern, Behavior::kWithNext, /*invert=*/false));
  }
}

void PreTokenizer::run(size_t step, const Piece& piece, const CutContext& context) const {
  if (piece.text.empty()) return;
  if (step == steps_.size()) return context.sink.take(piece);
  steps_[step]->apply(piece, context, [&](const Piece& part) { run(step + 1, part, context); });
}

}  // namespace zebra
