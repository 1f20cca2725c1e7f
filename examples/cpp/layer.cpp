// A few training steps of a small layer, and the gradients of attention's scores, through wtacrs.hpp.
//
//   c++ -std=c++17 layer.cpp $(pkg-config --cflags --libs wtacrs) -o layer && ./layer
#include <cmath>
#include <cstdio>
#include <vector>
#include <wtacrs.hpp>

using wtacrs::check;

// A linear layer, as a framework would hold it: its plan, its predictor, and the memory that takes the place of H.
class SampledLinear {
 public:
  SampledLinear(const wtacrs::Context &context, const wtacrs::Layer &layer, std::size_t in_features,
                std::size_t out_features)
      : in_features_(in_features),
        out_features_(out_features),
        plan_(context, layer),
        predictor_(wtacrs::norm_predictor(context, in_features)),
        saved_(plan_.saved()),
        forward_scratch_(plan_.forward_scratch()),
        backward_scratch_(plan_.backward_scratch()) {}

  const wtacrs_plan_info &info() const { return plan_.info(); }

  // Keeps what the backward pass needs of H, which may then be freed.
  void forward(const float *h, std::uint64_t seed, std::uint64_t offset) {
    auto options = wtacrs::sized<wtacrs_forward_options>();
    options.predictor = predictor_.get();
    check(wtacrs_plan_forward(plan_.get(), h, in_features_, seed, offset, &options, saved_.data(), saved_.bytes(),
                              forward_scratch_.data(), forward_scratch_.bytes(), nullptr));
  }

  // Writes dW, and lets the predictor learn from the norms of dZ.
  void backward(const float *dz, float *dw, float *norms) {
    auto options = wtacrs::sized<wtacrs_backward_options>();
    options.dz_norms = norms;
    check(wtacrs_plan_backward(plan_.get(), saved_.data(), saved_.bytes(), dz, out_features_, dw, out_features_, &options,
                               backward_scratch_.data(), backward_scratch_.bytes(), nullptr));
    check(wtacrs_norm_predictor_update(predictor_.get(), plan_.get(), saved_.data(), saved_.bytes(), norms, nullptr,
                                       nullptr));
  }

 private:
  std::size_t in_features_, out_features_;
  wtacrs::Plan plan_;
  wtacrs::NormPredictor predictor_;
  wtacrs::Memory saved_, forward_scratch_, backward_scratch_;
};

static void linear(const wtacrs::Context &context) {
  const std::size_t tokens = 256, in_features = 32, out_features = 16;
  std::vector<float> h(tokens * in_features), dz(tokens * out_features), dw(in_features * out_features), norms(tokens);
  for (std::size_t i = 0; i < h.size(); i++) h[i] = std::sin(0.37f * static_cast<float>(i));
  for (std::size_t i = 0; i < dz.size(); i++)
    dz[i] = std::cos(0.11f * static_cast<float>(i)) / static_cast<float>(1 + i / out_features % 7);

  const auto layer = wtacrs::layer();
  check(wtacrs_layer_set_shape(layer.get(), tokens, in_features, out_features));
  check(wtacrs_layer_set_budget(layer.get(), WTACRS_BUDGET_FRACTION, 0.3));
  SampledLinear linear(context, layer, in_features, out_features);
  for (std::uint64_t step = 0; step < 3; step++) {
    linear.forward(h.data(), 42, step * linear.info().draws);
    linear.backward(dz.data(), dw.data(), norms.data());
  }
  std::printf("dW[0][0] from %zu of %zu tokens: %g\n", linear.info().budget_rows, tokens, dw[0]);
}

// scores = Q K^T for every (batch, head), where K lies as keys x channels; dQ sums over keys and dK over queries.
static void scores(const wtacrs::Context &context) {
  const std::size_t heads = 4, queries = 64, channels = 16, keys = 48;
  std::vector<float> q(heads * queries * channels), k(heads * keys * channels), g(heads * queries * keys);
  for (std::size_t i = 0; i < q.size(); i++) q[i] = std::sin(0.13f * static_cast<float>(i));
  for (std::size_t i = 0; i < k.size(); i++) k[i] = std::cos(0.29f * static_cast<float>(i));
  for (std::size_t i = 0; i < g.size(); i++) g[i] = std::sin(0.07f * static_cast<float>(i)) / 8;
  std::vector<float> dq(q.size()), dk_transposed(k.size());

  const auto product = wtacrs::tensor_mul();
  check(wtacrs_tensor_mul_set_shape(product.get(), 1, heads, queries, channels, keys));
  check(wtacrs_tensor_mul_set_budget(product.get(), WTACRS_SIDE_LEFT, WTACRS_BUDGET_FRACTION, 0.3));
  check(wtacrs_tensor_mul_set_budget(product.get(), WTACRS_SIDE_RIGHT, WTACRS_BUDGET_FRACTION, 0.3));
  const wtacrs::TensorMulPlan plan(context, product);
  const auto saved = plan.saved(), forward = plan.forward_scratch(), backward = plan.backward_scratch();
  std::int64_t q_shape[] = {1, heads, queries, channels}, k_shape[] = {1, heads, channels, keys};
  std::int64_t k_strides[] = {heads * keys * channels, keys * channels, 1, channels};
  const wtacrs_dltensor a = {q.data(), {1, 0}, 4, {2, 32, 1}, q_shape, nullptr, 0};
  const wtacrs_dltensor b = {k.data(), {1, 0}, 4, {2, 32, 1}, k_shape, k_strides, 0};
  check(wtacrs_tensor_mul_plan_forward_dl(plan.get(), &a, &b, 42, 0, nullptr, saved.data(), saved.bytes(), forward.data(),
                                          forward.bytes(), nullptr));
  check(wtacrs_tensor_mul_plan_backward(plan.get(), saved.data(), saved.bytes(), g.data(), dq.data(), dk_transposed.data(),
                                        nullptr, backward.data(), backward.bytes(), nullptr));
  std::printf("dQ[0][0] from %zu bytes of Q and K: %g; the next offset is %llu\n", saved.bytes(), dq[0],
              static_cast<unsigned long long>(plan.info().draws));
}

// Whether the calling thread has a CUDA context that libwtacrs could work in.
static bool has_cuda() {
  try {
    return wtacrs::cuda() != nullptr;
  } catch (const wtacrs::Error &error) {
    if (error.status() != WTACRS_STATUS_NO_DEVICE) throw;
    return false;
  }
}

int main() {
  const auto context = wtacrs::cpu();
  linear(context);
  scores(context);
  std::printf("a CUDA context is current: %s\n", has_cuda() ? "yes" : "no");

  try {
    check(wtacrs_layer_set_budget(wtacrs::layer().get(), WTACRS_BUDGET_FRACTION, 1.5));
  } catch (const wtacrs::Error &error) {
    std::printf("refused: %s\n", error.what());
    return error.status() == WTACRS_STATUS_INVALID_BUDGET ? 0 : 1;
  }
  return 1;
}
