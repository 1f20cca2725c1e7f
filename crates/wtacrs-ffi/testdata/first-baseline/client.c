/* A client of the first ABI baseline. The program beside this source was built once and is never built again: later
 * libraries of the same ABI must run it. It says what it has verified, and ends with 1 at the first thing that is not so.
 * What it relies on is the interface alone: not which rows a seed draws, which may change with notice. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

enum { TOKENS = 60, IN = 7, OUT = 5, BUDGET = 20 };

static void require(int truth, const char *what, int line) {
  if (truth) return;
  char words[512];
  wtacrs_last_error(words, sizeof words, NULL);
  printf("not so, line %d: %s\nlast error: %s\n", line, what, words);
  exit(1);
}
#define REQUIRE(truth) require(truth, #truth, __LINE__)
#define OK(call) REQUIRE((call) == WTACRS_OK)
#define REFUSED(status, call) REQUIRE((call) == WTACRS_##status)

static void verified(const char *what) { printf("verified: %s\n", what); }

static void *memory(size_t bytes) {
  void *block = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  REQUIRE(block != NULL);
  memset(block, 0xa5, bytes);
  return block;
}

static uint32_t state = 1;
static float random_value(void) {
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1.0f;
}

/* Every function of the baseline, so that the loader must find them all before the program starts. */
static void (*const functions[])(void) = {
    (void (*)(void))wtacrs_abi_version,
    (void (*)(void))wtacrs_backward,
    (void (*)(void))wtacrs_backward_dl,
    (void (*)(void))wtacrs_context_create,
    (void (*)(void))wtacrs_context_destroy,
    (void (*)(void))wtacrs_estimate,
    (void (*)(void))wtacrs_estimate_dl,
    (void (*)(void))wtacrs_forward,
    (void (*)(void))wtacrs_forward_dl,
    (void (*)(void))wtacrs_gather,
    (void (*)(void))wtacrs_gather_dl,
    (void (*)(void))wtacrs_joint_norms,
    (void (*)(void))wtacrs_last_error,
    (void (*)(void))wtacrs_layer_create,
    (void (*)(void))wtacrs_layer_destroy,
    (void (*)(void))wtacrs_layer_set_budget_fraction,
    (void (*)(void))wtacrs_layer_set_budget_rows,
    (void (*)(void))wtacrs_layer_set_design,
    (void (*)(void))wtacrs_layer_set_dtypes,
    (void (*)(void))wtacrs_layer_set_mix,
    (void (*)(void))wtacrs_layer_set_shape,
    (void (*)(void))wtacrs_layer_set_source,
    (void (*)(void))wtacrs_norm_cache_create,
    (void (*)(void))wtacrs_norm_cache_destroy,
    (void (*)(void))wtacrs_norm_cache_fetch,
    (void (*)(void))wtacrs_norm_cache_forget,
    (void (*)(void))wtacrs_norm_cache_load,
    (void (*)(void))wtacrs_norm_cache_save,
    (void (*)(void))wtacrs_norm_cache_store,
    (void (*)(void))wtacrs_norm_predictor_apply,
    (void (*)(void))wtacrs_norm_predictor_create,
    (void (*)(void))wtacrs_norm_predictor_create_with,
    (void (*)(void))wtacrs_norm_predictor_destroy,
    (void (*)(void))wtacrs_norm_predictor_load,
    (void (*)(void))wtacrs_norm_predictor_save,
    (void (*)(void))wtacrs_norm_predictor_statistics,
    (void (*)(void))wtacrs_norm_predictor_statistics_count,
    (void (*)(void))wtacrs_norm_predictor_update,
    (void (*)(void))wtacrs_plan_backward_scratch_bytes,
    (void (*)(void))wtacrs_plan_budget,
    (void (*)(void))wtacrs_plan_create,
    (void (*)(void))wtacrs_plan_destroy,
    (void (*)(void))wtacrs_plan_draws,
    (void (*)(void))wtacrs_plan_estimate_scratch_bytes,
    (void (*)(void))wtacrs_plan_forward_scratch_bytes,
    (void (*)(void))wtacrs_plan_memory,
    (void (*)(void))wtacrs_plan_saved_bytes,
    (void (*)(void))wtacrs_row_norms,
    (void (*)(void))wtacrs_row_norms_dl,
    (void (*)(void))wtacrs_saved_selection,
    (void (*)(void))wtacrs_select,
    (void (*)(void))wtacrs_status_string,
    (void (*)(void))wtacrs_tensor_mul_backward,
    (void (*)(void))wtacrs_tensor_mul_backward_dl,
    (void (*)(void))wtacrs_tensor_mul_create,
    (void (*)(void))wtacrs_tensor_mul_destroy,
    (void (*)(void))wtacrs_tensor_mul_forward,
    (void (*)(void))wtacrs_tensor_mul_forward_dl,
    (void (*)(void))wtacrs_tensor_mul_plan_create,
    (void (*)(void))wtacrs_tensor_mul_plan_destroy,
    (void (*)(void))wtacrs_tensor_mul_plan_draws,
    (void (*)(void))wtacrs_tensor_mul_plan_memory,
    (void (*)(void))wtacrs_tensor_mul_set_budget_fraction,
    (void (*)(void))wtacrs_tensor_mul_set_budget_rows,
    (void (*)(void))wtacrs_tensor_mul_set_design,
    (void (*)(void))wtacrs_tensor_mul_set_dtypes,
    (void (*)(void))wtacrs_tensor_mul_set_exact,
    (void (*)(void))wtacrs_tensor_mul_set_mix,
    (void (*)(void))wtacrs_tensor_mul_set_shape,
    (void (*)(void))wtacrs_theory,
    (void (*)(void))wtacrs_version,
    (void (*)(void))wtacrs_weight_gradient,
    (void (*)(void))wtacrs_weight_gradient_dl,
    (void (*)(void))wtacrs_weights,
};

static wtacrs_context *context;
static float h[TOKENS * IN], dz[TOKENS * OUT], dz_norms[TOKENS], h_norms[TOKENS];
static double exact[IN * OUT];

static wtacrs_plan *plan_of(int32_t source, int32_t design, size_t rows) {
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  OK(wtacrs_layer_create(&layer));
  OK(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
  OK(wtacrs_layer_set_dtypes(layer, WTACRS_F32, WTACRS_F32, WTACRS_F32));
  OK(wtacrs_layer_set_budget_rows(layer, rows));
  OK(wtacrs_layer_set_design(layer, design));
  OK(wtacrs_layer_set_source(layer, source));
  OK(wtacrs_layer_set_mix(layer, 0.0));
  OK(wtacrs_plan_create(context, layer, &plan));
  OK(wtacrs_layer_destroy(layer));
  return plan;
}

static double error_of(const float *estimate) {
  double difference = 0, size = 0;
  for (int i = 0; i < IN * OUT; i++) {
    difference += (estimate[i] - exact[i]) * (estimate[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  return sqrt(difference / size);
}

static void check_versions_and_statuses(void) {
  REQUIRE(wtacrs_abi_version() == WTACRS_ABI_VERSION);
  REQUIRE(strlen(wtacrs_version()) > 0);
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) REQUIRE(functions[i] != NULL);
  verified("ABI version and every function of the first export list");

  wtacrs_context *made;
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  REFUSED(NULL_POINTER, wtacrs_context_create(WTACRS_CPU, 0, NULL));
  REFUSED(INVALID_ENUM, wtacrs_context_create(77, 0, &made));
  REFUSED(INVALID_ARGUMENT, wtacrs_context_create(WTACRS_CPU, 5, &made));
  REFUSED(INVALID_HANDLE, wtacrs_plan_create(context, (wtacrs_layer *)context, &plan));
  char words[256];
  size_t needed;
  OK(wtacrs_last_error(words, sizeof words, &needed));
  REQUIRE(needed == strlen(words) + 1 && strstr(words, "wtacrs_plan_create") != NULL);
  OK(wtacrs_layer_create(&layer));
  REFUSED(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, 4, SIZE_MAX / 2, 1));
  REFUSED(UNSUPPORTED, wtacrs_layer_set_dtypes(layer, WTACRS_F64, WTACRS_F32, WTACRS_F32));
  REFUSED(INVALID_BUDGET, wtacrs_layer_set_budget_fraction(layer, 1.5));
  OK(wtacrs_layer_destroy(layer));
  OK(wtacrs_layer_destroy(NULL));
  const int32_t statuses[] = {WTACRS_OK, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_INVALID_ENUM,
                              WTACRS_INVALID_ARGUMENT, WTACRS_SHAPE_MISMATCH, WTACRS_SIZE_OVERFLOW,
                              WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP, WTACRS_INVALID_WEIGHTS,
                              WTACRS_INVALID_BUDGET, WTACRS_UNSUPPORTED, WTACRS_DEVICE_MISMATCH, WTACRS_NO_DEVICE,
                              WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH, WTACRS_PANIC};
  const char *unknown = wtacrs_status_string(-5);
  for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
    REQUIRE(strcmp(wtacrs_status_string(statuses[i]), unknown) != 0);
  verified("numbers of statuses, and the last error's words");
}

/* A row (3, 4) in every dtype, and the tensor's layout: strides that run backwards, byte_offset, no strides. */
static void check_dtypes_and_dltensor(void) {
  const float f32[2] = {3, 4};
  const double f64[2] = {3, 4};
  const uint16_t f16[2] = {0x4200, 0x4400}, bf16[2] = {0x4040, 0x4080};
  const void *rows[4] = {f32, f16, bf16, f64};
  const int32_t dtypes[4] = {WTACRS_F32, WTACRS_F16, WTACRS_BF16, WTACRS_F64};
  const uint8_t codes[4] = {2, 2, 4, 2}, bits[4] = {32, 16, 16, 64};
  for (int i = 0; i < 4; i++) {
    float norm = 0;
    OK(wtacrs_row_norms(context, dtypes[i], 1, 2, rows[i], 2, &norm, NULL));
    REQUIRE(norm == 5);
    int64_t shape[2] = {2, 1}, strides[2] = {-1, 7};
    uint8_t element = (uint8_t)(bits[i] / 8);
    wtacrs_dltensor x = {(void *)rows[i], {1, 0}, 2, {codes[i], bits[i], 1}, shape, strides, element};
    float norms[3] = {0, 0, -7};
    OK(wtacrs_row_norms_dl(context, &x, norms, 2, NULL));
    REQUIRE(norms[0] == 4 && norms[1] == 3 && norms[2] == -7);
    x.strides = NULL, x.byte_offset = 0;
    OK(wtacrs_row_norms_dl(context, &x, norms, 2, NULL));
    REQUIRE(norms[0] == 3 && norms[1] == 4);
    REFUSED(BUFFER_TOO_SMALL, wtacrs_row_norms_dl(context, &x, norms, 1, NULL));
    x.ndim = 3;
    REFUSED(SHAPE_MISMATCH, wtacrs_row_norms_dl(context, &x, norms, 2, NULL));
    x.ndim = 2, x.dtype.lanes = 2;
    REFUSED(UNSUPPORTED, wtacrs_row_norms_dl(context, &x, norms, 2, NULL));
    x.dtype.lanes = 1, x.device.device_type = 99;
    REFUSED(DEVICE_MISMATCH, wtacrs_row_norms_dl(context, &x, norms, 2, NULL));
  }
  verified("numbers of dtypes, and the layout of wtacrs_dltensor");
}

static void check_designs(void) {
  const int32_t designs[] = {WTACRS_UNIFORM, WTACRS_CRS, WTACRS_TOP_K, WTACRS_WTA_IID, WTACRS_WTA_STRATIFIED,
                             WTACRS_WTA_PIVOTAL};
  for (int d = 0; d < 6; d++) {
    wtacrs_plan *plan = plan_of(WTACRS_SOURCE_INPUT, designs[d], BUDGET);
    uint32_t indices[BUDGET];
    double scales[BUDGET], mean_kept = 0;
    uint64_t kept, winners;
    int uniform = 1, unscaled = 1;
    for (uint64_t seed = 0; seed < 50; seed++) {
      OK(wtacrs_select(plan, h_norms, NULL, seed, 3, 0, indices, scales, BUDGET, &kept, &winners, NULL, 0, NULL));
      REQUIRE(kept > 0 && kept <= BUDGET && winners <= kept);
      for (uint64_t i = 0; i < kept; i++) {
        REQUIRE(indices[i] < TOKENS && (i == 0 || indices[i] > indices[i - 1]) && scales[i] > 0);
        uniform &= fabs(scales[i] - (double)TOKENS / BUDGET) < 1e-9;
        unscaled &= scales[i] == 1;
      }
      mean_kept += (double)kept / 50;
    }
    REQUIRE(uniform == (designs[d] == WTACRS_UNIFORM));
    REQUIRE(unscaled == (designs[d] == WTACRS_TOP_K));
    /* Independent draws repeat; the others do not, but for a stratum's cut. */
    const int repeats = designs[d] == WTACRS_CRS || designs[d] == WTACRS_WTA_IID;
    REQUIRE(repeats ? mean_kept < BUDGET - 1 : mean_kept > BUDGET - 1.5);
    const int distinct = designs[d] == WTACRS_UNIFORM || designs[d] == WTACRS_TOP_K || designs[d] == WTACRS_WTA_PIVOTAL;
    REQUIRE(!distinct || mean_kept > BUDGET - 1e-9);
    double weights[TOKENS], threshold, rows, error;
    uint64_t heaviest;
    OK(wtacrs_weights(plan, h_norms, NULL, weights, NULL));
    OK(wtacrs_theory(plan, weights, weights, &threshold, &heaviest, &rows, &error));
    REQUIRE(threshold > 0 && error > 0 && fabs(rows - mean_kept) < 1);
    if (designs[d] >= WTACRS_WTA_IID) REQUIRE(winners == heaviest && winners > 0);
    uint64_t draws;
    OK(wtacrs_plan_draws(plan, &draws));
    REQUIRE((draws == 0) == (designs[d] == WTACRS_TOP_K));
    OK(wtacrs_plan_destroy(plan));
    REFUSED(INVALID_HANDLE, wtacrs_plan_destroy(plan));
  }
  verified("numbers of designs by what they draw, and theory");
}

static void check_passes(void) {
  const int32_t sources[] = {WTACRS_SOURCE_INPUT, WTACRS_SOURCE_NORMS, WTACRS_SOURCE_CACHED, WTACRS_SOURCE_PREDICTED};
  double error[4];
  for (int s = 0; s < 4; s++) {
    wtacrs_plan *plan = plan_of(sources[s], WTACRS_WTA_PIVOTAL, BUDGET);
    const float *guess = s == 1 || s == 2 ? dz_norms : NULL;
    wtacrs_norm_predictor *predictor = NULL;
    if (s == 3) OK(wtacrs_norm_predictor_create(IN, &predictor));
    size_t saved_bytes, scratch_bytes, exact_bytes, budget;
    OK(wtacrs_plan_memory(plan, &saved_bytes, &scratch_bytes, &exact_bytes));
    OK(wtacrs_plan_budget(plan, &budget));
    REQUIRE(budget == BUDGET && exact_bytes == sizeof h && saved_bytes > BUDGET * (IN * 4 + 12));
    void *saved = memory(saved_bytes), *scratch = memory(scratch_bytes);
    float dw[IN * OUT], mean[IN * OUT] = {0}, norms[TOKENS], bias[OUT];
    REFUSED(CORRUPTED, wtacrs_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, 0, NULL, NULL, scratch, scratch_bytes, NULL));
    REFUSED(BUFFER_TOO_SMALL, wtacrs_forward(plan, h, IN, guess, predictor, 0, 0, saved, saved_bytes - 1, NULL, 0, NULL));
    REFUSED(MISALIGNED, wtacrs_forward(plan, h, IN, guess, predictor, 0, 0, (char *)saved + 8, saved_bytes, NULL, 0, NULL));
    error[s] = 0;
    for (uint64_t step = 0; step < 2000; step++) {
      OK(wtacrs_forward(plan, h, IN, guess, predictor, 7, step * TOKENS, saved, saved_bytes, NULL, 0, NULL));
      OK(wtacrs_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, 0, norms, bias, scratch, scratch_bytes, NULL));
      OK(wtacrs_backward(plan, saved, saved_bytes, dz, OUT, mean, OUT, 1, NULL, NULL, scratch, scratch_bytes, NULL));
      if (s == 3 && step < 20) OK(wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms));
      error[s] += error_of(dw) / 2000;
    }
    for (int i = 0; i < IN * OUT; i++) mean[i] /= 2000;
    REQUIRE(error[s] > 0.01 && error_of(mean) < error[s] / 10);
    REQUIRE(memcmp(norms, dz_norms, sizeof norms) == 0);
    double sum = 0;
    for (int t = 0; t < TOKENS; t++) sum += dz[t * OUT + 2];
    REQUIRE(fabs(sum - bias[2]) < 1e-4);
    REFUSED(OVERLAP, wtacrs_backward(plan, saved, saved_bytes, dz, OUT, dz, OUT, 0, NULL, NULL, scratch, scratch_bytes, NULL));

    /* The same rows by a descriptor whose rows lie apart and run backwards. */
    enum { GAP = IN + 3 };
    static float apart[TOKENS * GAP];
    for (int t = 0; t < TOKENS; t++) memcpy(apart + (TOKENS - 1 - t) * GAP, h + t * IN, IN * sizeof(float));
    int64_t shape[2] = {TOKENS, IN}, strides[2] = {-GAP, 1};
    wtacrs_dltensor x = {apart, {1, 0}, 2, {2, 32, 1}, shape, strides, (TOKENS - 1) * GAP * sizeof(float)};
    uint32_t indices[BUDGET], again[BUDGET];
    double scales[BUDGET], scales_again[BUDGET];
    uint64_t kept, kept_again, winners;
    OK(wtacrs_forward(plan, h, IN, guess, predictor, 7, 1, saved, saved_bytes, NULL, 0, NULL));
    OK(wtacrs_saved_selection(plan, saved, saved_bytes, indices, scales, BUDGET, &kept, &winners));
    OK(wtacrs_forward_dl(plan, &x, guess, predictor, 7, 1, saved, saved_bytes, NULL, 0, NULL));
    OK(wtacrs_saved_selection(plan, saved, saved_bytes, again, scales_again, BUDGET, &kept_again, NULL));
    REQUIRE(kept == kept_again && memcmp(indices, again, kept * sizeof *indices) == 0);
    REQUIRE(memcmp(scales, scales_again, kept * sizeof *scales) == 0);
    OK(wtacrs_norm_predictor_destroy(predictor));
    OK(wtacrs_plan_destroy(plan));
    free(saved), free(scratch);
  }
  REQUIRE(error[1] < error[0] && error[2] < error[0]);
  verified("numbers of sources, both passes of a layer, unbiased, raw and by wtacrs_dltensor");
}

static void check_whole_budget_and_steps(void) {
  wtacrs_plan *plan = plan_of(WTACRS_SOURCE_NORMS, WTACRS_WTA_PIVOTAL, TOKENS);
  size_t estimate_bytes, backward_bytes;
  OK(wtacrs_plan_estimate_scratch_bytes(plan, &estimate_bytes));
  OK(wtacrs_plan_backward_scratch_bytes(plan, &backward_bytes));
  void *scratch = memory(estimate_bytes + backward_bytes);
  float dw[IN * OUT], rows[TOKENS * IN];
  OK(wtacrs_estimate(plan, h, IN, dz, OUT, 1, 2, dw, OUT, scratch, estimate_bytes, NULL));
  REQUIRE(error_of(dw) < 1e-5);
  uint32_t indices[TOKENS];
  double scales[TOKENS];
  uint64_t kept;
  OK(wtacrs_select(plan, h_norms, dz_norms, 1, 2, 0, indices, scales, TOKENS, &kept, NULL, NULL, 0, NULL));
  REQUIRE(kept == TOKENS);
  OK(wtacrs_gather(plan, h, IN, indices, &kept, rows, IN, NULL));
  REQUIRE(memcmp(rows, h, sizeof h) == 0);
  OK(wtacrs_weight_gradient(plan, rows, IN, indices, scales, &kept, dz, OUT, dw, OUT, 0, scratch, backward_bytes, NULL));
  REQUIRE(error_of(dw) < 1e-5);
  float bad[TOKENS];
  memcpy(bad, dz_norms, sizeof bad);
  bad[4] = NAN;
  REFUSED(INVALID_WEIGHTS, wtacrs_select(plan, h_norms, bad, 1, 2, 0, indices, scales, TOKENS, &kept, NULL, NULL, 0, NULL));
  const float *layers[2] = {dz_norms, dz_norms};
  OK(wtacrs_joint_norms(layers, 2, TOKENS, bad));
  REQUIRE(fabsf(bad[4] - dz_norms[4] * 1.41421356f) < 1e-5f);
  OK(wtacrs_plan_destroy(plan));
  free(scratch);
  verified("a whole budget is exact, at once and step by step");
}

static void check_predictor_and_cache(void) {
  wtacrs_plan *plan = plan_of(WTACRS_SOURCE_PREDICTED, WTACRS_WTA_PIVOTAL, BUDGET);
  wtacrs_norm_predictor *taught, *by_sums, *loaded;
  OK(wtacrs_norm_predictor_create_with(IN, 4, 0.9, 0.01, 6, 64, 3, &taught));
  OK(wtacrs_norm_predictor_create_with(IN, 4, 0.9, 0.01, 6, 64, 3, &by_sums));
  size_t saved_bytes, count, needed, needed_again;
  OK(wtacrs_plan_saved_bytes(plan, &saved_bytes));
  OK(wtacrs_norm_predictor_statistics_count(taught, &count));
  void *saved = memory(saved_bytes);
  double *sums = memory(count * sizeof *sums);
  OK(wtacrs_forward(plan, h, IN, NULL, taught, 1, 1, saved, saved_bytes, NULL, 0, NULL));
  OK(wtacrs_norm_predictor_update(taught, plan, saved, saved_bytes, dz_norms));
  OK(wtacrs_norm_predictor_statistics(by_sums, plan, saved, saved_bytes, dz_norms, sums, count));
  OK(wtacrs_norm_predictor_apply(by_sums, sums, count));
  OK(wtacrs_norm_predictor_save(taught, NULL, 0, &needed));
  unsigned char *bytes = memory(needed), *bytes_again = memory(needed);
  OK(wtacrs_norm_predictor_save(taught, bytes, needed, &needed));
  OK(wtacrs_norm_predictor_load(bytes, needed, &loaded));
  OK(wtacrs_norm_predictor_save(loaded, bytes_again, needed, &needed_again));
  REQUIRE(needed == needed_again && memcmp(bytes, bytes_again, needed) == 0);
  OK(wtacrs_norm_predictor_save(by_sums, bytes_again, needed, &needed_again));
  REQUIRE(memcmp(bytes, bytes_again, needed) == 0);
  OK(wtacrs_norm_predictor_destroy(taught));
  OK(wtacrs_norm_predictor_destroy(by_sums));
  OK(wtacrs_norm_predictor_destroy(loaded));
  OK(wtacrs_plan_destroy(plan));

  wtacrs_norm_cache *cache, *restored;
  const uint64_t samples[2] = {11, UINT64_C(1) << 40}, lengths[2] = {TOKENS / 4, TOKENS * 3 / 4};
  float norms[TOKENS];
  OK(wtacrs_norm_cache_create(&cache));
  OK(wtacrs_norm_cache_store(cache, samples, lengths, 2, dz_norms, TOKENS));
  OK(wtacrs_norm_cache_forget(cache, samples[0]));
  OK(wtacrs_norm_cache_save(cache, NULL, 0, &needed));
  bytes = realloc(bytes, needed);
  OK(wtacrs_norm_cache_save(cache, bytes, needed, &needed));
  OK(wtacrs_norm_cache_load(bytes, needed, &restored));
  OK(wtacrs_norm_cache_fetch(restored, samples, lengths, 2, norms, TOKENS));
  REQUIRE(norms[0] == -1 && memcmp(norms + TOKENS / 4, dz_norms + TOKENS / 4, TOKENS * 3) == 0);
  OK(wtacrs_norm_cache_destroy(cache));
  OK(wtacrs_norm_cache_destroy(restored));
  free(saved), free(sums), free(bytes), free(bytes_again);
  verified("norm predictor and norm cache, and that they are the same after a save and a load");
}

/* One batch of one head: A (TOKENS x IN), B (IN x OUT), G = dz; dA = G B^T and dB = A^T G. */
static void check_tensor_mul(void) {
  wtacrs_tensor_mul *product;
  wtacrs_tensor_mul_plan *plan;
  OK(wtacrs_tensor_mul_create(&product));
  OK(wtacrs_tensor_mul_set_shape(product, 1, 1, TOKENS, IN, OUT));
  OK(wtacrs_tensor_mul_set_dtypes(product, WTACRS_F32, WTACRS_F32));
  OK(wtacrs_tensor_mul_set_exact(product, WTACRS_LEFT));
  OK(wtacrs_tensor_mul_set_budget_rows(product, WTACRS_RIGHT, TOKENS));
  OK(wtacrs_tensor_mul_set_design(product, WTACRS_WTA_PIVOTAL));
  OK(wtacrs_tensor_mul_set_mix(product, 0.01));
  OK(wtacrs_tensor_mul_plan_create(context, product, &plan));
  OK(wtacrs_tensor_mul_destroy(product));
  size_t saved_bytes, forward_bytes, backward_bytes;
  OK(wtacrs_tensor_mul_plan_memory(plan, &saved_bytes, &forward_bytes, &backward_bytes, NULL));
  void *saved = memory(saved_bytes), *forward = memory(forward_bytes), *backward = memory(backward_bytes);
  float b[IN * OUT], da[TOKENS * IN], db[IN * OUT], row_norms[TOKENS], column_norms[OUT];
  for (int i = 0; i < IN * OUT; i++) b[i] = random_value();
  OK(wtacrs_tensor_mul_forward(plan, h, b, NULL, NULL, 1, 1, saved, saved_bytes, forward, forward_bytes, NULL));
  OK(wtacrs_tensor_mul_backward(plan, saved, saved_bytes, dz, da, db, 0, row_norms, column_norms, backward,
                                backward_bytes, NULL));
  REQUIRE(error_of(db) < 1e-5);
  for (int t = 0; t < TOKENS; t++) {
    for (int i = 0; i < IN; i++) {
      double sum = 0;
      for (int o = 0; o < OUT; o++) sum += (double)dz[t * OUT + o] * b[i * OUT + o];
      REQUIRE(fabs(sum - da[t * IN + i]) < 1e-4);
    }
    REQUIRE(fabsf(row_norms[t] - dz_norms[t]) < 1e-5f);
  }
  OK(wtacrs_tensor_mul_plan_destroy(plan));
  free(saved), free(forward), free(backward);
  verified("batched products, their sides exact and of a whole budget");
}

int main(void) {
  OK(wtacrs_context_create(WTACRS_CPU, 0, &context));
  for (int t = 0; t < TOKENS; t++) {
    const float size = t % 9 == 4 ? 5 : 1, gradient = t % 7 == 2 ? 3 : 0.3f;
    for (int i = 0; i < IN; i++) h[t * IN + i] = size * random_value();
    for (int o = 0; o < OUT; o++) dz[t * OUT + o] = gradient * random_value();
    for (int i = 0; i < IN; i++)
      for (int o = 0; o < OUT; o++) exact[i * OUT + o] += (double)h[t * IN + i] * dz[t * OUT + o];
  }
  OK(wtacrs_row_norms(context, WTACRS_F32, TOKENS, IN, h, IN, h_norms, NULL));
  OK(wtacrs_row_norms(context, WTACRS_F32, TOKENS, OUT, dz, OUT, dz_norms, NULL));
  check_versions_and_statuses();
  check_dtypes_and_dltensor();
  check_designs();
  check_passes();
  check_whole_budget_and_steps();
  check_predictor_and_cache();
  check_tensor_mul();
  OK(wtacrs_context_destroy(context));
  printf("ok: libwtacrs %s serves a client of ABI %d\n", wtacrs_version(), WTACRS_ABI_VERSION);
  return 0;
}
