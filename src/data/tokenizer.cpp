#include <sentencepiece_processor.h>

#include "base/file.h"
#include "data/harness_tokenizer.h"
#include "zebra/error.h"
#include "zebra/tokenizer.h"

namespace zebra {
namespace {

enum class Spaces { kAsInFile, kKept };

// A NormalizerSpec that says remove_extra_whitespaces: false. Messages that come twice are merged,
// so that it may stand behind a model.
constexpr std::string_view kKeepSpaces("\x1A\x02\x20\x00", 4);

// sentencepiece keeps no state between calls of its const methods, so one object serves all
// threads.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::filesystem::path& file, Spaces spaces) : spaces_(spaces) {
    auto bytes = read_file(file);
    if (spaces == Spaces::kKept) bytes += kKeepSpaces;
    const auto status = processor_.LoadFromSerializedProto(bytes);
    if (!status.ok() || processor_.GetPieceSize() <= 0) {
      throw ConfigError(
          str(file.string(), ": expected a SentencePiece model, got a file that does not load"));
    }
  }

  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int> ids;
    // The prefix that sentencepiece adds is this space again.
    if (spaces_ == Spaces::kKept && text.size() > 1 && text.front() == ' ') text.remove_prefix(1);
    check("tokenizer.encode", processor_.Encode(text, &ids));
    return {ids.begin(), ids.end()};
  }

  std::string decode(const std::vector<int64_t>& ids) const override {
    for (const auto id : ids) check_id("tokenizer.decode", id);
    std::string text;
    check("tokenizer.decode", processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text));
    return text;
  }

  int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  int64_t bos_id() const override { return processor_.bos_id(); }
  int64_t eos_id() const override { return processor_.eos_id(); }

  std::string piece(int64_t id) const override {
    check_id("tokenizer.piece", id);
    return processor_.IdToPiece(static_cast<int>(id));
  }

 private:
  void check_id(const char* subject, int64_t id) const {
    TORCH_CHECK(id >= 0 && id < vocab_size(), subject, ": expected ids in [0, ", vocab_size(),
                "), got ", id);
  }

  static void check(const char* subject, const sentencepiece::util::Status& status) {
    TORCH_CHECK(status.ok(), subject, ": ", status.ToString());
  }

  Spaces spaces_;
  sentencepiece::SentencePieceProcessor processor_;
};

std::unique_ptr<Tokenizer> load(const std::filesystem::path& folder_or_file, Spaces spaces) {
  namespace fs = std::filesystem;
  if (!fs::exists(folder_or_file)) {
    throw ConfigError(str("tokenizer: expected a model folder or a tokenizer file, got ",
                          folder_or_file.string(), ", which does not exist"));
  }
  if (!fs::is_directory(folder_or_file)) {
    return std::make_unique<SentencePieceTokenizer>(folder_or_file, spaces);
  }
  const auto file = folder_or_file / "tokenizer.model";
  if (fs::exists(file)) return std::make_unique<SentencePieceTokenizer>(file, spaces);
  const bool json = fs::exists(folder_or_file / "tokenizer.json");
  throw ConfigError(str("tokenizer: looked for tokenizer.model in ", folder_or_file.string(),
                        ", found ",
                        json ? "only tokenizer.json, which is not supported" : "nothing"));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file) {
  return load(folder_or_file, Spaces::kAsInFile);
}

std::unique_ptr<Tokenizer> load_harness_tokenizer(const std::filesystem::path& folder) {
  return load(folder, Spaces::kKept);
}

}  // namespace zebra
