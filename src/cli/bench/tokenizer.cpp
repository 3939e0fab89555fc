// zebra bench tokenizer: megabytes of text a second, in one thread, beside Hugging Face's.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <iomanip>

#include "base/file.h"
#include "base/json.h"
#include "cli/bench/peer.h"
#include "cli/command.h"
#include "data/records.h"
#include "data/sources.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr size_t kDocument = 4096;  // bytes after which a text is cut, at the end of a line

struct TokenizerBenchFlags {
  std::string tokenizer, python = "python3";
  std::vector<std::string> texts;
  double seconds = 3;
  bool peer = false, json = false;
};

// What one side did with all documents.
struct Speed {
  int64_t tokens = 0, sum = 0;  // of the ids: equal for equal ids
  double seconds = 0;           // of the fastest pass
};

// The peer's side; it reads {"tokenizer", "seconds", "documents"} and writes one line of JSON. Its
// batch call is faster than one call a document; one thread is asked for in its environment.
constexpr const char* kPeer = R"(
import json, sys, time
try:
    import tokenizers
except ImportError:
    sys.exit(3)
job = json.load(open(sys.argv[1], encoding="utf-8"))
tokenizer = tokenizers.Tokenizer.from_file(job["tokenizer"])
encode = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
best, begin = float("inf"), time.perf_counter()
while best == float("inf") or time.perf_counter() - begin < job["seconds"]:
    start = time.perf_counter()
    encodings = encode(job["documents"], add_special_tokens=False)
    best = min(best, time.perf_counter() - start)
ids = [encoding.ids for encoding in encodings]
print(json.dumps({"version": tokenizers.__version__, "seconds": best,
                  "tokens": sum(map(len, ids)), "sum": sum(map(sum, ids))}))
)";

std::vector<std::string> read_cut(const std::vector<std::string>& files) {
  std::vector<std::string> documents;
  for (const auto& file : files) {
    std::string text = read_text(file);
    for (size_t begin = 0; begin < text.size();) {
      const size_t line = text.find('\n', std::min(begin + kDocument, text.size()));
      const size_t end = line == std::string::npos ? text.size() : line + 1;
      documents.push_back(text.substr(begin, end - begin));
      begin = end;
    }
  }
  if (documents.empty()) throw ConfigError("--text: expected text, got empty files");
  return documents;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Speed measure(const Tokenizer& tokenizer, const std::vector<std::string>& documents,
              double seconds) {
  Speed speed;
  const auto begin = std::chrono::steady_clock::now();
  do {
    Speed pass;
    const auto start = std::chrono::steady_clock::now();
    for (const auto& document : documents) {
      const auto ids = tokenizer.encode(document);
      pass.tokens += static_cast<int64_t>(ids.size());
      for (const auto id : ids) pass.sum += id;
    }
    pass.seconds = seconds_since(start);
    const bool faster = speed.seconds == 0 || pass.seconds < speed.seconds;
    if (faster) speed = pass;
  } while (seconds_since(begin) < seconds);
  return speed;
}

// A file that goes away with its object.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& content) {
    std::string name = (std::filesystem::temp_directory_path() / "zebra-bench-XXXXXX").string();
    const int file = mkstemp(name.data());
    if (file < 0) throw ConfigError(name + ": cannot be made");
    close(file);
    path_ = name;
    write_file_atomic(path_, content);
  }
  ~ScratchFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

json run_peer(const TokenizerBenchFlags& flags, const std::filesystem::path& file,
              const std::vector<std::string>& documents) {
  const ScratchFile job(json{
      {"tokenizer", std::filesystem::absolute(file).string()},
      {"seconds", flags.seconds},
      {"documents",
       documents}}.dump());
  const std::string command = "TOKENIZERS_PARALLELISM=false RAYON_NUM_THREADS=1 " +
                              shell_quoted(flags.python) + " -c " + shell_quoted(kPeer) + " " +
                              shell_quoted(job.path());
  const auto [status, output] = run_command(command);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 3) {
    throw ConfigError(str("--peer: Hugging Face tokenizers is not installed for ", flags.python,
                          ": pip install tokenizers, or name another interpreter with --python"));
  }
  if (status != 0) throw ConfigError(str("--peer: ", flags.python, " failed; see above"));
  return parse_json(output, "--peer");
}

std::filesystem::path json_file(const std::filesystem::path& given) {
  const auto file = std::filesystem::is_directory(given) ? given / "tokenizer.json" : given;
  if (file.extension() == ".json" && std::filesystem::exists(file)) return file;
  throw ConfigError(
      str("--peer: expected a tokenizer.json, which the peer reads, got ", given.string()));
}

double megabytes_a_second(size_t bytes, double seconds) {
  return static_cast<double>(bytes) / 1e6 / seconds;
}

std::string as_text(const nlohmann::ordered_json& result) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(2) << result["bytes"].get<double>() / 1e6 << " MB, "
       << result["tokens"] << " tokens of a vocabulary of " << result["vocab_size"]
       << ", one thread\n  zebra " << result["megabytes_per_second"].get<double>()
       << " MB/s (loaded in " << result["load_seconds"].get<double>() << " s)\n";
  if (!result.contains("peer")) return text.str();
  const auto& peer = result["peer"];
  text << "  " << peer["name"].get<std::string>() << " "
       << peer["megabytes_per_second"].get<double>() << " MB/s\n  ratio "
       << result["ratio"].get<double>()
       << (peer["same_ids"] == true ? ", the same ids\n" : ", OTHER IDS\n");
  return text.str();
}

void bench_tokenizer(const TokenizerBenchFlags& flags) {
  const auto documents = read_cut(flags.texts);
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = load_tokenizer(flags.tokenizer);
  const double load = seconds_since(start);
  size_t bytes = 0;
  for (const auto& document : documents) bytes += document.size();
  const Speed ours = measure(*tokenizer, documents, flags.seconds);
  const double speed = megabytes_a_second(bytes, ours.seconds);
  nlohmann::ordered_json result = {{"tokenizer", flags.tokenizer},
                                   {"vocab_size", tokenizer->vocab_size()},
                                   {"bytes", bytes},
                                   {"documents", documents.size()},
                                   {"tokens", ours.tokens},
                                   {"load_seconds", load},
                                   {"megabytes_per_second", speed}};
  if (flags.peer) {
    const auto peer = run_peer(flags, json_file(flags.tokenizer), documents);
    const double theirs = megabytes_a_second(bytes, peer.at("seconds").get<double>());
    const bool same = peer.at("tokens") == ours.tokens && peer.at("sum") == ours.sum;
    result["peer"] = {{"name", "tokenizers " + peer.at("version").get<std::string>()},
                      {"megabytes_per_second", theirs},
                      {"same_ids", same}};
    result["ratio"] = speed / theirs;
  }
  if (flags.json) return print_json(result);
  print(as_text(result));
}

}  // namespace

void add_bench_tokenizer(CLI::App& bench, Action& action) {
  auto flags = std::make_shared<TokenizerBenchFlags>();
  auto* verb = add_verb(bench, "tokenizer", "Megabytes of text a second, in one thread",
                        "zebra bench tokenizer models/llama --text book.txt --peer");
  verb->add_option("tokenizer", flags->tokenizer, "Model folder or tokenizer file")
      ->required()
      ->type_name("MODEL");
  verb->add_option("--text", flags->texts, "Text file; may be repeated")
      ->required()
      ->allow_extra_args(false)
      ->type_name("FILE");
  verb->add_option("--seconds", flags->seconds,
                   "Passes are made for so long; the fastest counts [3]")
      ->check(number("a number of at least 0", [](double x) { return x >= 0; }))
      ->type_name("S");
  verb->add_flag("--peer", flags->peer, "Also run Hugging Face tokenizers on the same documents");
  verb->add_option("--python", flags->python, "Interpreter that has it [python3]")
      ->type_name("FILE");
  verb->add_flag("--json", flags->json, "Print JSON");
  verb->callback([flags, &action] { action = [flags] { bench_tokenizer(*flags); }; });
}

}  // namespace zebra
