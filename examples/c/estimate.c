/* A training loop's view of one linear layer: dW = H^T dZ of a recorded layer from 30 % of its tokens, from the same tokens
 * packed in 4 bits an element, and from all tokens packed; how far off each is, and what it saves.
 *
 *   cc estimate.c $(pkg-config --cflags --libs wtacrs) -lm -o estimate
 *   ./estimate testdata/minilm_l3_value_imdb_1024.safetensors
 */
#include "layer.h"

static void steps(wtacrs_context *context, const float *h, const float *dz, double share, wtacrs_packing packing) {
  /* Once for each layer: describe it, freeze the description into a plan, and make the predictor of its gradients' norms.
   * The plan keeps nothing of the description, which may go, or describe the next layer. */
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  wtacrs_norm_predictor *predictor;
  check(wtacrs_layer_create(&layer));
  check(wtacrs_layer_set_shape(layer, TOKENS, IN_FEATURES, OUT_FEATURES));
  check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, share));
  check(wtacrs_layer_set_packing(layer, packing));
  check(wtacrs_plan_create(context, layer, &plan));
  check(wtacrs_layer_destroy(layer));
  check(wtacrs_norm_predictor_create(context, IN_FEATURES, NULL, &predictor));

  /* All memory is the caller's. Saved memory takes the place of H from the forward to the backward pass, so each layer
   * needs its own. Scratch memory is dead between calls, so layers share one block of the largest size; the CPU's forward
   * pass needs none. */
  wtacrs_plan_info info = {.size = sizeof info};
  check(wtacrs_plan_get_info(plan, &info));
  void *saved = allocate(info.saved_bytes, info.alignment);
  void *scratch = allocate(info.backward_scratch_bytes, info.alignment);
  float *dw = allocate((size_t)IN_FEATURES * OUT_FEATURES * sizeof(float), info.alignment);
  float *norms = allocate(TOKENS * sizeof(float), info.alignment);

  /* Every step: forward, backward, learn. The predictor starts without knowledge and gets better from step to step. Where
   * all rows are packed, nothing is chosen, and a predictor is not needed. */
  const uint64_t seed = 42;
  uint64_t offset = 0;
  for (int step = 0; step < 3; step++) {
    wtacrs_forward_options forward = {.size = sizeof forward, .predictor = predictor};
    check(wtacrs_plan_forward(plan, h, IN_FEATURES, seed, offset, &forward, saved, info.saved_bytes, NULL, 0, NULL));
    offset += info.draws; /* the next pass draws other bits */

    wtacrs_backward_options backward = {.size = sizeof backward, .dz_norms = norms};
    check(wtacrs_plan_backward(plan, saved, info.saved_bytes, dz, OUT_FEATURES, dw, OUT_FEATURES, &backward, scratch,
                               info.backward_scratch_bytes, NULL));
    check(wtacrs_norm_predictor_update(predictor, plan, saved, info.saved_bytes, norms, NULL, NULL));
    printf("step %d: relative error of dW %.3f\n", step, relative_error(dw, h, dz));
  }
  printf("%zu of %d tokens: %zu bytes saved, %zu scratch; the exact layer saves %zu\n", info.budget_rows, TOKENS,
         info.saved_bytes, info.backward_scratch_bytes, info.exact_bytes);

  check(wtacrs_norm_predictor_destroy(predictor));
  check(wtacrs_plan_destroy(plan));
  void *all[] = {saved, scratch, dw, norms};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: estimate LAYER.safetensors\n"), 2;
  float *h = read_tensor(argv[1], "h"), *dz = read_tensor(argv[1], "dz");

  /* Once: a device. WTACRS_DEVICE_CUDA with -1 is the GPU whose CUDA context is current; all memory is then the GPU's. */
  wtacrs_context *context;
  check(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  steps(context, h, dz, 0.3, WTACRS_PACKING_NATIVE);
  steps(context, h, dz, 0.3, WTACRS_PACKING_BITS4);
  steps(context, h, dz, 1, WTACRS_PACKING_BITS4);
  check(wtacrs_context_destroy(context));
  free(h), free(dz);
  return 0;
}
