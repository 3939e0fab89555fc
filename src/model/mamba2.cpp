#include <cmath>

#include "model/cache.h"
#include "model/project.h"
#include "zebra/mixers.h"

namespace zebra {

namespace {

// (B, T, G * H) -> (B, T, N * H), each head N / G times in a row.
at::Tensor repeat_heads(const at::Tensor& x, int64_t G, int64_t N) {
  if (G == N) return x;
  const int64_t B = x.size(0), T = x.size(1), H = x.size(2) / G;
  return x.view({B, T, G, 1, H}).expand({B, T, G, N / G, H}).reshape({B, T, N * H});
}

// Holds the convolution's parameters under the published names; the arithmetic is ops'
// causal_conv1d.
class ConvParameters : public torch::nn::Module {
 public:
  ConvParameters(int64_t channels, int64_t width, bool with_bias) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(width));  // torch's Conv1d default
    weight =
        register_parameter("weight", torch::empty({channels, 1, width}).uniform_(-bound, bound));
    if (with_bias)
      bias = register_parameter("bias", torch::empty({channels}).uniform_(-bound, bound));
  }
  at::Tensor weight, bias;
};

// The last K inputs of the convolution once it has taken in the first counts[b] of the fresh ones.
// before: (B, C, K) or undefined (zeros), fresh: (B, T, C) -> (B, C, K)
at::Tensor conv_window(const at::Tensor& before, const at::Tensor& fresh, int64_t K,
                       const std::vector<int64_t>& counts) {
  const int64_t B = fresh.size(0), C = fresh.size(2);
  const auto older = before.defined() ? before : at::zeros({B, C, K}, fresh.options());
  const auto all = at::cat({older.to(fresh.scalar_type()), fresh.transpose(1, 2)}, 2);
  const auto begin = at::tensor(counts, at::kLong).view({B, 1, 1});
  const auto places = (begin + at::arange(K, at::kLong)).to(fresh.device());  // (B, 1, K)
  return all.gather(2, places.expand({B, C, K}));
}

// Steps of which padding takes none: softplus is zero there, so the state neither fades nor grows.
at::Tensor steps_without_padding(const at::Tensor& dt, const std::vector<int64_t>& counts) {
  constexpr double kNoStep = -1e4;
  const auto real = at::tensor(counts, at::kLong).to(dt.device()).view({-1, 1, 1});
  const auto token = at::arange(dt.size(1), real.options()).view({1, -1, 1});
  return dt.masked_fill(token.ge(real), kNoStep);  // (B, T, N)
}

// Published ranges: dt log-uniform in [0.001, 0.1] with a floor of 1e-4, A uniform in [1, 16].
at::Tensor random_dt_bias(int64_t N) {
  const double low = std::log(0.001), high = std::log(0.1);
  const auto dt = torch::exp(torch::rand({N}) * (high - low) + low).clamp_min(1e-4);
  return dt + torch::log(-torch::expm1(-dt));  // inverse softplus
}

}  // namespace

int64_t Mamba2Impl::conv_channels() const {
  const int64_t inner = options_.num_heads * options_.head_dim;
  const int64_t narrow = options_.num_kv_heads * options_.head_dim;
  return options_.repeat_kv_before_conv ? 3 * inner : inner + 2 * narrow;
}

Mamba2Impl::Mamba2Impl(const Mamba2Options& options) : options_(options) {
  const auto& o = options_;
  const int64_t N = o.num_heads, D_in = N * o.head_dim, D_xb = o.num_kv_heads * o.head_dim;
  in_proj = register_module(
      "in_proj",
      torch::nn::Linear(
          torch::nn::LinearOptions(o.hidden_size, 2 * D_in + 2 * D_xb + N).bias(o.bias)));
  const auto conv = std::make_shared<ConvParameters>(conv_channels(), o.d_conv, o.conv_bias);
  conv1d = register_module<torch::nn::Module>("conv1d", conv);
  conv_weight = conv->weight;
  conv_bias = conv->bias;
  dt_bias = register_parameter("dt_bias", random_dt_bias(N));
  A_log = register_parameter("A_log", torch::empty({N}).uniform_(1, 16).log());
  this->D = register_parameter("D", torch::ones({N}));
  norm = register_module("norm", RmsNorm(D_in, o.norm_eps));
  out_proj = register_module(
      "out_proj", torch::nn::Linear(torch::nn::LinearOptions(D_in, o.hidden_size).bias(o.bias)));
}

at::Tensor Mamba2Impl::forward(const at::Tensor& x, const SequenceContext& context,
                               LayerCache* cache) {
  const int64_t B = x.size(0), T = x.size(1), N = options_.num_heads, H = options_.head_dim;
  const int64_t D_in = N * H, D_xb = options_.num_kv_heads * H;
  auto* own = cache == nullptr ? nullptr : &cache_of<Mamba2Cache>(cache, "mamba2");

  const auto parts =
      project(in_proj, x).split_with_sizes({D_in, 2 * D_xb + D_in, N}, -1);  // z, xBC, dt
  auto xbc = parts[1];
  if (options_.repeat_kv_before_conv) {
    const auto narrow = xbc.split_with_sizes({D_xb, D_xb, D_in}, -1);
    const auto repeat = [&](const at::Tensor& t) {
      return repeat_heads(t, options_.num_kv_heads, N);
    };
    xbc = torch::cat({repeat(narrow[0]), repeat(narrow[1]), narrow[2]}, -1);
  }
  const auto conv = causal_conv1d(xbc.contiguous(), conv_weight.squeeze(1), conv_bias,
                                  own ? own->conv : at::Tensor(), context.segments);

  const int64_t G = options_.repeat_kv_before_conv ? N : options_.num_kv_heads;
  const auto mixed = conv.y.split_with_sizes({G * H, G * H, D_in}, -1);
  SsdInput in;
  in.x = mixed[0].reshape({B, T, G, H});
  in.B = mixed[1].reshape({B, T, G, H});
  in.C = mixed[2].reshape({B, T, N, H});
  in.dt = parts[2];
  in.A_log = A_log;
  in.D = D;
  in.dt_bias = dt_bias;
  in.state = own ? own->ssm : at::Tensor();
  in.segments = context.segments;
  in.chunk_size = options_.chunk_size;
  const bool ragged = own != nullptr && !context.place.even && !context.place.tentative;
  if (ragged) in.dt = steps_without_padding(in.dt, context.place.counts);
  const auto scan = ssd(in);  // y: (B, T, N, P)
  if (own != nullptr && context.place.tentative) {
    own->waiting = Mamba2Cache::Waiting{.scan = in, .conv_inputs = xbc};
  } else if (own != nullptr) {
    own->conv =
        ragged ? conv_window(own->conv, xbc, options_.d_conv, context.place.counts) : conv.state;
    own->ssm = scan.state.to(own->state_type(scan.state.scalar_type()));
  }
  const auto y = gated_rms_norm(scan.y.reshape({B, T, D_in}), parts[0], norm->weight, H,
                                options_.norm_eps);  // (B, T, N * P)
  return project(out_proj, y);                       // (B, T, D)
}

std::unique_ptr<LayerCache> Mamba2Impl::make_cache(const CacheOptions& options) const {
  return std::make_unique<Mamba2Cache>(options, options_.d_conv);
}

// ---- cache --------------------------------------------------------------------------------------

Mamba2Cache::Mamba2Cache(const CacheOptions& options, int64_t conv_width)
    : options_(options), conv_width_(conv_width) {}

at::ScalarType Mamba2Cache::state_type(at::ScalarType computed) const {
  return options_.state == CacheDtype::kBfloat16 ? at::kBFloat16 : computed;
}

int64_t Mamba2Cache::state_bytes() const { return bytes_of(conv) + bytes_of(ssm); }

void Mamba2Cache::keep(const std::vector<int64_t>& counts) {
  TORCH_CHECK(waiting, "mamba2 keep: expected a proposed piece, got none");
  conv = conv_window(conv, waiting->conv_inputs, conv_width_, counts);
  waiting->scan.dt = steps_without_padding(waiting->scan.dt, counts);
  const auto state = ssd(waiting->scan).state;
  ssm = state.to(state_type(state.scalar_type()));
  waiting.reset();
}

std::unique_ptr<LayerCache> Mamba2Cache::select(const std::vector<int64_t>& rows) const {
  auto chosen = std::make_unique<Mamba2Cache>(options_, conv_width_);
  chosen->conv = rows_of(conv, rows);
  chosen->ssm = rows_of(ssm, rows);
  return chosen;
}

void Mamba2Cache::append(const LayerCache& other) {
  const auto* more = dynamic_cast<const Mamba2Cache*>(&other);
  TORCH_CHECK(more != nullptr, "cache: expected rows of the same kind of layer");
  conv = joined(conv, more->conv);
  ssm = joined(ssm, more->ssm);
}

void Mamba2Cache::restore(const std::vector<at::Tensor>& states) {
  conv = states.at(0);
  ssm = states.at(1);
  waiting.reset();
}

}  // namespace zebra
