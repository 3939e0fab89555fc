// Making one mixer of a student from one of the base: one function a kind.
#pragma once

#include <cstdint>
#include <string>

#include "zebra/init.h"

namespace zebra {

// Random tensors of one layer. Each is drawn by a generator of its own, so that none depends on
// which others are drawn: layer i is the same in every composition.
struct LayerRandom {
  uint64_t seed = 0;
  int64_t layer = 0;

  // Uniform in [low, high), float32 on the CPU.
  at::Tensor uniform(const std::string& name, at::IntArrayRef shape, double low, double high) const;
};

// "layer 3" of the errors, and what the new mixer replaces.
struct MixerInit {
  const AttentionImpl& base;
  int64_t base_kv_heads = 0;
  LayerRandom random;
};

// ConfigError unless what the student has is what the base has.
void require_same(const std::string& key, int64_t got, int64_t expected);

// Puts a value in the place of a parameter: on base's device, in `like`'s dtype.
void put(at::Tensor& parameter, const at::Tensor& value, const at::Tensor& like);

SvdReport init_mixer(MlaImpl& mla, const MixerInit& from, InitOptions::Mla how);
void init_mixer(Mamba2Impl& mamba2, const MixerInit& from, InitOptions::Mamba2 how);

AttentionWeights weights_of(const AttentionImpl& attention);

// [W_K; W_V] of all key/value heads that the MLA will have, in float32 or float64: (2 * G * H, D).
at::Tensor stacked_kv(const AttentionWeights& base, int64_t base_kv_heads, int64_t kv_heads);

// ConfigError unless heads of this width, of which so many are keys', can become this MLA by SVD.
void check_mla(const MlaOptions& options, int64_t base_head_dim, int64_t base_kv_heads);

}  // namespace zebra
