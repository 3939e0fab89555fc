// Text from a model, token by token: batches of unequal prompts, conversations, and a draft model
// that proposes. docs/generation.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "zebra/cache.h"
#include "zebra/model.h"

namespace zebra {

// Scores are changed in Hugging Face's order: repetition penalty, temperature, top-k, top-p, min-p.
struct GenerateOptions {
  int64_t max_new_tokens = 128;
  double temperature = 0.0;         // 0: greedy
  int64_t top_k = 0;                // the k likeliest and those equal to the last; 0: all
  double top_p = 1.0;               // the smallest set of the likeliest that reaches p
  double min_p = 0.0;               // at least this share of the likeliest one's probability
  double repetition_penalty = 1.0;  // divides positive, multiplies negative logits of seen tokens
  uint64_t seed = 0;                // row b of a batch draws with seed + b
  int64_t prefill_chunk = 512;      // prompt tokens of a row in one forward
  std::vector<int64_t> stop_ids = {};  // a row ends after one of them
  CacheOptions cache = {};
  void validate() const;  // throws ConfigError
};

enum class StopReason {
  kLength,     // max_new_tokens are made
  kStopToken,  // one of stop_ids, which is the last id
  kCaller,     // on_token said so
  kContext,    // max_position_embeddings are used up
};
const char* stop_reason_name(StopReason reason);

struct GeneratedRow {
  std::vector<int64_t> ids;  // without the prompt
  StopReason reason = StopReason::kLength;
};

// Hears each id as it is made; false ends the row.
using TokenSink = std::function<bool(int64_t row, int64_t id)>;

// One row a prompt, each of at least one token. A row's tokens do not depend on the other rows.
std::vector<GeneratedRow> generate_rows(CausalLm model,
                                        const std::vector<std::vector<int64_t>>& prompts,
                                        const GenerateOptions& options,
                                        const TokenSink& on_token = {});

// prompt: (1, T) int64, T >= 1 -> generated ids without the prompt. `on_token` sees each id as it
// is made.
std::vector<int64_t> generate(CausalLm model, const at::Tensor& prompt,
                              const GenerateOptions& options,
                              const std::function<void(int64_t)>& on_token = {});

// Caches of one row a prompt that has been read, and the scores of what follows.
struct Prefilled {
  ModelCache cache;
  at::Tensor logits;  // (B, V) after the last token of each prompt
};
// Rows of like length share a forward; chunks of options.prefill_chunk.
Prefilled prefill(CausalLm model, const std::vector<std::vector<int64_t>>& prompts,
                  const GenerateOptions& options);

// One text that is read and continued in turns. What was read or made is in the caches and is never
// read again.
class Conversation {
 public:
  Conversation(CausalLm model, const GenerateOptions& options);

  // Reads `ids` behind everything so far, then generates; what is generated becomes part of it.
  // ConfigError when the model's context has no room for ids and an answer.
  GeneratedRow reply(const std::vector<int64_t>& ids,
                     const std::function<bool(int64_t)>& on_token = {});

  const std::vector<int64_t>& ids() const { return ids_; }  // read or made
  int64_t forwarded() const { return forwarded_; }          // tokens that went through the model
  const ModelCache& cache() const { return cache_; }

 private:
  CausalLm model_;
  GenerateOptions options_;
  ModelCache cache_;
  std::vector<int64_t> ids_;
  std::vector<int64_t> unread_;  // made last, not yet in the caches
  int64_t forwarded_ = 0, turns_ = 0;
};

// Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192): a draft model proposes
// tokens, the model verifies them in one forward. Greedy: the very tokens of generate().
// Sampling: tokens of the very same distribution.
struct SpeculativeResult {
  GeneratedRow row;
  int64_t rounds = 0;    // forwards of the model after the prompt
  int64_t proposed = 0;  // by the draft
  int64_t accepted = 0;
};
struct DraftModel {
  CausalLm model{nullptr};  // with the same vocabulary, else ConfigError
  int64_t tokens = 4;       // proposed at a time
};
SpeculativeResult generate_speculative(CausalLm model, const DraftModel& draft,
                                       const std::vector<int64_t>& prompt,
                                       const GenerateOptions& options,
                                       const std::function<bool(int64_t)>& on_token = {});

struct DecodeSpeed {
  double tokens_per_second = 0;
  int64_t cache_bytes = 0;  // at the end
};
// Greedy decode of `new_tokens` after a prompt of `prompt_tokens`, prefill not counted.
DecodeSpeed measure_decode(CausalLm model, int64_t batch, int64_t prompt_tokens,
                           int64_t new_tokens);

// What `zebra bench generate` measures at.
struct GenerationLoad {
  int64_t prompt_tokens = 1, new_tokens = 64;
  CacheOptions cache = {};
};
struct GenerationSpeed {
  int64_t batch = 1;
  double prefill_seconds = 0;  // one row's prompt
  double decode_seconds = 0;   // of new_tokens steps of the whole batch
  double prefill_tokens_per_second = 0, decode_tokens_per_second = 0;
  int64_t cache_bytes = 0, reserved_bytes = 0;  // at the end
};
// Reads one prompt for real; then decodes, batch by batch, each row with a copy of its caches.
std::vector<GenerationSpeed> measure_generation(CausalLm model, const GenerationLoad& load,
                                                const std::vector<int64_t>& batches);

}  // namespace zebra
