#include "cli/sampling_flags.h"

#include <algorithm>

#include "zebra/error.h"

namespace zebra {

void declare_state_dtype(CLI::App* verb, CacheOptions& cache) {
  verb->add_option("--state-dtype", cache.state, "Of Mamba2 states [fp32]")
      ->transform(
          one_of<CacheDtype>({{"fp32", CacheDtype::kFloat32}, {"bf16", CacheDtype::kBfloat16}}))
      ->type_name("fp32|bf16");
}

void declare_cache(CLI::App* verb, CacheOptions& cache) {
  add_enum(verb, "--cache-dtype", cache.tokens, "Of cached keys, values and latents");
  declare_state_dtype(verb, cache);
}

void SamplingFlags::declare(CLI::App* verb) {
  const auto count = [&](const char* flag, int64_t& value, const char* meaning, const char* type) {
    verb->add_option(flag, value, meaning)->check(whole_number(0))->type_name(type);
  };
  const auto share = [&](const char* flag, double& value, const char* meaning,
                         const CLI::Validator& check) {
    verb->add_option(flag, value, meaning)->check(check)->type_name("P");
  };
  count("--max-new-tokens", options.max_new_tokens, "Tokens made at most [128]", "N");
  verb->add_option("--temperature", options.temperature, "0: always the likeliest token [0]")
      ->check(number("a number of at least 0", [](double x) { return x >= 0; }))
      ->type_name("X");
  count("--top-k", options.top_k, "Draw from the K likeliest; 0: from all [0]", "K");
  share("--top-p", options.top_p, "Draw from the likeliest of this total share [1]",
        number("a number above 0, at most 1", [](double x) { return x > 0 && x <= 1; }));
  share("--min-p", options.min_p, "Leave out what has less than this share of the likeliest [0]",
        number("a number from 0 to 1", [](double x) { return x >= 0 && x <= 1; }));
  verb->add_option("--repetition-penalty", options.repetition_penalty,
                   "Above 1: what was said becomes unlikelier [1]")
      ->check(number("a number above 0", [](double x) { return x > 0; }))
      ->type_name("X");
  verb->add_option("--seed", options.seed, "Of the draws [0]")->check(any_seed())->type_name("S");
  verb->add_option("--stop", stops, "End before this text; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  verb->add_option("--stop-token", stop_tokens, "End at this token, by id or piece")
      ->type_name("TOKEN")
      ->allow_extra_args(false);
  verb->add_option("--prefill-chunk", options.prefill_chunk, "Prompt tokens in one forward [512]")
      ->check(whole_number(1))
      ->type_name("N");
  declare_cache(verb, options.cache);
}

namespace {

int64_t token_id(const std::string& token, const Tokenizer& tokenizer) {
  const int64_t V = tokenizer.vocab_size();
  const bool digits =
      !token.empty() && token.size() < 10 &&
      std::all_of(token.begin(), token.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (digits) {
    const int64_t id = std::stoll(token);
    if (id < V) return id;
    throw ConfigError(str("--stop-token: expected an id in [0, ", V, "), got ", id));
  }
  if (const int64_t id = tokenizer.id_of(token); id >= 0) return id;
  throw ConfigError(str("--stop-token: expected a token of the vocabulary, got '", token, "'"));
}

}  // namespace

GenerateOptions SamplingFlags::resolved(const LoadedModel& loaded) const {
  auto whole = options;
  whole.stop_ids = loaded.stop_ids;
  for (const auto& token : stop_tokens) {
    whole.stop_ids.push_back(token_id(token, *loaded.tokenizer));
  }
  whole.validate();
  return whole;
}

void DraftFlags::declare(CLI::App* verb) {
  verb->add_option("--draft", model, "A smaller model that proposes tokens (speculative decoding)")
      ->type_name("MODEL");
  verb->add_option("--draft-tokens", tokens, "Proposed for each step of the model [4]")
      ->check(whole_number(1))
      ->type_name("K");
}

CausalLm DraftFlags::load(const LoadedModel& loaded, const LoadOptions& options) const {
  auto draft = load_with_tokenizer(model, options);
  const auto& own = *loaded.tokenizer;
  const int64_t wants = own.vocab_size(), has = draft.tokenizer->vocab_size();
  if (has != wants) {
    throw ConfigError(str("--draft ", model, ": expected the model's tokenizer of ", wants,
                          " entries, got one of ", has));
  }
  for (int64_t id = 0; id < wants; ++id) {
    const auto expected = own.piece(id), got = draft.tokenizer->piece(id);
    if (expected != got) {
      throw ConfigError(str("--draft ", model, ": expected the model's tokenizer, where token ", id,
                            " is '", expected, "', got '", got, "'"));
    }
  }
  const int64_t rows = loaded.model->options().vocab_size;
  if (draft.model->options().vocab_size != rows) {
    throw ConfigError(str("--draft ", model, ": vocabulary: expected ", rows,
                          " entries as in the model, got ", draft.model->options().vocab_size));
  }
  return draft.model;
}

}  // namespace zebra
