// Llama against Hugging Face transformers.
#include "golden/golden.h"
#include "zebra/losses.h"

namespace zebra::testing {

namespace {

const std::vector<std::string> kFolders = {"llama2_mha", "llama32_tied_gqa",
                                           "llama31_untied_sharded_bf16",
                                           "head_dim_ne_hidden_over_heads"};

constexpr int64_t kPrompt = 8;  // of greedy_30

std::string folder(const std::string& name) { return "goldens/llama/" + name; }

// The bf16 folder's values were computed in bf16; the others in float32.
double limit_of(const std::string& name, double float32) {
  return name.ends_with("_bf16") ? kBfloat16 : tolerance(float32);
}

at::Tensor logits_at_offset(CausalLm& model, const at::Tensor& ids, int64_t offset) {
  const auto context = model->context(ids, /*segments=*/{}, offset);
  auto hidden = model->embed(ids);
  for (int64_t i = 0; i < model->options().num_layers(); ++i) {
    hidden = model->block(i)->forward(hidden, context, /*cache=*/nullptr).hidden;
  }
  return model->logits(model->final_norm()->forward(hidden));
}

at::Tensor greedy(CausalLm& model, at::Tensor ids, int64_t count) {
  torch::NoGradGuard no_grad;
  auto cache = model->make_cache(ids.size(0));
  auto next = ids;
  for (int64_t i = 0; i < count; ++i) {
    const auto hidden = model->forward(next, /*segments=*/{}, &cache);
    next = model->logits(hidden.narrow(1, hidden.size(1) - 1, 1)).argmax(-1);  // (B, 1)
    ids = torch::cat({ids, next}, 1);
  }
  return ids;
}

}  // namespace

TEST_CASE("llama: hidden states and logits equal Hugging Face's", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/llama");
  for (const auto& name : kFolders) {
    INFO(name);
    const Golden golden(folder(name) + "/golden.safetensors");
    auto model = load_golden_model(folder(name) + "/model");
    const auto states = model->forward_all(golden["input_ids"], /*segments=*/{});
    for (size_t i = 0; i < states.hidden.size(); ++i) {
      const auto key = "hidden." + std::to_string(i);
      if (golden.has(key))
        check_close(states.hidden[i], golden[key], limit_of(name, kForward32), key);
    }
    check_close(model->logits(states.hidden.back()), golden["logits"], limit_of(name, kForward32),
                "logits");
    check_close(logits_at_offset(model, golden["input_ids"], 20000),
                golden["logits_at_offset_20000"], limit_of(name, kForward32),
                "logits at offset 20000");
  }
}

TEST_CASE("llama: the loss and every gradient equal Hugging Face's", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/llama");
  for (const auto& name : kFolders) {
    INFO(name);
    const Golden golden(folder(name) + "/golden.safetensors");
    auto model = load_golden_model(folder(name) + "/model");
    const auto ids = golden["input_ids"];
    const int64_t T = ids.size(1);
    const auto hidden = model->forward(ids, /*segments=*/{}).narrow(1, 0, T - 1);
    const auto loss = token_nll(hidden.flatten(0, 1), model->head_weight(),
                                ids.narrow(1, 1, T - 1).flatten(), /*chunk_tokens=*/32)
                          .mean();
    check_close(loss.reshape({1}), golden["ce_loss"], limit_of(name, kForward32), "ce_loss");
    loss.backward();
    if (!golden.names("grad.").empty())
      check_parameter_gradients(model, golden, "grad.", limit_of(name, kBackward32));
  }
}

TEST_CASE("llama: greedy decoding with a cache gives Hugging Face's tokens", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/llama");
  if (test_dtype() != torch::kFloat32) ZEBRA_SKIP("greedy tokens are compared in float32");
  for (const auto& name : kFolders) {
    INFO(name);
    const Golden golden(folder(name) + "/golden.safetensors");
    if (!golden.has("greedy_30")) continue;
    auto model = load_golden_model(folder(name) + "/model");
    const auto expected = golden["greedy_30"];  // ends early where it made an end token
    const auto made = greedy(model, expected.narrow(1, 0, kPrompt), expected.size(1) - kPrompt);
    CHECK(torch::equal(made, expected));
  }
}

}  // namespace zebra::testing
