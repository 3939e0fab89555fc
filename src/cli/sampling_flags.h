// Flags of every verb that lets a model write.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "zebra/generate.h"

namespace zebra {

struct SamplingFlags {
  GenerateOptions options;
  std::vector<std::string> stops, stop_tokens;

  void declare(CLI::App* verb);
  // The options with the model's end tokens and those that the user names. ConfigError for a stop
  // token that the vocabulary lacks.
  GenerateOptions resolved(const LoadedModel& loaded) const;
};

void declare_state_dtype(CLI::App* verb, CacheOptions& cache);  // --state-dtype
void declare_cache(CLI::App* verb, CacheOptions& cache);        // and --cache-dtype

// A second, smaller model for speculative decoding.
struct DraftFlags {
  std::string model;
  int64_t tokens = 4;
  void declare(CLI::App* verb);
  // ConfigError unless its tokenizer is the model's own.
  CausalLm load(const LoadedModel& loaded, const LoadOptions& options) const;
};

}  // namespace zebra
