// Llama 3's tokenizer.model: a line of base64 and rank for each token. The pattern that cuts a text
// and the special tokens are not in the file; they are those of the models.
#include <array>
#include <charconv>
#include <set>
#include <unordered_map>

#include "data/tokenizer/bpe_tokenizer.h"
#include "data/tokenizer/named_tokens.h"
#include "zebra/error.h"

namespace zebra {
namespace {

constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr int64_t kSpecialTokens = 256;

// In the order of their ids, from the first behind the ranks on; what follows is reserved.
constexpr std::array<const char*, 11> kSpecial = {"<|begin_of_text|>",
                                                  "<|end_of_text|>",
                                                  "<|reserved_special_token_0|>",
                                                  "<|reserved_special_token_1|>",
                                                  "<|finetune_right_pad_id|>",
                                                  "<|reserved_special_token_2|>",
                                                  "<|start_header_id|>",
                                                  "<|end_header_id|>",
                                                  "<|eom_id|>",
                                                  "<|eot_id|>",
                                                  "<|python_tag|>"};
constexpr int64_t kFirstReserved = 3;  // number of the first reserved one behind them

int sextet(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

// "" for what is no base64.
std::string decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return "";
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    if (sextet(c) < 0) return "";
    bits = (bits << 6U) | static_cast<uint32_t>(sextet(c));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>((bits >> static_cast<uint32_t>(count)) & 0xFFU);
  }
  return bytes;
}

struct Entry {
  std::string bytes;  // "" for a line that is none
  int64_t rank = -1;
};

Entry parse_line(std::string_view line) {
  const auto space = line.find(' ');
  if (space == std::string_view::npos) return {};
  const auto number = line.substr(space + 1);
  Entry entry{.bytes = decode_base64(line.substr(0, space))};
  const auto [end, error] =
      std::from_chars(number.data(), number.data() + number.size(), entry.rank);
  if (error != std::errc() || end != number.data() + number.size()) return {};
  return entry;
}

std::vector<std::string> read_ranks(std::string_view text, const std::string& where) {
  std::vector<std::string> tokens;
  std::set<std::string> seen;
  int64_t number = 0;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    ++number;
    auto [bytes, rank] = parse_line(line);
    if (bytes.empty() || rank != static_cast<int64_t>(tokens.size()) ||
        !seen.insert(bytes).second) {
      throw ConfigError(str(where, ":", number, ": expected a new token in base64 and the rank ",
                            tokens.size(), ", got '", line.substr(0, 60), "'"));
    }
    tokens.push_back(std::move(bytes));
  }
  return tokens;
}

// Any two tokens that together are a third become it; its id is the rank.
std::vector<BpeMerge> all_merges(const std::vector<std::string>& tokens) {
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t id = 0; id < tokens.size(); ++id) ids[tokens[id]] = static_cast<int32_t>(id);
  std::vector<BpeMerge> merges;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const std::string_view token = tokens[id];
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      const auto result = static_cast<int32_t>(id);
      merges.push_back({left->second, right->second, result, /*rank=*/result});
    }
  }
  return merges;
}

void add_special(NamedTokens& named, const std::string& where) {
  const auto first = static_cast<int64_t>(named.names().size());
  for (int64_t i = 0; i < kSpecialTokens; ++i) {
    const auto known = static_cast<int64_t>(kSpecial.size());
    named.add(
        {.id = first + i,
         .content = i < known ? kSpecial[i]
                              : str("<|reserved_special_token_", i - known + kFirstReserved, "|>"),
         .normalized = false,
         .special = true},
        where);
  }
}

}  // namespace

bool looks_like_ranks(std::string_view text) {
  return !parse_line(text.substr(0, text.find('\n'))).bytes.empty();
}

std::unique_ptr<Tokenizer> read_ranks_tokenizer(TokenizerFiles files, std::string_view text) {
  files.hash.add(text);
  auto tokens = read_ranks(text, files.where());
  std::vector<std::string> names;
  for (const auto& token : tokens) names.push_back(bytes_to_characters(token));
  NamedTokens named(std::move(names));
  if (files.added.empty()) add_special(named, files.where());
  if (!files.bos) files.bos = AddedToken{.content = "<|begin_of_text|>"};
  if (!files.eos) files.eos = AddedToken{.content = "<|end_of_text|>"};
  named.add(files);
  auto merges = all_merges(tokens);
  return std::make_unique<BpeTokenizer>(BpeTokenizerParts{
      .normalizer = {},
      .pre_tokenizer = PreTokenizer::byte_level(kLlama3),
      .model = Bpe({.tokens = std::move(tokens),
                    .merges = std::move(merges),
                    .byte_level = true,
                    .ignore_merges = true,
                    .byte_ids = {},
                    .word_mark = ""}),
      .decoder = Decoder::byte_level(),
      .added = named.added(),
      .names = named.names(),
      .bos_id = named.bos_id(),
      .eos_id = named.eos_id(),
      .adds_bos = files.add_bos.value_or(true),
      .adds_eos = files.add_eos.value_or(false),
      .hash = files.hash.value(),
  });
}

}  // namespace zebra
