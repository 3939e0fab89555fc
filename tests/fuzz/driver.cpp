// Feeds a fuzz target inputs that are the same in every run: fuzz_NAME [COUNT [SEED]]. It prints
// the number of an input before it is used only when that input fails, by way of the seed.
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "data/random.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

// Parts that bring an input near the edges: characters of every length, broken ones, special
// tokens, white space, JSON.
const std::vector<std::string>& parts() {
  static const std::vector<std::string> kParts = {"the ",
                                                  "hello",
                                                  " and",
                                                  "a",
                                                  "  ",
                                                  "\n\n",
                                                  "\t",
                                                  "12345",
                                                  "'s",
                                                  "...",
                                                  "\xC3\xA9",
                                                  "e\xCC\x81",
                                                  "\xE4\xBD\xA0",
                                                  "\xF0\x9F\xA6\x93",
                                                  "\xE2\x96\x81",
                                                  "\xFF",
                                                  "\xE2\x82",
                                                  "\xED\xA0\x80",
                                                  std::string(1, '\0'),
                                                  "<|eot_id|>",
                                                  "<|begin_of_text|>",
                                                  "<|",
                                                  "<s>",
                                                  "</s>",
                                                  "<0x0A>",
                                                  "\xC2\xA0",
                                                  "\xE3\x80\x80",
                                                  "{\"",
                                                  "\": ",
                                                  "[",
                                                  "]}",
                                                  "null",
                                                  "-1",
                                                  "\\u0000"};
  return kParts;
}

std::vector<uint8_t> make_input(uint64_t key) {
  zebra::Random random(key);
  std::string text(1, static_cast<char>(random.below(256)));  // which target the input is for
  const size_t count = random.below(40);
  for (size_t i = 0; i < count; ++i) {
    const bool byte = random.below(8) == 0;
    text += byte ? std::string(1, static_cast<char>(random.below(256)))
                 : parts()[random.below(parts().size())];
  }
  return {text.begin(), text.end()};
}

}  // namespace

int main(int argc, char** argv) {
  const uint64_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  for (uint64_t i = 0; i < count; ++i) {
    const auto input = make_input(zebra::mix_keys(seed, i));
    try {
      LLVMFuzzerTestOneInput(input.data(), input.size());
    } catch (const std::exception& error) {
      std::cerr << "input " << i << " of seed " << seed << ": " << error.what() << "\n";
      return 1;
    }
  }
  std::cout << count << " inputs\n";
  return 0;
}
