// Text made into tokens once: shards in a folder, which later runs map instead of reading the text
// again. docs/data_format.md describes them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "zebra/dataset.h"
#include "zebra/tokenizer.h"

namespace zebra {

// One source, and what is to be made of it.
struct PreparePlan {
  std::string role;  // begins the folder's name: train, validation, pairs
  SourceOptions source;
  DocumentOptions documents;
  bool pairs = false;            // preference pairs; the source's format is not asked then
  std::string no_template = {};  // why documents.chat_template is empty, should messages need one
};

struct PrepareOptions {
  std::filesystem::path cache;     // folder of the prepared sources' folders
  bool replace = false;            // make again what was made from something else
  uint64_t shard_text = 32 << 20;  // bytes of text in a shard: what a kill may cost
};

struct PreparedSource {
  std::shared_ptr<const TokenStore> store;
  std::filesystem::path folder;
  uint64_t text_hash = 0;  // of the files' names and contents
  int64_t documents = 0, tokens = 0, text_bytes = 0, bad_records = 0;
  double seconds = 0;      // spent by this call on making tokens; 0: all was there
  int64_t made_bytes = 0;  // of text_bytes, in that time
};

// Maps what is prepared, after making what is missing of it. A preparation that was stopped or
// killed goes on after its last complete shard. ConfigError when the folder holds tokens of another
// text, tokenizer, template or other options (unless they are to be replaced), when a shard is
// damaged, when the text is bad or without tokens: then nothing is left of what was begun.
// StoppedError after a stop request. A second process waits until the first is done.
PreparedSource prepare(const PreparePlan& plan, const Tokenizer& tokenizer,
                       const PrepareOptions& options);

// The same without making anything: nullopt unless all is there.
std::optional<PreparedSource> find_prepared(const PreparePlan& plan, const Tokenizer& tokenizer,
                                            const std::filesystem::path& cache);

}  // namespace zebra
