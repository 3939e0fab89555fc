// Long-context texts: their length, their answers and where these lie; the loss by position.
#include "eval/long_context.h"

#include "base/signals.h"
#include "eval/models.h"
#include "zebra/error.h"

namespace zebra::testing {

TEST_CASE("long context: a text fills its length, is the seed's own, and holds its answers") {
  const ByteTokenizer tokenizer;
  for (const auto& task : long_context_tasks()) {
    INFO(task);
    const auto sample = make_long_context_sample(tokenizer, task, 4000, 0.5, 3);
    CHECK(sample.tokens <= 4000);
    CHECK(sample.tokens > 3800);
    CHECK(static_cast<int64_t>(tokenizer.encode(sample.prompt).size()) == sample.tokens);
    CHECK(contained_share(sample.prompt, sample.answers) == 1);
    CHECK(make_long_context_sample(tokenizer, task, 4000, 0.5, 3).prompt == sample.prompt);
    CHECK(make_long_context_sample(tokenizer, task, 4000, 0.5, 4).prompt != sample.prompt);
  }
}

TEST_CASE("long context: the needle lies at its depth, and its number appears once") {
  const ByteTokenizer tokenizer;
  for (const double depth : {0.0, 0.25, 0.5, 1.0}) {
    const auto sample = make_long_context_sample(tokenizer, "niah_single", 6000, depth, 9);
    REQUIRE(sample.answers.size() == 1);
    const auto at = sample.prompt.find(sample.answers[0]);
    REQUIRE(at != std::string::npos);
    CHECK(sample.prompt.find(sample.answers[0], at + 1) == std::string::npos);
    const auto share = static_cast<double>(at) / static_cast<double>(sample.prompt.size());
    CHECK(std::abs(share - depth) < 0.06);
  }
}

TEST_CASE("long context: too short a text and an unknown task are refused") {
  const ByteTokenizer tokenizer;
  CHECK_THROWS_WITH(make_long_context_sample(tokenizer, "niah_single", 40, 0.5, 1),
                    ContainsSubstring("niah_single: expected room for at least"));
  CHECK_THROWS_WITH(make_long_context_sample(tokenizer, "niah_singel", 400, 0.5, 1),
                    ContainsSubstring("got 'niah_singel'; did you mean 'niah_single'?"));
  CHECK_THROWS_WITH(check_long_context(tokenizer, {.task = "niah_singel"}, 1),
                    ContainsSubstring("got 'niah_singel'"));
  CHECK_THROWS_WITH(check_long_context(tokenizer, {.task = "niah_single", .tokens = 20}, 1),
                    ContainsSubstring("niah_single: expected a length of at least ") &&
                        ContainsSubstring("for BOS and the answer, got 20"));
  CHECK_NOTHROW(check_long_context(tokenizer, {.task = "common_words"}, 1));
}

TEST_CASE("long context: a request to stop is heard between two samples and two sequences") {
  auto options = tiny_options({MixerKind::kMamba2});
  options.max_position_embeddings = 1024;
  const CausalLm model(options);
  set_time_limit(1e-9);
  CHECK_THROWS_AS(score_long_context(model, ByteTokenizer(), {.task = "niah_single"}, {}),
                  StoppedError);
  CHECK_THROWS_AS(loss_by_position(model, std::vector<int64_t>(20, 5), {.length = 8}),
                  StoppedError);
  set_time_limit(0);
}

TEST_CASE("long context: the share of answers ignores case and counts each once") {
  CHECK(contained_share("The Lantern, and 12345.", {"lantern", "12345"}) == 1);
  CHECK(contained_share("lantern lantern", {"lantern", "violin"}) == 0.5);
  CHECK(contained_share("", {"x"}) == 0);
}

TEST_CASE("long context: a model without the answer scores nothing, depth by depth") {
  auto options = tiny_options({MixerKind::kMamba2});
  options.max_position_embeddings = 4096;
  torch::manual_seed(1);
  const CausalLm model(options);
  const auto score = score_long_context(model, ByteTokenizer(),
                                        {.task = "niah_single", .tokens = 1500, .samples = 3}, {});
  CHECK(score.score == 0);
  CHECK(score.by_depth == std::vector<double>{0, 0, 0});
}

TEST_CASE("loss by position: buckets hold the mean nats of a chain of known probabilities") {
  const auto table = random_table(4);
  const auto log_p = table.log_softmax(-1);
  auto model = bigram_model(table);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < 400; ++i) ids.push_back((i * i * 7 + 3 * i) % 250);
  for (const int64_t bos : {int64_t{-1}, int64_t{1}}) {
    const int64_t length = 100, own = bos < 0 ? 101 : 100;
    const auto buckets =
        loss_by_position(model, ids, {.length = length, .sequences = 3, .bos = bos});
    REQUIRE(buckets.size() == 2);
    CHECK(buckets[0].end == 64);
    CHECK(buckets[1].end == 100);
    for (const auto& bucket : buckets) {
      double total = 0;
      for (int64_t s = 0; s < 3; ++s) {
        std::vector<int64_t> row(ids.begin() + s * own, ids.begin() + (s + 1) * own);
        if (bos >= 0) row.insert(row.begin(), bos);
        for (int64_t t = bucket.begin; t < bucket.end; ++t) {
          total -=
              log_p[row[static_cast<size_t>(t)]][row[static_cast<size_t>(t) + 1]].item<double>();
        }
      }
      CHECK(bucket.nats_per_token ==
            Approx(total / static_cast<double>(3 * (bucket.end - bucket.begin))).epsilon(1e-9));
    }
  }
  CHECK_THROWS_WITH(loss_by_position(model, {1, 2}, {.length = 120}),
                    ContainsSubstring("expected a text of at least 121 tokens, got 2"));
  CHECK_THROWS_WITH(loss_by_position(model, ids, {.length = 129}),
                    ContainsSubstring("expected at most the model's 128 tokens, got 129"));
}

}  // namespace zebra::testing
