#include "ops/basic.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

// One pass: the difference becomes the gradient in place, and the backward only scales it.
class IldFunction : public torch::autograd::Function<IldFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& student,
                            const at::Tensor& teacher, const at::Tensor& weights, IldForm form) {
    const at::ScalarType type = detail::compute_type(student.scalar_type());
    const at::Tensor difference = student.to(type) - teacher.to(type);  // (B, T, D)
    const at::Tensor w = weights.to(type);                              // (B, T)
    at::Tensor distance, factor;                                        // (B, T)
    if (form == IldForm::kNorm) {
      distance = at::linalg_vector_norm(difference, 2, {-1});
      factor = at::where(distance.gt(0), w / distance, at::zeros_like(distance));
    } else {
      const double D = static_cast<double>(student.size(-1));
      distance = difference.square().mean(-1);
      factor = w * (2.0 / D);
    }
    if (student.requires_grad()) {
      difference.mul_(factor.unsqueeze(-1));
      ctx->save_for_backward({difference.to(student.scalar_type())});
    }
    return (distance * w).sum();
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    torch::autograd::variable_list result(4);
    const auto saved = ctx->get_saved_variables();
    if (!saved.empty()) result[0] = (saved[0] * grads[0]).to(saved[0].scalar_type());
    return result;
  }
};

}  // namespace

at::Tensor ild_distance(const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& weights, IldForm form) {
  TORCH_CHECK(student.dim() == 3, "ild_distance student: expected shape (B, T, D), got ",
              student.sizes());
  detail::check_shape("ild_distance teacher", teacher, student.sizes());
  detail::check_shape("ild_distance weights", weights, {student.size(0), student.size(1)});
  return IldFunction::apply(student, teacher.detach(), weights.detach(), form);
}

}  // namespace zebra
