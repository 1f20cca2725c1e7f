/* A whole client: a recorded layer's dW by one call and by steps, norm cache, norm predictor, save and load.
 * Usage: client FOLDER, with h.raw and dz.raw (1024 x 384 floats) in it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

#define TOKENS ((size_t)1024)
#define FEATURES ((size_t)384)

static void check(wtacrs_status status, const char *what) {
  if (status != WTACRS_OK) {
    char words[512];
    wtacrs_last_error(words, sizeof words, NULL);
    fprintf(stderr, "%s: %s (%s)\n", what, wtacrs_status_string(status), words);
    exit(1);
  }
}
#define CHECK(call) check(call, #call)

static void require(int truth, const char *what) {
  if (!truth) {
    fprintf(stderr, "not so: %s\n", what);
    exit(1);
  }
}
#define REQUIRE(truth) require(truth, #truth)

static void *aligned(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  REQUIRE(memory != NULL);
  return memory;
}

static float *read_raw(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  REQUIRE(file != NULL);
  float *values = malloc(TOKENS * FEATURES * sizeof(float));
  REQUIRE(values != NULL);
  REQUIRE(fread(values, sizeof(float), TOKENS * FEATURES, file) == TOKENS * FEATURES);
  fclose(file);
  return values;
}

static double error_of(const float *estimate, const double *exact) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < FEATURES * FEATURES; i++) {
    difference += (estimate[i] - exact[i]) * (estimate[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  return sqrt(difference / size);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  REQUIRE(wtacrs_abi_version() == WTACRS_ABI_VERSION);
  float *h = read_raw(argv[1], "h.raw"), *dz = read_raw(argv[1], "dz.raw");
  double *exact = calloc(FEATURES * FEATURES, sizeof(double));
  for (size_t t = 0; t < TOKENS; t++)
    for (size_t i = 0; i < FEATURES; i++)
      for (size_t j = 0; j < FEATURES; j++) exact[i * FEATURES + j] += (double)h[t * FEATURES + i] * dz[t * FEATURES + j];

  wtacrs_context *context;
  wtacrs_layer *layer;
  wtacrs_plan *plan, *predicted, *cached;
  CHECK(wtacrs_context_create(WTACRS_CPU, 0, &context));
  CHECK(wtacrs_layer_create(&layer));
  CHECK(wtacrs_layer_set_shape(layer, TOKENS, FEATURES, FEATURES));
  CHECK(wtacrs_layer_set_budget_fraction(layer, 0.3));
  CHECK(wtacrs_layer_set_source(layer, WTACRS_SOURCE_NORMS));
  CHECK(wtacrs_plan_create(context, layer, &plan));
  CHECK(wtacrs_layer_set_source(layer, WTACRS_SOURCE_PREDICTED));
  CHECK(wtacrs_plan_create(context, layer, &predicted));
  CHECK(wtacrs_layer_set_source(layer, WTACRS_SOURCE_CACHED));
  CHECK(wtacrs_plan_create(context, layer, &cached));
  CHECK(wtacrs_layer_destroy(layer));
  CHECK(wtacrs_context_destroy(context)); /* plans live on */

  size_t budget, saved_bytes, forward_bytes, backward_bytes, estimate_bytes, scratch_bytes, exact_bytes;
  uint64_t draws;
  CHECK(wtacrs_plan_budget(plan, &budget));
  CHECK(wtacrs_plan_saved_bytes(plan, &saved_bytes));
  CHECK(wtacrs_plan_forward_scratch_bytes(plan, &forward_bytes));
  CHECK(wtacrs_plan_backward_scratch_bytes(plan, &backward_bytes));
  CHECK(wtacrs_plan_estimate_scratch_bytes(plan, &estimate_bytes));
  CHECK(wtacrs_plan_draws(plan, &draws));
  CHECK(wtacrs_plan_memory(plan, NULL, &scratch_bytes, &exact_bytes));
  REQUIRE(budget == 307 && draws == 1024 && exact_bytes == TOKENS * FEATURES * 4);
  REQUIRE(scratch_bytes == backward_bytes && saved_bytes < exact_bytes * 32 / 100);

  void *saved = aligned(saved_bytes), *scratch = aligned(estimate_bytes);
  float *norms = malloc(TOKENS * sizeof(float)), *again = malloc(TOKENS * sizeof(float));
  float *dw = malloc(FEATURES * FEATURES * sizeof(float)), *other = malloc(FEATURES * FEATURES * sizeof(float));
  float *bias = malloc(FEATURES * sizeof(float));
  CHECK(wtacrs_context_create(WTACRS_CPU, 0, &context));
  CHECK(wtacrs_row_norms(context, WTACRS_F32, TOKENS, FEATURES, dz, FEATURES, norms, NULL));

  /* Forward and backward with exact norms. */
  CHECK(wtacrs_forward(plan, h, FEATURES, norms, NULL, 42, 0, saved, saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_backward(plan, saved, saved_bytes, dz, FEATURES, dw, FEATURES, 0, again, bias, scratch, backward_bytes, NULL));
  double error = error_of(dw, exact);
  printf("error %.3f at budget %zu: %zu bytes saved of %zu\n", error, budget, saved_bytes, exact_bytes);
  REQUIRE(error > 0.08 && error < 0.14);
  REQUIRE(memcmp(norms, again, TOKENS * sizeof(float)) == 0);
  double sum = 0;
  for (size_t t = 0; t < TOKENS; t++) sum += dz[t * FEATURES + 7];
  REQUIRE(fabs(sum - bias[7]) < 1e-4);
  CHECK(wtacrs_backward(plan, saved, saved_bytes, dz, FEATURES, dw, FEATURES, 1, NULL, NULL, scratch, backward_bytes, NULL));
  for (size_t i = 0; i < FEATURES * FEATURES; i++) dw[i] /= 2;
  REQUIRE(fabs(error_of(dw, exact) - error) < 1e-6);

  /* The one-shot estimate has the same weights, so the same bits. */
  CHECK(wtacrs_backward(plan, saved, saved_bytes, dz, FEATURES, dw, FEATURES, 0, NULL, NULL, scratch, backward_bytes, NULL));
  CHECK(wtacrs_estimate(plan, h, FEATURES, dz, FEATURES, 42, 0, other, FEATURES, scratch, estimate_bytes, NULL));
  REQUIRE(memcmp(dw, other, FEATURES * FEATURES * sizeof(float)) == 0);

  /* Step by step, likewise. */
  float *input_norms = malloc(TOKENS * sizeof(float)), *rows = malloc(budget * FEATURES * sizeof(float));
  uint32_t *indices = malloc(budget * sizeof(uint32_t)), *saved_indices = malloc(budget * sizeof(uint32_t));
  double *scales = malloc(budget * sizeof(double)), *saved_scales = malloc(budget * sizeof(double));
  double *weights = malloc(TOKENS * sizeof(double));
  uint64_t kept, winners, saved_kept, saved_winners;
  CHECK(wtacrs_row_norms(context, WTACRS_F32, TOKENS, FEATURES, h, FEATURES, input_norms, NULL));
  CHECK(wtacrs_select(plan, input_norms, norms, 42, 0, 0, indices, scales, budget, &kept, &winners, NULL, 0, NULL));
  CHECK(wtacrs_saved_selection(plan, saved, saved_bytes, saved_indices, saved_scales, budget, &saved_kept, &saved_winners));
  REQUIRE(kept == budget && kept == saved_kept && winners == saved_winners);
  REQUIRE(memcmp(indices, saved_indices, kept * sizeof(uint32_t)) == 0);
  REQUIRE(memcmp(scales, saved_scales, kept * sizeof(double)) == 0);
  CHECK(wtacrs_gather(plan, h, FEATURES, indices, &kept, rows, FEATURES, NULL));
  REQUIRE(memcmp(rows + FEATURES, h + indices[1] * FEATURES, FEATURES * sizeof(float)) == 0);
  CHECK(wtacrs_weight_gradient(plan, rows, FEATURES, indices, scales, &kept, dz, FEATURES, other, FEATURES, 0, scratch,
                               backward_bytes, NULL));
  REQUIRE(memcmp(dw, other, FEATURES * FEATURES * sizeof(float)) == 0);

  /* DLPack: dW transposed, as PyTorch stores weights. */
  int64_t shape[2] = {(int64_t)TOKENS, (int64_t)FEATURES}, square[2] = {(int64_t)FEATURES, (int64_t)FEATURES};
  int64_t turned[2] = {1, (int64_t)FEATURES};
  wtacrs_dltensor h_dl = {h - 4, {1, 0}, 2, {2, 32, 1}, shape, NULL, 16};
  wtacrs_dltensor dz_dl = {dz, {1, 0}, 2, {2, 32, 1}, shape, NULL, 0};
  wtacrs_dltensor dw_dl = {other, {1, 0}, 2, {2, 32, 1}, square, turned, 0};
  CHECK(wtacrs_forward_dl(plan, &h_dl, norms, NULL, 42, 0, saved, saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_backward_dl(plan, saved, saved_bytes, &dz_dl, &dw_dl, 0, NULL, NULL, scratch, backward_bytes, NULL));
  for (size_t i = 0; i < FEATURES; i++)
    for (size_t j = 0; j < FEATURES; j++)
      REQUIRE(fabsf(other[j * FEATURES + i] - dw[i * FEATURES + j]) <= 1e-5f * fabsf(dw[i * FEATURES + j]) + 1e-7f);

  /* Theory. */
  double threshold, expected_rows, squared_error;
  uint64_t theory_winners;
  CHECK(wtacrs_weights(plan, input_norms, norms, weights, NULL));
  CHECK(wtacrs_theory(plan, weights, weights, &threshold, &theory_winners, &expected_rows, &squared_error));
  REQUIRE(theory_winners == winners && expected_rows == (double)budget && threshold > 0 && squared_error > 0);

  /* The predictor: cold it knows nothing; taught, it differs; saved and loaded, it is the same. */
  wtacrs_norm_predictor *predictor, *loaded, *rank;
  CHECK(wtacrs_norm_predictor_create(FEATURES, &predictor));
  CHECK(wtacrs_norm_predictor_create(FEATURES, &rank));
  CHECK(wtacrs_forward(predicted, h, FEATURES, NULL, predictor, 1, 0, saved, saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_norm_predictor_update(predictor, predicted, saved, saved_bytes, norms));
  size_t count;
  CHECK(wtacrs_norm_predictor_statistics_count(rank, &count));
  double *sums = malloc(count * sizeof(double));
  CHECK(wtacrs_norm_predictor_statistics(rank, predicted, saved, saved_bytes, norms, sums, count));
  CHECK(wtacrs_norm_predictor_apply(rank, sums, count));
  size_t needed, rank_needed;
  CHECK(wtacrs_norm_predictor_save(predictor, NULL, 0, &needed));
  unsigned char *bytes = malloc(needed), *rank_bytes = malloc(needed);
  CHECK(wtacrs_norm_predictor_save(predictor, bytes, needed, &needed));
  CHECK(wtacrs_norm_predictor_save(rank, rank_bytes, needed, &rank_needed));
  REQUIRE(needed == rank_needed && memcmp(bytes, rank_bytes, needed) == 0);
  CHECK(wtacrs_norm_predictor_load(bytes, needed, &loaded));
  CHECK(wtacrs_forward(predicted, h, FEATURES, NULL, predictor, 1, draws, saved, saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_saved_selection(predicted, saved, saved_bytes, indices, scales, budget, &kept, NULL));
  CHECK(wtacrs_forward(predicted, h, FEATURES, NULL, loaded, 1, draws, saved, saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_saved_selection(predicted, saved, saved_bytes, saved_indices, saved_scales, budget, &saved_kept, NULL));
  REQUIRE(kept == saved_kept && memcmp(indices, saved_indices, kept * sizeof(uint32_t)) == 0);
  CHECK(wtacrs_backward(predicted, saved, saved_bytes, dz, FEATURES, dw, FEATURES, 0, NULL, NULL, scratch, backward_bytes, NULL));
  REQUIRE(error_of(dw, exact) < 0.3);

  /* The cache: eight samples of 128 tokens. Warm with true norms and unmixed by mix = 0.01, it is near exact. */
  wtacrs_norm_cache *cache, *restored;
  uint64_t samples[8], lengths[8];
  for (int i = 0; i < 8; i++) samples[i] = 1000u + (unsigned)i, lengths[i] = 128;
  CHECK(wtacrs_norm_cache_create(&cache));
  CHECK(wtacrs_norm_cache_fetch(cache, samples, lengths, 8, again, TOKENS));
  REQUIRE(again[0] == -1 && again[TOKENS - 1] == -1);
  CHECK(wtacrs_norm_cache_store(cache, samples, lengths, 8, norms, TOKENS));
  CHECK(wtacrs_norm_cache_forget(cache, samples[7]));
  CHECK(wtacrs_norm_cache_save(cache, NULL, 0, &needed));
  bytes = realloc(bytes, needed);
  CHECK(wtacrs_norm_cache_save(cache, bytes, needed, &needed));
  CHECK(wtacrs_norm_cache_load(bytes, needed, &restored));
  CHECK(wtacrs_norm_cache_fetch(restored, samples, lengths, 8, again, TOKENS));
  REQUIRE(memcmp(again, norms, 7 * 128 * sizeof(float)) == 0 && again[7 * 128] == -1);
  CHECK(wtacrs_forward(cached, h, FEATURES, again, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_backward(cached, saved, saved_bytes, dz, FEATURES, dw, FEATURES, 0, NULL, NULL, scratch, backward_bytes, NULL));
  REQUIRE(error_of(dw, exact) < 0.2);
  const float *layers[2] = {norms, norms};
  CHECK(wtacrs_joint_norms(layers, 2, TOKENS, again));
  REQUIRE(fabsf(again[3] - norms[3] * sqrtf(2)) < 1e-5f * norms[3] + 1e-12f);

  CHECK(wtacrs_norm_cache_destroy(cache));
  CHECK(wtacrs_norm_cache_destroy(restored));
  CHECK(wtacrs_norm_predictor_destroy(predictor));
  CHECK(wtacrs_norm_predictor_destroy(loaded));
  CHECK(wtacrs_norm_predictor_destroy(rank));
  CHECK(wtacrs_plan_destroy(plan));
  CHECK(wtacrs_plan_destroy(predicted));
  CHECK(wtacrs_plan_destroy(cached));
  CHECK(wtacrs_context_destroy(context));
  void *all[] = {h, dz, exact, saved, scratch, norms, again, dw, other, bias, input_norms, rows, indices, saved_indices,
                 scales, saved_scales, weights, sums, bytes, rank_bytes};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
  puts("ok");
  return 0;
}
