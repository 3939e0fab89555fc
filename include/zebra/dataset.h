// From files of text to batches of token tensors. The order is a pure function of (seed, index):
// the position in a stream is one integer, and any number of ranks that divides the batch sees the
// same global sequence.
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
  kMessages,  // {"messages": [{"role", "content"}, ...]} a line, shown as "User: ...\nAssistant:
              // ..."
};

struct SourceOptions {
  std::string path;  // a file, or a glob (its files in the order of their names)
  SourceFormat format = SourceFormat::kText;
};

enum class Packing {
  kConcat,  // documents joined and cut into sequences anywhere; the last partial sequence is
            // dropped
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
  bool eos = true;  // after each document
  bool cross_document =
      false;  // true: documents of a sequence see each other (one segment), as published runs did
  bool shuffle = true;
  // kConcat only: each epoch cuts the stream at another offset, a pure function of seed and epoch,
  // so that training meets new sequences instead of the same ones again. The sequences of an epoch
  // then end up to one length earlier, which keeps size() the same in all of them.
  bool recut = false;
};

// A batch of token sequences.
struct Batch {
  at::Tensor input_ids;  // (B, T) int64
  // (B, T) int64: the documents of a row count 0, 1, ...; padding is -1. Undefined: every row is
  // one segment without padding.
  at::Tensor segments;
  at::Tensor loss_mask;  // (B, T) float32: 1 at tokens (BOS and EOS among them), 0 at padding
  // (B, T) int64: the next token of the row if it is in the same segment, otherwise -1.
  at::Tensor targets;
  std::vector<int64_t> sample_ids;  // (B) which sequence of the data set each row is
};

// Tokenised, packed sequences in memory.
class TokenDataset {
 public:
  // Reads, tokenises and packs. Unreadable text (invalid UTF-8, bad JSON with its line), an empty
  // corpus, and one too small for a single sequence are ConfigErrors.
  TokenDataset(const std::vector<SourceOptions>& sources, const Tokenizer& tokenizer,
               const DatasetOptions& options);

  int64_t size() const;    // sequences
  int64_t tokens() const;  // in the sequences, BOS and EOS counted, padding not
  // Of text behind those tokens: a document that is kept whole counts its UTF-8 bytes as read, one
  // that is cut counts the bytes its tokens decode to. With a BOS before the text, each token of
  // it is predicted once, and bits per byte = nats summed over all targets / ln 2 / bytes().
  int64_t bytes() const;
  uint64_t hash() const;  // of all tokens, boundaries and options: part of a stage's input hash

  // Sequences `first` ... first + count - 1 of the endless order of `seed`: every epoch is a
  // permutation of its own (file order without `shuffle`). Any position costs the same.
  Batch batch(uint64_t seed, int64_t first, int64_t count) const;
  // Sequences in file order, for evaluation.
  Batch sequential(int64_t first, int64_t count) const;

 private:
  struct Sequence {
    int64_t begin = 0, end = 0;  // in tokens_
  };
  struct Row {
    int64_t id = 0, shift = 0;  // which sequence, and by how much its cut moves
  };
  int64_t text_length() const;
  bool sequence_bos() const;
  std::vector<int64_t> append_documents(const std::vector<std::vector<int64_t>>& ids);
  void cut(const std::vector<int64_t>& starts);
  void count_bytes(const std::vector<std::string>& texts,
                   const std::vector<std::vector<int64_t>>& ids, const Tokenizer& tokenizer);
  Batch gather(const std::vector<Row>& rows) const;

  DatasetOptions options_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> documents_;  // document number of each token
  std::vector<Sequence> sequences_;
  int64_t bos_id_ = -1, eos_id_ = -1;
  int64_t kept_tokens_ = 0;
  int64_t bytes_ = 0;
};

// Position of `index` in a permutation of 0 ... count - 1 keyed by `key`, computed in O(1) (a
// Feistel network with cycle walking), so that seeking costs nothing.
int64_t permuted(int64_t index, int64_t count, uint64_t key);

// ---- preference pairs
// ------------------------------------------------------------------------------------------------

struct PreferencePair {
  // Token ids. The prompt begins with BOS, the answers end with EOS (where the tokenizer has them).
  std::vector<int64_t> prompt, chosen, rejected;
};

struct PreferenceOptions {
  int64_t max_length = 1024;  // of prompt and answer; what is still too long loses its end
  int64_t max_prompt_length =
      512;  // to which the prompt of a pair that is too long is cut, from the left
};

// A pair batch: rows 0 ... B-1 are the chosen, rows B ... 2B-1 the rejected, padded on the right.
struct PreferenceBatch {
  at::Tensor input_ids;  // (2B, T) int64
  at::Tensor targets;    // (2B, T) int64: next token where it belongs to the answer, -1 elsewhere
  std::vector<int64_t> sample_ids;  // (B)
};

class PreferenceDataset {
 public:
  // Files or globs of JSONL or of one JSON array. Shapes: {prompt, chosen, rejected} strings;
  // {chosen, rejected} strings with a shared beginning; {prompt | conversations | messages, chosen,
  // rejected} as message lists (answers: a list, one message or a string). Messages are shown as
  // "User: ...\nAssistant: ...". Bad lines are ConfigErrors with file and line.
  PreferenceDataset(const std::vector<std::string>& paths, const Tokenizer& tokenizer,
                    const PreferenceOptions& options);

  int64_t size() const;
  uint64_t hash() const;
  const PreferencePair& pair(int64_t index) const;
  PreferenceBatch batch(uint64_t seed, int64_t first, int64_t count) const;
  PreferenceBatch sequential(int64_t first, int64_t count) const;

 private:
  PreferenceBatch gather(const std::vector<int64_t>& ids) const;
  std::vector<PreferencePair> pairs_;
  int64_t pad_id_ = 0;
};

// ---- multiple choice
// -------------------------------------------------------------------------------------------------

struct MultipleChoice {
  std::string context;
  std::vector<std::string> choices;  // continuations, each with its leading space
  int64_t answer = 0;
};
// JSONL {"context", "choices", "answer"}.
std::vector<MultipleChoice> read_multiple_choice(const std::string& path);

// ---- generated stories
// -----------------------------------------------------------------------------------------------

struct StoryOptions {
  uint64_t seed = 1;
  int64_t stories = 3000;        // train.txt, about 660 bytes each
  int64_t held_out = 200;        // valid.txt
  int64_t questions = 300;       // choices.jsonl
  int64_t pairs = 300;           // pairs.jsonl, to train on
  int64_t held_out_pairs = 100;  // pairs-valid.jsonl
};

// Writes five files into `folder`: stories (documents separated by blank lines), multiple-choice
// endings and preference pairs, all from a seeded grammar with names, objects and causes. Held-out
// stories, questions and held-out pairs tell combinations of plot, object and place that no
// training story tells. Story i of a file depends on the seed and i alone, so that a smaller file
// is the beginning of a larger one. The same options give the same bytes everywhere.
void write_stories(const std::filesystem::path& folder, const StoryOptions& options);

}  // namespace zebra
