#include "zebra/recipe.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "support/capture.h"
#include "support/temp_dir.h"
#include "support/testing.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

// A recipe without mistakes; a test changes one line.
constexpr const char* kGood = R"(name: small
seed: 7
output: runs/small
base: {model: models/base}
teacher: {model: models/teacher}
hybrid:
  mla_layers: [0, 2]
  attention_layers: [1]
  mla: {q_lora_rank: 40, kv_lora_rank: 8, rope: default}
data:
  sequence_length: 256
  train: [{path: a.txt, format: stories}, {path: b.jsonl, format: jsonl}]
  validation: [{path: c.txt}]
stages:
  ild: {tokens: 1.2e6, optimizer: {learning_rate: 4.0e-3}}
  distill: {tokens: 4e6, kl: {direction: js, temperature: 2}}
  dpo: {train: [pairs.jsonl]}
)";

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kGood;
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

class RecipeFile {
 public:
  explicit RecipeFile(const std::string& text) { std::ofstream(path()) << text; }
  fs::path path() const { return folder_ / "r.yaml"; }
  std::vector<std::string> mistakes(const std::vector<std::string>& overrides = {}) const {
    std::vector<std::string> texts;
    for (const auto& mistake : check_recipe(path(), overrides)) {
      texts.push_back(recipe_mistake_text("r.yaml", mistake));
    }
    return texts;
  }

 private:
  TempDir folder_;
};

using Texts = std::vector<std::string>;

Texts mistakes_of(const std::string& text) { return RecipeFile(text).mistakes(); }

Texts mistakes_after(const std::string& from, const std::string& to) {
  return mistakes_of(replaced(from, to));
}

Texts mistakes_with(const std::string& override) { return RecipeFile(kGood).mistakes({override}); }

}  // namespace

TEST_CASE("recipe: every key that is given arrives, the others keep their defaults") {
  const auto recipe = read_recipe(RecipeFile(kGood).path(), {});
  CHECK(recipe.name == "small");
  CHECK(recipe.seed == 7);
  CHECK(recipe.base->model == "models/base");
  CHECK(recipe.teacher->model == "models/teacher");
  CHECK_FALSE(recipe.new_model.has_value());
  CHECK(recipe.hybrid->mla_layers == std::vector<int64_t>{0, 2});
  CHECK(recipe.hybrid->attention_layers == std::vector<int64_t>{1});
  CHECK(recipe.hybrid->mla.q_lora_rank == 40);
  CHECK(recipe.hybrid->mla.v_head_dim == 64);
  CHECK_FALSE(recipe.hybrid->mla.q_energy.has_value());
  CHECK(recipe.data.train.size() == 2);
  CHECK(recipe.data.train[0].format == SourceFormat::kStories);
  CHECK(recipe.data.validation[0].format == SourceFormat::kText);
  CHECK(recipe.stages.ild->tokens == 1.2e6);
  CHECK(recipe.stages.ild->optimizer.learning_rate == 4e-3);
  CHECK(recipe.stages.ild->optimizer.beta2 == 0.999);
  CHECK(recipe.stages.distill->kl.direction == KlDirection::kJs);
  CHECK(recipe.stages.distill->kl.temperature == 2);
  CHECK(recipe.stages.dpo->train == std::vector<std::string>{"pairs.jsonl"});
  CHECK_FALSE(recipe.stages.pretrain.has_value());
}

TEST_CASE("recipe: an integer may be written with an exponent when it is one") {
  CHECK(read_recipe(RecipeFile(replaced("256", "2.56e2")).path(), {}).data.sequence_length == 256);
  CHECK(mistakes_after("256", "2.567e2") ==
        Texts{"r.yaml:11: data.sequence_length: expected an integer, got 2.567e2"});
}

TEST_CASE("recipe: an unknown key is named with its line and the nearest known one") {
  CHECK(mistakes_after("q_lora_rank", "q_lora_rnak") ==
        Texts{"r.yaml:9: hybrid.mla.q_lora_rnak: unknown key 'q_lora_rnak'; did you mean "
              "'q_lora_rank'?"});
  CHECK(mistakes_after("teacher:", "teachers:") ==
        Texts{"r.yaml:5: teachers: unknown key 'teachers'; did you mean 'teacher'?"});
}

TEST_CASE("recipe: an unknown key that is near to none comes with the list of those known") {
  CHECK(mistakes_after("{model: models/teacher}", "{model: t, quantisation: 4}") ==
        Texts{"r.yaml:5: teacher.quantisation: unknown key 'quantisation'; known here: model"});
}

TEST_CASE("recipe: a value of another type is refused with what was expected") {
  CHECK(mistakes_after("seed: 7", "seed: lots") ==
        Texts{"r.yaml:2: seed: expected an integer, got lots"});
  CHECK(mistakes_after("seed: 7", "seed: '7'") ==
        Texts{"r.yaml:2: seed: expected an integer, got the text '7'"});
  CHECK(mistakes_after("1.2e6", "[1]") ==
        Texts{"r.yaml:15: stages.ild.tokens: expected a number, got a list"});
  CHECK(mistakes_after("1.2e6", ".inf") ==
        Texts{"r.yaml:15: stages.ild.tokens: expected a number, got .inf"});
  CHECK(mistakes_after("seed: 7", "seed: 99999999999999999999") ==
        Texts{"r.yaml:2: seed: expected an integer, got 99999999999999999999"});
  CHECK(mistakes_after("sequence_length: 256", "eos: yes") ==
        Texts{"r.yaml:11: data.eos: expected true or false, got yes"});
  CHECK(mistakes_after("[0, 2]", "5") ==
        Texts{"r.yaml:7: hybrid.mla_layers: expected a list of layers, or {select: smart, count: "
              "n}, got 5"});
  CHECK(mistakes_after("[pairs.jsonl]", "pairs.jsonl") ==
        Texts{"r.yaml:17: stages.dpo.train: expected a list, got pairs.jsonl"});
  CHECK(mistakes_after("{model: models/base}", "models/base") ==
        Texts{"r.yaml:4: base: expected keys below it, got models/base"});
}

TEST_CASE("recipe: a wrong name of an enum comes with all names") {
  CHECK(mistakes_after("direction: js", "direction: forwards") ==
        Texts{"r.yaml:16: stages.distill.kl.direction: expected forward, reverse or js, got "
              "forwards"});
  CHECK(mistakes_after("format: stories", "format: story") ==
        Texts{"r.yaml:12: data.train.0.format: expected text, stories, jsonl, messages, "
              "conversations or prompt_completion, got "
              "story"});
}

TEST_CASE("recipe: a key that stands twice is refused with both lines") {
  CHECK(mistakes_after("seed: 7", "seed: 7\nseed: 8") ==
        Texts{"r.yaml:3: seed: the key stands twice, first in line 2"});
}

TEST_CASE("recipe: every required key that is missing is named where it should stand") {
  CHECK(mistakes_after("name: small\n", "") == Texts{"r.yaml:1: name: the key is missing"});
  CHECK(mistakes_after("output: runs/small\n", "") ==
        Texts{"r.yaml:1: output: the key is missing"});
  CHECK(mistakes_after("  validation: [{path: c.txt}]\n", "") ==
        Texts{"r.yaml:10: data.validation: the key is missing (or validation_split)"});
  CHECK(mistakes_after("{path: c.txt}", "{format: text}") ==
        Texts{"r.yaml:13: data.validation.0.path: the key is missing"});
  CHECK(mistakes_after("  mla_layers: [0, 2]\n", "") ==
        Texts{"r.yaml:6: hybrid.mla_layers: the key is missing"});
  CHECK(mistakes_after("{train: [pairs.jsonl]}", "{beta: 0.1}") ==
        Texts{"r.yaml:17: stages.dpo.train: the key is missing"});
}

TEST_CASE("recipe: without a base or a new model there is nothing to do") {
  const auto texts = mistakes_after("base: {model: models/base}\n", "");
  REQUIRE(texts.size() == 4);
  CHECK(texts[0] ==
        "r.yaml:1: base: the key is missing (or new_model, for a model from random weights)");
  CHECK(texts[1] == "r.yaml:14: stages.ild: the stage needs base.model, which is missing");
}

TEST_CASE("recipe: a stage with nothing below it is refused") {
  CHECK(mistakes_after("dpo: {train: [pairs.jsonl]}", "dpo:") ==
        Texts{"r.yaml:17: stages.dpo: expected keys below it, got nothing; remove it, or write {} "
              "for defaults"});
}

TEST_CASE("recipe: broken rules are named with both sides") {
  CHECK(mistakes_after("q_lora_rank: 40", "q_lora_rank: 41") ==
        Texts{"r.yaml:9: hybrid.mla.q_lora_rank: expected a positive multiple of 8, got 41"});
  CHECK(mistakes_after("[0, 2]", "[2, 0]") ==
        Texts{"r.yaml:7: hybrid.mla_layers.1: expected ascending layers without repeats, hence "
              "more than 2, got 0"});
  CHECK(mistakes_after("[0, 2]", "[0, 0]") ==
        Texts{"r.yaml:7: hybrid.mla_layers.1: expected ascending layers without repeats, hence "
              "more than 0, got 0"});
  CHECK(mistakes_after("[0, 2]", "[-1, 2]") ==
        Texts{"r.yaml:7: hybrid.mla_layers.0: expected at least 0, got -1"});
  CHECK(mistakes_after("[0, 2]", "[0, 1]") ==
        Texts{"r.yaml:8: hybrid.attention_layers: layer 1 stands in mla_layers as well"});
  CHECK(mistakes_after("temperature: 2", "temperature: 0") ==
        Texts{"r.yaml:16: stages.distill.kl.temperature: expected more than 0, got 0"});
  CHECK(mistakes_after("256", "1") ==
        Texts{"r.yaml:11: data.sequence_length: expected at least 2, got 1"});
  CHECK(mistakes_after("tokens: 4e6", "batch_size: 16, micro_batch_size: 5") ==
        Texts{"r.yaml:16: stages.distill.batch_size: expected a multiple of micro_batch_size, "
              "which is 5, got 16"});
  CHECK(mistakes_after("tokens: 4e6", "kl_weight: 0") ==
        Texts{"r.yaml:16: stages.distill.kl_weight: expected more than 0 here or in ce_weight, got "
              "0"});
  CHECK(mistakes_after("train: [pairs.jsonl]", "train: []") ==
        Texts{"r.yaml:17: stages.dpo.train: expected at least one file of pairs, got none"});
  CHECK(mistakes_after("train: [pairs.jsonl]", "train: [p], max_length: 100") ==
        Texts{"r.yaml:17: stages.dpo.max_prompt_length: expected less than max_length, which is "
              "100, got 512"});
}

TEST_CASE("recipe: tasks, models and published scores that are not known are refused") {
  const auto texts =
      RecipeFile(kGood).mistakes({"eval.tasks=[arc_eazy, mine.yaml, mmlu]", "eval.at=[base, sft]",
                                  "eval.limit=-1", "eval.published=[{task: piqa, base: 1}]"});
  REQUIRE(texts.size() == 4);
  const auto all = texts[0] + texts[1] + texts[2] + texts[3];
  CHECK_THAT(all, ContainsSubstring("eval.tasks.0: expected a known task or a YAML file, got "
                                    "arc_eazy (did you mean arc_easy?)"));
  CHECK_THAT(all, ContainsSubstring("eval.at.1: expected all, base, init, ild, composed, distill "
                                    "or dpo, got sft"));
  CHECK(RecipeFile(kGood).mistakes({"eval.tasks=[piqa]", "eval.at=[all]"}).empty());
  CHECK_THAT(all, ContainsSubstring("eval.limit: expected at least 0, got -1"));
  CHECK_THAT(all, ContainsSubstring("eval.published.0.task: expected one of eval.tasks, got piqa"));
}

TEST_CASE("recipe: rules that an override can break are checked after it") {
  CHECK(mistakes_with("hybrid.mla.q_energy=1.5") ==
        Texts{"--set hybrid.mla.q_energy: expected more than 0, at most 1, got 1.5"});
  CHECK(mistakes_with("stages.ild.optimizer.schedule.warmup_ratio=1.1") ==
        Texts{"--set stages.ild.optimizer.schedule.warmup_ratio: expected 0 to 1, got 1.1"});
  CHECK(mistakes_with("device=gpu") ==
        Texts{"--set device: expected cpu, cuda or cuda:N, got gpu"});
  CHECK(mistakes_with("device=cuda:1").empty());
  CHECK(mistakes_with("dtype=fp8") == Texts{"--set dtype: expected fp32, bf16 or fp64, got fp8"});
  CHECK(mistakes_with("data={train: [{path: a}], validation: [{path: b}], packing: none, recut: "
                      "true}") == Texts{"--set data.recut: expected packing concat, got none"});
  CHECK(mistakes_with("hybrid.mla.rope=llama") ==
        Texts{"--set hybrid.mla.rope: expected yarn or default, got llama"});
  CHECK(mistakes_with("checkpoint.keep=0") ==
        Texts{"--set checkpoint.keep: expected at least 1, got 0"});
  CHECK(RecipeFile(kGood).mistakes({"checkpoint.every_steps=0", "checkpoint.every_minutes=0"}) ==
        Texts{"--set checkpoint.every_steps: expected more than 0 here or in every_minutes, got "
              "0"});
  CHECK(mistakes_with("checkpoint.every_steps=0").empty());
  CHECK(mistakes_with("time_limit_minutes=-1") ==
        Texts{"--set time_limit_minutes: expected at least 0, got -1"});
}

TEST_CASE("recipe: mixtures, splits, packing and templates that cannot be are mistakes") {
  const auto data = [](const std::string& more) {
    return mistakes_with("data={train: [{path: a}, {path: b}], validation: [{path: c}], " + more +
                         "}");
  };
  CHECK(data("packing: best_fit, long_documents: split, loss_on: assistant") == Texts{});
  CHECK(data("packing: best_fit, bos: sequence") ==
        Texts{"--set data.bos: expected document or none with packing best_fit, got sequence"});
  CHECK(data("packing: best_fit, recut: true") ==
        Texts{"--set data.recut: expected packing concat, got best_fit"});
  CHECK(data("packing_window: 0") ==
        Texts{"--set data.packing_window: expected at least 1, got 0"});
  CHECK(data("validation_split: 0.1") ==
        Texts{"--set data.validation_split: expected either this or validation, got both"});
  const auto templates = data("chat_template: lama3");
  REQUIRE(templates.size() == 1);
  CHECK_THAT(templates[0], ContainsSubstring("data.chat_template: expected one of auto, llama3"));
  const auto mixed = [](const std::string& first, const std::string& second,
                        const std::string& more) {
    return mistakes_with("data={train: [{path: a" + first + "}, {path: b" + second + "}]" + more +
                         "}");
  };
  CHECK(mixed(", weight: 1", ", weight: 2, epochs: 3", ", validation_split: 0.01") == Texts{});
  CHECK(mixed(", weight: 1", "", ", validation_split: 0.01") ==
        Texts{"--set data.train.1.weight: expected a weight at every source or at none"});
  CHECK(mixed(", weight: 0", ", weight: 1", ", validation_split: 0.01") ==
        Texts{"--set data.train.0.weight: expected more than 0, got 0"});
  CHECK(mixed("", ", epochs: -1", ", validation_split: 0.01") ==
        Texts{"--set data.train.1.epochs: expected more than 0, got -1"});
  CHECK(mixed("", "", ", validation_split: 1") ==
        Texts{"--set data.validation_split: expected 0 to below 1, got 1"});
  CHECK(mixed("", "", ", validation: [{path: c, weight: 2}]") ==
        Texts{"--set data.validation.0.weight: held-out text is not mixed"});
}

TEST_CASE("recipe: how ranks share the work is checked, and which numbers of ranks fit") {
  CHECK(mistakes_with("parallel.sharding=zero3") ==
        Texts{"--set parallel.sharding: expected none, zero1, zero2 or full, got zero3"});
  CHECK(mistakes_with("parallel.offload_inputs=true") ==
        Texts{"--set parallel.offload_inputs: expected recompute smart or full, got none"});
  CHECK(mistakes_with("parallel.timeout_seconds=0") ==
        Texts{"--set parallel.timeout_seconds: expected at least 1, got 0"});
  CHECK(mistakes_with("stability.spike_window=1") ==
        Texts{"--set stability.spike_window: expected at least 8, got 1"});
  const auto recipe = read_recipe(RecipeFile(kGood).path(), {"stages.dpo.batch_size=24"});
  CHECK(ranks_divide(recipe, 8));  // of 16, 16 and 24
  CHECK_FALSE(ranks_divide(recipe, 16));
}

TEST_CASE("recipe: what a stage needs elsewhere is asked for") {
  const auto no_hybrid = RecipeFile(kGood).mistakes({"hybrid=", "stages.dpo="});
  CHECK(no_hybrid == Texts{"--set hybrid: the key is missing: base is to become a hybrid",
                           "r.yaml:15: stages.ild: the stage needs hybrid, which is missing",
                           "r.yaml:16: stages.distill: the stage needs hybrid, which is missing"});
  CHECK(mistakes_with("stages.pretrain={}") ==
        Texts{"--set stages.pretrain: the stage needs new_model, which is missing"});
  CHECK(RecipeFile(kGood).mistakes({"stages.ild=", "hybrid.attention_layers=[]",
                                    "hybrid.mla_layers={select: smart, count: 1}"}) ==
        Texts{"--set hybrid.mla_layers: select: smart needs stages.ild, which is missing"});
}

TEST_CASE("recipe: sequences are not longer than the positions of the model that is made") {
  const std::vector<std::string> pretrain = {
      "base=",           "teacher=",    "hybrid=",           "stages.ild=",
      "stages.distill=", "stages.dpo=", "stages.pretrain={}"};
  const auto mistakes = [&](const std::string& model) {
    auto overrides = pretrain;
    overrides.push_back("new_model={tokenizer: t, max_position_embeddings: " + model + "}");
    return RecipeFile(kGood).mistakes(overrides);
  };
  CHECK(mistakes("256").empty());
  CHECK(mistakes("255") == Texts{"r.yaml:11: data.sequence_length: expected at most "
                                 "new_model.max_position_embeddings, which is 255, got 256"});
  CHECK(mistakes("0") ==
        Texts{"--set new_model.max_position_embeddings: expected at least 1, got 0"});
}

TEST_CASE("recipe: all mistakes are told at once, in the order of their lines") {
  RecipeFile file(replaced("seed: 7", "sead: 7"));
  const auto texts = file.mistakes({"stages.dpo.beta=-1", "data.packing=concta"});
  CHECK(texts == Texts{"--set data.packing: expected concat, best_fit or none, got concta",
                       "--set stages.dpo.beta: expected more than 0, got -1",
                       "r.yaml:2: sead: unknown key 'sead'; did you mean 'seed'?"});
  try {
    read_recipe(file.path(), {"stages.dpo.beta=-1"});
    FAIL("no ConfigError");
  } catch (const ConfigError& error) {
    CHECK(std::string(error.what()) == "--set stages.dpo.beta: expected more than 0, got -1\n" +
                                           file.path().string() +
                                           ":2: sead: unknown key 'sead'; did you mean 'seed'?");
  }
}

TEST_CASE("recipe: mla_layers may ask for SMART, and is written back in that form") {
  const auto text = replaced("[0, 2]\n  attention_layers: [1]", "{select: smart, count: 2}");
  const auto recipe = read_recipe(RecipeFile(text).path(), {});
  CHECK(recipe.hybrid->smart_count == 2);
  CHECK(recipe.hybrid->mla_layers.empty());
  CHECK_THAT(write_recipe(recipe), ContainsSubstring("mla_layers: {select: smart, count: 2}"));
  CHECK(mistakes_after("[0, 2]\n  attention_layers: [1]", "{select: smart}") ==
        Texts{"r.yaml:7: hybrid.mla_layers.count: the key is missing"});
  CHECK(mistakes_after("[0, 2]\n  attention_layers: [1]", "{select: smrt, count: 2}") ==
        Texts{"r.yaml:7: hybrid.mla_layers.select: expected list or smart, got smrt"});
  CHECK(mistakes_after("[0, 2]\n  attention_layers: [1]", "{select: smart, count: 0}") ==
        Texts{"r.yaml:7: hybrid.mla_layers.count: expected at least 1, got 0"});
}

TEST_CASE("recipe: an override replaces, adds and removes keys and list entries") {
  RecipeFile file(kGood);
  const auto recipe =
      read_recipe(file.path(), {"seed=9", "hybrid.mla.q_energy=0.95", "teacher=", "stages.dpo=null",
                                "data.train.1.path=z.jsonl", "hybrid.mla_layers=[0, 3]",
                                "stages.ild.optimizer.schedule.kind=wsd", "name=a=b"});
  CHECK(recipe.seed == 9);
  CHECK(recipe.hybrid->mla.q_energy == 0.95);
  CHECK_FALSE(recipe.teacher.has_value());
  CHECK_FALSE(recipe.stages.dpo.has_value());
  CHECK(recipe.data.train[1].path == "z.jsonl");
  CHECK(recipe.hybrid->mla_layers == std::vector<int64_t>{0, 3});
  CHECK(recipe.stages.ild->optimizer.schedule.kind == ScheduleKind::kWsd);
  CHECK(recipe.name == "a=b");
}

TEST_CASE("recipe: an override that cannot be done says why") {
  CHECK(mistakes_with("seed") == Texts{"--set seed: expected key.path=value"});
  CHECK(mistakes_with("sead=1") == Texts{"--set sead: unknown key 'sead'; did you mean 'seed'?"});
  CHECK(mistakes_with("name.first=x") ==
        Texts{"--set name.first: there are no keys to set where 'first' would be"});
  CHECK(mistakes_with("data.train.2.path=x") ==
        Texts{"--set data.train.2.path: expected an entry 0 to 1 of the list, got 2"});
  const auto texts = mistakes_with("eval={");
  REQUIRE(texts.size() == 1);
  CHECK_THAT(texts[0], ContainsSubstring("--set eval: not YAML: "));
}

TEST_CASE("recipe: text that is no recipe is refused with its line") {
  CHECK(mistakes_of("") == Texts{"r.yaml:1: expected a recipe, got nothing"});
  CHECK(mistakes_of("- a\n") == Texts{"r.yaml:1: expected a recipe, got a list"});
  CHECK(mistakes_of("name: x\n---\nname: y\n") ==
        Texts{"r.yaml:3: expected one recipe a file, got a second document"});
  const auto texts = mistakes_of("name: x\nseed: [1\noutput: y\n");
  REQUIRE(texts.size() == 1);
  CHECK_THAT(texts[0], ContainsSubstring("r.yaml:3: not YAML: "));
}

TEST_CASE("recipe: a file that is not there is named") {
  CHECK_THROWS_AS(read_recipe("/no/such/recipe.yaml", {}), ConfigError);
  const auto mistakes = check_recipe("/no/such/recipe.yaml", {});
  REQUIRE(mistakes.size() == 1);
  CHECK_THAT(recipe_mistake_text("r.yaml", mistakes[0]),
             ContainsSubstring("/no/such/recipe.yaml: "));
}

TEST_CASE("recipe: what is written reads to the same recipe, odd texts and numbers included") {
  Recipe recipe = read_recipe(RecipeFile(kGood).path(), {});
  for (const char* name : {"", "true", "12", "~", "null", "a: b", "it's \"x\"", "# no", "tab\tend",
                           "line\nbreak", "ünïcode", "- a", "*x", "[1]", "no", "1e5"}) {
    recipe.base->model = name;
    recipe.data.train[0].path = name;
    recipe.stages.dpo->train = {name, "b"};
    recipe.stages.ild->optimizer.learning_rate = 1.0 / 3;
    recipe.stages.ild->optimizer.eps = 1e-300;
    recipe.stages.ild->tokens = 1.5e300;
    recipe.seed = 9007199254740993;  // not a double
    const auto text = write_recipe(recipe);
    INFO(text);
    const RecipeFile file(text);
    if (*name == '\0') {  // refused by a rule, not by the reader
      CHECK(file.mistakes().size() == 3);
      continue;
    }
    const auto again = read_recipe(file.path(), {});
    CHECK(again.base->model == name);
    CHECK(again.stages.dpo->train == recipe.stages.dpo->train);
    CHECK(again.stages.ild->optimizer.learning_rate == 1.0 / 3);
    CHECK(again.seed == recipe.seed);
    CHECK(write_recipe(again) == text);
  }
}

TEST_CASE("recipe: every file in recipes/ is without mistakes and survives being written") {
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(source_path("recipes"))) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    INFO(entry.path());
    const auto recipe = read_recipe(entry.path(), {});
    const auto text = write_recipe(recipe);
    CHECK(write_recipe(read_recipe(RecipeFile(text).path(), {})) == text);
    CHECK(text_of(entry.path()).starts_with("# "));  // `zebra recipes list` shows that line
  }
  CHECK(files >= 12);
}

TEST_CASE("recipe: the published recipes hold the published numbers") {
  struct Published {
    const char* file;
    std::vector<int64_t> mla_layers;
    int64_t q_rank, kv_rank, batch;
    double rate, tokens;
  };
  const Published all[] = {
      {"1b-8mla-8m2", {0, 2, 4, 6, 8, 10, 12, 14}, 1344, 128, 192, 8e-5, 5.4e9},
      {"1b-4mla-12m2", {0, 5, 10, 14}, 1344, 128, 192, 8e-5, 5.4e9},
      {"3b-6mla-22m2", {0, 5, 10, 16, 21, 26}, 1536, 128, 96, 4e-5, 7.44e9},
      {"8b-8mla-24m2", {0, 4, 8, 12, 16, 20, 25, 30}, 2048, 160, 64, 4e-5, 9.44e9}};
  for (const auto& published : all) {
    INFO(published.file);
    const auto recipe = read_recipe(
        source_path(std::string("recipes/zebra-llama/") + published.file + ".yaml"), {});
    CHECK(recipe.hybrid->mla_layers == published.mla_layers);
    CHECK(recipe.hybrid->mla.q_lora_rank == published.q_rank);
    CHECK(recipe.hybrid->mla.kv_lora_rank == published.kv_rank);
    CHECK(recipe.stages.distill->batch_size == published.batch);
    CHECK(recipe.stages.distill->optimizer.learning_rate == published.rate);
    CHECK(recipe.stages.distill->tokens == published.tokens);
    CHECK(recipe.stages.dpo->beta == 0.01);
  }
}

TEST_CASE("recipe: recipes/README.md holds the table of all keys") {
  CHECK_THAT(text_of(source_path("recipes/README.md")), ContainsSubstring(recipe_reference()));
}

TEST_CASE("recipe: the schema names every key, its type and what is required") {
  const auto schema = nlohmann::json::parse(recipe_schema());
  CHECK(schema.at("required") == nlohmann::json{"name", "output", "data"});
  CHECK(schema.at("additionalProperties") == false);
  const auto& stages = schema.at("properties").at("stages").at("properties");
  CHECK(stages.at("ild").at("properties").at("tokens").at("type") == "number");
  CHECK(stages.at("dpo").at("required") == nlohmann::json{"train"});
  const auto& train = schema.at("properties").at("data").at("properties").at("train");
  CHECK(
      train.at("items").at("properties").at("format").at("enum") ==
      nlohmann::json{"text", "stories", "jsonl", "messages", "conversations", "prompt_completion"});
}

TEST_CASE("recipe: the nearest name is found by its edits, and only when it is near") {
  const Texts known = {"batch_size", "micro_batch_size", "tokens", "optimizer"};
  CHECK(nearest_name("token", known) == "tokens");
  CHECK(nearest_name("tokesn", known) == "tokens");
  CHECK(nearest_name("batch", known) == "batch_size");
  CHECK(nearest_name("optimiser", known) == "optimizer");
  CHECK(nearest_name("learning_rate", known).empty());
  CHECK(nearest_name("", known).empty());
  CHECK(nearest_name("x", {}).empty());
}

}  // namespace zebra::testing
