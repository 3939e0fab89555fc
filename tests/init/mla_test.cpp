#include "fixtures.h"

#include "zebra/error.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

// The rows that MLA keeps of [W_K; W_V]: (G * (Hn + H), D)
at::Tensor kept_rows(const at::Tensor& k, const at::Tensor& v, const MlaOptions& o) {
  const auto nope = heads(k, o.num_kv_heads).narrow(1, 0, o.qk_nope_head_dim);
  return torch::cat({nope, heads(v, o.num_kv_heads)}, 1).reshape({-1, k.size(1)});
}

at::Tensor latent_product(const MlaWeights& w, const MlaOptions& o) {
  return w.kv_b.matmul(w.kv_a.narrow(0, 0, o.kv_lora_rank));
}

}  // namespace

TEST_CASE("mla init: at full rank the products are the base's own matrices") {
  const auto base = random_weights();
  auto options = mla_options();
  options.q_lora_rank = options.kv_lora_rank = kHidden;
  const auto made = init_mla(base, options, kKvHeads);
  check_close(made.weights.q_b.matmul(made.weights.q_a), base.q, kTwin64, "W_Q");
  check_close(latent_product(made.weights, options), kept_rows(base.k, base.v, options), kTwin64,
              "W_KV");
  check_equal(made.weights.out, base.o, "W_O");
  CHECK(made.report.q_energy == Approx(1.0));
  CHECK(made.report.q_error < 1e-12);
  CHECK(made.report.kv_error < 1e-12);
}

TEST_CASE("mla init: a cut product is the best of its rank, and the report says how good") {
  const auto base = random_weights();
  const auto options = mla_options();
  const auto made = init_mla(base, options, kKvHeads);
  const auto product = made.weights.q_b.matmul(made.weights.q_a);
  const auto sigma = std::get<1>(torch::linalg_svd(base.q, false));
  const double tail = sigma.narrow(0, 16, 16).square().sum().item<double>();
  CHECK((product - base.q).square().sum().item<double>() ==
        Approx(tail).epsilon(1e-10));  // Eckart-Young
  CHECK(made.report.q_error * made.report.q_error ==
        Approx(1 - made.report.q_energy).epsilon(1e-10));
  CHECK(made.report.q_rank == 16);
  CHECK(made.report.kv_rank == 8);

  const auto [U, S, V] = torch::linalg_svd(torch::cat({base.k, base.v}, 0), false);
  const auto best = U.narrow(1, 0, 8).matmul(S.narrow(0, 0, 8).diag()).matmul(V.narrow(0, 0, 8));
  const auto halves = best.chunk(2, 0);
  check_close(latent_product(made.weights, options), kept_rows(halves[0], halves[1], options),
              kTwin64, "kv");
  CHECK(made.report.kv_energy ==
        Approx((S.narrow(0, 0, 8).square().sum() / S.square().sum()).item<double>()));
  const auto kept = kept_rows(base.k, base.v, options);
  CHECK(
      made.report.kv_error ==
      Approx(((latent_product(made.weights, options) - kept).norm() / kept.norm()).item<double>()));
}

TEST_CASE("mla init: singular values go wholly into the down-projections") {
  const auto base = random_weights();
  const auto made = init_mla(base, mla_options(), kKvHeads);
  const auto gram = made.weights.q_b.t().matmul(made.weights.q_b);
  check_close(gram, torch::eye(16, at::kDouble), kTwin64, "q_b^T q_b");
  const auto S = std::get<1>(torch::linalg_svd(base.q, false)).narrow(0, 0, 16);
  check_close(made.weights.q_a.norm(2, 1), S, kTwin64, "rows of q_a");
}

TEST_CASE("mla init: of narrower heads the first rows are nope and the last are rope") {
  const auto base = random_weights();
  auto options = mla_options();
  options.qk_nope_head_dim = 3;
  options.qk_rope_head_dim = 2;
  options.q_lora_rank = kHidden;
  const auto made = init_mla(base, options, kKvHeads);
  const auto q = heads(base.q, kHeads);
  const auto expected =
      torch::cat({q.narrow(1, 0, 3), q.narrow(1, 6, 2)}, 1).reshape({-1, kHidden});
  check_close(made.weights.q_b.matmul(made.weights.q_a), expected, kTwin64, "q rows");
  const auto rope = heads(base.k, kKvHeads).narrow(1, 6, 2).mean(0);
  check_close(made.weights.kv_a.narrow(0, 8, 2), rope, kTwin64, "rope rows");
}

TEST_CASE("mla init: the full form repeats heads first and means over the original ones") {
  const auto base = random_weights();
  auto grouped = mla_options(), full = mla_options();
  full.num_kv_heads = kHeads;
  const auto of_grouped = init_mla(base, grouped, kKvHeads);
  const auto of_full = init_mla(base, full, kKvHeads);
  CHECK(of_full.weights.kv_b.size(0) == kHeads * (4 + kHeadDim));
  const auto rows = heads(latent_product(of_grouped.weights, grouped), kKvHeads);
  check_close(latent_product(of_full.weights, full),
              rows.repeat_interleave(2, 0).reshape({-1, kHidden}), kTwin64, "the same subspace");
  check_close(of_full.weights.kv_a.narrow(0, 8, 4), of_grouped.weights.kv_a.narrow(0, 8, 4),
              kTwin64, "rope rows");
  // sqrt(2) larger singular values, the same share of energy
  CHECK(of_full.report.kv_energy == Approx(of_grouped.report.kv_energy));
  CHECK(
      (of_full.weights.kv_a.narrow(0, 0, 8).norm() / of_grouped.weights.kv_a.narrow(0, 0, 8).norm())
          .item<double>() == Approx(std::sqrt(2.0)));
}

TEST_CASE("mla init: at full rank and without rope scores MLA is unrotated attention") {
  auto base = random_weights();
  heads(base.q, kHeads).narrow(1, 4, 4).zero_();  // queries ask nothing of the rope rows
  auto options = mla_options();
  options.q_lora_rank = options.kv_lora_rank = kHidden;
  const auto made = init_mla(base, options, kKvHeads).weights;
  const auto mla = std::make_shared<MlaImpl>(options);
  mla->to(at::kDouble);
  {
    const torch::NoGradGuard no_grad;
    mla->q_a_proj->weight.copy_(made.q_a);
    mla->q_b_proj->weight.copy_(made.q_b);
    mla->kv_a_proj_with_mqa->weight.copy_(made.kv_a);
    mla->kv_b_proj->weight.copy_(made.kv_b);
    mla->out_proj->weight.copy_(made.out);
  }
  const torch::NoGradGuard no_grad;
  const int64_t T = 9;
  const auto x = torch::randn({2, T, kHidden}, make_generator(4), at::TensorOptions(at::kDouble));
  SequenceContext context;
  context.mla_rope =
      RopeFrequencies(options.rope, 4).table(torch::arange(T).unsqueeze(0), at::kDouble);
  const auto q = at::linear(x, base.q).view({2, T, kHeads, kHeadDim});
  const auto k = at::linear(x, base.k).view({2, T, kKvHeads, kHeadDim});
  const auto v = at::linear(x, base.v).view({2, T, kKvHeads, kHeadDim});
  const auto expected = causal_attention(q, k, v, 1 / std::sqrt(8.0), {}).reshape({2, T, -1});
  check_close(mla->forward(x, context, nullptr), at::linear(expected, base.o), kTwin64, "output");
}

TEST_CASE("mla init: what cannot be made is refused with the key") {
  const auto base = random_weights();
  const auto refused = [&](const std::string& text, auto change) {
    auto options = mla_options();
    change(options);
    CHECK_THROWS_WITH(init_mla(base, options, kKvHeads), ContainsSubstring(text));
    CHECK_THROWS_AS(init_mla(base, options, kKvHeads), ConfigError);
  };
  refused(
      "qk_nope_head_dim + mla.qk_rope_head_dim: expected at most the base's head width 8, got 6 + "
      "4",
      [](MlaOptions& o) { o.qk_nope_head_dim = 6; });
  refused("mla.v_head_dim: expected the base's head width 8, got 4",
          [](MlaOptions& o) { o.v_head_dim = 4; });
  refused("mla.q_lora_rank: expected at most 32", [](MlaOptions& o) { o.q_lora_rank = 40; });
  refused("mla.kv_lora_rank: expected at most 32", [](MlaOptions& o) { o.kv_lora_rank = 40; });
  refused("mla.q_lora_rank: expected a positive multiple of rank_divisor 8, got 12",
          [](MlaOptions& o) { o.q_lora_rank = 12; });
  refused("mla.kv_lora_rank: expected a positive multiple",
          [](MlaOptions& o) { o.kv_lora_rank = 0; });
  refused("mla.num_kv_heads: expected a multiple of the base's 2, got 1",
          [](MlaOptions& o) { o.num_kv_heads = 1; });
}

TEST_CASE("mla init: weights of 16 bits are decomposed in float32 and rounded once") {
  const auto exact = random_weights();
  AttentionWeights base{exact.q.to(at::kBFloat16), exact.k.to(at::kBFloat16),
                        exact.v.to(at::kBFloat16), exact.o.to(at::kBFloat16)};
  const auto made = init_mla(base, mla_options(), kKvHeads);
  CHECK(made.weights.q_a.scalar_type() == at::kBFloat16);
  const AttentionWeights widened{base.q.to(at::kFloat), base.k.to(at::kFloat),
                                 base.v.to(at::kFloat), base.o.to(at::kFloat)};
  const auto reference = init_mla(widened, mla_options(), kKvHeads);
  check_equal(made.weights.q_a, reference.weights.q_a.to(at::kBFloat16), "q_a");
  check_equal(made.weights.kv_b, reference.weights.kv_b.to(at::kBFloat16), "kv_b");
}

TEST_CASE("energy rank: the singular values that stay within the energy are counted") {
  const auto sigma =
      torch::tensor({3.0, 2.0, 1.0, 0.0});      // shares 9/14, 13/14, 1, 1 of the squares
  CHECK(energy_rank(sigma, 0.5, 1, 2.0) == 1);  // none is within; at least one is kept
  CHECK(energy_rank(sigma, 0.7, 1, 2.0) == 1);
  CHECK(energy_rank(sigma, 0.95, 1, 2.0) == 2);
  CHECK(energy_rank(sigma, 1.0, 1, 2.0) == 4);
  CHECK(energy_rank(sigma, 0.95, 1, 1.0) == 2);  // shares 3/6, 5/6, 1
  CHECK(energy_rank(sigma, 0.8, 1, 1.0) == 1);
  CHECK(energy_rank(sigma, 0.5, 1, 1.0) == 1);
}

TEST_CASE("energy rank: rounded up to the divisor and never beyond the matrix") {
  const auto sigma = torch::ones({20});
  CHECK(energy_rank(sigma, 0.05, 8, 2.0) == 8);
  CHECK(energy_rank(sigma, 0.42, 8, 2.0) == 8);
  CHECK(energy_rank(sigma, 0.47, 8, 2.0) == 16);
  CHECK(energy_rank(sigma, 1.0, 8, 2.0) == 16);  // 24 would be more than there are
  CHECK_THROWS_AS(energy_rank(sigma, 0.9, 24, 2.0), ConfigError);
  CHECK_THROWS_AS(energy_rank(sigma, 0.0, 8, 2.0), ConfigError);
  CHECK_THROWS_AS(energy_rank(sigma, 1.1, 8, 2.0), ConfigError);
  CHECK_THROWS_AS(energy_rank(sigma, 0.9, 8, 0.5), ConfigError);
  CHECK_THROWS_AS(energy_rank(sigma, std::nan(""), 8, 2.0), ConfigError);
}
