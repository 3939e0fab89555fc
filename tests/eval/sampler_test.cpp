// Distributions after each change of the scores, against the obvious way to compute them.
#include "eval/sampler.h"

#include "eval/models.h"

namespace zebra::testing {

namespace {

// Hugging Face's processors as their documentation defines them, on a whole sorted vocabulary.
at::Tensor obvious(at::Tensor scores, const GenerateOptions& o, const std::vector<int64_t>& seen) {
  const double inf = std::numeric_limits<double>::infinity();
  scores = scores.clone();
  if (!seen.empty()) {
    const auto ids = torch::tensor(seen, torch::kLong);
    const auto old = scores.index_select(0, ids);
    const auto changed =
        torch::where(old < 0, old * o.repetition_penalty, old / o.repetition_penalty);
    scores.index_copy_(0, ids, changed);
  }
  scores = scores / o.temperature;
  if (o.top_k > 0) {
    const auto least = std::get<0>(scores.topk(o.top_k)).min();
    scores.masked_fill_(scores < least, -inf);
  }
  if (o.top_p < 1) {
    const auto [sorted, order] = scores.sort(/*dim=*/0, /*descending=*/false);
    auto remove = sorted.softmax(0).cumsum(0) <= 1 - o.top_p;
    remove[-1] = false;
    scores.index_fill_(0, order.masked_select(remove), -inf);
  }
  if (o.min_p > 0) {
    const auto p = scores.softmax(0);
    scores.masked_fill_(p < o.min_p * p.max(), -inf);
  }
  return scores.softmax(0);
}

at::Tensor dense(const Distribution& d, int64_t V) {
  auto p = torch::zeros({V}, torch::kDouble);
  for (size_t i = 0; i < d.ids.size(); ++i) p[d.ids[i]] = d.probabilities[i];
  return p;
}

Distribution after(const GenerateOptions& options, const at::Tensor& logits,
                   const std::vector<int64_t>& seen) {
  Sampler sampler(options, 0);
  for (const auto id : seen) sampler.see(id);
  return sampler.distribution(logits);
}

}  // namespace

TEST_CASE("sampler: every change alone, and all of them in their order, give the defined scores") {
  torch::manual_seed(2);
  const auto logits = torch::randn({300}, torch::kDouble) * 3;
  const std::vector<int64_t> seen = {3, 17, 44, 250, 299};
  const std::vector<GenerateOptions> all = {
      {.temperature = 0.7},
      {.temperature = 1, .top_k = 5},
      {.temperature = 1, .top_k = 300},
      {.temperature = 1, .top_p = 0.9},
      {.temperature = 1.5, .top_p = 0.999},
      {.temperature = 1, .top_p = 1e-6},
      {.temperature = 1, .min_p = 0.05},
      {.temperature = 1, .min_p = 1},
      {.temperature = 1, .repetition_penalty = 1.3},
      {.temperature = 2, .repetition_penalty = 0.8},
      {.temperature = 0.8, .top_k = 40, .top_p = 0.8, .min_p = 0.02, .repetition_penalty = 1.2}};
  for (size_t i = 0; i < all.size(); ++i) {
    INFO("settings " << i);
    const auto& known = all[i].repetition_penalty == 1 ? std::vector<int64_t>{} : seen;
    check_close(dense(after(all[i], logits, seen), 300), obvious(logits, all[i], known), kTwin64,
                "probabilities");
  }
}

TEST_CASE("sampler: probabilities are those of Hugging Face's processors in their order") {
  // transformers 5.23.0 in float64 on these scores, after the tokens 3, 1, 8, 3.
  const auto logits = torch::tensor(
      {2.0, -1.5, 0.25, 3.5, 3.25, -0.75, 1.0, 0.5, 2.75, -3.0, 1.25, 0.0}, torch::kDouble);
  const std::vector<int64_t> seen = {3, 1, 8, 3};
  const auto check = [&](const GenerateOptions& options, const std::vector<double>& expected) {
    const auto wanted = torch::tensor(expected, torch::kDouble);
    check_close(dense(after(options, logits, seen), 12), wanted, kTwin64, "probabilities");
  };
  check({.temperature = 0.8, .repetition_penalty = 1.3},
        {0.0964431873378, 0.000691739459912, 0.0108206257312, 0.22914127119, 0.460104714007,
         0.00310016117701, 0.0276314357968, 0.0147900417966, 0.111406410637, 0.000186179149907,
         0.0377676948161, 0.00791653889991});
  check({.temperature = 1.5, .top_k = 4},
        {0.130412459567, 0, 0, 0.354497819045, 0.300075925335, 0, 0, 0, 0.215013796052, 0, 0, 0});
  check({.temperature = 1, .top_p = 0.7},
        {0, 0, 0, 0.444213979162, 0.345954194822, 0, 0, 0, 0.209831826016, 0, 0, 0});
  check({.temperature = 1, .min_p = 0.2},
        {0.0901791965245, 0, 0, 0.404155119436, 0.314756323499, 0, 0, 0, 0.190909360541, 0, 0, 0});
  check({.temperature = 0.9, .top_k = 7, .top_p = 0.85, .min_p = 0.15, .repetition_penalty = 1.2},
        {0.109143726508, 0, 0, 0.302228732774, 0.437709082441, 0, 0, 0, 0.150918458277, 0, 0, 0});
}

TEST_CASE("sampler: the smallest temperature leaves the likeliest token, and no overflow") {
  const auto logits = torch::tensor({1.0, 3.0, 2.0}, torch::kDouble);
  const auto likeliest = torch::tensor({0.0, 1.0, 0.0}, torch::kDouble);
  for (const auto& logits_of : {logits, logits - 10}) {
    const auto p = after({.temperature = 1e-308, .top_p = 0.9}, logits_of, {});
    check_close(dense(p, 3), likeliest, kTwin64, "probabilities");
  }
}

TEST_CASE("sampler: tokens as likely as the k-th stay, as in Hugging Face") {
  const auto logits = torch::tensor({1.0, 3.0, 2.0, 2.0, 2.0, 0.0}, torch::kDouble);
  CHECK(after({.temperature = 1, .top_k = 2}, logits, {}).ids == std::vector<int64_t>{1, 2, 3, 4});
}

TEST_CASE("sampler: the penalty works on greedy choice too, and forgets what is taken back") {
  const auto logits = torch::tensor({2.0, 2.2, -1.0}, torch::kDouble);
  Sampler sampler({.repetition_penalty = 1.5}, 0);
  CHECK(sampler.pick(logits) == 1);
  sampler.see(1);
  sampler.see(1);
  CHECK(sampler.pick(logits) == 0);
  sampler.forget(1);
  CHECK(sampler.pick(logits) == 0);
  sampler.forget(1);
  CHECK(sampler.pick(logits) == 1);
}

TEST_CASE("sampler: the residual is what the proposal's distribution lacks, normalised") {
  const Distribution p{{1, 2, 5}, {0.5, 0.3, 0.2}}, q{{2, 3, 5}, {0.1, 0.4, 0.5}};
  const auto left = residual(p, q);
  CHECK(left.ids == std::vector<int64_t>{1, 2});
  CHECK(left.of(1) == Approx(0.5 / 0.7));
  CHECK(left.of(2) == Approx(0.2 / 0.7));
  CHECK(left.of(5) == 0);
  CHECK(residual(p, p).ids == p.ids);
}

}  // namespace zebra::testing
