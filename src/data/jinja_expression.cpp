#include "data/jinja_expression.h"

#include <algorithm>

#include "data/utf8.h"
#include "zebra/error.h"

namespace zebra {
namespace {

using Kind = JinjaToken::Kind;
using Expression = JinjaExpression;
using Scopes = JinjaScopes;

constexpr size_t kMostTokens = 500;  // of a tag: how deep its expression may be

json undefined() { return json(json::value_t::discarded); }

bool name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

// The text between the quotes that begin at `at`, which moves behind them.
std::string read_string(std::string_view tag, size_t& at) {
  const char quote = tag[at++];
  std::string text;
  for (; at < tag.size() && tag[at] != quote; ++at) {
    if (tag[at] != '\\' || at + 1 == tag.size()) {
      text += tag[at];
      continue;
    }
    const char c = tag[++at];
    text += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
  }
  if (at == tag.size()) throw JinjaError("a string without an end");
  ++at;
  return text;
}

std::vector<JinjaToken> tokens_of(std::string_view tag) {
  std::vector<JinjaToken> tokens;
  for (size_t at = 0; at < tag.size();) {
    const char c = tag[at];
    const size_t begin = at;
    if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      ++at;
    } else if (name_start(c)) {
      while (at < tag.size() && (name_start(tag[at]) || digit(tag[at]))) ++at;
      tokens.push_back({Kind::kName, std::string(tag.substr(begin, at - begin))});
    } else if (digit(c)) {
      while (at < tag.size() && digit(tag[at])) ++at;
      tokens.push_back({Kind::kNumber, std::string(tag.substr(begin, at - begin))});
    } else if (c == '"' || c == '\'') {
      tokens.push_back({Kind::kString, read_string(tag, at)});
    } else {
      const auto two = tag.substr(at, 2);
      const bool pair = two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "//";
      at += pair ? 2 : 1;
      tokens.push_back({Kind::kSign, std::string(tag.substr(begin, at - begin))});
    }
  }
  tokens.push_back({Kind::kEnd, "the end of the tag"});
  return tokens;
}

const std::string& as_string(const json& value) {
  if (!value.is_string()) throw JinjaError("a text was expected");
  return value.get_ref<const std::string&>();
}

int64_t as_integer(const json& value) {
  if (!value.is_number_integer()) throw JinjaError("an integer was expected");
  return value.get<int64_t>();
}

int64_t length_of(const json& value) {
  if (!value.is_string()) return static_cast<int64_t>(value.size());
  int64_t length = 0;
  for (const char c : as_string(value)) length += (c & 0xC0) != 0x80 ? 1 : 0;
  return length;
}

json add(const json& a, const json& b) {
  if (a.is_string() && b.is_string()) return as_string(a) + as_string(b);
  if (a.is_number() && b.is_number()) return as_integer(a) + as_integer(b);
  if (!a.is_array() || !b.is_array()) throw JinjaError("+ of values that do not add");
  json sum = a;
  sum.insert(sum.end(), b.begin(), b.end());
  return sum;
}

json arithmetic(const std::string& sign, const json& a, const json& b) {
  if (sign == "+") return add(a, b);
  if (sign == "~") return jinja_text(a) + jinja_text(b);
  const int64_t x = as_integer(a), y = as_integer(b);
  if (sign == "-") return x - y;
  if (sign == "*") return x * y;
  if (y <= 0) throw JinjaError("a division by what is not positive");
  const int64_t remainder = ((x % y) + y) % y;
  if (sign == "%") return remainder;
  if (sign == "//") return (x - remainder) / y;
  throw JinjaError("the operator " + sign);
}

bool contains(const json& all, const json& item) {
  if (all.is_string()) return as_string(all).find(as_string(item)) != std::string::npos;
  if (all.is_object()) return all.contains(as_string(item));
  return std::find(all.begin(), all.end(), item) != all.end();
}

bool compare(const std::string& sign, const json& a, const json& b) {
  if (sign == "in") return contains(b, a);
  if (a.is_discarded() || b.is_discarded()) {
    if (sign == "==") return a.is_discarded() && b.is_discarded();
    if (sign == "!=") return a.is_discarded() != b.is_discarded();
    throw JinjaError("a comparison with an undefined value");
  }
  if (sign == "==") return a == b;
  if (sign == "!=") return a != b;
  if (sign == "<") return a < b;
  if (sign == ">") return a > b;
  return sign == "<=" ? a <= b : a >= b;
}

bool test(const std::string& name, const json& value) {
  if (name == "defined") return !value.is_discarded();
  if (name == "undefined") return value.is_discarded();
  if (name == "none") return value.is_null();
  if (name == "string") return value.is_string();
  if (name == "mapping") return value.is_object();
  if (name == "sequence" || name == "iterable") return value.is_array() || value.is_string();
  if (name == "number") return value.is_number();
  if (name == "boolean") return value.is_boolean();
  if (name == "true") return value == json(true);
  if (name == "false") return value == json(false);
  throw JinjaError("the test " + name);
}

std::string cased(std::string text, int (*change)(int)) {
  for (auto& c : text) {
    if ((c & 0x80) == 0) c = static_cast<char>(change(static_cast<unsigned char>(c)));
  }
  return text;
}

json filter(const std::string& name, const json& value) {
  if (name == "trim") return std::string(strip_white_space(as_string(value)));
  if (name == "length" || name == "count") return length_of(value);
  if (name == "upper") return cased(as_string(value), std::toupper);
  if (name == "lower") return cased(as_string(value), std::tolower);
  if (name == "string") return jinja_text(value);
  if (name == "first" && value.is_array() && !value.empty()) return value.front();
  if (name == "last" && value.is_array() && !value.empty()) return value.back();
  if (name == "list" && value.is_array()) return value;
  throw JinjaError("the filter " + name);
}

json method(const json& object, const std::string& name, const std::vector<json>& arguments) {
  if (arguments.empty()) {
    if (name == "strip") return filter("trim", object);
    if (name == "upper" || name == "lower") return filter(name, object);
  }
  if (arguments.size() == 1 && object.is_string()) {
    const auto& text = as_string(object);
    if (name == "startswith") return text.starts_with(as_string(arguments[0]));
    if (name == "endswith") return text.ends_with(as_string(arguments[0]));
  }
  if (name == "get" && object.is_object() && !arguments.empty()) {
    return object.value(as_string(arguments[0]),
                        arguments.size() > 1 ? arguments[1] : json(nullptr));
  }
  throw JinjaError("the method " + name);
}

json element(const json& object, const json& key) {
  if (object.is_discarded()) throw JinjaError("an element of an undefined value");
  if (object.is_object() && key.is_string()) {
    const auto found = object.find(as_string(key));
    return found == object.end() ? undefined() : *found;
  }
  if (!object.is_array() || !key.is_number_integer()) return undefined();
  const auto size = static_cast<int64_t>(object.size());
  const int64_t index = as_integer(key) < 0 ? as_integer(key) + size : as_integer(key);
  return index >= 0 && index < size ? object[index] : undefined();
}

json slice(const json& list, const json& begin, const json& end) {
  if (!list.is_array()) throw JinjaError("a slice of what is no list");
  const auto size = static_cast<int64_t>(list.size());
  const auto place = [&](const json& value, int64_t usual) {
    if (value.is_discarded()) return usual;
    const int64_t index = as_integer(value);
    return std::clamp<int64_t>(index < 0 ? index + size : index, 0, size);
  };
  json result = json::array();
  for (int64_t i = place(begin, 0); i < place(end, size); ++i) result.push_back(list[i]);
  return result;
}

std::vector<json> values_of(const std::vector<Expression>& expressions, Scopes& scopes) {
  std::vector<json> values;
  for (const auto& expression : expressions) values.push_back(expression(scopes));
  return values;
}

}  // namespace

json* JinjaScopes::find(const std::string& name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    if (const auto found = scope->find(name); found != scope->end()) return &*found;
  }
  return nullptr;
}

bool jinja_true(const json& value) {
  if (value.is_discarded() || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != json(0);
  return length_of(value) > 0;
}

std::string jinja_text(const json& value) {
  if (value.is_discarded()) return "";
  if (value.is_string()) return as_string(value);
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_integer()) return value.dump();
  throw JinjaError("a list or an object as text");
}

JinjaParser::JinjaParser(std::string_view tag) : tokens_(tokens_of(tag)) {
  if (tokens_.size() > kMostTokens) throw JinjaError("a tag that is very long");
}

bool JinjaParser::accept(std::string_view text) {
  const bool word = next().kind == Kind::kName || next().kind == Kind::kSign;
  if (!word || next().text != text) return false;
  ++at_;
  return true;
}

void JinjaParser::expect(std::string_view text) {
  if (!accept(text)) throw JinjaError(str("expected ", text, ", got ", next().text));
}

std::string JinjaParser::name() {
  if (next().kind != Kind::kName) throw JinjaError("expected a name, got " + next().text);
  return tokens_[at_++].text;
}

Expression JinjaParser::expression() {
  const auto value = either();
  if (!accept("if")) return value;
  const auto condition = either();
  const auto otherwise = accept("else") ? expression() : [](Scopes&) { return undefined(); };
  return [=](Scopes& scopes) {
    return jinja_true(condition(scopes)) ? value(scopes) : otherwise(scopes);
  };
}

Expression JinjaParser::either() {
  auto left = both();
  while (accept("or")) {
    left = [left, right = both()](Scopes& scopes) {
      auto value = left(scopes);
      return jinja_true(value) ? value : right(scopes);
    };
  }
  return left;
}

Expression JinjaParser::both() {
  auto left = negation();
  while (accept("and")) {
    left = [left, right = negation()](Scopes& scopes) {
      auto value = left(scopes);
      return jinja_true(value) ? right(scopes) : value;
    };
  }
  return left;
}

Expression JinjaParser::negation() {
  if (!accept("not")) return comparison();
  return [value = negation()](Scopes& scopes) -> json { return !jinja_true(value(scopes)); };
}

Expression JinjaParser::comparison() {
  auto left = sum();
  while (true) {
    if (accept("is")) {
      const bool no = accept("not");
      left = [left, no, test_name = name()](Scopes& scopes) -> json {
        return test(test_name, left(scopes)) != no;
      };
      continue;
    }
    const bool no = accept("not");
    const std::string sign = next().text;
    static const std::vector<std::string> kSigns = {"==", "!=", "<", ">", "<=", ">=", "in"};
    const bool known = std::find(kSigns.begin(), kSigns.end(), sign) != kSigns.end();
    if (!known || !accept(sign)) {
      if (no) throw JinjaError("not before " + sign);
      return left;
    }
    left = [left, sign, no, right = sum()](Scopes& scopes) -> json {
      return compare(sign, left(scopes), right(scopes)) != no;
    };
  }
}

Expression JinjaParser::sum() {
  auto left = product();
  while (true) {
    const std::string sign = next().text;
    if (!accept("+") && !accept("-") && !accept("~")) return left;
    left = [left, sign, right = product()](Scopes& scopes) {
      return arithmetic(sign, left(scopes), right(scopes));
    };
  }
}

Expression JinjaParser::product() {
  auto left = unary();
  while (true) {
    const std::string sign = next().text;
    if (!accept("*") && !accept("//") && !accept("%")) return left;
    left = [left, sign, right = unary()](Scopes& scopes) {
      return arithmetic(sign, left(scopes), right(scopes));
    };
  }
}

Expression JinjaParser::unary() {
  if (!accept("-")) return postfix();
  return [value = unary()](Scopes& scopes) -> json { return -as_integer(value(scopes)); };
}

Expression JinjaParser::postfix() {
  auto value = primary();
  while (true) {
    if (accept(".")) {
      value = member(std::move(value));
    } else if (accept("[")) {
      value = subscript(std::move(value));
    } else if (accept("|")) {
      const auto filter_name = name();
      const auto options = accept("(") ? arguments() : std::vector<Expression>();
      value = [value, filter_name, plain = options.empty()](Scopes& scopes) {
        if (!plain) throw JinjaError("options of the filter " + filter_name);
        return filter(filter_name, value(scopes));
      };
    } else {
      return value;
    }
  }
}

Expression JinjaParser::member(Expression object) {
  const auto key = name();
  if (!accept("(")) {
    return [object, key](Scopes& scopes) { return element(object(scopes), key); };
  }
  return [object, key, given = arguments()](Scopes& scopes) {
    return method(object(scopes), key, values_of(given, scopes));
  };
}

Expression JinjaParser::subscript(Expression object) {
  const Expression nothing = [](Scopes&) { return undefined(); };
  const bool open = next().text == ":" && next().kind == Kind::kSign;
  const auto key = open ? nothing : expression();
  if (accept(":")) {
    const bool to_end = next().text == "]" && next().kind == Kind::kSign;
    const auto end = to_end ? nothing : expression();
    expect("]");
    return [object, key, end](Scopes& scopes) {
      return slice(object(scopes), key(scopes), end(scopes));
    };
  }
  expect("]");
  return [object, key](Scopes& scopes) { return element(object(scopes), key(scopes)); };
}

std::vector<Expression> JinjaParser::arguments() {
  std::vector<Expression> result;
  while (!accept(")")) {
    const bool keyword = next().kind == Kind::kName && tokens_[at_ + 1].text == "=" &&
                         tokens_[at_ + 1].kind == Kind::kSign;
    if (keyword) {  // read, and refused only where the template comes to it
      at_ += 2;
      expression();
      result.emplace_back([](Scopes&) -> json { throw JinjaError("a named argument"); });
    } else {
      result.push_back(expression());
    }
    if (!accept(",") && !(next().text == ")" && next().kind == Kind::kSign)) {
      throw JinjaError("expected ), got " + next().text);
    }
  }
  return result;
}

Expression JinjaParser::call(const std::string& function) {
  if (function == "namespace") {
    std::vector<std::pair<std::string, Expression>> members;
    while (!accept(")")) {
      const auto key = name();
      expect("=");
      members.emplace_back(key, expression());
      accept(",");
    }
    return [members](Scopes& scopes) {
      json object = json::object();
      for (const auto& [key, value] : members) object[key] = value(scopes);
      return object;
    };
  }
  return [function, given = arguments()](Scopes& scopes) -> json {
    if (function == "raise_exception") throw JinjaError(jinja_text(given.at(0)(scopes)));
    if (function != "strftime_now") throw JinjaError("the function " + function);
    const auto* today = scopes.find("zebra_today");
    return today == nullptr ? undefined() : *today;
  };
}

Expression JinjaParser::list() {
  std::vector<Expression> items;
  while (!accept("]")) {
    items.push_back(expression());
    if (!accept(",") && next().text != "]") throw JinjaError("expected ], got " + next().text);
  }
  return [items](Scopes& scopes) { return json(values_of(items, scopes)); };
}

Expression JinjaParser::primary() {
  const JinjaToken token = next();
  if (token.kind == Kind::kString || token.kind == Kind::kNumber) {
    ++at_;
    const bool text = token.kind == Kind::kString;
    if (!text && token.text.size() > 15) throw JinjaError("the number " + token.text);
    return
        [value = text ? json(token.text) : json(std::stoll(token.text))](Scopes&) { return value; };
  }
  if (accept("(")) {
    auto value = expression();
    expect(")");
    return value;
  }
  if (accept("[")) return list();
  const auto word = name();
  if (word == "true" || word == "True") return [](Scopes&) -> json { return true; };
  if (word == "false" || word == "False") return [](Scopes&) -> json { return false; };
  if (word == "none" || word == "None") return [](Scopes&) -> json { return nullptr; };
  if (accept("(")) return call(word);
  return [word](Scopes& scopes) {
    const auto* value = scopes.find(word);
    return value == nullptr ? undefined() : *value;
  };
}

}  // namespace zebra
