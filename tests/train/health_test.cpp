#include "train/health.h"

#include "support/temp_dir.h"
#include "support/testing.h"
#include "support/thread_ranks.h"

#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "zebra/error.h"

using zebra::Health;
using zebra::HealthRecipe;
using zebra::Metrics;
using zebra::Trainee;
using zebra::testing::ContainsSubstring;
using zebra::testing::TempDir;
using zebra::testing::ThreadRanks;

namespace {

std::vector<Trainee> one_trainee() {
  zebra::ModelOptions options;
  options.vocab_size = 11;
  options.hidden_size = 8;
  options.intermediate_size = 8;
  options.num_heads = options.num_kv_heads = 2;
  options.head_dim = 4;
  options.layers = {zebra::MixerKind::kAttention};
  torch::manual_seed(3);
  return {{.name = "", .model = zebra::CausalLm(options)}};
}

std::vector<zebra::AdamW> optimizer_of(std::vector<Trainee>& trainees) {
  std::vector<zebra::AdamW> optimizers;
  optimizers.emplace_back(zebra::trainable(*trainees[0].model), zebra::OptimizerOptions{});
  return optimizers;
}

// A step whose gradients and loss follow from the parameters and `noise`.
std::vector<Metrics> work(std::vector<Trainee>& trainees, double noise) {
  at::Tensor loss = torch::zeros({});
  for (auto& parameter : trainees[0].model->parameters()) {
    loss = loss + (parameter * parameter).sum() * (1 + noise);
  }
  loss.backward();
  return {{{"loss", loss.item<double>()}, {"step_seconds", noise}}};
}

std::string text_of_error(const std::exception_ptr& thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("health: a step that is done twice with the same gradients goes on") {
  auto trainees = one_trainee();
  int calls = 0;
  const auto step = [&](int64_t) {
    ++calls;
    return work(trainees, 0);
  };
  Health health({.replay_every = 2}, {}, "distill");
  auto optimizers = optimizer_of(trainees);
  health.replay(0, optimizers, step);
  CHECK(calls == 0);  // not before the first step
  health.replay(1, optimizers, step);
  CHECK(calls == 2);
  for (const auto& parameter : trainees[0].model->parameters()) {
    CHECK(parameter.grad().abs().sum().item<double>() == 0);  // nothing is left for the step itself
  }
}

TEST_CASE("health: a machine that gets other gradients is named with its rank") {
  ThreadRanks ranks(3);
  const auto thrown = ranks.run([](const zebra::RankExchange& exchange) {
    auto trainees = one_trainee();
    auto optimizers = optimizer_of(trainees);
    double noise = 0;
    Health health({.replay_every = 1}, exchange, "distill");
    health.replay(0, optimizers, [&](int64_t) {
      const auto metrics = work(trainees, noise);
      if (exchange.rank == 1) noise = 1e-7;
      return metrics;
    });
  });
  for (const auto& each : thrown) {
    CHECK_THAT(text_of_error(each), ContainsSubstring("distill step 1: done twice, rank 1 on "));
  }
}

TEST_CASE("health: a loss that is not finite is told apart from a broken machine") {
  auto trainees = one_trainee();
  auto optimizers = optimizer_of(trainees);
  Health health({}, {}, "distill");
  const std::vector<Metrics> before = {
      {{"loss", std::nan("")}, {"step_seconds", 1.0}, {"tokens", 3.0}}};
  const auto same = health.explain_non_finite(0, before, optimizers, [&](int64_t) {
    work(trainees, 0);
    return std::vector<Metrics>{{{"loss", std::nan("")}, {"step_seconds", 2.0}}};
  });
  CHECK_THAT(same, ContainsSubstring("the numbers themselves diverge"));
  for (const auto& parameter : trainees[0].model->parameters()) {
    CHECK(parameter.grad().abs().sum().item<double>() == 0);  // nothing is left of the second try
  }
  const auto other = health.explain_non_finite(0, before, optimizers, [&](int64_t) {
    return std::vector<Metrics>{{{"loss", 0.5}, {"step_seconds", 1.0}}};
  });
  CHECK_THAT(other, ContainsSubstring("this machine is at fault"));
}

TEST_CASE("health: weights that differ between ranks end the run, with every rank's hash") {
  ThreadRanks ranks(3);
  std::vector<std::vector<Trainee>> of_rank;  // made here: all threads share one generator
  for (int rank = 0; rank < 3; ++rank) of_rank.push_back(one_trainee());
  const auto thrown = ranks.run([&](const zebra::RankExchange& exchange) {
    auto& trainees = of_rank[static_cast<size_t>(exchange.rank)];
    Health health({.compare_weights_every = 4, .slow_ranks_every = 0}, exchange, "ild");
    for (int64_t step = 1; step <= 4; ++step) health.after_step(step, trainees);
    if (exchange.rank == 2) {
      const torch::NoGradGuard no_grad;
      auto weight = trainees[0].model->parameters()[0];
      weight.view(-1)[0] += 1e-6;
    }
    for (int64_t step = 5; step <= 8; ++step) health.after_step(step, trainees);
  });
  for (const auto& each : thrown) {
    const auto text = text_of_error(each);
    CHECK_THAT(text, ContainsSubstring("ild step 8: the ranks' weights differ: rank 0: "));
    CHECK_THAT(text, ContainsSubstring("rank 2: "));
  }
}

TEST_CASE("health: equal weights have equal hashes and one other bit does not") {
  const auto a = one_trainee(), b = one_trainee();
  CHECK(zebra::hash_parameters(a) == zebra::hash_parameters(b));
  const torch::NoGradGuard no_grad;
  auto weight = b[0].model->parameters().back();
  weight.view(-1)[0] = std::nextafter(weight.view(-1)[0].item<float>(), 10.0F);
  CHECK(zebra::hash_parameters(a) != zebra::hash_parameters(b));
}

TEST_CASE("health: a rank that works far longer than the median is reported") {
  CHECK(zebra::slow_rank_text({1.0, 1.1, 1.0, 0.9}, {"a", "b", "c", "d"}).empty());
  CHECK(zebra::slow_rank_text({1.0, 1.0, 1.5, 1.0}, {"a", "b", "c", "d"}) ==
        "rank 2 on c is slow: 1.50 times the median's work for a step");
}

TEST_CASE("health: what any rank asks for is asked for on all") {
  std::atomic<int> right{0};
  zebra::testing::run_ranks(4, [&](const zebra::RankExchange& ranks) {
    zebra::Requests own;
    if (ranks.rank == 1) own = {.flags = 1, .stop_reason = "the time limit"};
    if (ranks.rank == 3) own.flags = 4;
    const auto all = zebra::any_of(ranks, own);
    if (all.flags == 5 && all.stop_reason == "the time limit") ++right;
  });
  CHECK(right == 4);
  CHECK(zebra::any_of({}, {.flags = 6, .stop_reason = ""}).flags == 6);
  CHECK(zebra::any_of({}, {.flags = 6, .stop_reason = ""}).stop_reason.empty());
}

TEST_CASE("health: a trace holds the operations that were done") {
  const TempDir folder;
  const auto file = folder.path() / "traces" / "t.json";
  zebra::trace_to(file, [] { at::mm(torch::ones({8, 8}), torch::ones({8, 8})); });
  std::ifstream in(file);
  const auto trace = nlohmann::json::parse(in);
  bool found = false;
  for (const auto& event : trace.at("traceEvents")) {
    found = found || event.value("name", "") == "aten::mm";
  }
  CHECK(found);
}
