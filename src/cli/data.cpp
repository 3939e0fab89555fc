// zebra data
#include "cli/command.h"
#include "data/tokenizer_train.h"
#include "zebra/dataset.h"

namespace zebra {

namespace {

void add_stories(CLI::App& data, Action& action) {
  struct Flags {
    std::string folder;
    StoryOptions options;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = add_verb(data, "stories", "Generate stories, multiple-choice endings and pairs",
                        "zebra data stories --out stories --seed 1");
  verb->add_option("--out", flags->folder, "Folder for the five files")
      ->required()
      ->type_name("DIR");
  auto& options = flags->options;
  verb->add_option("--seed", options.seed, "The same seed gives the same bytes [1]")
      ->check(any_seed())
      ->type_name("S");
  const auto count = [&](const char* flag, int64_t& value, const char* meaning) {
    verb->add_option(flag, value, meaning)->check(whole_number(1))->type_name("N");
  };
  count("--stories", options.stories, "In train.txt [3000]");
  count("--held-out", options.held_out, "In valid.txt [200]");
  count("--questions", options.questions, "In choices.jsonl [300]");
  count("--pairs", options.pairs, "In pairs.jsonl [300]");
  count("--held-out-pairs", options.held_out_pairs, "In pairs-valid.jsonl [100]");
  verb->callback([flags, &action] {
    action = [flags] {
      write_stories(flags->folder, flags->options);
      print(flags->folder + "\n");
    };
  });
}

void add_tokenizer(CLI::App& data, Action& action) {
  struct Flags {
    std::string input, output;
    int64_t vocab_size = 0;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = add_verb(
      data, "tokenizer", "Learn a SentencePiece BPE from the lines of a text",
      "zebra data tokenizer --input stories/train.txt --vocab 512 --output tokenizer.model");
  verb->add_option("--input", flags->input, "Text file")->required()->type_name("FILE");
  verb->add_option("--vocab", flags->vocab_size, "Entries")
      ->required()
      ->check(whole_number(1))
      ->type_name("N");
  verb->add_option("--output", flags->output, "File to be written")->required()->type_name("FILE");
  verb->callback([flags, &action] {
    action = [flags] {
      train_tokenizer(flags->input, flags->vocab_size, flags->output);
      print(flags->output + "\n");
    };
  });
}

}  // namespace

void add_data(CLI::App& app, Action& action) {
  auto* verb = add_verb(app, "data", "Prepare and show text; make stories and tokenizers",
                        "zebra data stories --help");
  verb->require_subcommand(1);
  add_data_prepare(*verb, action);
  add_data_show(*verb, action);
  add_stories(*verb, action);
  add_tokenizer(*verb, action);
  add_check_tokenizer(*verb, action);
}

}  // namespace zebra
