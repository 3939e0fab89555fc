#include "eval/generate_until.h"

#include <algorithm>
#include <numeric>

#include "base/signals.h"

namespace zebra {

namespace {

using Ids = std::vector<int64_t>;

// Prompts of one batch have different lengths, but all rows of a cache have the same: the shortest
// prompt's length is read at once, and the rest of the longer ones token by token, in step with
// what the shorter ones generate.
class AnswerBatch {
 public:
  AnswerBatch(CausalLm model, const Tokenizer& tokenizer, std::vector<const Ids*> prompts,
              const GenerateUntilOptions& options)
      : model_(std::move(model)),
        tokenizer_(tokenizer),
        options_(options),
        prompts_(std::move(prompts)),
        answers_(prompts_.size()),
        done_(prompts_.size(), false) {}

  std::vector<Ids> run() {
    const auto B = static_cast<int64_t>(prompts_.size());
    const auto device = model_->head_weight().device();
    auto shortest = prompts_[0]->size();
    for (const auto* prompt : prompts_) shortest = std::min(shortest, prompt->size());
    const auto T = static_cast<int64_t>(shortest);
    auto ids = torch::empty({B, T}, torch::kLong);
    for (int64_t b = 0; b < B; ++b) {
      std::copy_n(prompts_[b]->begin(), T, ids.data_ptr<int64_t>() + b * T);
    }
    auto cache = model_->make_cache(B);
    auto hidden = model_->forward(ids.to(device), /*segments=*/{}, &cache);  // (B, T, D)
    for (size_t seen = shortest; !finished(); ++seen) {
      const auto last = hidden.narrow(1, hidden.size(1) - 1, 1);
      const auto likeliest =
          model_->logits(last).argmax(-1).to(torch::kCPU).contiguous();  // (B, 1)
      auto next = torch::empty({B, 1}, torch::kLong);
      for (int64_t b = 0; b < B; ++b) {
        next.data_ptr<int64_t>()[b] =
            take(static_cast<size_t>(b), seen, likeliest.data_ptr<int64_t>()[b]);
      }
      if (finished()) break;
      hidden = model_->forward(next.to(device), /*segments=*/{}, &cache);  // (B, 1, D)
    }
    return answers_;
  }

 private:
  bool finished() const {
    return std::all_of(done_.begin(), done_.end(), [](bool d) { return d; });
  }

  // What row b reads after `seen` tokens: its prompt as long as that lasts, then its own answer.
  int64_t take(size_t b, size_t seen, int64_t likeliest) {
    const auto& prompt = *prompts_[b];
    if (seen < prompt.size()) return prompt[seen];
    if (done_[b]) return likeliest;
    const auto& ends = model_->options().eos_token_ids;
    if (std::find(ends.begin(), ends.end(), likeliest) != ends.end()) {
      done_[b] = true;
      return likeliest;
    }
    answers_[b].push_back(likeliest);
    done_[b] = static_cast<int64_t>(answers_[b].size()) >= options_.max_new_tokens || stopped(b);
    return likeliest;
  }

  bool stopped(size_t b) const {
    const auto text = tokenizer_.decode(answers_[b]);
    return std::any_of(options_.stop.begin(), options_.stop.end(), [&](const auto& stop) {
      return !stop.empty() && text.find(stop) != std::string::npos;
    });
  }

  CausalLm model_;
  const Tokenizer& tokenizer_;
  const GenerateUntilOptions& options_;
  std::vector<const Ids*> prompts_;
  std::vector<Ids> answers_;
  std::vector<bool> done_;
};

}  // namespace

std::vector<Ids> generate_until(CausalLm model, const Tokenizer& tokenizer,
                                const std::vector<Ids>& prompts,
                                const GenerateUntilOptions& options) {
  const torch::NoGradGuard no_grad;
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return prompts[a].size() > prompts[b].size(); });
  std::vector<Ids> answers(prompts.size());
  const auto size = static_cast<size_t>(options.batch_size);
  for (size_t first = 0; first < order.size(); first += size) {
    throw_if_stopped("eval: generated answers");
    const size_t count = std::min(size, order.size() - first);
    std::vector<const Ids*> rows;
    for (size_t i = 0; i < count; ++i) rows.push_back(&prompts[order[first + i]]);
    auto made = AnswerBatch(model, tokenizer, std::move(rows), options).run();
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
