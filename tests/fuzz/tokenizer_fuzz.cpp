// Any bytes as a text for three kinds of tokenizer, and as changes to a tokenizer file. The first
// byte chooses.
#include <unistd.h>

#include <fstream>
#include <stdexcept>

#include "data/tokenizer_train.h"
#include "data/utf8.h"
#include "support/tokenizer_files.h"
#include "zebra/error.h"
#include "zebra/tokenizer.h"

namespace {

using namespace zebra;
using json = nlohmann::json;

void demand(bool fact, const char* what) {
  if (!fact) throw std::logic_error(what);
}

// A folder for the files that tokenizers are read from.
class Workshop {
 public:
  Workshop() {
    std::string name = (std::filesystem::temp_directory_path() / "zebra-fuzz-XXXXXX").string();
    demand(mkdtemp(name.data()) != nullptr, "mkdtemp");
    path_ = name;
  }
  ~Workshop() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;
  std::filesystem::path write(const char* name, const std::string& content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }
  std::filesystem::path file(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

const Workshop& workshop() {
  static const Workshop kWorkshop;
  return kWorkshop;
}

json metaspace_file() {
  auto file = testing::small_tokenizer_json();
  auto& model = file["model"];
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    model["vocab"][name] = 300 + byte;
  }
  model["vocab"]["\xE2\x96\x81"] = 600;
  model["byte_fallback"] = true;
  file["normalizer"] = {{"type", "NFC"}};
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", "first"}, {"split", false}};
  file["decoder"] = {{"type", "ByteFallback"}};
  return file;
}

void check_text(const Tokenizer& tokenizer, std::string_view text, bool exact) {
  const auto ids = tokenizer.encode(text);
  const auto [same, spans] = tokenizer.encode_with_spans(text);
  demand(ids == same, "encode and encode_with_spans differ");
  demand(ids.size() == spans.size(), "as many spans as ids");
  size_t last = 0;
  for (const auto& [begin, end] : spans) {
    demand(begin >= last && end >= begin && end <= text.size(), "spans in order");
    last = end;
  }
  for (const auto id : ids) demand(id >= 0 && id < tokenizer.vocab_size(), "ids in range");
  const auto decoded = tokenizer.decode_with_special(ids);
  demand(valid_prefix(decoded) == decoded.size(), "decoded text is UTF-8");
  tokenizer.decode(ids);
  if (exact) demand(decoded == replace_invalid(text), "the text comes back");
}

// Puts the bytes over some of the file's, and demands a tokenizer or a ConfigError.
void check_file(std::string_view change) {
  static const std::string kFile = testing::small_tokenizer_json().dump();
  std::string file = kFile;
  if (change.size() < 3) return;
  const size_t at =
      (static_cast<unsigned char>(change[0]) * 256U + static_cast<unsigned char>(change[1])) %
      file.size();
  file.replace(at, static_cast<unsigned char>(change[2]) % 16, change.substr(3, 12));
  try {
    const auto tokenizer = load_tokenizer(workshop().write("changed.json", file));
    check_text(*tokenizer, "the hello<|eot_id|> and", /*exact=*/false);
  } catch (const ConfigError&) {  // the only error that a file may give
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto kBytes =
      load_tokenizer(workshop().write("bytes.json", testing::small_tokenizer_json().dump()));
  static const auto kMetaspace =
      load_tokenizer(workshop().write("metaspace.json", metaspace_file().dump()));
  static const auto kPieces = [] {
    std::string text;
    for (int i = 0; i < 40; ++i) text += "the cat and the dog said hello to all the others\n";
    train_tokenizer(workshop().write("texts.txt", text), 300, workshop().file("t.model"));
    return load_tokenizer(workshop().file("t.model"));
  }();
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      check_text(*kBytes, text, /*exact=*/true);
      break;
    case 1:
      check_text(*kMetaspace, text, /*exact=*/false);
      break;
    case 2:
      check_text(*kPieces, text, /*exact=*/false);
      break;
    default:
      check_file(text);
  }
  return 0;
}
