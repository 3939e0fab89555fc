// MLA from attention by truncated singular value decompositions: docs/math/mla_svd.md.
#include <cmath>

#include "init/mixers.h"
#include "zebra/error.h"

namespace zebra {

namespace {

// Float64 stays, everything else becomes float32.
at::Tensor widened(const at::Tensor& weight) {
  return weight.scalar_type() == at::kDouble ? weight : weight.to(at::kFloat);
}

struct LowRank {
  at::Tensor up;    // (M, R)
  at::Tensor down;  // (R, D), carries the singular values
  double energy = 0;
};

// The best approximation of rank R. matrix: (M, D)
LowRank truncated(const at::Tensor& matrix, int64_t R) {
  const auto [U, S, Vh] = at::linalg_svd(matrix, /*full_matrices=*/false);
  const at::Tensor squares = S.to(at::kDouble).square();
  LowRank result;
  result.up = U.narrow(1, 0, R);                                      // (M, R)
  result.down = S.narrow(0, 0, R).unsqueeze(1) * Vh.narrow(0, 0, R);  // (R, D)
  result.energy = (squares.narrow(0, 0, R).sum() / squares.sum()).item<double>();
  return result;
}

double relative_error(const at::Tensor& got, const at::Tensor& expected) {
  return ((got - expected).norm() / expected.norm()).item<double>();
}

// Of every head the first Hn rows, then the last Hr. rows: (N * H, C) -> (N * (Hn + Hr), C)
at::Tensor query_rows(const at::Tensor& rows, const MlaOptions& o) {
  const int64_t C = rows.size(1), H = rows.size(0) / o.num_heads;
  const at::Tensor heads = rows.reshape({o.num_heads, H, C});
  const at::Tensor nope = heads.narrow(1, 0, o.qk_nope_head_dim);
  const at::Tensor rope = heads.narrow(1, H - o.qk_rope_head_dim, o.qk_rope_head_dim);
  return at::cat({nope, rope}, 1).reshape({-1, C});
}

// Of every key head the first Hn rows, then all of the value head. rows: (2 * G * H, C) -> (G * (Hn
// + H), C)
at::Tensor key_value_rows(const at::Tensor& rows, const MlaOptions& o) {
  const int64_t C = rows.size(1), G = o.num_kv_heads, H = rows.size(0) / (2 * G);
  const at::Tensor heads = rows.reshape({2, G, H, C});
  const at::Tensor nope = heads[0].narrow(1, 0, o.qk_nope_head_dim);  // (G, Hn, C)
  return at::cat({nope, heads[1]}, 1).reshape({-1, C});
}

// The last Hr rows of a key head, averaged over the heads. k: (G * H, D) -> (Hr, D)
at::Tensor rope_key_rows(const at::Tensor& k, int64_t G, int64_t Hr) {
  const int64_t D = k.size(1), H = k.size(0) / G;
  return k.reshape({G, H, D}).narrow(1, H - Hr, Hr).mean(0);
}

void require_at_most(const char* key, int64_t value, int64_t limit, const char* what) {
  if (value <= limit) return;
  throw ConfigError(str("mla.", key, ": expected at most ", limit, " (", what, "), got ", value));
}

void require_shape(const char* name, const at::Tensor& weight, at::IntArrayRef expected) {
  TORCH_CHECK(weight.sizes() == expected, "init_mla ", name, ": expected shape ", expected,
              ", got ", weight.sizes());
}

}  // namespace

void check_mla(const MlaOptions& o, int64_t base_head_dim, int64_t base_kv_heads) {
  const int64_t D = o.hidden_size, N = o.num_heads, H = base_head_dim;
  if (o.num_kv_heads % base_kv_heads != 0) {
    throw ConfigError(str("mla.num_kv_heads: expected a multiple of the base's ", base_kv_heads,
                          ", got ", o.num_kv_heads));
  }
  if (o.qk_nope_head_dim + o.qk_rope_head_dim > H) {
    throw ConfigError(
        str("mla.qk_nope_head_dim + mla.qk_rope_head_dim: expected at most the base's ",
            "head width ", H, ", got ", o.qk_nope_head_dim, " + ", o.qk_rope_head_dim));
  }
  if (o.v_head_dim != H) {
    throw ConfigError(
        str("mla.v_head_dim: expected the base's head width ", H, ", got ", o.v_head_dim));
  }
  const char* const of_matrix = "the smaller side of the matrix that is decomposed";
  require_at_most("q_lora_rank", o.q_lora_rank, std::min(N * H, D), of_matrix);
  require_at_most("kv_lora_rank", o.kv_lora_rank, std::min(2 * o.num_kv_heads * H, D), of_matrix);
  for (const auto& [key, rank] : {std::pair<const char*, int64_t>{"q_lora_rank", o.q_lora_rank},
                                  {"kv_lora_rank", o.kv_lora_rank}}) {
    if (rank > 0 && o.rank_divisor > 0 && rank % o.rank_divisor == 0) continue;
    throw ConfigError(str("mla.", key, ": expected a positive multiple of rank_divisor ",
                          o.rank_divisor, ", got ", rank));
  }
}

at::Tensor stacked_kv(const AttentionWeights& base, int64_t base_kv_heads, int64_t kv_heads) {
  const int64_t D = base.k.size(1), H = base.k.size(0) / base_kv_heads;
  const auto repeated = [&](const at::Tensor& weight) {
    const at::Tensor heads = widened(weight).reshape({base_kv_heads, H, D});
    return heads.repeat_interleave(kv_heads / base_kv_heads, 0).reshape({kv_heads * H, D});
  };
  return at::cat({repeated(base.k), repeated(base.v)}, 0);  // (2 * G * H, D)
}

MlaInit init_mla(const AttentionWeights& base, const MlaOptions& options, int64_t base_kv_heads) {
  const at::NoGradGuard no_grad;
  const int64_t D = options.hidden_size, N = options.num_heads, H = base.q.size(0) / N;
  require_shape("q", base.q, {N * H, D});
  require_shape("k", base.k, {base_kv_heads * H, D});
  require_shape("v", base.v, {base_kv_heads * H, D});
  require_shape("o", base.o, {D, N * H});
  check_mla(options, H, base_kv_heads);
  const auto dtype = base.q.scalar_type();
  const at::Tensor q = widened(base.q);                                         // (N * H, D)
  const at::Tensor kv = stacked_kv(base, base_kv_heads, options.num_kv_heads);  // (2 * G * H, D)
  const LowRank q_low = truncated(q, options.q_lora_rank);
  const LowRank kv_low = truncated(kv, options.kv_lora_rank);
  const at::Tensor q_up = query_rows(q_low.up, options);        // (N * (Hn + Hr), Rq)
  const at::Tensor kv_up = key_value_rows(kv_low.up, options);  // (G * (Hn + Hv), Rkv)
  const at::Tensor rope_key =
      rope_key_rows(widened(base.k), base_kv_heads, options.qk_rope_head_dim);

  MlaInit init;
  init.weights.q_a = q_low.down.to(dtype);
  init.weights.q_b = q_up.to(dtype).contiguous();
  init.weights.kv_a = at::cat({kv_low.down, rope_key}, 0).to(dtype);  // (Rkv + Hr, D)
  init.weights.kv_b = kv_up.to(dtype).contiguous();
  init.weights.out = base.o.clone();
  init.report = {
      .q_rank = options.q_lora_rank,
      .kv_rank = options.kv_lora_rank,
      .q_energy = q_low.energy,
      .kv_energy = kv_low.energy,
      .q_error = relative_error(q_up.matmul(q_low.down), query_rows(q, options)),
      .kv_error = relative_error(kv_up.matmul(kv_low.down), key_value_rows(kv, options))};
  return init;
}

int64_t energy_rank(const at::Tensor& sigma, double energy, int64_t divisor, double power) {
  if (!(energy > 0) || energy > 1) {
    throw ConfigError(str("energy: expected more than 0 and at most 1, got ", energy));
  }
  if (!(power >= 1)) throw ConfigError(str("energy power: expected at least 1, got ", power));
  const int64_t R = sigma.size(0);
  if (divisor < 1 || divisor > R) {
    throw ConfigError(str("rank_divisor: expected from 1 to the matrix's ", R,
                          " singular values, got ", divisor));
  }
  const at::Tensor sums = sigma.to(at::kDouble).pow(power).cumsum(0);  // (R)
  const int64_t within = (sums <= energy * sums[R - 1]).sum().item<int64_t>();
  const int64_t rounded = (std::max<int64_t>(within, 1) + divisor - 1) / divisor * divisor;
  return std::min(rounded, R / divisor * divisor);
}

AttentionWeights weights_of(const AttentionImpl& attention) {
  return {.q = attention.q_proj->weight.detach(),
          .k = attention.k_proj->weight.detach(),
          .v = attention.v_proj->weight.detach(),
          .o = attention.o_proj->weight.detach()};
}

namespace {

// MLA has no bias behind its up-projections, where those of the base's queries, keys and values
// sit.
void check_biases(const MlaImpl& mla, const AttentionImpl& base, int64_t layer) {
  const auto zero = [](const torch::nn::Linear& linear) {
    return !linear->bias.defined() || linear->bias.count_nonzero().item<int64_t>() == 0;
  };
  const auto refuse = [&](const char* name) {
    throw ConfigError(str("layer ", layer, ": self_attn.", name, ".bias: expected zeros for MLA, ",
                          "which has no place for it, got others"));
  };
  if (!zero(base.q_proj)) refuse("q_proj");
  if (!zero(base.k_proj)) refuse("k_proj");
  if (!zero(base.v_proj)) refuse("v_proj");
  if (!mla.options().bias && !zero(base.o_proj)) refuse("o_proj");
}

// torch's default for linear layers.
void fill_random(torch::nn::Linear& linear, const char* name, const MixerInit& from) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(linear->weight.size(1)));
  put(linear->weight, from.random.uniform(name, linear->weight.sizes(), -bound, bound),
      from.base.q_proj->weight);
}

}  // namespace

SvdReport init_mixer(MlaImpl& mla, const MixerInit& from, InitOptions::Mla how) {
  const AttentionImpl& base = from.base;
  const at::Tensor& like = base.q_proj->weight;
  check_biases(mla, base, from.random.layer);
  for (auto* linear : {&mla.q_a_proj, &mla.kv_a_proj_with_mqa, &mla.out_proj}) {
    auto& bias = (*linear)->bias;
    if (bias.defined()) put(bias, at::zeros_like(bias), like);
  }
  if (mla.options().bias && base.o_proj->bias.defined()) {
    put(mla.out_proj->bias, base.o_proj->bias, like);
  }
  if (how == InitOptions::Mla::kRandom) {
    fill_random(mla.q_a_proj, "mla.q_a_proj", from);
    fill_random(mla.q_b_proj, "mla.q_b_proj", from);
    fill_random(mla.kv_a_proj_with_mqa, "mla.kv_a_proj_with_mqa", from);
    fill_random(mla.kv_b_proj, "mla.kv_b_proj", from);
    fill_random(mla.out_proj, "mla.out_proj", from);
    return {.q_rank = mla.options().q_lora_rank, .kv_rank = mla.options().kv_lora_rank};
  }
  const MlaInit made = init_mla(weights_of(base), mla.options(), from.base_kv_heads);
  put(mla.q_a_proj->weight, made.weights.q_a, like);
  put(mla.q_b_proj->weight, made.weights.q_b, like);
  put(mla.kv_a_proj_with_mqa->weight, made.weights.kv_a, like);
  put(mla.kv_b_proj->weight, made.weights.kv_b, like);
  put(mla.out_proj->weight, made.weights.out, like);
  return made.report;
}

}  // namespace zebra
