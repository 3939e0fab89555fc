// From tokens as the file writes them to text.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/json.h"

namespace zebra {

class Decoder {
 public:
  // `decoder` of a tokenizer.json: Sequence, ByteLevel, ByteFallback, Replace, Fuse, Strip,
  // Metaspace. Another type is a ConfigError. null: the tokens with spaces between them.
  Decoder(const json& value, const std::string& where);
  static Decoder byte_level();

  std::string decode(std::vector<std::string> tokens) const;

 private:
  Decoder() = default;
  void add(const json& value, const std::string& where);

  std::vector<std::function<std::vector<std::string>(std::vector<std::string>)>> steps_;
};

// The characters by which byte-level files write bytes. A token with any other character stands for
// itself.
std::string bytes_to_characters(std::string_view bytes);
std::string characters_to_bytes(std::string_view token);
bool is_byte_level_text(std::string_view token);

// The byte of a token such as <0x0A>, or -1.
int fallback_byte(std::string_view token);

}  // namespace zebra
