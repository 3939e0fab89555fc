// Initialisation against models that the published code made.
#include "fixtures.h"

#include "zebra/convert.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

// Two float32 decompositions of the same matrix, their order of rounding unknown.
constexpr double kInit32 = 1e-5;

using Parameters = torch::OrderedDict<std::string, at::Tensor>;

void check_mla(const Parameters& got, const Parameters& expected, const std::string& prefix,
               int64_t Rkv) {
  const auto product = [&](const Parameters& p, const char* up, const char* down,
                           bool latent_only) {
    auto rows = p[prefix + down].detach();
    if (latent_only) rows = rows.narrow(0, 0, Rkv);
    return p[prefix + up].detach().matmul(rows);
  };
  check_close(product(got, "q_b_proj.weight", "q_a_proj.weight", false),
              product(expected, "q_b_proj.weight", "q_a_proj.weight", false), kInit32,
              prefix + "q");
  check_close(product(got, "kv_b_proj.weight", "kv_a_proj_with_mqa.weight", true),
              product(expected, "kv_b_proj.weight", "kv_a_proj_with_mqa.weight", true), kInit32,
              prefix + "kv");
  const auto rope_rows = [&](const Parameters& p) {
    const auto rows = p[prefix + "kv_a_proj_with_mqa.weight"].detach();
    return rows.narrow(0, Rkv, rows.size(0) - Rkv);
  };
  check_close(rope_rows(got), rope_rows(expected), kInit32, prefix + "rope key");
  check_equal(got[prefix + "out_proj.weight"].detach(),
              expected[prefix + "out_proj.weight"].detach());
}

void check_mamba2(const Parameters& got, const Parameters& expected, const std::string& prefix,
                  const Mamba2Options& o) {
  const int64_t inner = o.num_heads * o.head_dim, copied = inner + 2 * o.num_kv_heads * o.head_dim;
  const auto rows = [&](const Parameters& p) {
    return p[prefix + "in_proj.weight"].detach().narrow(0, inner, copied);
  };
  check_equal(rows(got), rows(expected), prefix + "x, B, C");
  check_equal(got[prefix + "out_proj.weight"].detach(),
              expected[prefix + "out_proj.weight"].detach());
}

}  // namespace

TEST_CASE("published students: the initialised parts are equal", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/hybrid");
  for (const auto& entry : std::filesystem::directory_iterator(shared_path("goldens/hybrid"))) {
    INFO(entry.path());
    const CausalLm base = load_model(entry.path() / "base", {});
    const CausalLm published = load_model(entry.path() / "hybrid", {});
    const auto& options = published->options();
    const auto made = init_student(base, options, {});
    const auto got = made.model->named_parameters(), expected = published->named_parameters();
    REQUIRE(got.keys() == expected.keys());
    for (int64_t layer = 0; layer < options.num_layers(); ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      if (options.layers[layer] == MixerKind::kMla) {
        check_mla(got, expected, prefix + "mla.", options.mla_of_layer(layer).kv_lora_rank);
        CHECK(made.layers[layer].svd.q_energy > 0);
      } else {
        check_mamba2(got, expected, prefix + "mamba.", options.mamba2);
      }
    }
    for (const auto& item : got) {
      const auto& name = item.key();
      if (name.find(".mla.") != std::string::npos || name.find(".mamba.") != std::string::npos)
        continue;
      check_equal(item.value().detach(), expected[name].detach(), name);
    }
  }
}

TEST_CASE("published students: the layer errors of a real model are those of its initialisation",
          "[golden]") {
  ZEBRA_NEEDS_SHARED("data/models/stories260k");
  const CausalLm base = load_model(shared_path("data/models/stories260k"), {});
  auto options = base->options();
  const MlaOptions mla{.hidden_size = 64,
                       .num_heads = 8,
                       .num_kv_heads = 4,
                       .q_lora_rank = 64,
                       .kv_lora_rank = 64,
                       .qk_nope_head_dim = 4,
                       .qk_rope_head_dim = 4,
                       .v_head_dim = 8};
  options.layers.assign(5, MixerKind::kMla);
  options.mla = mla;
  const auto ids = torch::arange(64).mul(37).remainder(512).view({1, 64});
  const auto full = mixer_output_errors(base, init_student(base, options, {}).model, ids);
  options.mla.kv_lora_rank = 8;
  const auto cut = mixer_output_errors(base, init_student(base, options, {}).model, ids);
  for (size_t layer = 0; layer < 5; ++layer) {
    CHECK(full[layer] < cut[layer]);
    CHECK(cut[layer] < 2.0);
  }
}
