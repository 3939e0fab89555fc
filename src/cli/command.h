// What the verbs of the command line share.
#pragma once

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.h"
#include "zebra/convert.h"
#include "zebra/error.h"
#include "zebra/options.h"
#include "zebra/tokenizer.h"

namespace zebra {

// A verb declares its arguments on `app` and leaves in `action` what is to be done once the whole
// command line is understood.
using Action = std::function<void()>;

void add_run(CLI::App& app, Action& action);
void add_validate(CLI::App& app, Action& action);
void add_recipes(CLI::App& app, Action& action);
void add_inspect(CLI::App& app, Action& action);
void add_convert(CLI::App& app, Action& action);
void add_logits(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_data(CLI::App& app, Action& action);
void add_chat(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);
void add_bench_checkpoint(CLI::App& bench, Action& action);
void add_bench_cache_drift(CLI::App& bench, Action& action);
void add_bench_generate(CLI::App& bench, Action& action);
void add_bench_long_context(CLI::App& bench, Action& action);
void add_bench_memory(CLI::App& bench, Action& action);
void add_bench_packing(CLI::App& bench, Action& action);
void add_bench_tokenizer(CLI::App& bench, Action& action);
void add_check_tokenizer(CLI::App& data, Action& action);
void add_data_prepare(CLI::App& data, Action& action);
void add_data_show(CLI::App& data, Action& action);

// Prints what a training checkpoint holds.
void inspect_checkpoint(const std::string& path, bool json);

// The words of this process's command line, the program's full path first: to start it again.
std::vector<std::string> own_command();

// A subcommand whose help ends with an example.
CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& meaning,
                   const std::string& example);

// What a flag may be. Anything else is refused with what was expected and what came.
CLI::Validator whole_number(uint64_t least, uint64_t most = std::numeric_limits<int64_t>::max());
CLI::Validator any_seed();  // 0 to 2^64 - 1
// A finite number for which `fits` holds; `expected` tells when that is.
CLI::Validator number(const std::string& expected, bool (*fits)(double));

template <class Enum>
CLI::Validator one_of(const std::vector<std::pair<std::string, Enum>>& names) {
  const auto to_value = [names](std::string& word) -> std::string {
    std::string known;
    for (const auto& [name, value] : names) {
      known += (known.empty() ? "" : ", ") + name;
      if (name != word) continue;
      word = std::to_string(static_cast<int64_t>(value));
      return "";
    }
    return str("expected one of ", known, ", got ", word);
  };
  return CLI::Validator(to_value, "");
}

// --set key.path=value, as often as wanted.
void add_overrides(CLI::App* verb, std::vector<std::string>& overrides);

// Where and how a model runs.
struct MachineFlags {
  std::string device = "cpu", dtype = "fp32";
  int64_t threads = 0;  // 0: the machine's cores

  void declare(CLI::App* verb);
  LoadOptions use() const;  // sets the threads; ConfigError for what is not there
};

// An option whose value is one of an enum's names.
template <class Enum>
CLI::Option* add_enum(CLI::App* verb, const std::string& flag, Enum& value,
                      const std::string& meaning) {
  std::vector<std::pair<std::string, Enum>> names;
  std::string listed;
  for (const auto& [candidate, name] : EnumNames<Enum>::names) {
    names.emplace_back(name, candidate);
    listed += (listed.empty() ? "" : "|") + std::string(name);
  }
  const auto usual = std::string(enum_name(value));
  return verb->add_option(flag, value, meaning + " [" + usual + "]")
      ->transform(one_of(names))
      ->type_name(listed);
}

// A model, the tokenizer of its folder, and the tokens that end a text by config.json and
// generation_config.json. ConfigError when the tokenizer has ids that the model lacks.
struct LoadedModel {
  CausalLm model{nullptr};
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<int64_t> stop_ids;
};
LoadedModel load_with_tokenizer(const std::string& folder, const LoadOptions& options);

// The file that results go to, opened before the work that makes them; empty path: none.
std::unique_ptr<OutputFile> open_output(const std::string& path);

// Results go to stdout; a pipe or disk that takes no more is a ConfigError.
void print(const std::string& text);
void print_json(const nlohmann::ordered_json& json);

}  // namespace zebra
