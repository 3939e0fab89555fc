// How training runs the blocks of a model: what is kept for the backward, and when a block's
// parameters are there.
#pragma once

#include <memory>

#include "train/shards.h"
#include "zebra/model.h"
#include "zebra/recipe_running.h"

namespace zebra {

struct BlockRunOptions {
  Recompute recompute = Recompute::kNone;
  bool offload_inputs = false;  // inputs of recomputed blocks wait in (pinned) host memory
};

// With recompute `full` a block keeps its input alone and its backward runs the whole block once
// more; with `smart` it also keeps what its projections and its attention gave, and computes norms,
// activations, rotations, convolution, scan and expanded keys and values again. Either way the
// gradients are those of the plain backward, bit for bit.
//
// `shards` (of the same model's parameters) may be null, and outlives this.
class TrainingBlocks : public BlockRunner {
 public:
  TrainingBlocks(ParameterShards* shards, const BlockRunOptions& options);
  BlockOutput run(int64_t layer, Block& block, const at::Tensor& hidden,
                  const SequenceContext& context) override;

 private:
  BlockOutput run_plain(int64_t layer, Block& block, const at::Tensor& hidden,
                        const SequenceContext& context);

  ParameterShards* shards_;
  BlockRunOptions options_;
  at::Tensor anchor_;  // wants a gradient, so that a block whose input wants none has a backward
};

// A frozen model whose blocks are shared out over the ranks: each is gathered when its turn comes,
// the next one meanwhile. The model is of no use afterwards but for running its blocks.
std::shared_ptr<BlockRunner> share_frozen_blocks(CausalLm& model, Group& group);

}  // namespace zebra
