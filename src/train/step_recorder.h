// What is measured about the steps of a stage, and where it goes.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "train/loop.h"
#include "train/tensorboard.h"

namespace zebra {

// The most memory that this process has held: on a GPU the allocator's, else resident memory.
int64_t peak_memory_bytes(at::Device device);

// Bytes of this rank by what they are for, "parameters 1.2 MB, gradients 1.2 MB, ...", of what is
// trained and of the models that the job holds frozen.
std::string memory_text(Job& job, const std::vector<AdamW>& optimizers);

// Writes metrics.jsonl and TensorBoard events of a stage; only rank 0 does. A resumed stage first
// forgets what was written beyond its step.
class StepRecorder {
 public:
  StepRecorder(Job& job, const LoopPlan& plan, const std::vector<Trainee>& trainees, int64_t step);

  // After `step` steps: what the stage measured of each trainee, to which is added what the machine
  // did (is_machine_measure).
  void write(int64_t step, const std::vector<Metrics>& of_trainees, double seconds);

 private:
  Metrics machine(double seconds) const;

  Job& job_;
  const LoopPlan& plan_;
  std::vector<std::string> stages_;  // "distill", or "ild.mla" of a trainee with a name
  std::vector<std::unique_ptr<EventWriter>> events_;
  double peak_flops_ = 0;  // of all ranks
};

}  // namespace zebra
