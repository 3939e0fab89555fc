// Texts to be scored as the tokens that lm-evaluation-harness would feed a causal model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "zebra/tokenizer.h"

namespace zebra {

struct TextRequest {
  std::string context, continuation;
};

// The model reads `input`; its last targets.size() positions predict `targets`.
struct TokenRequest {
  std::vector<int64_t> input, targets;
  bool cut = false;  // the context lost its beginning
};

// A continuation of more tokens than fit: refused, as in the harness, or only its end is scored.
enum class LongEndings { kRefuse, kCut };

// Context and continuation are encoded together and split where the context alone ends; white space
// at the context's end belongs to the continuation. BOS comes first where the tokenizer has one. A
// context that is too long loses its beginning. ConfigError when the continuation adds no tokens or
// nothing stands before it.
std::vector<TokenRequest> encode_requests(const Tokenizer& tokenizer,
                                          const std::vector<TextRequest>& requests,
                                          int64_t max_length, LongEndings long_endings);

// A text's tokens, each predicted once, in windows of at most `max_length` inputs with as much
// context as fits. As in the harness, the BOS that the tokenizer puts first is predicted as well,
// after a BOS of its own.
std::vector<TokenRequest> encode_rolling(const Tokenizer& tokenizer, const std::string& text,
                                         int64_t max_length);

// A prompt with its BOS; one that is too long loses its beginning.
std::vector<int64_t> encode_prompt(const Tokenizer& tokenizer, const std::string& text,
                                   int64_t max_length);

}  // namespace zebra
