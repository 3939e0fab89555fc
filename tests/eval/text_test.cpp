// Held-out scores against one sequence at a time in float64.
#include <numbers>

#include "eval/models.h"

namespace zebra::testing {

namespace {

constexpr auto kAttention = MixerKind::kAttention;
constexpr auto kMla = MixerKind::kMla;
constexpr auto kMamba2 = MixerKind::kMamba2;

const char* kStories =
    "Tom has a red ball.\n\nThe dog sees a cat and runs away as fast as it can.\n\nMia sings.\n\n"
    "Rain falls on the roof while Ben reads his book about ships.\n\nThe end comes soon.\n";

TokenDataset stories(const Folder& folder, const DatasetOptions& options) {
  const auto path = folder.write("stories.txt", kStories);
  return TokenDataset({{.path = path, .format = SourceFormat::kStories}}, ByteTokenizer(), options);
}

const DatasetOptions kPadded{.sequence_length = 72, .packing = Packing::kNone};
const DatasetOptions kPacked{.sequence_length = 40, .packing = Packing::kConcat};

struct Expected {
  double nats = 0, kl = 0, agree = 0;
  int64_t predictions = 0, positions = 0;
};

// Documents of a row are cut out and run alone, without padding or neighbours.
void add_document(CausalLm& model, CausalLm& teacher, const at::Tensor& ids, Expected& sums) {
  const auto log_p = model->logits(model->forward(ids, {}))[0].log_softmax(-1);      // (T, V)
  const auto log_q = teacher->logits(teacher->forward(ids, {}))[0].log_softmax(-1);  // (T, V)
  const int64_t T = ids.size(1);
  for (int64_t t = 0; t < T; ++t) {
    if (t + 1 < T) {
      sums.nats -= log_p[t][ids[0][t + 1]].item<double>();
      ++sums.predictions;
    }
    sums.kl += (log_q[t].exp() * (log_q[t] - log_p[t])).sum().item<double>();
    sums.agree += log_p[t].argmax().item<int64_t>() == log_q[t].argmax().item<int64_t>() ? 1 : 0;
    ++sums.positions;
  }
}

Expected expected_scores(CausalLm model, CausalLm teacher, const TokenDataset& data) {
  const at::NoGradGuard no_grad;
  Expected sums;
  for (int64_t i = 0; i < data.size(); ++i) {
    const auto batch = data.sequential(i, 1);
    const auto segments =
        batch.segments.defined() ? batch.segments[0] : torch::zeros_like(batch.input_ids[0]);
    for (int64_t segment = 0; segment <= segments.max().item<int64_t>(); ++segment) {
      const auto columns = segments.eq(segment).nonzero().squeeze(1);
      add_document(model, teacher, batch.input_ids.index_select(1, columns), sums);
    }
  }
  return sums;
}

void check_scores(const TextScores& scores, const Expected& sums, double tolerance) {
  const auto positions = static_cast<double>(sums.positions);
  CHECK(scores.predictions == sums.predictions);
  CHECK(scores.positions == sums.positions);
  CHECK(scores.nats_per_token ==
        Approx(sums.nats / static_cast<double>(sums.predictions)).epsilon(tolerance));
  CHECK(scores.kl_per_token == Approx(sums.kl / positions).epsilon(tolerance));
  CHECK(scores.top1_agreement == Approx(sums.agree / positions).epsilon(tolerance));
}

}  // namespace

TEST_CASE("score_text: equals one document at a time, for padded and for packed rows") {
  const Folder folder;
  for (const auto& options : {kPadded, kPacked}) {
    const auto data = stories(folder, options);
    auto model = tiny_model({kMla, kMamba2, kAttention}, 1, torch::kDouble);
    auto teacher = tiny_model({kAttention, kAttention}, 2, torch::kDouble, /*width=*/48);
    const auto sums = expected_scores(model, teacher, data);
    check_scores(score_text(model, &teacher, data, 2, 0), sums, kTwin64);
    model->to(torch::kFloat);
    teacher->to(torch::kFloat);
    check_scores(score_text(model, &teacher, data, 2, 0), sums, kForward32);
  }
}

TEST_CASE("score_text: bits per byte is the nats of all targets over the bytes of the text") {
  const Folder folder;
  const auto data = stories(folder, kPadded);  // every document whole
  const auto scores = score_text(tiny_model({kAttention}, 1), nullptr, data, 8, 0);
  const std::string text = kStories;
  const double bytes = static_cast<double>(text.size()) - 4 * 2 - 1;  // without the blank lines
  const double nats = scores.nats_per_token * static_cast<double>(scores.predictions);
  CHECK(scores.bits_per_byte == Approx(nats / std::numbers::ln2 / bytes).epsilon(1e-12));
}

TEST_CASE("score_text: the batch size does not change the scores") {
  const Folder folder;
  const auto data = stories(folder, kPacked);
  auto teacher = tiny_model({kAttention}, 2);
  const auto one = score_text(tiny_model({kMla, kMamba2}, 1), &teacher, data, 1, 0);
  for (const int64_t batch_size : {2, 3, 100}) {
    const auto scores = score_text(tiny_model({kMla, kMamba2}, 1), &teacher, data, batch_size, 0);
    CHECK(scores.nats_per_token == Approx(one.nats_per_token).epsilon(1e-6));
    CHECK(scores.bits_per_byte == Approx(one.bits_per_byte).epsilon(1e-6));
    CHECK(scores.kl_per_token == Approx(one.kl_per_token).epsilon(1e-6));
    CHECK(scores.top1_agreement == one.top1_agreement);
  }
}

TEST_CASE("score_text: max_sequences scores the first ones, with their share of the bytes") {
  const Folder folder;
  const auto data = stories(folder, kPacked);
  auto model = tiny_model({kMamba2}, 1);
  const auto scores = score_text(model, nullptr, data, 2, 3);
  CHECK(scores.positions == 3 * 40);
  CHECK(score_text(model, nullptr, data, 2, 1000).positions == data.tokens());
  const double bytes = static_cast<double>(data.bytes()) * 120 / static_cast<double>(data.tokens());
  const double nats = scores.nats_per_token * static_cast<double>(scores.predictions);
  CHECK(scores.bits_per_byte == Approx(nats / std::numbers::ln2 / bytes).epsilon(1e-12));
}

TEST_CASE("score_text: a model has no divergence from itself") {
  const Folder folder;
  const auto data = stories(folder, kPadded);
  auto model = tiny_model({kMla}, 1), copy = tiny_model({kMla}, 1);
  for (auto* teacher : {&model, &copy}) {
    const auto scores = score_text(model, teacher, data, 4, 0);
    CHECK(scores.kl_per_token == 0);
    CHECK(scores.top1_agreement == 1);
  }
}

TEST_CASE("score_text: without a teacher there is neither divergence nor agreement") {
  const Folder folder;
  const auto scores = score_text(tiny_model({kMla}, 1), nullptr, stories(folder, kPadded), 4, 0);
  CHECK(scores.kl_per_token == 0);
  CHECK(scores.top1_agreement == 0);
  CHECK(scores.nats_per_token > 0);
}

TEST_CASE("score_text: another vocabulary, foreign tokens and an empty batch are refused") {
  const Folder folder;
  const auto data = stories(folder, kPadded);
  auto model = tiny_model({kAttention}, 1);
  auto options = tiny_options({kAttention});
  options.vocab_size = 100;
  CausalLm small(options);
  CHECK_THROWS_WITH(score_text(model, &small, data, 4, 0),
                    ContainsSubstring("vocabulary of the teacher: expected 264 entries as the "
                                      "model has, got 100"));
  CHECK_THROWS_WITH(score_text(small, nullptr, data, 4, 0),
                    ContainsSubstring("held-out text: expected token ids in [0, 100), got 114"));
  CHECK_THROWS_AS(score_text(model, nullptr, data, 0, 0), ConfigError);
}

}  // namespace zebra::testing
