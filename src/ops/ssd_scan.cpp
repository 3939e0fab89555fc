#include "ops/ssd.h"

#include "ops/cpu/kernels.h"
#include "ops/cpu/launch.h"

namespace zebra::detail {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The inputs as the kernels want them; keeps the memory that the pointers lead to alive.
template <class Real>
struct ScanInputs {
  at::Tensor x, dt, A, B, C, D, dt_bias, starts;
  SsdInputs<Real> kernel;

  explicit ScanInputs(const SsdInput& in) {
    const at::ScalarType dtype = in.x.scalar_type();
    x = with_dense_tokens(in.x);
    dt = with_dense_tokens(in.dt);
    B = with_dense_tokens(in.B);
    C = with_dense_tokens(in.C);
    A = decay_rates(in.A_log, dtype).contiguous();
    D = in.D.to(dtype).contiguous();
    dt_bias = in.dt_bias.to(dtype).contiguous();
    if (in.segments.defined()) starts = segment_starts(in.segments).to(at::kByte);
    kernel.shape = {in.x.size(0), in.x.size(1), in.x.size(2),
                    in.C.size(2), in.x.size(3), in.C.size(3)};
    kernel.x = rows_of<Real>(x);
    kernel.dt = rows_of<Real>(dt);
    kernel.B = rows_of<Real>(B);
    kernel.C = rows_of<Real>(C);
    kernel.A = A.const_data_ptr<Real>();
    kernel.D = D.const_data_ptr<Real>();
    kernel.dt_bias = dt_bias.const_data_ptr<Real>();
    kernel.starts = data_or_null<uint8_t>(starts);
  }
};

struct ScanResult {
  at::Tensor y;            // (B, T, N, P)
  at::Tensor state;        // (B, N, P, Z)
  at::Tensor checkpoints;  // (B, N, chunks, P, padded Z), undefined unless asked for
};

template <class Real>
ScanResult run_forward(const SsdInput& in, bool keep_checkpoints) {
  const ScanInputs<Real> inputs(in);
  const SsdShape& s = inputs.kernel.shape;
  ScanResult result{at::empty({s.B, s.T, s.N, s.P}, in.x.options()),
                    at::empty({s.B, s.N, s.P, s.Z}, in.x.options()),
                    {}};
  at::Tensor state;
  if (in.state.defined()) state = in.state.to(in.x.scalar_type()).contiguous();
  SsdForward<Real> args{.in = inputs.kernel, .state_in = data_or_null<Real>(state)};
  args.y = result.y.template mutable_data_ptr<Real>();
  args.state_out = result.state.template mutable_data_ptr<Real>();
  if (keep_checkpoints) {
    result.checkpoints =
        at::empty({s.B, s.N, s.chunks(), s.P, padded_state_width(s.Z)}, in.x.options());
    args.checkpoints = result.checkpoints.template mutable_data_ptr<Real>();
  }
  for_items(s.B * s.N, s.T * s.P * s.Z, [&](int64_t begin, int64_t end) {
    Scratch<Real> scratch(ssd_forward_scratch(s));
    kernels<Real>().ssd_forward(args, begin, end, scratch.data());
  });
  return result;
}

// Gradients in the order of ssd_leaves(), and an undefined one for the rest.
template <class Real>
variable_list run_backward(const SsdInput& in, const at::Tensor& checkpoints,
                           const at::Tensor& y_gradient) {
  const ScanInputs<Real> inputs(in);
  const SsdShape& s = inputs.kernel.shape;
  const at::TensorOptions options = in.x.options();
  const at::Tensor dy = y_gradient.contiguous();
  at::Tensor dx = at::empty({s.B, s.T, s.G, s.P}, options);
  at::Tensor ddt = at::empty({s.B, s.T, s.N}, options);
  at::Tensor dB = at::empty({s.B, s.T, s.G, s.Z}, options);
  at::Tensor dC = at::empty({s.B, s.T, s.N, s.Z}, options);
  at::Tensor dscalars = at::empty({s.B, s.N, 3}, options.dtype(at::kDouble));
  const SsdBackward<Real> args{.in = inputs.kernel,
                               .dy = dy.const_data_ptr<Real>(),
                               .checkpoints = checkpoints.const_data_ptr<Real>(),
                               .dx = dx.mutable_data_ptr<Real>(),
                               .ddt = ddt.mutable_data_ptr<Real>(),
                               .dB = dB.mutable_data_ptr<Real>(),
                               .dC = dC.mutable_data_ptr<Real>(),
                               .dscalars = dscalars.mutable_data_ptr<double>()};
  for_items(s.B * s.G, 4 * s.T * s.P * s.Z * (s.N / s.G), [&](int64_t begin, int64_t end) {
    Scratch<Real> scratch(ssd_backward_scratch(s));
    kernels<Real>().ssd_backward(args, begin, end, scratch.data());
  });

  const at::Tensor sums = dscalars.sum(0);                                 // (N, 3)
  const at::Tensor dA_log = sums.select(1, 0) * inputs.A.to(at::kDouble);  // (N) dA/dA_log = A
  return {dx,
          ddt,
          dA_log.to(in.A_log.scalar_type()),
          dB,
          dC,
          sums.select(1, 1).to(in.D.scalar_type()),
          sums.select(1, 2).to(in.dt_bias.scalar_type()),
          at::Tensor()};
}

ScanResult forward_of(const SsdInput& in, bool keep_checkpoints) {
  return in.x.scalar_type() == at::kDouble ? run_forward<double>(in, keep_checkpoints)
                                           : run_forward<float>(in, keep_checkpoints);
}

class ScanFunction : public torch::autograd::Function<ScanFunction> {
 public:
  // `leaves` are ssd_leaves(in), where autograd can see them.
  static variable_list forward(AutogradContext* context, at::TensorList /*leaves*/,
                               const SsdInput& in) {
    const ScanResult result = forward_of(in, /*keep_checkpoints=*/true);
    variable_list saved = ssd_tensors(in);
    saved.push_back(result.checkpoints);
    context->save_for_backward(saved);
    context->mark_non_differentiable({result.state});
    return {result.y, result.state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "ssd: expected no second derivative to be asked for");
    const variable_list saved = context->get_saved_variables();
    const SsdInput in = ssd_input(saved, kScanChunk);
    return in.x.scalar_type() == at::kDouble
               ? run_backward<double>(in, saved.back(), gradients.at(0))
               : run_backward<float>(in, saved.back(), gradients.at(0));
  }
};

}  // namespace

SsdOutput ssd_scan(const SsdInput& in) {
  const std::vector<at::Tensor> leaves = ssd_leaves(in);
  if (!wants_gradient(leaves)) {
    const at::NoGradGuard no_grad;
    const ScanResult result = forward_of(in, /*keep_checkpoints=*/false);
    return {result.y, result.state};
  }
  const variable_list outputs = ScanFunction::apply(at::TensorList(leaves), in);
  return {outputs.at(0), outputs.at(1)};
}

}  // namespace zebra::detail
