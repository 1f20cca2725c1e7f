/* The steps one by one, for a framework that fuses its own: norms, selection, gather, product.
 *
 *   cc steps.c $(pkg-config --cflags --libs wtacrs) -o steps
 *   ./steps testdata/minilm_l3_value_imdb_1024.safetensors
 */
#include "layer.h"
#include <wtacrs.h>

static void check(wtacrs_status status) {
  if (status == WTACRS_OK) return;
  char words[512];
  wtacrs_last_error(words, sizeof words, NULL);
  fprintf(stderr, "%s: %s\n", wtacrs_status_string(status), words);
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: steps LAYER.safetensors\n"), 2;
  float *h = read_tensor(argv[1], "h"), *dz = read_tensor(argv[1], "dz");
  enum { BUDGET = 128 };
  wtacrs_context *context;
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  check(wtacrs_context_create(WTACRS_CPU, 0, &context));
  check(wtacrs_layer_create(&layer));
  check(wtacrs_layer_set_shape(layer, TOKENS, IN_FEATURES, OUT_FEATURES));
  check(wtacrs_layer_set_budget_rows(layer, BUDGET));
  check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_NORMS));
  check(wtacrs_plan_create(context, layer, &plan));
  check(wtacrs_layer_destroy(layer));

  float *h_norms = malloc(TOKENS * sizeof(float)), *dz_norms = malloc(TOKENS * sizeof(float));
  check(wtacrs_row_norms(context, WTACRS_F32, TOKENS, IN_FEATURES, h, IN_FEATURES, h_norms, NULL));
  check(wtacrs_row_norms(context, WTACRS_F32, TOKENS, OUT_FEATURES, dz, OUT_FEATURES, dz_norms, NULL));

  uint32_t indices[BUDGET];
  double scales[BUDGET];
  uint64_t kept, winners;
  check(wtacrs_select(plan, h_norms, dz_norms, 42, 0, 0, indices, scales, BUDGET, &kept, &winners, NULL, 0, NULL));
  printf("%d tokens kept, %d of them certain; the first is %u with scale %.3f\n", (int)kept, (int)winners,
         (unsigned)indices[0], scales[0]);

  float *rows = malloc(BUDGET * IN_FEATURES * sizeof(float));
  check(wtacrs_gather(plan, h, IN_FEATURES, indices, &kept, rows, IN_FEATURES, NULL));

  size_t scratch_bytes;
  check(wtacrs_plan_backward_scratch_bytes(plan, &scratch_bytes));
  void *scratch = aligned_alloc(64, scratch_bytes);
  float *dw = malloc((size_t)IN_FEATURES * OUT_FEATURES * sizeof(float));
  check(wtacrs_weight_gradient(plan, rows, IN_FEATURES, indices, scales, &kept, dz, OUT_FEATURES, dw, OUT_FEATURES, 0,
                               scratch, scratch_bytes, NULL));
  printf("dW[0][0] is about %g\n", dw[0]);

  check(wtacrs_plan_destroy(plan));
  check(wtacrs_context_destroy(context));
  void *all[] = {h, dz, h_norms, dz_norms, rows, scratch, dw};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
  return 0;
}
