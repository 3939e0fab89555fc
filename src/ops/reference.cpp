#include "ops/reference.h"

namespace zebra::reference {

namespace {

bool is_cut(const at::Tensor& segments, int64_t b, int64_t t) {
  if (!segments.defined() || t == 0) return false;
  return segments[b][t].item<int64_t>() != segments[b][t - 1].item<int64_t>();
}

// (B, 1, 1, 1): zero for the sequences whose state is cut before token t, else one.
at::Tensor carry_mask(const at::Tensor& segments, int64_t t, const at::Tensor& like) {
  at::Tensor mask = at::ones({like.size(0), 1, 1, 1}, like.options());
  for (int64_t b = 0; b < like.size(0); ++b) {
    if (is_cut(segments, b, t)) mask[b].zero_();
  }
  return mask;
}

}  // namespace

SsdOutput ssd(const SsdInput& in) {
  const int64_t B = in.x.size(0), T = in.x.size(1), P = in.x.size(3);
  const int64_t N = in.C.size(2), Z = in.C.size(3), heads = N / in.x.size(2);
  const auto type = in.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor x = in.x.to(type).repeat_interleave(heads, 2);     // (B, T, N, P)
  const at::Tensor keys = in.B.to(type).repeat_interleave(heads, 2);  // (B, T, N, Z)
  const at::Tensor queries = in.C.to(type);
  const at::Tensor A = -at::exp(in.A_log.to(type));
  const at::Tensor shifted = in.dt.to(type) + in.dt_bias.to(type);
  const at::Tensor dt = at::logaddexp(shifted, at::zeros_like(shifted));  // softplus

  at::Tensor state = in.state.defined() ? in.state.to(type) : at::zeros({B, N, P, Z}, x.options());
  std::vector<at::Tensor> outputs;
  for (int64_t t = 0; t < T; ++t) {
    const at::Tensor step = dt.select(1, t).view({B, N, 1, 1});
    const at::Tensor decay = at::exp(step * A.view({N, 1, 1})) * carry_mask(in.segments, t, x);
    const at::Tensor added = x.select(1, t).unsqueeze(3) * keys.select(1, t).unsqueeze(2);
    state = decay * state + step * added;  // (B, N, P, Z)
    outputs.push_back((state * queries.select(1, t).unsqueeze(2)).sum(3));
  }
  const at::Tensor scanned = T > 0 ? at::stack(outputs, 1) : at::zeros({B, 0, N, P}, x.options());
  const at::Tensor y = scanned + x * in.D.to(type).unsqueeze(1);  // (B, T, N, P)
  return {y.to(in.x.scalar_type()), state.detach()};
}

ConvOutput causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& state, const at::Tensor& segments) {
  const int64_t B = x.size(0), T = x.size(1), C = x.size(2), K = weight.size(1);
  const at::Tensor zero = at::zeros({C}, x.options());
  std::vector<at::Tensor> sequences, states;
  for (int64_t b = 0; b < B; ++b) {
    std::vector<at::Tensor> window(static_cast<size_t>(K), zero);  // the last K inputs
    if (state.defined()) {
      for (int64_t k = 0; k < K; ++k) window[static_cast<size_t>(k)] = state[b].select(1, k);
    }
    std::vector<at::Tensor> outputs;
    for (int64_t t = 0; t < T; ++t) {
      if (is_cut(segments, b, t)) window.assign(static_cast<size_t>(K), zero);
      window.erase(window.begin());
      window.push_back(x[b][t]);
      at::Tensor pre = bias.defined() ? bias : zero;
      for (int64_t k = 0; k < K; ++k) {
        pre = pre + weight.select(1, k) * window[static_cast<size_t>(k)];
      }
      outputs.push_back(pre * at::sigmoid(pre));
    }
    sequences.push_back(T > 0 ? at::stack(outputs, 0) : at::zeros({0, C}, x.options()));
    states.push_back(at::stack(window, 1).detach());  // (C, K)
  }
  return {at::stack(sequences, 0), at::stack(states, 0)};
}

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                          int64_t group_size, double eps) {
  const auto type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor z = gate.to(type);
  const at::Tensor q = x.to(type) * z * at::sigmoid(z);
  std::vector<at::Tensor> groups;
  for (const at::Tensor& group : q.split(group_size, -1)) {
    groups.push_back(group / at::sqrt(group.square().mean(-1, /*keepdim=*/true) + eps));
  }
  return (at::cat(groups, -1) * weight.to(type)).to(x.scalar_type());
}

}  // namespace zebra::reference
