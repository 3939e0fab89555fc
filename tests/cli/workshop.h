// A folder with small models that the tests of the program share.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/small_model.h"
#include "data/tokenizer_train.h"
#include "e2e/program.h"
#include "support/testing.h"
#include "zebra/convert.h"
#include "zebra/dataset.h"

namespace zebra::testing {

inline constexpr int64_t kVocabulary = 320;

inline void save(const std::filesystem::path& folder, const ModelOptions& options,
                 const std::filesystem::path& tokenizer) {
  torch::manual_seed(1);
  save_model(folder, CausalLm(options), {.tokenizer_from = tokenizer});
}

// Text, tokenizer, `llama`, and `wide`, whose vocabulary is another; made once.
inline const std::filesystem::path& workshop() {
  static const TempFolder folder;
  static const bool made = [] {
    const auto& at = folder.path();
    write_stories(at / "text", {.seed = 2,
                                .stories = 120,
                                .held_out = 20,
                                .questions = 6,
                                .pairs = 8,
                                .held_out_pairs = 4});
    std::filesystem::create_directories(at / "tokenizer");
    train_tokenizer(at / "text/train.txt", kVocabulary, at / "tokenizer/tokenizer.model");
    save(at / "llama", small_llama(kVocabulary), at / "tokenizer");
    save(at / "wide", small_llama(kVocabulary + 8), at / "tokenizer");
    save(at / "narrow", small_llama(kVocabulary - 8), at / "tokenizer");
    return true;
  }();
  REQUIRE(made);
  return folder.path();
}

inline Outcome zebra(const std::vector<std::string>& arguments) {
  return run_zebra(arguments, workshop());
}

}  // namespace zebra::testing
