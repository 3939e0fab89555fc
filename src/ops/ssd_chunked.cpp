// The product form of the scan; docs/math/ssd.md. Within a chunk of Q tokens everything is a
// batched product, the heads of a group packed into one so that x and B are read once; between the
// chunks only the states are handed on. Q is the chunk, C counts the chunks, R the heads of a
// group.
#include "ops/ssd.h"

#include <algorithm>
#include <limits>

namespace zebra::detail {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr double kLowestExponent = -100.0;  // of one token; exp of it is zero beside anything

struct Sizes {
  int64_t B, T, G, N, P, Z, R, Q, C;

  explicit Sizes(const SsdInput& in)
      : B(in.x.size(0)),
        T(in.x.size(1)),
        G(in.x.size(2)),
        N(in.C.size(2)),
        P(in.x.size(3)),
        Z(in.C.size(3)),
        R(N / G) {
    const int64_t longest = in.x.is_cpu() ? 64 : 128;
    Q = std::min({in.chunk_size, longest, std::max<int64_t>(1, T)});
    C = std::max<int64_t>(1, (T + Q - 1) / Q);
  }
};

// a @ b of batches in the accumulation type. On a GPU the operands go in as `operand` (bf16, half),
// which keeps the fast units busy; sums are float32 all the same.
at::Tensor product(const at::Tensor& a, const at::Tensor& b, at::ScalarType operand) {
  if (operand == at::kFloat || operand == at::kDouble) return at::bmm(a, b);
  return at::bmm(a.to(operand), b.to(operand), at::kFloat);
}

// (B, T, ...) -> (B, C * Q, ...) with zeros behind.
at::Tensor pad_tokens(const at::Tensor& tensor, const Sizes& s) {
  std::vector<int64_t> widths(static_cast<size_t>(2 * (tensor.dim() - 1)), 0);
  widths.back() = s.C * s.Q - s.T;
  return at::constant_pad_nd(tensor, widths);
}

// (Q, Q) of ones on and below (diagonal 0) or strictly above (upper) the diagonal.
at::Tensor lower_ones(int64_t Q, const at::TensorOptions& options) {
  return at::ones({Q, Q}, options).tril();
}

// ---- a sequence cut into chunks -----------------------------------------------------------------

struct Chunks {
  at::ScalarType operand;  // what products take
  at::Tensor x;            // (BCG, Q, P)
  at::Tensor keys;         // (BCG, Q, Z)
  at::Tensor queries;      // (BCG, RQ, Z)
  at::Tensor shifted;      // (B, T, N) dt before softplus
  at::Tensor A;            // (N)
  at::Tensor dt;           // (B, C, N, Q) after softplus, zero in the padding
  at::Tensor within;       // (B, C, N, Q, Q) exp(s_i - s_j) for j <= i
  at::Tensor from_start;   // (B, C, N, Q) exp(s_i)
  at::Tensor to_end;       // (B, C, N, Q) exp(s_Q - s_j)
  at::Tensor whole;        // (B, C, N) exp(s_Q)
};

// Which tokens of a chunk see each other, the chunk's start and its end. (B, C, 1, Q...) bool
struct Visibility {
  at::Tensor within, from_start, to_end, whole;
};

Visibility visibility(const at::Tensor& segments, const Sizes& s) {
  at::Tensor runs = segment_starts(segments).to(at::kLong).cumsum(1);  // (B, T) document counter
  if (s.T > 0 && s.C * s.Q > s.T) {
    const at::Tensor last = runs.narrow(1, s.T - 1, 1);
    runs = at::cat({runs, last.expand({s.B, s.C * s.Q - s.T})}, 1);
  } else if (s.T == 0) {
    runs = at::zeros({s.B, s.Q}, segments.options());
  }
  runs = runs.view({s.B, s.C, 1, s.Q});
  const at::Tensor last = runs.narrow(3, s.Q - 1, 1);  // (B, C, 1, 1)
  const at::Tensor first = at::zeros({s.B, 1, 1, 1}, runs.options());
  const at::Tensor before = at::cat({first, last.narrow(1, 0, s.C - 1)}, 1);
  return {runs.unsqueeze(-1) == runs.unsqueeze(-2), runs == before, runs == last,
          (last == before).squeeze(-1)};
}

void fill_decays(Chunks& chunks, const SsdInput& in, const Sizes& s) {
  const at::TensorOptions options = chunks.dt.options();
  const at::Tensor lower = lower_ones(s.Q, options.dtype(at::kDouble));
  // Sums in float64: differences of them stay exact beside strong decays.
  const at::Tensor steps = (chunks.dt * chunks.A.unsqueeze(-1)).clamp_min(kLowestExponent);
  const at::Tensor sums =
      at::matmul(steps.to(at::kDouble), lower.t()).to(options.dtype());  // (B, C, N, Q) s
  at::Tensor seen = lower.to(at::kBool);                                 // (Q, Q)
  const at::Tensor end = sums.narrow(-1, s.Q - 1, 1);                    // (B, C, N, 1)
  chunks.from_start = at::exp(sums);
  chunks.to_end = at::exp(end - sums);
  chunks.whole = at::exp(end.squeeze(-1));
  if (in.segments.defined()) {
    const Visibility visible = visibility(in.segments, s);
    seen = at::logical_and(seen, visible.within);  // (B, C, 1, Q, Q)
    chunks.from_start.mul_(visible.from_start);
    chunks.to_end.mul_(visible.to_end);
    chunks.whole.mul_(visible.whole);
  }
  // Masked before exp: above the diagonal the differences are positive and may overflow.
  at::Tensor exponents = sums.unsqueeze(-1) - sums.unsqueeze(-2);  // (B, C, N, Q, Q)
  exponents.masked_fill_(at::logical_not(seen), -std::numeric_limits<double>::infinity());
  chunks.within = exponents.exp_();
}

Chunks cut(const SsdInput& in, const Sizes& s) {
  const at::ScalarType type = accumulation_type(in.x.scalar_type());
  Chunks chunks;
  chunks.operand = in.x.is_cpu() ? type : in.x.scalar_type();
  const int64_t BCG = s.B * s.C * s.G;
  const auto grouped = [&](const at::Tensor& tensor, int64_t width) {  // (B, T, G, width)
    return pad_tokens(tensor.to(type), s)
        .view({s.B, s.C, s.Q, s.G, width})
        .transpose(2, 3)
        .reshape({BCG, s.Q, width});
  };
  chunks.x = grouped(in.x, s.P);     // (BCG, Q, P)
  chunks.keys = grouped(in.B, s.Z);  // (BCG, Q, Z)
  chunks.queries = pad_tokens(in.C.to(type), s)
                       .view({s.B, s.C, s.Q, s.N, s.Z})
                       .transpose(2, 3)
                       .reshape({BCG, s.R * s.Q, s.Z});  // (BCG, RQ, Z)
  chunks.A = decay_rates(in.A_log, type);
  chunks.shifted = in.dt.to(type) + in.dt_bias.to(type);  // (B, T, N)
  const at::Tensor dt = at::logaddexp(chunks.shifted, at::zeros({}, chunks.shifted.options()));
  chunks.dt =
      pad_tokens(dt, s).view({s.B, s.C, s.Q, s.N}).transpose(2, 3).contiguous();  // (B, C, N, Q)
  fill_decays(chunks, in, s);
  return chunks;
}

// x times the weights of its heads, transposed: what a head adds to the chunk's state, before B.
at::Tensor weighted_values(const Chunks& chunks, const Sizes& s) {
  const at::Tensor weights = (chunks.to_end * chunks.dt).view({s.B * s.C * s.G, s.R, 1, s.Q});
  const at::Tensor x = chunks.x.transpose(1, 2).unsqueeze(1);       // (BCG, 1, P, Q)
  return (x * weights).reshape({s.B * s.C * s.G, s.R * s.P, s.Q});  // (BCG, RP, Q)
}

// Queries as the state at the chunk's start sees them. (BCN, Q, Z)
at::Tensor decayed_queries(const Chunks& chunks, const Sizes& s) {
  return chunks.queries.view({s.B * s.C * s.N, s.Q, s.Z}) *
         chunks.from_start.view({s.B * s.C * s.N, s.Q, 1});
}

// C B^T. (B, C, N, Q, Q)
at::Tensor query_key_scores(const Chunks& chunks, const Sizes& s) {
  return product(chunks.queries, chunks.keys.transpose(1, 2), chunks.operand)
      .view({s.B, s.C, s.N, s.Q, s.Q});
}

// ---- forward ------------------------------------------------------------------------------------

struct ChunkedResult {
  at::Tensor y;       // (B, T, N, P) in the accumulation type
  at::Tensor state;   // (B, N, P, Z)
  at::Tensor states;  // (B, C, N, P, Z) at the start of each chunk
};

ChunkedResult run_forward(const SsdInput& in) {
  const Sizes s(in);
  const Chunks chunks = cut(in, s);
  const int64_t BCG = s.B * s.C * s.G, BCN = s.B * s.C * s.N;

  const at::Tensor mix = query_key_scores(chunks, s) * chunks.within * chunks.dt.unsqueeze(-2);
  const at::Tensor inside = product(mix.view({BCG, s.R * s.Q, s.Q}), chunks.x, chunks.operand);
  const at::Tensor added = product(weighted_values(chunks, s), chunks.keys, chunks.operand)
                               .view({s.B, s.C, s.N, s.P, s.Z});

  at::Tensor state = in.state.defined() ? in.state.to(added.scalar_type())
                                        : at::zeros({s.B, s.N, s.P, s.Z}, added.options());
  std::vector<at::Tensor> starts;
  for (int64_t c = 0; c < s.C; ++c) {
    starts.push_back(state);
    state = state * chunks.whole.select(1, c).view({s.B, s.N, 1, 1}) + added.select(1, c);
  }
  const at::Tensor states = at::stack(starts, 1);  // (B, C, N, P, Z)

  const at::Tensor before = product(decayed_queries(chunks, s),
                                    states.view({BCN, s.P, s.Z}).transpose(1, 2), chunks.operand);
  at::Tensor y = (inside.view({s.B, s.C, s.N, s.Q, s.P}) + before.view({s.B, s.C, s.N, s.Q, s.P}))
                     .transpose(2, 3)
                     .reshape({s.B, s.C * s.Q, s.N, s.P})
                     .narrow(1, 0, s.T);  // (B, T, N, P)
  const at::Tensor x = in.x.to(y.scalar_type()).repeat_interleave(s.R, 2);
  return {y + x * in.D.to(y.scalar_type()).unsqueeze(-1), state, states};
}

// ---- backward -----------------------------------------------------------------------------------

// Gradients of one step of the backward pass, added up by the caller.
struct Parts {
  at::Tensor x;        // (BCG, Q, P)
  at::Tensor keys;     // (BCG, Q, Z)
  at::Tensor queries;  // (BCG, RQ, Z)
  at::Tensor dt;       // (B, C, N, Q) other than through the decays
  at::Tensor decay;    // (B, C, N, Q) of dt A
};

// Of what a chunk's tokens give each other. flow: (B, C, N, Q, P) gradient of y
Parts backward_within(const Chunks& chunks, const Sizes& s, const at::Tensor& flow) {
  const int64_t BCG = s.B * s.C * s.G;
  const at::Tensor packed = flow.view({BCG, s.R * s.Q, s.P});
  const at::Tensor scores = query_key_scores(chunks, s);
  const at::Tensor dt = chunks.dt.unsqueeze(-2);  // (B, C, N, 1, Q)
  const at::Tensor mix = (scores * chunks.within * dt).view({BCG, s.R * s.Q, s.Q});

  const at::Tensor dmix =
      product(packed, chunks.x.transpose(1, 2), chunks.operand).view({s.B, s.C, s.N, s.Q, s.Q}) *
      chunks.within;
  const at::Tensor per_dt = dmix * scores;  // (B, C, N, Q, Q)
  const at::Tensor dscores = (dmix * dt).view({BCG, s.R * s.Q, s.Q});
  const at::Tensor lower = lower_ones(s.Q, flow.options());
  // Sum over i >= t > j of what token i took from token j, for every t.
  const at::Tensor earlier = at::matmul(per_dt * dt, 1 - lower);  // [i, t]: over j < t
  return {.x = product(mix.transpose(1, 2), packed, chunks.operand),
          .keys = product(dscores.transpose(1, 2), chunks.queries, chunks.operand),
          .queries = product(dscores, chunks.keys, chunks.operand),
          .dt = per_dt.sum(-2),
          .decay = (earlier * lower).sum(-2)};
}

// Gradient of the state after each chunk, and its share of the decay through whole chunks.
struct StateGradients {
  at::Tensor after;  // (BCG, RP, Z)
  at::Tensor whole;  // (B, C, N, 1)
};

// dstates: (B, C, N, P, Z) gradient of the chunks' starting states through their own outputs
StateGradients pass_back(const Chunks& chunks, const Sizes& s, const at::Tensor& states,
                         const at::Tensor& dstates) {
  std::vector<at::Tensor> after(static_cast<size_t>(s.C)), whole(static_cast<size_t>(s.C));
  at::Tensor carry = at::zeros_like(dstates.select(1, 0));  // (B, N, P, Z)
  for (int64_t c = s.C - 1; c >= 0; --c) {
    const at::Tensor decay = chunks.whole.select(1, c);  // (B, N)
    after[static_cast<size_t>(c)] = carry;
    whole[static_cast<size_t>(c)] =
        decay * (carry * states.select(1, c)).sum(at::IntArrayRef({-2, -1}));
    carry = carry * decay.view({s.B, s.N, 1, 1}) + dstates.select(1, c);
  }
  return {at::stack(after, 1).view({s.B * s.C * s.G, s.R * s.P, s.Z}),
          at::stack(whole, 1).unsqueeze(-1)};
}

// Of what goes through the states between chunks.
Parts backward_across(const Chunks& chunks, const Sizes& s, const at::Tensor& flow,
                      const at::Tensor& states) {
  const int64_t BCG = s.B * s.C * s.G, BCN = s.B * s.C * s.N;
  const at::Tensor packed = flow.view({BCN, s.Q, s.P});
  const at::Tensor queries = decayed_queries(chunks, s);  // (BCN, Q, Z)
  const at::Tensor dqueries = product(packed, states.view({BCN, s.P, s.Z}), chunks.operand);
  const at::Tensor dstates =
      product(packed.transpose(1, 2), queries, chunks.operand).view({s.B, s.C, s.N, s.P, s.Z});
  const StateGradients gradients = pass_back(chunks, s, states, dstates);

  const at::Tensor seen = product(gradients.after, chunks.keys.transpose(1, 2), chunks.operand)
                              .view({BCG, s.R, s.P, s.Q});  // dS B_j
  const at::Tensor to_end = chunks.to_end.view({BCG, s.R, 1, s.Q});
  const at::Tensor dt = chunks.dt.view({BCG, s.R, 1, s.Q});
  const at::Tensor per_dt =
      ((seen * chunks.x.transpose(1, 2).unsqueeze(1)).sum(2) * to_end.squeeze(2))
          .reshape({s.B, s.C, s.N, s.Q});
  const at::Tensor taken = (dqueries * queries).sum(-1).view({s.B, s.C, s.N, s.Q});
  const at::Tensor lower = lower_ones(s.Q, flow.options());
  const at::Tensor decay = at::matmul(taken, lower) +                   // over i >= t
                           at::matmul(per_dt * chunks.dt, 1 - lower) +  // over j < t
                           gradients.whole;
  return {
      .x = (seen * (to_end * dt)).sum(1).transpose(1, 2),
      .keys = product(weighted_values(chunks, s).transpose(1, 2), gradients.after, chunks.operand),
      .queries = (dqueries * chunks.from_start.view({BCN, s.Q, 1})).view({BCG, s.R * s.Q, s.Z}),
      .dt = per_dt,
      .decay = decay};
}

variable_list run_backward(const SsdInput& in, const at::Tensor& states,
                           const at::Tensor& y_gradient) {
  const Sizes s(in);
  const Chunks chunks = cut(in, s);
  const at::Tensor dy = y_gradient.to(chunks.x.scalar_type());  // (B, T, N, P)
  const at::Tensor flow = pad_tokens(dy, s)
                              .view({s.B, s.C, s.Q, s.N, s.P})
                              .transpose(2, 3)
                              .contiguous();  // (B, C, N, Q, P)
  const Parts within = backward_within(chunks, s, flow);
  const Parts across = backward_across(chunks, s, flow, states);

  const auto tokens = [&](const at::Tensor& part, int64_t heads, int64_t width) {
    return part.reshape({s.B, s.C, heads, s.Q, width})
        .transpose(2, 3)
        .reshape({s.B, s.C * s.Q, heads, width})
        .narrow(1, 0, s.T);  // (B, T, heads, width)
  };
  const at::Tensor by_group = dy.view({s.B, s.T, s.G, s.R, s.P});
  const at::Tensor D = in.D.to(dy.scalar_type());
  const at::Tensor skip = (by_group * D.view({s.G, s.R, 1})).sum(3);  // (B, T, G, P)
  const at::Tensor dD =
      (by_group * in.x.to(dy.scalar_type()).unsqueeze(3)).sum(at::IntArrayRef({0, 1, 4}));

  const at::Tensor decay = within.decay + across.decay;  // (B, C, N, Q)
  const at::Tensor dsteps = within.dt + across.dt + decay * chunks.A.unsqueeze(-1);
  const at::Tensor ddt = tokens(dsteps, s.N, 1).squeeze(-1) * at::sigmoid(chunks.shifted);
  const at::Tensor dA = (decay * chunks.dt).sum(at::IntArrayRef({0, 1, 3}));  // (N)
  return {(tokens(within.x + across.x, s.G, s.P) + skip).to(in.x.scalar_type()),
          ddt.to(in.dt.scalar_type()),
          (dA * chunks.A).to(in.A_log.scalar_type()),
          tokens(within.keys + across.keys, s.G, s.Z).to(in.B.scalar_type()),
          tokens(within.queries + across.queries, s.N, s.Z).to(in.C.scalar_type()),
          dD.view({s.N}).to(in.D.scalar_type()),
          ddt.sum(at::IntArrayRef({0, 1})).to(in.dt_bias.scalar_type()),
          at::Tensor()};
}

class ChunkedFunction : public torch::autograd::Function<ChunkedFunction> {
 public:
  // `leaves` are ssd_leaves(in), where autograd can see them.
  static variable_list forward(AutogradContext* context, at::TensorList /*leaves*/,
                               const SsdInput& in) {
    const ChunkedResult result = run_forward(in);
    variable_list saved = ssd_tensors(in);
    saved.push_back(result.states);
    context->save_for_backward(saved);
    context->saved_data["chunk_size"] = in.chunk_size;
    context->mark_non_differentiable({result.state});
    return {result.y.to(in.x.scalar_type()), result.state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "ssd: expected no second derivative to be asked for");
    const variable_list saved = context->get_saved_variables();
    const SsdInput in = ssd_input(saved, context->saved_data["chunk_size"].toInt());
    return run_backward(in, saved.back(), gradients.at(0).contiguous());
  }
};

}  // namespace

SsdOutput ssd_chunked(const SsdInput& in) {
  const std::vector<at::Tensor> leaves = ssd_leaves(in);
  if (!wants_gradient(leaves)) {
    const at::NoGradGuard no_grad;
    const ChunkedResult result = run_forward(in);
    return {result.y.to(in.x.scalar_type()), result.state};
  }
  const variable_list outputs = ChunkedFunction::apply(at::TensorList(leaves), in);
  return {outputs.at(0), outputs.at(1)};
}

}  // namespace zebra::detail
