// How much of each source an epoch of a mixture holds.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace zebra {

struct MixtureSource {
  int64_t sequences = 0;         // of one pass over the source
  double amount = 0;             // of the same, in what weights count: tokens or documents
  std::optional<double> weight;  // all sources have one, or none
  double epochs = 1;             // passes that an epoch of the mixture may hold at most
};

// Sequences of each source in one epoch of the mixture, at least one. Without weights: what the
// epochs say. With weights: amounts in proportion to the weights, as much as can be had without
// any source going beyond its epochs.
std::vector<int64_t> mixture_sequences(const std::vector<MixtureSource>& sources);

}  // namespace zebra
