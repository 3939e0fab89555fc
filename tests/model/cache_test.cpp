// Every kind of mixer: pieces equal the whole, absorbed equals expanded, nothing looks ahead,
// documents stay apart.
#include "model/cache.h"
#include "support/close_to.h"
#include "support/testing.h"
#include "zebra/error.h"
#include "zebra/model.h"

namespace zebra::testing {

namespace {

ModelOptions tiny(std::vector<MixerKind> layers) {
  ModelOptions options;
  options.vocab_size = 61;
  options.hidden_size = 48;
  options.intermediate_size = 80;
  options.num_heads = 6;
  options.num_kv_heads = 2;
  options.head_dim = 8;
  options.initializer_range = 0.2;
  options.rope.theta = 10000;
  options.mla = {
      .hidden_size = 48,
      .num_heads = 6,
      .num_kv_heads = 2,
      .q_lora_rank = 24,
      .kv_lora_rank = 16,
      .qk_nope_head_dim = 6,
      .qk_rope_head_dim = 4,
      .v_head_dim = 8,
      .rope = {.scaling = RopeScaling::kYarn, .factor = 4, .original_max_position_embeddings = 64}};
  options.mamba2 = {.hidden_size = 48, .num_heads = 6, .num_kv_heads = 2, .head_dim = 8};
  options.layers = std::move(layers);
  return options;
}

const std::vector<std::vector<MixerKind>> kPlans = {
    {MixerKind::kAttention},
    {MixerKind::kMla},
    {MixerKind::kMamba2},
    {MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention}};

CausalLm make(const std::vector<MixerKind>& plan, torch::Dtype dtype = torch::kDouble) {
  torch::manual_seed(7);
  CausalLm model(tiny(plan));
  model->to(dtype);
  return model;
}

at::Tensor ids(int64_t B, int64_t T) {
  torch::manual_seed(static_cast<uint64_t>(T));
  return torch::randint(0, 61, {B, T}, torch::kLong);
}

// The sequence in pieces of these lengths, through one cache.
at::Tensor in_pieces(CausalLm& model, const at::Tensor& input,
                     const std::vector<int64_t>& lengths) {
  auto cache = model->make_cache(input.size(0));
  std::vector<at::Tensor> parts;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    parts.push_back(model->forward(input.narrow(1, begin, length), /*segments=*/{}, &cache));
    begin += length;
  }
  CHECK(cache.length() == input.size(1));
  return torch::cat(parts, 1);
}

}  // namespace

TEST_CASE("model: any split of a sequence into pieces gives the same as one pass") {
  torch::NoGradGuard no_grad;
  const std::vector<std::vector<int64_t>> splits = {
      {1, 69}, {69, 1}, {64, 6}, {3, 1, 1, 60, 5}, {35, 35}};
  for (const auto& plan : kPlans) {
    auto model = make(plan);
    const auto input = ids(2, 70);
    const auto whole = model->forward(input, /*segments=*/{});
    for (const auto& split : splits)
      check_close(in_pieces(model, input, split), whole, kTwin64, "pieces");
  }
}

TEST_CASE("model: a token a step equals one pass, which for MLA is absorbed against expanded") {
  torch::NoGradGuard no_grad;
  for (const auto& plan : kPlans) {
    auto model = make(plan);
    const auto input = ids(3, 20);
    const auto whole = model->forward(input, /*segments=*/{});
    check_close(in_pieces(model, input, std::vector<int64_t>(20, 1)), whole, kTwin64, "steps");
  }
}

TEST_CASE("model: changing a late token never changes an earlier output") {
  torch::NoGradGuard no_grad;
  for (const auto& plan : kPlans) {
    auto model = make(plan, torch::kFloat);
    for (const int64_t T : {1, 63, 64, 65, 257, 600}) {
      const auto input = ids(1, T);
      auto changed = input.clone();
      const int64_t late = T - 1 - T / 3;
      changed.index_put_({0, late}, (input[0][late].item<int64_t>() + 1) % 61);
      const auto before = model->forward(input, {}), after = model->forward(changed, {});
      check_close(after.narrow(1, 0, late), before.narrow(1, 0, late), kForward32,
                  "earlier outputs");
      CHECK(!torch::equal(after[0][late], before[0][late]));
    }
  }
}

TEST_CASE("model: documents of a packed row give what they give alone, gradients included") {
  for (const auto& plan : kPlans) {
    auto model = make(plan);
    const auto input = ids(1, 90);
    const std::vector<int64_t> lengths = {1, 40, 2, 47};
    std::vector<at::Tensor> segment_parts, alone;
    int64_t begin = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
      segment_parts.push_back(torch::full({1, lengths[s]}, static_cast<int64_t>(s), torch::kLong));
      alone.push_back(model->forward(input.narrow(1, begin, lengths[s]), {}));
      begin += lengths[s];
    }
    const auto expected = torch::cat(alone, 1);
    const auto packed = model->forward(input, torch::cat(segment_parts, 1));
    check_close(packed, expected, kTwin64, "packed");

    const auto weights = torch::cos(torch::arange(packed.numel(), torch::kDouble)).view_as(packed);
    const auto parameters = model->parameters();
    const auto want =
        torch::autograd::grad({(expected * weights).sum()}, parameters, {}, {}, false, true);
    const auto got =
        torch::autograd::grad({(packed * weights).sum()}, parameters, {}, {}, false, true);
    for (size_t i = 0; i < want.size(); ++i) {
      if (want[i].defined()) check_close(got[i], want[i], 1e-9, "gradient " + std::to_string(i));
    }
  }
}

TEST_CASE("model: cache sizes in bytes are those that cache_size predicts") {
  torch::NoGradGuard no_grad;
  auto model = make({MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention}, torch::kFloat);
  const int64_t B = 2, T = 33;
  auto cache = model->make_cache(B);
  model->forward(ids(B, T), {}, &cache);
  const auto size = cache_size(model->options());
  CHECK(cache.bytes() == 4 * B * (T * size.kv_values_per_token + size.state_values_per_sequence));
}

namespace {

const std::vector<MixerKind> kMixed = {MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention};

// Rows of unequal lengths: their real tokens, zeros behind.
struct Ragged {
  std::vector<int64_t> counts;
  at::Tensor ids;  // (B, T)
};

Ragged ragged(const std::vector<int64_t>& counts) {
  const int64_t T = *std::max_element(counts.begin(), counts.end());
  Ragged rows{counts, ids(static_cast<int64_t>(counts.size()), T)};
  for (size_t b = 0; b < counts.size(); ++b) {
    rows.ids[static_cast<int64_t>(b)].slice(0, counts[b]).zero_();
  }
  return rows;
}

at::Tensor row_of(const at::Tensor& tensor, size_t b) {
  return tensor.narrow(0, static_cast<int64_t>(b), 1);
}

}  // namespace

TEST_CASE("model: rows of unequal lengths give what each gives alone, piece after piece") {
  torch::NoGradGuard no_grad;
  for (const auto& plan : kPlans) {
    auto model = make(plan);
    auto cache = model->make_cache(3);
    std::vector<ModelCache> alone;
    for (int b = 0; b < 3; ++b) alone.push_back(model->make_cache(1));
    const std::vector<std::vector<int64_t>> pieces = {{5, 17, 1}, {1, 1, 1},  {9, 0, 30},
                                                      {1, 1, 1},  {40, 2, 3}, {3, 3, 3}};
    for (const auto& counts : pieces) {
      const auto rows = ragged(counts);
      const auto together = model->extend(rows.ids, counts, cache);
      for (size_t b = 0; b < counts.size(); ++b) {
        if (counts[b] == 0) continue;
        const auto own = row_of(rows.ids, b).narrow(1, 0, counts[b]);
        const auto expected = model->forward(own, /*segments=*/{}, &alone[b]);
        check_close(row_of(together, b).narrow(1, 0, counts[b]), expected, kTwin64, "row");
      }
    }
    CHECK(cache.lengths == std::vector<int64_t>{59, 24, 39});
  }
}

TEST_CASE("model: of a proposed piece only what is kept ever was") {
  torch::NoGradGuard no_grad;
  for (const auto& plan : kPlans) {
    auto model = make(plan);
    const auto prompt = ids(2, 11), piece = ids(2, 6), after = ids(2, 4);
    for (const auto& kept : std::vector<std::vector<int64_t>>{{0, 0}, {1, 6}, {6, 6}, {3, 2}}) {
      auto cache = model->make_cache(2);
      model->forward(prompt, {}, &cache);
      const auto proposed = model->propose(piece, cache);
      CHECK(cache.length() == 11);
      cache.keep(kept);
      const auto continued = model->forward(after, {}, &cache);
      for (size_t b = 0; b < 2; ++b) {
        const auto whole = torch::cat(
            {row_of(prompt, b), row_of(piece, b).narrow(1, 0, kept[b]), row_of(after, b)}, 1);
        const auto expected = model->forward(whole, {});
        check_close(row_of(continued, b), expected.slice(1, 11 + kept[b]), kTwin64, "continued");
        check_close(row_of(proposed, b).narrow(1, 0, kept[b]), expected.slice(1, 11, 11 + kept[b]),
                    kTwin64, "proposed");
      }
    }
  }
}

TEST_CASE("model: a cache that is rewound continues as if nothing had come after the mark") {
  torch::NoGradGuard no_grad;
  for (const auto& plan : kPlans) {
    auto model = make(plan, torch::kFloat);
    auto cache = model->make_cache(2);
    model->forward(ids(2, 13), {}, &cache);
    const auto mark = cache.mark();
    const auto first = model->forward(ids(2, 5), {}, &cache);
    model->forward(ids(2, 300), {}, &cache);
    cache.rewind(mark);
    check_equal(model->forward(ids(2, 5), {}, &cache), first, "again");
  }
}

TEST_CASE("model: chosen and appended rows continue as they would have") {
  torch::NoGradGuard no_grad;
  for (const auto& plan : kPlans) {
    auto model = make(plan);
    const auto rows = ragged({4, 270, 9});
    auto cache = model->make_cache(3);
    model->extend(rows.ids, rows.counts, cache);
    auto other = model->make_cache(1);
    model->forward(ids(1, 2), {}, &other);
    auto mixed = cache.select({2, 0, 2});
    mixed.append(other);
    CHECK(mixed.lengths == std::vector<int64_t>{9, 4, 9, 2});
    const auto next = torch::full({4, 1}, 7, torch::kLong);
    const auto got = model->forward(next, {}, &mixed);
    const auto one = torch::full({1, 1}, 7, torch::kLong);
    const auto of_cache = model->forward(torch::full({3, 1}, 7, torch::kLong), {}, &cache);
    check_close(row_of(got, 0), row_of(of_cache, 2), kTwin64, "row 2");
    check_close(row_of(got, 1), row_of(of_cache, 0), kTwin64, "row 0");
    check_equal(row_of(got, 2), row_of(got, 0), "the same row twice");
    check_close(row_of(got, 3), model->forward(one, {}, &other), kTwin64, "appended");
  }
}

TEST_CASE(
    "model: long pieces of MLA expand, short ones stay in the latent space, with one result") {
  torch::NoGradGuard no_grad;
  auto model = make({MixerKind::kMla}, torch::kFloat);
  const auto input = ids(2, 600);
  const auto whole = model->forward(input, {});
  check_close(in_pieces(model, input, {200, 400}), whole, kDecode32, "expanded");
  check_close(in_pieces(model, input, {596, 4}), whole, kDecode32, "absorbed");
}

TEST_CASE("model: memory is held in whole blocks, and what is stored smaller takes fewer bytes") {
  torch::NoGradGuard no_grad;
  auto model = make(kMixed, torch::kFloat);
  const auto& options = model->options();
  for (const auto tokens : {CacheDtype::kModel, CacheDtype::kBfloat16, CacheDtype::kInt8}) {
    for (const auto state : {CacheDtype::kFloat32, CacheDtype::kBfloat16}) {
      const CacheOptions kept{.tokens = tokens, .state = state, .block_tokens = 64};
      auto cache = model->make_cache(3, kept);
      model->forward(ids(3, 65), {}, &cache);
      const auto bytes = cache_bytes(options, kept, torch::kFloat);
      CHECK(cache.bytes() == 3 * bytes.of(65));
      CHECK(cache.reserved_bytes() == 3 * bytes.of(128));
    }
  }
  CHECK_THROWS_AS(model->make_cache(1, {.block_tokens = 0}), ConfigError);
  CHECK_THROWS_AS(model->make_cache(1, {.state = CacheDtype::kInt8}), ConfigError);
}

TEST_CASE("model: bf16 caches hold the rounded numbers of float32 ones") {
  torch::NoGradGuard no_grad;
  const auto rounded = [](const at::Tensor& x) { return x.to(torch::kBFloat16).to(torch::kFloat); };
  const auto input = ids(2, 60);
  for (const auto kind : kMixed) {  // one layer: what it caches does not depend on what it reads
    auto model = make({kind}, torch::kFloat);
    auto smaller =
        model->make_cache(2, {.tokens = CacheDtype::kBfloat16, .state = CacheDtype::kBfloat16});
    auto twin = model->make_cache(2);
    for (const auto& [begin, length] : {std::pair{0, 30}, {30, 1}, {31, 4}, {35, 1}, {36, 24}}) {
      const auto piece = input.narrow(1, begin, length);
      const auto got = model->forward(piece, {}, &smaller),
                 exact = model->forward(piece, {}, &twin);
      if (begin == 0 || kind == MixerKind::kMamba2) check_equal(got, exact, "outputs");
      if (kind == MixerKind::kMamba2) {
        const auto& kept = cache_of<Mamba2Cache>(smaller.layers[0].get(), "mamba2");
        auto& state = cache_of<Mamba2Cache>(twin.layers[0].get(), "mamba2");
        CHECK(kept.ssm.scalar_type() == torch::kBFloat16);
        state.ssm = rounded(state.ssm);
        check_equal(kept.ssm.to(torch::kFloat), state.ssm, "state");
        continue;
      }
      const auto& kept = cache_of<TokenCache>(smaller.layers[0].get(), "tokens").stores;
      const auto& whole = cache_of<TokenCache>(twin.layers[0].get(), "tokens").stores;
      for (size_t s = 0; s < kept.size(); ++s) {
        CHECK(kept[s].values.scalar_type() == torch::kBFloat16);
        check_equal(kept[s].values.to(torch::kFloat), rounded(whole[s].values), "tokens");
      }
    }
  }
}

TEST_CASE("model: smaller caches change the output, but only that of later pieces") {
  torch::NoGradGuard no_grad;
  auto model = make(kMixed, torch::kFloat);
  const auto first = ids(2, 40), later = ids(2, 3);
  auto exact = model->make_cache(2);
  const auto whole = model->forward(first, {}, &exact), next = model->forward(later, {}, &exact);
  for (const CacheOptions& kept :
       {CacheOptions{.tokens = CacheDtype::kBfloat16}, CacheOptions{.tokens = CacheDtype::kInt8},
        CacheOptions{.state = CacheDtype::kBfloat16}}) {
    auto cache = model->make_cache(2, kept);
    check_equal(model->forward(first, {}, &cache), whole, "the first piece");
    CHECK(!torch::equal(model->forward(later, {}, &cache), next));
  }
}

}  // namespace zebra::testing
