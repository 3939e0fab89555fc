// zebra bench packing: how fast text becomes tokens, how full the sequences are, how fast batches
// are put together.
#include <chrono>
#include <fstream>
#include <iomanip>
#include <sstream>

#include "base/file.h"
#include "cli/command.h"
#include "data/random.h"
#include "data/records.h"
#include "zebra/dataset.h"
#include "zebra/error.h"
#include "zebra/prepare.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct PackingBenchFlags {
  std::string tokenizer = "data/tiny/tokenizer.model", text, folder = "bench-packing";
  int64_t megabytes = 100, sequence_length = 2048, batch_size = 16, threads = 0;
  bool json = false;
};

double seconds_of(const std::function<void()>& work) {
  const auto began = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// A line of /proc/self/status in megabytes, or -1: this process's memory.
double memory(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stod(line.substr(name.size() + 1)) / 1e3;
  }
  return -1;
}

// JSON lines of one to forty generated stories each, short ones more often: lengths as spread as
// those of chats.
void write_lines(const fs::path& folder, const fs::path& file, int64_t megabytes) {
  write_stories(
      folder / "stories",
      {.seed = 1, .stories = 3000, .held_out = 1, .questions = 1, .pairs = 1, .held_out_pairs = 1});
  RecordReader reader({folder / "stories/train.txt"}, RecordKind::kStories);
  std::vector<std::string> stories;
  while (auto story = reader.next()) stories.push_back(std::move(story->text));
  OutputFile out(file);
  Random random(1);
  for (double written = 0; written < static_cast<double>(megabytes) * 1e6;) {
    const double share = static_cast<double>(random.below(1000) + 1) / 1000;
    const auto count = std::min<int64_t>(40, static_cast<int64_t>(1 / share));
    std::string text;
    for (int64_t i = 0; i < count; ++i) {
      text += (i > 0 ? "\n\n" : "") + stories[random.below(stories.size())];
    }
    const auto line = nlohmann::json{{"text", text}}.dump() + "\n";
    out.write(line);
    written += static_cast<double>(line.size());
  }
  out.commit();
}

ordered_json measure_prepare(const PreparePlan& plan, const Tokenizer& tokenizer,
                             const fs::path& cache, PreparedSource& prepared) {
  const double before = memory("VmHWM");
  const double first = seconds_of([&] { prepared = prepare(plan, tokenizer, {.cache = cache}); });
  const double peak = memory("VmHWM");
  const double second = seconds_of([&] { prepare(plan, tokenizer, {.cache = cache}); });
  const auto bytes = static_cast<double>(fs::file_size(plan.source.path));
  return {{"megabytes", bytes / 1e6},
          {"documents", prepared.documents},
          {"tokens", prepared.tokens},
          {"seconds", first},
          {"megabytes_per_second", bytes / 1e6 / first},
          {"second_time_seconds", second},
          {"peak_megabytes_before", before},
          {"peak_megabytes", peak}};
}

ordered_json measure_packing(const PackingBenchFlags& flags, const PreparePlan& plan,
                             const PreparedSource& prepared, const Tokenizer& tokenizer,
                             DatasetOptions options) {
  options.sequence_length = flags.sequence_length;
  options.count_bytes = false;  // as in training
  std::unique_ptr<TokenDataset> data;
  const double packing = seconds_of([&] {
    data = std::make_unique<TokenDataset>(
        std::vector<SourceOptions>{plan.source},
        std::vector<std::shared_ptr<const TokenStore>>{prepared.store}, tokenizer, options);
  });
  const int64_t batches =
      std::max<int64_t>(1, std::min<int64_t>(data->size() / flags.batch_size, 200));
  const double gathering = seconds_of([&] {
    for (int64_t i = 0; i < batches; ++i) data->batch(1, i * flags.batch_size, flags.batch_size);
  });
  const auto report = data->packing();
  std::string name(enum_name(options.packing));
  if (options.packing == Packing::kBestFit) name += str(" ", options.packing_window);
  if (options.long_documents == LongDocuments::kSplit) name += " split";
  const auto positions = static_cast<double>(batches * flags.batch_size * flags.sequence_length);
  return {{"packing", name},
          {"sequences", report.sequences},
          {"efficiency", report.efficiency()},
          {"truncated", report.truncated},
          {"truncated_tokens", report.truncated_tokens},
          {"split", report.split},
          {"dropped_tokens", report.dropped_tokens},
          {"seconds", packing},
          {"batch_tokens_per_second", positions / gathering}};
}

std::vector<DatasetOptions> ways() {
  std::vector<DatasetOptions> all{{.packing = Packing::kConcat}, {.packing = Packing::kNone}};
  for (const int64_t window : {64, 1024, 8192, 65536}) {
    all.push_back({.packing = Packing::kBestFit, .packing_window = window});
  }
  all.push_back({.packing = Packing::kBestFit, .long_documents = LongDocuments::kSplit});
  return all;
}

std::string packing_text(const ordered_json& result) {
  std::ostringstream out;
  out << std::fixed;
  const auto& made = result["prepare"];
  const auto number = [&](const char* key) { return made[key].get<double>(); };
  out << std::setprecision(1) << "prepare    " << number("megabytes") << " MB of JSON lines in "
      << number("seconds") << " s, " << number("megabytes_per_second") << " MB/s; again in "
      << std::setprecision(4) << number("second_time_seconds") << " s\n"
      << std::setprecision(0) << "memory     " << number("peak_megabytes") << " MB at most, "
      << number("peak_megabytes_before") << " MB before\n\n"
      << "packing            sequences   full %  truncated     split    dropped  seconds  "
         "Mtoken/s\n";
  for (const auto& way : result["packing"]) {
    out << std::left << std::setw(18) << way["packing"].get<std::string>() << std::right
        << std::setw(10) << way["sequences"].get<int64_t>() << std::setprecision(2) << std::setw(9)
        << 100 * way["efficiency"].get<double>() << std::setw(11) << way["truncated"].get<int64_t>()
        << std::setw(10) << way["split"].get<int64_t>() << std::setw(11)
        << way["dropped_tokens"].get<int64_t>() << std::setw(9) << way["seconds"].get<double>()
        << std::setw(10) << way["batch_tokens_per_second"].get<double>() / 1e6 << "\n";
  }
  return out.str();
}

// Made now, gone at the end, also at an error's.
class WorkFolder {
 public:
  explicit WorkFolder(fs::path path) : path_(std::move(path)) { make_folders(path_); }
  ~WorkFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

 private:
  fs::path path_;
};

void bench_packing(const PackingBenchFlags& flags) {
  MachineFlags machine;
  machine.threads = flags.threads;
  machine.use();
  const auto tokenizer = load_tokenizer(flags.tokenizer);
  if (fs::exists(flags.folder)) {
    throw ConfigError(str("--folder: expected a name that is free, got ", flags.folder));
  }
  if (!flags.text.empty() && !fs::is_regular_file(flags.text)) {
    throw ConfigError(str("--text: expected a file, got ", flags.text));
  }
  const WorkFolder folder(flags.folder);
  auto text = fs::path(flags.text);
  if (flags.text.empty()) {
    text = fs::path(flags.folder) / "text.jsonl";
    write_lines(flags.folder, text, flags.megabytes);
  }
  const PreparePlan plan{.role = "bench",
                         .source = {.path = text.string(), .format = SourceFormat::kJsonl},
                         .documents = document_options({})};
  PreparedSource prepared;
  ordered_json result;
  result["prepare"] = measure_prepare(plan, *tokenizer, fs::path(flags.folder) / "cache", prepared);
  result["sequence_length"] = flags.sequence_length;
  result["packing"] = ordered_json::array();
  for (const auto& options : ways()) {
    result["packing"].push_back(measure_packing(flags, plan, prepared, *tokenizer, options));
  }
  if (flags.json) return print_json(result);
  print(packing_text(result));
}

}  // namespace

void add_bench_packing(CLI::App& app, Action& action) {
  auto flags = std::make_shared<PackingBenchFlags>();
  auto* verb = add_verb(
      app, "packing", "How fast text becomes tokens, and how full each packing's sequences are",
      "zebra bench packing --megabytes 100 --tokenizer data/tiny/tokenizer.model");
  verb->add_option("--tokenizer", flags->tokenizer,
                   "Model folder or tokenizer file [data/tiny/tokenizer.model]")
      ->type_name("PATH");
  verb->add_option("--text", flags->text, "JSON lines of text [generated stories]")
      ->type_name("FILE");
  verb->add_option("--folder", flags->folder, "Where to write, removed afterwards [bench-packing]")
      ->type_name("DIR");
  const auto count = [&](const char* flag, int64_t& value, const char* meaning) {
    verb->add_option(flag, value, meaning)->check(whole_number(1))->type_name("N");
  };
  count("--megabytes", flags->megabytes, "Of generated text [100]");
  count("--sequence-length", flags->sequence_length, "Tokens of a sequence [2048]");
  count("--batch-size", flags->batch_size, "Sequences of a batch [16]");
  verb->add_option("--threads", flags->threads, "CPU threads; 0: the machine's cores")
      ->check(whole_number(0))
      ->type_name("N");
  verb->add_flag("--json", flags->json, "JSON on stdout");
  verb->callback([flags, &action] { action = [flags] { bench_packing(*flags); }; });
}

}  // namespace zebra
