// Intermediate layer distillation: every layer of the pure students learns its counterpart in the
// base, on the base's own hidden states. One pass over the base's layers serves all students, and
// only one student layer's activations live.
#include "train/flops.h"
#include "train/stages/stages.h"
#include "train/stages/steps.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

// What one layer of the base read and made.
struct TeacherLayer {
  at::Tensor input;      // (B, T, D)
  at::Tensor hidden;     // (B, T, D) block output; of the last block: after the final norm
  at::Tensor mixer_out;  // (B, T, D)
};

// Sums over layers and micro-batches in float64, left on the device until the step is over: reading
// them would stall it.
struct StudentLoss {
  at::Tensor hidden, mixer;  // scalars

  void add(const StudentLoss& more) {
    if (!more.hidden.defined()) return;
    hidden = hidden.defined() ? hidden + more.hidden : more.hidden;
    mixer = mixer.defined() ? mixer + more.mixer : more.mixer;
  }
};

// What one layer of a student is to learn.
struct Lesson {
  int64_t layer;
  const TeacherLayer& teacher;
  const SequenceContext& context;
  const at::Tensor& weights;  // (B, T)
};

StudentLoss train_layer(const IldStage& stage, Trainee& student, const Lesson& lesson) {
  const auto& teacher = lesson.teacher;
  auto out = student.model->run_block(lesson.layer, teacher.input, lesson.context);
  const bool last = lesson.layer + 1 == student.model->options().num_layers();
  if (last) out.hidden = student.model->final_norm()->forward(out.hidden);
  const auto hidden = ild_distance(out.hidden, teacher.hidden, lesson.weights, stage.form);
  const auto mixer = ild_distance(out.mixer_out, teacher.mixer_out, lesson.weights, stage.form);
  (hidden * stage.hidden_weight + mixer * stage.mixer_weight).backward();
  return {hidden.detach().to(torch::kDouble), mixer.detach().to(torch::kDouble)};
}

// Walks the base once and trains the same layer of every student as it goes.
std::vector<StudentLoss> train_batch(const IldStage& stage, CausalLm& base,
                                     std::vector<Trainee>& students, const Batch& batch,
                                     double tokens) {
  std::vector<StudentLoss> losses(students.size());
  const auto weights = text_mask(batch).to(torch::kFloat) / tokens;  // (B, T)
  const auto base_context = base->context(batch.input_ids, batch.segments, /*offset=*/0);
  std::vector<SequenceContext> contexts;
  for (auto& student : students) {
    contexts.push_back(student.model->context(batch.input_ids, batch.segments, /*offset=*/0));
  }
  TeacherLayer teacher;
  {
    torch::NoGradGuard no_grad;
    teacher.input = base->embed(batch.input_ids);  // (B, T, D)
  }
  for (int64_t i = 0; i < base->options().num_layers(); ++i) {
    at::Tensor next;
    {
      torch::NoGradGuard no_grad;
      auto out = base->run_block(i, teacher.input, base_context);
      next = out.hidden;
      const bool last = i + 1 == base->options().num_layers();
      teacher.hidden = last ? base->final_norm()->forward(out.hidden) : out.hidden;
      teacher.mixer_out = out.mixer_out;
    }
    for (size_t s = 0; s < students.size(); ++s) {
      if (students[s].model->options().layers[i] == MixerKind::kAttention)
        continue;  // stays as it is
      losses[s].add(train_layer(stage, students[s], {i, teacher, contexts[s], weights}));
    }
    teacher.input = next;
  }
  return losses;
}

Metrics student_metrics(const IldStage& stage, const StudentLoss& loss,
                        const StepBatches& batches) {
  const double hidden = loss.hidden.item<double>(), mixer = loss.mixer.item<double>();
  return {{"loss", hidden * stage.hidden_weight + mixer * stage.mixer_weight},
          {"hidden_loss", hidden},
          {"mixer_loss", mixer},
          {"samples", batches.samples},
          {"data_seconds", batches.seconds}};
}

}  // namespace

std::vector<Metrics> ild_step(const IldStage& stage, CausalLm& base, std::vector<Trainee>& students,
                              const StepBatches& batches) {
  std::vector<StudentLoss> losses(students.size());
  for (const auto& batch : batches.micro) {
    const auto of_batch = train_batch(stage, base, students, batch, batches.text);
    for (size_t s = 0; s < losses.size(); ++s) losses[s].add(of_batch[s]);
  }
  std::vector<Metrics> metrics;
  for (const auto& loss : losses) metrics.push_back(student_metrics(stage, loss, batches));
  return metrics;
}

StageResult run_ild(Job& job, uint64_t key) {
  const auto& stage = *job.recipe.stages.ild;
  std::vector<Trainee> students;
  for (const auto& [name, kind] :
       {std::pair{"mla", MixerKind::kMla}, std::pair{"mamba2", MixerKind::kMamba2}}) {
    if (job.needs_student(kind))
      students.push_back({name, job.load(job.folder.stage("init") / name)});
  }
  const auto& data = job.train_data();
  auto base = job.base();
  job.share_frozen(base);
  const int64_t T = job.recipe.data.sequence_length;
  const auto plan = batch_plan(job, "ild", stage.batch_size, stage.micro_batch_size);
  double flops = forward_flops(base->options(), T).layers;  // of a token
  for (const auto& student : students) {
    flops += 3 * forward_flops(student.model->options(), T).layers;
  }
  const double seconds =
      run_loop(job,
               {.stage = "ild",
                .key = key,
                .steps = steps_for(stage.tokens, stage.batch_size, T, data.size()),
                .tokens_per_step = static_cast<double>(stage.batch_size * T),
                .flops_per_step = static_cast<double>(stage.batch_size * T) * flops,
                .optimizer = stage.optimizer,
                .micro_batches = plan.micro_batches(),
                .samples = sample_ids_of(data, plan)},
               students, [&](int64_t step) {
                 return ild_step(stage, base, students, step_batches(job, data, plan, step));
               });
  job.group.led([&] {
    for (const auto& student : students) {
      job.save(job.folder.stage("ild") / student.name, student.model);
    }
  });
  return {seconds};
}

}  // namespace zebra
