// Hugging Face transformers on the same weights, in a Python of the user's.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "zebra/generate.h"

namespace zebra {

// Measures the Llama of a model folder as measure_generation() does: one real prefill, its cache
// copied to every row, greedy steps. cache_bytes are those of its key and value tensors.
// ConfigError when this Python lacks torch or transformers.
struct PeerResult {
  std::string version;  // "transformers 5.17.0, torch 2.11.0"
  std::vector<GenerationSpeed> speeds;
};
struct PeerMachine {
  std::string python, device, dtype;
  int64_t threads = 0;
};
PeerResult run_transformers(const PeerMachine& machine, const std::string& folder,
                            const GenerationLoad& load, const std::vector<int64_t>& batches);

}  // namespace zebra
