#include "eval/generate_until.h"

#include <algorithm>
#include <numeric>

#include "base/signals.h"
#include "zebra/generate.h"

namespace zebra {

namespace {

using Prompts = std::vector<std::vector<int64_t>>;

bool holds_any(const std::string& text, const std::vector<std::string>& terms) {
  return std::any_of(terms.begin(), terms.end(), [&](const auto& term) {
    return !term.empty() && text.find(term) != std::string::npos;
  });
}

Prompts answer(const CausalLm& model, const Tokenizer& tokenizer, const Prompts& prompts,
               const GenerateUntilOptions& options) {
  const GenerateOptions rows{.max_new_tokens = options.max_new_tokens,
                             .stop_ids = model->options().eos_token_ids};
  Prompts so_far(prompts.size());
  const auto goes_on = [&](int64_t row, int64_t id) {
    throw_if_stopped("eval: generated answers");
    auto& ids = so_far[static_cast<size_t>(row)];
    ids.push_back(id);
    return !holds_any(tokenizer.decode(ids), options.stop);
  };
  auto made = generate_rows(model, prompts, rows, goes_on);
  for (size_t i = 0; i < made.size(); ++i) {
    if (made[i].reason == StopReason::kStopToken) made[i].ids.pop_back();
    so_far[i] = std::move(made[i].ids);
  }
  return so_far;
}

}  // namespace

std::vector<std::vector<int64_t>> generate_until(const CausalLm& model, const Tokenizer& tokenizer,
                                                 const std::vector<std::vector<int64_t>>& prompts,
                                                 const GenerateUntilOptions& options) {
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return prompts[a].size() > prompts[b].size(); });
  Prompts answers(prompts.size());
  const auto size = static_cast<size_t>(options.batch_size);
  for (size_t first = 0; first < order.size(); first += size) {
    const size_t count = std::min(size, order.size() - first);
    Prompts batch;
    for (size_t i = 0; i < count; ++i) batch.push_back(prompts[order[first + i]]);
    auto made = answer(model, tokenizer, batch, options);
    for (size_t i = 0; i < count; ++i) answers[order[first + i]] = std::move(made[i]);
    if (options.on_answers) options.on_answers(static_cast<int64_t>(count));
  }
  return answers;
}

std::string before_stop(std::string text, const std::vector<std::string>& stop) {
  for (const auto& term : stop) {
    if (!term.empty()) text = text.substr(0, text.find(term));
  }
  return text;
}

}  // namespace zebra
