// zebra chat
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <optional>

#include "base/log.h"
#include "cli/sampling_flags.h"
#include "eval/text_stream.h"
#include "zebra/chat_template.h"
#include "zebra/error.h"

namespace zebra {

namespace {

struct ChatFlags {
  std::string model, system, format;
  SamplingFlags sampling;
  MachineFlags machine;
};

using Ids = std::vector<int64_t>;

// What `whole` has behind `beginning`; nothing when it does not begin so.
std::optional<Ids> behind(const Ids& whole, const Ids& beginning) {
  if (whole.size() < beginning.size() ||
      !std::equal(beginning.begin(), beginning.end(), whole.begin())) {
    return std::nullopt;
  }
  return Ids(whole.begin() + static_cast<int64_t>(beginning.size()), whole.end());
}

// One conversation: its messages, and the tokens that the model has read and made of them.
class Chat {
 public:
  Chat(const LoadedModel& loaded, const ChatFlags& flags, GenerateOptions options)
      : loaded_(loaded),
        flags_(flags),
        options_(std::move(options)),
        template_(flags.format.empty() ? ChatTemplate::of_folder(flags.model, *loaded.tokenizer)
                                       : ChatTemplate::named(flags.format, *loaded.tokenizer)),
        conversation_(loaded.model, options_) {
    reset();
  }

  void reset() {
    messages_.clear();
    if (!flags_.system.empty()) messages_.push_back({"system", flags_.system});
    conversation_ = Conversation(loaded_.model, options_);
    read_.clear();
  }

  void answer(const std::string& line) {
    auto asked = messages_;
    asked.push_back({"user", line});
    const auto next = unread(asked);
    if (!has_room(next)) {
      log_warning(str("chat: the conversation and this message do not fit into the model's ",
                      loaded_.model->options().max_position_embeddings,
                      " tokens; it stays as it was, and /reset begins anew"));
      return;
    }
    if (next.anew) {
      log_info("chat: this template writes earlier turns anew; the conversation is read again");
      conversation_ = Conversation(loaded_.model, options_);
    }
    read_ = next.whole;
    TextStream stream(*loaded_.tokenizer, next.fresh, flags_.sampling.stops);
    const auto made = conversation_.reply(next.fresh, [&](int64_t id) {
      if (!is_stop(id)) print(stream.add(id));
      return !stream.stopped();
    });
    print(stream.finish() + "\n");
    messages_ = std::move(asked);
    messages_.push_back({"assistant", stream.text()});
    ended_ = !made.ids.empty() && is_stop(made.ids.back());
  }

 private:
  bool is_stop(int64_t id) const {
    const auto& stops = options_.stop_ids;
    return std::find(stops.begin(), stops.end(), id) != stops.end();
  }

  Ids encoded(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const {
    return encode_chat(*loaded_.tokenizer, template_, messages, add_generation_prompt).ids;
  }

  struct Unread {
    Ids fresh;          // to be read now
    Ids whole;          // all messages, up to where the next answer begins
    bool anew = false;  // `fresh` is the whole of it
  };

  bool has_room(const Unread& next) const {
    const auto held = next.anew ? 0 : conversation_.ids().size();
    return static_cast<int64_t>(held + next.fresh.size()) <
           loaded_.model->options().max_position_embeddings;
  }

  // How the template ends an answer: what the last one and an empty one have in common at their
  // ends. A stop token that the model made itself is not read again.
  std::optional<Ids> closing(const Ids& last) const {
    auto without = messages_;
    without.back().content.clear();
    const auto bare = behind(encoded(without, /*add_generation_prompt=*/false), read_);
    if (!bare) return std::nullopt;
    auto begin =
        std::mismatch(last.rbegin(), last.rend(), bare->rbegin(), bare->rend()).first.base();
    const auto stop = std::find_if(begin, last.end(), [&](int64_t id) { return is_stop(id); });
    if (ended_ && stop != last.end()) begin = stop + 1;
    return Ids(begin, last.end());
  }

  // What the model has not read of the messages. The last answer stands in the caches as it was
  // made; only how the template closes it is still to be read.
  Unread unread(const std::vector<ChatMessage>& asked) const {
    const auto whole = encoded(asked, /*add_generation_prompt=*/true);
    if (read_.empty()) return {whole, whole};
    const auto closed = encoded(messages_, /*add_generation_prompt=*/false);
    const auto last = behind(closed, read_), next = behind(whole, closed);
    auto fresh = last && next ? closing(*last) : std::nullopt;
    if (!fresh) return {whole, whole, /*anew=*/true};
    fresh->insert(fresh->end(), next->begin(), next->end());
    return {*fresh, whole};
  }

  const LoadedModel& loaded_;
  const ChatFlags& flags_;
  GenerateOptions options_;
  ChatTemplate template_;
  Conversation conversation_;
  std::vector<ChatMessage> messages_;
  Ids read_;            // the messages up to where the last answer begins, as the template has them
  bool ended_ = false;  // the last answer ended with a stop token
};

void chat(const ChatFlags& flags) {
  const auto machine = flags.machine.use();
  const auto loaded = load_with_tokenizer(flags.model, machine);
  Chat chat(loaded, flags, flags.sampling.resolved(loaded));
  const bool terminal = isatty(STDIN_FILENO) == 1;
  if (terminal) std::cerr << "/reset begins anew, /exit ends\n";
  for (std::string line;;) {
    if (terminal) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line) || line == "/exit") return;
    if (line == "/reset") {
      chat.reset();
    } else if (!line.empty()) {
      chat.answer(line);
    }
  }
}

}  // namespace

void add_chat(CLI::App& app, Action& action) {
  auto flags = std::make_shared<ChatFlags>();
  flags->sampling.options.max_new_tokens = 512;
  auto* verb = add_verb(app, "chat", "Converse: a message a line on stdin, answers on stdout",
                        "zebra chat models/Zebra-Llama-1B-4MLA-12Mamba-DPO --temperature 0.7");
  verb->add_option("model", flags->model, "Model folder")->required()->type_name("MODEL");
  verb->add_option("--system", flags->system, "System message")->type_name("TEXT");
  verb->add_option("--template", flags->format,
                   "llama3, llama3.1, llama2, chatml, zephyr or plain [the folder's own]")
      ->type_name("NAME");
  flags->sampling.declare(verb);
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { chat(*flags); }; });
}

}  // namespace zebra
