// One training step of a small layer, and the gradients of attention's scores, through wtacrs.hpp.
//
//   c++ -std=c++17 layer.cpp $(pkg-config --cflags --libs wtacrs) -o layer && ./layer
#include "wtacrs.hpp"

#include <cmath>
#include <cstdio>
#include <vector>

// scores = Q K^T for every (batch, head), where K lies as keys x channels; dQ sums over keys and dK over queries.
static void scores(const wtacrs::Context &context) {
  const std::size_t heads = 4, queries = 64, channels = 16, keys = 48;
  std::vector<float> q(heads * queries * channels), k(heads * keys * channels), g(heads * queries * keys);
  for (std::size_t i = 0; i < q.size(); i++) q[i] = std::sin(0.13f * static_cast<float>(i));
  for (std::size_t i = 0; i < k.size(); i++) k[i] = std::cos(0.29f * static_cast<float>(i));
  for (std::size_t i = 0; i < g.size(); i++) g[i] = std::sin(0.07f * static_cast<float>(i)) / 8;
  std::vector<float> dq(q.size()), dk_transposed(k.size());

  const auto product = wtacrs::tensor_mul();
  wtacrs::check(wtacrs_tensor_mul_set_shape(product.get(), 1, heads, queries, channels, keys));
  wtacrs::check(wtacrs_tensor_mul_set_budget_fraction(product.get(), WTACRS_LEFT, 0.3));
  wtacrs::check(wtacrs_tensor_mul_set_budget_fraction(product.get(), WTACRS_RIGHT, 0.3));
  const wtacrs::TensorMulPlan plan(context, product);
  const auto saved = plan.saved(), forward = plan.forward_scratch(), backward = plan.backward_scratch();
  std::int64_t q_shape[] = {1, heads, queries, channels}, k_shape[] = {1, heads, channels, keys};
  std::int64_t k_strides[] = {heads * keys * channels, keys * channels, 1, channels};
  const wtacrs_dltensor a = {q.data(), {1, 0}, 4, {2, 32, 1}, q_shape, nullptr, 0};
  const wtacrs_dltensor b = {k.data(), {1, 0}, 4, {2, 32, 1}, k_shape, k_strides, 0};
  wtacrs::check(wtacrs_tensor_mul_forward_dl(plan.get(), &a, &b, nullptr, nullptr, 42, 0, saved.data(), saved.bytes(),
                                             forward.data(), forward.bytes(), nullptr));
  wtacrs::check(wtacrs_tensor_mul_backward(plan.get(), saved.data(), saved.bytes(), g.data(), dq.data(),
                                           dk_transposed.data(), 0, nullptr, nullptr, backward.data(), backward.bytes(),
                                           nullptr));
  std::printf("dQ[0][0] from %zu bytes of Q and K: %g; the next offset is %llu\n", saved.bytes(), dq[0],
              static_cast<unsigned long long>(plan.draws()));
}

// Whether the calling thread has a CUDA context that libwtacrs could work in.
static bool has_cuda() {
  try {
    return wtacrs::cuda() != nullptr;
  } catch (const wtacrs::Error &error) {
    if (error.status() != WTACRS_NO_DEVICE) throw;
    return false;
  }
}

int main() {
  const std::size_t tokens = 256, in_features = 32, out_features = 16;
  std::vector<float> h(tokens * in_features), dz(tokens * out_features), dw(in_features * out_features), norms(tokens);
  for (std::size_t i = 0; i < h.size(); i++) h[i] = std::sin(0.37f * static_cast<float>(i));
  for (std::size_t i = 0; i < dz.size(); i++)
    dz[i] = std::cos(0.11f * static_cast<float>(i)) / static_cast<float>(1 + i / out_features % 7);

  const auto context = wtacrs::cpu();
  const auto layer = wtacrs::layer();
  wtacrs::check(wtacrs_layer_set_shape(layer.get(), tokens, in_features, out_features));
  wtacrs::check(wtacrs_layer_set_budget_fraction(layer.get(), 0.3));
  const wtacrs::Plan plan(context, layer);
  const auto predictor = wtacrs::norm_predictor(in_features);
  const auto saved = plan.saved(), forward = plan.forward_scratch(), backward = plan.backward_scratch();

  wtacrs::check(wtacrs_forward(plan.get(), h.data(), in_features, nullptr, predictor.get(), 42, 0, saved.data(),
                               saved.bytes(), forward.data(), forward.bytes(), nullptr));
  wtacrs::check(wtacrs_backward(plan.get(), saved.data(), saved.bytes(), dz.data(), out_features, dw.data(), out_features,
                                0, norms.data(), nullptr, backward.data(), backward.bytes(), nullptr));
  wtacrs::check(wtacrs_norm_predictor_update(predictor.get(), plan.get(), saved.data(), saved.bytes(), norms.data()));
  std::printf("dW[0][0] from %zu of %zu tokens: %g\n", plan.budget(), tokens, dw[0]);
  scores(context);
  std::printf("a CUDA context is current: %s\n", has_cuda() ? "yes" : "no");

  try {
    wtacrs::check(wtacrs_layer_set_budget_fraction(layer.get(), 1.5));
  } catch (const wtacrs::Error &error) {
    std::printf("refused: %s\n", error.what());
    return error.status() == WTACRS_INVALID_BUDGET ? 0 : 1;
  }
  return 1;
}
