// A recipe's text and pairs: what they are prepared as, and where.
#pragma once

#include <filesystem>
#include <vector>

#include "zebra/prepare.h"
#include "zebra/recipe.h"
#include "zebra/tokenizer.h"

namespace zebra {

// A folder or file.
std::filesystem::path tokenizer_path(const Recipe& recipe, const std::filesystem::path& root);

// Folder of the prepared tokens.
std::filesystem::path data_cache(const Recipe& recipe, const std::filesystem::path& root);

struct DataPlans {
  std::vector<PreparePlan> train, validation, pairs, held_out_pairs;

  // Every plan, in this order.
  std::vector<const PreparePlan*> all() const;
};

// ConfigError when messages need a template that is neither named nor recognised.
DataPlans plan_data(const Recipe& recipe, const std::filesystem::path& root,
                    const Tokenizer& tokenizer);

// How training text is packed, and held-out text: always with a loss on all tokens, in file order.
DatasetOptions train_options(const DataRecipe& data);
DatasetOptions validation_options(const DataRecipe& data);

std::vector<SourceOptions> sources_of(const std::vector<PreparePlan>& plans);

}  // namespace zebra
