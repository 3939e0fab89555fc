// Multiple choice by the log-probability of each ending, as the harness's tasks have it.
#include <algorithm>

#include "base/progress.h"
#include "eval/log_probs.h"
#include "eval/loglikelihood.h"
#include "eval/python.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

namespace {

int64_t ending_length(const std::string& choice) {
  return python_length(choice) - (choice.starts_with(' ') ? 1 : 0);
}

Question make_question(const CausalLm& model, const Tokenizer& tokenizer,
                       const MultipleChoice& question) {
  const auto count = static_cast<int64_t>(question.choices.size());
  if (question.answer < 0 || question.answer >= count) {
    throw ConfigError(str("expected an answer in [0, ", count, "), got ", question.answer));
  }
  std::vector<TextRequest> requests;
  for (const auto& choice : question.choices) {
    if (ending_length(choice) < 1) throw ConfigError("expected endings with text, got none");
    requests.push_back({question.context, choice});
  }
  const auto& options = model->options();
  auto encoded =
      encode_requests(tokenizer, requests, options.max_position_embeddings, LongEndings::kRefuse);
  for (const auto& request : encoded) {
    check_vocabulary("tokens", request.input, options.vocab_size);
    check_vocabulary("tokens", request.targets, options.vocab_size);
  }
  return encoded;
}

int64_t index_of_greatest(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

}  // namespace

ChoiceScores score_choices(CausalLm model, const Tokenizer& tokenizer,
                           const std::vector<MultipleChoice>& questions) {
  if (questions.empty()) throw ConfigError("multiple choice: expected questions, got none");
  std::vector<Question> encoded;
  for (size_t i = 0; i < questions.size(); ++i) {
    try {
      encoded.push_back(make_question(model, tokenizer, questions[i]));
    } catch (const ConfigError& error) {
      throw ConfigError(str("question ", i + 1, ": ", error.what()));
    }
  }
  Progress progress("questions", count_tokens(encoded), /*tokens_per_step=*/1);
  int64_t done = 0;
  ScoringOptions options;
  options.on_tokens = [&](int64_t tokens) { progress.update(done += tokens, ""); };
  const auto answers = log_likelihoods(std::move(model), encoded, options);
  ChoiceScores scores;
  for (size_t i = 0; i < questions.size(); ++i) {
    std::vector<double> plain, by_length;
    for (size_t c = 0; c < questions[i].choices.size(); ++c) {
      plain.push_back(answers[i][c].sum);
      by_length.push_back(plain[c] / static_cast<double>(ending_length(questions[i].choices[c])));
    }
    scores.accuracy += index_of_greatest(plain) == questions[i].answer ? 1 : 0;
    scores.accuracy_norm += index_of_greatest(by_length) == questions[i].answer ? 1 : 0;
    ++scores.questions;
  }
  scores.accuracy /= static_cast<double>(scores.questions);
  scores.accuracy_norm /= static_cast<double>(scores.questions);
  return scores;
}

}  // namespace zebra
