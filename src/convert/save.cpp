#include "convert/save.h"
#include "base/file.h"
#include "convert/model_config.h"
#include "convert/weights.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

NamedInfos stored_infos(const ModelOptions& options, at::ScalarType dtype) {
  NamedInfos infos;
  for (const auto& [name, shape] : expected_tensors(options)) {
    infos.push_back({name, {.dtype = weight_dtype(name, dtype), .shape = shape}});
  }
  return infos;
}

void check_replaceable(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) return;
  if (!fs::is_directory(folder, error)) {
    throw ConfigError(str(folder.string(), ": expected a folder to write a model to, got a file"));
  }
  if (fs::is_empty(folder, error) || fs::exists(folder / kLlamaConfig)) return;
  throw ConfigError(str(folder.string(), ": expected a model folder to replace, got other files"));
}

void copy_tokenizer(const fs::path& from, const fs::path& to) {
  if (fs::is_regular_file(from)) {
    const bool json = from.extension() == ".json";
    return copy_file_atomic(from, to / (json ? "tokenizer.json" : "tokenizer.model"));
  }
  for (const char* name :
       {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "generation_config.json", "chat_template.jinja"}) {
    if (fs::exists(from / name)) copy_file_atomic(from / name, to / name);
  }
}

namespace {

class ModelSource : public WeightSource {
 public:
  ModelSource(const CausalLm& model, at::ScalarType dtype)
      : dtype_(dtype), options_(model->options()), head_(model->head_weight()) {
    for (const auto& item : model->named_parameters()) weights_[item.key()] = item.value();
  }

  NamedInfos infos() const override { return stored_infos(options_, dtype_); }

  at::Tensor tensor(const std::string& name) override {
    const at::Tensor weight = (name == kHead ? head_ : weights_.at(name)).detach();
    return cast_weight(weight, weight_dtype(name, dtype_), name);
  }

 private:
  at::ScalarType dtype_;
  ModelOptions options_;
  at::Tensor head_;  // (V, D)
  std::map<std::string, at::Tensor> weights_;
};

}  // namespace

void save_model(const fs::path& folder, const CausalLm& model, const SaveOptions& options) {
  check_replaceable(folder);
  StagedFolder staged(folder);
  write_model_options(staged.path(), model->options(), options.dtype);
  ModelSource source(model, options.dtype);
  write_weight_folder(staged.path(), source, {.shard_bytes = options.shard_bytes});
  if (!options.tokenizer_from.empty()) copy_tokenizer(options.tokenizer_from, staged.path());
  staged.commit();
}

}  // namespace zebra
