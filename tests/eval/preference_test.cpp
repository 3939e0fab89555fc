// Log-probabilities of answers in closed form, and their gradients.
#include "eval/models.h"

namespace zebra::testing {

namespace {

PreferenceDataset some_pairs(const Folder& folder) {
  std::string lines;
  for (int i = 0; i < 11; ++i) {
    const std::string prompt(static_cast<size_t>(1 + i * 5 % 13), static_cast<char>('a' + i));
    lines += "{\"prompt\": \"" + prompt + "\", \"chosen\": \" yes" + std::string(i % 4, 'y') +
             "\", \"rejected\": \" no" + std::string(i % 3, 'n') + "\"}\n";
  }
  return PreferenceDataset({folder.write("pairs.jsonl", lines)}, ByteTokenizer(), {});
}

double chain(const at::Tensor& log_p, std::vector<int64_t> ids, const std::vector<int64_t>& more) {
  double sum = 0;
  for (const auto id : more) {
    sum += log_p[ids.back()][id].item<double>();
    ids.push_back(id);
  }
  return sum;
}

}  // namespace

TEST_CASE("answer_log_probs: sums the answers' tokens and nothing else") {
  const Folder folder;
  const auto pairs = some_pairs(folder);
  const auto table = random_table(3);
  const auto log_p = table.log_softmax(-1);
  std::vector<double> expected(2 * pairs.size());
  for (int64_t i = 0; i < pairs.size(); ++i) {
    expected[i] = chain(log_p, pairs.pair(i).prompt, pairs.pair(i).chosen);
    expected[pairs.size() + i] = chain(log_p, pairs.pair(i).prompt, pairs.pair(i).rejected);
  }
  const auto values = answer_log_probs(bigram_model(table), pairs.sequential(0, pairs.size()), 5);
  check_close(values, torch::tensor(expected, torch::kDouble), kTwin64);
}

TEST_CASE("answer_log_probs: gradients equal those of the whole batch's log-softmax") {
  const Folder folder;
  const auto pairs = some_pairs(folder);
  const auto batch = pairs.sequential(0, pairs.size());
  const auto layers = std::vector{MixerKind::kMla, MixerKind::kMamba2};
  auto model = tiny_model(layers, 4, torch::kDouble), twin = tiny_model(layers, 4, torch::kDouble);
  const auto weights = torch::linspace(-1, 2, 2 * pairs.size(), torch::kDouble);
  (answer_log_probs(model, batch, 7) * weights).sum().backward();

  const auto log_p =
      twin->logits(twin->forward(batch.input_ids, {})).log_softmax(-1);  // (2B, T, V)
  const auto picked = log_p.gather(2, batch.targets.clamp_min(0).unsqueeze(2)).squeeze(2);
  const auto sums = (picked * batch.targets.ge(0)).sum(1);  // (2B)
  (sums * weights).sum().backward();
  for (const auto& item : twin->named_parameters()) {
    check_close(model->named_parameters()[item.key()].grad(), item.value().grad(), kTwin64,
                item.key());
  }
}

TEST_CASE("score_preferences: counts and margins, whatever the batch size") {
  const Folder folder;
  const auto pairs = some_pairs(folder);
  const auto table = random_table(3);
  const auto log_p = table.log_softmax(-1);
  double right = 0, margin = 0;
  for (int64_t i = 0; i < pairs.size(); ++i) {
    const auto& pair = pairs.pair(i);
    const double gain =
        chain(log_p, pair.prompt, pair.chosen) - chain(log_p, pair.prompt, pair.rejected);
    right += gain > 0 ? 1 : 0;
    margin += gain;
  }
  for (const int64_t batch_size : {1, 4, 50}) {
    const auto scores = score_preferences(bigram_model(table), pairs, batch_size);
    CHECK(scores.pairs == 11);
    CHECK(scores.accuracy == Approx(right / 11));
    CHECK(scores.margin == Approx(margin / 11).epsilon(kTwin64));
  }
  CHECK_THROWS_AS(score_preferences(bigram_model(table), pairs, 0), ConfigError);
}

}  // namespace zebra::testing
