// A real model on real text.
#include <chrono>
#include <cstdio>

#include "support/testing.h"
#include "zebra/convert.h"
#include "zebra/eval.h"

namespace zebra::testing {

TEST_CASE("score_text: a published Llama has its known loss on held-out text", "[golden]") {
  ZEBRA_NEEDS_SHARED("data/models/stories260k");
  const auto folder = shared_path("data/models/stories260k");
  auto model = load_model(folder, {});
  const auto tokenizer = load_tokenizer(folder);
  const TokenDataset data({{.path = shared_path("data/corpora/tinystories-valid.txt").string()}},
                          *tokenizer,
                          {.sequence_length = 256, .bos = BosPlacement::kSequence, .eos = false});
  CHECK(data.size() == 60);
  const auto began = std::chrono::steady_clock::now();
  const auto scores = score_text(model, &model, data, 16, 0);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  CHECK(scores.predictions == 60 * 255);
  CHECK(scores.nats_per_token == Approx(1.8432).margin(5e-5));
  std::printf("score_text: 60 x 256 tokens in %.3f s\n", spent.count());
}

}  // namespace zebra::testing
