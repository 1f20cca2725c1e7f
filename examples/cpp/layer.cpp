// One training step of a small layer through wtacrs.hpp.
//
//   c++ -std=c++17 layer.cpp $(pkg-config --cflags --libs wtacrs) -o layer && ./layer
#include "wtacrs.hpp"

#include <cmath>
#include <cstdio>
#include <vector>

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

  try {
    wtacrs::check(wtacrs_layer_set_budget_fraction(layer.get(), 1.5));
  } catch (const wtacrs::Error &error) {
    std::printf("refused: %s\n", error.what());
    return error.status() == WTACRS_INVALID_BUDGET ? 0 : 1;
  }
  return 1;
}
