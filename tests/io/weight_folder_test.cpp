#include "zebra/safetensors.h"

#include "support/testing.h"

#include "base/file.h"
#include "base/json.h"
#include "support/close_to.h"
#include "support/temp_dir.h"
#include "zebra/error.h"

namespace fs = std::filesystem;
using namespace zebra;
using zebra::testing::check_equal;
using zebra::testing::ContainsSubstring;
using zebra::testing::TempDir;

namespace {

// Gives tensors of known content and keeps count of how many of them are alive.
class CountingSource : public WeightSource {
 public:
  explicit CountingSource(int64_t count) : count_(count) {}

  std::vector<std::pair<std::string, TensorInfo>> infos() const override {
    std::vector<std::pair<std::string, TensorInfo>> infos;
    for (int64_t i = 0; i < count_; ++i) {  // not in the order of their names
      infos.push_back({name((i * 3) % count_), {.dtype = at::kFloat, .shape = {10, 10}}});
    }
    return infos;
  }
  at::Tensor tensor(const std::string& name) override {
    asked.push_back(name);
    CHECK(alive == 0);
    ++alive;
    const auto values = std::make_shared<std::vector<float>>(100, std::stof(name.substr(1)));
    return torch::from_blob(values->data(), {10, 10}, [this, values](void*) { --alive; });
  }
  static std::string name(int64_t i) { return "w" + std::to_string(i); }

  std::vector<std::string> asked;
  int alive = 0;

 private:
  int64_t count_;
};

void write_index(const fs::path& folder, const json& map) {
  write_file_atomic(folder / "model.safetensors.index.json", json{{"weight_map", map}}.dump());
}

}  // namespace

TEST_CASE(
    "weight folder: tensors are asked for one at a time, in order, and shards stay in their size") {
  const TempDir folder;
  CountingSource source(10);
  write_weight_folder(folder.path(), source, {.shard_bytes = 1300});  // three of 400 bytes
  CHECK(source.alive == 0);
  std::vector<std::string> expected;
  for (const auto& [name, info] : source.infos()) expected.push_back(name);
  CHECK(source.asked == expected);

  const WeightFolder weights(folder.path());
  CHECK(weights.names().size() == 10);
  for (int64_t i = 0; i < 10; ++i) {
    const auto name = CountingSource::name(i);
    check_equal(weights.read(name), torch::full({10, 10}, static_cast<float>(i)), name);
    CHECK(fs::file_size(weights.file_of(name)) < 1300 + 400);
  }
  CHECK(weights.file_of(expected[0]).filename() == "model-00001-of-00004.safetensors");
  CHECK(weights.file_of(expected[9]).filename() == "model-00004-of-00004.safetensors");
  const auto index = read_json(folder / "model.safetensors.index.json");
  CHECK(index["metadata"]["total_size"] == 4000);
  CHECK(SafetensorsFile(folder / "model-00002-of-00004.safetensors").metadata().at("format") ==
        "pt");
}

TEST_CASE(
    "weight folder: what fits is one file, a tensor above the shard size a shard of its own") {
  const TempDir one, many;
  CountingSource source(4);
  write_weight_folder(one.path(), source, {.shard_bytes = 1600});
  CHECK(fs::exists(one / "model.safetensors"));
  CHECK(!fs::exists(one / "model.safetensors.index.json"));
  write_weight_folder(many.path(), source, {.shard_bytes = 1});
  CHECK(fs::exists(many / "model-00004-of-00004.safetensors"));
  CHECK_THROWS_WITH(write_weight_folder(one.path(), source, {}),
                    ContainsSubstring("without weights"));
  CHECK_THROWS_AS(write_weight_folder(many.path(), source, {}), ConfigError);
}

TEST_CASE("weight folder: an index that does not agree with its shards is refused") {
  const TempDir folder;
  write_safetensors(folder / "a.safetensors", {{"x", torch::ones({2})}, {"y", torch::ones({2})}});
  const auto refused = [&](const json& map, const std::string& text) {
    write_index(folder.path(), map);
    CHECK_THROWS_WITH(WeightFolder(folder.path()), ContainsSubstring(text));
    CHECK_THROWS_AS(WeightFolder(folder.path()), ConfigError);
  };
  refused({{"x", "a.safetensors"}, {"y", "b.safetensors"}}, "b.safetensors: missing");
  refused({{"x", "a.safetensors"}, {"y", "a.safetensors"}, {"z", "a.safetensors"}}, "'z'");
  refused({{"x", "a.safetensors"}}, "'y': model.safetensors.index.json does not list it");
  refused({{"x", "../a.safetensors"}}, "weight_map.x");
  refused({{"x", 3}}, "x: expected a string");
  refused(json::array(), "weight_map: expected an object");
  write_file_atomic(folder / "model.safetensors.index.json", "{}");
  CHECK_THROWS_WITH(WeightFolder(folder.path()), ContainsSubstring("weight_map: expected a value"));
}

TEST_CASE("weight folder: a tensor that two shards hold is refused") {
  const TempDir folder;
  write_safetensors(folder / "a.safetensors", {{"x", torch::ones({2})}});
  write_safetensors(folder / "b.safetensors", {{"x", torch::ones({2})}, {"y", torch::ones({2})}});
  write_index(folder.path(), {{"x", "a.safetensors"}, {"y", "b.safetensors"}});
  CHECK_THROWS_WITH(WeightFolder(folder.path()), ContainsSubstring("b.safetensors: tensor 'x'") &&
                                                     ContainsSubstring("a.safetensors"));
}

TEST_CASE("weight folder: model.safetensors wins over an index") {
  const TempDir folder;
  write_safetensors(folder / "model.safetensors", {{"x", torch::zeros({2})}});
  write_safetensors(folder / "a.safetensors", {{"x", torch::ones({2})}});
  write_index(folder.path(), {{"x", "a.safetensors"}});
  check_equal(WeightFolder(folder.path()).read("x"), torch::zeros({2}));
}

TEST_CASE("weight folder: errors say what is there instead of weights") {
  const TempDir folder;
  CHECK_THROWS_WITH(WeightFolder(folder / "none"), ContainsSubstring("nothing there"));
  CHECK_THROWS_WITH(WeightFolder(folder.path()), ContainsSubstring("neither"));
  write_file_atomic(folder / "pytorch_model.bin", "x");
  CHECK_THROWS_WITH(WeightFolder(folder.path()),
                    ContainsSubstring("got pytorch_model.bin") && ContainsSubstring("safetensors"));
  CHECK_THROWS_WITH(WeightFolder(folder / "pytorch_model.bin"), ContainsSubstring("got a file"));
  write_safetensors(folder / "model.safetensors", {{"x", torch::zeros({2})}});
  const WeightFolder weights(folder.path());
  CHECK_THROWS_WITH(weights.read("y"),
                    ContainsSubstring(folder.path().string()) && ContainsSubstring("'y'"));
  CHECK(!weights.contains("y"));
  CHECK(weights.info("x").shape == std::vector<int64_t>{2});
}

TEST_CASE("weight folder: a sharded golden is read whole", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/llama/llama31_untied_sharded_bf16/model");
  const WeightFolder weights(
      testing::shared_path("goldens/llama/llama31_untied_sharded_bf16/model"));
  CHECK(weights.names().size() == 30);
  for (const auto& name : weights.names()) {
    INFO(name);
    CHECK(weights.info(name).dtype == at::kBFloat16);
    CHECK(torch::isfinite(weights.read(name).to(at::kFloat)).all().item<bool>());
  }
}
