#include "fixtures.h"

#include <malloc.h>

#include <fstream>

#include "base/file.h"
#include "zebra/error.h"

namespace fs = std::filesystem;
using namespace zebra;
using namespace zebra::testing;

namespace {

// "VmRSS" or "VmHWM" of this process in bytes.
int64_t memory_line(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stoll(line.substr(name.size() + 1)) * 1024;
  }
  return 0;
}

}  // namespace

TEST_CASE("convert: other shard sizes change nothing but the files") {
  const TempDir folder;
  for (const auto& options :
       {small_llama(true), small_llama(false), small_hybrid(true), small_hybrid(false)}) {
    save_model(folder / "a", seeded_model(options), {});
    convert_folder(folder / "a", folder / "b", {.shard_bytes = 10'000, .overwrite = true});
    CHECK(fs::exists(folder / "b/model.safetensors.index.json"));
    check_same_weights(folder / "b", folder / "a");
    convert_folder(folder / "b", folder / "c", {.overwrite = true});
    CHECK(read_file(folder / "c/config.json") == read_file(folder / "a/config.json"));
    check_same_weights(folder / "c", folder / "a");
  }
}

TEST_CASE("convert: to 16 bits each weight is rounded once") {
  const TempDir folder;
  save_model(folder / "a", seeded_model(small_hybrid(true)), {});
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    convert_folder(folder / "a", folder / "b", {.dtype = dtype, .overwrite = true});
    const WeightFolder from(folder / "a"), to(folder / "b");
    CHECK(from.names() == to.names());
    for (const auto& name : to.names()) {
      INFO(name);
      const auto expected = from.read(name);
      const bool exact =
          name.ends_with(".A_log") || name.ends_with(".dt_bias") || name.ends_with(".D");
      CHECK(same_bits(to.read(name), exact ? expected : expected.to(dtype)));
    }
  }
}

TEST_CASE("convert: an existing folder is refused unless it may be overwritten") {
  const TempDir folder;
  save_model(folder / "a", seeded_model(small_llama(true)), {});
  save_model(folder / "b", seeded_model(small_llama(true), 9), {});
  CHECK_THROWS_WITH(convert_folder(folder / "a", folder / "b", {}),
                    ContainsSubstring("overwritten"));
  convert_folder(folder / "a", folder / "b", {.overwrite = true});
  check_same_weights(folder / "b", folder / "a");
}

TEST_CASE("convert: a model that the new dtype breaks is refused and nothing is left") {
  const TempDir folder;
  CausalLm model = seeded_model(small_llama(true));
  save_model(folder / "good", model, {});
  {
    const torch::NoGradGuard no_grad;
    // Two hidden units that are equal and whose outputs cancel but for what bfloat16 rounds away.
    auto& mlp = model->block(2)->mlp;
    mlp->gate_proj->weight[1] = mlp->gate_proj->weight[0];
    mlp->up_proj->weight[1] = mlp->up_proj->weight[0];
    const auto direction = torch::arange(32).sub(15.5).mul(1e6);
    mlp->down_proj->weight.zero_();
    mlp->down_proj->weight.select(1, 0).copy_(direction);
    mlp->down_proj->weight.select(1, 1).copy_(direction * -(1 + 1.0 / 1024));
  }
  save_model(folder / "a", model, {});
  CHECK_THROWS_WITH(convert_folder(folder / "a", folder / "b", {.dtype = at::kBFloat16}),
                    ContainsSubstring("logits of the converted model"));
  CHECK(!fs::exists(folder / "b"));
  CHECK(!fs::exists(folder / ".b.partial"));
}

TEST_CASE("convert: a folder in X-EcoMLA's form becomes one in the published hybrid form") {
  const TempDir folder;
  ModelOptions options = small_hybrid(true);
  options.layers[1] = MixerKind::kAttention;
  options.mla.num_kv_heads = 4;
  options.mla.rope = {.scaling = RopeScaling::kYarn,
                      .theta = 500000,
                      .factor = 8,
                      .original_max_position_embeddings = 64};
  save_model(folder / "a", seeded_model(options), {});
  fs::remove(folder / "a/hybrid_config.json");
  write_file_atomic(folder / "a/MLA_config.json", R"({"n_layer": 3, "attn_layers": [1, 2]})");
  write_file_atomic(folder / "a/mla_layer_config.json",
                    R"({"num_attention_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8,
                        "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 8,
                        "rope_theta": 500000, "rope_scaling": {"type": "yarn", "factor": 8,
                        "original_max_position_embeddings": 64}})");
  convert_folder(folder / "a", folder / "b", {});
  CHECK(fs::exists(folder / "b/hybrid_config.json"));
  check_same_weights(folder / "b", folder / "a");
}

#ifndef __SANITIZE_ADDRESS__  // which holds freed memory back for a while
TEST_CASE("convert: host memory stays under two shards") {
  constexpr uint64_t kShard = 40'000'000;
  const TempDir folder;
  ModelOptions options = small_llama(true);
  options.hidden_size = 512;
  options.intermediate_size = 2048;
  options.num_heads = 8;
  options.num_kv_heads = 4;
  options.head_dim = 64;
  options.layers.assign(10, MixerKind::kAttention);  // 16 MB each
  save_model(folder / "a", seeded_model(options), {.shard_bytes = kShard});
  REQUIRE(WeightFolder(folder / "a").file_of("model.norm.weight").filename() ==
          "model-00004-of-00004.safetensors");
  malloc_trim(0);
  const int64_t before = memory_line("VmRSS");
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak begins anew
  convert_folder(folder / "a", folder / "b", {.dtype = at::kBFloat16, .shard_bytes = kShard / 2});
  const int64_t peak = memory_line("VmHWM");
  INFO(before << " before, " << peak << " at the peak");
  CHECK(peak - before < static_cast<int64_t>(2 * kShard));
}
#endif

TEST_CASE("convert: a sharded golden, tokenizers and all", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/llama/llama31_untied_sharded_bf16/model");
  const TempDir folder;
  const auto source = shared_path("goldens/llama/llama31_untied_sharded_bf16/model");
  convert_folder(source, folder / "f32", {.dtype = at::kFloat});
  convert_folder(folder / "f32", folder / "bf16", {.dtype = at::kBFloat16, .shard_bytes = 90'000});
  check_same_weights(folder / "bf16", source);
  CHECK(fs::exists(folder / "bf16/generation_config.json"));
}

TEST_CASE("convert: real models with their tokenizers", "[golden]") {
  ZEBRA_NEEDS_SHARED("data/models/stories260k");
  const TempDir folder;
  convert_folder(shared_path("data/models/stories260k"), folder / "half", {.dtype = at::kHalf});
  CHECK(fs::exists(folder / "half/tokenizer.model"));
  CHECK(load_model(folder / "half", {})->options().num_layers() == 5);
}
