#include <algorithm>

#include "base/hash.h"
#include "data/random.h"
#include "data/sources.h"
#include "zebra/dataset.h"
#include "zebra/error.h"

namespace zebra {
namespace {

struct TextPair {
  std::string prompt, chosen, rejected;
};

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t'; }

// Two whole texts: the prompt is what they share, up to the last "Assistant:" if there is one in
// it, otherwise up to the last space, so that no word is cut.
TextPair split_shared(const std::string& chosen, const std::string& rejected) {
  const auto differ =
      std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end()).first;
  const auto shared = chosen.substr(0, static_cast<size_t>(differ - chosen.begin()));
  static const std::string kTurn = "\n\nAssistant:";
  size_t end = shared.rfind(kTurn);
  if (end != std::string::npos) {
    end += kTurn.size();
  } else {
    end = shared.size();
    while (end > 0 && !(end < chosen.size() && is_space(chosen[end]))) --end;
  }
  return {chosen.substr(0, end), chosen.substr(end), rejected.substr(end)};
}

// An answer given as a list of messages, one message, or a string.
struct Answer {
  std::vector<Message> before;  // what the list holds ahead of its last message
  std::string text;
};

Answer parse_answer(const JsonRecord& record, const std::string& key) {
  const auto field = record.value.find(key);
  if (field == record.value.end() || field->is_string()) {
    return {{}, require<std::string>(record.value, key, record.where)};
  }
  const auto where = str(record.where, ": ", key);
  auto messages = field->is_object() ? std::vector<Message>{parse_message(*field, where)}
                                     : parse_messages(*field, where);
  if (messages.back().role != "assistant") {
    fail_json(where, "role", "a last message of the assistant", messages.back().role);
  }
  auto text = messages.back().content;
  messages.pop_back();
  return {std::move(messages), std::move(text)};
}

// The messages both answers follow: the record's own list, or the beginning of the answers' lists.
std::vector<Message> shared_messages(const JsonRecord& record, const Answer& chosen,
                                     const Answer& rejected) {
  if (chosen.before != rejected.before) {
    throw ConfigError(
        record.where +
        ": expected chosen and rejected to follow the same messages, got different ones");
  }
  for (const auto* key : {"prompt", "conversations", "messages"}) {
    const auto field = record.value.find(key);
    if (field == record.value.end() || !field->is_array()) continue;
    auto messages = parse_messages(*field, str(record.where, ": ", key));
    if (!chosen.before.empty() && chosen.before != messages) {
      throw ConfigError(
          str(record.where, ": expected the answers to follow '", key, "', got other messages"));
    }
    return messages;
  }
  return chosen.before;
}

TextPair parse_pair(const JsonRecord& record) {
  if (!record.value.is_object()) fail_json(record.where, "pair", "an object", record.value);
  const auto chosen = parse_answer(record, "chosen"), rejected = parse_answer(record, "rejected");
  const auto messages = shared_messages(record, chosen, rejected);
  if (!messages.empty()) {
    return {render_plain(messages) + "\nAssistant:", " " + chosen.text, " " + rejected.text};
  }
  for (const auto* key : {"conversations", "messages"}) {
    if (record.value.contains(key)) {
      fail_json(record.where, key, "a list of messages", record.value[key]);
    }
  }
  if (const auto prompt = find_value<std::string>(record.value, "prompt", record.where)) {
    return {*prompt, chosen.text, rejected.text};
  }
  return split_shared(chosen.text, rejected.text);
}

// Ids of an answer that follows `prompt`: what it adds to the prompt's ids, or its own ids where
// the tokenizer joins the two.
std::vector<int64_t> encode_answer(const Tokenizer& tokenizer, const std::string& prompt,
                                   const std::string& answer) {
  const auto head = tokenizer.encode(prompt), whole = tokenizer.encode(prompt + answer);
  const bool kept =
      whole.size() >= head.size() && std::equal(head.begin(), head.end(), whole.begin());
  if (!kept) return tokenizer.encode(answer);
  return {whole.begin() + static_cast<int64_t>(head.size()), whole.end()};
}

// A prompt's trailing spaces go to the answers: tokenizers join a space with the word after it.
void move_spaces(TextPair& pair) {
  const auto end = pair.prompt.find_last_not_of(' ');
  const auto spaces = pair.prompt.substr(end == std::string::npos ? 0 : end + 1);
  pair.prompt.resize(pair.prompt.size() - spaces.size());
  pair.chosen.insert(0, spaces);
  pair.rejected.insert(0, spaces);
}

// Published lengths: only a pair that is too long loses the left of its prompt, and only answers
// that are still too long lose their end.
void truncate(PreferencePair& pair, const PreferenceOptions& options, bool bos) {
  const auto longest = static_cast<int64_t>(std::max(pair.chosen.size(), pair.rejected.size()));
  auto& prompt = pair.prompt;
  const auto excess = static_cast<int64_t>(prompt.size()) - options.max_prompt_length;
  if (static_cast<int64_t>(prompt.size()) + longest > options.max_length && excess > 0) {
    const auto first = prompt.begin() + (bos ? 1 : 0);
    prompt.erase(first, first + excess);
  }
  const auto room =
      static_cast<size_t>(options.max_length) - std::min<size_t>(prompt.size(), options.max_length);
  for (auto* answer : {&pair.chosen, &pair.rejected})
    answer->resize(std::min(answer->size(), room));
}

PreferencePair encode_pair(const JsonRecord& record, const Tokenizer& tokenizer,
                           const PreferenceOptions& options) {
  auto text = parse_pair(record);
  move_spaces(text);
  const bool bos = tokenizer.bos_id() >= 0;
  PreferencePair pair{.prompt = tokenizer.encode(text.prompt),
                      .chosen = encode_answer(tokenizer, text.prompt, text.chosen),
                      .rejected = encode_answer(tokenizer, text.prompt, text.rejected)};
  if (pair.chosen.empty() || pair.rejected.empty()) {
    throw ConfigError(str(record.where, ": expected two answers with text, got an empty one at '",
                          pair.chosen.empty() ? "chosen" : "rejected", "'"));
  }
  if (bos) pair.prompt.insert(pair.prompt.begin(), tokenizer.bos_id());
  for (auto* answer : {&pair.chosen, &pair.rejected}) {
    if (tokenizer.eos_id() >= 0) answer->push_back(tokenizer.eos_id());
  }
  if (pair.prompt.empty()) {
    throw ConfigError(record.where + ": expected a prompt or a tokenizer with BOS, got neither");
  }
  truncate(pair, options, bos);
  return pair;
}

}  // namespace

PreferenceDataset::PreferenceDataset(const std::vector<std::string>& paths,
                                     const Tokenizer& tokenizer, const PreferenceOptions& options)
    : pad_id_(std::max<int64_t>(tokenizer.eos_id(), 0)) {
  if (options.max_prompt_length < 1 || options.max_length <= options.max_prompt_length) {
    throw ConfigError(str("data.max_length: expected 1 <= max_prompt_length < max_length, got ",
                          options.max_prompt_length, " and ", options.max_length));
  }
  for (const auto& path : paths) {
    for (const auto& file : expand_glob(path)) {
      for (const auto& record : read_json_records(file))
        pairs_.push_back(encode_pair(record, tokenizer, options));
    }
  }
  if (pairs_.empty()) {
    throw ConfigError(str("data: expected preference pairs, got none from ",
                          paths.empty() ? "no file" : paths[0]));
  }
}

int64_t PreferenceDataset::size() const { return static_cast<int64_t>(pairs_.size()); }

uint64_t PreferenceDataset::hash() const {
  uint64_t key = static_cast<uint64_t>(size());
  for (const auto& pair : pairs_) {
    key = mix_keys(key, hash_values(pair.prompt), hash_values(pair.chosen),
                   hash_values(pair.rejected));
  }
  return key;
}

const PreferencePair& PreferenceDataset::pair(int64_t index) const {
  TORCH_CHECK(index >= 0 && index < size(), "preference.pair: expected an index in [0, ", size(),
              "), got ", index);
  return pairs_[index];
}

PreferenceBatch PreferenceDataset::batch(uint64_t seed, int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0, "preference.batch: expected first >= 0 and count > 0, got ",
              first, " and ", count);
  std::vector<int64_t> ids;
  for (int64_t i = first; i < first + count; ++i) {
    ids.push_back(permuted(i % size(), size(), mix_keys(seed, i / size())));
  }
  return gather(ids);
}

PreferenceBatch PreferenceDataset::sequential(int64_t first, int64_t count) const {
  TORCH_CHECK(first >= 0 && count > 0 && first + count <= size(),
              "preference.sequential: expected a range within ", size(), " pairs, got ", first,
              " + ", count);
  std::vector<int64_t> ids;
  for (int64_t id = first; id < first + count; ++id) ids.push_back(id);
  return gather(ids);
}

PreferenceBatch PreferenceDataset::gather(const std::vector<int64_t>& ids) const {
  const int64_t B = static_cast<int64_t>(ids.size());
  size_t longest = 0;
  for (const auto id : ids) {
    const auto& pair = pairs_[id];
    longest =
        std::max(longest, pair.prompt.size() + std::max(pair.chosen.size(), pair.rejected.size()));
  }
  const int64_t T = static_cast<int64_t>(longest);
  PreferenceBatch batch;
  batch.input_ids = torch::full({2 * B, T}, pad_id_, torch::kInt64);  // (2B, T)
  batch.targets = torch::full({2 * B, T}, -1, torch::kInt64);         // (2B, T)
  for (int64_t row = 0; row < 2 * B; ++row) {
    const auto& pair = pairs_[ids[row % B]];
    const auto& answer = row < B ? pair.chosen : pair.rejected;
    auto* input = batch.input_ids.data_ptr<int64_t>() + row * T;
    auto* targets = batch.targets.data_ptr<int64_t>() + row * T;
    const auto start = pair.prompt.size();  // at least 1: BOS or a token of the prompt
    std::copy(pair.prompt.begin(), pair.prompt.end(), input);
    std::copy(answer.begin(), answer.end(), input + start);
    std::copy(answer.begin(), answer.end(), targets + start - 1);
  }
  batch.sample_ids = ids;
  return batch;
}

}  // namespace zebra
