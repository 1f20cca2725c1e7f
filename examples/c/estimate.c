/* dW = H^T dZ of a recorded layer from 30 % of its tokens: how far off it is, and what it saves.
 *
 *   cc estimate.c $(pkg-config --cflags --libs wtacrs) -lm -o estimate
 *   ./estimate testdata/minilm_l3_value_imdb_1024.safetensors
 */
#include "layer.h"
#include <math.h>
#include <wtacrs.h>

static void check(wtacrs_status status) {
  if (status == WTACRS_OK) return;
  char words[512];
  wtacrs_last_error(words, sizeof words, NULL);
  fprintf(stderr, "%s: %s\n", wtacrs_status_string(status), words);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: estimate LAYER.safetensors\n"), 2;
  float *h = read_tensor(argv[1], "h"), *dz = read_tensor(argv[1], "dz");

  /* Once for each layer: describe, freeze, ask for sizes. */
  wtacrs_context *context;
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  wtacrs_norm_predictor *predictor;
  check(wtacrs_context_create(WTACRS_CPU, 0, &context));
  check(wtacrs_layer_create(&layer));
  check(wtacrs_layer_set_shape(layer, TOKENS, IN_FEATURES, OUT_FEATURES));
  check(wtacrs_layer_set_budget_fraction(layer, 0.3));
  check(wtacrs_plan_create(context, layer, &plan));
  check(wtacrs_layer_destroy(layer));
  check(wtacrs_norm_predictor_create(IN_FEATURES, &predictor));
  size_t budget, saved_bytes, scratch_bytes, exact_bytes;
  uint64_t draws;
  check(wtacrs_plan_budget(plan, &budget));
  check(wtacrs_plan_memory(plan, &saved_bytes, &scratch_bytes, &exact_bytes));
  check(wtacrs_plan_draws(plan, &draws));
  void *saved = aligned_alloc(64, saved_bytes), *scratch = aligned_alloc(64, scratch_bytes);
  size_t count = (size_t)IN_FEATURES * OUT_FEATURES;
  float *dw = malloc(count * sizeof(float)), *norms = malloc(TOKENS * sizeof(float));
  double *exact = calloc(count, sizeof(double));
  if (!saved || !scratch || !dw || !norms || !exact) return 1;

  for (size_t t = 0; t < TOKENS; t++)
    for (size_t i = 0; i < IN_FEATURES; i++)
      for (size_t j = 0; j < OUT_FEATURES; j++)
        exact[i * OUT_FEATURES + j] += (double)h[t * IN_FEATURES + i] * dz[t * OUT_FEATURES + j];

  /* Every step: forward, backward, teach. The predictor gets better from step to step. */
  for (uint64_t step = 0; step < 3; step++) {
    check(wtacrs_forward(plan, h, IN_FEATURES, NULL, predictor, 42, step * draws, saved, saved_bytes, NULL, 0, NULL));
    check(wtacrs_backward(plan, saved, saved_bytes, dz, OUT_FEATURES, dw, OUT_FEATURES, 0, norms, NULL, scratch,
                          scratch_bytes, NULL));
    check(wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms));
    double difference = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
      difference += (dw[i] - exact[i]) * (dw[i] - exact[i]);
      size += exact[i] * exact[i];
    }
    printf("step %d: relative error of dW %.3f\n", (int)step, sqrt(difference / size));
  }
  printf("%zu of %d tokens: %zu bytes saved, %zu scratch; the exact layer saves %zu\n", budget, TOKENS, saved_bytes,
         scratch_bytes, exact_bytes);

  check(wtacrs_norm_predictor_destroy(predictor));
  check(wtacrs_plan_destroy(plan));
  check(wtacrs_context_destroy(context));
  void *all[] = {h, dz, saved, scratch, dw, norms, exact};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
  return 0;
}
