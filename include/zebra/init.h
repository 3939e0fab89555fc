// Making a student from a base Llama: attention into MLA by SVD, attention into Mamba2 by copying
// projections.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "zebra/model.h"

namespace zebra {

// Weights of one attention layer, Hugging Face layout [out, in].
struct AttentionWeights {
  at::Tensor q;  // (N*H, D)
  at::Tensor k;  // (G*H, D)
  at::Tensor v;  // (G*H, D)
  at::Tensor o;  // (D, N*H)
};

struct MlaWeights {
  at::Tensor q_a;   // (Rq, D)
  at::Tensor q_b;   // (N*(Hn+Hr), Rq)
  at::Tensor kv_a;  // (Rkv+Hr, D)
  at::Tensor kv_b;  // (G*(Hn+Hv), Rkv)
  at::Tensor out;   // (D, N*Hv)
};

// What the conversion report says of one MLA layer.
struct SvdReport {
  int64_t q_rank = 0, kv_rank = 0;
  double q_energy = 0, kv_energy = 0;  // share of the squared singular values that is kept
  double q_error = 0;                  // ||W_Q - q_b q_a||_F / ||W_Q||_F over the kept rows
  double kv_error = 0;                 // the same for the kept rows of [W_K; W_V]
};

struct MlaInit {
  MlaWeights weights;
  SvdReport report;
};

// Published initialisation (docs/math/mla_svd.md): separate SVD of W_Q, joint SVD of [W_K; W_V],
// rope key rows the mean over key heads, singular values into the down-projections. SVD in float32
// (float64 for float64 weights). options.num_kv_heads equal to num_heads while the weights have
// fewer key heads: the full form (heads repeated first).
MlaInit init_mla(const AttentionWeights& base, const MlaOptions& options, int64_t base_kv_heads);

// Rank by energy, as published (docs/math/mla_svd.md, section 6): how many leading singular values
// stay within the share `energy` of sum(sigma^power), at least one, rounded up to a multiple of
// `divisor`, at most the largest multiple that the matrix has.  sigma: (R) descending.
int64_t energy_rank(const at::Tensor& sigma, double energy, int64_t divisor, double power);

struct EnergyRankOptions {
  std::optional<double> q_energy, kv_energy;  // absent: the fixed rank
  double power = 2.0;
  bool fixed_ends = true;  // first and last layer keep the fixed ranks
};

// Ranks of every layer of a base model by energy; feeds ModelOptions::mla_ranks.
std::vector<std::optional<MlaRanks>> energy_ranks(const CausalLm& base, const MlaOptions& options,
                                                  const EnergyRankOptions& energy);

// Student of the kinds in `options.layers` from a Llama base: MLA by SVD, Mamba2 by attention
// transfer, attention layers, MLPs, norms, embedding and head copied. What the method leaves random
// (z and dt rows, convolution, dt_bias, A_log) comes from a generator seeded with `seed`, layer by
// layer, so that layer i is the same in every composition. kAttentionIdentity starts the
// convolution as the identity instead: its last tap is 1, everything else of it 0.
struct InitOptions {
  enum class Mla { kSvd, kRandom };
  enum class Mamba2 { kAttention, kAttentionIdentity, kRandom };
  Mla mla = Mla::kSvd;
  Mamba2 mamba2 = Mamba2::kAttention;
  uint64_t seed = 42;
};
struct LayerInitReport {
  int64_t layer = 0;
  MixerKind kind = MixerKind::kAttention;
  SvdReport svd;  // MLA layers only
};
struct InitResult {
  CausalLm model{nullptr};
  std::vector<LayerInitReport> layers;
};
InitResult init_student(const CausalLm& base, const ModelOptions& options, const InitOptions& init);

// Relative error of each student mixer's output on the base's own layer inputs: ||student -
// base||_F / ||base||_F. input_ids: (B, T) int64 -> one value a layer.
std::vector<double> mixer_output_errors(const CausalLm& base, const CausalLm& student,
                                        const at::Tensor& input_ids);

// A hybrid whose MLA layers come from `mla`, Mamba2 layers from `mamba2`, attention layers,
// embedding, final norm and head from `base`. Whole blocks are taken (mixer, MLP, both norms).
// options.layers says which.
CausalLm compose(const CausalLm& base, const CausalLm& mla, const CausalLm& mamba2,
                 const ModelOptions& options);

}  // namespace zebra
