// Against one full forward for every request.
#include "eval/loglikelihood.h"

#include "eval/models.h"

namespace zebra::testing {

namespace {

const std::vector<std::vector<MixerKind>> kLayerMixes = {
    {MixerKind::kAttention, MixerKind::kAttention},
    {MixerKind::kMla, MixerKind::kMla},
    {MixerKind::kMamba2, MixerKind::kMamba2},
    {MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention}};

std::vector<int64_t> random_ids(int64_t count) {
  return values(torch::randint(3, 250, {count}, torch::kLong));
}

TokenRequest request_of(std::vector<int64_t> context, const std::vector<int64_t>& ending) {
  context.insert(context.end(), ending.begin(), ending.end() - 1);
  return {.input = std::move(context), .targets = ending};
}

// Questions with a long stem and with none, with endings that share tokens, one-token choices, and
// the same choice twice; all of them begin with `prefix` tokens that are alike.
std::vector<Question> questions_after(int64_t prefix) {
  torch::manual_seed(3);
  const auto common = random_ids(prefix);
  std::vector<Question> questions;
  for (int i = 0; i < 23; ++i) {
    auto stem = common;
    const auto own = random_ids(1 + i * 5 % 37);
    stem.insert(stem.end(), own.begin(), own.end());
    Question question;
    for (int c = 0; c < 4; ++c) {
      const auto ending = i % 3 == 0 ? random_ids(1) : random_ids(1 + (i + 3 * c) % 9);
      question.push_back(request_of(stem, ending));
    }
    question.push_back(question.front());
    if (i % 4 == 0) question.push_back(request_of(random_ids(prefix + 12), random_ids(3)));
    questions.push_back(std::move(question));
  }
  return questions;
}

LogLikelihood by_full_forward(CausalLm model, const TokenRequest& request) {
  const at::NoGradGuard no_grad;
  const auto logits = model->logits(model->forward(row(request.input), {}))[0];
  const auto log_p = logits.to(torch::kDouble).log_softmax(-1);
  LogLikelihood result{.sum = 0, .greedy = true};
  const auto first = static_cast<int64_t>(request.input.size() - request.targets.size());
  for (size_t i = 0; i < request.targets.size(); ++i) {
    const auto at = first + static_cast<int64_t>(i);
    result.sum += log_p[at][request.targets[i]].item<double>();
    result.greedy = result.greedy && log_p[at].argmax().item<int64_t>() == request.targets[i];
  }
  return result;
}

void check_equal(const CausalLm& model, const std::vector<Question>& questions,
                 const ScoringOptions& options, double tolerance) {
  const auto answers = log_likelihoods(model, questions, options);
  REQUIRE(answers.size() == questions.size());
  double worst = 0;
  for (size_t i = 0; i < questions.size(); ++i) {
    REQUIRE(answers[i].size() == questions[i].size());
    for (size_t c = 0; c < questions[i].size(); ++c) {
      const auto expected = by_full_forward(model, questions[i][c]);
      worst = std::max(worst, std::abs(answers[i][c].sum - expected.sum));
      CHECK(answers[i][c].greedy == expected.greedy);
    }
  }
  CHECK(worst <= tolerance);
}

constexpr double kBatchIndependence = 1e-4;  // docs/numerics.md

}  // namespace

TEST_CASE("log_likelihoods: forks of a shared stem give what full forwards give, in any batch") {
  for (const auto& layers : kLayerMixes) {
    const auto model = tiny_model(layers, 3);
    const auto questions = questions_after(0);
    for (const int64_t batch : {0, 1, 3}) {
      check_equal(model, questions, {.batch_size = batch}, kBatchIndependence);
    }
    check_equal(model, questions, {.batch_tokens = 64}, kBatchIndependence);
  }
}

TEST_CASE("log_likelihoods: a beginning that all documents share is read once") {
  for (const auto& layers : kLayerMixes) {
    const auto model = tiny_model(layers, 4);
    check_equal(model, questions_after(60), {}, kBatchIndependence);
    check_equal(model, questions_after(60), {.batch_size = 2}, kBatchIndependence);
  }
}

TEST_CASE("log_likelihoods: in float64 the forks are exact") {
  const auto model = tiny_model(kLayerMixes.back(), 5, torch::kDouble);
  check_equal(model, questions_after(40), {}, 1e-8);
}

TEST_CASE("log_likelihoods: contexts that lost their beginning stand beside those that did not") {
  const auto model = tiny_model(kLayerMixes.back(), 6);
  auto questions = questions_after(50);
  for (size_t i = 0; i < questions.size(); i += 2) {
    for (auto& request : questions[i]) {
      request.input.erase(request.input.begin());
      request.cut = true;
    }
  }
  check_equal(model, questions, {}, kBatchIndependence);
}

TEST_CASE("log_likelihoods: questions without requests have no answers, greedy ones are told") {
  auto table = random_table(9);
  table[7][8] = table[8][9] = 40;
  const auto model = bigram_model(table);
  const std::vector<Question> questions = {
      {}, {request_of({1, 7}, {8, 9}), request_of({1, 7}, {8, 10}), request_of({1, 7}, {8})}, {}};
  int64_t tokens = 0;
  const auto answers =
      log_likelihoods(model, questions, {.on_tokens = [&](int64_t count) { tokens += count; }});
  CHECK(answers[0].empty());
  CHECK(answers[1][0].greedy);
  CHECK_FALSE(answers[1][1].greedy);
  CHECK(answers[1][2].greedy);
  CHECK(answers[1][0].sum == Approx(0).margin(1e-6));
  CHECK(tokens == count_tokens(questions));
}

}  // namespace zebra::testing
