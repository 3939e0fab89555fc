#include "data/tokenizer/decoder.h"

#include <array>
#include <charconv>

#include "data/tokenizer/pattern.h"
#include "data/utf8.h"
#include "zebra/error.h"

namespace zebra {
namespace {

using Tokens = std::vector<std::string>;

constexpr size_t kAlphabetEnd = 0x144;  // code points that stand for bytes lie below

struct ByteAlphabet {
  std::array<std::string, 256> characters;
  std::array<int, kAlphabetEnd> bytes;  // -1: none
};

// Printable characters of Latin-1 are themselves; the others follow from U+0100 on.
const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet kAlphabet = [] {
    ByteAlphabet alphabet;
    alphabet.bytes.fill(-1);
    char32_t next = 0x100;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
      const char32_t code = printable ? byte : next++;
      alphabet.characters[byte] = to_utf8(code);
      alphabet.bytes[code] = static_cast<int>(byte);
    }
    return alphabet;
  }();
  return kAlphabet;
}

int byte_of(char32_t code) { return code < kAlphabetEnd ? byte_alphabet().bytes[code] : -1; }

std::string joined(const Tokens& tokens, const char* between) {
  std::string text;
  for (const auto& token : tokens) {
    if (!text.empty()) text += between;
    text += token;
  }
  return text;
}

Tokens decode_bytes(const Tokens& tokens) {
  std::string text;
  for (const auto& token : tokens) text += characters_to_bytes(token);
  return {replace_invalid(text)};
}

// Bytes that follow each other and are no UTF-8 become one U+FFFD each.
Tokens decode_fallback(const Tokens& tokens) {
  Tokens result;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (valid_prefix(bytes) == bytes.size()) {
      result.push_back(bytes);
    } else {
      result.insert(result.end(), bytes.size(), std::string(kReplacementCharacter));
    }
    bytes.clear();
  };
  for (const auto& token : tokens) {
    if (const int byte = fallback_byte(token); byte >= 0) {
      bytes += static_cast<char>(byte);
    } else {
      flush();
      result.push_back(token);
    }
  }
  flush();
  return result;
}

std::string replaced(const std::string& token, const Pattern& pattern, const std::string& content,
                     PatternScratch& scratch) {
  std::string result;
  for (const auto& [begin, end, match] : segments(pattern, token, scratch)) {
    result += match ? content : token.substr(begin, end - begin);
  }
  return result;
}

std::string stripped(std::string_view token, std::string_view content, int64_t start,
                     int64_t stop) {
  for (int64_t i = 0; i < start && token.starts_with(content); ++i) {
    token.remove_prefix(content.size());
  }
  for (int64_t i = 0; i < stop && token.ends_with(content); ++i) {
    token.remove_suffix(content.size());
  }
  return std::string(token);
}

// The mark of the first token was put there by the tokenizer.
Tokens decode_metaspace(const Tokens& tokens, const std::string& mark, bool prepended) {
  Tokens result;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string text;
    const std::string_view token = tokens[i];
    for (size_t at = 0; at < token.size();) {
      const bool is_mark = token.substr(at).starts_with(mark);
      if (!is_mark) text += token[at];
      if (is_mark && !(i == 0 && prepended)) text += ' ';
      at += is_mark ? mark.size() : 1;
    }
    result.push_back(std::move(text));
  }
  return result;
}

}  // namespace

std::string bytes_to_characters(std::string_view bytes) {
  std::string result;
  for (const char byte : bytes) {
    result += byte_alphabet().characters[static_cast<unsigned char>(byte)];
  }
  return result;
}

bool is_byte_level_text(std::string_view token) {
  for (size_t at = 0; at < token.size();) {
    const auto [code, length] = character_at(token, at);
    if (byte_of(code) < 0) return false;
    at += length;
  }
  return true;
}

std::string characters_to_bytes(std::string_view token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const auto [code, length] = character_at(token, at);
    const int byte = byte_of(code);
    if (byte < 0) return std::string(token);
    bytes += static_cast<char>(byte);
    at += length;
  }
  return bytes;
}

int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return -1;
  int byte = -1;
  const auto digits = token.substr(3, 2);
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), byte, 16);
  return error == std::errc() && end == digits.end() ? byte : -1;
}

Decoder::Decoder(const json& value, const std::string& where) {
  if (value.is_null()) {
    steps_.emplace_back([](const Tokens& tokens) { return Tokens{joined(tokens, " ")}; });
  } else {
    add(value, where);
  }
}

Decoder Decoder::byte_level() {
  Decoder decoder;
  decoder.steps_.emplace_back(decode_bytes);
  return decoder;
}

void Decoder::add(const json& value, const std::string& where) {
  const auto type = require<std::string>(value, "type", where);
  if (type == "Sequence") {
    for (const auto& item : require<std::vector<json>>(value, "decoders", where)) add(item, where);
  } else if (type == "ByteLevel") {
    steps_.emplace_back(decode_bytes);
  } else if (type == "ByteFallback") {
    steps_.emplace_back(decode_fallback);
  } else if (type == "Fuse") {
    steps_.emplace_back([](const Tokens& tokens) { return Tokens{joined(tokens, "")}; });
  } else if (type == "Replace") {
    const auto pattern = Pattern::from_json(require<json>(value, "pattern", where), where);
    const auto content = require<std::string>(value, "content", where);
    steps_.emplace_back([pattern, content](Tokens tokens) {
      PatternScratch scratch;
      for (auto& token : tokens) token = replaced(token, pattern, content, scratch);
      return tokens;
    });
  } else if (type == "Strip") {
    const auto content = require<std::string>(value, "content", where);
    const auto start = require<int64_t>(value, "start", where);
    const auto stop = require<int64_t>(value, "stop", where);
    steps_.emplace_back([=](Tokens tokens) {
      for (auto& token : tokens) token = stripped(token, content, start, stop);
      return tokens;
    });
  } else if (type == "Metaspace") {
    const auto mark = find_value<std::string>(value, "replacement", where).value_or("\xE2\x96\x81");
    const bool prepended =
        find_value<std::string>(value, "prepend_scheme", where).value_or("always") != "never" &&
        find_value<bool>(value, "add_prefix_space", where).value_or(true);
    steps_.emplace_back(
        [=](const Tokens& tokens) { return decode_metaspace(tokens, mark, prepended); });
  } else {
    fail_json(where, "type", "Sequence, ByteLevel, ByteFallback, Replace, Fuse, Strip or Metaspace",
              type);
  }
}

std::string Decoder::decode(std::vector<std::string> tokens) const {
  for (const auto& step : steps_) tokens = step(std::move(tokens));
  return joined(tokens, "");
}

}  // namespace zebra
