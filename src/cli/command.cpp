#include "cli/command.h"

#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include "train/job.h"
#include "zebra/error.h"

namespace zebra {

CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& meaning,
                   const std::string& example) {
  auto* verb = app.add_subcommand(name, meaning);
  verb->footer("Example:\n  " + example);
  return verb;
}

void add_overrides(CLI::App* verb, std::vector<std::string>& overrides) {
  verb->add_option("--set", overrides, "Put a value in place of the recipe's; may be repeated")
      ->type_name("KEY.PATH=VALUE")
      ->allow_extra_args(false);
}

void MachineFlags::declare(CLI::App* verb) {
  verb->add_option("--device", device, "cpu, cuda or cuda:N [cpu]")->type_name("NAME");
  verb->add_option("--dtype", dtype, "fp32, bf16 or fp16 [fp32]")->type_name("NAME");
  verb->add_option("--threads", threads, "CPU threads; 0: the machine's cores")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("N");
}

LoadOptions MachineFlags::use() const {
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : cores));
  return {.dtype = parse_dtype(dtype), .device = parse_device(device)};
}

LoadedModel load_with_tokenizer(const std::string& folder, const LoadOptions& options) {
  LoadedModel loaded{load_model(folder, options), load_tokenizer(folder)};
  const int64_t has = loaded.model->options().vocab_size;
  const int64_t wants = loaded.tokenizer->vocab_size();
  if (wants > has) {
    throw ConfigError(str(folder, ": vocabulary: expected at least the tokenizer's ", wants,
                          " entries in the model, got ", has));
  }
  loaded.model->eval();
  return loaded;
}

std::vector<std::string> own_command() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  words.at(0) = std::filesystem::read_symlink("/proc/self/exe").string();
  return words;
}

void print(const std::string& text) {
  std::cout << text << std::flush;
  if (!std::cout) throw ConfigError("stdout: cannot be written (disk full or pipe closed)");
}

void print_json(const nlohmann::ordered_json& json) {
  print(json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace zebra
