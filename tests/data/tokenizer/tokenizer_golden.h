// Vectors of ids and texts by other people's tokenizers.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "support/testing.h"
#include "zebra/tokenizer.h"

namespace zebra::testing {

inline nlohmann::json golden_json(const char* name) {
  std::ifstream in(shared_path(std::string("goldens/tokenizers/") + name), std::ios::binary);
  return nlohmann::json::parse(in);
}

struct GoldenTokenizer {
  const char* file;            // below the shared folder
  const char* ids;             // keys of a vector
  const char* text = nullptr;  // with special tokens
  const char* text_without_special = nullptr;
  bool bos = false;          // the ids begin with one
  bool extra_spaces = true;  // ids of texts with such count
};

inline void check_golden(const GoldenTokenizer& golden) {
  const auto tokenizer = load_tokenizer(shared_path(golden.file));
  for (const auto& vector : golden_json("encode.json")) {
    const auto text = vector["text"].get<std::string>();
    INFO(golden.file << ": " << text);
    const auto all = vector[golden.ids].get<std::vector<int64_t>>();
    const std::vector<int64_t> ids(all.begin() + (golden.bos ? 1 : 0), all.end());
    const bool extra =
        text.starts_with(' ') || text.ends_with(' ') || text.find("  ") != std::string::npos;
    if (golden.extra_spaces || !extra) {
      CHECK(tokenizer->encode(text) == ids);
      CHECK(tokenizer->encode_with_spans(text).ids == ids);
    }
    if (golden.bos) CHECK(all[0] == tokenizer->bos_id());
    if (golden.text) CHECK(tokenizer->decode_with_special(all) == vector[golden.text]);
    if (golden.text_without_special) {
      CHECK(tokenizer->decode(all) == vector[golden.text_without_special]);
    }
  }
}

}  // namespace zebra::testing
