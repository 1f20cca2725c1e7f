/* The steps one by one, for a framework that fuses its own: norms, selection, gather, product.
 *
 *   cc steps.c $(pkg-config --cflags --libs wtacrs) -o steps
 *   ./steps testdata/minilm_l3_value_imdb_1024.safetensors
 */
#include "layer.h"

enum { BUDGET = 128 };

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: steps LAYER.safetensors\n"), 2;
  float *h = read_tensor(argv[1], "h"), *dz = read_tensor(argv[1], "dz");
  wtacrs_context *context;
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  check(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  check(wtacrs_layer_create(&layer));
  check(wtacrs_layer_set_shape(layer, TOKENS, IN_FEATURES, OUT_FEATURES));
  check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, BUDGET));
  check(wtacrs_layer_set_source(layer, WTACRS_SOURCE_NORMS, 0)); /* norms are taken as they are: nothing is mixed in */
  check(wtacrs_plan_create(context, layer, &plan));
  check(wtacrs_layer_destroy(layer));
  wtacrs_plan_info info = {.size = sizeof info};
  check(wtacrs_plan_get_info(plan, &info));

  float *h_norms = malloc(TOKENS * sizeof(float)), *dz_norms = malloc(TOKENS * sizeof(float));
  if (!h_norms || !dz_norms) return 1;
  check(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, IN_FEATURES, h, IN_FEATURES, h_norms,
                             NULL));
  check(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, OUT_FEATURES, dz, OUT_FEATURES, dz_norms,
                             NULL));

  /* A selection is the caller's arrays, with room for the budget: the struct only says where they are. */
  uint32_t indices[BUDGET];
  double scales[BUDGET];
  uint64_t kept, winners;
  wtacrs_selection selection = {.size = sizeof selection, .indices = indices, .scales = scales, .capacity = BUDGET,
                                .kept = &kept, .winners = &winners};
  check(wtacrs_plan_select(plan, h_norms, dz_norms, 42, 0, 0, &selection, NULL, 0, NULL));
  printf("%d tokens kept, %d of them certain; the first is %u with scale %.3f\n", (int)kept, (int)winners,
         (unsigned)indices[0], scales[0]);

  float *rows = malloc(BUDGET * IN_FEATURES * sizeof(float));
  float *dw = malloc((size_t)IN_FEATURES * OUT_FEATURES * sizeof(float));
  void *scratch = allocate(info.weight_gradient_scratch_bytes, info.alignment);
  if (!rows || !dw) return 1;
  check(wtacrs_plan_gather(plan, h, IN_FEATURES, &selection, rows, IN_FEATURES, NULL));
  check(wtacrs_plan_weight_gradient(plan, rows, IN_FEATURES, &selection, dz, OUT_FEATURES, dw, OUT_FEATURES, 0, scratch,
                                    info.weight_gradient_scratch_bytes, NULL));
  printf("dW[0][0] is about %g\n", dw[0]);

  check(wtacrs_plan_destroy(plan));
  check(wtacrs_context_destroy(context));
  void *all[] = {h, dz, h_norms, dz_norms, rows, scratch, dw};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
  return 0;
}
