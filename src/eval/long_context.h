// How well a model uses what lies far back: questions about long texts that are made here, and the
// loss by position. docs/generation.md describes the tasks.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "zebra/generate.h"
#include "zebra/tokenizer.h"

namespace zebra {

struct LongContextSample {
  std::string prompt;
  std::vector<std::string> answers;  // what a right answer contains
  int64_t tokens = 0;                // of the prompt, BOS not counted
};

std::vector<std::string> long_context_tasks();

// A text of at most `tokens` tokens and a question at its end. depth: where the first needle lies,
// 0 at the beginning, 1 at the end. ConfigError for an unknown task, and when `tokens` are too few.
LongContextSample make_long_context_sample(const Tokenizer& tokenizer, const std::string& task,
                                           int64_t tokens, double depth, uint64_t seed);

// Share of the answers that the text contains; letter case does not count.
double contained_share(const std::string& text, const std::vector<std::string>& answers);

struct LongContextScore {
  std::string task;
  int64_t tokens = 0;
  double score = 0;              // mean share of answers found
  std::vector<double> by_depth;  // of each sample, from the beginning of the text to its end
};
struct LongContextTest {
  std::string task;
  int64_t tokens = 1024;  // of a text and its answer
  int64_t samples = 10;   // texts, their needles at evenly spread depths
};
// ConfigError for what score_long_context() would refuse: an unknown task, too few tokens.
void check_long_context(const Tokenizer& tokenizer, const LongContextTest& test, uint64_t seed);

LongContextScore score_long_context(CausalLm model, const Tokenizer& tokenizer,
                                    const LongContextTest& test, const GenerateOptions& options);

// Mean nats of the tokens at positions [begin, end) of a sequence.
struct PositionLoss {
  int64_t begin = 0, end = 0;
  double nats_per_token = 0;
};
struct PositionLossOptions {
  int64_t length = 1024;  // tokens of a sequence
  int64_t sequences = 8;  // at most
  int64_t bos = -1;       // begins every sequence; -1: nothing does
};
// The ids cut into sequences. Buckets double in size from 64 on. `on_sequence` hears how many are
// done.
std::vector<PositionLoss> loss_by_position(CausalLm model, const std::vector<int64_t>& ids,
                                           const PositionLossOptions& options,
                                           const std::function<void(int64_t)>& on_sequence = {});

}  // namespace zebra
