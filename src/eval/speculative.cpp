// A draft proposes tokens one by one; the model scores all of them in one forward, keeps those that
// pass, and draws one itself. With p the model's and q the draft's distribution, a proposal d
// passes with probability min(1, p(d) / q(d)); the first that does not is replaced by a draw from
// max(p - q, 0), normalised. So every token has the distribution p.
#include <algorithm>

#include "eval/generation.h"
#include "zebra/error.h"

namespace zebra {

namespace {

// Tokens that were proposed, and what each was drawn from.
struct Proposals {
  std::vector<int64_t> ids;
  std::vector<Distribution> from;
};

// The draft and its caches, which hold the text but for `unread`.
class Draft {
 public:
  Draft(CausalLm model, const std::vector<int64_t>& prompt, const GenerateOptions& options)
      : model_(std::move(model)),
        cache_(model_->make_cache(1, options.cache)),
        chunk_(options.prefill_chunk),
        unread_(prompt) {}

  Proposals propose(int64_t count, Sampler& sampler) {
    Proposals made;
    marks_.clear();
    if (count == 0) return made;
    auto logits = read_ids(model_, unread_, chunk_, cache_);  // (1, V)
    for (int64_t i = 0; i < count; ++i) {
      if (i > 0) logits = read_ids(model_, {made.ids.back()}, chunk_, cache_);
      marks_.push_back(cache_.mark());
      made.from.push_back(sampler.distribution(logits[0]));
      made.ids.push_back(sampler.draw(made.from.back()));
      sampler.see(made.ids.back());
    }
    for (const int64_t id : made.ids) sampler.forget(id);
    return made;
  }

  // The text goes on with the first `accepted` proposals and `next`.
  void settle(const Proposals& made, int64_t accepted, int64_t next) {
    if (made.ids.empty()) {
      unread_.push_back(next);
      return;
    }
    const auto read = std::min<int64_t>(accepted, static_cast<int64_t>(made.ids.size()) - 1);
    cache_.rewind(marks_[static_cast<size_t>(read)]);
    unread_.assign(made.ids.begin() + read, made.ids.begin() + accepted);
    unread_.push_back(next);
  }

 private:
  CausalLm model_;
  ModelCache cache_;
  int64_t chunk_;
  std::vector<int64_t> unread_;
  std::vector<CacheMark> marks_;  // [i]: after `unread` and i proposals
};

struct Verdict {
  int64_t accepted = 0;
  int64_t next = 0;
};

// scores: (proposals + 1, V), of what follows the text and each proposal
Verdict verify(const Proposals& made, const at::Tensor& scores, Sampler& sampler) {
  Verdict verdict;
  const auto count = static_cast<int64_t>(made.ids.size());
  auto p = sampler.distribution(scores[0]);
  for (; verdict.accepted < count; ++verdict.accepted) {
    const auto& q = made.from[static_cast<size_t>(verdict.accepted)];
    const int64_t id = made.ids[static_cast<size_t>(verdict.accepted)];
    if (sampler.uniform() * q.of(id) >= p.of(id)) {
      p = residual(p, q);
      break;
    }
    sampler.see(id);
    p = sampler.distribution(scores[verdict.accepted + 1]);
  }
  verdict.next = sampler.draw(p);
  for (int64_t i = 0; i < verdict.accepted; ++i) sampler.forget(made.ids[static_cast<size_t>(i)]);
  return verdict;
}

void check_draft(const CausalLm& model, const DraftModel& draft) {
  const int64_t wants = model->options().vocab_size, has = draft.model->options().vocab_size;
  if (has != wants) {
    throw ConfigError(
        str("draft vocabulary: expected ", wants, " entries as in the model, got ", has));
  }
  if (draft.tokens < 1) {
    throw ConfigError(str("draft_tokens: expected at least 1, got ", draft.tokens));
  }
}

}  // namespace

SpeculativeResult generate_speculative(CausalLm model, const DraftModel& draft,
                                       const std::vector<int64_t>& prompt,
                                       const GenerateOptions& options,
                                       const std::function<bool(int64_t)>& on_token) {
  options.validate();
  check_draft(model, draft);
  check_prompt(model, prompt, 0, 1);
  const torch::NoGradGuard no_grad;
  const int64_t context = std::min(model->options().max_position_embeddings,
                                   draft.model->options().max_position_embeddings);
  const auto length = static_cast<int64_t>(prompt.size());
  RowInProgress row(options, options.seed, length, model->options().max_position_embeddings);
  for (const int64_t id : prompt) row.sampler.see(id);
  SpeculativeResult result;
  if (options.max_new_tokens == 0) return result;

  auto cache = model->make_cache(1, options.cache);
  Draft proposer(draft.model, prompt, options);
  int64_t last = row.sampler.pick(read_ids(model, prompt, options.prefill_chunk, cache)[0]);
  proposer.settle({}, 0, last);
  bool ended = row.take(last, on_token);
  while (!ended) {
    const int64_t wanted = options.max_new_tokens - static_cast<int64_t>(row.made.ids.size()) - 1;
    const int64_t room = context - row.length() - 1;
    const auto made =
        proposer.propose(std::clamp<int64_t>(std::min(wanted, room), 0, draft.tokens), row.sampler);
    std::vector<int64_t> input = {last};
    input.insert(input.end(), made.ids.begin(), made.ids.end());
    const auto ids = torch::tensor(input, torch::kLong).unsqueeze(0);
    const auto hidden = model->propose(ids.to(model->head_weight().device()), cache);
    const auto verdict = verify(made, model->logits(hidden)[0], row.sampler);
    cache.keep({verdict.accepted + 1});
    proposer.settle(made, verdict.accepted, verdict.next);
    ++result.rounds;
    result.proposed += static_cast<int64_t>(made.ids.size());
    result.accepted += verdict.accepted;
    for (int64_t i = 0; i < verdict.accepted && !ended; ++i) {
      ended = row.take(made.ids[static_cast<size_t>(i)], on_token);
    }
    if (!ended) ended = row.take(verdict.next, on_token);
    last = verdict.next;
  }
  result.row = std::move(row.made);
  return result;
}

}  // namespace zebra
