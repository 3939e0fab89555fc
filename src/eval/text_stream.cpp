#include "eval/text_stream.h"

#include <algorithm>
#include <string_view>

namespace zebra {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // of bytes that are no character yet
constexpr size_t kContext = 6;  // tokens before the new ones that their text may depend on

// Length of the longest end of `text` that begins a stop string.
size_t possible_stop(std::string_view text, const std::vector<std::string>& stops) {
  size_t longest = 0;
  for (const auto& stop : stops) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > longest; --n) {
      if (text.ends_with(std::string_view(stop).substr(0, n))) longest = n;
    }
  }
  return longest;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, const std::vector<int64_t>& context,
                       std::vector<std::string> stops)
    : tokenizer_(tokenizer), stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
  ids_.assign(context.end() - static_cast<int64_t>(std::min(kContext, context.size())),
              context.end());
  read_ = ids_.size();
}

// Text of the ids after read_: what they add to the text of those before. Empty while it ends in an
// unfinished character, unless all of it is wanted.
std::string TextStream::decode_fresh(bool whole) {
  const auto from = ids_.begin() + static_cast<int64_t>(begin_);
  const auto before = tokenizer_.decode({from, ids_.begin() + static_cast<int64_t>(read_)});
  const auto after = tokenizer_.decode({from, ids_.end()});
  if (!whole && (after.size() <= before.size() || after.ends_with(kReplacement))) return "";
  begin_ = read_;
  read_ = ids_.size();
  return after.size() > before.size() ? after.substr(before.size()) : "";
}

std::string TextStream::release(bool whole) {
  size_t end = std::string::npos;
  for (const auto& stop : stops_) end = std::min(end, waiting_.find(stop));
  if (end != std::string::npos) {
    stopped_ = true;
    waiting_.resize(end);
  }
  const size_t held = whole || stopped_ ? 0 : possible_stop(waiting_, stops_);
  const auto shown = waiting_.substr(0, waiting_.size() - held);
  waiting_.erase(0, shown.size());
  text_ += shown;
  return shown;
}

std::string TextStream::add(int64_t id) {
  if (stopped_) return "";
  ids_.push_back(id);
  waiting_ += decode_fresh(/*whole=*/false);
  return release(/*whole=*/false);
}

std::string TextStream::finish() {
  if (stopped_) return "";
  waiting_ += decode_fresh(/*whole=*/true);
  return release(/*whole=*/true);
}

}  // namespace zebra
