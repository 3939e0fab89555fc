// The part of a recipe that says how a job runs on its processes, and not what it computes.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "zebra/options.h"

namespace zebra {

struct CheckpointRecipe {
  int64_t every_steps = 100;  // 0: by time alone
  double every_minutes = 15;  // 0: by steps alone
  int64_t keep = 2;
  int64_t keep_every = 0;
  bool asynchronous = true;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("every_steps", every_steps, "Optimiser steps between checkpoints; 0: by time alone.");
    visit("every_minutes", every_minutes,
          "Longest time between checkpoints, in minutes; 0: by steps alone.");
    visit("keep", keep, "Checkpoints kept of a running stage, the newest.");
    visit("keep_every", keep_every,
          "Checkpoints of steps that are multiples of it are kept for good; 0: none.");
    visit("async", asynchronous, "Training goes on while a checkpoint is written.");
  }
};

enum class Sharding { kNone, kZero1, kZero2, kFull };

template <>
struct EnumNames<Sharding> {
  static constexpr std::array<std::pair<Sharding, std::string_view>, 4> names = {
      {{Sharding::kNone, "none"},
       {Sharding::kZero1, "zero1"},
       {Sharding::kZero2, "zero2"},
       {Sharding::kFull, "full"}}};
};

enum class TeacherSharding { kNone, kLayer };

template <>
struct EnumNames<TeacherSharding> {
  static constexpr std::array<std::pair<TeacherSharding, std::string_view>, 2> names = {
      {{TeacherSharding::kNone, "none"}, {TeacherSharding::kLayer, "layer"}}};
};

enum class Recompute { kNone, kSmart, kFull };

template <>
struct EnumNames<Recompute> {
  static constexpr std::array<std::pair<Recompute, std::string_view>, 3> names = {
      {{Recompute::kNone, "none"}, {Recompute::kSmart, "smart"}, {Recompute::kFull, "full"}}};
};

// Where the state of training lies and what is kept for the backward. No value changes what is
// computed but for rounding, so a run may go on with others.
struct ParallelRecipe {
  Sharding sharding = Sharding::kNone;
  TeacherSharding teacher_sharding = TeacherSharding::kNone;
  Recompute recompute = Recompute::kNone;
  bool offload_inputs = false;
  bool bit_equal = false;
  int64_t timeout_seconds = 600;
  int64_t max_restarts = 3;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("sharding", sharding,
          "What ranks share out: none, zero1 (moments, masters), zero2 (and gradients) or full "
          "(and parameters).");
    visit("teacher_sharding", teacher_sharding,
          "The frozen teacher: none (whole on every rank) or layer (gathered layer by layer).");
    visit("recompute", recompute,
          "What the backward computes again: none, smart (cheap parts of a block) or full.");
    visit("offload_inputs", offload_inputs, "Inputs of recomputed blocks wait in host memory.");
    visit("bit_equal", bit_equal,
          "The same bits on any number of ranks and with any sharding and micro_batch_size: every "
          "sequence or pair is computed alone, gradients are added up in float64.");
    visit("timeout_seconds", timeout_seconds, "How long a rank waits for the others.");
    visit("max_restarts", max_restarts,
          "--nproc: how often a group that lost a rank starts again.");
  }
};

enum class OnSpike { kLog, kSkip };

template <>
struct EnumNames<OnSpike> {
  static constexpr std::array<std::pair<OnSpike, std::string_view>, 2> names = {
      {{OnSpike::kLog, "log"}, {OnSpike::kSkip, "skip"}}};
};

// Steps that go wrong: not finite, or far from those before them.
struct StabilityRecipe {
  int64_t max_skips_in_row = 4;
  double spike_zscore = 6.0;
  OnSpike on_spike = OnSpike::kLog;
  int64_t spike_window = 128;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("max_skips_in_row", max_skips_in_row,
          "Steps skipped in a row (not finite, or spikes) before the run gives up.");
    visit("spike_zscore", spike_zscore,
          "Standard deviations above the mean from which a loss or gradient norm is a spike; 0: "
          "none is.");
    visit("on_spike", on_spike, "log, or skip the update as well.");
    visit("spike_window", spike_window, "Steps that mean and deviation are taken over.");
  }
};

}  // namespace zebra
