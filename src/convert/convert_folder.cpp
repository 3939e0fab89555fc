#include "base/file.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/signals.h"
#include "convert/save.h"
#include "convert/weights.h"
#include "zebra/convert.h"
#include "zebra/error.h"
#include "zebra/ops.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kTokens = 16;    // of the input whose logits are compared
constexpr int64_t kStride = 7919;  // a prime: spreads them over the vocabulary

// The weights of one folder in the order of its files, cast on the way.
class FolderSource : public WeightSource {
 public:
  FolderSource(const ModelFolder& folder, at::ScalarType dtype) : folder_(folder) {
    std::map<std::string, TensorInfo> by_name;
    std::vector<std::string> names;
    for (auto& [name, info] : stored_infos(folder.options(), dtype)) {
      names.push_back(name);
      by_name[name] = info;
    }
    for (const auto& name : folder.by_file(names)) infos_.push_back({name, by_name.at(name)});
    for (const auto& [name, info] : infos_) dtypes_[name] = info.dtype;
  }

  NamedInfos infos() const override { return infos_; }

  at::Tensor tensor(const std::string& name) override {
    return cast_weight(folder_.read(name), dtypes_.at(name), name);
  }

 private:
  const ModelFolder& folder_;
  NamedInfos infos_;
  std::map<std::string, at::ScalarType> dtypes_;
};

// Logits in float32 with one block in memory at a time. input_ids: (1, T) -> (1, T, V)
at::Tensor streamed_logits(const ModelFolder& folder, const at::Tensor& input_ids) {
  const torch::NoGradGuard no_grad;
  const ModelOptions& options = folder.options();
  at::Tensor hidden =
      torch::embedding(folder.read(kEmbedding), input_ids).to(at::kFloat);  // (1, T, D)
  Progress progress("logits to compare: layers", options.num_layers(), /*tokens_per_step=*/0);
  for (int64_t layer = 0; layer < options.num_layers(); ++layer) {
    throw_if_stopped(folder.path().string());
    progress.update(layer, "");
    CausalLm one(one_layer(options, layer, /*vocab_size=*/1));
    fill(*one->block(0), layer_prefix(layer), folder, {.dtype = at::kFloat});
    const auto context = one->context(input_ids, /*segments=*/{}, /*offset=*/0);
    hidden = one->block(0)->forward(hidden, context, /*cache=*/nullptr).hidden;
  }
  hidden = rms_norm(hidden, folder.read(kFinalNorm).to(at::kFloat), options.rms_norm_eps);
  return at::linear(hidden, folder.read(kHead).to(at::kFloat));  // (1, T, V)
}

// What rounding the weights may change in the logits, relative to the largest.
double allowed_difference(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return 6e-2;
    case at::kHalf:
      return 8e-3;
    default:
      return 1e-5;
  }
}

void compare_logits(const ModelFolder& source, const fs::path& written, at::ScalarType dtype) {
  const KeepDefaultGenerator keep;
  const int64_t V = source.options().vocab_size;
  const at::Tensor input_ids = torch::arange(kTokens).mul(kStride).remainder(V).unsqueeze(0);
  const at::Tensor expected = streamed_logits(source, input_ids);
  const at::Tensor got = streamed_logits(ModelFolder(written), input_ids);
  const double difference =
      ((got - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item<double>();
  const double allowed = allowed_difference(dtype);
  if (difference <= allowed) return;  // false for NaN
  throw ConfigError(str(source.path().string(),
                        ": logits of the converted model: expected those of", " the source within ",
                        allowed, " of the largest, got ", difference));
}

}  // namespace

void convert_folder(const fs::path& src, const fs::path& dst, const ConvertOptions& options) {
  if (!options.overwrite && fs::exists(dst)) {
    throw ConfigError(str(dst.string(), ": expected no such folder, for it would be overwritten"));
  }
  check_replaceable(dst);
  const ModelFolder source(src);
  StagedFolder staged(dst);
  write_model_options(staged.path(), source.options(), options.dtype);
  FolderSource weights(source, options.dtype);
  write_weight_folder(staged.path(), weights, {.shard_bytes = options.shard_bytes});
  copy_tokenizer(src, staged.path());
  compare_logits(source, staged.path(), options.dtype);
  staged.commit();
}

}  // namespace zebra
