#include "train/summary.h"

#include <cmath>
#include <limits>
#include <type_traits>

#include "base/file.h"
#include "base/json.h"

namespace zebra {

namespace {

using Json = nlohmann::ordered_json;

template <class T>
concept HasFields = requires(T value) {
  value.fields([](const char*, auto&) {});
};

// ---- writing ------------------------------------------------------------------------------------

// A null Json stands for what was not measured; what is not finite, which JSON lacks, is "nan".
Json to_json(double value) { return std::isfinite(value) ? Json(value) : Json("nan"); }
Json to_json(int64_t value) { return value; }
Json to_json(const std::string& value) { return value; }

template <HasFields T>
Json to_json(const T& value);

template <class T>
Json to_json(const std::optional<T>& value) {
  return value ? to_json(*value) : Json();
}

template <class T>
Json to_json(const std::vector<T>& values) {
  Json out;
  for (const auto& value : values) out.push_back(to_json(value));
  return out;
}

// Stages in the order of a run, other names after them.
const std::vector<std::string>& stage_order() {
  static const std::vector<std::string> names = {"pretrain", "base",     "init",    "ild", "smart",
                                                 "compose",  "composed", "distill", "dpo", "eval"};
  return names;
}

template <class T>
Json to_json(const std::map<std::string, T>& values) {
  Json out;
  const auto put = [&](const std::string& name, const T& value) {
    if (auto item = to_json(value); !item.is_null()) out[name] = std::move(item);
  };
  for (const auto& name : stage_order()) {
    if (const auto found = values.find(name); found != values.end()) put(name, found->second);
  }
  for (const auto& [name, value] : values) {
    if (!out.contains(name)) put(name, value);
  }
  return out;
}

template <HasFields T>
Json to_json(const T& value) {
  Json out;
  T copy = value;  // fields hands out what may be changed
  copy.fields([&](const char* key, const auto& member) {
    if (auto item = to_json(member); !item.is_null()) out[key] = std::move(item);
  });
  return out;
}

// ---- reading ------------------------------------------------------------------------------------

// Where in the file a value stands, for error messages.
struct Place {
  std::string file, key;

  Place at(const std::string& name) const { return {file, key.empty() ? name : key + "." + name}; }
};

void check(bool usable, const Place& place, const char* expected, const json& got) {
  if (!usable) fail_json(place.file, place.key.empty() ? "file" : place.key, expected, got);
}

void from_json(const json& in, const Place& place, double& value) {
  check(in.is_number() || in == "nan", place, "a number", in);
  value = in.is_number() ? in.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

void from_json(const json& in, const Place& place, int64_t& value) {
  check(in.is_number_integer(), place, "a whole number", in);
  value = in.get<int64_t>();
}

void from_json(const json& in, const Place& place, std::string& value) {
  check(in.is_string(), place, "a string", in);
  value = in.get<std::string>();
}

template <HasFields T>
void from_json(const json& in, const Place& place, T& value);

template <class T>
void from_json(const json& in, const Place& place, std::optional<T>& value) {
  from_json(in, place, value.emplace());
}

template <class T>
void from_json(const json& in, const Place& place, std::vector<T>& values) {
  check(in.is_array(), place, "a list", in);
  for (const auto& item : in) from_json(item, place, values.emplace_back());
}

template <class T>
void from_json(const json& in, const Place& place, std::map<std::string, T>& values) {
  check(in.is_object(), place, "an object", in);
  for (const auto& [name, item] : in.items()) from_json(item, place.at(name), values[name]);
}

template <HasFields T>
void from_json(const json& in, const Place& place, T& value) {
  check(in.is_object(), place, "an object", in);
  value.fields([&](const char* key, auto& member) {
    if (in.contains(key)) from_json(in.at(key), place.at(key), member);
  });
}

// ---- merging ------------------------------------------------------------------------------------

template <class T>
void merge(std::optional<T>& older, const std::optional<T>& newer) {
  if (newer) older = newer;
}

template <class T>
void merge(std::vector<T>& older, const std::vector<T>& newer) {
  if (!newer.empty()) older = newer;
}

void merge(double& older, const double& newer) { older = newer; }

template <HasFields T>
void merge(T& older, const T& newer);

template <class T>
void merge(std::map<std::string, T>& older, const std::map<std::string, T>& newer) {
  for (const auto& [name, value] : newer) merge(older[name], value);
}

// Visits the fields of both together: a field of one is merged with the other's of the same key,
// which then has the same type.
template <HasFields T>
void merge(T& older, const T& newer) {
  T copy = newer;  // fields hands out what may be changed
  older.fields([&](const std::string& key, auto& member) {
    copy.fields([&](const std::string& other_key, const auto& other) {
      using Same = std::is_same<std::decay_t<decltype(member)>, std::decay_t<decltype(other)>>;
      if constexpr (Same::value) {
        if (key == other_key) merge(member, other);
      }
    });
  });
}

}  // namespace

std::filesystem::path summary_path(const std::filesystem::path& run_folder) {
  return run_folder / "summary.json";
}

Summary read_summary(const std::filesystem::path& run_folder) {
  const auto path = summary_path(run_folder);
  Summary summary;
  if (!std::filesystem::exists(path)) return summary;
  from_json(read_json(path), {path.string(), ""}, summary);
  return summary;
}

void write_summary(const std::filesystem::path& run_folder, const Summary& summary) {
  auto out = to_json(summary);
  if (out.is_null()) out = Json::object();
  write_file_atomic(summary_path(run_folder), out.dump(2) + "\n");
}

Summary merge_summaries(Summary older, const Summary& newer) {
  merge(older, newer);
  return older;
}

}  // namespace zebra
