// What `zebra bench generate` measures, and the page that it draws.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "zebra/generate.h"

namespace zebra {

// One model at one load.
struct GenerationPoint {
  std::string model;  // "hybrid", "llama" or "transformers"
  GenerationLoad load;
  GenerationSpeed speed;
};

// A sweep: points of several models over one thing that changes.
struct GenerationSweep {
  std::string title;   // "batch of 8, 32 tokens behind each context"
  std::string varied;  // "batch" or "context"
  std::vector<GenerationPoint> points;
};

// A whole HTML page with a chart of tokens/s and one of cache bytes for each sweep, and a table.
std::string generation_page(const std::vector<GenerationSweep>& sweeps, const std::string& about);

}  // namespace zebra
