// Text to token ids and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace zebra {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Ids of the text alone: no BOS, no EOS. Must be callable from several threads at once.
  virtual std::vector<int64_t> encode(std::string_view text) const = 0;
  virtual std::string decode(const std::vector<int64_t>& ids) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t bos_id() const = 0;               // -1: none
  virtual int64_t eos_id() const = 0;               // -1: none
  virtual std::string piece(int64_t id) const = 0;  // for display
};

// From a model folder (or a tokenizer file): tokenizer.model by sentencepiece. A folder without a
// tokenizer that can be read is a ConfigError that lists what was looked for.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file);

}  // namespace zebra
