// zebra data show
#include <unistd.h>

#include <cstdlib>
#include <iomanip>
#include <sstream>

#include "cli/command.h"
#include "data/shard_maker.h"
#include "data/token_store.h"
#include "train/loop.h"
#include "train/recipe_data.h"
#include "zebra/error.h"
#include "zebra/ops.h"
#include "zebra/prepare.h"
#include "zebra/recipe.h"

namespace zebra {

namespace {

struct ShowFlags {
  std::string recipe, root, color = "auto";
  std::vector<std::string> overrides;
  int64_t documents = 3, packed = 0, sample = 10000;
  bool json = false;
};

constexpr size_t kMostShared = 3;  // tokens of a character before its last one

// Marks of a run of tokens with and without a loss.
struct Style {
  const char* loss = "";
  const char* no_loss = "\u27e8";  // mathematical angle brackets
  const char* end = "";
  const char* no_loss_end = "\u27e9";
};

Style style_of(const std::string& color) {
  const char* no_color = std::getenv("NO_COLOR");
  const bool wanted = color == "always" || (color == "auto" && ::isatty(STDOUT_FILENO) == 1 &&
                                            (no_color == nullptr || *no_color == '\0'));
  if (!wanted) return {};
  return {.loss = "\x1b[32m", .no_loss = "\x1b[2m", .end = "\x1b[0m", .no_loss_end = "\x1b[0m"};
}

// Control characters as C writes them.
std::string visible(const std::string& piece) {
  std::string text;
  for (const char c : piece) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      text += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
      text += escaped;
    } else {
      text += c;
    }
  }
  return text;
}

// What each token adds to the text before it. A character that several tokens share stands at the
// last of them.
std::vector<std::string> texts_of(const std::vector<int64_t>& ids, const Tokenizer& tokenizer) {
  std::vector<std::string> texts(ids.size());
  const auto text_of = [&](size_t begin, size_t end) {
    const auto first = ids.begin();
    return tokenizer.decode_with_special(
        {first + static_cast<int64_t>(begin), first + static_cast<int64_t>(end)});
  };
  size_t before = 0, done = 0;  // decoded are the tokens shown last, and those since
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto head = text_of(before, done), whole = text_of(before, i + 1);
    const bool cut = whole.ends_with("\uFFFD") && i - done < kMostShared && i + 1 < ids.size();
    if (cut) continue;
    texts[i] = whole.starts_with(head) ? whole.substr(head.size()) : tokenizer.piece(ids[i]);
    before = done;
    done = i + 1;
  }
  return texts;
}

struct ShownToken {
  int64_t id = 0;
  std::string piece, text;
  bool loss = true;
};

template <class HasLoss>
std::vector<ShownToken> tokens_of(const std::vector<int64_t>& ids, const Tokenizer& tokenizer,
                                  const HasLoss& has_loss) {
  const auto texts = texts_of(ids, tokenizer);
  std::vector<ShownToken> shown;
  for (size_t i = 0; i < ids.size(); ++i) {
    shown.push_back({.id = ids[i],
                     .piece = visible(tokenizer.piece(ids[i])),
                     .text = visible(texts[i]),
                     .loss = has_loss(static_cast<int64_t>(i))});
  }
  return shown;
}

std::string as_text(const std::vector<ShownToken>& tokens, const Style& style) {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool starts = i == 0 || tokens[i].loss != tokens[i - 1].loss;
    const bool ends = i + 1 == tokens.size() || tokens[i].loss != tokens[i + 1].loss;
    if (i > 0) text += "|";
    if (starts) text += tokens[i].loss ? style.loss : style.no_loss;
    text += tokens[i].text;
    if (ends) text += tokens[i].loss ? style.end : style.no_loss_end;
  }
  return text + "\n";
}

nlohmann::ordered_json as_json(const std::vector<ShownToken>& tokens) {
  auto ids = nlohmann::ordered_json::array(), pieces = ids, loss = ids;
  for (const auto& token : tokens) {
    ids.push_back(token.id);
    pieces.push_back(token.piece);
    loss.push_back(token.loss ? 1 : 0);
  }
  return {{"ids", ids}, {"pieces", pieces}, {"loss", loss}};
}

nlohmann::ordered_json as_json(const PackingReport& report) {
  return {{"documents", report.documents},
          {"tokens", report.tokens},
          {"sequences", report.sequences},
          {"efficiency", report.efficiency()},
          {"padding", report.padding},
          {"truncated", report.truncated},
          {"truncated_tokens", report.truncated_tokens},
          {"split", report.split},
          {"dropped_tokens", report.dropped_tokens}};
}

nlohmann::ordered_json as_json(const std::vector<MixtureShare>& mixture) {
  auto list = nlohmann::ordered_json::array();
  for (const auto& source : mixture) {
    list.push_back({{"source", source.name},
                    {"sequences", source.sequences},
                    {"epochs", source.epochs},
                    {"share", source.share}});
  }
  return list;
}

std::string as_text(const PackingReport& report, const DataRecipe& data) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2);
  out << "packing " << enum_name(data.packing) << " into " << data.sequence_length
      << " tokens: " << report.sequences << " sequences, " << 100 * report.efficiency()
      << " % full\n"
      << "  documents  " << report.documents << ", " << report.tokens << " tokens\n"
      << "  truncated  " << report.truncated << ", " << report.truncated_tokens << " tokens lost\n"
      << "  split      " << report.split << "\n"
      << "  dropped    " << report.dropped_tokens << " tokens\n";
  return out.str();
}

std::string as_text(const std::vector<MixtureShare>& mixture, const DataRecipe& data) {
  if (mixture.size() < 2) return "";
  std::ostringstream out;
  out << std::fixed << std::setprecision(2) << "mixture by " << enum_name(data.mix_by)
      << ", an epoch\n";
  for (const auto& source : mixture) {
    out << "  " << 100 * source.share << " %  " << source.sequences << " sequences, "
        << source.epochs << " epochs of " << source.name << "\n";
  }
  return out.str();
}

// What is prepared, or the first documents.
struct Stores {
  std::vector<std::shared_ptr<const TokenStore>> stores;
  bool sampled = false;
};

Stores open_stores(const ShowFlags& flags, const Recipe& recipe, const DataPlans& plans,
                   const Tokenizer& tokenizer) {
  Stores all;
  for (const auto& plan : plans.train) {
    if (auto found = find_prepared(plan, tokenizer, data_cache(recipe, flags.root))) {
      all.stores.push_back(found->store);
      continue;
    }
    all.stores.push_back(
        read_source(plan.source, DocumentKind::kText, plan.documents, tokenizer, flags.sample));
    all.sampled = all.sampled || all.stores.back()->documents() >= flags.sample;
  }
  return all;
}

// One row of a batch, as the model and the losses get it.
struct PackedRow {
  std::vector<int64_t> ids, segments, positions, loss;  // (T) each; segments: -1 at padding

  // Behind the segment, or the padding, that begins there.
  size_t end_of(size_t begin) const {
    const auto other = [&](int64_t segment) { return segment != segments[begin]; };
    return std::find_if(segments.begin() + static_cast<int64_t>(begin), segments.end(), other) -
           segments.begin();
  }
};

std::vector<PackedRow> rows_of(const Batch& batch) {
  const auto segments =
      batch.segments.defined() ? batch.segments : torch::zeros_like(batch.input_ids);  // (B, T)
  const auto positions = segment_positions(segments);                                  // (B, T)
  std::vector<PackedRow> rows;
  for (int64_t b = 0; b < batch.input_ids.size(0); ++b) {
    const auto row = [&](const at::Tensor& values) {
      const auto flat = values[b].to(torch::kInt64).contiguous();  // (T)
      return std::vector<int64_t>(flat.data_ptr<int64_t>(),
                                  flat.data_ptr<int64_t>() + flat.numel());
    };
    rows.push_back({.ids = row(batch.input_ids),
                    .segments = row(segments),
                    .positions = row(positions),
                    .loss = row(batch.loss_mask)});
  }
  return rows;
}

nlohmann::ordered_json as_json(const PackedRow& row) {
  return {{"ids", row.ids},
          {"segments", row.segments},
          {"positions", row.positions},
          {"loss", row.loss}};
}

// A line that says where each segment lies and which positions it has, then its tokens.
std::string as_text(const PackedRow& row, const Tokenizer& tokenizer, const Style& style) {
  std::string text;
  for (size_t begin = 0, end = 0; begin < row.ids.size(); begin = end) {
    end = row.end_of(begin);
    const auto first = static_cast<int64_t>(begin), last = static_cast<int64_t>(end);
    text += str("-- ", begin, " to ", end - 1, ": ");
    if (row.segments[begin] < 0) {
      text += "padding\n";
      continue;
    }
    const auto tokens = tokens_of({row.ids.begin() + first, row.ids.begin() + last}, tokenizer,
                                  [&](int64_t i) { return row.loss[first + i] != 0; });
    text += str("segment ", row.segments[begin], ", positions ", row.positions[begin], " to ",
                row.positions[end - 1], "\n", as_text(tokens, style));
  }
  return text;
}

// The first stage that reads text: its seed orders the sequences.
std::string stage_of(const StageOptions& stages) {
  if (stages.pretrain) return "pretrain";
  if (stages.ild) return "ild";
  if (stages.distill) return "distill";
  throw ConfigError(
      "--packed: expected a stage that reads text (pretrain, ild or distill), got none");
}

// The first sequences of training.
nlohmann::ordered_json list_packed(const ShowFlags& flags, const Recipe& recipe,
                                   const TokenDataset& data, const Tokenizer& tokenizer) {
  auto entries = nlohmann::ordered_json::array();
  if (flags.packed == 0) return entries;
  const auto stage = stage_of(recipe.stages);
  const auto rows = rows_of(
      data.batch(stage_seed(recipe.seed, stage), /*first=*/0, std::min(flags.packed, data.size())));
  for (size_t i = 0; i < rows.size(); ++i) {
    if (flags.json) {
      auto& entry = entries.emplace_back();
      entry["stage"] = stage;
      entry["sequence"] = i + 1;
      entry.update(as_json(rows[i]));
      continue;
    }
    const auto with_loss = std::count(rows[i].loss.begin(), rows[i].loss.end(), 1);
    print(str(stage, ", sequence ", i + 1, ": ", rows[i].ids.size(), " places, ", with_loss,
              " with a loss\n", as_text(rows[i], tokenizer, style_of(flags.color)), "\n"));
  }
  return entries;
}

// Text as it is shown, or, with --json, gathered.
class Listing {
 public:
  Listing(const ShowFlags& flags, const Tokenizer& tokenizer)
      : json_(flags.json), style_(style_of(flags.color)), tokenizer_(tokenizer) {}

  // `facts` are what JSON has for the name.
  template <class HasLoss>
  void add(const std::string& name, nlohmann::ordered_json facts, const TokenStore& store,
           int64_t document, const HasLoss& has_loss) {
    const auto piece = store.document(document);
    const auto tokens = tokens_of({piece.ids(), piece.ids() + piece.count}, tokenizer_,
                                  [&](int64_t i) { return has_loss(piece, i); });
    if (json_) {
      facts.update(as_json(tokens));
      entries_.push_back(std::move(facts));
      return;
    }
    const auto with_loss = std::count_if(tokens.begin(), tokens.end(),
                                         [](const ShownToken& token) { return token.loss; });
    print(str(name, ": ", tokens.size(), " tokens, ", with_loss, " with a loss\n",
              as_text(tokens, style_), "\n"));
  }
  const nlohmann::ordered_json& entries() const { return entries_; }

 private:
  bool json_;
  Style style_;
  const Tokenizer& tokenizer_;
  nlohmann::ordered_json entries_ = nlohmann::ordered_json::array();
};

void list_documents(const ShowFlags& flags, LossOn loss_on, const std::string& path,
                    const TokenStore& store, Listing& listing) {
  const auto has_loss = [&](const TokenStore::Piece& tokens, int64_t i) {
    return loss_on == LossOn::kAll || tokens.shard->in_answer(tokens.first + i);
  };
  for (int64_t i = 0; i < std::min(flags.documents, store.documents()); ++i) {
    listing.add(str(path, ", document ", i + 1), {{"source", path}, {"document", i + 1}}, store, i,
                has_loss);
  }
}

// Of a pair the answers carry the loss.
void list_pairs(const ShowFlags& flags, const Recipe& recipe, const PreparePlan& plan,
                const Tokenizer& tokenizer, Listing& listing) {
  constexpr const char* kParts[] = {"prompt", "chosen", "rejected"};
  const auto& path = plan.source.path;
  const auto found = find_prepared(plan, tokenizer, data_cache(recipe, flags.root));
  const auto store = found ? found->store
                           : read_source(plan.source, DocumentKind::kPairs, plan.documents,
                                         tokenizer, 3 * flags.documents);
  for (int64_t i = 0; i < std::min(3 * flags.documents, store->documents()); ++i) {
    const auto* part = kParts[i % 3];
    listing.add(str(path, ", pair ", i / 3 + 1, ", ", part),
                {{"source", path}, {"pair", i / 3 + 1}, {"part", part}}, *store, i,
                [&](const TokenStore::Piece&, int64_t) { return i % 3 != 0; });
  }
}

void show(const ShowFlags& flags) {
  const auto recipe = read_recipe(flags.recipe, flags.overrides);
  const auto tokenizer = load_tokenizer(tokenizer_path(recipe, flags.root));
  const auto plans = plan_data(recipe, flags.root, *tokenizer);
  const auto [stores, sampled] = open_stores(flags, recipe, plans, *tokenizer);
  Listing documents(flags, *tokenizer), pairs(flags, *tokenizer);
  for (size_t s = 0; s < stores.size(); ++s) {
    list_documents(flags, recipe.data.loss_on, plans.train[s].source.path, *stores[s], documents);
  }
  for (const auto& plan : plans.pairs) list_pairs(flags, recipe, plan, *tokenizer, pairs);
  const TokenDataset data(sources_of(plans.train), stores, *tokenizer, train_options(recipe.data));
  const auto packed = list_packed(flags, recipe, data, *tokenizer);
  if (flags.json) {
    return print_json({{"documents", documents.entries()},
                       {"pairs", pairs.entries()},
                       {"packed", packed},
                       {"packing", as_json(data.packing())},
                       {"mixture", as_json(data.mixture())},
                       {"sampled", sampled}});
  }
  if (sampled) print(str("of the first ", flags.sample, " documents of what is not prepared:\n"));
  print(as_text(data.packing(), recipe.data) + as_text(data.mixture(), recipe.data));
}

}  // namespace

void add_data_show(CLI::App& data, Action& action) {
  auto flags = std::make_shared<ShowFlags>();
  auto* verb = add_verb(
      data, "show",
      "Show training documents: tokens between bars, those without a loss dim or in brackets",
      "zebra data show my.yaml -n 1");
  verb->add_option("recipe", flags->recipe, "YAML file")->required()->type_name("RECIPE");
  add_overrides(verb, flags->overrides);
  verb->add_option("--root", flags->root, "Where relative model and data paths start [.]")
      ->type_name("DIR");
  verb->add_option("-n,--documents", flags->documents, "Documents of each source [3]")
      ->check(whole_number(0))
      ->type_name("N");
  verb->add_option("--packed", flags->packed,
                   "Training's first sequences, packed: segments, positions, padding, loss [0]")
      ->check(whole_number(0))
      ->type_name("N");
  verb->add_option("--sample", flags->sample,
                   "Documents of a source to report on when it is not prepared [10000]")
      ->check(whole_number(1))
      ->type_name("N");
  verb->add_option("--color", flags->color, "auto: on a terminal, unless NO_COLOR is set [auto]")
      ->check(CLI::IsMember({"auto", "always", "never"}).description(""))
      ->type_name("auto|always|never");
  verb->add_flag("--json", flags->json, "JSON on stdout");
  verb->callback([flags, &action] { action = [flags] { show(*flags); }; });
}

}  // namespace zebra
