#include "cli/bench/transformers_peer.h"

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "cli/bench/peer.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr const char* kScript = R"py(
import copy, json, sys, time
task = json.load(open(sys.argv[1]))
import torch, transformers
from transformers import AutoModelForCausalLM, DynamicCache
torch.set_num_threads(task["threads"])
torch.set_grad_enabled(False)
dtype = {"fp64": torch.float64, "fp32": torch.float32,
         "bf16": torch.bfloat16, "fp16": torch.float16}[task["dtype"]]
device = torch.device(task["device"])
model = AutoModelForCausalLM.from_pretrained(task["folder"], dtype=dtype).eval().to(device)
vocabulary = model.config.vocab_size

def now():
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

def copied(cache, batch):
    cache.batch_repeat_interleave(batch)
    return cache

def tensors(cache):
    if hasattr(cache, "layers"):
        return [t for layer in cache.layers for t in (layer.keys, layer.values)]
    return list(cache.key_cache) + list(cache.value_cache)

def decode(cache, token, steps):
    for _ in range(steps):
        out = model(input_ids=token, past_key_values=cache, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
    return cache

def prefilled(tokens):
    ids = (torch.arange(tokens, device=device) * 7 % vocabulary).unsqueeze(0)
    cache, chunk = DynamicCache(), 512
    for piece in ids.split(chunk, 1):
        out = model(input_ids=piece, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, out.logits[:, -1:].argmax(-1)

cache, token = prefilled(min(64, task["prompt_tokens"]))
decode(cache, token, 2)
began = now()
cache, token = prefilled(task["prompt_tokens"])
prefill = now() - began
speeds = []
for batch in task["batches"]:
    rows, tokens = copied(copy.deepcopy(cache), batch), token.expand(batch, 1)
    began = now()
    rows = decode(rows, tokens, task["new_tokens"])
    seconds = now() - began
    bytes_held = sum(t.numel() * t.element_size() for t in tensors(rows))
    speeds.append({"prefill": prefill, "decode": seconds, "bytes": bytes_held})
print("RESULT " + json.dumps({
    "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
    "speeds": speeds}))
)py";

std::string last_line(const std::string& text) {
  const auto last = text.find_last_not_of('\n');
  if (last == std::string::npos) return "";
  const auto begin = text.rfind('\n', last) + 1;
  return text.substr(begin, last + 1 - begin);
}

GenerationSpeed speed_of(const GenerationLoad& load, int64_t batch, const json& measured) {
  GenerationSpeed speed{.batch = batch};
  speed.prefill_seconds = measured.at("prefill").get<double>();
  speed.decode_seconds = measured.at("decode").get<double>();
  speed.prefill_tokens_per_second = static_cast<double>(load.prompt_tokens) / speed.prefill_seconds;
  speed.decode_tokens_per_second =
      static_cast<double>(batch * load.new_tokens) / speed.decode_seconds;
  speed.cache_bytes = speed.reserved_bytes = measured.at("bytes").get<int64_t>();
  return speed;
}

}  // namespace

PeerResult run_transformers(const PeerMachine& machine, const std::string& folder,
                            const GenerationLoad& load, const std::vector<int64_t>& batches) {
  namespace fs = std::filesystem;
  const auto place = fs::path(folder);
  const json task = {{"folder", fs::absolute(folder).string()},
                     {"device", machine.device},
                     {"dtype", machine.dtype},
                     {"threads", machine.threads},
                     {"prompt_tokens", load.prompt_tokens},
                     {"new_tokens", load.new_tokens},
                     {"batches", batches}};
  write_file_atomic(place / "bench.json", task.dump());
  write_file_atomic(place / "bench.py", kScript);
  const auto errors = place / "bench.err";
  const auto result = run_command(
      shell_quoted(machine.python) + " " + shell_quoted((place / "bench.py").string()) + " " +
      shell_quoted((place / "bench.json").string()) + " 2> " + shell_quoted(errors.string()));
  const auto found = result.out.find("RESULT ");
  if (result.status != 0 || found == std::string::npos) {
    const auto line = last_line(fs::exists(errors) ? read_file(errors) : std::string());
    throw ConfigError(str("--peer: expected ", machine.python,
                          " with torch and transformers (pip install "
                          "torch transformers), got ",
                          line.empty() ? "no result" : line));
  }
  const auto parsed = parse_json(result.out.substr(found + 7), "--peer");
  PeerResult peer{.version = parsed.at("version").get<std::string>(), .speeds = {}};
  for (size_t i = 0; i < batches.size(); ++i) {
    peer.speeds.push_back(speed_of(load, batches[i], parsed.at("speeds").at(i)));
  }
  return peer;
}

}  // namespace zebra
