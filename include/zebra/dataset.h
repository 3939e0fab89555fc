// From files of text to batches of token tensors. The order is a pure function of (seed, index): the position in a
// stream is one integer, and any number of ranks that divides the batch sees the same global sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "zebra/tokenizer.h"

namespace zebra {

enum class SourceFormat {
  kText,      // one document a file
  kStories,   // text file, documents separated by blank lines
  kJsonl,     // {"text": ...} a line
  kMessages,  // {"messages": [{"role", "content"}, ...]} a line
};

struct SourceOptions {
  std::string path;  // a file, or a glob
  SourceFormat format = SourceFormat::kText;
};

enum class Packing {
  kConcat,  // documents joined and cut into sequences anywhere; the last partial sequence is dropped
  kNone,    // one document a sequence, cut at the length or padded on the right
};

enum class BosPlacement {
  kDocument,  // before each document
  kSequence,  // before each sequence: it then holds sequence_length - 1 tokens of text
  kNone,
};

struct DatasetOptions {
  int64_t sequence_length = 2048;  // T
  Packing packing = Packing::kConcat;
  BosPlacement bos = BosPlacement::kDocument;
  bool eos = true;                 // after each document
  bool cross_document = false;     // true: documents of a sequence see each other (one segment), as published runs did
  bool shuffle = true;
};

// A batch of token sequences.
struct Batch {
  at::Tensor input_ids;  // (B, T) int64
  at::Tensor segments;   // (B, T) int64: documents of a row count 0, 1, ...; padding is -1. Undefined: one segment a row
  at::Tensor loss_mask;  // (B, T) float32: 1 where the token is text that the loss may count, 0 at padding
  at::Tensor targets;    // (B, T) int64: the next token of the same document, -1 where there is none
  std::vector<int64_t> sample_ids;  // (B) which sequence of the data set each row is
};

// Tokenised, packed sequences in memory.
class TokenDataset {
 public:
  // Reads, tokenises and packs. Unreadable text (invalid UTF-8, bad JSON with its line) and an empty corpus are ConfigErrors.
  TokenDataset(const std::vector<SourceOptions>& sources, const Tokenizer& tokenizer, const DatasetOptions& options);

  int64_t size() const;    // sequences
  int64_t tokens() const;  // of text, padding not counted
  int64_t bytes() const;   // of text (UTF-8) behind those tokens
  uint64_t hash() const;   // of all tokens and boundaries: part of a stage's input hash

  // Sequences `first` ... first + count - 1 of the endless order of `seed`: every epoch is a permutation of its own.
  Batch batch(uint64_t seed, int64_t first, int64_t count) const;
  // Sequences in file order, for evaluation.
  Batch sequential(int64_t first, int64_t count) const;

 private:
  struct Sequence {
    int64_t begin = 0, end = 0;  // in tokens_
  };
  Batch gather(const std::vector<int64_t>& ids) const;

  DatasetOptions options_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> documents_;  // document number of each token
  std::vector<Sequence> sequences_;
  int64_t bytes_ = 0;
  int64_t bos_id_ = -1;
  int64_t text_tokens_ = 0;
};

// Position of `index` in a permutation of 0 ... count - 1 keyed by `key`, computed in O(1) (a Feistel network with
// cycle walking), so that seeking costs nothing.
int64_t permuted(int64_t index, int64_t count, uint64_t key);

// ---- preference pairs ------------------------------------------------------------------------------------------------

struct PreferencePair {
  std::vector<int64_t> prompt, chosen, rejected;  // token ids; prompt begins with BOS, answers end with EOS
};

struct PreferenceOptions {
  int64_t max_length = 1024;         // of prompt and answer
  int64_t max_prompt_length = 512;   // the prompt is cut from the left
};

// A pair batch: rows 0 ... B-1 are the chosen, rows B ... 2B-1 the rejected, padded on the right.
struct PreferenceBatch {
  at::Tensor input_ids;    // (2B, T) int64
  at::Tensor targets;      // (2B, T) int64: next token where it belongs to the answer, -1 elsewhere
  std::vector<int64_t> sample_ids;  // (B)
};

class PreferenceDataset {
 public:
  // JSONL or a JSON array; shapes: {prompt, chosen, rejected} strings; {chosen, rejected} strings with a shared beginning;
  // {prompt | conversations | messages, chosen, rejected} as message lists. Bad lines are ConfigErrors with file and line.
  PreferenceDataset(const std::vector<std::string>& paths, const Tokenizer& tokenizer, const PreferenceOptions& options);

  int64_t size() const;
  uint64_t hash() const;
  const PreferencePair& pair(int64_t index) const;
  PreferenceBatch batch(uint64_t seed, int64_t first, int64_t count) const;
  PreferenceBatch sequential(int64_t first, int64_t count) const;

 private:
  PreferenceBatch gather(const std::vector<int64_t>& ids) const;
  std::vector<PreferencePair> pairs_;
};

// ---- multiple choice -------------------------------------------------------------------------------------------------

struct MultipleChoice {
  std::string context;
  std::vector<std::string> choices;  // continuations, each with its leading space
  int64_t answer = 0;
};
// JSONL {"context", "choices", "answer"}.
std::vector<MultipleChoice> read_multiple_choice(const std::string& path);

// ---- generated stories -----------------------------------------------------------------------------------------------

struct StoryOptions {
  uint64_t seed = 1;
  int64_t stories = 4000;
  int64_t held_out = 200;
  int64_t questions = 300;
  int64_t pairs = 300;
};

// Writes train.txt, valid.txt (documents separated by blank lines), choices.jsonl and pairs.jsonl into `folder`: short
// stories from a seeded grammar with names, objects and causes. The same options give the same bytes everywhere.
void write_stories(const std::filesystem::path& folder, const StoryOptions& options);

}  // namespace zebra
