#include "train/block_runner.h"

#include <optional>

#include "ops/kept.h"

namespace zebra {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A block's input in host memory. Copies go on a stream of their own beside the computation, to and
// from pinned memory; on the CPU they are plain copies.
class OffloadedInput {
 public:
  explicit OffloadedInput(const at::Tensor& hidden)
      : device_(hidden.device()),
        host_(at::empty_like(
            hidden, hidden.options().device(at::kCPU).pinned_memory(hidden.device().is_cuda()))) {
    on_copy_stream([&] { host_.copy_(hidden, /*non_blocking=*/true); }, hidden);
  }

  at::Tensor restore() {
    if (device_.is_cpu()) return host_.clone();
    auto hidden = at::empty_like(host_, host_.options().device(device_).pinned_memory(false));
    on_copy_stream([&] { hidden.copy_(host_, /*non_blocking=*/true); }, hidden);
    const c10::impl::VirtualGuardImpl impl(device_.type());
    done_->block(impl.getStream(device_));
    return hidden;
  }

 private:
  // Behind what the current stream has begun; `used` stays alive until the copy is over.
  void on_copy_stream(const std::function<void()>& copy, const at::Tensor& used) {
    if (device_.is_cpu()) return copy();
    const c10::impl::VirtualGuardImpl impl(device_.type());
    if (!stream_) stream_ = impl.getStreamFromGlobalPool(device_);
    c10::Event begun(device_.type());
    begun.record(impl.getStream(device_));
    begun.block(*stream_);
    {
      const c10::StreamGuard guard(*stream_);
      copy();
      used.record_stream(*stream_);
    }
    done_.emplace(device_.type());
    done_->record(*stream_);
  }

  at::Device device_;
  at::Tensor host_;
  std::optional<c10::Stream> stream_;
  std::optional<c10::Event> done_;
};

// What the backward of one block needs to run it again.
struct BlockCall : torch::CustomClassHolder {
  Block block{nullptr};
  SequenceContext context;
  BlockRunOptions options;
  ParameterShards* shards = nullptr;
  int64_t layer = 0;
  KeptTensors kept;  // smart
  std::optional<OffloadedInput> input;
};

// The shell is unit 0.
int64_t unit_of_layer(int64_t layer) { return layer + 1; }

// A re-entrant checkpoint: the backward runs the block again and then the backward of that.
class RecomputedBlock : public torch::autograd::Function<RecomputedBlock> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& hidden,
                               const at::Tensor& /*anchor*/,
                               const c10::intrusive_ptr<BlockCall>& call) {
    BlockOutput out;  // no graph: a Function's forward records none
    {
      std::optional<KeepScope> keeps;
      if (call->options.recompute == Recompute::kSmart) keeps.emplace(call->kept);
      out = call->block->forward(hidden, call->context, /*cache=*/nullptr);
    }
    if (call->options.offload_inputs) {
      call->input.emplace(hidden);
    } else {
      ctx->save_for_backward({hidden});
    }
    ctx->saved_data["call"] = c10::IValue::make_capsule(call);
    ctx->saved_data["input_wants_grad"] = hidden.requires_grad();
    ctx->set_materialize_grads(false);
    return {out.hidden, out.mixer_out};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto capsule = ctx->saved_data["call"].toCapsule();
    auto& call = static_cast<BlockCall&>(*capsule);
    const auto input = call.input ? call.input->restore() : ctx->get_saved_variables()[0].detach();
    const at::AutoGradMode with_grad(true);
    const bool wants = ctx->saved_data["input_wants_grad"].toBool();
    auto hidden = input.detach().requires_grad_(wants);
    if (call.shards != nullptr) call.shards->before_backward(unit_of_layer(call.layer));
    const auto out = run_again(call, hidden);
    variable_list roots, root_grads;
    for (const auto& [root, grad] : {std::pair(out.hidden, grads[0]), {out.mixer_out, grads[1]}}) {
      if (!grad.defined()) continue;
      roots.push_back(root);
      root_grads.push_back(grad);
    }
    if (!roots.empty()) torch::autograd::backward(roots, root_grads);
    call.kept.clear();
    return {wants ? hidden.grad() : at::Tensor(), at::Tensor(), at::Tensor()};
  }

 private:
  static BlockOutput run_again(BlockCall& call, const at::Tensor& hidden) {
    std::optional<ReplayScope> replays;
    if (call.options.recompute == Recompute::kSmart) replays.emplace(call.kept);
    return call.block->forward(hidden, call.context, /*cache=*/nullptr);
  }
};

bool wants_backward(const at::Tensor& hidden, const Block& block) {
  if (!at::GradMode::is_enabled()) return false;
  if (hidden.requires_grad()) return true;
  for (const auto& parameter : block->parameters()) {
    if (parameter.requires_grad()) return true;
  }
  return false;
}

}  // namespace

TrainingBlocks::TrainingBlocks(ParameterShards* shards, const BlockRunOptions& options)
    : shards_(shards), options_(options), anchor_(at::zeros({}).requires_grad_(true)) {}

BlockOutput TrainingBlocks::run(int64_t layer, Block& block, const at::Tensor& hidden,
                                const SequenceContext& context) {
  const int64_t unit = unit_of_layer(layer);
  const bool backward = wants_backward(hidden, block);
  if (shards_ != nullptr) shards_->before_forward(unit);
  BlockOutput out;
  if (backward && options_.recompute != Recompute::kNone) {
    auto call = c10::make_intrusive<BlockCall>();
    call->block = block;
    call->context = context;
    call->options = options_;
    call->shards = shards_;
    call->layer = layer;
    const auto outputs = RecomputedBlock::apply(hidden, anchor_, call);
    out = {outputs[0], outputs[1]};
  } else {
    out = run_plain(layer, block, hidden, context);
  }
  if (shards_ != nullptr) shards_->after_forward(unit, backward);
  return out;
}

// The parameters must be back before the backward of the block begins, which is when the gradient
// of one of its outputs is there.
BlockOutput TrainingBlocks::run_plain(int64_t layer, Block& block, const at::Tensor& hidden,
                                      const SequenceContext& context) {
  auto out = block->forward(hidden, context, /*cache=*/nullptr);
  if (shards_ == nullptr) return out;
  for (const auto& output : {out.hidden, out.mixer_out}) {
    if (!output.requires_grad()) continue;
    output.register_hook([shards = shards_, unit = unit_of_layer(layer)](const at::Tensor& grad) {
      shards->before_backward(unit);
      return grad;
    });
  }
  return out;
}

namespace {

// Keeps the shards alive with the runner that needs them.
class FrozenBlocks : public BlockRunner {
 public:
  FrozenBlocks(CausalLm& model, Group& group)
      : shards_(all_parameters(*model), group, {.sharding = Sharding::kFull, .trained = false}),
        blocks_(&shards_, {}) {}
  BlockOutput run(int64_t layer, Block& block, const at::Tensor& hidden,
                  const SequenceContext& context) override {
    return blocks_.run(layer, block, hidden, context);
  }

 private:
  ParameterShards shards_;
  TrainingBlocks blocks_;
};

}  // namespace

std::shared_ptr<BlockRunner> share_frozen_blocks(CausalLm& model, Group& group) {
  auto runner = std::make_shared<FrozenBlocks>(model, group);
  model->set_block_runner(runner);
  return runner;
}

}  // namespace zebra
