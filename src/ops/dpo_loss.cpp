#include "ops/basic.h"
#include "zebra/losses.h"

namespace zebra {

// Two models and two answers. NOLINTNEXTLINE(readability-function-size)
DpoOutput dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected,
                   const at::Tensor& reference_chosen, const at::Tensor& reference_rejected,
                   double beta, double pair_weight) {
  TORCH_CHECK(chosen.dim() == 1, "dpo_loss chosen: expected shape (B), got ", chosen.sizes());
  detail::check_shape("dpo_loss rejected", rejected, chosen.sizes());
  detail::check_shape("dpo_loss reference_chosen", reference_chosen, chosen.sizes());
  detail::check_shape("dpo_loss reference_rejected", reference_rejected, chosen.sizes());
  const at::Tensor reference = (reference_chosen - reference_rejected).detach();  // (B)
  const at::Tensor margins = (chosen - rejected - reference) * beta;              // (B)
  return {at::log_sigmoid(margins).sum() * -pair_weight, margins.detach()};
}

}  // namespace zebra
