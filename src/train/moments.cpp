#include "train/moments.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace zebra {

namespace {

constexpr int kDecades = 7;

// Magnitudes in decades below 1, each with twice the levels of the one below it; 0 and +-1 are
// levels, so that a block's largest value is kept exactly. 256 in all, ascending.
std::vector<float> tree_levels(bool with_sign) {
  std::vector<float> levels = {0.0F, 1.0F};
  for (int decade = 0; decade < kDecades; ++decade) {
    const int count = (with_sign ? 1 : 2) << decade;
    const double unit = std::pow(10.0, decade + 1 - kDecades);
    for (int i = 0; i < count; ++i) {
      const double middle = 0.1 + 0.9 * (i + 0.5) / count;
      levels.push_back(static_cast<float>(unit * middle));
      const bool last = decade + 1 == kDecades && i + 1 == count;
      if (with_sign) levels.push_back(last ? -1.0F : static_cast<float>(-unit * middle));
    }
  }
  std::sort(levels.begin(), levels.end());
  return levels;
}

// 16 bits for every place, a function of step and place alone.
at::Tensor noise(const at::Tensor& places, int64_t step) {
  constexpr int64_t kMask = 0x7fffffff;
  auto x = places.bitwise_and(kMask).add_((step * 0x9e3779b1) & kMask);
  for (const int64_t factor : {0x45d9f3b, 0x119de1f3}) {
    x.bitwise_xor_(x.bitwise_right_shift(16)).mul_(factor).bitwise_and_(kMask);
  }
  return x.bitwise_xor(x.bitwise_right_shift(15)).bitwise_and(0xffff).to(at::kInt);
}

}  // namespace

Moment::Moment(const at::Tensor& like, MomentFormat format, Kind kind)
    : format_(like.scalar_type() == at::kFloat ? format : MomentFormat::kFp32), kind_(kind) {
  switch (format_) {
    case MomentFormat::kFp32:
      values_ = at::zeros_like(like);
      return;
    case MomentFormat::kBf16:
      values_ = at::zeros(like.sizes(), like.options().dtype(at::kBFloat16));
      return;
    case MomentFormat::kInt8:
      levels_ = at::tensor(tree_levels(kind == Kind::kFirst)).to(like.device());
      midpoints_ =
          (levels_.narrow(0, 1, levels_.numel() - 1) + levels_.narrow(0, 0, levels_.numel() - 1)) /
          2;
      values_ = at::empty(like.sizes(), like.options().dtype(at::kByte));
      scales_ = at::zeros({like.numel() / kBlock}, like.options());
      encode(0, at::zeros_like(like));
      return;
  }
}

at::Tensor Moment::read(int64_t begin, int64_t size) const {
  if (format_ == MomentFormat::kFp32) return values_.narrow(0, begin, size);
  if (format_ == MomentFormat::kBf16) return values_.narrow(0, begin, size).to(at::kFloat);
  const int64_t first = begin / kBlock, blocks = (begin + size - 1) / kBlock + 1 - first;
  const auto codes = values_.narrow(0, first * kBlock, blocks * kBlock).to(at::kInt);
  const auto scale = scales_.narrow(0, first, blocks).unsqueeze(1);  // (blocks, 1)
  const auto level = levels_.index_select(0, codes).view({blocks, kBlock}) * scale;
  const auto all = (kind_ == Kind::kFirst ? level : level.square()).flatten();
  return all.narrow(0, begin - first * kBlock, size);
}

void Moment::encode(int64_t begin, const at::Tensor& values) {
  const auto blocks = (kind_ == Kind::kFirst ? values : values.sqrt()).view({-1, kBlock});
  const auto scale = blocks.abs().amax({1}, /*keepdim=*/true);  // (blocks, 1)
  const auto unit = at::where(scale.gt(0), blocks / scale, at::zeros_like(blocks));
  scales_.narrow(0, begin / kBlock, blocks.size(0)).copy_(scale.squeeze(1));
  values_.narrow(0, begin, values.numel()).copy_(at::bucketize(unit, midpoints_).flatten());
}

void Moment::write(int64_t begin, const at::Tensor& values, int64_t step, at::Tensor places) {
  const auto part = values_.narrow(0, begin, values.numel());
  if (format_ == MomentFormat::kInt8) {
    encode(begin, values);
  } else if (format_ == MomentFormat::kBf16) {
    // Adding below the kept bits carries into them with the right probability.
    if (!places.defined()) {
      places = at::arange(begin, begin + values.numel(), values.options().dtype(at::kLong));
    }
    const auto bits = values.view(at::kInt) + noise(places, step);
    part.copy_(bits.bitwise_and(~0xffff).view(at::kFloat));
  } else if (part.data_ptr() != values.data_ptr()) {
    part.copy_(values);
  }
}

int64_t Moment::bytes() const {
  int64_t total = 0;
  for (const auto& tensor : {values_, scales_}) {
    if (tensor.defined()) total += static_cast<int64_t>(tensor.nbytes());
  }
  return total;
}

}  // namespace zebra
