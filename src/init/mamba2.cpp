// Mamba2 from attention, the transfer of MambaInLlama: docs/math/mamba2_init.md.
#include <cmath>

#include "base/hash.h"
#include "base/rng.h"
#include "init/mixers.h"
#include "zebra/error.h"

namespace zebra {

at::Tensor LayerRandom::uniform(const std::string& name, at::IntArrayRef shape, double low,
                                double high) const {
  Hasher key;
  key.add(seed);
  key.add(layer);
  key.add(name);
  auto generator = make_generator(key.value());
  return torch::empty(shape, at::kFloat).uniform_(low, high, generator);
}

void require_same(const std::string& key, int64_t got, int64_t expected) {
  if (got == expected) return;
  throw ConfigError(str(key, ": expected the base's ", expected, ", got ", got));
}

void put(at::Tensor& parameter, const at::Tensor& value, const at::Tensor& like) {
  TORCH_CHECK(parameter.sizes() == value.sizes(), "init: expected shape ", parameter.sizes(),
              ", got ", value.sizes());
  const at::NoGradGuard no_grad;
  parameter.set_data(value.detach().to(like.device(), like.scalar_type(), /*non_blocking=*/false,
                                       /*copy=*/true));
}

namespace {

constexpr double kStepLow = 1e-3, kStepHigh = 0.1, kStepFloor = 1e-4;  // of dt, log-uniform
constexpr double kDecayLow = 1.0, kDecayHigh = 16.0;                   // of A, uniform

void check_mamba2(const Mamba2Options& o, const MixerInit& from) {
  const auto& q = from.base.q_proj->weight;  // (N * H, D)
  const int64_t H = from.base.k_proj->weight.size(0) / from.base_kv_heads;
  require_same("mamba2.hidden_size", o.hidden_size, q.size(1));
  require_same("mamba2.num_heads", o.num_heads, q.size(0) / H);
  require_same("mamba2.num_kv_heads", o.num_kv_heads, from.base_kv_heads);
  require_same("mamba2.head_dim", o.head_dim, H);
  if (o.bias) return;
  for (const auto* linear :
       {&from.base.q_proj, &from.base.k_proj, &from.base.v_proj, &from.base.o_proj}) {
    const auto& bias = (*linear)->bias;
    if (!bias.defined() || bias.count_nonzero().item<int64_t>() == 0) continue;
    throw ConfigError(
        str("layer ", from.random.layer,
            ": the base's attention has biases: expected mamba2.bias true, got false"));
  }
}

// Inverse of softplus of steps that are log-uniform: (N)
at::Tensor random_dt_bias(int64_t N, const LayerRandom& random) {
  const at::Tensor logs =
      random.uniform("mamba.dt_bias", {N}, std::log(kStepLow), std::log(kStepHigh));
  const at::Tensor dt = logs.exp().clamp_min(kStepFloor);
  return dt + (-(-dt).expm1()).log();
}

// The rows of in_proj, or its bias: z, x, B, C, dt. The outer two are random.
at::Tensor stacked_rows(const Mamba2Impl& mamba2, const MixerInit& from, bool bias) {
  const Mamba2Options& o = mamba2.options();
  const int64_t D = o.hidden_size, NP = o.num_heads * o.head_dim;
  const double bound = 1.0 / std::sqrt(static_cast<double>(D));  // torch's default
  const std::string suffix = bias ? ".bias" : ".weight";
  const auto random = [&](const char* part, int64_t rows) {
    const std::vector<int64_t> shape =
        bias ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, D};
    return from.random.uniform("mamba.in_proj." + (part + suffix), shape, -bound, bound);
  };
  const auto copied = [&](const torch::nn::Linear& linear) {
    if (!bias) return linear->weight.detach().to(at::kCPU);
    if (linear->bias.defined()) return linear->bias.detach().to(at::kCPU);
    return torch::zeros({linear->weight.size(0)}, linear->weight.options().device(at::kCPU));
  };
  const at::Tensor v = copied(from.base.v_proj), k = copied(from.base.k_proj);
  const at::Tensor q = copied(from.base.q_proj);
  const auto dtype = q.scalar_type();
  return at::cat({random("z", NP).to(dtype), v, k, q, random("dt", o.num_heads).to(dtype)}, 0);
}

void init_random_convolution(Mamba2Impl& mamba2, const LayerRandom& random,
                             const at::Tensor& like) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(mamba2.options().d_conv));
  put(mamba2.conv_weight,
      random.uniform("mamba.conv1d.weight", mamba2.conv_weight.sizes(), -bound, bound), like);
  if (mamba2.conv_bias.defined()) {
    put(mamba2.conv_bias,
        random.uniform("mamba.conv1d.bias", mamba2.conv_bias.sizes(), -bound, bound), like);
  }
}

// Each channel passes its own newest value on; the random taps of the published start mix every
// value with those of three tokens before.
void init_identity_convolution(Mamba2Impl& mamba2, const at::Tensor& like) {
  auto taps = torch::zeros(mamba2.conv_weight.sizes());  // (C, 1, K)
  taps.select(-1, -1).fill_(1);
  put(mamba2.conv_weight, taps, like);
  if (mamba2.conv_bias.defined()) put(mamba2.conv_bias, at::zeros_like(mamba2.conv_bias), like);
}

void init_inner(Mamba2Impl& mamba2, const LayerRandom& random, const at::Tensor& like) {
  const Mamba2Options& o = mamba2.options();
  put(mamba2.norm->weight, at::ones_like(mamba2.norm->weight), like);
  // These stay exact in models of 16 bits.
  const bool reduced = at::isReducedFloatingType(like.scalar_type());
  const at::Tensor exact = reduced ? at::empty({0}, like.options().dtype(at::kFloat)) : like;
  put(mamba2.dt_bias, random_dt_bias(o.num_heads, random), exact);
  put(mamba2.A_log, random.uniform("mamba.A_log", {o.num_heads}, kDecayLow, kDecayHigh).log(),
      exact);
  put(mamba2.D, at::ones_like(mamba2.D), exact);
}

void fill_random(Mamba2Impl& mamba2, const LayerRandom& random, const at::Tensor& like) {
  const auto fill = [&](torch::nn::Linear& linear, const std::string& name) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(linear->weight.size(1)));
    put(linear->weight, random.uniform(name + ".weight", linear->weight.sizes(), -bound, bound),
        like);
    if (!linear->bias.defined()) return;
    put(linear->bias, random.uniform(name + ".bias", linear->bias.sizes(), -bound, bound), like);
  };
  fill(mamba2.in_proj, "mamba.in_proj");
  fill(mamba2.out_proj, "mamba.out_proj");
}

}  // namespace

void init_mixer(Mamba2Impl& mamba2, const MixerInit& from, InitOptions::Mamba2 how) {
  check_mamba2(mamba2.options(), from);
  const at::Tensor& like = from.base.q_proj->weight;
  init_inner(mamba2, from.random, like);
  if (how == InitOptions::Mamba2::kAttentionIdentity) {
    init_identity_convolution(mamba2, like);
  } else {
    init_random_convolution(mamba2, from.random, like);
  }
  if (how == InitOptions::Mamba2::kRandom) return fill_random(mamba2, from.random, like);
  put(mamba2.in_proj->weight, stacked_rows(mamba2, from, /*bias=*/false), like);
  put(mamba2.out_proj->weight, from.base.o_proj->weight, like);
  if (!mamba2.options().bias) return;
  put(mamba2.in_proj->bias, stacked_rows(mamba2, from, /*bias=*/true), like);
  const auto& bias = from.base.o_proj->bias;
  put(mamba2.out_proj->bias, bias.defined() ? bias : at::zeros_like(mamba2.out_proj->bias), like);
}

}  // namespace zebra
