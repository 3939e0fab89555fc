#include "zebra/tokenizer.h"

#include "base/file.h"
#include "data/harness_tokenizer.h"
#include "data/tokenizer/bpe_tokenizer.h"
#include "zebra/error.h"

namespace zebra {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<Tokenizer> read_tokenizer(TokenizerFiles files, Spaces spaces) {
  if (files.file.extension() == ".json") return read_json_tokenizer(std::move(files));
  const auto bytes = read_file(files.file);
  if (looks_like_ranks(bytes)) return read_ranks_tokenizer(std::move(files), bytes);
  return read_sentencepiece_tokenizer(std::move(files), bytes, spaces);
}

std::unique_ptr<Tokenizer> load(const fs::path& folder_or_file, Spaces spaces) {
  if (!fs::exists(folder_or_file)) {
    throw ConfigError(str("tokenizer: expected a model folder or a tokenizer file, got ",
                          folder_or_file.string(), ", which does not exist"));
  }
  if (!fs::is_directory(folder_or_file)) {
    return read_tokenizer(read_tokenizer_files(folder_or_file, /*folder=*/{}), spaces);
  }
  for (const char* name : {"tokenizer.json", "tokenizer.model"}) {
    const auto file = folder_or_file / name;
    if (fs::exists(file)) return read_tokenizer(read_tokenizer_files(file, folder_or_file), spaces);
  }
  throw ConfigError(str("tokenizer: looked for tokenizer.json and tokenizer.model in ",
                        folder_or_file.string(), ", found neither"));
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& folder_or_file) {
  return load(folder_or_file, Spaces::kAsInFile);
}

std::unique_ptr<Tokenizer> load_harness_tokenizer(const fs::path& folder) {
  return load(folder, Spaces::kKept);
}

std::vector<int64_t> encode_with_bos(const Tokenizer& tokenizer, std::string_view text) {
  auto ids = tokenizer.encode(text);
  const int64_t bos = tokenizer.bos_id();
  if (tokenizer.adds_bos() && (ids.empty() || ids[0] != bos)) ids.insert(ids.begin(), bos);
  return ids;
}

}  // namespace zebra
