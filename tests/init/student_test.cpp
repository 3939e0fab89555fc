#include "fixtures.h"

#include "zebra/error.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

constexpr auto kA = MixerKind::kAttention, kL = MixerKind::kMla, kM = MixerKind::kMamba2;

at::Tensor weight(const CausalLm& model, const std::string& name) {
  const auto parameters = model->named_parameters();
  const at::Tensor* found = parameters.find(name);
  INFO(name);
  REQUIRE(found != nullptr);
  return found->detach();
}

at::Tensor layer_weight(const CausalLm& model, int64_t layer, const std::string& name) {
  return weight(model, "model.layers." + std::to_string(layer) + "." + name);
}

void check_layers_equal(const CausalLm& a, const CausalLm& b, int64_t layer) {
  const auto first = a->block(layer)->named_parameters(),
             second = b->block(layer)->named_parameters();
  CHECK(first.keys() == second.keys());
  for (const auto& item : first)
    check_equal(second[item.key()].detach(), item.value().detach(), item.key());
}

const at::Tensor kIds = torch::arange(20).mul(7).remainder(61).view({2, 10});

}  // namespace

TEST_CASE("student: everything outside the mixers is a copy of the base's") {
  for (const bool tied : {true, false}) {
    auto base_of = base_options();
    base_of.tie_word_embeddings = tied;
    const CausalLm base = seeded_model(base_of);
    auto options = student_options({kL, kM, kA, kM});
    options.tie_word_embeddings = tied;
    const CausalLm student = init_student(base, options, {}).model;
    const auto parameters = base->named_parameters();
    for (const auto& item : student->named_parameters()) {
      if (item.key().find(".mla.") != std::string::npos) continue;
      if (item.key().find(".mamba.") != std::string::npos) continue;
      check_equal(item.value().detach(), parameters[item.key()].detach(), item.key());
      CHECK(item.value().data_ptr() != parameters[item.key()].data_ptr());
      CHECK(item.value().requires_grad());
    }
  }
}

TEST_CASE("student: Mamba2 takes V, K and Q as x, B and C, and O as its output") {
  const CausalLm base = seeded_model(base_options());
  for (const bool before : {false, true}) {
    auto options = student_options(pure(kM));
    options.mamba2.repeat_kv_before_conv = before;
    const CausalLm student = init_student(base, options, {}).model;
    for (int64_t layer = 0; layer < 4; ++layer) {
      const auto in =
          layer_weight(student, layer, "mamba.in_proj.weight");  // z 32, x 16, B 16, C 32, dt 4
      check_equal(in.narrow(0, 32, 16), layer_weight(base, layer, "self_attn.v_proj.weight"), "x");
      check_equal(in.narrow(0, 48, 16), layer_weight(base, layer, "self_attn.k_proj.weight"), "B");
      check_equal(in.narrow(0, 64, 32), layer_weight(base, layer, "self_attn.q_proj.weight"), "C");
      check_equal(layer_weight(student, layer, "mamba.out_proj.weight"),
                  layer_weight(base, layer, "self_attn.o_proj.weight"), "out");
    }
  }
}

TEST_CASE("student: what Mamba2 leaves random has the published ranges") {
  auto base_of = base_options();
  base_of.hidden_size = 64;
  base_of.num_heads = 32;
  base_of.num_kv_heads = 16;
  base_of.head_dim = 4;
  const CausalLm base = seeded_model(base_of);
  auto options = base_of;
  options.layers = pure(kM);
  options.mamba2 = {.hidden_size = 64, .num_heads = 32, .num_kv_heads = 16, .head_dim = 4};
  const CausalLm student = init_student(base, options, {}).model;
  const auto check_uniform = [](const at::Tensor& t, double low, double high, const char* name) {
    INFO(name);
    const double n = static_cast<double>(t.numel()), range = high - low;
    CHECK(t.min().item<double>() >= low);
    CHECK(t.max().item<double>() <= high);
    // five standard errors of the mean, and a variance of range^2 / 12
    CHECK(std::abs(t.mean().item<double>() - (low + high) / 2) < 5 * range / std::sqrt(12 * n));
    CHECK(t.var().item<double>() == Approx(range * range / 12).epsilon(0.35));
  };
  std::vector<at::Tensor> steps, decays;
  for (int64_t layer = 0; layer < 4; ++layer) {
    const auto in =
        layer_weight(student, layer, "mamba.in_proj.weight");  // z 128, x 64, B 64, C 128, dt 32
    check_uniform(in.narrow(0, 0, 128), -0.125, 0.125, "z");
    check_uniform(in.narrow(0, 384, 32), -0.125, 0.125, "dt");
    check_uniform(layer_weight(student, layer, "mamba.conv1d.weight"), -0.5, 0.5, "conv weight");
    check_uniform(layer_weight(student, layer, "mamba.conv1d.bias"), -0.5, 0.5, "conv bias");
    steps.push_back(
        torch::softplus(layer_weight(student, layer, "mamba.dt_bias").to(at::kDouble)).log());
    decays.push_back(layer_weight(student, layer, "mamba.A_log").to(at::kDouble).exp());
    check_equal(layer_weight(student, layer, "mamba.D"), torch::ones({32}), "D");
    check_equal(layer_weight(student, layer, "mamba.norm.weight"), torch::ones({128}), "norm");
  }
  check_uniform(torch::cat(steps), std::log(1e-3) - 1e-5, std::log(0.1) + 1e-5, "log dt");
  check_uniform(torch::cat(decays), 1.0 - 1e-5, 16.0 + 1e-5, "A");
}

TEST_CASE(
    "student: a layer is the same in every composition, and another with another seed or place") {
  const CausalLm base = seeded_model(base_options());
  torch::manual_seed(1);
  const CausalLm one = init_student(base, student_options({kM, kM, kL, kM}), {}).model;
  torch::manual_seed(2);
  const CausalLm two = init_student(base, student_options({kL, kM, kL, kA}), {}).model;
  check_layers_equal(one, two, 1);
  check_layers_equal(one, two, 2);
  const CausalLm other = init_student(base, student_options({kM, kM, kL, kM}), {.seed = 43}).model;
  for (const char* name : {"mamba.conv1d.weight", "mamba.conv1d.bias", "mamba.dt_bias",
                           "mamba.A_log", "mamba.in_proj.weight"}) {
    CHECK(!torch::equal(layer_weight(one, 1, name), layer_weight(other, 1, name)));
    CHECK(!torch::equal(layer_weight(one, 1, name), layer_weight(one, 3, name)));
  }
}

TEST_CASE(
    "student: attention_identity passes tokens through the convolution, the rest is as published") {
  const CausalLm base = seeded_model(base_options());
  const auto options = student_options({kM, kM, kM, kM});
  const CausalLm published = init_student(base, options, {}).model;
  const CausalLm identity =
      init_student(base, options, {.mamba2 = InitOptions::Mamba2::kAttentionIdentity}).model;
  const auto taps = layer_weight(identity, 1, "mamba.conv1d.weight");  // (C, 1, K)
  const auto x = torch::randn({1, taps.size(0), 9});                   // (B, C, T)
  const int64_t before = taps.size(2) - 1;
  const auto y = torch::conv1d(torch::constant_pad_nd(x, {before, 0}), taps,
                               layer_weight(identity, 1, "mamba.conv1d.bias"), /*stride=*/{1},
                               /*padding=*/at::IntArrayRef{0}, /*dilation=*/{1}, taps.size(0));
  check_equal(y, x);
  for (const char* name : {"mamba.in_proj.weight", "mamba.out_proj.weight", "mamba.dt_bias",
                           "mamba.A_log", "mamba.D", "mamba.norm.weight"}) {
    check_equal(layer_weight(identity, 1, name), layer_weight(published, 1, name));
  }
}

TEST_CASE("student: random mixers are random and the rest is still copied") {
  const CausalLm base = seeded_model(base_options());
  const auto options = student_options({kL, kM, kL, kM});
  const InitOptions random{.mla = InitOptions::Mla::kRandom,
                           .mamba2 = InitOptions::Mamba2::kRandom};
  const CausalLm one = init_student(base, options, random).model;
  const CausalLm two = init_student(base, options, random).model;
  for (int64_t layer = 0; layer < 4; ++layer) check_layers_equal(one, two, layer);
  CHECK(!torch::equal(layer_weight(one, 1, "mamba.out_proj.weight"),
                      layer_weight(base, 1, "self_attn.o_proj.weight")));
  CHECK(layer_weight(one, 0, "mla.kv_b_proj.weight").abs().max().item<double>() <=
        1 / std::sqrt(8.0));
  check_equal(layer_weight(one, 0, "mlp.up_proj.weight"),
              layer_weight(base, 0, "mlp.up_proj.weight"));
}

TEST_CASE("student: initialisation leaves the base and the default generator alone") {
  const CausalLm base = seeded_model(base_options()), twin = seeded_model(base_options());
  torch::manual_seed(3);
  const auto expected = torch::rand({4});
  torch::manual_seed(3);
  init_student(base, student_options({kL, kM, kA, kM}), {});
  check_equal(torch::rand({4}), expected);
  for (int64_t layer = 0; layer < 4; ++layer) check_layers_equal(base, twin, layer);
}

TEST_CASE("student: biases of attention go where there is a place for them") {
  auto base_of = base_options();
  base_of.attention_bias = true;
  CausalLm base = seeded_model(base_of);
  {
    const torch::NoGradGuard no_grad;
    for (auto& item : base->named_parameters()) {
      if (item.key().find("self_attn") != std::string::npos && item.key().ends_with(".bias")) {
        item.value().uniform_(-1, 1, make_generator(item.key().size()));
      }
    }
  }
  auto options = student_options(pure(kM));
  options.attention_bias = true;
  CHECK_THROWS_WITH(init_student(base, options, {}),
                    ContainsSubstring("expected mamba2.bias true"));
  options.mamba2.bias = true;
  const CausalLm student = init_student(base, options, {}).model;
  const auto bias = layer_weight(student, 1, "mamba.in_proj.bias");
  check_equal(bias.narrow(0, 32, 16), layer_weight(base, 1, "self_attn.v_proj.bias"), "x");
  check_equal(bias.narrow(0, 48, 16), layer_weight(base, 1, "self_attn.k_proj.bias"), "B");
  check_equal(bias.narrow(0, 64, 32), layer_weight(base, 1, "self_attn.q_proj.bias"), "C");
  check_equal(layer_weight(student, 1, "mamba.out_proj.bias"),
              layer_weight(base, 1, "self_attn.o_proj.bias"));

  options.layers = pure(kL);
  options.mla.bias = true;
  CHECK_THROWS_WITH(init_student(base, options, {}),
                    ContainsSubstring("layer 0: self_attn.q_proj.bias"));
  {
    const torch::NoGradGuard no_grad;
    for (int64_t layer = 0; layer < 4; ++layer) {
      for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
        base->named_parameters()[str("model.layers.", layer, ".self_attn.", name, ".bias")].zero_();
      }
    }
  }
  const CausalLm mla = init_student(base, options, {}).model;
  check_equal(layer_weight(mla, 2, "mla.out_proj.bias"),
              layer_weight(base, 2, "self_attn.o_proj.bias"));
  check_equal(layer_weight(mla, 2, "mla.q_a_proj.bias"), torch::zeros({16}));
  options.mla.bias = false;
  CHECK_THROWS_WITH(init_student(base, options, {}), ContainsSubstring("self_attn.o_proj.bias"));
}

TEST_CASE("student: a model of 16 bits keeps Mamba2's A_log, dt_bias and D in float32") {
  CausalLm base = seeded_model(base_options());
  base->to(at::kBFloat16);
  const CausalLm student = init_student(base, student_options({kL, kM, kA, kM}), {}).model;
  for (const auto& item : student->named_parameters()) {
    INFO(item.key());
    const bool exact = item.key().ends_with(".A_log") || item.key().ends_with(".dt_bias") ||
                       item.key().ends_with(".D");
    CHECK(item.value().scalar_type() == (exact ? at::kFloat : at::kBFloat16));
  }
}

TEST_CASE("student: a base of another shape or kind is refused") {
  const CausalLm base = seeded_model(base_options());
  const auto refused = [&](const std::string& text, auto change) {
    auto options = student_options({kL, kM, kA, kM});
    change(options);
    CHECK_THROWS_WITH(init_student(base, options, {}), ContainsSubstring(text));
    CHECK_THROWS_AS(init_student(base, options, {}), ConfigError);
  };
  refused("student layers: expected the base's 4, got 5",
          [](ModelOptions& o) { o.layers.push_back(MixerKind::kMla); });
  refused("vocab_size: expected the base's 61, got 60", [](ModelOptions& o) { o.vocab_size = 60; });
  refused("intermediate_size", [](ModelOptions& o) { o.intermediate_size = 40; });
  auto untied = base_options();
  untied.tie_word_embeddings = false;
  CHECK_THROWS_WITH(init_student(seeded_model(untied), student_options(pure(kL)), {}),
                    ContainsSubstring("student tie_word_embeddings: expected false"));
  const CausalLm hybrid = init_student(base, student_options(pure(kM)), {}).model;
  CHECK_THROWS_WITH(init_student(hybrid, student_options(pure(kL)), {}),
                    ContainsSubstring("expected a Llama"));
}

TEST_CASE("energy ranks: every layer has its own, the ends keep the fixed ones") {
  const CausalLm base = seeded_model(base_options());
  CHECK(energy_ranks(base, mla_options(), {}).empty());
  const auto ranks = energy_ranks(base, mla_options(), {.q_energy = 0.9, .kv_energy = 0.8});
  REQUIRE(ranks.size() == 4);
  CHECK(!ranks[0]);
  CHECK(!ranks[3]);
  for (const int64_t layer : {1, 2}) {
    REQUIRE(ranks[layer]);
    const auto q = layer_weight(base, layer, "self_attn.q_proj.weight");
    const auto kv = torch::cat({layer_weight(base, layer, "self_attn.k_proj.weight"),
                                layer_weight(base, layer, "self_attn.v_proj.weight")});
    CHECK(ranks[layer]->q_lora_rank == energy_rank(torch::linalg_svdvals(q), 0.9, 8, 2.0));
    CHECK(ranks[layer]->kv_lora_rank == energy_rank(torch::linalg_svdvals(kv), 0.8, 8, 2.0));
  }
  auto options = student_options(pure(kL));
  options.mla_ranks = ranks;
  const auto made = init_student(base, options, {});
  CHECK(made.layers[1].svd.q_rank == ranks[1]->q_lora_rank);
  CHECK(made.layers[1].svd.kv_rank == ranks[1]->kv_lora_rank);
  CHECK(made.layers[0].svd.q_rank == 16);
  const auto only_q = energy_ranks(base, mla_options(), {.q_energy = 0.9, .fixed_ends = false});
  REQUIRE(only_q[0]);
  CHECK(only_q[0]->kv_lora_rank == mla_options().kv_lora_rank);
}

TEST_CASE("mixer errors: copies have none, and each layer is judged on the base's own input") {
  const CausalLm base = seeded_model(base_options());
  const auto none = mixer_output_errors(base, init_student(base, base_options(), {}).model, kIds);
  CHECK(none == std::vector<double>(4, 0.0));

  CausalLm student = init_student(base, student_options({kL, kM, kA, kL}), {}).model;
  const auto before = mixer_output_errors(base, student, kIds);
  REQUIRE(before.size() == 4);
  CHECK(before[2] == 0.0);
  for (const int64_t layer : {0, 1, 3}) CHECK(before[layer] > 1e-3);
  {
    const torch::NoGradGuard no_grad;
    student->block(0)->named_parameters()["mla.out_proj.weight"].zero_();
  }
  const auto after = mixer_output_errors(base, student, kIds);
  CHECK(after[0] == Approx(1.0));
  CHECK(std::vector(after.begin() + 1, after.end()) ==
        std::vector(before.begin() + 1, before.end()));
}

TEST_CASE("compose: blocks come from where the plan says, as copies of their own") {
  const CausalLm base = seeded_model(base_options());
  CausalLm mla = init_student(base, student_options(pure(kL)), {}).model;
  CausalLm mamba2 = init_student(base, student_options(pure(kM)), {}).model;
  {
    const torch::NoGradGuard no_grad;  // as if trained: every parameter moved, the shell too
    for (auto& p : mla->parameters()) p.add_(0.25);
    for (auto& p : mamba2->parameters()) p.sub_(0.5);
  }
  CausalLm hybrid = compose(base, mla, mamba2, student_options({kL, kM, kA, kM}));
  check_layers_equal(hybrid, mla, 0);
  check_layers_equal(hybrid, mamba2, 1);
  check_layers_equal(hybrid, base, 2);
  check_layers_equal(hybrid, mamba2, 3);
  for (const char* name : {"model.embed_tokens.weight", "model.norm.weight"}) {
    check_equal(weight(hybrid, name), weight(base, name), name);
  }
  const auto before = weight(mla, "model.layers.0.mla.q_a_proj.weight").clone();
  {
    const torch::NoGradGuard no_grad;
    for (auto& p : hybrid->parameters()) p.zero_();
  }
  check_equal(weight(mla, "model.layers.0.mla.q_a_proj.weight"), before);
  CHECK(weight(base, "model.embed_tokens.weight").abs().sum().item<double>() > 0);
}

TEST_CASE("compose: students that do not fit the plan are refused") {
  const CausalLm base = seeded_model(base_options());
  const CausalLm mla = init_student(base, student_options(pure(kL)), {}).model;
  const CausalLm mamba2 = init_student(base, student_options(pure(kM)), {}).model;
  const CausalLm none{nullptr};
  const auto plan = student_options({kL, kM, kL, kM});
  CHECK_THROWS_WITH(compose(base, mamba2, mamba2, plan),
                    ContainsSubstring("layer 0: expected mla in the student, got mamba2"));
  CHECK_THROWS_WITH(compose(base, none, mamba2, plan),
                    ContainsSubstring("expected a student with mla"));
  CHECK_NOTHROW(compose(base, mla, none, student_options(pure(kL))));
  auto other = plan;
  other.mla.q_lora_rank = 24;
  CHECK_THROWS_WITH(compose(base, mla, mamba2, other),
                    ContainsSubstring("layer 0: mla.q_a_proj.weight"));
}
