// A recipe into YAML, with every default written out.
#include <strings.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "train/recipe_fields.h"
#include "zebra/recipe.h"

namespace zebra {

namespace {

// The shortest text that reads back to the same number; never what YAML 1.1 takes for a text.
std::string number_text(double value) {
  constexpr double kExact = 1e15;
  if (value == std::floor(value) && std::abs(value) < kExact) {
    return std::to_string(static_cast<int64_t>(value));
  }
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  std::string text(buffer, end);
  if (text.find('.') != std::string::npos) return text;
  const auto exponent = text.find('e');
  return exponent == std::string::npos ? text + ".0" : text.insert(exponent, ".0");
}

bool is_plain(const std::string& text) {
  if (text.empty() || !(std::isalpha(static_cast<unsigned char>(text[0])) || text[0] == '/')) {
    return false;
  }
  for (const char* word : {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}) {
    if (text.size() == std::string_view(word).size() && ::strcasecmp(text.c_str(), word) == 0) {
      return false;
    }
  }
  return text.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
             "_./-*") == std::string::npos;
}

std::string scalar(const std::string& value) {
  // JSON's texts are YAML's double-quoted ones.
  return is_plain(value) ? value : nlohmann::json(value).dump();
}
std::string scalar(bool value) { return value ? "true" : "false"; }
std::string scalar(int64_t value) { return std::to_string(value); }
std::string scalar(double value) { return number_text(value); }
template <class Enum>
requires std::is_enum_v<Enum> std::string scalar(Enum value) {
  return std::string(enum_name(value));
}

template <class T>
std::string flow_list(const std::vector<T>& values) {
  std::string text;
  for (const auto& value : values) text += (text.empty() ? "" : ", ") + scalar(value);
  return "[" + text + "]";
}

std::string flow_list(const LayerChoice& choice) {
  if (!choice.smart_count) return flow_list(choice.indices);
  return "{select: smart, count: " + scalar(*choice.smart_count) + "}";
}

// Lines "key: value" at an indentation.
class Writer {
 public:
  template <HasFields T>
  void fields(T& value, int indent) {
    value.fields([&](const char* name, auto& field, const char* /*meaning*/) {
      write(name, field, indent);
    });
  }

  std::string text;

 private:
  void line(int indent, const std::string& content) {
    text += std::string(indent, ' ') + content + "\n";
  }

  template <class T>
  void write(const std::string& name, T& value, int indent) {
    if constexpr (HasFields<T>) {
      const auto begin = text.size();
      line(indent, name + ":");
      const auto end = text.size();
      fields(value, indent + 2);
      if (text.size() == end)
        text.replace(begin, end - begin, std::string(indent, ' ') + name + ": {}\n");
    } else if constexpr (std::is_same_v<T, LayerChoice>) {
      line(indent, name + ": " + flow_list(value));
    } else {
      line(indent, name + ": " + scalar(value));
    }
  }

  template <class T>
  void write(const std::string& name, std::optional<T>& value, int indent) {
    if (value) write(name, *value, indent);
  }

  template <class T>
  void write(const std::string& name, std::vector<T>& values, int indent) {
    if constexpr (HasFields<T>) {
      if (values.empty()) return line(indent, name + ": []");
      line(indent, name + ":");
      for (auto& value : values) {
        const auto begin = text.size();
        fields(value, indent + 4);
        text[begin + indent + 2] = '-';
      }
    } else {
      line(indent, name + ": " + flow_list(values));
    }
  }
};

}  // namespace

std::string write_recipe(const Recipe& recipe) {
  Recipe copy = recipe;  // the field list is not const
  Writer writer;
  writer.fields(copy, 0);
  return writer.text;
}

}  // namespace zebra
