#include "eval/sampler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace zebra {

namespace {

// A token that is still in the running.
struct Candidate {
  int64_t id;
  double score;  // logit behind the greatest one, over the temperature; later probability
};

void keep_top_k(std::vector<Candidate>& candidates, int64_t k) {
  if (k == 0 || k >= static_cast<int64_t>(candidates.size())) return;
  std::vector<double> scores;
  scores.reserve(candidates.size());
  for (const auto& candidate : candidates) scores.push_back(candidate.score);
  std::nth_element(scores.begin(), scores.begin() + (k - 1), scores.end(), std::greater<>());
  const double last = scores[static_cast<size_t>(k - 1)];
  std::erase_if(candidates, [&](const Candidate& c) { return c.score < last; });
}

// Scores are at most 0, and one is.
void softmax(std::vector<Candidate>& candidates) {
  double total = 0;
  for (auto& candidate : candidates) total += candidate.score = std::exp(candidate.score);
  for (auto& candidate : candidates) candidate.score /= total;
}

// The likeliest ones first, sorted only as far as they are needed.
void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  };
  double total = 0;
  int64_t kept = 0, sorted = 0;
  const auto count = static_cast<int64_t>(candidates.size());
  while (kept < count && (kept == 0 || total < p)) {
    if (kept == sorted) {
      const int64_t next = std::min(count, std::max<int64_t>(64, 4 * sorted));
      std::partial_sort(candidates.begin() + sorted, candidates.begin() + next, candidates.end(),
                        likelier);
      sorted = next;
    }
    total += candidates[static_cast<size_t>(kept++)].score;
  }
  candidates.resize(static_cast<size_t>(kept));
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

void keep_min_p(std::vector<Candidate>& candidates, double share) {
  if (share <= 0) return;
  double most = 0;
  for (const auto& candidate : candidates) most = std::max(most, candidate.score);
  std::erase_if(candidates, [&](const Candidate& c) { return c.score < share * most; });
}

Distribution normalised(const std::vector<Candidate>& candidates) {
  Distribution result;
  double total = 0;
  for (const auto& candidate : candidates) total += candidate.score;
  for (const auto& candidate : candidates) {
    result.ids.push_back(candidate.id);
    result.probabilities.push_back(candidate.score / total);
  }
  return result;
}

}  // namespace

double Distribution::of(int64_t id) const {
  const auto found = std::lower_bound(ids.begin(), ids.end(), id);
  if (found == ids.end() || *found != id) return 0;
  return probabilities[static_cast<size_t>(found - ids.begin())];
}

Distribution residual(const Distribution& p, const Distribution& q) {
  std::vector<Candidate> left;
  for (size_t i = 0; i < p.ids.size(); ++i) {
    const double more = p.probabilities[i] - q.of(p.ids[i]);
    if (more > 0) left.push_back({p.ids[i], more});
  }
  return left.empty() ? p : normalised(left);  // empty: p equals q but for rounding
}

Sampler::Sampler(const GenerateOptions& options, uint64_t seed)
    : options_(options), random_(seed) {}

void Sampler::see(int64_t id) {
  if (options_.repetition_penalty == 1) return;
  if (static_cast<int64_t>(seen_.size()) <= id) seen_.resize(static_cast<size_t>(id) + 1);
  ++seen_[static_cast<size_t>(id)];
}

void Sampler::forget(int64_t id) {
  if (options_.repetition_penalty != 1) --seen_[static_cast<size_t>(id)];
}

void Sampler::penalise(std::vector<double>& scores) const {
  for (size_t id = 0; id < seen_.size(); ++id) {
    if (seen_[id] == 0) continue;
    auto& score = scores[id];
    score = score < 0 ? score * options_.repetition_penalty : score / options_.repetition_penalty;
  }
}

Distribution Sampler::distribution(const at::Tensor& logits) const {
  const auto values = logits.to(at::kCPU, at::kDouble).contiguous();
  const auto* data = values.const_data_ptr<double>();
  std::vector<double> scores(data, data + values.numel());
  penalise(scores);
  if (greedy()) {
    const auto best = std::max_element(scores.begin(), scores.end());
    return {.ids = {best - scores.begin()}, .probabilities = {1.0}};
  }
  // The greatest is taken off before the division, which a small temperature lets overflow.
  const double most = *std::max_element(scores.begin(), scores.end());
  std::vector<Candidate> candidates;
  candidates.reserve(scores.size());
  for (size_t id = 0; id < scores.size(); ++id) {
    candidates.push_back({static_cast<int64_t>(id), (scores[id] - most) / options_.temperature});
  }
  keep_top_k(candidates, options_.top_k);
  softmax(candidates);
  keep_top_p(candidates, options_.top_p);
  keep_min_p(candidates, options_.min_p);
  return normalised(candidates);
}

int64_t Sampler::draw(const Distribution& distribution) {
  if (distribution.ids.size() == 1) return distribution.ids.front();
  const double wanted = uniform();
  double passed = 0;
  for (size_t i = 0; i < distribution.ids.size(); ++i) {
    passed += distribution.probabilities[i];
    if (wanted < passed) return distribution.ids[i];
  }
  return distribution.ids.back();
}

double Sampler::uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

}  // namespace zebra
