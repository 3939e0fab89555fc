#include "train/flops.h"
#include "train/stages/stages.h"
#include "train/stages/steps.h"
#include "zebra/convert.h"
#include "zebra/error.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

ModelOptions new_model_options(Job& job) {
  const auto& shape = *job.recipe.new_model;
  const int64_t pieces = job.tokenizer().vocab_size();
  ModelOptions options;
  options.vocab_size = shape.vocab_size > 0 ? shape.vocab_size : pieces;
  if (options.vocab_size < pieces) {
    throw ConfigError(str("new_model.vocab_size: expected at least the tokenizer's ", pieces,
                          " entries, got ", options.vocab_size));
  }
  options.hidden_size = shape.hidden_size;
  options.intermediate_size = shape.intermediate_size;
  options.num_heads = shape.num_heads;
  options.num_kv_heads = shape.num_kv_heads;
  options.head_dim = shape.head_dim;
  options.max_position_embeddings = shape.max_position_embeddings;
  options.rope.theta = shape.rope_theta;
  options.initializer_range = shape.initializer_range;
  options.bos_token_id = job.tokenizer().bos_id();
  options.eos_token_ids = {job.tokenizer().eos_id()};
  options.layers.assign(shape.num_layers, MixerKind::kAttention);
  if (job.recipe.hybrid) {  // a hybrid from random weights: the baseline of conversion
    for (auto& kind : options.layers) kind = MixerKind::kMamba2;
    for (const int64_t i : job.recipe.hybrid->mla_layers) options.layers.at(i) = MixerKind::kMla;
    for (const int64_t i : job.recipe.hybrid->attention_layers) {
      options.layers.at(i) = MixerKind::kAttention;
    }
    const auto layers = options.layers;
    options = hybrid_shape(options, *job.recipe.hybrid);
    options.layers = layers;
  }
  return options;
}

}  // namespace

double pretrain_step(CausalLm& model, const StepBatches& batches) {
  double total = 0;
  for (const auto& batch : batches.micro) {
    const auto hidden = model->forward(batch.input_ids, batch.segments);  // (B, T, D)
    const auto targets = batch.targets.flatten();                         // (B * T)
    const auto rows = targets.ge(0).nonzero().squeeze(1);                 // (M)
    const auto nll = token_nll(hidden.flatten(0, 1).index_select(0, rows), model->head_weight(),
                               targets.index_select(0, rows), kChunkTokens);  // (M)
    const auto loss = nll.sum() / batches.predictions;
    loss.backward();
    total += loss.item<double>();
  }
  return total;
}

StageResult run_pretrain(Job& job, uint64_t key) {
  const auto& stage = *job.recipe.stages.pretrain;
  torch::manual_seed(static_cast<uint64_t>(job.recipe.seed));
  CausalLm model(new_model_options(job));
  model->to(job.device, job.dtype);

  const auto& data = job.train_data();
  const int64_t T = job.recipe.data.sequence_length;
  const auto plan = batch_plan(job, "pretrain", stage.batch_size, stage.micro_batch_size);
  std::vector<Trainee> trainees = {{.name = "", .model = model}};
  const double seconds =
      run_loop(job,
               {.stage = "pretrain",
                .key = key,
                .steps = steps_for(stage.tokens, stage.batch_size, T, data.size()),
                .tokens_per_step = static_cast<double>(stage.batch_size * T),
                .flops_per_step = static_cast<double>(stage.batch_size * T) * 3 *
                                  forward_flops(model->options(), T).total(),
                .optimizer = stage.optimizer,
                .micro_batches = plan.micro_batches(),
                .samples = sample_ids_of(data, plan)},
               trainees, [&](int64_t step) -> std::vector<Metrics> {
                 const auto batches = step_batches(job, data, plan, step);
                 return {{{"loss", pretrain_step(model, batches)},
                          {"samples", batches.samples},
                          {"data_seconds", batches.seconds}}};
               });
  job.group.led([&] { job.save(job.folder.stage("pretrain"), model); });
  return {seconds};
}

}  // namespace zebra
