// Rows of tokens, one forward a step for all rows that still grow.
#include <algorithm>
#include <chrono>
#include <cmath>

#include "eval/generation.h"
#include "eval/log_probs.h"
#include "zebra/error.h"

namespace zebra {

void GenerateOptions::validate() const {
  const auto refuse = [](const char* key, const char* expected, double got) {
    throw ConfigError(str("generate ", key, ": expected ", expected, ", got ", got));
  };
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  if (max_new_tokens < 0) refuse("max_new_tokens", "at least 0", number(max_new_tokens));
  if (!(temperature >= 0) || !std::isfinite(temperature)) {
    refuse("temperature", "a number of at least 0", temperature);
  }
  if (top_k < 0) refuse("top_k", "at least 0", number(top_k));
  if (!(top_p > 0 && top_p <= 1)) refuse("top_p", "a number above 0, at most 1", top_p);
  if (!(min_p >= 0 && min_p <= 1)) refuse("min_p", "a number from 0 to 1", min_p);
  if (!(repetition_penalty > 0) || !std::isfinite(repetition_penalty)) {
    refuse("repetition_penalty", "a number above 0", repetition_penalty);
  }
  if (prefill_chunk < 1) refuse("prefill_chunk", "at least 1", number(prefill_chunk));
  cache.validate();
}

const char* stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kLength:
      return "length";
    case StopReason::kStopToken:
      return "stop_token";
    case StopReason::kCaller:
      return "stop_string";
    case StopReason::kContext:
      return "context";
  }
  return "?";
}

void check_prompt(const CausalLm& model, const std::vector<int64_t>& prompt, size_t index,
                  size_t count) {
  const auto& options = model->options();
  const auto name = count > 1 ? str("prompt ", index + 1) : std::string("prompt");
  if (prompt.empty()) throw ConfigError(name + ": expected at least one token, got none");
  const auto length = static_cast<int64_t>(prompt.size());
  if (length > options.max_position_embeddings) {
    throw ConfigError(str(name, ": expected at most the model's ", options.max_position_embeddings,
                          " tokens, got ", length));
  }
  check_vocabulary(name.c_str(), torch::tensor(prompt, torch::kLong), options.vocab_size);
}

RowInProgress::RowInProgress(const GenerateOptions& options, uint64_t seed, int64_t length,
                             int64_t max_length)
    : sampler(options, seed), options_(&options), length_(length), max_length_(max_length) {}

bool RowInProgress::take(int64_t id, const std::function<bool(int64_t)>& on_token) {
  made.ids.push_back(id);
  sampler.see(id);
  ++length_;
  const auto& stops = options_->stop_ids;
  const auto ends = [&](StopReason reason) {
    made.reason = reason;
    return true;
  };
  const bool go_on = !on_token || on_token(id);
  if (std::find(stops.begin(), stops.end(), id) != stops.end()) return ends(StopReason::kStopToken);
  if (!go_on) return ends(StopReason::kCaller);
  if (static_cast<int64_t>(made.ids.size()) >= options_->max_new_tokens) {
    return ends(StopReason::kLength);
  }
  return length_ >= max_length_ && ends(StopReason::kContext);
}

namespace {

std::vector<RowInProgress> start_rows(const std::vector<std::vector<int64_t>>& prompts,
                                      const GenerateOptions& options, int64_t max_length) {
  std::vector<RowInProgress> rows;
  for (size_t i = 0; i < prompts.size(); ++i) {
    rows.emplace_back(options, options.seed + i, static_cast<int64_t>(prompts[i].size()),
                      max_length);
    for (const int64_t id : prompts[i]) rows.back().sampler.see(id);
  }
  return rows;
}

// The next id of each row. logits: (B, V)
std::vector<int64_t> pick_ids(const at::Tensor& logits, std::vector<RowInProgress>& rows,
                              const std::vector<int64_t>& alive) {
  std::vector<int64_t> ids;
  if (rows.front().sampler.plain()) {
    const auto best = logits.argmax(-1).cpu();  // (B)
    ids.assign(best.data_ptr<int64_t>(), best.data_ptr<int64_t>() + best.numel());
    return ids;
  }
  const auto scores = logits.to(torch::kCPU, torch::kDouble);
  for (size_t i = 0; i < alive.size(); ++i) {
    ids.push_back(rows[alive[i]].sampler.pick(scores[static_cast<int64_t>(i)]));
  }
  return ids;
}

}  // namespace

std::vector<GeneratedRow> generate_rows(CausalLm model,
                                        const std::vector<std::vector<int64_t>>& prompts,
                                        const GenerateOptions& options, const TokenSink& on_token) {
  options.validate();
  for (size_t i = 0; i < prompts.size(); ++i) check_prompt(model, prompts[i], i, prompts.size());
  const torch::NoGradGuard no_grad;
  auto rows = start_rows(prompts, options, model->options().max_position_embeddings);
  std::vector<int64_t> alive;  // the row of each row of the batch
  for (size_t i = 0; i < rows.size() && options.max_new_tokens > 0; ++i) {
    alive.push_back(static_cast<int64_t>(i));
  }
  Prefilled state;
  if (!alive.empty()) state = prefill(model, prompts, options);
  while (!alive.empty()) {
    const auto ids = pick_ids(state.logits, rows, alive);
    std::vector<int64_t> stay, next, still_alive;  // places in the batch, ids, rows
    for (size_t i = 0; i < alive.size(); ++i) {
      const auto tell = [&](int64_t id) { return !on_token || on_token(alive[i], id); };
      if (rows[alive[i]].take(ids[i], tell)) continue;
      stay.push_back(static_cast<int64_t>(i));
      next.push_back(ids[i]);
      still_alive.push_back(alive[i]);
    }
    if (!stay.empty() && stay.size() < alive.size()) state.cache = state.cache.select(stay);
    alive = std::move(still_alive);
    if (alive.empty()) break;
    const auto input = torch::tensor(next, torch::kLong).unsqueeze(1).to(state.logits.device());
    const auto hidden = model->forward(input, /*segments=*/{}, &state.cache);  // (B, 1, D)
    state.logits = model->logits(hidden.squeeze(1));                           // (B, V)
  }
  std::vector<GeneratedRow> made;
  for (auto& row : rows) made.push_back(std::move(row.made));
  return made;
}

std::vector<int64_t> generate(CausalLm model, const at::Tensor& prompt,
                              const GenerateOptions& options,
                              const std::function<void(int64_t)>& on_token) {
  TORCH_CHECK(prompt.dim() == 2 && prompt.size(0) == 1,
              "generate prompt: expected shape (1, T), got ", prompt.sizes());
  const auto ids = prompt.to(torch::kCPU, torch::kLong).contiguous();
  const std::vector<int64_t> row(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel());
  const auto tell = [&](int64_t /*row*/, int64_t id) {
    if (on_token) on_token(id);
    return true;
  };
  return generate_rows(model, {row}, options, tell).front().ids;
}

// ---- conversation -------------------------------------------------------------------------------

Conversation::Conversation(CausalLm model, const GenerateOptions& options)
    : model_(std::move(model)), options_(options), cache_(model_->make_cache(1, options.cache)) {
  options_.validate();
}

GeneratedRow Conversation::reply(const std::vector<int64_t>& ids,
                                 const std::function<bool(int64_t)>& on_token) {
  const int64_t context = model_->options().max_position_embeddings;
  const auto length = static_cast<int64_t>(ids_.size() + ids.size());
  if (length >= context) {
    throw ConfigError(
        str("conversation: expected fewer than the model's ", context, " tokens, got ", length));
  }
  std::vector<int64_t> fresh = unread_;
  fresh.insert(fresh.end(), ids.begin(), ids.end());
  check_prompt(model_, fresh, 0, 1);
  const torch::NoGradGuard no_grad;
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  RowInProgress row(options_, options_.seed + static_cast<uint64_t>(turns_++), length, context);
  for (const int64_t id : ids_) row.sampler.see(id);
  while (static_cast<int64_t>(row.made.ids.size()) < options_.max_new_tokens) {
    const auto logits = read_ids(model_, fresh, options_.prefill_chunk, cache_);  // (1, V)
    forwarded_ += static_cast<int64_t>(fresh.size());
    fresh = {row.sampler.pick(logits[0])};
    if (row.take(fresh.front(), on_token)) break;
  }
  unread_ = fresh;
  ids_.insert(ids_.end(), row.made.ids.begin(), row.made.ids.end());
  return row.made;
}

}  // namespace zebra
