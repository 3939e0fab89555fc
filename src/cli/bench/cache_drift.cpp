// zebra bench cache-drift: what bf16 and int8 caches change in a model's predictions
#include "eval/cache_drift.h"

#include <iomanip>
#include <sstream>

#include "base/file.h"
#include "cli/command.h"
#include "zebra/error.h"

namespace zebra {

namespace {

struct DriftFlags {
  std::string model, text;
  int64_t sequences = 8, length = 512, read = 64;
  bool json = false;
  MachineFlags machine;
};

at::Tensor sequences_of(const DriftFlags& flags, const LoadedModel& loaded) {
  const auto& options = loaded.model->options();
  if (flags.length > options.max_position_embeddings) {
    throw ConfigError(str("--length: expected at most the model's ",
                          options.max_position_embeddings, " tokens, got ", flags.length));
  }
  if (flags.length <= flags.read) {
    throw ConfigError(str("--length: expected more than the ", flags.read,
                          " tokens of --read, got ", flags.length));
  }
  const auto& tokenizer = *loaded.tokenizer;
  const auto ids = tokenizer.encode(read_file(flags.text));
  const int64_t own = flags.length + (tokenizer.adds_bos() ? 0 : 1);  // beside BOS
  const int64_t wanted = flags.sequences * own;
  if (static_cast<int64_t>(ids.size()) < wanted) {
    throw ConfigError(str(flags.text, ": expected at least ", wanted, " tokens, got ", ids.size()));
  }
  auto rows = torch::tensor(ids, torch::kLong).narrow(0, 0, wanted).view({flags.sequences, own});
  if (tokenizer.adds_bos()) rows = at::constant_pad_nd(rows, {1, 0}, tokenizer.bos_id());
  return rows;  // (sequences, length + 1)
}

std::string as_text(const nlohmann::ordered_json& rows) {
  std::ostringstream out;
  out << "tokens  states   nats/token      change          KL  same top-1\n" << std::fixed;
  for (const auto& row : rows) {
    const double nats = row.at("nats_per_token"), exact = row.at("exact_nats_per_token");
    out << std::left << std::setw(8) << row.at("tokens").get<std::string>() << std::setw(7)
        << row.at("states").get<std::string>() << std::right << std::setprecision(5)
        << std::setw(12) << nats << std::setprecision(6) << std::setw(12) << nats - exact
        << std::setprecision(7) << std::setw(12) << row.at("kl_per_token").get<double>()
        << std::setprecision(2) << std::setw(10) << 100 * row.at("top1_agreement").get<double>()
        << " %\n";
  }
  return out.str();
}

void bench_drift(const DriftFlags& flags) {
  const auto loaded = load_with_tokenizer(flags.model, flags.machine.use());
  const auto ids = sequences_of(flags, loaded);
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& [tokens, state] : {std::pair{CacheDtype::kBfloat16, CacheDtype::kFloat32},
                                      {CacheDtype::kInt8, CacheDtype::kFloat32},
                                      {CacheDtype::kModel, CacheDtype::kBfloat16},
                                      {CacheDtype::kInt8, CacheDtype::kBfloat16}}) {
    const auto drift =
        measure_cache_drift(loaded.model, ids, flags.read, {.tokens = tokens, .state = state});
    rows.push_back({{"tokens", std::string(enum_name(tokens))},
                    {"states", std::string(enum_name(state))},
                    {"nats_per_token", drift.nats_per_token},
                    {"exact_nats_per_token", drift.exact_nats_per_token},
                    {"kl_per_token", drift.kl_per_token},
                    {"top1_agreement", drift.top1_agreement}});
  }
  if (flags.json) return print_json(rows);
  print(as_text(rows));
}

}  // namespace

void add_bench_cache_drift(CLI::App& app, Action& action) {
  auto flags = std::make_shared<DriftFlags>();
  auto* verb = add_verb(app, "cache-drift", "What bf16 and int8 caches change in predictions",
                        "zebra bench cache-drift runs/quickstart/stages/dpo --text valid.txt");
  verb->add_option("model", flags->model, "Model folder")->required()->type_name("MODEL");
  verb->add_option("--text", flags->text, "Text that is read")->required()->type_name("FILE");
  const auto number = [&](const char* flag, int64_t& value, const char* meaning) {
    verb->add_option(flag, value, meaning)->check(whole_number(1))->type_name("N");
  };
  number("--sequences", flags->sequences, "Sequences of it [8]");
  number("--length", flags->length, "Tokens of each [512]");
  number("--read", flags->read, "Of these, read at once before the single steps [64]");
  verb->add_flag("--json", flags->json, "JSON instead of a table");
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { bench_drift(*flags); }; });
}

}  // namespace zebra
