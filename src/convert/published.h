// The models that were published, known by their shapes.
#pragma once

#include <string>

#include "zebra/model.h"

namespace zebra {

// "Zebra-Llama-1B-4MLA-12Mamba", "X-EcoMLA-3B3B-fixed-kv816", "Llama-3.2-1B" and so on, without
// what names the training ("-SFT", "-DPO"); empty for a shape that was not published. Says nothing
// about the weights.
std::string published_shape(const ModelOptions& options);

}  // namespace zebra
