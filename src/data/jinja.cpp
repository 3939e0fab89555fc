#include "data/jinja.h"

#include "data/jinja_expression.h"
#include "zebra/error.h"

namespace zebra {

using Statement = std::function<void(JinjaScopes&, std::string& out)>;

struct JinjaTemplate::Block {
  std::vector<Statement> statements;
  void run(JinjaScopes& scopes, std::string& out) const {
    for (const auto& statement : statements) statement(scopes, out);
  }
};

namespace {

constexpr int kDeepest = 100;  // statements within each other
constexpr std::string_view kBlank = " \t\r\n\v\f";

struct Part {
  enum class Kind { kText, kOutput, kStatement } kind = Kind::kText;
  std::string text;
};

// Where a tag ends: behind its strings, which may hold its end's letters.
size_t find_end(std::string_view source, size_t from, std::string_view end, bool strings) {
  char quote = '\0';
  for (size_t at = from; at < source.size(); ++at) {
    const char c = source[at];
    if (quote != '\0') {
      if (c == '\\') ++at;
      if (c == quote) quote = '\0';
    } else if (strings && (c == '"' || c == '\'')) {
      quote = c;
    } else if (source.substr(at).starts_with(end)) {
      return at;
    }
  }
  throw JinjaError(str("a tag without its ", end));
}

// Cuts a template into text and tags, and takes the white space away that the tags ask for.
class Cutter {
 public:
  explicit Cutter(std::string_view source) : source_(source) {
    if (source_.ends_with('\n')) source_.remove_suffix(1);
  }

  std::vector<Part> cut() {
    while (at_ < source_.size()) {
      const size_t open = find_open();
      add_text(source_.substr(at_, open - at_));
      at_ = open;
      if (open < source_.size()) add_tag();
    }
    return std::move(parts_);
  }

 private:
  size_t find_open() const {
    for (size_t at = at_; at + 1 < source_.size(); ++at) {
      const char next = source_[at + 1];
      if (source_[at] == '{' && (next == '{' || next == '%' || next == '#')) return at;
    }
    return source_.size();
  }

  void add_text(std::string_view text) {
    if (strip_next_) text.remove_prefix(std::min(text.find_first_not_of(kBlank), text.size()));
    begins_line_ = parts_.empty() || (trim_next_ && text.starts_with('\n'));
    if (trim_next_ && text.starts_with('\n')) text.remove_prefix(1);
    strip_next_ = trim_next_ = false;
    parts_.push_back({Part::Kind::kText, std::string(text)});
  }

  // `block`: a statement or a comment.
  void strip_before(char sign, bool block) {
    auto& text = parts_.back().text;
    if (sign == '-') {
      text.resize(text.find_last_not_of(kBlank) + 1);
    } else if (block && sign != '+') {
      const size_t end = text.find_last_not_of(" \t") + 1;
      const bool line_start = end == 0 ? begins_line_ : text[end - 1] == '\n';
      if (line_start) text.resize(end);
    }
  }

  void add_tag() {
    const char kind = source_[at_ + 1];
    const bool comment = kind == '#';
    const std::string end = kind == '{' ? "}}" : std::string(1, kind) + "}";
    size_t begin = at_ + 2;
    const char sign = begin < source_.size() ? source_[begin] : '\0';
    strip_before(sign, kind != '{');
    if (sign == '-' || sign == '+') ++begin;
    const size_t close = find_end(source_, begin, end, !comment);
    auto tag = source_.substr(begin, close - begin);
    strip_next_ = tag.ends_with('-');
    const bool keep = tag.ends_with('+');
    trim_next_ = kind != '{' && !keep;
    if (strip_next_ || keep) tag.remove_suffix(1);
    at_ = close + 2;
    if (comment) return;
    parts_.push_back(
        {kind == '{' ? Part::Kind::kOutput : Part::Kind::kStatement, std::string(tag)});
  }

  std::string_view source_;
  size_t at_ = 0;
  bool strip_next_ = false, trim_next_ = false;
  bool begins_line_ = false;  // the last text
  std::vector<Part> parts_;
};

using Block = JinjaTemplate::Block;

class Builder {
 public:
  explicit Builder(std::vector<Part> parts) : parts_(std::move(parts)) {}

  Block whole() {
    auto block = read();
    if (at_ < parts_.size()) throw JinjaError("the tag " + parts_[at_].text);
    return block;
  }

 private:
  // Up to a tag that does not begin a statement: an end, or else and elif.
  Block read() {
    Block block;
    if (++depth_ > kDeepest) throw JinjaError("statements that are very deep in each other");
    for (; at_ < parts_.size(); ++at_) {
      const auto& [kind, text] = parts_[at_];
      if (kind == Part::Kind::kText) {
        block.statements.emplace_back(
            [part = text](JinjaScopes&, std::string& out) { out += part; });
      } else if (kind == Part::Kind::kOutput) {
        JinjaParser parser(text);
        const auto value = parser.expression();
        if (!parser.at_end()) throw JinjaError("the tag " + text);
        block.statements.emplace_back(
            [value](JinjaScopes& scopes, std::string& out) { out += jinja_text(value(scopes)); });
      } else if (!read_statement(block)) {
        break;
      }
    }
    --depth_;
    return block;
  }

  bool read_statement(Block& block) {
    JinjaParser parser(parts_[at_].text);
    if (parser.accept("if")) {
      block.statements.push_back(read_if(parser));
    } else if (parser.accept("for")) {
      block.statements.push_back(read_for(parser));
    } else if (parser.accept("set")) {
      block.statements.push_back(read_set(parser));
    } else if (parser.accept("generation") || parser.accept("endgeneration")) {
      // they mark the answer, and write nothing
    } else {
      return false;
    }
    return true;
  }

  JinjaParser end_tag() const {
    if (at_ == parts_.size()) throw JinjaError("a statement without its end");
    return JinjaParser(parts_[at_].text);
  }

  Statement read_if(JinjaParser& parser) {
    std::vector<std::pair<JinjaExpression, Block>> branches;
    auto condition = parser.expression();
    while (true) {
      ++at_;
      branches.emplace_back(condition, read());
      auto tag = end_tag();
      if (tag.accept("endif")) break;
      if (tag.accept("elif")) {
        condition = tag.expression();
      } else if (tag.accept("else")) {
        condition = [](JinjaScopes&) -> json { return true; };
      } else {
        throw JinjaError("the tag " + parts_[at_].text);
      }
    }
    return [branches](JinjaScopes& scopes, std::string& out) {
      for (const auto& [when, block] : branches) {
        if (!jinja_true(when(scopes))) continue;
        block.run(scopes, out);
        return;
      }
    };
  }

  Statement read_for(JinjaParser& parser) {
    const auto name = parser.name();
    parser.expect("in");
    const auto list = parser.expression();
    if (!parser.at_end()) throw JinjaError("the tag " + parts_[at_].text);
    ++at_;
    const auto block = read();
    end_tag().expect("endfor");
    return [name, list, block](JinjaScopes& scopes, std::string& out) {
      const json items = list(scopes);
      if (!items.is_array()) throw JinjaError("for over what is no list");
      for (size_t i = 0; i < items.size(); ++i) {
        scopes.push();
        scopes.set(name, items[i]);
        scopes.set("loop", {{"index0", i},
                            {"index", i + 1},
                            {"first", i == 0},
                            {"last", i + 1 == items.size()},
                            {"length", items.size()}});
        block.run(scopes, out);
        scopes.pop();
      }
    };
  }

  Statement read_set(JinjaParser& parser) const {
    const auto name = parser.name();
    const auto member = parser.accept(".") ? parser.name() : "";
    parser.expect("=");
    const auto value = parser.expression();
    if (!parser.at_end()) throw JinjaError("the tag " + parts_[at_].text);
    return [name, member, value](JinjaScopes& scopes, std::string&) {
      if (member.empty()) return scopes.set(name, value(scopes));
      json result = value(scopes);
      json* object = scopes.find(name);
      if (object == nullptr || !object->is_object()) throw JinjaError("a member of " + name);
      (*object)[member] = std::move(result);
    };
  }

  std::vector<Part> parts_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

JinjaTemplate::JinjaTemplate(const std::string& source)
    : block_(std::make_unique<Block>(Builder(Cutter(source).cut()).whole())) {}
JinjaTemplate::~JinjaTemplate() = default;
JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;
JinjaTemplate& JinjaTemplate::operator=(JinjaTemplate&&) noexcept = default;

std::string JinjaTemplate::render(const json& variables) const {
  JinjaScopes scopes(variables);
  std::string out;
  block_->run(scopes, out);
  return out;
}

}  // namespace zebra
