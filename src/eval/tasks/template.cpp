#include "eval/tasks/template.h"

#include <algorithm>
#include <cctype>

#include "eval/python.h"
#include "zebra/error.h"
#include "zebra/options.h"

namespace zebra {

namespace {

constexpr int kDeepest = 100;  // brackets within brackets

std::string type_of(const Document& value) {
  if (value.is_string()) return "text";
  if (value.is_array()) return "a list";
  return value.type_name();
}

// One expression over one document, read and evaluated in one pass.
class Expression {
 public:
  Expression(std::string_view text, const Document& document, const std::string& where)
      : text_(text), document_(document), where_(where) {}

  Document value() {
    auto result = sum();
    skip();
    if (at_ != text_.size()) fail(str("'", excerpt(text_.substr(at_)), "' is not understood"));
    return result;
  }

 private:
  using Arguments = std::vector<Document>;

  [[noreturn]] void fail(const std::string& what) const {
    throw ConfigError(str(where_, ": {{", excerpt(text_), "}}: ", what));
  }

  void skip() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool take(char wanted) {
    skip();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!take(wanted)) fail(str("expected '", wanted, "' at offset ", at_));
  }

  std::string name() {
    skip();
    const size_t begin = at_;
    while (at_ < text_.size() &&
           (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '_')) {
      ++at_;
    }
    if (at_ == begin) fail(str("expected a name at offset ", at_));
    return std::string(text_.substr(begin, at_ - begin));
  }

  Document sum() {
    if (++depth_ > kDeepest) fail(str("expected at most ", kDeepest, " brackets in each other"));
    auto value = filtered();
    while (take('+')) {
      const auto other = filtered();
      if (!value.is_string() || !other.is_string()) fail("only texts can be added");
      value = value.get<std::string>() + other.get<std::string>();
    }
    --depth_;
    return value;
  }

  Document filtered() {
    auto value = postfixed();
    while (take('|')) {
      const auto filter = name();
      value = call(filter, value, take('(') ? arguments() : Arguments());
    }
    return value;
  }

  Document postfixed() {
    auto value = primary();
    while (true) {
      if (take('[')) {
        value = subscript(value);
      } else if (take('.')) {
        const auto member = name();
        value = take('(') ? call(member, value, arguments()) : field(value, member);
      } else {
        return value;
      }
    }
  }

  Document primary() {
    skip();
    if (at_ == text_.size()) fail("expected a value");
    const char first = text_[at_];
    if (first == '\'' || first == '"') return quoted();
    if (first == '-' || std::isdigit(static_cast<unsigned char>(first))) return integer();
    if (take('[')) return list();
    return field(document_, name());
  }

  Document list() {
    Document values = Document::array();
    while (!take(']')) {
      values.push_back(sum());
      if (!take(',')) {
        expect(']');
        break;
      }
    }
    return values;
  }

  Document quoted() {
    const auto value = python_string(text_, at_);
    if (!value && at_ == text_.size()) fail("a quote is not closed");
    if (!value) fail(str("expected an escape at offset ", at_));
    return *value;
  }

  Document integer() {
    const bool negative = take('-');
    int64_t value = 0;
    const size_t begin = at_;
    for (; at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])); ++at_) {
      value = value * 10 + (text_[at_] - '0');
    }
    if (at_ == begin || at_ - begin > 9) fail("expected an integer");
    return negative ? -value : value;
  }

  Arguments arguments() {
    Arguments values;
    while (!take(')')) {
      values.push_back(sum());
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }

  Document field(const Document& object, const std::string& key) const {
    if (!object.is_object())
      fail(str(excerpt(key), ": expected an object around it, got ", type_of(object)));
    if (const auto found = object.find(key); found != object.end()) return *found;
    std::vector<std::string> keys;
    for (const auto& item : object.items()) keys.push_back(item.key());
    const auto nearest = nearest_name(key, keys);
    fail(str("field ", excerpt(key), ": expected a value, got none",
             nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  }

  // After the bracket: an index, a key, or a slice begin:end.
  Document subscript(const Document& value) {
    const auto sliced = [&](const Document& from) {
      const auto to = take(']') ? Document() : sum();
      if (!to.is_null()) expect(']');
      return slice(value, from, to);
    };
    if (take(':')) return sliced(Document());
    const auto index = sum();
    if (take(':')) return sliced(index);
    expect(']');
    if (index.is_string()) return field(value, index.get<std::string>());
    if (!value.is_array() || !index.is_number_integer()) fail("only lists have an index");
    const auto size = static_cast<int64_t>(value.size());
    const auto at = index.get<int64_t>();
    if (at < -size || at >= size) fail(str("expected an index below ", size, ", got ", at));
    return value[static_cast<size_t>(at < 0 ? at + size : at)];
  }

  Document slice(const Document& value, const Document& from, const Document& to) const {
    if (!value.is_array()) fail(str("expected a list to slice, got ", type_of(value)));
    const auto size = static_cast<int64_t>(value.size());
    const auto bound = [&](const Document& given, int64_t usual) {
      if (!given.is_null() && !given.is_number_integer()) {
        fail(str("expected an integer as a slice's bound, got ", type_of(given)));
      }
      const auto at = given.is_null() ? usual : given.get<int64_t>();
      return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
    };
    Document part = Document::array();
    for (auto i = bound(from, 0); i < bound(to, size); ++i) part.push_back(value[i]);
    return part;
  }

  std::string text_argument(const Arguments& arguments, size_t index, const std::string& method) {
    if (index >= arguments.size() || !arguments[index].is_string()) {
      fail(str(method, ": expected text as argument ", index + 1));
    }
    return arguments[index].get<std::string>();
  }

  Document call(const std::string& method, const Document& value, const Arguments& arguments) {
    if (!value.is_array() && !value.is_string()) {
      fail(str(method, ": expected text or a list before it, got ", type_of(value)));
    }
    auto result = value.is_array() ? call_list(method, value, arguments)
                                   : call_text(method, value.get<std::string>(), arguments);
    const bool takes_one = method == "split" || method == "join" || method == "index";
    const size_t most = method == "replace" ? 2 : takes_one ? 1 : 0;
    if (arguments.size() > most) {
      fail(str(method, ": expected at most ", most, " arguments, got ", arguments.size()));
    }
    return result;
  }

  Document call_list(const std::string& method, const Document& list, const Arguments& arguments) {
    if (method == "length") return list.size();
    if (method == "join") {
      return joined(list, arguments.empty() ? "" : text_argument(arguments, 0, method));
    }
    if (method == "first" || method == "last") {
      if (list.empty()) fail(method + ": expected a list with elements, got none");
      return method == "first" ? list.front() : list.back();
    }
    if (method != "index") unknown(method, {"first", "index", "join", "last", "length"});
    if (arguments.size() != 1) fail("index: expected one argument");
    const auto found = std::find(list.begin(), list.end(), arguments[0]);
    if (found == list.end()) {
      fail(str("expected one of ", list.dump(), ", got ", arguments[0].dump()));
    }
    return found - list.begin();
  }

  std::string joined(const Document& list, const std::string& separator) const {
    std::string text;
    for (size_t i = 0; i < list.size(); ++i) {
      if (!list[i].is_string()) fail(str("join: expected texts, got ", type_of(list[i])));
      text += (i > 0 ? separator : "") + list[i].get<std::string>();
    }
    return text;
  }

  Document call_text(const std::string& method, const std::string& text,
                     const Arguments& arguments) {
    if (method == "strip" || method == "trim") return std::string(python_strip(text));
    if (method == "lstrip") return std::string(python_lstrip(text));
    if (method == "rstrip") return std::string(python_rstrip(text));
    if (method == "lower") return python_lower(text);
    if (method == "upper") return python_upper(text);
    if (method == "capitalize") return python_capitalize(text);
    if (method == "length") return python_length(text);
    if (method == "split") return split(text, text_argument(arguments, 0, method));
    // Python's join follows the text that it writes between: ", ".join(list)
    if (method == "join" && !arguments.empty() && arguments[0].is_array()) {
      return joined(arguments[0], text);
    }
    if (method == "replace") {
      return replace_all(text, text_argument(arguments, 0, method),
                         text_argument(arguments, 1, method));
    }
    unknown(method, {"capitalize", "join", "length", "lower", "lstrip", "replace", "rstrip",
                     "split", "strip", "trim", "upper"});
  }

  Document split(const std::string& text, const std::string& separator) const {
    if (separator.empty()) fail("split: expected a separator, got an empty one");
    Document parts = Document::array();
    size_t begin = 0;
    for (size_t end = 0; (end = text.find(separator, begin)) != std::string::npos;) {
      parts.push_back(text.substr(begin, end - begin));
      begin = end + separator.size();
    }
    parts.push_back(text.substr(begin));
    return parts;
  }

  [[noreturn]] void unknown(const std::string& method,
                            const std::vector<std::string>& known) const {
    const auto nearest = nearest_name(method, known);
    fail(str("unknown method or filter '", method, "'",
             nearest.empty() ? "" : "; did you mean " + nearest + "?"));
  }

  std::string_view text_;
  const Document& document_;
  const std::string& where_;
  size_t at_ = 0;
  int depth_ = 0;
};

std::string as_text(const Document& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return value.dump();
  if (value.is_number_float()) return value.dump();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  throw ConfigError(str(where, ": expected text or a number in a template, got ", value.dump()));
}

struct Piece {
  bool expression = false;
  std::string_view text;
};

// Where the first {{, {# or {% is, or the end.
size_t next_mark(std::string_view text) {
  static constexpr std::string_view kKinds = "{#%";
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] == '{' && kKinds.find(text[i + 1]) != std::string_view::npos) return i;
  }
  return text.size();
}

std::vector<Piece> pieces_of(std::string_view text, const std::string& where) {
  std::vector<Piece> pieces;
  while (!text.empty()) {
    const auto begin = next_mark(text);
    if (begin > 0) pieces.push_back({false, text.substr(0, begin)});
    if (begin == text.size()) break;
    const auto fail = [&](const std::string& what) {
      throw ConfigError(str(where, ": '", excerpt(text.substr(begin)), "': expected ", what));
    };
    const char kind = text[begin + 1];
    if (kind == '%') fail("text with {{expressions}}, got a statement {% ... %}");
    const std::string close = kind == '{' ? "}}" : "#}";
    const auto end = text.find(close, begin + 2);
    if (end == std::string_view::npos) fail("a closing " + close);
    const auto inner = text.substr(begin + 2, end - begin - 2);
    if (inner.starts_with('-') || inner.ends_with('-')) {
      fail("no white-space control, got a '-' at a bracket");
    }
    if (kind == '{') pieces.push_back({true, inner});
    text.remove_prefix(end + 2);
  }
  return pieces;
}

}  // namespace

bool is_template(std::string_view text) { return next_mark(text) < text.size(); }

Document evaluate_expression(std::string_view expression, const Document& document,
                             const std::string& where) {
  return Expression(expression, document, where).value();
}

std::string render_template(std::string_view text, const Document& document,
                            const std::string& where) {
  std::string result;
  for (const auto& piece : pieces_of(text, where)) {
    if (piece.expression) {
      result += as_text(evaluate_expression(piece.text, document, where), where);
    } else {
      result += piece.text;
    }
  }
  return result;
}

Document evaluate_template(std::string_view text, const Document& document,
                           const std::string& where) {
  const auto pieces = pieces_of(text, where);
  if (pieces.size() == 1 && pieces[0].expression) {
    return evaluate_expression(pieces[0].text, document, where);
  }
  return render_template(text, document, where);
}

}  // namespace zebra
