// The built program on a small model that the test makes: what it prints, and what it says of
// damaged or unfitting files.
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "data/tokenizer_train.h"
#include "e2e/program.h"
#include "support/close_to.h"
#include "support/file_limit.h"
#include "support/testing.h"
#include "zebra/convert.h"
#include "zebra/dataset.h"
#include "zebra/safetensors.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kVocabulary = 320;

ModelOptions small_llama(int64_t vocab_size = kVocabulary) {
  ModelOptions options;
  options.vocab_size = vocab_size;
  options.hidden_size = 32;
  options.intermediate_size = 48;
  options.num_heads = 4;
  options.num_kv_heads = 2;
  options.head_dim = 8;
  options.max_position_embeddings = 128;
  options.layers.assign(3, MixerKind::kAttention);
  return options;
}

void save(const fs::path& folder, const ModelOptions& options, const fs::path& tokenizer) {
  torch::manual_seed(1);
  save_model(folder, CausalLm(options), {.tokenizer_from = tokenizer});
}

// Text, tokenizer, `llama`, and `wide`, whose vocabulary is another; made once.
const fs::path& workshop() {
  static const TempFolder folder;
  static const bool made = [] {
    const auto& at = folder.path();
    write_stories(at / "text", {.seed = 2,
                                .stories = 120,
                                .held_out = 20,
                                .questions = 6,
                                .pairs = 8,
                                .held_out_pairs = 4});
    fs::create_directories(at / "tokenizer");
    train_tokenizer(at / "text/train.txt", kVocabulary, at / "tokenizer/tokenizer.model");
    save(at / "llama", small_llama(), at / "tokenizer");
    save(at / "wide", small_llama(kVocabulary + 8), at / "tokenizer");
    save(at / "narrow", small_llama(kVocabulary - 8), at / "tokenizer");
    return true;
  }();
  REQUIRE(made);
  return folder.path();
}

Outcome zebra(const std::vector<std::string>& arguments) {
  return run_zebra(arguments, workshop());
}

// A copy of `llama` whose weights the test changes.
fs::path damaged_copy(const std::string& name,
                      const std::function<void(std::map<std::string, at::Tensor>&)>& change) {
  const auto folder = workshop() / name;
  fs::copy(workshop() / "llama", folder, fs::copy_options::recursive);
  const auto file = folder / "model.safetensors";
  std::map<std::string, at::Tensor> tensors;
  {
    const SafetensorsFile read(file);
    for (const auto& entry : read.tensors()) tensors[entry.first] = read.read(entry.first);
  }
  change(tensors);
  write_safetensors(file, tensors);
  return folder;
}

// A recipe on the workshop's files; `changes` are overrides.
Outcome run_chain(const std::string& output, std::vector<std::string> changes) {
  write_text(workshop() / "chain.yaml", R"(name: chain
output: OUT
base: {model: llama}
hybrid:
  mla_layers: [1]
  mla: {q_lora_rank: 16, kv_lora_rank: 8, qk_nope_head_dim: 4, qk_rope_head_dim: 4, v_head_dim: 8, rope: default}
data:
  sequence_length: 32
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]
stages: {}
eval: {max_sequences: 2, speed: false}
)");
  std::vector<std::string> arguments = {"run", "chain.yaml"};
  changes.push_back("output=" + output);
  for (const auto& change : changes) {
    arguments.emplace_back("--set");
    arguments.push_back(change);
  }
  return zebra(arguments);
}

}  // namespace

TEST_CASE("program: inspect counts layers, parameters and cache bytes") {
  const auto json = nlohmann::json::parse(require_success(zebra({"inspect", "llama", "--json"})));
  CHECK(json.at("parameters") == count_parameters(small_llama()));
  CHECK(json.at("layers").size() == 3);
  CHECK(json.at("layers").at(0).at("kind") == "attention");
  const auto& cache = json.at("cache");
  CHECK(cache.at("kv_values_per_token") == 3 * 2 * 2 * 8);
  CHECK(cache.at("kv_bytes_per_token") == 2 * 3 * 2 * 2 * 8);
  CHECK(cache.at("kv_share") == 1.0);
  CHECK(cache.at("state_bytes_per_sequence") == 0);
  CHECK_THAT(require_success(zebra({"inspect", "llama", "--dtype", "fp32"})),
             ContainsSubstring("384 bytes a token (fp32), 100.00 % of the Llama's"));
}

TEST_CASE("program: inspect counts a hybrid's latent cache and its states") {
  auto options = small_llama();
  options.layers = {MixerKind::kMla, MixerKind::kMamba2, MixerKind::kMamba2};
  options.mla = {.hidden_size = 32,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .q_lora_rank = 16,
                 .kv_lora_rank = 8,
                 .qk_nope_head_dim = 4,
                 .qk_rope_head_dim = 4,
                 .v_head_dim = 8,
                 .rope = {}};
  options.mamba2 = {.hidden_size = 32, .num_heads = 4, .num_kv_heads = 2, .head_dim = 8};
  save(workshop() / "hybrid", options, workshop() / "tokenizer");
  const auto json = nlohmann::json::parse(require_success(zebra({"inspect", "hybrid", "--json"})));
  const auto& cache = json.at("cache");
  CHECK(cache.at("kv_values_per_token") == 12);
  CHECK(cache.at("kv_share").get<double>() == Approx(12.0 / 96));
  const int64_t ssm = 2 * 4 * 8 * 8;
  const auto state = cache.at("state_values_per_sequence").get<int64_t>();
  CHECK(cache.at("state_bytes_per_sequence") == 2 * (state - ssm) + 4 * ssm);
  CHECK(json.at("layers").at(0).at("kv_lora_rank") == 8);

  // A whole sequence: 12 numbers a token and the states, against 96 numbers a token.
  const auto& longest = cache.at("sequences").back();
  CHECK(longest.at("tokens") == 128);
  const auto bytes = 2 * 12 * 128 + cache.at("state_bytes_per_sequence").get<int64_t>();
  CHECK(longest.at("bytes") == bytes);
  CHECK(longest.at("llama_bytes") == 2 * 96 * 128);
  CHECK(longest.at("share").get<double>() == Approx(static_cast<double>(bytes) / (2 * 96 * 128)));
  const auto int8 = nlohmann::json::parse(require_success(
      zebra({"inspect", "hybrid", "--dtype", "int8", "--state-dtype", "bf16", "--json"})));
  CHECK(int8.at("cache").at("kv_bytes_per_token") == 12 + 2 * 4);
  CHECK(int8.at("cache").at("state_bytes_per_sequence") == 2 * state);
}

TEST_CASE("program: logits are those of the model, in any number of rows") {
  torch::manual_seed(5);
  const auto ids = torch::randint(0, kVocabulary, {5, 9}, torch::kLong);
  write_safetensors(workshop() / "ids.safetensors", {{"input_ids", ids}});
  require_success(zebra({"logits", "llama", "--input", "ids.safetensors", "--output",
                         "logits.safetensors", "--rows", "2"}));
  const SafetensorsFile file(workshop() / "logits.safetensors");
  auto model = load_model(workshop() / "llama", {});
  const torch::NoGradGuard no_grad;
  const auto expected = model->logits(model->forward(ids, {}));
  const auto got = file.read("logits");
  CHECK(got.dtype() == torch::kFloat);
  CHECK(got.sizes() == expected.sizes());
  CHECK((got - expected).abs().max().item<double>() <= 2e-5 * expected.abs().max().item<double>());
}

TEST_CASE("program: logits refuses ids that the model lacks, and tensors that are no ids") {
  const auto refused = [](const at::Tensor& ids, const std::string& what) {
    write_safetensors(workshop() / "bad.safetensors", {{"input_ids", ids}});
    check_refused(zebra({"logits", "llama", "--input", "bad.safetensors", "--output", "o"}), what);
  };
  refused(torch::full({1, 3}, kVocabulary, torch::kLong), "expected ids 0 to 319, got 320");
  refused(torch::full({1, 3}, -1, torch::kLong), "expected ids 0 to 319, got -1");
  refused(torch::zeros({3}, torch::kLong), "expected int64 of shape (B, T)");
  refused(torch::zeros({1, 3}), "expected int64 of shape (B, T)");
  write_safetensors(workshop() / "bad.safetensors", {{"ids", torch::zeros({1, 3}, torch::kLong)}});
  check_refused(zebra({"logits", "llama", "--input", "bad.safetensors", "--output", "o"}),
                "expected a tensor input_ids");
}

TEST_CASE("program: generate prints the prompt and its continuation, the same for the same seed") {
  const std::vector<std::string> draw = {"generate",         "llama", "--prompt",      "One day",
                                         "--seed",           "3",     "--temperature", "1",
                                         "--max-new-tokens", "12"};
  const auto text = require_success(zebra(draw));
  CHECK(text.starts_with("One day"));
  CHECK(text.back() == '\n');
  CHECK(require_success(zebra(draw)) == text);
  auto other = draw;
  other[5] = "4";
  CHECK(require_success(zebra(other)) != text);
  CHECK(require_success(zebra(
            {"generate", "llama", "--prompt", "One day", "--max-new-tokens", "0"})) == "One day\n");
}

TEST_CASE("program: several prompts and samples are continued in their order, as each is alone") {
  write_text(workshop() / "prompts.txt", "One day\nThe cat sat\n");
  const std::vector<std::string> common = {"--max-new-tokens", "6", "--json"};
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"generate", "llama"});
    arguments.insert(arguments.end(), common.begin(), common.end());
    return nlohmann::json::parse(require_success(zebra(arguments)));
  };
  const auto both = run({"--prompts", "prompts.txt", "--num-samples", "2"}).at("rows");
  REQUIRE(both.size() == 4);
  CHECK(both[0].at("prompt") == "One day");
  CHECK(both[3].at("prompt") == "The cat sat");
  CHECK(both[0].at("ids").size() == 6);
  CHECK(both[0].at("stop_reason") == "length");
  CHECK(both[0].at("ids") == both[1].at("ids"));  // greedy
  CHECK(run({"--prompt", "The cat sat"}).at("rows")[0].at("ids") == both[2].at("ids"));
  const auto text = require_success(
      zebra({"generate", "llama", "--prompts", "prompts.txt", "--max-new-tokens", "0"}));
  CHECK(text == "One day\nThe cat sat\n");
}

TEST_CASE("program: a draft changes the speed and not the text; another tokenizer's is refused") {
  const std::vector<std::string> plain = {"generate",         "llama", "--prompt", "One day",
                                          "--max-new-tokens", "20"};
  auto drafted = plain;
  drafted.insert(drafted.end(), {"--draft", "llama", "--draft-tokens", "3"});
  CHECK(require_success(zebra(drafted)) == require_success(zebra(plain)));
  drafted.emplace_back("--json");
  const auto json = nlohmann::json::parse(require_success(zebra(drafted)));
  CHECK(json.at("draft").at("accepted") == json.at("draft").at("proposed"));
  check_refused(zebra({"generate", "llama", "--prompt", "x", "--draft", "wide"}),
                "--draft wide: vocabulary: expected 320 entries as in the model, got 328");
}

TEST_CASE("program: a stop text ends the continuation before it, a stop token after it") {
  const std::vector<std::string> plain = {"generate",         "llama", "--prompt", "One day",
                                          "--max-new-tokens", "20",    "--json"};
  const auto whole = nlohmann::json::parse(require_success(zebra(plain))).at("rows")[0];
  const auto text = whole.at("text").get<std::string>();
  REQUIRE(text.size() > 6);
  auto stopped = plain;
  const auto stop = text.substr(3, 3);
  stopped.insert(stopped.end(), {"--stop", stop});
  const auto row = nlohmann::json::parse(require_success(zebra(stopped))).at("rows")[0];
  CHECK(row.at("text") == text.substr(0, text.find(stop)));
  CHECK(row.at("stop_reason") == "stop_string");
  auto by_token = plain;
  by_token.insert(by_token.end(), {"--stop-token", std::to_string(whole.at("ids")[4].get<int>())});
  CHECK(nlohmann::json::parse(require_success(zebra(by_token))).at("rows")[0].at("stop_reason") ==
        "stop_token");
}

TEST_CASE("program: generate refuses what it cannot continue, in one line") {
  check_refused(zebra({"generate", "llama"}), "expected --prompt or --prompts, got neither");
  check_refused(zebra({"generate", "llama", "--prompts", "none.txt"}), "none.txt");
  std::string endless;
  for (int i = 0; i < 200; ++i) endless += "cat ";
  check_refused(zebra({"generate", "llama", "--prompt", endless}),
                "prompt: expected at most the model's 128 tokens");
  check_refused(zebra({"generate", "llama", "--prompt", "x", "--stop-token", "320"}),
                "--stop-token: expected an id in [0, 320), got 320");
  check_refused(zebra({"generate", "llama", "--prompt", "x", "--stop-token", "<nope>"}),
                "--stop-token: expected a token of the vocabulary, got '<nope>'");
  check_refused(zebra({"generate", "llama", "--prompt", "x", "--repetition-penalty", "0"}),
                "--repetition-penalty");
}

TEST_CASE("program: smaller caches are used when asked for") {
  for (const char* dtype : {"fp32", "bf16", "int8"}) {
    const auto json = nlohmann::json::parse(
        require_success(zebra({"generate", "llama", "--prompt", "One day", "--max-new-tokens", "4",
                               "--cache-dtype", dtype, "--state-dtype", "bf16", "--json"})));
    CHECK(json.at("rows")[0].at("ids").size() == 4);
  }
  check_refused(zebra({"generate", "llama", "--prompt", "x", "--cache-dtype", "int4"}),
                "--cache-dtype");
}

TEST_CASE("program: chat answers line by line, and the next answer knows the earlier ones") {
  const auto talk = [&](const std::string& lines) {
    return require_success(run_zebra({"chat", "llama", "--template", "plain", "--max-new-tokens",
                                      "8", "--repetition-penalty", "1.2"},
                                     workshop(), std::nullopt,
                                     {.environment = {}, .input = lines}));
  };
  const auto two = talk("One day\nThe cat\n");
  CHECK(talk("One day\nThe cat\n") == two);
  const auto first = talk("One day\n");
  CHECK(two.starts_with(first));
  CHECK(talk("One day\n/reset\nOne day\n") == first + first);
  CHECK(talk("/exit\n").empty());
  check_refused(run_zebra({"chat", "llama", "--template", "lama3"}, workshop(), std::nullopt,
                          {.environment = {}, .input = "x\n"}),
                "lama3");
}

TEST_CASE("program: bench generate measures a hybrid beside its Llama at every load") {
  auto options = small_llama();
  options.layers = {MixerKind::kAttention, MixerKind::kMamba2, MixerKind::kMamba2};
  options.mamba2 = {.hidden_size = 32, .num_heads = 4, .num_kv_heads = 2, .head_dim = 8};
  save(workshop() / "mixed", options, workshop() / "tokenizer");
  const auto json = nlohmann::json::parse(
      require_success(zebra({"bench", "generate", "mixed", "--llama", "llama", "--batches", "1,3",
                             "--written", "5", "--contexts", "20,90", "--context-batches", "2,1",
                             "--new-tokens", "4", "--html", "bench.html", "--json"})));
  REQUIRE(json.at("sweeps").size() == 3);
  const auto& points = json.at("sweeps")[1].at("points");
  REQUIRE(points.size() == 4);
  CHECK(points[0].at("model") == "hybrid");
  CHECK(points[3].at("model") == "llama");
  CHECK(points[3].at("prompt_tokens") == 90);
  // Two rows of 94 tokens, keys and values of three layers in float32.
  CHECK(points[3].at("cache_bytes") == 2 * 94 * 3 * 2 * 2 * 8 * 4);
  CHECK(points[3].at("decode_tokens_per_second").get<double>() > 0);
  const auto page = read_text(workshop() / "bench.html");
  CHECK_THAT(page, ContainsSubstring("<svg"));
  CHECK_THAT(page, ContainsSubstring("batch of 2, 4 tokens behind each context"));
  check_refused(zebra({"bench", "generate", "mixed", "--llama", "llama", "--contexts", "127",
                       "--new-tokens", "4", "--written", "4"}),
                "expected at most the model's 128 tokens");
  check_refused(zebra({"bench", "generate", "mixed", "--llama", "llama", "--peer", "--peer-python",
                       "/bin/false", "--batches", "1", "--written", "1", "--contexts", "4"}),
                "--peer: expected /bin/false with torch and transformers");
}

TEST_CASE("program: bench long-context scores tasks and the loss by position") {
  auto options = small_llama();
  options.max_position_embeddings = 1024;
  save(workshop() / "long", options, workshop() / "tokenizer");
  const auto json = nlohmann::json::parse(require_success(
      zebra({"bench", "long-context", "long", "--tasks", "niah_single,common_words", "--lengths",
             "400", "--samples", "2", "--text", "text/train.txt", "--sequences", "2", "--json"})));
  REQUIRE(json.at("tasks").size() == 2);
  CHECK(json.at("tasks")[0].at("by_depth").size() == 2);
  CHECK(json.at("loss_by_position").size() == 4);
  CHECK(json.at("loss_by_position")[3].at("end") == 400);
  const auto shown = require_success(
      zebra({"bench", "long-context", "long", "--show", "niah_single", "--lengths", "300"}));
  CHECK_THAT(shown, ContainsSubstring("The secret number of the "));
  check_refused(zebra({"bench", "long-context", "long", "--tasks", "niah_sinlge"}),
                "did you mean 'niah_single'?");
  check_refused(zebra({"bench", "long-context", "long", "--lengths", "2000"}),
                "--lengths: expected at most the model's 1024 tokens, got 2000");
}

TEST_CASE("program: eval prints what it measures, and writes it as JSON") {
  const auto table = require_success(
      zebra({"eval", "llama", "--data", "text/valid.txt", "--format", "stories",
             "--sequence-length", "64", "--teacher", "llama", "--choices", "text/choices.jsonl",
             "--pairs", "text/pairs-valid.jsonl", "--output", "scores.json"}));
  for (const char* name : {"text.nats_per_token", "text.bits_per_byte", "text.kl_per_token",
                           "text.top1_agreement", "choices.accuracy", "pairs.accuracy"}) {
    CHECK_THAT(table, ContainsSubstring(name));
  }
  const auto json = read_json(workshop() / "scores.json");
  CHECK(json.at("text").at("top1_agreement") == 1.0);
  CHECK(json.at("text").at("kl_per_token").get<double>() == Approx(0).margin(1e-6));
  CHECK(json.at("choices").at("questions") == 6);
  CHECK(json.at("pairs").at("pairs") == 4);
}

TEST_CASE("program: eval runs harness tasks, with results, samples and a table") {
  write_text(workshop() / "rows/piqa/validation.jsonl",
             "{\"goal\":\"Open it\",\"sol1\":\"Push\",\"sol2\":\"Eat\",\"label\":0}\n"
             "{\"goal\":\"Shut it\",\"sol1\":\"Burn\",\"sol2\":\"Pull\",\"label\":1}\n");
  write_text(workshop() / "own.yaml",
             "task: own\ntest_split: test\noutput_type: multiple_choice\n"
             "dataset_kwargs: {data_files: {test: rows/piqa/validation.jsonl}}\n"
             "doc_to_text: goal\ndoc_to_choice: '{{[sol1, sol2]}}'\ndoc_to_target: label\n");
  const auto table =
      require_success(zebra({"eval", "llama", "--tasks", "piqa,own.yaml", "--data", "rows",
                             "--limit", "1", "--output", "tasks.json", "--samples"}));
  for (const char* word : {"piqa", "own", "acc_norm", "n-shot"}) {
    CHECK_THAT(table, ContainsSubstring(word));
  }
  const auto json = read_json(workshop() / "tasks.json");
  CHECK(json.at("results").at("piqa").contains("acc,none"));
  CHECK(json.at("results").at("piqa").at("acc_norm_stderr,none") == "N/A");
  CHECK(json.at("n-samples").at("piqa") == nlohmann::json{{"original", 2}, {"effective", 1}});
  CHECK(json.at("versions").at("piqa") == 1.0);
  CHECK(json.at("config").at("limit") == 1);
  const auto sample = read_json(workshop() / "tasks_samples/samples_own.jsonl");
  CHECK(sample.at("arguments").at("gen_args_1").at("arg_1") == " Eat");
  CHECK(sample.at("doc_hash").get<std::string>().size() == 64);
}

TEST_CASE("program: ranks share out the documents of a task and find the same scores") {
  std::string rows;
  for (int i = 0; i < 7; ++i) {
    rows += R"({"goal":"Thing )" + std::to_string(i * 37) +
            R"(","sol1":"Push it","sol2":"Pull it up","label":)" + std::to_string(i % 2) + "}\n";
  }
  write_text(workshop() / "shared/piqa/validation.jsonl", rows);
  const auto scores = [](std::vector<std::string> more, const std::string& file) {
    std::vector<std::string> arguments = {"eval",   "llama",  "--tasks",  "piqa",
                                          "--data", "shared", "--output", file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    require_success(zebra(arguments));
    return read_json(workshop() / file).at("results");
  };
  const auto alone = scores({}, "alone.json");
  CHECK(scores({"--nproc", "2"}, "two.json") == alone);
  const auto chat = scores({"--apply-chat-template", "chatml"}, "chat.json");
  CHECK(chat.at("piqa").at("sample_len") == alone.at("piqa").at("sample_len"));
  CHECK(read_json(workshop() / "chat.json").at("apply_chat_template") == true);
  check_refused(zebra({"eval", "llama", "--tasks", "piqa", "--data", "shared",
                       "--apply-chat-template", "chatlm"}),
                "chatml");
  check_refused(
      zebra({"eval", "llama", "--tasks", "piqa", "--data", "shared", "--fewshot-as-multiturn"}),
      "--fewshot-as-multiturn: needs --apply-chat-template");
}

TEST_CASE("program: eval refuses tasks and rows that are not there, and writes nothing") {
  fs::create_directories(workshop() / "empty");
  const auto refused = [](std::vector<std::string> more, const std::string& what) {
    std::vector<std::string> arguments = {"eval", "llama", "--output", "none.json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    check_refused(zebra(arguments), what);
    CHECK_FALSE(fs::exists(workshop() / "none.json"));
  };
  refused({"--tasks", "piqua", "--data", "empty"}, "unknown task 'piqua'; did you mean 'piqa'?");
  refused({"--tasks", "piqa", "--data", "empty"}, "piqa/validation.jsonl, which is no file");
  refused({"--tasks", "piqa", "--data", "text/valid.txt"},
          "--data: with --tasks expected one folder of TASK/SPLIT.jsonl, got text/valid.txt");
  refused({"--tasks", "piqa", "--data", "empty", "--choices", "text/choices.jsonl"},
          "--tasks: expected no --choices");
  refused({"--tasks", "piqa", "--data", "empty", "--max-length", "500"},
          "--max-length: expected at most the model's 128 positions, got 500");
  check_refused(zebra({"eval", "llama", "--tasks", "piqa", "--data", "empty", "--samples"}),
                "--samples: needs --output");
}

TEST_CASE("program: convert writes a folder that loads to the same weights") {
  require_success(zebra({"convert", "llama", "again", "--dtype", "fp32", "--shard-size", "20KB"}));
  CHECK(fs::exists(workshop() / "again/model.safetensors.index.json"));
  const auto before = load_model(workshop() / "llama", {});
  const auto after = load_model(workshop() / "again", {});
  for (const auto& item : before->named_parameters()) {
    CHECK(torch::equal(item.value(), after->named_parameters()[item.key()]));
  }
  check_refused(zebra({"convert", "llama", "again", "--dtype", "fp32"}), "again");
  require_success(zebra({"convert", "llama", "again", "--dtype", "bf16", "--force"}));
}

TEST_CASE("program: a weight that is missing, extra or of another shape is named with its file") {
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  damaged_copy("missing", [&](auto& tensors) { tensors.erase(name); });
  check_refused(zebra({"generate", "missing", "--prompt", "x"}), name);
  damaged_copy("extra", [&](auto& tensors) { tensors["model.odd.weight"] = torch::ones({2}); });
  check_refused(zebra({"generate", "extra", "--prompt", "x"}), "model.odd.weight");
  damaged_copy("shape", [&](auto& tensors) { tensors[name] = torch::ones({48, 31}); });
  const auto outcome = zebra({"generate", "shape", "--prompt", "x"});
  check_refused(outcome, name);
  CHECK_THAT(outcome.err, ContainsSubstring("[48, 32]"));
  CHECK_THAT(outcome.err, ContainsSubstring("[48, 31]"));
}

TEST_CASE("program: a truncated weight file is refused with its name") {
  fs::copy(workshop() / "llama", workshop() / "short", fs::copy_options::recursive);
  const auto file = workshop() / "short/model.safetensors";
  fs::resize_file(file, fs::file_size(file) / 2);
  check_refused(zebra({"generate", "short", "--prompt", "x"}), "model.safetensors");
  fs::resize_file(file, 4);
  check_refused(zebra({"generate", "short", "--prompt", "x"}), "model.safetensors");
}

TEST_CASE("program: a vocabulary that does not fit is refused") {
  check_refused(zebra({"generate", "narrow", "--prompt", "x"}), "vocabulary: expected at least");
  check_refused(zebra({"eval", "llama", "--data", "text/valid.txt", "--teacher", "wide"}),
                "vocabulary: expected 320 entries as in the model, got 328");
  check_refused(run_chain("runs/teacher", {"teacher={model: wide}"}),
                "vocabulary: expected 320 entries as in the base, got 328");
}

TEST_CASE("program: text that cannot be read, is not UTF-8 or is empty is refused with its name") {
  const auto refused = [](const char* file, const char* format, const std::string& what) {
    check_refused(
        zebra({"eval", "llama", "--data", file, "--format", format, "--sequence-length", "32"}),
        what);
  };
  refused("nowhere.txt", "text", "nowhere.txt");
  write_text(workshop() / "latin1.txt", "caf\xe9 au lait");
  refused("latin1.txt", "text", "latin1.txt: expected UTF-8, got an invalid byte at offset 3");
  write_text(workshop() / "empty.txt", "");
  refused("empty.txt", "text", "empty.txt");
  write_text(workshop() / "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \n");
  refused("bad.jsonl", "jsonl", "bad.jsonl");
}

TEST_CASE("program: a recipe that does not fit its base is refused") {
  check_refused(run_chain("runs/depth", {"hybrid.mla_layers=[3]"}),
                "hybrid.mla_layers: the base has 3 layers, got 3");
  check_refused(run_chain("runs/rank", {"hybrid.mla.q_lora_rank=17"}),
                "hybrid.mla.q_lora_rank: expected a positive multiple of 8, got 17");
  check_refused(run_chain("runs/nobase", {"base.model=nowhere"}), "nowhere");
  check_refused(run_chain("runs/notext", {"data.train.0.path=none.txt"}), "none.txt");
}

TEST_CASE("program: a full disk is the user's, and nothing half-written stays") {
  workshop();
  const FileSizeLimit limit(10'000);
  check_refused(zebra({"convert", "llama", "full", "--dtype", "fp32"}), "full");
  CHECK_FALSE(fs::exists(workshop() / "full"));
}

}  // namespace zebra::testing
