// The weights of a training checkpoint as a model folder.
#include "base/file.h"
#include "base/signals.h"
#include "convert/model_config.h"
#include "convert/save.h"
#include "convert/weights.h"
#include "zebra/checkpoint.h"
#include "zebra/convert.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

// Models that a checkpoint holds, by the configurations that lie in its state.
std::vector<std::string> models_of(const SavedCheckpoint& checkpoint) {
  std::vector<std::string> models;
  const std::string end = str("/", kLlamaConfig);
  for (const auto& [key, text] : checkpoint.state()) {
    if (key.ends_with(end)) models.push_back(key.substr(0, key.size() - end.size()));
  }
  return models;
}

std::string pick_model(const SavedCheckpoint& checkpoint, const std::string& wanted) {
  const auto models = models_of(checkpoint);
  const bool only = models.size() == 1 && wanted.empty();
  if (only) return models[0];
  std::string names;
  for (const auto& name : models) {
    if (name == wanted) return name;
    names += (names.empty() ? "" : " or ") + (name.empty() ? "none" : name);
  }
  throw ConfigError(str(checkpoint.folder().string(), ": --model: expected ", names, ", got ",
                        wanted.empty() ? "none" : wanted));
}

// The masters, cast on the way.
class CheckpointSource : public WeightSource {
 public:
  CheckpointSource(const SavedCheckpoint& checkpoint, std::string model, ModelOptions options,
                   at::ScalarType dtype)
      : checkpoint_(checkpoint),
        model_(std::move(model)),
        options_(std::move(options)),
        dtype_(dtype) {}

  NamedInfos infos() const override { return stored_infos(options_, dtype_); }

  at::Tensor tensor(const std::string& name) override {
    const bool tied = name == kHead && options_.tie_word_embeddings;
    const auto weight = checkpoint_.read(weight_key(model_, tied ? kEmbedding : name));
    return cast_weight(weight, weight_dtype(name, dtype_), name);
  }

 private:
  const SavedCheckpoint& checkpoint_;
  std::string model_;
  ModelOptions options_;
  at::ScalarType dtype_;
};

fs::path tokenizer_of(const CheckpointModel& source, const SavedCheckpoint& checkpoint) {
  const fs::path path =
      source.tokenizer.empty() ? fs::path(checkpoint.state("tokenizer")) : source.tokenizer;
  if (fs::exists(path)) return path;
  throw ConfigError(str(path.string(),
                        ": missing; the model's tokenizer lay there when the "
                        "checkpoint was made: give its place with --tokenizer"));
}

// What was written has the very values of the checkpoint.
void compare_weights(const fs::path& written, CheckpointSource& source) {
  const WeightFolder folder(written);
  for (const auto& [name, info] : source.infos()) {
    throw_if_stopped(written.string());
    const at::Tensor expected = source.tensor(name), got = folder.read(name);
    const bool equal = got.dtype() == expected.dtype() && got.sizes() == expected.sizes() &&
                       at::equal(got.view(-1).view(at::kByte), expected.view(-1).view(at::kByte));
    if (!equal) {
      throw ConfigError(str(folder.file_of(name).string(), ": tensor '", name,
                            "': expected the checkpoint's values, got others"));
    }
  }
}

}  // namespace

void convert_checkpoint(const CheckpointModel& source, const fs::path& dst,
                        const ConvertOptions& options) {
  if (!options.overwrite && fs::exists(dst)) {
    throw ConfigError(str(dst.string(), ": expected no such folder, for it would be overwritten"));
  }
  check_replaceable(dst);
  const auto checkpoint = open_checkpoint(source.checkpoint);
  const auto model = pick_model(checkpoint, source.model);
  const auto tokenizer = tokenizer_of(source, checkpoint);
  StagedFolder staged(dst);
  for (const char* file : {kLlamaConfig, kHybridConfig}) {
    const auto found = checkpoint.state().find(str(model, "/", file));
    if (found != checkpoint.state().end()) {
      write_file_atomic(staged.path() / file, found->second);
    }
  }
  const auto model_options = read_model_options(staged.path());
  write_model_options(staged.path(), model_options, options.dtype);  // with this dtype
  CheckpointSource weights(checkpoint, model, model_options, options.dtype);
  write_weight_folder(staged.path(), weights, {.shard_bytes = options.shard_bytes});
  copy_tokenizer(tokenizer, staged.path());
  compare_weights(staged.path(), weights);
  staged.commit();
}

}  // namespace zebra
