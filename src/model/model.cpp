#include "zebra/model.h"

#include <algorithm>
#include <functional>

#include "zebra/error.h"

namespace zebra {

namespace {

// Llama's scheme for everything but Mamba2's own parts, which keep the ranges that their
// constructor drew.
void init_llama_style(torch::nn::Module& module, double range) {
  torch::NoGradGuard no_grad;
  for (auto& item : module.named_modules("", /*include_self=*/false)) {
    const bool in_mamba = item.key().find(".mamba.") != std::string::npos;
    if (auto* linear = item.value()->as<torch::nn::LinearImpl>(); linear && !in_mamba) {
      linear->weight.normal_(0, range);
      if (linear->bias.defined()) linear->bias.zero_();
    }
    if (auto* embedding = item.value()->as<torch::nn::EmbeddingImpl>()) {
      embedding->weight.normal_(0, range);
    }
  }
}

}  // namespace

CausalLmImpl::CausalLmImpl(const ModelOptions& options) : options_(options) {
  options_.validate();
  const int64_t V = options.vocab_size, D = options.hidden_size;
  model_ = register_module("model", std::make_shared<torch::nn::Module>());
  embed_tokens_ = model_->register_module("embed_tokens", torch::nn::Embedding(V, D));
  auto layers = model_->register_module("layers", std::make_shared<torch::nn::Module>());
  for (int64_t i = 0; i < options.num_layers(); ++i) {
    blocks_.push_back(layers->register_module(std::to_string(i), Block(options_, i)));
  }
  norm_ = model_->register_module("norm", RmsNorm(D, options.rms_norm_eps));
  if (!options.tie_word_embeddings) {
    lm_head_ =
        register_module("lm_head", torch::nn::Linear(torch::nn::LinearOptions(D, V).bias(false)));
  }
  init_llama_style(*this, options.initializer_range);
  make_rope();
}

CausalLmImpl::CausalLmImpl(const ModelOptions& options, const CausalLmImpl& shell,
                           std::vector<Block> blocks)
    : options_(options), blocks_(std::move(blocks)), norm_(shell.norm_), lm_head_(shell.lm_head_) {
  options_.validate();
  TORCH_CHECK(blocks_.size() == options.layers.size(), "model: expected ", options.layers.size(),
              " blocks, got ", blocks_.size());
  model_ = register_module("model", std::make_shared<torch::nn::Module>());
  embed_tokens_ = model_->register_module("embed_tokens", shell.embed_tokens_);
  auto layers = model_->register_module("layers", std::make_shared<torch::nn::Module>());
  for (size_t i = 0; i < blocks_.size(); ++i) {
    TORCH_CHECK(blocks_[i]->mixer->kind() == options.layers[i], "model: block ", i,
                " is not of the kind that its layer asks for");
    layers->register_module(std::to_string(i), blocks_[i]);
  }
  model_->register_module("norm", norm_);
  if (!lm_head_.is_empty()) register_module("lm_head", lm_head_);
  make_rope();
}

void CausalLmImpl::make_rope() {
  const auto uses = [&](MixerKind kind) {
    return std::find(options_.layers.begin(), options_.layers.end(), kind) != options_.layers.end();
  };
  if (uses(MixerKind::kAttention)) attention_rope_ = {options_.rope, options_.head_dim};
  if (uses(MixerKind::kMla)) mla_rope_ = {options_.mla.rope, options_.mla.qk_rope_head_dim};
}

at::Tensor CausalLmImpl::embed(const at::Tensor& input_ids) { return embed_tokens_(input_ids); }

SequenceContext CausalLmImpl::context_at(const at::Tensor& positions) const {
  const auto dtype =
      embed_tokens_->weight.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
  SequenceContext context;
  if (attention_rope_.inverse.defined()) context.rope = attention_rope_.table(positions, dtype);
  if (mla_rope_.inverse.defined()) context.mla_rope = mla_rope_.table(positions, dtype);
  return context;
}

SequenceContext CausalLmImpl::context(const at::Tensor& input_ids, const at::Tensor& segments,
                                      int64_t offset) const {
  const int64_t T = input_ids.size(1);
  auto context =
      context_at(segments.defined()
                     ? segment_positions(segments)  // (B, T)
                     : torch::arange(offset, offset + T, input_ids.options().dtype(torch::kLong))
                           .unsqueeze(0));
  context.segments = segments;
  return context;
}

at::Tensor CausalLmImpl::forward(const at::Tensor& input_ids, const at::Tensor& segments,
                                 ModelCache* cache) {
  TORCH_CHECK(input_ids.dim() == 2, "model input_ids: expected (B, T), got ", input_ids.sizes());
  TORCH_CHECK(cache == nullptr || !segments.defined(),
              "model: a cache holds one document a row, so segments must be left out");
  if (cache != nullptr) {
    return extend(input_ids, std::vector(cache->lengths.size(), input_ids.size(1)), *cache);
  }
  const auto shared = context(input_ids, segments, /*offset=*/0);
  auto hidden = embed(input_ids);  // (B, T, D)
  for (int64_t i = 0; i < options_.num_layers(); ++i) hidden = run_block(i, hidden, shared).hidden;
  return norm_(hidden);  // (B, T, D)
}

at::Tensor CausalLmImpl::forward_cached(const at::Tensor& input_ids, CachePlace place,
                                        ModelCache& cache) {
  const int64_t B = input_ids.size(0), T = input_ids.size(1);
  TORCH_CHECK(cache.rows() == B, "model: the cache has ", cache.rows(), " rows, got ", B);
  TORCH_CHECK(!cache.tentative, "model: a proposed piece waits for the cache's keep()");
  place.first = cache.lengths;
  const bool level = std::adjacent_find(place.first.begin(), place.first.end(),
                                        std::not_equal_to<>()) == place.first.end();
  place.even = level && std::all_of(place.counts.begin(), place.counts.end(),
                                    [&](int64_t count) { return count == T; });
  auto first = torch::tensor(place.first, torch::kLong).to(input_ids.device()).unsqueeze(1);
  if (level) first = first.narrow(0, 0, 1);  // (1, 1), else (B, 1)
  auto shared = context_at(first + torch::arange(T, first.options()));
  shared.place = std::move(place);
  auto hidden = embed(input_ids);  // (B, T, D)
  for (size_t i = 0; i < blocks_.size(); ++i) {
    hidden = blocks_[i]->forward(hidden, shared, cache.layers[i].get()).hidden;
  }
  return norm_(hidden);  // (B, T, D)
}

at::Tensor CausalLmImpl::extend(const at::Tensor& input_ids, const std::vector<int64_t>& counts,
                                ModelCache& cache) {
  TORCH_CHECK(counts.size() == cache.lengths.size(), "model extend: expected ",
              cache.lengths.size(), " counts, got ", counts.size());
  const auto hidden = forward_cached(input_ids, {.counts = counts}, cache);
  for (size_t b = 0; b < counts.size(); ++b) cache.lengths[b] += counts[b];
  return hidden;
}

at::Tensor CausalLmImpl::propose(const at::Tensor& input_ids, ModelCache& cache) {
  const std::vector<int64_t> counts(cache.lengths.size(), input_ids.size(1));
  const auto hidden = forward_cached(input_ids, {.counts = counts, .tentative = true}, cache);
  cache.tentative = true;
  return hidden;
}

HiddenStates CausalLmImpl::forward_all(const at::Tensor& input_ids, const at::Tensor& segments) {
  const auto shared = context(input_ids, segments, /*offset=*/0);
  HiddenStates states;
  auto hidden = embed(input_ids);  // (B, T, D)
  for (int64_t i = 0; i < options_.num_layers(); ++i) {
    states.hidden.push_back(hidden);
    auto out = run_block(i, hidden, shared);
    states.mixer_out.push_back(out.mixer_out);
    hidden = out.hidden;
  }
  states.hidden.push_back(norm_(hidden));
  return states;
}

BlockOutput CausalLmImpl::run_block(int64_t layer, const at::Tensor& hidden,
                                    const SequenceContext& context) {
  auto& block = blocks_.at(layer);
  if (runner_) return runner_->run(layer, block, hidden, context);
  return block->forward(hidden, context, /*cache=*/nullptr);
}

void CausalLmImpl::set_block_runner(std::shared_ptr<BlockRunner> runner) {
  runner_ = std::move(runner);
}

at::Tensor CausalLmImpl::head_weight() const {
  return lm_head_.is_empty() ? embed_tokens_->weight : lm_head_->weight;
}

at::Tensor CausalLmImpl::logits(const at::Tensor& hidden) const {
  const auto out = at::linear(hidden, head_weight());  // (..., V)
  return out.scalar_type() == torch::kDouble ? out : out.to(torch::kFloat);
}

ModelCache CausalLmImpl::make_cache(int64_t batch, const CacheOptions& options) const {
  options.validate();
  ModelCache cache;
  for (const auto& block : blocks_) cache.layers.push_back(block->mixer->make_cache(options));
  cache.lengths.assign(static_cast<size_t>(batch), 0);
  return cache;
}

Block CausalLmImpl::block(int64_t layer) const { return blocks_.at(layer); }

RmsNorm CausalLmImpl::final_norm() const { return norm_; }

}  // namespace zebra
