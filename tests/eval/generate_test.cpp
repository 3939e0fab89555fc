// Generation against a full forward for every token, and draws against known probabilities.
#include <map>
#include <optional>

#include "eval/models.h"

namespace zebra::testing {

namespace {

const std::vector<std::vector<MixerKind>> kMixes = {
    {MixerKind::kAttention, MixerKind::kAttention},
    {MixerKind::kMla, MixerKind::kMla},
    {MixerKind::kMamba2, MixerKind::kMamba2},
    {MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention}};

at::Tensor prompt_of(int64_t length) {
  return torch::arange(length, torch::kLong).mul(11).remainder(250).unsqueeze(0);  // (1, T)
}

std::vector<int64_t> by_full_forwards(CausalLm model, at::Tensor ids, int64_t count) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> made;
  for (int64_t i = 0; i < count; ++i) {
    const auto logits = model->logits(model->forward(ids, /*segments=*/{}));  // (1, T, V)
    made.push_back(logits[0][-1].argmax().item<int64_t>());
    ids = torch::cat({ids, row({made.back()})}, 1);
  }
  return made;
}

// How often each first token was drawn with `seeds` seeds.
std::map<int64_t, int> first_tokens(const CausalLm& model, GenerateOptions options, int seeds) {
  std::map<int64_t, int> counts;
  options.max_new_tokens = 1;
  for (int seed = 0; seed < seeds; ++seed) {
    options.seed = static_cast<uint64_t>(seed);
    ++counts[generate(model, row({4}), options).at(0)];
  }
  return counts;
}

// After token 4: ids 10, 11, 12 with probabilities 0.5, 0.3, 0.2, others next to none.
at::Tensor three_way_table() {
  auto table = torch::full({kVocabulary, kVocabulary}, -60.0, torch::kDouble);
  table[4][10] = std::log(0.5);
  table[4][11] = std::log(0.3);
  table[4][12] = std::log(0.2);
  return table;
}

// Within five standard deviations of `expected` draws out of `draws`.
void check_count(int count, double share, int draws) {
  const double expected = share * draws;
  CHECK(std::abs(count - expected) <= 5 * std::sqrt(expected * (1 - share)) + 1e-9);
}

}  // namespace

TEST_CASE("generate: greedy equals a full forward for each token, prompts in pieces or whole") {
  for (const auto& layers : kMixes) {
    const auto model = tiny_model(layers, 3, torch::kDouble);
    const auto prompt = prompt_of(21);
    const auto expected = by_full_forwards(model, prompt, 12);
    for (const int64_t piece : {1, 4, 20, 21, 512}) {
      const auto made = generate(model, prompt, {.max_new_tokens = 12, .prefill_chunk = piece});
      CHECK(made == expected);
    }
  }
}

TEST_CASE("generate: one token is a long enough prompt") {
  const auto model = tiny_model({MixerKind::kMamba2, MixerKind::kMla}, 3, torch::kDouble);
  CHECK(generate(model, row({7}), {.max_new_tokens = 5}) == by_full_forwards(model, row({7}), 5));
}

TEST_CASE("generate: a seed gives the same tokens again, another seed others") {
  const auto model = tiny_model({MixerKind::kMla, MixerKind::kMamba2}, 3);
  const GenerateOptions options{.max_new_tokens = 24, .temperature = 1.5, .seed = 5};
  const auto first = generate(model, prompt_of(8), options);
  torch::manual_seed(99);  // the sampler has a generator of its own
  CHECK(generate(model, prompt_of(8), options) == first);
  auto other = options;
  other.seed = 6;
  CHECK(generate(model, prompt_of(8), other) != first);
}

TEST_CASE("generate: the most probable token alone is greedy") {
  const auto model = tiny_model({MixerKind::kMla, MixerKind::kMamba2}, 3);
  const auto greedy = generate(model, prompt_of(8), {.max_new_tokens = 12});
  CHECK(generate(model, prompt_of(8), {.max_new_tokens = 12, .temperature = 2, .top_k = 1}) ==
        greedy);
  CHECK(generate(model, prompt_of(8), {.max_new_tokens = 12, .temperature = 2, .top_p = 1e-9}) ==
        greedy);
}

TEST_CASE("generate: draws follow temperature, top-k and top-p") {
  const auto model = bigram_model(three_way_table());
  constexpr int kDraws = 1500;
  SECTION("temperature 1") {
    auto counts = first_tokens(model, {.temperature = 1}, kDraws);
    CHECK(counts.size() == 3);
    check_count(counts[10], 0.5, kDraws);
    check_count(counts[11], 0.3, kDraws);
  }
  SECTION("temperature 0.5 squares the probabilities") {
    auto counts = first_tokens(model, {.temperature = 0.5}, kDraws);
    check_count(counts[10], 0.25 / 0.38, kDraws);
    check_count(counts[12], 0.04 / 0.38, kDraws);
  }
  SECTION("the two most probable") {
    auto counts = first_tokens(model, {.temperature = 1, .top_k = 2}, kDraws);
    CHECK(counts.size() == 2);
    check_count(counts[11], 0.3 / 0.8, kDraws);
  }
  SECTION("the smallest set that reaches 0.6 has two tokens, 0.45 is reached by one") {
    CHECK(first_tokens(model, {.temperature = 1, .top_p = 0.6}, kDraws).size() == 2);
    CHECK(first_tokens(model, {.temperature = 1, .top_p = 0.45}, 200).size() == 1);
  }
}

TEST_CASE("generate: stops after a stop token and tells every token as it is made") {
  const auto model = tiny_model({MixerKind::kAttention}, 3, torch::kDouble);
  const auto all = generate(model, prompt_of(5), {.max_new_tokens = 10});
  std::vector<int64_t> told;
  const auto made = generate(model, prompt_of(5), {.max_new_tokens = 10, .stop_ids = {260, all[2]}},
                             [&](int64_t id) { told.push_back(id); });
  const auto end = std::find(all.begin(), all.end(), all[2]) + 1;
  CHECK(made == std::vector<int64_t>(all.begin(), end));
  CHECK(told == made);
  CHECK(generate(model, prompt_of(5), {.max_new_tokens = 0}).empty());
}

TEST_CASE("generate: an empty prompt, a foreign token and senseless options are refused") {
  const auto model = tiny_model({MixerKind::kAttention}, 3);
  CHECK_THROWS_WITH(generate(model, torch::empty({1, 0}, torch::kLong), {}),
                    ContainsSubstring("prompt: expected at least one token, got none"));
  CHECK_THROWS_WITH(generate(model, row({1, 2, 264}), {}),
                    ContainsSubstring("prompt: expected token ids in [0, 264), got 264 at "
                                      "position 2"));
  CHECK_THROWS_WITH(generate(model, row({-1}), {}), ContainsSubstring("got -1 at position 0"));
  const auto refused = [&](const GenerateOptions& options) {
    CHECK_THROWS_AS(generate(model, row({1}), options), ConfigError);
  };
  refused({.max_new_tokens = -1});
  refused({.temperature = -0.1});
  refused({.top_k = -1});
  refused({.top_p = 0});
  refused({.top_p = 1.1});
  refused({.prefill_chunk = 0});
}

TEST_CASE("measure_decode: the cache holds what prompt and new tokens need") {
  const int64_t B = 3, T = 7 + 5;
  const auto options = tiny_options({MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention});
  const auto speed = measure_decode(tiny_model(options.layers, 3), B, 7, 5);
  CHECK(speed.tokens_per_second > 0);
  const auto size = cache_size(options);
  const int64_t values = size.kv_values_per_token * T + size.state_values_per_sequence;
  CHECK(speed.cache_bytes == 4 * B * values);
  CHECK_THROWS_AS(measure_decode(tiny_model(options.layers, 3), 0, 7, 5), ConfigError);
}

namespace {

std::vector<std::vector<int64_t>> unequal_prompts() {
  std::vector<std::vector<int64_t>> prompts;
  for (const int64_t length : {9, 1, 40, 3, 70, 9}) {
    const auto ids = prompt_of(length + 1).slice(1, 1);
    prompts.push_back(values(ids));
  }
  return prompts;
}

}  // namespace

TEST_CASE("generate_rows: a row's tokens are those that it gets alone, greedy or drawn") {
  for (const auto& layers : kMixes) {
    const auto model = tiny_model(layers, 3, torch::kDouble);
    for (const double temperature : {0.0, 1.0}) {
      const GenerateOptions options{
          .max_new_tokens = 10, .temperature = temperature, .seed = 5, .prefill_chunk = 16};
      const auto prompts = unequal_prompts();
      const auto together = generate_rows(model, prompts, options);
      for (size_t b = 0; b < prompts.size(); ++b) {
        auto own = options;
        own.seed += b;
        CHECK(generate_rows(model, {prompts[b]}, own).front().ids == together[b].ids);
      }
    }
  }
}

TEST_CASE("generate_rows: a row that ends leaves the batch, and the others go on unchanged") {
  const auto model = tiny_model(kMixes[3], 3, torch::kDouble);
  const auto prompts = unequal_prompts();
  const auto all = generate_rows(model, prompts, {.max_new_tokens = 10});
  const int64_t stop = all[0].ids[2];
  std::vector<std::vector<int64_t>> told(prompts.size());
  const auto rows = generate_rows(model, prompts, {.max_new_tokens = 10, .stop_ids = {stop}},
                                  [&](int64_t row, int64_t id) {
                                    told[static_cast<size_t>(row)].push_back(id);
                                    return row != 3 || told[3].size() < 4;
                                  });
  for (size_t b = 0; b < rows.size(); ++b) {
    CHECK(told[b] == rows[b].ids);
    const auto& whole = all[b].ids;
    REQUIRE(rows[b].ids.size() <= whole.size());
    CHECK(std::equal(rows[b].ids.begin(), rows[b].ids.end(), whole.begin()));
  }
  CHECK(rows[0].reason == StopReason::kStopToken);
  CHECK(rows[0].ids.back() == stop);
  if (rows[3].reason == StopReason::kCaller) CHECK(rows[3].ids.size() == 4);
}

TEST_CASE("generate_rows: the context's end ends a row, and a prompt beyond it is refused") {
  const auto model = tiny_model({MixerKind::kAttention}, 3);  // 128 positions
  const auto rows = generate_rows(model, {values(prompt_of(125))}, {.max_new_tokens = 10});
  CHECK(rows[0].ids.size() == 3);
  CHECK(rows[0].reason == StopReason::kContext);
  CHECK_THROWS_WITH(
      generate_rows(model, {{1}, std::vector<int64_t>(129, 4)}, {}),
      ContainsSubstring("prompt 2: expected at most the model's 128 tokens, got 129"));
  CHECK_THROWS_WITH(generate_rows(model, {{1}, {}}, {}),
                    ContainsSubstring("prompt 2: expected at least one token, got none"));
}

// ---- conversation -------------------------------------------------------------------------------

TEST_CASE("conversation: turns continue the caches, and nothing goes through the model twice") {
  for (const auto& layers : kMixes) {
    const auto model = tiny_model(layers, 3, torch::kDouble);
    const GenerateOptions options{.max_new_tokens = 6, .prefill_chunk = 4};
    Conversation chat(model, options);
    std::vector<int64_t> text;
    for (const auto& turn :
         std::vector<std::vector<int64_t>>{{7, 8, 9}, {20}, {1, 2, 3, 4, 5, 6}}) {
      text.insert(text.end(), turn.begin(), turn.end());
      const auto expected = generate_rows(model, {text}, options).front().ids;
      CHECK(chat.reply(turn).ids == expected);
      text.insert(text.end(), expected.begin(), expected.end());
      CHECK(chat.ids() == text);
    }
    CHECK(chat.forwarded() == static_cast<int64_t>(text.size()) - 1);
    CHECK(chat.cache().length() == chat.forwarded());
  }
}

TEST_CASE("conversation: a turn that the context has no room for is refused and changes nothing") {
  const auto model = tiny_model({MixerKind::kMamba2, MixerKind::kMla}, 3, torch::kDouble);
  const GenerateOptions options{.max_new_tokens = 4};
  Conversation chat(model, options), other(model, options);
  chat.reply({7, 8, 9});
  other.reply({7, 8, 9});
  CHECK_THROWS_WITH(chat.reply(std::vector<int64_t>(121, 5)),
                    ContainsSubstring("expected fewer than the model's 128 tokens, got 128"));
  CHECK_THROWS_AS(chat.reply({264}), ConfigError);
  CHECK(chat.reply({5}).ids == other.reply({5}).ids);
}

}  // namespace zebra::testing
