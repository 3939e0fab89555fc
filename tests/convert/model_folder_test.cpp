#include "fixtures.h"

#include "base/file.h"
#include "base/json.h"
#include "support/file_limit.h"
#include "zebra/error.h"

namespace fs = std::filesystem;
using namespace zebra;
using namespace zebra::testing;

namespace {

// Rewrites a folder's weights after a change to them.
template <class Change>
void change_weights(const fs::path& folder, Change change) {
  std::map<std::string, at::Tensor> tensors;
  {
    const SafetensorsFile file(folder / "model.safetensors");
    for (const auto& [name, info] : file.tensors()) tensors[name] = file.read(name);
  }
  change(tensors);
  write_safetensors(folder / "model.safetensors", tensors);
}

at::Tensor logits(const CausalLm& model, const at::Tensor& ids) {
  const torch::NoGradGuard no_grad;
  CausalLm shared = model;
  return shared->logits(shared->forward(ids, {}));
}

const at::Tensor kIds = torch::arange(12).mul(5).remainder(61).unsqueeze(0);

}  // namespace

TEST_CASE("expected tensors: names and shapes are those of the model's parameters") {
  for (const bool tied : {true, false}) {
    for (const bool extras : {false, true}) {
      for (auto options : {small_llama(tied), small_hybrid(tied)}) {
        options.attention_bias = options.mlp_bias = options.mla.bias = options.mamba2.bias = extras;
        options.mla.latent_norm = options.mamba2.repeat_kv_before_conv = extras;
        options.mamba2.conv_bias = !extras;
        if (extras) options.mla_ranks = {MlaRanks{24, 16}, std::nullopt, std::nullopt};
        const CausalLm model = seeded_model(options);
        std::map<std::string, std::vector<int64_t>> shapes;
        int64_t values = 0;
        for (const auto& [name, shape] : expected_tensors(options)) {
          CHECK(shapes.emplace(name, shape).second);
          if (!(tied && name == "lm_head.weight")) values += c10::multiply_integers(shape);
        }
        CHECK(shapes.contains("lm_head.weight") == (!tied || !options.is_llama()));
        for (const auto& item : model->named_parameters()) {
          INFO(item.key());
          REQUIRE(shapes.contains(item.key()));
          CHECK(shapes[item.key()] == item.value().sizes());
        }
        CHECK(shapes.size() ==
              model->named_parameters().size() + (tied && !options.is_llama() ? 1 : 0));
        CHECK(values == count_parameters(options));
      }
    }
  }
}

TEST_CASE("expected tensors: the published models have the published numbers of parameters") {
  struct Published {
    int64_t hidden, intermediate, layers, heads, head_dim, q_rank, kv_rank, rope;
    bool tied;
    std::vector<int64_t> mla_layers;
    int64_t stored;  // lm_head.weight counted always, as the files hold it
  };
  const std::vector<Published> models = {
      {2048, 8192, 16, 32, 64, 1344, 128, 32, true, {0, 2, 4, 6, 8, 10, 12, 14}, 1'529'817'856},
      {2048, 8192, 16, 32, 64, 1344, 128, 32, true, {0, 5, 10, 14}, 1'548'369'024},
      {3072, 8192, 28, 24, 128, 1536, 128, 64, true, {0, 5, 10, 16, 21, 26}, 3'783'594'544},
      {4096,
       14336,
       32,
       32,
       128,
       2048,
       160,
       64,
       false,
       {0, 4, 8, 12, 16, 20, 25, 30},
       8'379'095'296}};
  for (const auto& m : models) {
    ModelOptions options;
    options.hidden_size = m.hidden;
    options.intermediate_size = m.intermediate;
    options.num_heads = m.heads;
    options.head_dim = m.head_dim;
    options.tie_word_embeddings = m.tied;
    options.layers.assign(static_cast<size_t>(m.layers), MixerKind::kMamba2);
    for (const int64_t layer : m.mla_layers) options.layers[layer] = MixerKind::kMla;
    options.mla = {.hidden_size = m.hidden,
                   .num_heads = m.heads,
                   .q_lora_rank = m.q_rank,
                   .kv_lora_rank = m.kv_rank,
                   .qk_nope_head_dim = m.head_dim - m.rope,
                   .qk_rope_head_dim = m.rope,
                   .v_head_dim = m.head_dim};
    options.mamba2 = {.hidden_size = m.hidden, .num_heads = m.heads, .head_dim = m.head_dim};
    int64_t stored = 0;
    for (const auto& [name, shape] : expected_tensors(options))
      stored += c10::multiply_integers(shape);
    CHECK(stored == m.stored);
    CHECK(count_parameters(options) == m.stored - (m.tied ? 128256 * m.hidden : 0));
  }
}

TEST_CASE("model folder: every kind of model comes back to the same bits") {
  for (const bool tied : {true, false}) {
    for (const bool bias : {false, true}) {
      for (auto options : {small_llama(tied), small_hybrid(tied)}) {
        options.attention_bias = options.mlp_bias = options.mla.bias = options.mamba2.bias = bias;
        if (bias) options.mla_ranks = {MlaRanks{24, 16}, std::nullopt, std::nullopt};
        const CausalLm model = seeded_model(options);
        for (const uint64_t shard_bytes : {uint64_t{20'000}, uint64_t{5'000'000'000}}) {
          const TempDir folder;
          save_model(folder / "m", model, {.shard_bytes = shard_bytes});
          CHECK(fs::exists(folder / "m/model.safetensors") == (shard_bytes > 20'000));
          const CausalLm again = load_model(folder / "m", {});
          check_same_model(again, model);
          check_equal(logits(again, kIds), logits(model, kIds), "logits");
          CHECK(again->options().tie_word_embeddings == tied);
        }
      }
    }
  }
}

TEST_CASE("model folder: 16 bits come back, and Mamba2's A_log, dt_bias and D stay in float32") {
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    const TempDir folder;
    save_model(folder / "a", seeded_model(small_hybrid(true)), {.dtype = dtype});
    const CausalLm model = load_model(folder / "a", {.dtype = dtype});
    for (const auto& item : model->named_parameters()) {
      INFO(item.key());
      const bool exact = item.key().ends_with(".A_log") || item.key().ends_with(".dt_bias") ||
                         item.key().ends_with(".D");
      CHECK(item.value().scalar_type() == (exact ? at::kFloat : dtype));
      CHECK(item.value().requires_grad());
    }
    save_model(folder / "b", model, {.dtype = dtype});
    check_same_weights(folder / "b", folder / "a");
    CHECK(torch::isfinite(logits(model, kIds)).all().item<bool>());
    CHECK(read_json(folder / "b/config.json")["torch_dtype"] ==
          (dtype == at::kHalf ? "float16" : "bfloat16"));
  }
}

TEST_CASE("model folder: a value that float16 cannot hold is refused with the tensor's name") {
  const TempDir folder;
  CausalLm model = seeded_model(small_llama(true));
  {
    const torch::NoGradGuard no_grad;
    model->block(1)->mlp->up_proj->weight[0][0] = 1e6;
  }
  CHECK_THROWS_WITH(save_model(folder / "m", model, {.dtype = at::kHalf}),
                    ContainsSubstring("model.layers.1.mlp.up_proj.weight"));
  CHECK(!fs::exists(folder / "m"));
  save_model(folder / "m", model, {});
  CHECK_THROWS_AS(load_model(folder / "m", {.dtype = at::kHalf}), ConfigError);
}

TEST_CASE("model folder: loading leaves the default generator as it was") {
  const TempDir folder;
  save_model(folder / "m", seeded_model(small_hybrid(false)), {});
  torch::manual_seed(3);
  const auto expected = torch::rand({4});
  torch::manual_seed(3);
  load_model(folder / "m", {});
  check_equal(torch::rand({4}), expected);
}

TEST_CASE("model folder: weights that are missing, extra, misshapen or integers are named") {
  const TempDir folder;
  const auto path = folder / "m";
  const auto refused = [&](const std::string& text, auto change) {
    fs::remove_all(path);
    save_model(path, seeded_model(small_hybrid(false)), {});
    change_weights(path, change);
    CHECK_THROWS_WITH(load_model(path, {}),
                      ContainsSubstring(path.string()) && ContainsSubstring(text));
    CHECK_THROWS_AS(load_model(path, {}), ConfigError);
  };
  using Tensors = std::map<std::string, at::Tensor>;
  const std::string q_b = "model.layers.0.mla.q_b_proj.weight";
  refused("expected tensor '" + q_b + "', got none", [&](Tensors& t) { t.erase(q_b); });
  refused("'" + q_b + "': expected shape [32, 16], got [16, 32]",
          [&](Tensors& t) { t[q_b] = t[q_b].t().contiguous(); });
  refused("'" + q_b + "': expected a floating dtype, got Int",
          [&](Tensors& t) { t[q_b] = t[q_b].to(at::kInt); });
  refused("'model.layers.9.odd': not expected",
          [](Tensors& t) { t["model.layers.9.odd"] = torch::ones({1}); });
  refused("lm_head.weight', got none", [](Tensors& t) { t.erase("lm_head.weight"); });
  refused("(and 2 more)", [&](Tensors& t) {
    t.erase(q_b);
    t.erase("model.norm.weight");
    t["extra"] = torch::ones({1});
  });
}

TEST_CASE("model folder: rotary tables of old versions of transformers are passed over") {
  const TempDir folder;
  const CausalLm model = seeded_model(small_llama(true));
  save_model(folder / "m", model, {});
  change_weights(folder / "m", [](auto& t) {
    t["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch::ones({4});
  });
  check_same_model(load_model(folder / "m", {}), model);
}

TEST_CASE("model folder: the stored head decides whether a tied hybrid stays tied") {
  const TempDir folder;
  const CausalLm model = seeded_model(small_hybrid(true));
  save_model(folder / "m", model, {});
  CHECK(WeightFolder(folder / "m").contains("lm_head.weight"));
  CHECK(load_model(folder / "m", {})->options().tie_word_embeddings);

  const auto head = torch::randn({61, 32});
  change_weights(folder / "m", [&](auto& t) { t["lm_head.weight"] = head; });
  const CausalLm untied = load_model(folder / "m", {});
  CHECK(!untied->options().tie_word_embeddings);
  check_equal(untied->head_weight().detach(), head, "lm_head");
  save_model(folder / "again", untied, {});
  check_same_model(load_model(folder / "again", {}), untied);

  change_weights(folder / "m", [](auto& t) { t.erase("lm_head.weight"); });
  CHECK(load_model(folder / "m", {})->options().tie_word_embeddings);
}

TEST_CASE("model folder: a tied Llama may hold its head, but no other one") {
  const TempDir folder;
  const CausalLm model = seeded_model(small_llama(true));
  save_model(folder / "m", model, {});
  CHECK(!WeightFolder(folder / "m").contains("lm_head.weight"));
  change_weights(folder / "m",
                 [](auto& t) { t["lm_head.weight"] = t["model.embed_tokens.weight"].clone(); });
  check_same_model(load_model(folder / "m", {}), model);
  change_weights(folder / "m", [](auto& t) { t["lm_head.weight"] = t["lm_head.weight"] + 1; });
  CHECK_THROWS_WITH(load_model(folder / "m", {}), ContainsSubstring("lm_head.weight"));
  change_weights(folder / "m", [](auto& t) { t["lm_head.weight"] = torch::ones({3, 3}); });
  CHECK_THROWS_WITH(load_model(folder / "m", {}), ContainsSubstring("not expected in this model"));
}

TEST_CASE("model folder: tokenizer files are copied, and what was there before is replaced whole") {
  const TempDir folder;
  fs::create_directories(folder / "tokenizer");
  write_file_atomic(folder / "tokenizer/tokenizer.model", "pieces");
  write_file_atomic(folder / "tokenizer/generation_config.json", "{}");
  write_file_atomic(folder / "tokenizer/added_tokens.json", "{}");
  write_file_atomic(folder / "tokenizer/README.md", "not a tokenizer file");
  save_model(folder / "m", seeded_model(small_hybrid(true)),
             {.tokenizer_from = folder / "tokenizer"});
  CHECK(read_file(folder / "m/tokenizer.model") == "pieces");
  CHECK(fs::exists(folder / "m/generation_config.json"));
  CHECK(fs::exists(folder / "m/added_tokens.json"));
  CHECK(!fs::exists(folder / "m/README.md"));

  const CausalLm llama = seeded_model(small_llama(true));
  save_model(folder / "m", llama, {.tokenizer_from = folder / "m", .shard_bytes = 20'000});
  CHECK(!fs::exists(folder / "m/hybrid_config.json"));
  CHECK(!fs::exists(folder / "m/model.safetensors"));
  CHECK(read_file(folder / "m/tokenizer.model") == "pieces");
  check_same_model(load_model(folder / "m", {}), llama);
}

TEST_CASE("model folder: a tokenizer file keeps its kind") {
  const TempDir folder;
  write_file_atomic(folder / "my.json", "{}");
  save_model(folder / "m", seeded_model(small_llama(true)), {.tokenizer_from = folder / "my.json"});
  CHECK(fs::exists(folder / "m/tokenizer.json"));
  CHECK(!fs::exists(folder / "m/tokenizer.model"));
}

TEST_CASE("model folder: folders that are no model's are never replaced") {
  const TempDir folder;
  write_file_atomic(folder / "thesis.txt", "years of work");
  const CausalLm model = seeded_model(small_llama(true));
  CHECK_THROWS_WITH(save_model(folder.path(), model, {}), ContainsSubstring("other files"));
  CHECK_THROWS_WITH(save_model(folder / "thesis.txt", model, {}), ContainsSubstring("got a file"));
  CHECK(read_file(folder / "thesis.txt") == "years of work");
}

TEST_CASE("model folder: a full disk is a ConfigError with the file, and the old model stays") {
  const TempDir folder;
  const CausalLm old_model = seeded_model(small_llama(true), 1);
  save_model(folder / "m", old_model, {});
  {
    const FileSizeLimit limit(30'000);
    CHECK_THROWS_WITH(
        save_model(folder / "m", seeded_model(small_llama(true), 2), {}),
        ContainsSubstring("model.safetensors") && ContainsSubstring("cannot be written"));
  }
  check_same_model(load_model(folder / "m", {}), old_model);
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("model folder: goldens come back to the same bits", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/hybrid");
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(shared_path("goldens/hybrid"))) {
    folders.push_back(entry.path() / "base");
    folders.push_back(entry.path() / "hybrid");
  }
  for (const auto& entry : fs::directory_iterator(shared_path("goldens/llama"))) {
    folders.push_back(entry.path() / "model");
  }
  for (const auto& source : folders) {
    INFO(source);
    const WeightFolder weights(source);
    const auto dtype = weights.info("model.norm.weight").dtype;
    const TempDir folder;
    const CausalLm model = load_model(source, {.dtype = dtype});
    save_model(folder / "m", model, {.dtype = dtype, .tokenizer_from = source});
    check_same_weights(folder / "m", source);
    check_same_model(load_model(folder / "m", {.dtype = dtype}), model);
  }
}
