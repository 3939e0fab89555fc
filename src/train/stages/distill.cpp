// End-to-end distillation: the hybrid's distribution over the next token moves towards the
// teacher's.
#include "train/flops.h"
#include "train/stages/stages.h"
#include "train/stages/steps.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

// Rows of (B * T, D) whose token carries a loss.
at::Tensor loss_rows(const at::Tensor& hidden, const at::Tensor& rows) {
  const auto flat = hidden.flatten(0, 1);
  return rows.defined() ? flat.index_select(0, rows) : flat;
}

DistillLossOutput distill_batch(const DistillStage& stage, CausalLm& teacher, CausalLm& student,
                                const Batch& batch, const StepBatches& step) {
  DistillLossInput in;
  at::Tensor rows;  // undefined: all
  if (!batch.loss_everywhere) rows = batch.loss_mask.flatten().nonzero().squeeze(1);
  {
    torch::NoGradGuard no_grad;
    in.teacher_hidden = loss_rows(teacher->forward(batch.input_ids, batch.segments), rows);
    in.teacher_head = teacher->head_weight();
  }
  in.student_hidden = loss_rows(student->forward(batch.input_ids, batch.segments), rows);  // (M, D)
  in.student_head = student->head_weight();
  const int64_t M = in.student_hidden.size(0);
  const bool per_sequence = stage.kl.normalize == Normalize::kSequence;
  const auto floats = batch.loss_mask.options();
  in.kl_weights = torch::full({M}, 1.0 / (per_sequence ? step.sequences : step.tokens), floats);
  if (stage.ce_weight != 0) {
    const auto targets = batch.targets.flatten();
    in.targets = rows.defined() ? targets.index_select(0, rows) : targets;
    in.ce_weights = torch::full({M}, 1.0 / step.predictions, floats);
  }
  auto out = distill_loss(in, {.direction = stage.kl.direction,
                               .temperature = stage.kl.temperature,
                               .kl_weight = stage.kl_weight,
                               .ce_weight = stage.ce_weight,
                               .chunk_tokens = stage.kl.chunk_tokens});
  out.loss.backward();
  return {out.loss.detach(), out.kl_sum, out.ce_sum, out.agree};
}

}  // namespace

Metrics distill_step(const DistillStage& stage, CausalLm& teacher, CausalLm& student,
                     const StepBatches& step) {
  at::Tensor sums;  // (4) loss, KL, CE, agreement: read once, when all micro batches are under way
  for (const auto& batch : step.micro) {
    const auto out = distill_batch(stage, teacher, student, batch, step);
    const auto part = torch::stack({out.loss.to(torch::kDouble), out.kl_sum.to(torch::kDouble),
                                    out.ce_sum.to(torch::kDouble), out.agree.to(torch::kDouble)});
    sums = sums.defined() ? sums + part : part;
  }
  sums = sums.cpu();
  const auto value = [&](int64_t i) { return sums[i].item<double>(); };
  Metrics metrics = {{"loss", value(0)},
                     {"kl_per_token", value(1) / step.tokens},
                     {"top1_agreement", value(3) / step.tokens}};
  if (stage.ce_weight != 0) metrics.emplace_back("ce", value(2) / step.predictions);
  metrics.emplace_back("samples", step.samples);
  metrics.emplace_back("data_seconds", step.seconds);
  return metrics;
}

StageResult run_distill(Job& job, uint64_t key) {
  const auto& stage = *job.recipe.stages.distill;
  auto teacher = job.teacher();
  job.share_frozen(teacher);
  auto student = job.load(job.folder.stage("compose"));
  const auto& data = job.train_data();
  const int64_t T = job.recipe.data.sequence_length;
  const auto plan = batch_plan(job, "distill", stage.batch_size, stage.micro_batch_size);
  std::vector<Trainee> trainees = {{.name = "", .model = student}};
  const double seconds = run_loop(
      job,
      {.stage = "distill",
       .key = key,
       .steps = steps_for(stage.tokens, stage.batch_size, T, data.size()),
       .tokens_per_step = static_cast<double>(stage.batch_size * T),
       .flops_per_step = static_cast<double>(stage.batch_size * T) *
                         (forward_flops(teacher->options(), T).total() +
                          3 * forward_flops(student->options(), T).total()),
       .optimizer = stage.optimizer,
       .micro_batches = plan.micro_batches(),
       .samples = sample_ids_of(data, plan)},
      trainees, [&](int64_t step) -> std::vector<Metrics> {
        return {distill_step(stage, teacher, student, step_batches(job, data, plan, step))};
      });
  job.group.led([&] { job.save(job.folder.stage("distill"), student); });
  return {seconds};
}

}  // namespace zebra
