// How fast a model reads and writes.
#include <chrono>

#include "eval/generation.h"
#include "zebra/error.h"

namespace zebra {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kWarmUpSteps = 4, kPrefillChunk = 512;

double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

void wait_for(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

std::vector<int64_t> some_prompt(int64_t tokens, int64_t vocab_size) {
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(i * 7 % vocab_size);
  return ids;
}

// Greedy steps; ids stay on the device. logits: (B, V) of the first step
void decode_greedy(CausalLm& model, at::Tensor logits, int64_t steps, ModelCache& cache) {
  for (int64_t i = 0; i < steps; ++i) {
    const auto hidden = model->forward(logits.argmax(-1, /*keepdim=*/true), {}, &cache);
    logits = model->logits(hidden.squeeze(1));  // (B, V)
  }
}

// `speed`: of the prefill that made `one`, a cache of one row. scores: (1, V) after it
GenerationSpeed decode_batch(CausalLm& model, const GenerationLoad& load, const ModelCache& one,
                             const at::Tensor& scores, GenerationSpeed speed) {
  const auto device = model->head_weight().device();
  auto cache = one.select(std::vector<int64_t>(static_cast<size_t>(speed.batch), 0));
  const auto logits = scores.expand({speed.batch, scores.size(1)});
  const auto start = cache.mark();
  decode_greedy(model, logits, kWarmUpSteps, cache);
  cache.rewind(start);
  wait_for(device);
  const auto began = Clock::now();
  decode_greedy(model, logits, load.new_tokens, cache);
  wait_for(device);
  speed.decode_seconds = seconds_since(began);
  speed.decode_tokens_per_second =
      static_cast<double>(speed.batch * load.new_tokens) / speed.decode_seconds;
  speed.cache_bytes = cache.bytes();
  speed.reserved_bytes = cache.reserved_bytes();
  return speed;
}

}  // namespace

std::vector<GenerationSpeed> measure_generation(CausalLm model, const GenerationLoad& load,
                                                const std::vector<int64_t>& batches) {
  const torch::NoGradGuard no_grad;
  const auto device = model->head_weight().device();
  for (const int64_t batch : batches) {
    if (batch >= 1 && load.prompt_tokens >= 1 && load.new_tokens >= 1) continue;
    throw ConfigError(
        str("decode speed: expected a batch, prompt and new tokens of at least 1, got ", batch,
            ", ", load.prompt_tokens, " and ", load.new_tokens));
  }
  const auto prompt = some_prompt(load.prompt_tokens, model->options().vocab_size);
  auto one = model->make_cache(1, load.cache);
  wait_for(device);
  const auto began = Clock::now();
  const auto scores = read_ids(model, prompt, kPrefillChunk, one);  // (1, V)
  wait_for(device);
  GenerationSpeed speed{.prefill_seconds = seconds_since(began)};
  speed.prefill_tokens_per_second = static_cast<double>(load.prompt_tokens) / speed.prefill_seconds;
  std::vector<GenerationSpeed> speeds;
  for (const int64_t batch : batches) {
    speed.batch = batch;
    speeds.push_back(decode_batch(model, load, one, scores, speed));
  }
  return speeds;
}

DecodeSpeed measure_decode(CausalLm model, int64_t batch, int64_t prompt_tokens,
                           int64_t new_tokens) {
  const auto speed = measure_generation(
      model, {.prompt_tokens = prompt_tokens, .new_tokens = new_tokens}, {batch})[0];
  return {.tokens_per_second = speed.decode_tokens_per_second, .cache_bytes = speed.cache_bytes};
}

}  // namespace zebra
