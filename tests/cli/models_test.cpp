// The built program on a small model that the test makes: what it prints, and what it says of
// damaged or unfitting files.
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "cli/workshop.h"
#include "support/close_to.h"
#include "support/file_limit.h"
#include "zebra/safetensors.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

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
  write_text(workshop() / "chain.yaml",
             small_recipe("OUT", "text/train.txt", "text/valid.txt",
                          "stages: {}\neval: {max_sequences: 2, speed: false}\n"));
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
  CHECK(json.at("parameters") == count_parameters(small_llama(kVocabulary)));
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
  auto options = small_llama(kVocabulary);
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
  write_text(workshop() / "windows.txt", "One day\r\nThe cat sat\r\n");
  CHECK(run({"--prompts", "windows.txt", "--num-samples", "2"}).at("rows") == both);
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

  // generation_config.json may name more end tokens than config.json does.
  const auto ends = workshop() / "ends";
  fs::copy(workshop() / "llama", ends, fs::copy_options::recursive);
  const auto end_at = [&](const std::string& ids) {
    write_text(ends / "generation_config.json", "{\"eos_token_id\": " + ids + "}");
    auto with_config = plain;
    with_config[1] = "ends";
    return zebra(with_config);
  };
  const auto fifth = whole.at("ids")[4].dump();
  for (const auto& ids : {fifth, "[2, " + fifth + "]"}) {
    const auto rows = nlohmann::json::parse(require_success(end_at(ids))).at("rows");
    CHECK(rows[0].at("stop_reason") == "stop_token");
  }
  check_refused(end_at("true"), "generation_config.json: eos_token_id");
}

TEST_CASE("program: generate refuses what it cannot continue, in one line") {
  check_refused(zebra({"generate", "llama"}), "expected --prompt or --prompts, got neither");
  check_refused(zebra({"generate", "llama", "--prompts", "none.txt"}), "none.txt");
  write_text(workshop() / "no-prompts.txt", "");
  check_refused(zebra({"generate", "llama", "--prompts", "no-prompts.txt"}),
                "no-prompts.txt: expected a prompt a line, got an empty file");
  for (const std::string text : {"One day\n\nThe cat sat\n", "One day\r\n\r\n"}) {
    write_text(workshop() / "gaps.txt", text);
    check_refused(zebra({"generate", "llama", "--prompts", "gaps.txt"}),
                  "gaps.txt:2: expected a prompt, got an empty line");
  }
  check_refused(zebra({"generate", "llama", "--prompt", ""}),
                "--prompt: expected a text to continue, got an empty one");
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

  // What does not fit any more is told, and the conversation stays.
  std::string endless;
  for (int i = 0; i < 200; ++i) endless += "cat ";
  CHECK(talk("One day\n" + endless + "\nThe cat\n") == two);
  const auto full = run_zebra({"chat", "llama", "--template", "plain"}, workshop(), std::nullopt,
                              {.environment = {}, .input = endless + "\n"});
  CHECK(full.exit_code == 0);
  CHECK(full.out.empty());
  CHECK_THAT(full.err, ContainsSubstring("do not fit into the model's 128 tokens"));
  CHECK_THAT(full.err, ContainsSubstring("/reset begins anew"));
}

TEST_CASE("program: chat reads how the template closes an answer, stop token or not") {
  auto options = small_llama(kVocabulary);
  options.max_position_embeddings = 512;
  options.initializer_range = 0.5;  // what was read decides what comes next
  options.tie_word_embeddings = false;
  save(workshop() / "keen", options, workshop() / "tokenizer");
  const auto talk = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {
        "chat", "keen", "--template", "chatml", "--max-new-tokens", "6"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return require_success(run_zebra(arguments, workshop(), std::nullopt,
                                     {.environment = {}, .input = "Hello\nb\nc\n"}));
  };
  // The first token of <|im_end|>, of which this tokenizer knows nothing.
  CHECK(talk({"--stop-token", "<0x3C>"}) == talk({}));
}

TEST_CASE("program: bench generate measures a hybrid beside its Llama at every load") {
  auto options = small_llama(kVocabulary);
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
  check_refused(zebra({"bench", "generate", "nowhere", "--html", "none/bench.html"}),
                "none/bench.html");
}

TEST_CASE("program: bench generate gives the peer the device and dtype that it uses itself") {
  const auto peer = workshop() / "peer.sh";
  write_text(peer,
             "#!/bin/sh\ncp \"$2\" seen.json\necho 'RESULT {\"version\": \"none\", "
             "\"speeds\": [{\"prefill\": 1, \"decode\": 1, \"bytes\": 1}]}'\n");
  fs::permissions(peer, fs::perms::owner_all);
  require_success(zebra({"bench",
                         "generate",
                         "llama",
                         "--llama",
                         "llama",
                         "--batches",
                         "1",
                         "--written",
                         "1",
                         "--contexts",
                         "4",
                         "--context-batches",
                         "1",
                         "--new-tokens",
                         "1",
                         "--dtype",
                         "bf16",
                         "--peer",
                         "--peer-python",
                         "./peer.sh"}));
  const auto seen = read_json(workshop() / "seen.json");
  CHECK(seen.at("device") == "cpu");
  CHECK(seen.at("dtype") == "bf16");
}

TEST_CASE("program: bench long-context scores tasks and the loss by position") {
  auto options = small_llama(kVocabulary);
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
  check_refused(zebra({"bench", "long-context", "long", "--lengths", "20"}), ", got 20");
  check_refused(zebra({"bench", "long-context", "long", "--lengths", "400", "--text", "none.txt"}),
                "none.txt");
  check_refused(
      zebra({"bench", "cache-drift", "long", "--text", "text/train.txt", "--length", "1"}),
      "--length: expected more than the 64 tokens of --read, got 1");
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
  check_refused(run_chain("runs/width", {"hybrid.mla.v_head_dim=4"}),
                "hybrid.mla.v_head_dim: expected the base's head width 8, got 4");
  check_refused(run_chain("runs/long", {"data.sequence_length=256"}),
                "data.sequence_length: expected at most the base's 128 positions, got 256");
  for (const char* run : {"depth", "width", "long"}) {
    CHECK_FALSE(fs::exists(workshop() / "runs" / run / "data"));  // nothing was made into tokens
  }
  write_text(workshop() / "short.txt", "Hi.\n");
  check_refused(run_chain("runs/short", {"data.train.0.path=short.txt"}),
                "data: expected at least 32 tokens, enough for one sequence");
  CHECK_FALSE(fs::exists(workshop() / "runs/short/stages/init"));
  std::string answer;
  for (int i = 0; i < 200; ++i) answer += " cat";
  write_text(workshop() / "long.jsonl",
             R"({"prompt": "A", "chosen": " dog", "rejected": ")" + answer + "\"}\n");
  const auto too_long = run_chain("runs/answers", {"stages.dpo={train: [long.jsonl]}"});
  check_refused(too_long, "stages.dpo.max_length: expected at most the base's 128 positions, as");
  CHECK_FALSE(fs::exists(workshop() / "runs/answers/stages/init"));
  check_refused(run_chain("runs/nobase", {"base.model=nowhere"}), "nowhere");
  check_refused(run_chain("runs/notext", {"data.train.0.path=none.txt"}), "none.txt");
  check_refused(run_chain("runs/norows", {"eval.tasks=[piqa]", "eval.data=none"}),
                "none/piqa/validation.jsonl, which is no file");
  CHECK_FALSE(fs::exists(workshop() / "runs/norows/stages/init"));
  check_refused(run_chain("runs/nochoices", {"eval.choices=none.jsonl"}), "none.jsonl");
  CHECK_FALSE(fs::exists(workshop() / "runs/nochoices/stages/init"));
}

TEST_CASE("program: a full disk is the user's, and nothing half-written stays") {
  workshop();
  const FileSizeLimit limit(10'000);
  check_refused(zebra({"convert", "llama", "full", "--dtype", "fp32"}), "full");
  CHECK_FALSE(fs::exists(workshop() / "full"));
}

}  // namespace zebra::testing
