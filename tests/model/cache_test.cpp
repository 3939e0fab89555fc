// Every kind of mixer: pieces equal the whole, absorbed equals expanded, nothing looks ahead,
// documents stay apart.
#include "support/close_to.h"
#include "support/testing.h"
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
  CHECK(cache.length == input.size(1));
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

}  // namespace zebra::testing
