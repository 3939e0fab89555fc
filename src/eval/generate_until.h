// Greedy answers to many prompts at once, each until one of its stop texts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "zebra/model.h"
#include "zebra/tokenizer.h"

namespace zebra {

struct GenerateUntilOptions {
  std::vector<std::string> stop = {};  // texts; the model's EOS tokens end an answer too
  int64_t max_new_tokens = 256;
  int64_t batch_size = 16;
  std::function<void(int64_t)> on_answers = {};  // told how many more are done
};

// prompts: ids, none empty -> ids of the answers, which hold what follows a stop text within the
// same token, and no EOS. A row's answer does not depend on the rows beside it.
std::vector<std::vector<int64_t>> generate_until(const CausalLm& model, const Tokenizer& tokenizer,
                                                 const std::vector<std::vector<int64_t>>& prompts,
                                                 const GenerateUntilOptions& options);

// `text` up to the first of each stop text.
std::string before_stop(std::string text, const std::vector<std::string>& stop);

}  // namespace zebra
