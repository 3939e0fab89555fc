// Texts that are made from other texts, and where their bytes come from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/utf8.h"

namespace zebra {

// Part of a text. Its bytes come from those of the original text that origin() tells: from `map`
// where there is one, else the part is the original's at `base`.
struct Piece {
  std::string_view text;
  size_t base = 0;
  const uint32_t* map = nullptr;  // of each byte, and of the text's end
  bool at_start = true;           // nothing of the original lies before it

  size_t origin(size_t at) const { return map != nullptr ? map[at] : base + at; }
  Piece part(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), base + begin, map != nullptr ? map + begin : nullptr,
            at_start && begin == 0};
  }
};

// Builds a text from parts of a piece and from insertions. It keeps the map only when spans are
// wanted: it costs four bytes for each.
class MappedText {
 public:
  MappedText(const Piece& source, bool wants_map) : source_(source), wants_map_(wants_map) {
    text_.reserve(source.text.size() + source.text.size() / 8);
  }

  void copy(size_t begin, size_t end) {  // of the source
    text_ += source_.text.substr(begin, end - begin);
    if (!wants_map_) return;
    for (size_t at = begin; at < end; ++at) map_.push_back(origin32(at));
  }
  void insert(std::string_view bytes, size_t at) {  // in place of what the source has at `at`
    text_ += bytes;
    if (wants_map_) map_.insert(map_.end(), bytes.size(), origin32(at));
  }
  // `end`: of the source, up to where it was used. The piece lives as long as this object.
  Piece finish(size_t end, bool at_start) {
    if (wants_map_) map_.push_back(origin32(end));
    return {text_, source_.base, wants_map_ ? map_.data() : nullptr, at_start};
  }

 private:
  uint32_t origin32(size_t at) const { return static_cast<uint32_t>(source_.origin(at)); }

  Piece source_;
  bool wants_map_;
  std::string text_;
  std::vector<uint32_t> map_;
};

// The text with U+FFFD in place of what is no UTF-8; `storage` holds it where there is such.
inline Piece valid_text(std::string_view text, bool wants_map, std::optional<MappedText>& storage) {
  const Piece source{.text = text};
  size_t good = valid_prefix(text);
  if (good == text.size()) return source;
  auto& valid = storage.emplace(source, wants_map);
  for (size_t at = 0; at < text.size(); good = valid_prefix(text.substr(at))) {
    valid.copy(at, at + good);
    at += good;
    if (at == text.size()) break;
    valid.insert(kReplacementCharacter, at);
    at += invalid_prefix(text.substr(at));
  }
  return valid.finish(text.size(), source.at_start);
}

}  // namespace zebra
