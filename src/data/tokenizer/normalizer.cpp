#include "data/tokenizer/normalizer.h"

#include <c10/util/Exception.h>

#include <utf8proc.h>

#include <cstdlib>

#include "data/utf8.h"
#include "zebra/error.h"

namespace zebra {
namespace {

int unicode_form(const std::string& type) {
  if (type == "NFC") return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
  if (type == "NFD") return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (type == "NFKC") return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
  if (type == "NFKD") return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  return 0;
}

std::string normal_form(std::string_view text, int form) {
  utf8proc_uint8_t* result = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &result,
                                 static_cast<utf8proc_option_t>(form));
  TORCH_CHECK(size >= 0, "utf8proc: ", utf8proc_errmsg(size));
  std::string copy(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
  std::free(result);
  return copy;
}

bool ascii(char c) { return (c & 0x80) == 0; }

// ASCII stays as it is in all forms and never joins with what is before it, so that the text may
// be cut before each such character.
Piece to_normal_form(const Piece& piece, int form, MappedText& out) {
  const std::string_view text = piece.text;
  size_t begin = 0;
  while (begin < text.size()) {
    size_t end = begin;
    while (end < text.size() && ascii(text[end])) ++end;
    if (end < text.size() && end > begin) --end;  // may join with what follows
    out.copy(begin, end);
    begin = end;
    if (end < text.size()) ++end;
    while (end < text.size() && !ascii(text[end])) ++end;
    const auto part = text.substr(begin, end - begin);
    const auto changed = normal_form(part, form);
    if (changed == part) {
      out.copy(begin, end);
    } else {
      out.insert(changed, begin);
    }
    begin = end;
  }
  return out.finish(text.size(), piece.at_start);
}

Piece replace(const Piece& piece, const std::vector<Segment>& found, const std::string& content,
              MappedText& out) {
  for (const auto& [begin, end, match] : found) {
    if (match) {
      out.insert(content, begin);
    } else {
      out.copy(begin, end);
    }
  }
  return out.finish(piece.text.size(), piece.at_start);
}

// Rust's str::trim_start and trim_end.
Piece strip(const Piece& piece, bool left, bool right) {
  size_t begin = 0, end = piece.text.size();
  while (left && begin < end) {
    const auto [code, length] = character_at(piece.text, begin);
    if (!is_white_space(code)) break;
    begin += length;
  }
  while (right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<unsigned char>(piece.text[last]) & 0xC0U) == 0x80U) --last;
    if (!is_white_space(character_at(piece.text, last).code)) break;
    end = last;
  }
  return piece.part(begin, end);
}

}  // namespace

Normalizer::Normalizer(const json& value, const std::string& where) {
  if (!value.is_null()) add(value, where);
}

void Normalizer::add(const json& value, const std::string& where) {
  const auto type = require<std::string>(value, "type", where);
  if (type == "Sequence") {
    for (const auto& item : require<std::vector<json>>(value, "normalizers", where)) {
      add(item, where);
    }
  } else if (const int form = unicode_form(type); form != 0) {
    steps_.push_back({.kind = Kind::kUnicode, .form = form, .content = "", .pattern = {}});
  } else if (type == "Prepend") {
    steps_.push_back({.kind = Kind::kPrepend,
                      .content = require<std::string>(value, "prepend", where),
                      .pattern = {}});
  } else if (type == "Replace") {
    steps_.push_back(
        {.kind = Kind::kReplace,
         .content = require<std::string>(value, "content", where),
         .pattern = {Pattern::from_json(require<json>(value, "pattern", where), where)}});
  } else if (type == "Strip") {
    steps_.push_back({.kind = Kind::kStrip,
                      .content = "",
                      .pattern = {},
                      .left = require<bool>(value, "strip_left", where),
                      .right = require<bool>(value, "strip_right", where)});
  } else {
    fail_json(where, "type", "Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace or Strip", type);
  }
}

Piece Normalizer::apply_step(const Step& step, const Piece& piece, MappedText& text,
                             PatternScratch& scratch) {
  switch (step.kind) {
    case Kind::kUnicode:
      return to_normal_form(piece, step.form, text);
    case Kind::kPrepend:
      text.insert(step.content, 0);
      text.copy(0, piece.text.size());
      return text.finish(piece.text.size(), piece.at_start);
    case Kind::kReplace:
      return replace(piece, segments(step.pattern[0], piece.text, scratch), step.content, text);
    case Kind::kStrip:
      return strip(piece, step.left, step.right);
  }
  return piece;
}

Piece Normalizer::apply(Piece piece, bool wants_map, std::deque<MappedText>& texts,
                        PatternScratch& scratch) const {
  for (const auto& step : steps_) {
    if (piece.text.empty()) break;
    piece = apply_step(step, piece, texts.emplace_back(piece, wants_map), scratch);
  }
  return piece;
}

std::string Normalizer::apply(const std::string& text) const {
  std::deque<MappedText> texts;
  PatternScratch scratch;
  return std::string(apply(Piece{.text = text}, /*wants_map=*/false, texts, scratch).text);
}

}  // namespace zebra
