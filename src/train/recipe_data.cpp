#include "train/recipe_data.h"

#include "zebra/chat_template.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

fs::path below(const fs::path& root, const std::string& path) {
  return fs::path(path).is_absolute() ? fs::path(path) : root / path;
}

// Formats that cannot do without a chat template.
bool needs_template(const std::vector<DataSource>& sources) {
  for (const auto& source : sources) {
    if (source.format == SourceFormat::kMessages || source.format == SourceFormat::kConversations) {
      return true;
    }
  }
  return false;
}

struct TemplateChoice {
  std::string name;     // empty when none is recognised and none may be needed
  std::string missing;  // why it is empty
};

TemplateChoice choose_template(const Recipe& recipe, const fs::path& root,
                               const Tokenizer& tokenizer) {
  if (recipe.data.chat_template != "auto") return {recipe.data.chat_template, ""};
  try {
    return {ChatTemplate::of_folder(tokenizer_path(recipe, root), tokenizer).name(), ""};
  } catch (const ConfigError& error) {
    if (needs_template(recipe.data.train) || needs_template(recipe.data.validation)) throw;
    return {"", error.what()};  // string prompts go without; a list of messages will be refused
  }
}

std::vector<PreparePlan> text_plans(const std::string& role, const std::vector<DataSource>& sources,
                                    const DocumentOptions& documents, const fs::path& root) {
  std::vector<PreparePlan> plans;
  for (const auto& source : sources) {
    plans.push_back({.role = role,
                     .source = {.path = below(root, source.path).string(),
                                .format = source.format,
                                .weight = source.weight,
                                .epochs = source.epochs},
                     .documents = documents});
  }
  return plans;
}

std::vector<PreparePlan> pair_plans(const std::string& role, const std::vector<std::string>& paths,
                                    const DocumentOptions& documents, const fs::path& root) {
  std::vector<PreparePlan> plans;
  for (const auto& path : paths) {
    plans.push_back({.role = role,
                     .source = {.path = below(root, path).string()},
                     .documents = documents,
                     .pairs = true});
  }
  return plans;
}

// Held out of the training text: every source counts as it is.
std::vector<DataSource> unmixed(std::vector<DataSource> sources) {
  for (auto& source : sources) {
    source.weight.reset();
    source.epochs = 1;
  }
  return sources;
}

}  // namespace

fs::path tokenizer_path(const Recipe& recipe, const fs::path& root) {
  return below(root, recipe.new_model ? recipe.new_model->tokenizer : recipe.base->model);
}

fs::path data_cache(const Recipe& recipe, const fs::path& root) {
  return recipe.data.cache.empty() ? fs::path(recipe.output) / "data"
                                   : below(root, recipe.data.cache);
}

std::vector<const PreparePlan*> DataPlans::all() const {
  std::vector<const PreparePlan*> plans;
  for (const auto* list : {&train, &validation, &pairs, &held_out_pairs}) {
    for (const auto& plan : *list) plans.push_back(&plan);
  }
  return plans;
}

DataPlans plan_data(const Recipe& recipe, const fs::path& root, const Tokenizer& tokenizer) {
  const auto& data = recipe.data;
  auto documents = document_options(train_options(data));
  const auto chosen = choose_template(recipe, root, tokenizer);
  documents.chat_template = chosen.name;
  documents.bad_lines = data.bad_lines;
  auto held_out = documents;
  DataPlans plans;
  const bool split = data.validation_split > 0;
  if (split) {
    documents.held_out = held_out.held_out = data.validation_split;
    documents.split = Split::kTrain;
    held_out.split = Split::kHeldOut;
  }
  plans.train = text_plans("train", data.train, documents, root);
  plans.validation =
      text_plans("validation", split ? unmixed(data.train) : data.validation, held_out, root);
  if (recipe.stages.dpo) {
    DocumentOptions pairs{.bos = false, .eos = false};
    pairs.chat_template = documents.chat_template;
    pairs.bad_lines = data.bad_lines;
    plans.pairs = pair_plans("pairs", recipe.stages.dpo->train, pairs, root);
    plans.held_out_pairs = pair_plans("pairs", recipe.stages.dpo->validation, pairs, root);
  }
  for (auto* list : {&plans.train, &plans.validation, &plans.pairs, &plans.held_out_pairs}) {
    for (auto& plan : *list) plan.no_template = chosen.missing;
  }
  return plans;
}

DatasetOptions train_options(const DataRecipe& data) {
  return {.sequence_length = data.sequence_length,
          .packing = data.packing,
          .bos = data.bos,
          .eos = data.eos,
          .cross_document = data.cross_document,
          .recut = data.recut,
          .long_documents = data.long_documents,
          .packing_window = data.packing_window,
          .loss_on = data.loss_on,
          .mix_by = data.mix_by,
          .count_bytes = false};
}

DatasetOptions validation_options(const DataRecipe& data) {
  auto options = train_options(data);
  options.loss_on = LossOn::kAll;
  options.recut = false;
  options.count_bytes = true;
  return options;
}

std::vector<SourceOptions> sources_of(const std::vector<PreparePlan>& plans) {
  std::vector<SourceOptions> sources;
  for (const auto& plan : plans) sources.push_back(plan.source);
  return sources;
}

}  // namespace zebra
