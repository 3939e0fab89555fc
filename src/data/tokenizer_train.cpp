#include "data/tokenizer_train.h"

#include <sentencepiece_trainer.h>

#include "base/file.h"
#include "data/records.h"
#include "zebra/error.h"

namespace zebra {
namespace {

class Lines final : public sentencepiece::SentenceIterator {
 public:
  explicit Lines(std::vector<std::string> lines) : lines_(std::move(lines)) {}
  bool done() const override { return next_ >= lines_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> lines_;
  size_t next_ = 0;
};

std::vector<std::string> nonblank_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

}  // namespace

void train_tokenizer(const std::filesystem::path& texts, int64_t vocab_size,
                     const std::filesystem::path& output) {
  auto lines = nonblank_lines(read_text(texts));
  if (lines.empty()) throw ConfigError(str(texts.string(), ": expected text, got an empty file"));
  Lines sentences(std::move(lines));
  std::string model;
  // Text comes through the iterator, so that no path of this machine ends up in the model.
  const auto status =
      sentencepiece::SentencePieceTrainer::Train({{"model_type", "bpe"},
                                                  {"vocab_size", std::to_string(vocab_size)},
                                                  {"byte_fallback", "true"},
                                                  {"split_digits", "true"},
                                                  {"character_coverage", "0.9999"},
                                                  {"normalization_rule_name", "identity"},
                                                  {"remove_extra_whitespaces", "false"},
                                                  {"allow_whitespace_only_pieces", "true"},
                                                  {"num_threads", "1"},
                                                  {"minloglevel", "2"}},
                                                 &sentences, &model);
  if (!status.ok()) {
    throw ConfigError(str(texts.string(), ": cannot train a tokenizer of ", vocab_size,
                          " entries: ", status.error_message()));
  }
  write_file_atomic(output, model);
}

}  // namespace zebra
