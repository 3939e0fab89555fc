// A small tokenizer.json in Llama 3's form, for tests that need one.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizer/decoder.h"

namespace zebra::testing {

inline constexpr int64_t kSmallBos = 268, kSmallEos = 269, kSmallStart = 270, kSmallEnd = 271,
                         kSmallEot = 272, kSmallVocabulary = 273;

// 256 bytes, twelve merges (ids 256 ...), five special tokens; BOS before a text.
inline nlohmann::json small_tokenizer_json() {
  using json = nlohmann::json;
  json vocab = json::object(), merges = json::array(), added = json::array();
  for (int byte = 0; byte < 256; ++byte) {
    vocab[bytes_to_characters(std::string(1, static_cast<char>(byte)))] = byte;
  }
  const std::string space = bytes_to_characters(" ");
  const std::vector<std::pair<std::string, std::string>> pairs = {
      {"h", "e"}, {"l", "l"},  {"he", "ll"}, {"hell", "o"}, {space, "t"}, {space + "t", "he"},
      {"a", "n"}, {"an", "d"}, {space, "a"}, {"t", "he"},   {space, "w"}, {"o", "r"}};
  for (const auto& [left, right] : pairs) {
    vocab[left + right] = vocab.size();
    merges.push_back({left, right});
  }
  for (const char* name : {"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                           "<|end_header_id|>", "<|eot_id|>"}) {
    added.push_back({{"id", vocab.size() + added.size()},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const json split = {
      {"type", "Split"},
      {"pattern", {{"Regex", R"( ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}}},
      {"behavior", "Isolated"},
      {"invert", false}};
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const json before = {{"SpecialToken", {{"id", "<|begin_of_text|>"}, {"type_id", 0}}}};
  const json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  return {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", json::array({split, bytes})}}},
      {"post_processor",
       {{"type", "TemplateProcessing"},
        {"single", json::array({before, text})},
        {"special_tokens",
         {{"<|begin_of_text|>", {{"id", "<|begin_of_text|>"}, {"ids", {kSmallBos}}}}}}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"ignore_merges", false}, {"vocab", vocab}, {"merges", merges}}}};
}

inline nlohmann::json small_tokenizer_config() {
  return {{"bos_token", "<|begin_of_text|>"}, {"eos_token", "<|eot_id|>"}};
}

}  // namespace zebra::testing
