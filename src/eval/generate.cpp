// Text from a model, one token at a time, and how fast that goes.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>

#include "eval/log_probs.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

namespace {

void check_options(const GenerateOptions& options) {
  const auto refuse = [](const char* key, const char* expected, double got) {
    throw ConfigError(str("generate ", key, ": expected ", expected, ", got ", got));
  };
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  if (options.max_new_tokens < 0) {
    refuse("max_new_tokens", "at least 0", number(options.max_new_tokens));
  }
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    refuse("temperature", "a number of at least 0", options.temperature);
  }
  if (options.top_k < 0) refuse("top_k", "at least 0", number(options.top_k));
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    refuse("top_p", "a number above 0, at most 1", options.top_p);
  }
  if (options.prefill_chunk < 1)
    refuse("prefill_chunk", "at least 1", number(options.prefill_chunk));
}

void check_prompt(const at::Tensor& prompt, int64_t vocab_size) {
  if (prompt.numel() == 0) throw ConfigError("prompt: expected at least one token, got none");
  TORCH_CHECK(prompt.dim() == 2 && prompt.size(0) == 1,
              "generate prompt: expected shape (1, T), got ", prompt.sizes());
  check_vocabulary("prompt", prompt.cpu(), vocab_size);
}

// Hidden state of the last token, (B, 1, D). ids: (B, T)
at::Tensor prefill(CausalLm& model, const at::Tensor& ids, int64_t chunk, ModelCache& cache) {
  at::Tensor hidden;
  for (const auto& piece : ids.split(chunk, 1)) {
    hidden = model->forward(piece, /*segments=*/{}, &cache);  // (B, t, D)
  }
  return hidden.narrow(1, hidden.size(1) - 1, 1);
}

// Draws tokens by temperature, then the k most probable, then the smallest set of them whose
// probability reaches p. Works in float64 on the CPU, so a seed means the same on every device.
class Sampler {
 public:
  explicit Sampler(const GenerateOptions& options) : options_(options), random_(options.seed) {}

  // logits: (V) -> an id
  int64_t pick(const at::Tensor& logits) {
    if (options_.temperature == 0) return logits.argmax().item<int64_t>();
    const auto scaled = logits.to(torch::kCPU, torch::kDouble) / options_.temperature;
    auto [values, ids] = scaled.sort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
    if (options_.top_k > 0) values = values.narrow(0, 0, std::min(options_.top_k, values.size(0)));
    const auto probabilities = values.softmax(0).contiguous();  // descending
    return ids[draw(probabilities)].item<int64_t>();
  }

 private:
  int64_t draw(const at::Tensor& probabilities) {
    const auto* p = probabilities.data_ptr<double>();
    const int64_t V = probabilities.size(0);
    int64_t kept = 0;
    double total = 0;
    while (kept < V && (kept == 0 || total < options_.top_p)) total += p[kept++];
    const double wanted = uniform() * total;
    double passed = 0;
    for (int64_t i = 0; i < kept; ++i) {
      passed += p[i];
      if (wanted < passed) return i;
    }
    return kept - 1;
  }

  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }  // [0, 1)

  GenerateOptions options_;
  std::mt19937_64 random_;
};

void wait_for(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

// Greedy steps from the hidden state of the last token; ids stay on the device.
void decode_greedy(CausalLm& model, at::Tensor hidden, int64_t steps, ModelCache& cache) {
  for (int64_t i = 0; i < steps; ++i) {
    const auto ids = model->logits(hidden).argmax(-1);      // (B, 1)
    hidden = model->forward(ids, /*segments=*/{}, &cache);  // (B, 1, D)
  }
}

}  // namespace

std::vector<int64_t> generate(CausalLm model, const at::Tensor& prompt,
                              const GenerateOptions& options,
                              const std::function<void(int64_t)>& on_token) {
  check_options(options);
  check_prompt(prompt, model->options().vocab_size);
  const torch::NoGradGuard no_grad;
  const auto device = model->head_weight().device();
  Sampler sampler(options);
  auto cache = model->make_cache(/*batch=*/1);
  std::vector<int64_t> made;
  if (options.max_new_tokens == 0) return made;
  auto hidden = prefill(model, prompt.to(device), options.prefill_chunk, cache);  // (1, 1, D)
  while (true) {
    const int64_t id = sampler.pick(model->logits(hidden).flatten());
    made.push_back(id);
    if (on_token) on_token(id);
    const auto& stops = options.stop_ids;
    const bool stop = std::find(stops.begin(), stops.end(), id) != stops.end();
    if (stop || static_cast<int64_t>(made.size()) == options.max_new_tokens) return made;
    hidden = model->forward(torch::full({1, 1}, id, prompt.options().device(device)),
                            /*segments=*/{}, &cache);
  }
}

DecodeSpeed measure_decode(CausalLm model, int64_t batch, int64_t prompt_tokens,
                           int64_t new_tokens) {
  constexpr int64_t kWarmUpSteps = 4, kPrefillChunk = 512;
  if (batch < 1 || prompt_tokens < 1 || new_tokens < 1) {
    throw ConfigError(
        str("decode speed: expected a batch, prompt and new tokens of at least 1, got ", batch,
            ", ", prompt_tokens, " and ", new_tokens));
  }
  const torch::NoGradGuard no_grad;
  const auto device = model->head_weight().device();
  const auto order = torch::arange(batch * prompt_tokens, torch::kLong);
  const auto prompt = order.mul(7).remainder(model->options().vocab_size);
  const auto ids = prompt.view({batch, prompt_tokens}).to(device);  // (B, T)

  auto warm_up = model->make_cache(batch);
  decode_greedy(model, prefill(model, ids, kPrefillChunk, warm_up), kWarmUpSteps, warm_up);

  auto cache = model->make_cache(batch);
  const auto hidden = prefill(model, ids, kPrefillChunk, cache);
  wait_for(device);
  const auto began = std::chrono::steady_clock::now();
  decode_greedy(model, hidden, new_tokens, cache);
  wait_for(device);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  return {.tokens_per_second = static_cast<double>(batch * new_tokens) / spent.count(),
          .cache_bytes = cache.bytes()};
}

}  // namespace zebra
