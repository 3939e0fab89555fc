#include "eval/generate_until.h"

#include "base/signals.h"
#include "eval/models.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace {

std::vector<std::vector<int64_t>> prompts_of_many_lengths() {
  torch::manual_seed(11);
  std::vector<std::vector<int64_t>> prompts;
  for (const int64_t length : {7, 1, 12, 12, 30, 3, 19}) {
    prompts.push_back(values(torch::randint(3, 250, {length}, torch::kLong)));
  }
  return prompts;
}

// Token after token the greedy successor: a -> b -> c -> ... -> z -> a.
CausalLm alphabet_model() {
  auto table = torch::zeros({kVocabulary, kVocabulary}, torch::kDouble);
  for (int c = 0; c < 26; ++c) table['a' + c + 3]['a' + (c + 1) % 26 + 3] = 30;
  return bigram_model(table);
}

}  // namespace

TEST_CASE("generate_until: every row answers as it does alone, whatever stands beside it") {
  const auto prompts = prompts_of_many_lengths();
  for (const auto& layers : std::vector<std::vector<MixerKind>>{
           {MixerKind::kMla, MixerKind::kMamba2}, {MixerKind::kAttention, MixerKind::kMamba2}}) {
    const auto model = tiny_model(layers, 3, torch::kDouble);
    const GenerateUntilOptions options{.stop = {}, .max_new_tokens = 9, .batch_size = 4};
    const auto together = generate_until(model, ByteTokenizer(), prompts, options);
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto alone =
          generate(model, row(prompts[i]),
                   {.max_new_tokens = 9, .stop_ids = model->options().eos_token_ids});
      auto expected = alone;
      const auto& ends = model->options().eos_token_ids;
      if (std::find(ends.begin(), ends.end(), expected.back()) != ends.end()) expected.pop_back();
      CHECK(together[i] == expected);
    }
  }
}

TEST_CASE("generate_until: an answer ends with its stop text, which before_stop removes") {
  const ByteTokenizer tokenizer;
  const auto model = alphabet_model();
  const GenerateUntilOptions options{.stop = {"jk", "q"}, .max_new_tokens = 40};
  const auto made = generate_until(
      model, tokenizer, {tokenizer.encode("a"), tokenizer.encode("k"), tokenizer.encode("xyzabc")},
      options);
  CHECK(tokenizer.decode(made[0]) == "bcdefghijk");
  CHECK(tokenizer.decode(made[1]) == "lmnopq");
  CHECK(tokenizer.decode(made[2]) == "defghijk");
  CHECK(before_stop(tokenizer.decode(made[0]), options.stop) == "bcdefghi");
  CHECK(before_stop("no stop in it", options.stop) == "no stop in it");
  CHECK(before_stop("a q b jk c", options.stop) == "a ");
}

TEST_CASE("generate_until: no more than the greatest number of tokens is made") {
  const ByteTokenizer tokenizer;
  const auto made = generate_until(alphabet_model(), tokenizer, {tokenizer.encode("a")},
                                   {.stop = {}, .max_new_tokens = 3});
  CHECK(tokenizer.decode(made[0]) == "bcd");
}

TEST_CASE("generate_until: a request to stop is heard between two batches") {
  const ByteTokenizer tokenizer;
  set_time_limit(1e-9);
  CHECK_THROWS_AS(generate_until(alphabet_model(), tokenizer, {tokenizer.encode("a")}, {}),
                  StoppedError);
  set_time_limit(0);
}

}  // namespace zebra::testing
