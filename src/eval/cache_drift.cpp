#include "eval/cache_drift.h"

#include "zebra/error.h"

namespace zebra {

CacheDrift measure_cache_drift(CausalLm model, const at::Tensor& ids, int64_t read,
                               const CacheOptions& options) {
  const int64_t B = ids.size(0), T = ids.size(1) - 1;
  if (read < 1 || read >= T) {
    throw ConfigError(str("cache drift: expected 1 to ", T - 1, " tokens to be read, got ", read));
  }
  const torch::NoGradGuard no_grad;
  const auto input = ids.to(model->head_weight().device());
  auto exact = model->make_cache(B), smaller = model->make_cache(B, options);
  model->forward(input.narrow(1, 0, read), /*segments=*/{}, &exact);
  model->forward(input.narrow(1, 0, read), /*segments=*/{}, &smaller);
  const auto next = [&](int64_t t, ModelCache& cache) {
    const auto hidden = model->forward(input.narrow(1, t, 1), /*segments=*/{}, &cache);
    return model->logits(hidden.squeeze(1)).to(torch::kDouble).log_softmax(-1);  // (B, V)
  };
  CacheDrift drift;
  for (int64_t t = read; t < T; ++t) {
    const auto p = next(t, exact), q = next(t, smaller);
    const auto target = input.narrow(1, t + 1, 1);  // (B, 1)
    drift.exact_nats_per_token -= p.gather(1, target).sum().item<double>();
    drift.nats_per_token -= q.gather(1, target).sum().item<double>();
    drift.kl_per_token += (p.exp() * (p - q)).sum().item<double>();
    drift.top1_agreement += p.argmax(-1).eq(q.argmax(-1)).sum().item<double>();
  }
  const auto tokens = static_cast<double>(B * (T - read));
  drift.exact_nats_per_token /= tokens;
  drift.nats_per_token /= tokens;
  drift.kl_per_token /= tokens;
  drift.top1_agreement /= tokens;
  return drift;
}

}  // namespace zebra
