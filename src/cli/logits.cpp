// zebra logits
#include "cli/command.h"
#include "zebra/error.h"
#include "zebra/safetensors.h"

namespace zebra {

namespace {

struct LogitsFlags {
  std::string model, input, output;
  int64_t rows = 8;
  MachineFlags machine;
};

at::Tensor read_ids(const std::string& path) {
  const SafetensorsFile file(path);
  const auto found = file.tensors().find("input_ids");
  if (found == file.tensors().end()) {
    throw ConfigError(path + ": expected a tensor input_ids, got none of this name");
  }
  const auto& info = found->second;
  if (info.dtype != at::kLong || info.shape.size() != 2 || info.shape[0] < 1 || info.shape[1] < 1) {
    throw ConfigError(zebra::str(path, ": input_ids: expected int64 of shape (B, T), got ",
                                 c10::toString(info.dtype), " of shape ",
                                 at::IntArrayRef(info.shape)));
  }
  return file.read("input_ids");
}

// Rows at a time, so that only the result holds all logits.
void logits(const LogitsFlags& flags) {
  const auto options = flags.machine.use();
  const auto ids = read_ids(flags.input);  // (B, T)
  auto model = load_model(flags.model, options);
  model->eval();
  const int64_t B = ids.size(0), T = ids.size(1), V = model->options().vocab_size;
  const int64_t least = ids.min().item<int64_t>(), most = ids.max().item<int64_t>();
  if (least < 0 || most >= V) {
    throw ConfigError(str(flags.input, ": input_ids: expected ids 0 to ", V - 1, ", got ",
                          least < 0 ? least : most));
  }
  const torch::NoGradGuard no_grad;
  const auto all = torch::empty({B, T, V}, at::kFloat);
  for (int64_t first = 0; first < B; first += flags.rows) {
    const int64_t count = std::min(flags.rows, B - first);
    const auto part = ids.narrow(0, first, count).to(options.device);  // (count, T)
    all.narrow(0, first, count).copy_(model->logits(model->forward(part, {})));
  }
  write_safetensors(flags.output, {{"logits", all}});
  print(flags.output + "\n");
}

}  // namespace

void add_logits(CLI::App& app, Action& action) {
  auto flags = std::make_shared<LogitsFlags>();
  auto* verb =
      add_verb(app, "logits", "input_ids (B, T) int64 -> logits (B, T, V) float32",
               "zebra logits models/llama --input ids.safetensors --output out.safetensors");
  verb->add_option("model", flags->model, "Model folder")->required()->type_name("MODEL");
  verb->add_option("--input", flags->input, "File with input_ids")->required()->type_name("FILE");
  verb->add_option("--output", flags->output, "File for logits")->required()->type_name("FILE");
  verb->add_option("--rows", flags->rows, "Sequences in one forward [8]")
      ->check(whole_number(1))
      ->type_name("N");
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { logits(*flags); }; });
}

}  // namespace zebra
