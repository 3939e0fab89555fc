// Drift of smaller caches: none where nothing is smaller, and the loss is the text's own.
#include "eval/cache_drift.h"

#include "eval/models.h"

namespace zebra::testing {

TEST_CASE("cache drift: caches of the model's own types drift by nothing") {
  const auto model = tiny_model({MixerKind::kMla, MixerKind::kMamba2}, 3);
  torch::manual_seed(4);
  const auto ids = torch::randint(0, 250, {2, 41}, torch::kLong);
  const auto drift = measure_cache_drift(model, ids, 10, {.tokens = CacheDtype::kFloat32});
  CHECK(drift.kl_per_token == 0);
  CHECK(drift.top1_agreement == 1);
  CHECK(drift.nats_per_token == drift.exact_nats_per_token);
  const at::NoGradGuard no_grad;
  auto same = model;
  const auto log_p = same->logits(same->forward(ids.narrow(1, 0, 40), {})).log_softmax(-1);
  const auto nats = -log_p.gather(2, ids.narrow(1, 1, 40).unsqueeze(2)).narrow(1, 10, 30).mean();
  CHECK(drift.nats_per_token == Approx(nats.item<double>()).epsilon(1e-4));
}

TEST_CASE("cache drift: smaller types drift a little, in tokens and in states") {
  const auto model = tiny_model({MixerKind::kMla, MixerKind::kMamba2, MixerKind::kAttention}, 3);
  torch::manual_seed(4);
  const auto ids = torch::randint(0, 250, {2, 41}, torch::kLong);
  for (const CacheOptions& options :
       {CacheOptions{.tokens = CacheDtype::kInt8}, CacheOptions{.state = CacheDtype::kBfloat16}}) {
    const auto drift = measure_cache_drift(model, ids, 10, options);
    CHECK(drift.kl_per_token > 0);
    CHECK(drift.kl_per_token < 1e-3);
    CHECK(drift.top1_agreement > 0.9);
  }
  CHECK_THROWS_WITH(measure_cache_drift(model, ids, 40, {}),
                    ContainsSubstring("expected 1 to 39 tokens to be read, got 40"));
}

}  // namespace zebra::testing
