// What lies beside a tokenizer file and changes what it gives.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/hash.h"
#include "data/tokenizer/added_tokens.h"

namespace zebra {

struct TokenizerFiles {
  std::filesystem::path file;  // tokenizer.json or tokenizer.model
  Hasher hash;                 // of all that was read

  // From tokenizer_config.json, special_tokens_map.json and added_tokens.json of the folder.
  std::optional<AddedToken> bos, eos, unk;
  std::optional<bool> add_bos, add_eos;
  bool legacy = true;  // SentencePiece: text after a special token begins with a space of its own
  std::vector<AddedToken> added;  // further ones; the id is -1 where the files give none

  std::string where() const { return file.string(); }
};

// `folder`: empty when the file was named alone; nothing beside it counts then.
TokenizerFiles read_tokenizer_files(const std::filesystem::path& file,
                                    const std::filesystem::path& folder);

}  // namespace zebra
