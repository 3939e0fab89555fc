#include "ops/ssd.h"

#include "zebra/ops.h"

#include <algorithm>

namespace zebra {

namespace {

void check_shape(const char* name, const at::Tensor& tensor, at::IntArrayRef expected) {
  TORCH_CHECK(tensor.defined(), "ssd ", name, ": expected shape ", expected, ", got no tensor");
  TORCH_CHECK(tensor.sizes() == expected, "ssd ", name, ": expected shape ", expected, ", got ",
              tensor.sizes());
}

void check_shapes(const SsdInput& in) {
  TORCH_CHECK(in.x.defined() && in.x.dim() == 4, "ssd x: expected shape (B, T, G, P), got ",
              in.x.defined() ? in.x.sizes() : at::IntArrayRef());
  TORCH_CHECK(in.C.defined() && in.C.dim() == 4, "ssd C: expected shape (B, T, N, Z), got ",
              in.C.defined() ? in.C.sizes() : at::IntArrayRef());
  const int64_t B = in.x.size(0), T = in.x.size(1), G = in.x.size(2), P = in.x.size(3);
  const int64_t N = in.C.size(2), Z = in.C.size(3);
  TORCH_CHECK(G > 0 && P > 0 && Z > 0 && N > 0 && N % G == 0,
              "ssd: expected heads that are a multiple of the groups, got ", N, " heads, ", G,
              " groups, widths ", P, " and ", Z);
  check_shape("C", in.C, {B, T, N, Z});
  check_shape("B", in.B, {B, T, G, Z});
  check_shape("dt", in.dt, {B, T, N});
  check_shape("A_log", in.A_log, {N});
  check_shape("D", in.D, {N});
  check_shape("dt_bias", in.dt_bias, {N});
  if (in.state.defined()) check_shape("state", in.state, {B, N, P, Z});
  if (in.segments.defined()) check_shape("segments", in.segments, {B, T});
  TORCH_CHECK(in.chunk_size > 0, "ssd chunk_size: expected > 0, got ", in.chunk_size);
}

void check_types(const SsdInput& in) {
  const at::ScalarType dtype = in.x.scalar_type();
  TORCH_CHECK(at::isFloatingType(dtype), "ssd x: expected a floating type, got ", dtype);
  const auto check = [&](const char* name, const at::Tensor& tensor) {
    TORCH_CHECK(tensor.scalar_type() == dtype, "ssd ", name, ": expected x's dtype ", dtype,
                ", got ", tensor.scalar_type());
  };
  check("dt", in.dt);
  check("B", in.B);
  check("C", in.C);
  for (const at::Tensor& tensor : detail::ssd_tensors(in)) {
    TORCH_CHECK(!tensor.defined() || tensor.device() == in.x.device(),
                "ssd: expected every tensor on x's device ", in.x.device(), ", got one on ",
                tensor.device());
  }
  if (in.segments.defined()) {
    TORCH_CHECK(in.segments.scalar_type() == at::kLong, "ssd segments: expected int64, got ",
                in.segments.scalar_type());
  }
}

}  // namespace

SsdOutput ssd(const SsdInput& in) {
  check_shapes(in);
  check_types(in);
  const at::ScalarType dtype = in.x.scalar_type();
  const bool scan = in.x.is_cpu() && (dtype == at::kFloat || dtype == at::kDouble);
  return scan ? detail::ssd_scan(in) : detail::ssd_chunked(in);
}

namespace detail {

at::ScalarType accumulation_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor decay_rates(const at::Tensor& A_log, at::ScalarType dtype) {
  constexpr double kLargest = 1e20;  // products with it stay finite in float32
  return -at::exp(A_log.to(dtype)).clamp_max(kLargest);
}

at::Tensor segment_starts(const at::Tensor& segments) {
  const int64_t T = segments.size(1);
  at::Tensor starts = at::zeros(segments.sizes(), segments.options().dtype(at::kBool));
  if (T > 1) {
    starts.narrow(1, 1, T - 1).copy_(segments.narrow(1, 1, T - 1) != segments.narrow(1, 0, T - 1));
  }
  return starts;
}

std::vector<at::Tensor> ssd_tensors(const SsdInput& in) {
  return {in.x, in.dt, in.A_log, in.B, in.C, in.D, in.dt_bias, in.state, in.segments};
}

SsdInput ssd_input(const std::vector<at::Tensor>& tensors, int64_t chunk_size) {
  return {.x = tensors.at(0),
          .dt = tensors.at(1),
          .A_log = tensors.at(2),
          .B = tensors.at(3),
          .C = tensors.at(4),
          .D = tensors.at(5),
          .dt_bias = tensors.at(6),
          .state = tensors.at(7),
          .segments = tensors.at(8),
          .chunk_size = chunk_size};
}

std::vector<at::Tensor> ssd_leaves(const SsdInput& in) {
  return {in.x, in.dt, in.A_log, in.B, in.C, in.D, in.dt_bias};
}

bool wants_gradient(const std::vector<at::Tensor>& tensors) {
  return at::GradMode::is_enabled() &&
         std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& t) { return t.defined() && t.requires_grad(); });
}

}  // namespace detail

}  // namespace zebra
