// Whole runs over a few rows: prompts as lm-evaluation-harness 0.4.13 made them from the same rows,
// results, samples, ranks, and what is refused.
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "base/sha256.h"
#include "eval/python.h"
#include "eval/tasks/fixtures.h"
#include "support/capture.h"

namespace zebra::testing {

namespace {

using nlohmann::json;

TaskOptions options_for(const Folder& folder, const std::vector<std::string>& tasks) {
  return {.tasks = tasks, .data = folder.path("."), .bootstrap_iterations = 1000, .samples = true};
}

TaskReport run(const TaskOptions& options) {
  return evaluate_tasks(bigram_model(random_table(1)), ByteTokenizer(), options);
}

// A bigram model with room for long prompts.
CausalLm long_bigram_model(const at::Tensor& table) {
  const auto model = bigram_model(table);
  auto options = model->options();
  options.max_position_embeddings = 4096;
  CausalLm longer(options);
  longer->to(torch::kDouble);
  const at::NoGradGuard no_grad;
  for (auto& item : longer->named_parameters()) {
    item.value().copy_(model->named_parameters()[item.key()]);
  }
  return longer;
}

std::vector<json> samples_of(const TaskReport& report, const std::string& task) {
  std::vector<json> samples;
  for (const auto& [name, lines] : report.samples) {
    if (name != task) continue;
    for (const auto& line : lines) samples.push_back(json::parse(line));
  }
  return samples;
}

json arguments(const json& sample, int request) {
  const auto& args = sample.at("arguments").at("gen_args_" + std::to_string(request));
  return args.contains("arg_1") ? json{args["arg_0"], args["arg_1"]} : json{args["arg_0"]};
}

// As Python's json.dumps writes lists of texts.
std::string joined(const std::vector<std::string>& items) {
  std::string text = "[";
  for (size_t i = 0; i < items.size(); ++i) text += (i > 0 ? ", " : "") + items[i];
  return text + "]";
}

std::string python_list(const json& texts) {
  std::vector<std::string> items;
  for (const auto& text : texts) items.push_back(python_json_string(text.get<std::string>()));
  return joined(items);
}

}  // namespace

TEST_CASE(
    "harness: prompts, targets and document hashes are those of lm-evaluation-harness 0.4.13") {
  // SHA-256 of json.dumps([requests, doc_hashes, targets]), which that release gave for these rows.
  struct Known {
    std::string task;
    int64_t shots;
    std::string hash;
  };
  const std::vector<Known> known = {
      {"arc_easy", 0, "6836e5cc64baedf1f3a98b543fdc5fa513d808eeb12f88daf47b4fbb7712c973"},
      {"arc_easy", 1, "98191a8a1cfaaa846b80e1dc93e92194372fe297dfa209d4c7a48360a5c6ea1b"},
      {"arc_easy", 2, "126b3c5b8c01d561f6f6dbafff7eb884627718771ee41136618e45d41d1fa982"},
      {"hellaswag", 0, "fc606afcca5f96fa7e55ea87480ed5efeba1e33442cd8465e893ab4317f6c761"},
      {"openbookqa", 0, "01444fac9e3a2193c8b726ec0f8d18d6e5641779de5efe3a78de475a1c4be4ac"},
      {"piqa", 0, "b9230fce74000ffd60d56ba3b4e4bf23da9019c02d2f0631fe3f1fe6c66af31d"},
      {"winogrande", 0, "a601c102370df87f0b4e8b778d9f7d863198838bcce300959975feca4c5f24cd"},
      {"winogrande", 1, "5f98564b7f08d9d6453f8c0d4d0a2ff5ba55cb20a0c2651cde1a53de84e5f2d6"},
      {"winogrande", 2, "28bec1ea2fed55c4a69f29face2edcef75ad291c5acc1815e42eb039de90cce0"},
      {"race", 0, "0fc8fc5a0f9485874e94a077846b6c84ee24f34b34c19bfd22ad3f6204c964be"},
      {"truthfulqa_mc1", 0, "8e1fd255adfdccf6bb441622c94611de4df7d4e13e36e36ffb26e7daf5b7edfc"},
      {"truthfulqa_mc2", 0, "1e2a26600e6fee726d5cdb4d0276d36bbd161a1a08169e0ca5c1f29a74798981"},
      {"lambada_openai", 0, "79da3cce6f288e72d0c3ff00494db6301ee4466ad75049b1d6c5265961a7dcfc"},
      {"wikitext", 0, "469842c0055cb99b9b1c05c6158e49ac74c9bc17fb989893f5c82f78afac1355"},
      {"gsm8k", 0, "26f23df2b3c35e16eaed81e470b22c964cb5aa7602f472a0c563c3f00699d2e8"},
      {"gsm8k", 1, "bc50e0336fdbb1a969e768cea65b3d0b97c73377e708d46fd5a5188f9759829e"},
      {"gsm8k", 2, "a586bfab728f7655a7a443bad298bfecf2841ce0a6d00481a4e5cce37a673986"},
      {"mmlu_anatomy", 0, "225249ae88391774267208398900e7539f8a421f75a7c4e36a0951c1f6fc4a6f"},
      {"mmlu_anatomy", 1, "48d91c104c4ccaa9ec1695aee1a48536a7e3f78bfd6df08bf96b4c0e2befc4e5"},
      {"mmlu_anatomy", 2, "e20ee324fef250c196b0b90b8fef7ebd28c80038b7fff12253b360fa4092ea2a"},
  };
  const Folder folder;
  write_task_rows(folder);
  const auto model = long_bigram_model(random_table(1));
  for (const auto& [task, shots, hash] : known) {
    auto options = options_for(folder, {task});
    options.shots = shots;
    options.bootstrap_iterations = 0;
    std::vector<std::string> requests, hashes, targets;
    for (const auto& sample : samples_of(evaluate_tasks(model, ByteTokenizer(), options), task)) {
      if (sample.at("filter") == "flexible-extract") continue;  // the same document again
      for (size_t i = 0; i < sample.at("arguments").size(); ++i) {
        auto request = arguments(sample, static_cast<int>(i));
        if (task == "gsm8k") request.erase(1);
        requests.push_back(python_list(request));
      }
      hashes.push_back(python_json_string(sample.at("doc_hash").get<std::string>()));
      targets.push_back(python_json_string(sample.at("target").get<std::string>()));
    }
    INFO(task << " with " << shots << " examples: " << joined(requests));
    CHECK(sha256_hex("[" + joined(requests) + ", " + joined(hashes) + ", " + joined(targets) +
                     "]") == hash);
  }
}

TEST_CASE("harness: results and samples of several tasks and a group in one run") {
  const Folder folder;
  write_task_rows(folder);
  const auto report = evaluate_tasks(
      long_bigram_model(random_table(1)), ByteTokenizer(),
      options_for(folder, {"arc_easy", "truthfulqa_mc2", "lambada_openai", "wikitext"}));
  REQUIRE(report.results.size() == 4);
  const auto& arc = report.results[0];
  CHECK(arc.name == "arc_easy");
  CHECK(arc.documents == 2);
  CHECK(arc.available == 2);
  // The numbers follow from the samples.
  double acc = 0, acc_norm = 0;
  for (const auto& sample : samples_of(report, "arc_easy")) {
    std::vector<double> plain, normed;
    for (size_t c = 0; c < sample["resps"].size(); ++c) {
      plain.push_back(std::stod(sample["resps"][c][0][0].get<std::string>()));
      const auto choice = sample["doc"]["choices"]["text"][c].get<std::string>();
      normed.push_back(plain.back() / static_cast<double>(choice.size()));
    }
    const auto answer = std::stol(sample["target"].get<std::string>());
    const auto best = [](const auto& all) {
      return std::max_element(all.begin(), all.end()) - all.begin();
    };
    acc += best(plain) == answer ? 0.5 : 0;
    acc_norm += best(normed) == answer ? 0.5 : 0;
  }
  CHECK(arc.find("acc")->value == acc);
  CHECK(arc.find("acc_norm")->value == acc_norm);
  CHECK(arc.find("f1") == nullptr);
  const auto truth = samples_of(report, "truthfulqa_mc2")[0];
  std::vector<double> p;
  for (const auto& response : truth["resps"]) {
    p.push_back(std::exp(std::stod(response[0][0].get<std::string>())));
  }
  CHECK(report.results[1].find("acc")->value == Approx((p[0] + p[1]) / (p[0] + p[1] + p[2])));
}

TEST_CASE("harness: limit takes the first documents, and tells how many there are") {
  const Folder folder;
  write_task_rows(folder);
  auto options = options_for(folder, {"arc_easy"});
  options.limit = 1;
  const auto report = run(options);
  CHECK(report.results[0].documents == 1);
  CHECK(report.results[0].available == 2);
  CHECK_FALSE(report.results[0].find("acc")->error.has_value());
}

TEST_CASE("harness: two ranks that add their tensors have the results of one") {
  const Folder folder;
  write_task_rows(folder);
  const auto model = long_bigram_model(random_table(3));
  auto options = options_for(folder, {"arc_easy", "piqa", "gsm8k", "wikitext"});
  options.shots = 0;
  const auto alone = task_report_json(evaluate_tasks(model, ByteTokenizer(), options), options, {});
  // Each rank's tensors, in the order in which they are added.
  std::vector<std::vector<at::Tensor>> given(2);
  for (int64_t rank = 0; rank < 2; ++rank) {
    auto mine = options;
    mine.shard_index = rank;
    mine.shard_count = 2;
    mine.sum_over_ranks = [&](const at::Tensor& tensor) {
      given[rank].push_back(tensor.clone());
      return tensor;
    };
    evaluate_tasks(model, ByteTokenizer(), mine);
  }
  REQUIRE(given[0].size() == 4);
  auto both = options;
  both.shard_count = 2;
  size_t next = 0;
  both.sum_over_ranks = [&](const at::Tensor&) {
    const size_t i = next++;
    return given[0][i] + given[1][i];
  };
  CHECK(task_report_json(evaluate_tasks(model, ByteTokenizer(), both), options, {}) == alone);
}

TEST_CASE("harness: a rank's progress counts its own documents") {
  const Folder folder;
  write_task_rows(folder);
  const auto model = long_bigram_model(random_table(3));
  auto options = options_for(folder, {"arc_easy", "gsm8k"});
  options.shots = 0;
  options.limit = 1;
  options.shard_count = 2;
  options.sum_over_ranks = [](const at::Tensor& tensor) { return tensor; };
  for (const bool has_document : {false, true}) {
    options.shard_index = has_document ? 0 : 1;
    const StderrCapture capture;
    evaluate_tasks(model, ByteTokenizer(), options);
    CHECK_THAT(capture.text(),
               ContainsSubstring(has_document ? "eval: generated answers 100% 1/1"
                                              : "eval: generated answers   0% 0/0"));
  }
  options.tasks = {"arc_easy"};
  options.limit = 0;
  for (options.shard_index = 0; options.shard_index < 2; ++options.shard_index) {
    const StderrCapture capture;
    evaluate_tasks(model, ByteTokenizer(), options);
    static const std::regex kLast("eval 100% (\\d+)/(\\d+)");
    const auto text = capture.text();
    std::smatch last;
    REQUIRE(std::regex_search(text, last, kLast));
    CHECK(last[1] == last[2]);
  }
}

TEST_CASE("harness: results that are not finite are texts in JSON") {
  TaskReport report;
  report.results.push_back({.name = "t", .alias = "t", .metrics = {}, .members = {}});
  auto& metrics = report.results[0].metrics;
  metrics.push_back({.name = "perplexity", .filter = "none", .value = INFINITY, .error = NAN});
  const auto result = json::parse(task_report_json(report, {}, {})).at("results").at("t");
  CHECK(result.at("perplexity,none") == "inf");
  CHECK(result.at("perplexity_stderr,none") == "nan");
}

TEST_CASE("harness: the results tell each task's settings, and a hash of its samples") {
  const Folder folder;
  write_task_rows(folder);
  auto options = options_for(folder, {"arc_easy", "gsm8k", "wikitext", "mmlu_anatomy"});
  options.shots = 1;
  options.system_instruction = "Be brief.";
  const auto report = evaluate_tasks(long_bigram_model(random_table(1)), ByteTokenizer(), options);
  const auto file = json::parse(task_report_json(report, options, {}, {{"date", "1.5"}}));
  CHECK(file.at("date") == 1.5);
  CHECK(file.at("system_instruction_sha") == sha256_hex("Be brief."));
  const auto& arc = file.at("configs").at("arc_easy");
  CHECK(arc.at("doc_to_text") == "Question: {{question}}\nAnswer:");
  CHECK(arc.at("doc_to_choice") == "{{choices.text}}");
  CHECK(arc.at("test_split") == "test");
  CHECK(arc.at("num_fewshot") == 1);
  CHECK(arc.at("metric_list")[1] ==
        json{{"metric", "acc_norm"}, {"aggregation", "mean"}, {"higher_is_better", true}});
  CHECK(arc.at("metadata").at("version") == 1.0);
  CHECK_FALSE(arc.contains("generation_kwargs"));
  const auto& gsm8k = file.at("configs").at("gsm8k");
  CHECK(gsm8k.at("output_type") == "generate_until");
  CHECK(gsm8k.at("generation_kwargs").at("until") == json{"Question:", "</s>", "<|im_end|>"});
  CHECK(gsm8k.at("fewshot_split") == "train");
  const auto& wikitext = file.at("configs").at("wikitext");
  CHECK(wikitext.at("num_fewshot") == 0);
  CHECK(wikitext.at("metric_list")[0].at("aggregation") == "weighted_perplexity");
  CHECK(file.at("configs").at("mmlu_anatomy").at("fewshot_config").at("sampler") == "first_n");
  std::string hashes;
  for (const auto& sample : samples_of(report, "arc_easy")) {
    for (const char* key : {"doc_hash", "prompt_hash", "target_hash"}) {
      hashes += sample.at(key).get<std::string>();
    }
  }
  CHECK(file.at("task_hashes").at("arc_easy") == sha256_hex(hashes));
}

TEST_CASE("harness: gsm8k reads an answer that is a number as its digits") {
  const Folder folder;
  std::filesystem::create_directories(folder.path("gsm8k"));
  folder.write("gsm8k/test.jsonl", "{\"question\": \"1+1?\", \"answer\": 5}\n");
  auto options = options_for(folder, {"gsm8k"});
  options.shots = 0;
  const auto report = evaluate_tasks(long_bigram_model(random_table(1)), ByteTokenizer(), options);
  CHECK(samples_of(report, "gsm8k")[0]["target"] == "5");
  folder.write("gsm8k/test.jsonl", "{\"question\": \"1+1?\", \"answer\": [5]}\n");
  CHECK_THAT(config_error([&] { run(options); }),
             ContainsSubstring("test.jsonl:1: doc_to_target: expected text, got [5]"));
}

TEST_CASE("harness: generated answers are cut at stop texts and read by both filters") {
  const Folder folder;
  std::filesystem::create_directories(folder.path("gsm8k"));
  folder.write("gsm8k/test.jsonl", "{\"question\": \"x\", \"answer\": \"y\\n#### 42\"}\n");
  // After the prompt's last character the model says "#### 42. Question: ...".
  auto table = torch::zeros({kVocabulary, kVocabulary}, torch::kDouble);
  const auto chain = [&](const std::string& text) {
    for (size_t i = 0; i + 1 < text.size(); ++i) {
      table[static_cast<unsigned char>(text[i]) + 3][static_cast<unsigned char>(text[i + 1]) + 3] =
          30;
    }
  };
  chain(":42</s>");
  auto asked = options_for(folder, {"gsm8k"});
  asked.shots = 0;
  const auto report = evaluate_tasks(long_bigram_model(table), ByteTokenizer(), asked);
  const auto& metrics = report.results[0].metrics;
  REQUIRE(metrics.size() == 2);
  CHECK(metrics[0].filter == "strict-match");
  CHECK(metrics[0].value == 0);  // no ####
  CHECK(metrics[1].filter == "flexible-extract");
  CHECK(metrics[1].value == 1);
  const auto samples = samples_of(report, "gsm8k");
  REQUIRE(samples.size() == 2);
  CHECK(samples[0]["resps"][0][0] == "42");
  CHECK(samples[0]["filtered_resps"][0] == "[invalid]");
  CHECK(samples[1]["filtered_resps"][0] == "42");
}

TEST_CASE("harness: chat templates get one turn, or the examples as turns of their own") {
  const Folder folder;
  write_task_rows(folder);
  auto options = options_for(folder, {"mmlu_anatomy"});
  options.limit = 1;
  options.shots = 1;
  options.system_instruction = "Be brief.";
  options.chat_template = [](const std::vector<ChatMessage>& turns) {
    std::string text;
    for (const auto& turn : turns) text += "<" + turn.role + ">" + turn.content;
    return text + "<assistant>";
  };
  const std::string system =
      "<system>Be brief.\n\nThe following are multiple choice questions (with answers) about "
      "anatomy.\n\n";
  const std::string example = "First?\nA. w\nB. x\nC. y\nD. z\nAnswer:";
  const std::string question = "Which bone?\nA. hip\nB. toe\nC. jaw\nD. rib\nAnswer:";
  const auto ask = [&] {
    return arguments(
        samples_of(evaluate_tasks(long_bigram_model(random_table(1)), ByteTokenizer(), options),
                   "mmlu_anatomy")[0],
        2);
  };
  CHECK(ask() == json{system + "<user>" + example + " D\n\n" + question + "<assistant>", "C"});
  options.fewshot_as_multiturn = true;
  CHECK(ask() ==
        json{system + "<user>" + example + "<assistant>D<user>" + question + "<assistant>", "C"});
}

TEST_CASE("harness: unknown tasks are told with the nearest name, missing rows with their file") {
  const Folder folder;
  write_task_rows(folder);
  const auto refused = [&](const TaskOptions& options, const std::string& what) {
    CHECK_THAT(config_error([&] { run(options); }), ContainsSubstring(what));
  };
  refused(options_for(folder, {"arc_eazy"}), "unknown task 'arc_eazy'; did you mean 'arc_easy'?");
  refused(options_for(folder, {"ARC-Easy"}), "unknown task 'ARC-Easy'; did you mean 'arc_easy'?");
  refused(options_for(folder, {"zzz"}), "unknown task 'zzz'; known are arc_easy, ");
  refused(options_for(folder, {"mmlu_anatomyy"}), "did you mean 'mmlu_anatomy'?");
  refused(options_for(folder, {}), "tasks: expected at least one, got none");
  refused(options_for(folder, {"arc_challenge"}), "arc_challenge/test.jsonl, which is no file");
  auto shots = options_for(folder, {"piqa"});
  shots.shots = 2;
  refused(shots, "piqa/train.jsonl, which is no file");
  shots.tasks = {"arc_easy"};
  shots.shots = 5;
  refused(shots, "arc_easy: 5 examples: expected at least 5 rows in split train, got 4");
}

TEST_CASE("harness: rows that lack a field or hold a wrong answer are told with file and line") {
  const Folder folder;
  write_task_rows(folder);
  const auto refused = [&](const std::string& task, const std::string& file, const std::string& row,
                           const std::string& what) {
    folder.write(file, row);
    CHECK_THAT(config_error([&] { run(options_for(folder, {task})); }), ContainsSubstring(what));
  };
  refused(
      "arc_easy", "arc_easy/test.jsonl",
      "{\"question\":\"q\",\"choices\":{\"text\":[\"a\"],\"label\":[\"A\"]},\"answerKey\":\"E\"}",
      "test.jsonl:1: {{choices.label.index(answerKey)}}: expected one of [\"A\"], got \"E\"");
  refused("arc_easy", "arc_easy/test.jsonl", "{\"choices\": {}, \"answerKey\": \"A\"}",
          "test.jsonl:1: ");
  refused("piqa", "piqa/validation.jsonl",
          "{\"goal\":\"g\",\"sol1\":\"a\",\"sol2\":\"b\",\"label\":2}",
          "answer: expected an index in [0, 2) or one of the choices, got 2");
  refused("piqa", "piqa/validation.jsonl", "{\"goal\":\"g\",\"sol1\":\"a\",\"label\":1}",
          "field sol2: expected a value, got none; did you mean sol1?");
  refused("piqa", "piqa/validation.jsonl", "[1]", "validation.jsonl:1: expected a JSON object");
  refused("piqa", "piqa/validation.jsonl", "\n", "validation.jsonl: expected rows, got none");
  refused("winogrande", "winogrande/validation.jsonl",
          "{\"sentence\":\"no blank\",\"option1\":\"a\",\"option2\":\"b\",\"answer\":\"1\"}",
          "sentence: expected a blank _");
  refused("winogrande", "winogrande/validation.jsonl",
          "{\"sentence\":\"a _ b\",\"option1\":\"a\",\"option2\":\"b\",\"answer\":\"\"}",
          "answer: expected one character of 12");
  refused("hellaswag", "hellaswag/validation.jsonl",
          "{\"activity_label\":\"a\",\"ctx_a\":\"b\",\"ctx_b\":\"c\",\"endings\":[\"d\","
          "\"e\",\"f\",\"g\"],\"label\":\"\"}",
          "label: expected 0, 1, 2 or 3");
  refused("hellaswag", "hellaswag/validation.jsonl",
          "{\"activity_label\":\"a\",\"ctx_a\":\"b\",\"ctx_b\":\"c\",\"endings\":\"d\","
          "\"label\":0}",
          "validation.jsonl:1: endings: expected a list of four, got \"d\"");
  for (const auto* labels : {"[1]", "[1,\"0\"]", "{}"}) {
    refused("truthfulqa_mc2", "truthfulqa/validation.jsonl",
            str("{\"question\":\"q\",\"mc2_targets\":{\"choices\":[\"a\",\"b\"],\"labels\":",
                labels, "}}"),
            "validation.jsonl:1: mc2_targets.labels: expected 2 labels, 0 or 1, got ");
  }
  refused("race", "race/test.jsonl", "{\"article\":\"a\",\"problems\":\"[{'question': \"}",
          "race/test.jsonl:1: problems: expected a Python literal");
}

TEST_CASE("harness: contexts, endings and tokens that do not fit the model are refused") {
  const Folder folder;
  write_task_rows(folder);
  auto options = options_for(folder, {"piqa"});
  options.max_length = 3;
  CHECK_THAT(config_error([&] { run(options); }),
             ContainsSubstring("validation.jsonl:1: expected an ending of at most 3 tokens, got"));
  options.max_length = 129;
  CHECK_THAT(
      config_error([&] { run(options); }),
      ContainsSubstring("--max-length: expected at most the model's 128 positions, got 129"));
  CHECK_THAT(config_error([&] {
               auto narrow = tiny_options({MixerKind::kAttention});
               narrow.vocab_size = 90;
               evaluate_tasks(CausalLm(narrow), ByteTokenizer(), options_for(folder, {"piqa"}));
             }),
             ContainsSubstring("tokens: expected token ids in [0, 90), got"));
  options = options_for(folder, {"gsm8k"});
  options.shots = 0;
  CHECK_THAT(config_error([&] { run(options); }),
             ContainsSubstring("gsm8k: expected a context of more than the 256 tokens that are "
                               "generated, got 128"));
}

}  // namespace zebra::testing
