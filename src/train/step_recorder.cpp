#include "train/step_recorder.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <sys/resource.h>

#include <cstdio>

#include "train/flops.h"

namespace zebra {

namespace {

std::string megabytes(const char* what, int64_t bytes) {
  char text[64];
  std::snprintf(text, sizeof text, "%s %.1f MB", what, static_cast<double>(bytes) * 1e-6);
  return text;
}

int64_t bytes_of(const CausalLm& model) {
  int64_t bytes = 0;
  for (const auto& parameter : model->parameters()) {
    bytes += static_cast<int64_t>(parameter.nbytes());
  }
  return bytes;
}

}  // namespace

int64_t peak_memory_bytes(at::Device device) {
  if (!device.is_cpu()) {
    const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
    return stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)]
        .peak;
  }
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

std::string memory_text(Job& job, const std::vector<AdamW>& optimizers) {
  int64_t parameters = 0, gradients = 0, optimizer = 0;
  for (const auto& each : optimizers) {
    const auto bytes = each.bytes();
    parameters += bytes.parameters;
    gradients += bytes.gradients;
    optimizer += bytes.masters + bytes.moments;
  }
  int64_t frozen = 0;
  for (const auto& model : job.frozen_models()) frozen += bytes_of(model);
  const int64_t peak = peak_memory_bytes(job.device);
  return megabytes("parameters", parameters) + ", " + megabytes("gradients", gradients) + ", " +
         megabytes("optimizer", optimizer) + ", " + megabytes("frozen models", frozen) + ", " +
         megabytes("activations and the rest",
                   std::max<int64_t>(0, peak - parameters - gradients - optimizer - frozen)) +
         ", " + megabytes("peak", peak);
}

StepRecorder::StepRecorder(Job& job, const LoopPlan& plan, const std::vector<Trainee>& trainees,
                           int64_t step)
    : job_(job), plan_(plan) {
  const auto& recipe = job.recipe.metrics;
  peak_flops_ =
      peak_flops(recipe.peak_tflops, job.device, job.dtype) * static_cast<double>(job.ranks.world);
  for (const auto& trainee : trainees) {
    stages_.push_back(trainee.name.empty() ? plan.stage : plan.stage + "." + trainee.name);
    if (job.ranks.rank != 0) continue;
    job.metrics.keep_until(stages_.back(), step);
    if (!recipe.tensorboard || step >= plan.steps) continue;
    events_.push_back(
        std::make_unique<EventWriter>(job.folder.tensorboard() / stages_.back(), step + 1));
  }
}

Metrics StepRecorder::machine(double seconds) const {
  Metrics metrics = {{"tokens_per_second", plan_.tokens_per_step / seconds},
                     {"step_seconds", seconds},
                     {"memory_bytes", static_cast<double>(peak_memory_bytes(job_.device))}};
  if (plan_.flops_per_step > 0) {
    metrics.emplace_back("model_tflops", plan_.flops_per_step / seconds * 1e-12);
    if (peak_flops_ > 0) {
      metrics.emplace_back("mfu", plan_.flops_per_step / seconds / peak_flops_);
    }
  }
  return metrics;
}

void StepRecorder::write(int64_t step, const std::vector<Metrics>& of_trainees, double seconds) {
  if (job_.ranks.rank != 0) return;
  const Metrics machine = this->machine(seconds);
  for (size_t i = 0; i < stages_.size(); ++i) {
    Metrics metrics = of_trainees[i];
    metrics.emplace_back("tokens", plan_.tokens_per_step * static_cast<double>(step));
    metrics.insert(metrics.end(), machine.begin(), machine.end());
    job_.metrics.write(stages_[i], step, metrics);
    if (!events_.empty()) events_[i]->write(step, metrics);
  }
}

}  // namespace zebra
