// zebra generate
#include "cli/command.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

namespace {

struct GenerateFlags {
  std::string model, prompt;
  GenerateOptions options;
  MachineFlags machine;
};

// Length of the text without what may still change: the bytes of a character that is not complete
// are decoded as U+FFFD.
size_t settled(const std::string& text) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  size_t end = text.size();
  while (std::string_view(text).substr(0, end).ends_with(kReplacement)) end -= kReplacement.size();
  return end;
}

// Shows text while it is made. What a token adds depends on those before it, so all are decoded
// again.
class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, std::vector<int64_t> prompt)
      : tokenizer_(tokenizer), ids_(std::move(prompt)) {
    show();
  }
  void add(int64_t id) {
    ids_.push_back(id);
    show();
  }
  void finish() const { print(tokenizer_.decode(ids_).substr(shown_) + "\n"); }

 private:
  void show() {
    const auto text = tokenizer_.decode(ids_);
    const size_t end = settled(text);
    if (end <= shown_) return;
    print(text.substr(shown_, end - shown_));
    shown_ = end;
  }

  const Tokenizer& tokenizer_;
  std::vector<int64_t> ids_;
  size_t shown_ = 0;
};

void generate_text(GenerateFlags flags) {
  const auto options = flags.machine.use();
  const auto loaded = load_with_tokenizer(flags.model, options);
  auto text = loaded.tokenizer->encode(flags.prompt);
  const auto ids = encode_with_bos(*loaded.tokenizer, flags.prompt);
  if (ids.empty()) throw ConfigError("--prompt: expected a text, got an empty one");
  flags.options.stop_ids = loaded.model->options().eos_token_ids;
  const auto prompt = torch::tensor(ids, at::kLong).unsqueeze(0).to(options.device);  // (1, T)

  TextStream stream(*loaded.tokenizer, std::move(text));
  const auto& stops = flags.options.stop_ids;
  generate(loaded.model, prompt, flags.options, [&](int64_t id) {
    if (std::find(stops.begin(), stops.end(), id) == stops.end()) stream.add(id);
  });
  stream.finish();
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  auto flags = std::make_shared<GenerateFlags>();
  auto* verb = add_verb(app, "generate", "Continue a text; prompt and continuation go to stdout",
                        "zebra generate runs/quickstart/stages/dpo --prompt \"One day\" --seed 3 "
                        "--temperature 0.8");
  verb->add_option("model", flags->model, "Model folder")->required()->type_name("MODEL");
  verb->add_option("--prompt", flags->prompt, "Text to continue")->required()->type_name("TEXT");
  auto& options = flags->options;
  verb->add_option("--max-new-tokens", options.max_new_tokens, "Tokens made at most [128]")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
  verb->add_option("--temperature", options.temperature, "0: always the likeliest token [0]")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("X");
  verb->add_option("--top-k", options.top_k, "Draw from the K likeliest; 0: from all [0]")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("K");
  verb->add_option("--top-p", options.top_p, "Draw from the likeliest of this total share [1]")
      ->check(CLI::Range(0.0, 1.0).description(""))
      ->type_name("P");
  verb->add_option("--seed", options.seed, "Of the draws [0]")->type_name("S");
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { generate_text(*flags); }; });
}

}  // namespace zebra
