// Multiple choice by the log-probability of each ending, tokenised as lm-evaluation-harness does.
#include <algorithm>
#include <numeric>

#include "base/signals.h"
#include "eval/log_probs.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

namespace {

constexpr int64_t kBatchTokens = 4096;  // of one forward, padding included

// One ending behind its context.
struct Request {
  std::vector<int64_t> ids;  // BOS, context and ending without its last token
  std::vector<int64_t> ending;
};

// Code points of UTF-8 text, which is what the harness divides by.
int64_t characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

int64_t ending_length(const std::string& choice) {
  return characters(choice) - (choice.starts_with(' ') ? 1 : 0);
}

// The ending is what it adds to the context's tokens when both are encoded together. Spaces at the
// context's end belong to the ending: tokenizers join them with the word that follows.
Request make_request(const Tokenizer& tokenizer, std::string context, const std::string& choice,
                     int64_t max_length) {
  const auto last = context.find_last_not_of(" \t\n\r\f\v");
  const auto kept = last == std::string::npos ? 0 : last + 1;
  const auto text = context + choice;
  context.resize(kept);
  const auto head = tokenizer.encode(context), whole = tokenizer.encode(text);
  if (whole.size() <= head.size()) {
    throw ConfigError(
        str("expected an ending that adds tokens to its context, got '", choice, "'"));
  }
  if (head.empty() && tokenizer.bos_id() < 0) {
    throw ConfigError("expected a context or a tokenizer with BOS, got neither");
  }
  Request request;
  if (tokenizer.bos_id() >= 0) request.ids.push_back(tokenizer.bos_id());
  request.ids.insert(request.ids.end(), whole.begin(), whole.end() - 1);
  request.ending.assign(whole.begin() + static_cast<int64_t>(head.size()), whole.end());
  const auto room = static_cast<size_t>(max_length);
  if (request.ending.size() > room) {
    throw ConfigError(
        str("expected an ending of at most ", max_length, " tokens, got ", request.ending.size()));
  }
  if (request.ids.size() > room)
    request.ids.erase(request.ids.begin(), request.ids.end() - max_length);
  return request;
}

std::vector<Request> make_requests(const CausalLm& model, const Tokenizer& tokenizer,
                                   const std::vector<MultipleChoice>& questions) {
  std::vector<Request> requests;
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto& question = questions[i];
    try {
      const auto count = static_cast<int64_t>(question.choices.size());
      if (question.answer < 0 || question.answer >= count) {
        throw ConfigError(str("expected an answer in [0, ", count, "), got ", question.answer));
      }
      for (const auto& choice : question.choices) {
        if (ending_length(choice) < 1) throw ConfigError("expected endings with text, got none");
        requests.push_back(make_request(tokenizer, question.context, choice,
                                        model->options().max_position_embeddings));
        const auto& ids = requests.back().ids;
        check_vocabulary("tokens", torch::tensor(ids), model->options().vocab_size);
        check_vocabulary("tokens", torch::tensor(requests.back().ending),
                         model->options().vocab_size);
      }
    } catch (const ConfigError& error) {
      throw ConfigError(str("question ", i + 1, ": ", error.what()));
    }
  }
  return requests;
}

// Rows padded on the right, which no earlier position can see.
std::vector<double> score_rows(CausalLm& model, const std::vector<const Request*>& rows) {
  const auto B = static_cast<int64_t>(rows.size());
  int64_t T = 0;
  for (const auto* row : rows) T = std::max(T, static_cast<int64_t>(row->ids.size()));
  auto ids = torch::zeros({B, T}, torch::kLong);                        // (B, T)
  auto targets = torch::full({B, T}, /*fill_value=*/-1, torch::kLong);  // (B, T)
  for (int64_t b = 0; b < B; ++b) {
    const auto& [input, ending] = *rows[b];
    std::copy(input.begin(), input.end(), ids.data_ptr<int64_t>() + b * T);
    std::copy(ending.begin(), ending.end(),
              targets.data_ptr<int64_t>() + b * T + (input.size() - ending.size()));
  }
  const auto device = model->head_weight().device();
  const auto sums = row_log_probs(model, ids.to(device), targets.to(device),
                                  evaluation_chunk(model->options().vocab_size));
  const auto values = sums.to(torch::kCPU, torch::kDouble).contiguous();  // (B)
  return {values.data_ptr<double>(), values.data_ptr<double>() + B};
}

// Log-probability of every request, in their order. Rows of like length share a batch.
std::vector<double> score_requests(CausalLm& model, const std::vector<Request>& requests) {
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return requests[a].ids.size() > requests[b].ids.size();
  });
  std::vector<double> scores(requests.size());
  for (size_t first = 0; first < order.size();) {
    throw_if_stopped("eval: multiple choice");
    const size_t longest = requests[order[first]].ids.size();
    const size_t fit = std::max<size_t>(1, kBatchTokens / longest);
    const size_t count = std::min(fit, order.size() - first);
    std::vector<const Request*> rows;
    for (size_t i = 0; i < count; ++i) rows.push_back(&requests[order[first + i]]);
    const auto values = score_rows(model, rows);
    for (size_t i = 0; i < count; ++i) scores[order[first + i]] = values[i];
    first += count;
  }
  return scores;
}

int64_t index_of_greatest(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

}  // namespace

ChoiceScores score_choices(CausalLm model, const Tokenizer& tokenizer,
                           const std::vector<MultipleChoice>& questions) {
  if (questions.empty()) throw ConfigError("multiple choice: expected questions, got none");
  const torch::NoGradGuard no_grad;
  const auto log_probs = score_requests(model, make_requests(model, tokenizer, questions));
  ChoiceScores scores;
  size_t next = 0;
  for (const auto& question : questions) {
    std::vector<double> plain, by_length;
    for (const auto& choice : question.choices) {
      plain.push_back(log_probs[next]);
      by_length.push_back(log_probs[next] / static_cast<double>(ending_length(choice)));
      ++next;
    }
    scores.accuracy += index_of_greatest(plain) == question.answer ? 1 : 0;
    scores.accuracy_norm += index_of_greatest(by_length) == question.answer ? 1 : 0;
    ++scores.questions;
  }
  scores.accuracy /= static_cast<double>(scores.questions);
  scores.accuracy_norm /= static_cast<double>(scores.questions);
  return scores;
}

}  // namespace zebra
