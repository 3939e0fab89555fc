#include "convert/fixtures.h"

#include <fstream>

#include "convert/model_config.h"
#include "zebra/checkpoint.h"
#include "zebra/error.h"

using namespace zebra;
using namespace zebra::testing;
namespace fs = std::filesystem;

namespace {

// A checkpoint as a training stage leaves it: masters under the names of the models.
void save_models(const fs::path& folder, const std::map<std::string, CausalLm>& models,
                 const fs::path& tokenizer) {
  Checkpoint checkpoint{.step = 5, .pieces = {}, .state = {{"tokenizer", tokenizer.string()}}};
  for (const auto& [name, model] : models) {
    for (const auto& item : model->named_parameters()) {
      checkpoint.pieces.push_back(whole_tensor(weight_key(name, item.key()), item.value()));
      checkpoint.pieces.push_back(
          whole_tensor(name + "/exp_avg." + item.key(), torch::zeros_like(item.value())));
    }
    const auto& options = model->options();
    checkpoint.state[name + "/" + kLlamaConfig] = llama_config(options, at::kBFloat16).dump();
    if (!options.is_llama()) {
      checkpoint.state[name + "/" + kHybridConfig] = hybrid_config(options).dump();
    }
  }
  CheckpointStore(folder, {}).save(checkpoint);
}

fs::path tokenizer_file(const TempDir& folder) {
  std::ofstream(folder / "tokenizer.model") << "not looked into here";
  return folder / "tokenizer.model";
}

}  // namespace

TEST_CASE("convert checkpoint: the folder is the one that the model itself would be saved as") {
  for (const bool tied : {true, false}) {
    for (const bool hybrid : {true, false}) {
      const TempDir folder;
      const auto tokenizer = tokenizer_file(folder);
      const auto model = seeded_model(hybrid ? small_hybrid(tied) : small_llama(tied));
      save_models(folder / "saves", {{"", model}}, tokenizer);
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const auto expected = folder / "expected", got = folder / "got";
        save_model(expected, model, {.dtype = dtype, .tokenizer_from = tokenizer});
        convert_checkpoint({.checkpoint = folder / "saves", .model = "", .tokenizer = {}}, got,
                           {.dtype = dtype, .overwrite = true});
        check_same_weights(got, expected);
        CHECK(fs::exists(got / "tokenizer.model"));
        check_same_model(load_model(got, {.dtype = dtype}), load_model(expected, {.dtype = dtype}));
      }
    }
  }
}

TEST_CASE("convert checkpoint: of several models one is named") {
  const TempDir folder;
  const auto tokenizer = tokenizer_file(folder);
  const auto mla = seeded_model(small_hybrid(true), 5),
             mamba2 = seeded_model(small_hybrid(true), 6);
  save_models(folder / "saves", {{"mla", mla}, {"mamba2", mamba2}}, tokenizer);
  const auto convert = [&](const std::string& model) {
    convert_checkpoint(
        {.checkpoint = folder / "saves" / "step-00000005", .model = model, .tokenizer = {}},
        folder / "out", {.dtype = at::kFloat, .overwrite = true});
  };
  CHECK_THROWS_WITH(convert(""), ContainsSubstring("--model: expected mamba2 or mla, got none"));
  CHECK_THROWS_WITH(convert("distill"), ContainsSubstring("got distill"));
  CHECK_FALSE(fs::exists(folder / "out"));
  convert("mamba2");
  check_same_model(load_model(folder / "out", {}), mamba2);
  convert("mla");
  check_same_model(load_model(folder / "out", {}), mla);
}

TEST_CASE("convert checkpoint: what is missing or damaged is named, and nothing is written") {
  const TempDir folder;
  const auto tokenizer = tokenizer_file(folder);
  save_models(folder / "saves", {{"", seeded_model(small_llama(true))}}, tokenizer);
  const auto convert = [&] {
    convert_checkpoint({.checkpoint = folder / "saves", .model = "", .tokenizer = {}},
                       folder / "out", {.dtype = at::kFloat});
  };
  fs::rename(tokenizer, folder / "moved.model");
  CHECK_THROWS_WITH(convert(), ContainsSubstring("--tokenizer"));
  convert_checkpoint(
      {.checkpoint = folder / "saves", .model = "", .tokenizer = folder / "moved.model"},
      folder / "with", {.dtype = at::kFloat});
  fs::resize_file(folder / "saves" / "step-00000005" / "state.json", 3);
  CHECK_THROWS_WITH(convert(), ContainsSubstring("state.json: expected "));
  CHECK_THROWS_WITH(open_checkpoint(folder.path()),
                    ContainsSubstring("expected a training checkpoint"));
  CHECK_FALSE(fs::exists(folder / "out"));
}
