// From files of text to batches of token tensors. The order is a pure function of (seed, index):
// the position in a stream is one integer, and any number of ranks that divides the batch sees the
// same global sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "zebra/options.h"
#include "zebra/tokenizer.h"

namespace zebra {

enum class SourceFormat {
  kText,              // one document a file
  kStories,           // text file, documents separated by blank lines
  kJsonl,             // {"text": ...} a line
  kMessages,          // {"messages": [{"role", "content"}, ...]} a line
  kConversations,     // {"conversations": [{"from", "value"}, ...]} a line
  kPromptCompletion,  // {"prompt", "completion"} a line: strings, or lists of messages
};

template <>
struct EnumNames<SourceFormat> {
  static constexpr std::array<std::pair<SourceFormat, std::string_view>, 6> names = {
      {{SourceFormat::kText, "text"},
       {SourceFormat::kStories, "stories"},
       {SourceFormat::kJsonl, "jsonl"},
       {SourceFormat::kMessages, "messages"},
       {SourceFormat::kConversations, "conversations"},
       {SourceFormat::kPromptCompletion, "prompt_completion"}}};
};

struct SourceOptions {
  std::string path;  // a file, plain or gzip, or a glob (its files in the order of their names)
  SourceFormat format = SourceFormat::kText;
  // Share of the mixture, relative to the other sources' weights. Either all sources have one or
  // none; without weights each source gives what its epochs say.
  std::optional<double> weight = std::nullopt;
  // How often the source's text may come in one epoch of the mixture.
  double epochs = 1;
};

enum class BadLines {
  kRefuse,  // the first one is a ConfigError with file and line
  kCount,   // they are left out, with warnings, and counted
};

template <>
struct EnumNames<BadLines> {
  static constexpr std::array<std::pair<BadLines, std::string_view>, 2> names = {
      {{BadLines::kRefuse, "refuse"}, {BadLines::kCount, "count"}}};
};

enum class Split { kAll, kTrain, kHeldOut };

template <>
struct EnumNames<Split> {
  static constexpr std::array<std::pair<Split, std::string_view>, 3> names = {
      {{Split::kAll, "all"}, {Split::kTrain, "train"}, {Split::kHeldOut, "held_out"}}};
};

// How records become documents of tokens. With the text and the tokenizer this is all that
// prepared tokens depend on.
struct DocumentOptions {
  bool bos = true;  // before each document; without it, one that a template wrote is dropped
  bool eos = true;  // after each document that does not end with it
  std::string chat_template = "plain";  // of messages, see chat_template.h; empty: there is none
  BadLines bad_lines = BadLines::kRefuse;
  Split split = Split::kAll;
  double held_out = 0;  // share of the documents that a hash of their text holds out
};

enum class Packing {
  kConcat,   // documents joined and cut into sequences anywhere; the last partial sequence is
             // dropped
  kBestFit,  // documents whole, several a sequence, padded on the right
  kNone,     // one document a sequence, padded on the right
};

template <>
struct EnumNames<Packing> {
  static constexpr std::array<std::pair<Packing, std::string_view>, 3> names = {
      {{Packing::kConcat, "concat"}, {Packing::kBestFit, "best_fit"}, {Packing::kNone, "none"}}};
};

// best_fit and none: what becomes of a document that is longer than a sequence.
enum class LongDocuments {
  kTruncate,  // its end is dropped
  kSplit,     // its pieces count as documents
};

template <>
struct EnumNames<LongDocuments> {
  static constexpr std::array<std::pair<LongDocuments, std::string_view>, 2> names = {
      {{LongDocuments::kTruncate, "truncate"}, {LongDocuments::kSplit, "split"}}};
};

enum class BosPlacement {
  kDocument,  // before each document
  kSequence,  // concat: before each sequence, which then holds sequence_length - 1 tokens of text
  kNone,
};

template <>
struct EnumNames<BosPlacement> {
  static constexpr std::array<std::pair<BosPlacement, std::string_view>, 3> names = {
      {{BosPlacement::kDocument, "document"},
       {BosPlacement::kSequence, "sequence"},
       {BosPlacement::kNone, "none"}}};
};

enum class LossOn {
  kAll,        // every token
  kAssistant,  // the tokens before those of an assistant's answer, which they predict
};

template <>
struct EnumNames<LossOn> {
  static constexpr std::array<std::pair<LossOn, std::string_view>, 2> names = {
      {{LossOn::kAll, "all"}, {LossOn::kAssistant, "assistant"}}};
};

enum class MixBy { kTokens, kDocuments };

template <>
struct EnumNames<MixBy> {
  static constexpr std::array<std::pair<MixBy, std::string_view>, 2> names = {
      {{MixBy::kTokens, "tokens"}, {MixBy::kDocuments, "documents"}}};
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
  LongDocuments long_documents = LongDocuments::kTruncate;
  int64_t packing_window = 8192;  // best_fit: documents that are laid into sequences together
  LossOn loss_on = LossOn::kAll;
  MixBy mix_by = MixBy::kTokens;        // what weights count
  std::string chat_template = "plain";  // of messages
  // Whether bytes() is wanted: documents that are cut must be decoded for it. Off: it is 0.
  bool count_bytes = true;
};

// What one document needs of those: with BOS before each document, with EOS after it.
DocumentOptions document_options(const DatasetOptions& options);

// A batch of token sequences.
struct Batch {
  at::Tensor input_ids;  // (B, T) int64
  // (B, T) int64: the documents of a row count 0, 1, ...; padding is -1. Undefined: every row is
  // one segment without padding.
  at::Tensor segments;
  // (B, T) float32: 1 at tokens (BOS and EOS among them) that carry a loss, 0 elsewhere.
  at::Tensor loss_mask;
  // (B, T) int64: the next token of the row if it is in the same segment and carries a loss,
  // otherwise -1.
  at::Tensor targets;
  std::vector<int64_t> sample_ids;  // (B) which sequence of the data set each row is
  bool loss_everywhere = false;     // loss_mask is known to be 1 everywhere
};

// How the documents of a data set were laid into sequences.
struct PackingReport {
  int64_t documents = 0, sequences = 0;
  int64_t tokens = 0;            // of the documents
  int64_t kept = 0;              // in the sequences, a BOS of a sequence's own among them
  int64_t padding = 0;           // positions without a token
  int64_t truncated = 0;         // documents that lost their end
  int64_t truncated_tokens = 0;  // what they lost
  int64_t split = 0;             // documents that lie in several sequences
  int64_t dropped_tokens = 0;    // of documents that no sequence holds, or at the corpus' end
  double efficiency() const;     // kept tokens a position
};

// What one source gives to an epoch of a mixture.
struct MixtureShare {
  std::string name;       // of the source
  int64_t sequences = 0;  // in an epoch of the mixture
  double epochs = 0;      // of the source, that these are
  double share = 0;       // of the mixture, in what weights count
};

class TokenStore;    // documents as tokens, mapped or in memory; prepare.h makes them
class PackedTokens;  // a store cut into sequences

// Tokens in packed sequences. They stay where they are, which may be in mapped files.
class TokenDataset {
 public:
  // Reads and tokenises into memory, and packs. Unreadable text (invalid UTF-8, bad JSON with its
  // line), an empty corpus, and one too small for a single sequence are ConfigErrors.
  TokenDataset(const std::vector<SourceOptions>& sources, const Tokenizer& tokenizer,
               const DatasetOptions& options);
  // Packs what is prepared: one store a source, made with document_options(options).
  TokenDataset(const std::vector<SourceOptions>& sources,
               const std::vector<std::shared_ptr<const TokenStore>>& stores,
               const Tokenizer& tokenizer, const DatasetOptions& options);

  int64_t size() const;    // sequences of an epoch
  int64_t tokens() const;  // in the sequences, BOS and EOS counted, padding not
  // Of text behind those tokens: a document that is kept whole counts its UTF-8 bytes as read, one
  // that is cut counts the bytes its tokens decode to. With a BOS before the text, each token of
  // it is predicted once, and bits per byte = nats summed over all targets / ln 2 / bytes().
  // Of a mixture, tokens() and bytes() are in proportion to its sequences.
  int64_t bytes() const;
  uint64_t hash() const;  // of all tokens, boundaries and options: part of a stage's input hash
  PackingReport packing() const;              // of each source once
  std::vector<MixtureShare> mixture() const;  // one entry where sources are not mixed

  // Sequences `first` ... first + count - 1 of the endless order of `seed`: every epoch is a
  // permutation of its own (file order without `shuffle`). Any position costs the same.
  Batch batch(uint64_t seed, int64_t first, int64_t count) const;
  // Sequences in file order, for evaluation.
  Batch sequential(int64_t first, int64_t count) const;

 private:
  struct Row {
    int64_t part = 0, id = 0, shift = 0;  // which sequence of which part; its cut moves by shift
  };
  void pack(const std::vector<SourceOptions>& sources,
            const std::vector<std::shared_ptr<const TokenStore>>& stores,
            const Tokenizer& tokenizer);
  void mix(const std::vector<SourceOptions>& sources);
  Row row(uint64_t seed, int64_t index) const;
  Batch gather(const std::vector<Row>& rows) const;

  DatasetOptions options_;
  int64_t bos_id_ = -1, eos_id_ = -1;
  std::vector<std::shared_ptr<const PackedTokens>> parts_;  // one, or one a source of a mixture
  std::vector<int64_t> first_;  // of each part in an epoch of the mixture, and the mixture's size
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
  // A pair that is longer than max_length, prompt and longer answer together, has its prompt cut to
  // max_prompt_length from the left (its BOS stays). If that is not enough, both answers are cut at
  // their end to max_length - max_prompt_length. These are the published runs' rules.
  int64_t max_length = 1024;
  int64_t max_prompt_length = 512;
  std::string chat_template = "plain";  // of messages
  BadLines bad_lines = BadLines::kRefuse;
};

// A pair batch: rows 0 ... B-1 are the chosen, rows B ... 2B-1 the rejected, padded on the right.
struct PreferenceBatch {
  at::Tensor input_ids;  // (2B, T) int64
  at::Tensor targets;    // (2B, T) int64: next token where it belongs to the answer, -1 elsewhere
  std::vector<int64_t> sample_ids;  // (B)
};

class PreferenceDataset {
 public:
  // Files or globs of JSONL or of one JSON array, plain or gzip. Shapes: {prompt, chosen, rejected}
  // strings; {chosen, rejected} strings with a shared beginning; {prompt | conversations |
  // messages, chosen, rejected} as message lists (answers: a list, one message or a string);
  // {question, response_j, response_k}; {input: {messages}, preferred_output,
  // non_preferred_output}. Bad lines are ConfigErrors with file and line.
  PreferenceDataset(const std::vector<std::string>& paths, const Tokenizer& tokenizer,
                    const PreferenceOptions& options);
  // What is prepared, one store a file or glob.
  PreferenceDataset(const std::vector<std::shared_ptr<const TokenStore>>& stores,
                    const Tokenizer& tokenizer, const PreferenceOptions& options);

  int64_t size() const;
  uint64_t hash() const;
  PreferencePair pair(int64_t index) const;
  // Pairs whose prompt is cut, and pairs whose answers are.
  struct Cuts {
    int64_t prompts = 0, answers = 0;
  };
  Cuts cuts() const;
  PreferenceBatch batch(uint64_t seed, int64_t first, int64_t count) const;
  PreferenceBatch sequential(int64_t first, int64_t count) const;

 private:
  PreferenceBatch gather(const std::vector<int64_t>& ids) const;

  PreferenceOptions options_;
  std::shared_ptr<const TokenStore> store_;  // prompt, chosen, rejected, and so on
  int64_t bos_id_ = -1, pad_id_ = 0;
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
