// Sizes of the published models, and rotary frequencies.
#include "support/close_to.h"
#include "support/testing.h"
#include "zebra/error.h"
#include "zebra/model.h"

namespace zebra::testing {

namespace {

struct Published {
  const char* name;
  int64_t hidden, intermediate, layers, heads, head_dim, q_rank, kv_rank, nope, rope;
  bool tied;
  std::vector<int64_t> mla_layers;
  int64_t parameters;
  double kv_percent;
};

std::vector<int64_t> every_second(int64_t layers) {
  std::vector<int64_t> list;
  for (int64_t i = 0; i < layers; i += 2) list.push_back(i);
  return list;
}

const std::vector<Published> kPublished = {
    {"1B 8/8", 2048, 8192, 16, 32, 64, 1344, 128, 32, 32, true, every_second(16), 1267149568, 7.81},
    {"1B 4/12", 2048, 8192, 16, 32, 64, 1344, 128, 32, 32, true, {0, 5, 10, 14}, 1285700736, 3.91},
    {"3B 14/14", 3072, 8192, 28, 24, 128, 1536, 128, 64, 64, true, every_second(28), 3269234672,
     4.69},
    {"3B 6/22",
     3072,
     8192,
     28,
     24,
     128,
     1536,
     128,
     64,
     64,
     true,
     {0, 5, 10, 16, 21, 26},
     3389592112,
     2.01},
    {"8B 16/16", 4096, 14336, 32, 32, 128, 2048, 160, 64, 64, false, every_second(32), 8185746944,
     5.47},
    {"8B 8/24",
     4096,
     14336,
     32,
     32,
     128,
     2048,
     160,
     64,
     64,
     false,
     {0, 4, 8, 12, 16, 20, 25, 30},
     8379095296,
     2.73},
};

ModelOptions options_of(const Published& p) {
  ModelOptions options;
  options.hidden_size = p.hidden;
  options.intermediate_size = p.intermediate;
  options.num_heads = p.heads;
  options.num_kv_heads = 8;
  options.head_dim = p.head_dim;
  options.tie_word_embeddings = p.tied;
  options.layers.assign(p.layers, MixerKind::kMamba2);
  for (const int64_t i : p.mla_layers) options.layers[i] = MixerKind::kMla;
  options.mla = {.hidden_size = p.hidden,
                 .num_heads = p.heads,
                 .num_kv_heads = 8,
                 .q_lora_rank = p.q_rank,
                 .kv_lora_rank = p.kv_rank,
                 .qk_nope_head_dim = p.nope,
                 .qk_rope_head_dim = p.rope,
                 .v_head_dim = p.head_dim};
  options.mamba2 = {
      .hidden_size = p.hidden, .num_heads = p.heads, .num_kv_heads = 8, .head_dim = p.head_dim};
  return options;
}

}  // namespace

TEST_CASE("model: parameter counts and cache shares are the published ones") {
  for (const auto& published : kPublished) {
    INFO(published.name);
    auto options = options_of(published);
    CHECK(count_parameters(options) == published.parameters);
    const auto hybrid = cache_size(options).kv_values_per_token;
    options.layers.assign(options.layers.size(), MixerKind::kAttention);
    const auto base = cache_size(options).kv_values_per_token;
    CHECK(100.0 * static_cast<double>(hybrid) / static_cast<double>(base) ==
          Approx(published.kv_percent).margin(0.006));
  }
}

TEST_CASE("model: count_parameters counts what a model registers") {
  auto options = options_of(kPublished[0]);
  options.vocab_size = 50;
  options.hidden_size = options.mla.hidden_size = options.mamba2.hidden_size = 64;
  options.layers = {MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention};
  for (const bool tied : {false, true}) {
    options.tie_word_embeddings = tied;
    int64_t total = 0;
    for (const auto& parameter : CausalLm(options)->parameters()) total += parameter.numel();
    CHECK(count_parameters(options) == total);
  }
}

TEST_CASE("rope: YaRN's attention factor and ramp are the published constants") {
  const RopeOptions yarn{.scaling = RopeScaling::kYarn, .theta = 500000, .factor = 32};
  const RopeFrequencies of32(yarn, 32), plain32({.theta = 500000}, 32);
  CHECK(of32.attention_factor == Approx(1.34657).margin(1e-5));
  const auto ratio = (of32.inverse / plain32.inverse);
  for (int64_t i = 0; i < 16; ++i) {  // the ramp runs from dimension 4 to 9
    const double ramp = std::clamp((static_cast<double>(i) - 4) / 5, 0.0, 1.0);
    CHECK(ratio[i].item<double>() == Approx(ramp / 32 + 1 - ramp).margin(1e-6));
  }
  auto eight = yarn;
  eight.factor = 8;
  CHECK(RopeFrequencies(eight, 64).attention_factor == Approx(1.20794).margin(1e-5));
}

TEST_CASE("model: impossible shapes are refused by name") {
  auto options = options_of(kPublished[0]);
  options.mla.kv_lora_rank = 12;
  CHECK_THROWS_WITH(options.validate(),
                    ContainsSubstring("kv_lora_rank 12 is not a multiple of 8"));
  options = options_of(kPublished[0]);
  options.num_kv_heads = 5;
  CHECK_THROWS_AS(options.validate(), ConfigError);
}

}  // namespace zebra::testing
