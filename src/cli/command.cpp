#include "cli/command.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <thread>

#include "base/json.h"
#include "train/job.h"
#include "zebra/error.h"

namespace zebra {

CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& meaning,
                   const std::string& example) {
  auto* verb = app.add_subcommand(name, meaning);
  verb->footer("Example:\n  " + example);
  return verb;
}

namespace {

// Text behind the number is an error, too.
template <class Number>
std::errc parse(const std::string& text, Number& value) {
  const auto* const whole = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), whole, value);
  return error == std::errc() && end != whole ? std::errc::invalid_argument : error;
}

}  // namespace

CLI::Validator whole_number(uint64_t least, uint64_t most) {
  const auto check = [least, most](const std::string& text) -> std::string {
    uint64_t value = 0;
    const auto error = parse(text, value);
    const bool parsed = error == std::errc();
    if (parsed && value >= least && value <= most) return "";
    const bool too_large = error == std::errc::result_out_of_range || (parsed && value > most);
    return too_large ? str("expected a whole number of at most ", most, ", got ", text)
                     : str("expected a whole number of at least ", least, ", got ", text);
  };
  return CLI::Validator(check, "");
}

CLI::Validator any_seed() { return whole_number(0, std::numeric_limits<uint64_t>::max()); }

CLI::Validator number(const std::string& expected, bool (*fits)(double)) {
  const auto check = [expected, fits](const std::string& text) -> std::string {
    double value = 0;
    const bool good = parse(text, value) == std::errc() && std::isfinite(value) && fits(value);
    return good ? "" : str("expected ", expected, ", got ", text);
  };
  return CLI::Validator(check, "");
}

void add_overrides(CLI::App* verb, std::vector<std::string>& overrides) {
  verb->add_option("--set", overrides, "Put a value in place of the recipe's; may be repeated")
      ->type_name("KEY.PATH=VALUE")
      ->allow_extra_args(false);
}

void MachineFlags::declare(CLI::App* verb) {
  verb->add_option("--device", device, "cpu, cuda or cuda:N [cpu]")->type_name("NAME");
  verb->add_option("--dtype", dtype, "fp32, bf16, fp16 or fp64 [fp32]")->type_name("NAME");
  verb->add_option("--threads", threads, "CPU threads; 0: the machine's cores")
      ->check(whole_number(0))
      ->type_name("N");
}

LoadOptions MachineFlags::use() const {
  const auto cores = static_cast<int64_t>(std::max(1U, std::thread::hardware_concurrency()));
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : cores));
  return {.dtype = parse_dtype(dtype), .device = parse_device(device)};
}

namespace {

// Hugging Face generates by generation_config.json, which may name more end tokens.
std::vector<int64_t> stop_ids_of(const std::string& folder, const ModelOptions& options) {
  auto ids = options.eos_token_ids;
  const auto file = std::filesystem::path(folder) / "generation_config.json";
  if (!std::filesystem::exists(file)) return ids;
  const std::string key = "eos_token_id";
  const auto config = read_json(file);
  const auto value = find_value<json>(config, key, file.string());
  if (!value) return ids;
  const auto more = value->is_array() ? require<std::vector<int64_t>>(config, key, file.string())
                                      : std::vector{require<int64_t>(config, key, file.string())};
  for (const int64_t id : more) {
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

}  // namespace

LoadedModel load_with_tokenizer(const std::string& folder, const LoadOptions& options) {
  LoadedModel loaded{load_model(folder, options), load_tokenizer(folder), {}};
  const int64_t has = loaded.model->options().vocab_size;
  const int64_t wants = loaded.tokenizer->vocab_size();
  if (wants > has) {
    throw ConfigError(str(folder, ": vocabulary: expected at least the tokenizer's ", wants,
                          " entries in the model, got ", has));
  }
  loaded.stop_ids = stop_ids_of(folder, loaded.model->options());
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

std::unique_ptr<OutputFile> open_output(const std::string& path) {
  if (path.empty()) return nullptr;
  if (std::filesystem::is_directory(path)) {
    throw ConfigError(str(path, ": expected a file to write, got a folder"));
  }
  return std::make_unique<OutputFile>(path);
}

void print(const std::string& text) {
  std::cout << text << std::flush;
  if (!std::cout) throw ConfigError("stdout: cannot be written (disk full or pipe closed)");
}

void print_json(const nlohmann::ordered_json& json) {
  print(json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

}  // namespace zebra
