#include "eval/requests.h"

#include <algorithm>

#include "eval/python.h"
#include "zebra/error.h"

namespace zebra {

namespace {

using Ids = std::vector<int64_t>;

// What stands before the first token of a text without a context.
int64_t prefix_id(const Tokenizer& tokenizer) {
  const int64_t id = tokenizer.bos_id() >= 0 ? tokenizer.bos_id() : tokenizer.eos_id();
  if (id < 0) throw ConfigError("expected a context or a tokenizer with BOS, got neither");
  return id;
}

// How many tokens a model reads, and what becomes of endings that have more.
struct Limits {
  int64_t max_length;
  LongEndings long_endings;
};

TokenRequest fit(const Ids& context, Ids continuation, const Limits& limits) {
  const bool too_long = static_cast<int64_t>(continuation.size()) > limits.max_length;
  if (too_long && limits.long_endings == LongEndings::kRefuse) {
    throw ConfigError(str("expected an ending of at most ", limits.max_length, " tokens, got ",
                          continuation.size()));
  }
  TokenRequest request;
  request.input = context;
  request.input.insert(request.input.end(), continuation.begin(), continuation.end() - 1);
  request.targets = std::move(continuation);
  const auto room = static_cast<size_t>(limits.max_length);
  const auto keep_end = [&](Ids& ids) {
    if (ids.size() <= room) return false;
    ids.erase(ids.begin(), ids.end() - limits.max_length);
    return true;
  };
  request.cut = keep_end(request.input);
  keep_end(request.targets);
  return request;
}

TokenRequest without_context(const Tokenizer& tokenizer, const std::string& continuation,
                             const Limits& limits) {
  auto ids = tokenizer.encode(continuation);
  const int64_t prefix = prefix_id(tokenizer);
  if (!ids.empty() && ids.front() == prefix) ids.erase(ids.begin());
  if (ids.empty()) {
    throw ConfigError(str("expected an ending that adds tokens, got '", continuation, "'"));
  }
  return fit({prefix}, std::move(ids), limits);
}

}  // namespace

std::vector<TokenRequest> encode_requests(const Tokenizer& tokenizer,
                                          const std::vector<TextRequest>& requests,
                                          int64_t max_length, LongEndings long_endings) {
  const Limits limits{max_length, long_endings};
  std::vector<TokenRequest> encoded;
  std::string known;  // the context of `head`
  Ids head;
  for (const auto& [context, continuation] : requests) {
    if (context.empty()) {
      encoded.push_back(without_context(tokenizer, continuation, limits));
      continue;
    }
    const auto kept = python_rstrip(context);
    if (head.empty() || kept != known) {
      known = kept;
      head = encode_with_bos(tokenizer, kept);
    }
    const auto whole = encode_with_bos(tokenizer, context + continuation);
    if (whole.size() <= head.size()) {
      throw ConfigError(
          str("expected an ending that adds tokens to its context, got '", continuation, "'"));
    }
    if (head.empty()) throw ConfigError("expected a context or a tokenizer with BOS, got neither");
    encoded.push_back(
        fit(head, Ids(whole.begin() + static_cast<int64_t>(head.size()), whole.end()), limits));
  }
  return encoded;
}

std::vector<TokenRequest> encode_rolling(const Tokenizer& tokenizer, const std::string& text,
                                         int64_t max_length) {
  const auto targets = encode_with_bos(tokenizer, text);
  auto inputs = targets;  // before each target
  inputs.insert(inputs.begin(), prefix_id(tokenizer));
  const auto total = static_cast<int64_t>(targets.size());
  std::vector<TokenRequest> windows;
  for (int64_t done = 0; done < total;) {
    const int64_t end = std::min(done + max_length, total);
    const int64_t begin = std::max<int64_t>(end - max_length, 0);
    windows.push_back({.input = {inputs.begin() + begin, inputs.begin() + end},
                       .targets = {targets.begin() + done, targets.begin() + end}});
    done = end;
  }
  return windows;
}

std::vector<int64_t> encode_prompt(const Tokenizer& tokenizer, const std::string& text,
                                   int64_t max_length) {
  auto ids = encode_with_bos(tokenizer, text);
  if (ids.empty()) throw ConfigError("expected a prompt with at least one token, got none");
  const auto room = static_cast<size_t>(max_length);
  if (ids.size() > room) ids.erase(ids.begin(), ids.end() - max_length);
  return ids;
}

}  // namespace zebra
