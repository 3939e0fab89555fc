// Hybrids of MLA and Mamba2 against the published modules.
#include "golden/golden.h"
#include "model/cache.h"
#include "zebra/losses.h"

namespace zebra::testing {

namespace {

const std::vector<std::string> kFolders = {"gqa2", "gqa4_before_conv", "mha_full", "latent_norm",
                                           "all_mla"};

std::string folder(const std::string& name) { return "goldens/hybrid/" + name; }

std::string key(const std::string& prefix, int64_t i) { return prefix + std::to_string(i); }

void check_states(const HiddenStates& states, const Golden& golden, const std::string& who,
                  const std::string& mixer) {
  for (size_t i = 0; i < states.hidden.size(); ++i) {
    const auto name = key(who + ".hidden.", static_cast<int64_t>(i));
    check_close(states.hidden[i], golden[name], tolerance(kForward32), name);
  }
  for (size_t i = 0; i < states.mixer_out.size(); ++i) {
    const auto name = key(mixer, static_cast<int64_t>(i));
    check_close(states.mixer_out[i], golden[name], tolerance(kForward32), name);
  }
}

// Published ILD: each layer on the base's hidden state, unsquared norms, the last layer after the
// final norm.
at::Tensor ild_loss(CausalLm& model, const Golden& golden) {
  const auto ids = golden["input_ids"];
  const auto context = model->context(ids, /*segments=*/{}, /*offset=*/0);
  const auto weights = torch::full(ids.sizes(), 1.0 / static_cast<double>(ids.numel()),
                                   torch::TensorOptions().device(ids.device()));
  const int64_t L = model->options().num_layers();
  at::Tensor total;
  for (int64_t i = 0; i < L; ++i) {
    const auto input = golden[key("base.hidden.", i)].to(test_dtype());
    auto out = model->block(i)->forward(input, context, /*cache=*/nullptr);
    if (i + 1 == L) out.hidden = model->final_norm()->forward(out.hidden);
    const auto hidden = ild_distance(
        out.hidden, golden[key("base.hidden.", i + 1)].to(test_dtype()), weights, IldForm::kNorm);
    const auto mixer = ild_distance(
        out.mixer_out, golden[key("base.attn_out.", i)].to(test_dtype()), weights, IldForm::kNorm);
    check_close(hidden.reshape({1}), golden[key("ild.hidden_loss.", i)], tolerance(kForward32),
                key("ild.hidden_loss.", i));
    check_close(mixer.reshape({1}), golden[key("ild.mixer_loss.", i)], tolerance(kForward32),
                key("ild.mixer_loss.", i));
    total = total.defined() ? total + hidden + mixer : hidden + mixer;
  }
  return total;
}

}  // namespace

TEST_CASE("hybrid: hidden states, mixer outputs and logits equal the published modules'",
          "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/hybrid");
  for (const auto& name : kFolders) {
    INFO(name);
    const Golden golden(folder(name) + "/golden.safetensors");
    for (const auto& [who, mixer] :
         {std::pair{"base", "base.attn_out."}, {"hybrid", "hybrid.mixer_out."}}) {
      auto model = load_golden_model(folder(name) + "/" + who);
      const auto states = model->forward_all(golden["input_ids"], /*segments=*/{});
      check_states(states, golden, who, mixer);
      const auto logits = std::string(who) + ".logits";
      check_close(model->logits(states.hidden.back()), golden[logits], tolerance(kForward32),
                  logits);
    }
  }
}

TEST_CASE("hybrid: the divergence from the base and its gradients equal the published loss",
          "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/hybrid");
  for (const auto& name : kFolders) {
    INFO(name);
    const Golden golden(folder(name) + "/golden.safetensors");
    auto base = load_golden_model(folder(name) + "/base");
    auto model = load_golden_model(folder(name) + "/hybrid");
    const auto ids = golden["input_ids"];
    const auto batch = static_cast<double>(ids.size(0));
    DistillLossInput in;
    in.teacher_hidden = base->forward(ids, /*segments=*/{}).flatten(0, 1).detach();
    in.teacher_head = base->head_weight().detach();
    in.student_hidden = model->forward(ids, /*segments=*/{}).flatten(0, 1);
    in.student_head = model->head_weight();
    in.kl_weights =
        torch::full({ids.numel()}, 1.0 / batch, torch::TensorOptions().device(ids.device()));
    const auto out = distill_loss(in, {.chunk_tokens = 16});
    check_close(out.loss.reshape({1}), golden["kl.batchmean"], tolerance(kForward32),
                "kl.batchmean");
    check_close((out.kl_sum / static_cast<double>(ids.numel())).reshape({1}),
                golden["kl.per_token"], tolerance(kForward32), "kl.per_token");
    out.loss.backward();
    check_parameter_gradients(model, golden, "kl.grad.", tolerance(kBackward32));
  }
}

TEST_CASE("hybrid: layer-wise losses and their gradients equal the published ones", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/hybrid");
  for (const auto& name : kFolders) {
    INFO(name);
    const Golden golden(folder(name) + "/golden.safetensors");
    auto model = load_golden_model(folder(name) + "/hybrid");
    const auto loss = ild_loss(model, golden);
    check_close(loss.reshape({1}), golden["ild.loss"], tolerance(kForward32), "ild.loss");
    loss.backward();
    check_parameter_gradients(model, golden, "ild.grad.", tolerance(kBackward32));
  }
}

TEST_CASE("hybrid: one token a step gives the published logits and final states", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/hybrid");
  for (const auto& name : kFolders) {
    INFO(name);
    const Golden golden(folder(name) + "/golden.safetensors");
    auto model = load_golden_model(folder(name) + "/hybrid");
    torch::NoGradGuard no_grad;
    const auto ids = golden["input_ids"];
    const int64_t T = ids.size(1);
    auto cache = model->make_cache(ids.size(0));
    auto hidden = model->forward(ids.narrow(1, 0, T - 8), /*segments=*/{}, &cache);
    std::vector<at::Tensor> last = {hidden.narrow(1, T - 9, 1)};
    for (int64_t t = T - 8; t < T; ++t) {
      last.push_back(model->forward(ids.narrow(1, t, 1), /*segments=*/{}, &cache));
    }
    check_close(model->logits(torch::cat(last, 1)), golden["decode.logits"], tolerance(kDecode32),
                "decode.logits");
    for (int64_t i = 0; i < model->options().num_layers(); ++i) {
      if (!golden.has(key("decode.ssm_state.", i))) continue;
      auto& own = cache_of<Mamba2Cache>(cache.layers[i].get(), "mamba2");
      check_close(own.conv, golden[key("decode.conv_state.", i)], tolerance(kDecode32),
                  key("conv_state.", i));
      check_close(own.ssm, golden[key("decode.ssm_state.", i)], tolerance(kDecode32),
                  key("ssm_state.", i));
    }
  }
}

}  // namespace zebra::testing
