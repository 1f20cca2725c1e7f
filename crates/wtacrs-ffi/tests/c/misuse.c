/* Every kind of misuse: each gets its documented status and writes no output. */
#include "expect.h"
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 32, IN = 12, OUT = 8, BUDGET = 10 };

static wtacrs_context *context;
static wtacrs_plan *plan, *norms_plan, *cached_plan, *predicted_plan, *wide_plan;
static wtacrs_norm_predictor *predictor, *wide_predictor;
static float h[TOKENS * IN], dz[TOKENS * OUT], dw[IN * OUT], norms[TOKENS], bias[OUT];
static unsigned char *saved, *scratch;
static size_t saved_bytes, backward_bytes, estimate_bytes;
static uint32_t indices[TOKENS];
static double scales[TOKENS], weights[TOKENS];
static uint64_t kept, winners;

/* Outputs as they were before a misuse. */
static unsigned char saved_before[1 << 14];
static void mark(void) {
  for (size_t i = 0; i < IN * OUT; i++) dw[i] = 77;
  for (size_t i = 0; i < TOKENS; i++) norms[i] = 1, indices[i] = 55, scales[i] = 55, weights[i] = 55;
  for (size_t i = 0; i < OUT; i++) bias[i] = 77;
  kept = winners = 55;
  memcpy(saved_before, saved, saved_bytes);
}
static void unmarked(int line) {
  int same = memcmp(saved_before, saved, saved_bytes) == 0 && kept == 55 && winners == 55;
  for (size_t i = 0; i < IN * OUT; i++) same &= dw[i] == 77;
  for (size_t i = 0; i < TOKENS; i++) same &= norms[i] == 1 && indices[i] == 55 && scales[i] == 55 && weights[i] == 55;
  for (size_t i = 0; i < OUT; i++) same &= bias[i] == 77;
  if (!same) {
    printf("%d: an output was written\n", line);
    failures++;
  }
}
#define UNTOUCHED(status, call) \
  do { mark(); EXPECT(status, call); unmarked(__LINE__); } while (0)

#define FORWARD(plan, h, leading, guess, predictor, saved, bytes) \
  wtacrs_forward(plan, h, leading, guess, predictor, 1, 0, saved, bytes, NULL, 0, NULL)
#define BACKWARD(plan, saved, bytes, dz, leading, dw, dw_leading, accumulate, norms, bias, scratch, scratch_bytes) \
  wtacrs_backward(plan, saved, bytes, dz, leading, dw, dw_leading, accumulate, norms, bias, scratch, scratch_bytes, NULL)

static void handles(void) {
  wtacrs_context *other = NULL, *kept_handle;
  EXPECT(NULL_POINTER, wtacrs_context_create(WTACRS_CPU, 0, NULL));
  EXPECT(INVALID_ENUM, wtacrs_context_create(2, 0, &other));
  EXPECT(INVALID_ENUM, wtacrs_context_create(-1, 0, &other));
  EXPECT(INVALID_ARGUMENT, wtacrs_context_create(WTACRS_CPU, 1, &other));
  EXPECT(INVALID_ARGUMENT, wtacrs_context_create(WTACRS_CUDA, -2, &other));
  EXPECT(NO_DEVICE, wtacrs_context_create(WTACRS_CUDA, 0, &other));
  EXPECT(NO_DEVICE, wtacrs_context_create(WTACRS_CUDA, -1, &other));
  EXPECT(MISALIGNED, wtacrs_context_create(WTACRS_CPU, 0, (wtacrs_context **)((char *)scratch + 1)));
  REQUIRE(other == NULL);

  EXPECT(OK, wtacrs_context_destroy(NULL));
  EXPECT(OK, wtacrs_layer_destroy(NULL));
  EXPECT(OK, wtacrs_plan_destroy(NULL));
  EXPECT(OK, wtacrs_norm_cache_destroy(NULL));
  EXPECT(OK, wtacrs_norm_predictor_destroy(NULL));
  EXPECT(OK, wtacrs_tensor_mul_destroy(NULL));
  EXPECT(OK, wtacrs_tensor_mul_plan_destroy(NULL));

  EXPECT(OK, wtacrs_context_create(WTACRS_CPU, 0, &other));
  kept_handle = other;
  EXPECT(OK, wtacrs_context_destroy(other));
  EXPECT(INVALID_HANDLE, wtacrs_context_destroy(other));
  EXPECT(OK, wtacrs_context_create(WTACRS_CPU, 0, &other));
  REQUIRE(other != kept_handle); /* numbers are not used again */
  EXPECT(INVALID_HANDLE, wtacrs_row_norms(kept_handle, WTACRS_F32, TOKENS, IN, h, IN, norms, NULL));
  EXPECT(OK, wtacrs_context_destroy(other));

  size_t budget = 99;
  EXPECT(INVALID_HANDLE, wtacrs_plan_budget((wtacrs_plan *)context, &budget));
  EXPECT(INVALID_HANDLE, wtacrs_plan_budget((wtacrs_plan *)&budget, &budget));
  EXPECT(INVALID_HANDLE, wtacrs_plan_destroy((wtacrs_plan *)context));
  EXPECT(NULL_POINTER, wtacrs_plan_budget(NULL, &budget));
  EXPECT(NULL_POINTER, wtacrs_plan_budget(plan, NULL));
  REQUIRE(budget == 99);
  UNTOUCHED(INVALID_HANDLE, FORWARD((wtacrs_plan *)predictor, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(INVALID_HANDLE, FORWARD(predicted_plan, h, IN, NULL, (wtacrs_norm_predictor *)plan, saved, saved_bytes));
}

static void descriptions(void) {
  wtacrs_layer *layer = NULL;
  wtacrs_plan *made = NULL;
  EXPECT(NULL_POINTER, wtacrs_layer_create(NULL));
  EXPECT(NULL_POINTER, wtacrs_layer_set_shape(NULL, 1, 1, 1));
  EXPECT(OK, wtacrs_layer_create(&layer));
  EXPECT(INVALID_ARGUMENT, wtacrs_plan_create(context, layer, &made)); /* no shape */
  EXPECT(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, (size_t)1 << 32, 1, 1));
  EXPECT(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, 1000, SIZE_MAX, 1));
  EXPECT(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, 1000, 1, SIZE_MAX / 1000));
  EXPECT(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, 1, (size_t)1 << 31, (size_t)1 << 31));
  EXPECT(OK, wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
  EXPECT(INVALID_ARGUMENT, wtacrs_plan_create(context, layer, &made)); /* no budget */
  EXPECT(INVALID_BUDGET, wtacrs_layer_set_budget_rows(layer, 0));
  EXPECT(INVALID_BUDGET, wtacrs_layer_set_budget_fraction(layer, 0));
  EXPECT(INVALID_BUDGET, wtacrs_layer_set_budget_fraction(layer, 1.01));
  EXPECT(INVALID_BUDGET, wtacrs_layer_set_budget_fraction(layer, -0.3));
  EXPECT(INVALID_BUDGET, wtacrs_layer_set_budget_fraction(layer, NAN));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_design(layer, 6));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_design(layer, INT32_MIN));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_source(layer, 4));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_dtypes(layer, 0, 0, 4));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_dtypes(layer, -1, 0, 0));
  EXPECT(UNSUPPORTED, wtacrs_layer_set_dtypes(layer, WTACRS_F64, WTACRS_F32, WTACRS_F32));
  EXPECT(UNSUPPORTED, wtacrs_layer_set_dtypes(layer, WTACRS_BF16, WTACRS_BF16, WTACRS_BF16));
  EXPECT(INVALID_ARGUMENT, wtacrs_layer_set_mix(layer, 1.5));
  EXPECT(INVALID_ARGUMENT, wtacrs_layer_set_mix(layer, NAN));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_precision(layer, 2));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_precision(layer, -1));
  EXPECT(NULL_POINTER, wtacrs_layer_set_precision(NULL, WTACRS_PRECISION_TF32));
  EXPECT(OK, wtacrs_layer_set_precision(layer, WTACRS_PRECISION_TF32));
  EXPECT(OK, wtacrs_layer_set_precision(layer, WTACRS_PRECISION_F32));
  EXPECT(OK, wtacrs_layer_set_budget_rows(layer, TOKENS + 1));
  EXPECT(INVALID_BUDGET, wtacrs_plan_create(context, layer, &made)); /* k > n */
  EXPECT(OK, wtacrs_layer_set_budget_rows(layer, BUDGET));
  EXPECT(NULL_POINTER, wtacrs_plan_create(NULL, layer, &made));
  EXPECT(NULL_POINTER, wtacrs_plan_create(context, NULL, &made));
  EXPECT(NULL_POINTER, wtacrs_plan_create(context, layer, NULL));
  REQUIRE(made == NULL);
  EXPECT(OK, wtacrs_layer_set_shape(layer, UINT32_MAX, 1 << 24, 1));
  EXPECT(OK, wtacrs_layer_set_budget_rows(layer, UINT32_MAX));
  EXPECT(OK, wtacrs_plan_create(context, layer, &made)); /* large, but it can be addressed */
  EXPECT(OK, wtacrs_plan_destroy(made));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  EXPECT(INVALID_HANDLE, wtacrs_layer_set_mix(layer, 0.5));
}

static void forward(void) {
  wtacrs_norm_predictor *none = NULL;
  UNTOUCHED(NULL_POINTER, FORWARD(NULL, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(plan, NULL, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(plan, h, IN, NULL, NULL, NULL, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(norms_plan, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(cached_plan, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(predicted_plan, h, IN, NULL, none, saved, saved_bytes));
  UNTOUCHED(INVALID_ARGUMENT, FORWARD(plan, h, IN, norms, NULL, saved, saved_bytes));
  UNTOUCHED(INVALID_ARGUMENT, FORWARD(plan, h, IN, NULL, predictor, saved, saved_bytes));
  UNTOUCHED(SHAPE_MISMATCH, FORWARD(predicted_plan, h, IN, NULL, wide_predictor, saved, saved_bytes));
  UNTOUCHED(INVALID_ARGUMENT, FORWARD(plan, h, IN - 1, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(SIZE_OVERFLOW, FORWARD(plan, h, SIZE_MAX / 2, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(SIZE_OVERFLOW, FORWARD(plan, h, SIZE_MAX, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes - 1));
  UNTOUCHED(MISALIGNED, FORWARD(plan, h, IN, NULL, NULL, saved + 32, saved_bytes));
  UNTOUCHED(MISALIGNED, FORWARD(plan, (char *)h + 2, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(MISALIGNED, FORWARD(norms_plan, h, IN, (float *)((char *)norms + 2), NULL, saved, saved_bytes));
  UNTOUCHED(OVERLAP, FORWARD(plan, saved + 64, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(OVERLAP, FORWARD(norms_plan, h, IN, (float *)saved, NULL, saved, saved_bytes));

  float keep = h[5 * IN + 3];
  float bad[] = {NAN, INFINITY};
  for (int i = 0; i < 2; i++) {
    h[5 * IN + 3] = bad[i];
    UNTOUCHED(INVALID_WEIGHTS, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
    char words[256];
    EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
    REQUIRE(strstr(words, "wtacrs_forward: input norm 5") != NULL);
  }
  h[5 * IN + 3] = keep;
  float guess[TOKENS];
  for (int i = 0; i < TOKENS; i++) guess[i] = 1;
  guess[7] = NAN;
  UNTOUCHED(INVALID_WEIGHTS, FORWARD(norms_plan, h, IN, guess, NULL, saved, saved_bytes));
  UNTOUCHED(INVALID_WEIGHTS, FORWARD(cached_plan, h, IN, guess, NULL, saved, saved_bytes));
  guess[7] = -1;
  UNTOUCHED(INVALID_WEIGHTS, FORWARD(norms_plan, h, IN, guess, NULL, saved, saved_bytes));
  EXPECT(OK, FORWARD(cached_plan, h, IN, guess, NULL, saved, saved_bytes)); /* negative: not known */
}

static void backward(void) {
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  void *s = saved, *w = scratch;
  size_t n = saved_bytes, m = backward_bytes;
  UNTOUCHED(NULL_POINTER, BACKWARD(NULL, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(NULL_POINTER, BACKWARD(plan, NULL, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(NULL_POINTER, BACKWARD(plan, s, n, NULL, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(NULL_POINTER, BACKWARD(plan, s, n, dz, OUT, NULL, OUT, 0, norms, bias, w, m));
  UNTOUCHED(NULL_POINTER, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, NULL, m));
  UNTOUCHED(INVALID_ENUM, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 2, norms, bias, w, m));
  UNTOUCHED(INVALID_ARGUMENT, BACKWARD(plan, s, n, dz, OUT - 1, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(INVALID_ARGUMENT, BACKWARD(plan, s, n, dz, OUT, dw, OUT - 1, 0, norms, bias, w, m));
  UNTOUCHED(BUFFER_TOO_SMALL, BACKWARD(plan, s, n - 1, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(BUFFER_TOO_SMALL, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m - 1));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, saved + 8, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, scratch + 4, m));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, s, n, dz, OUT, (char *)dw + 1, OUT, 0, norms, bias, w, m));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, (float *)((char *)norms + 1), bias, w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dz, OUT, 0, norms, bias, w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, dw, bias, w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, norms, w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, s, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, dz, bias, w, m));

  /* Saved memory that no forward pass of such a plan wrote. */
  UNTOUCHED(SHAPE_MISMATCH, wtacrs_saved_selection(wide_plan, s, 1 << 14, indices, scales, TOKENS, &kept, &winners));
  unsigned char byte = saved[40];
  saved[40] ^= 1;
  UNTOUCHED(CORRUPTED, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  saved[40] = byte;
  byte = saved[0];
  saved[0] ^= 1;
  UNTOUCHED(CORRUPTED, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  saved[0] = byte;
  saved[8] ^= 2;
  UNTOUCHED(VERSION_MISMATCH, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  saved[8] ^= 2;
  saved[67] = 255; /* an index beyond the tokens */
  UNTOUCHED(CORRUPTED, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(CORRUPTED, wtacrs_saved_selection(plan, s, n, indices, scales, TOKENS, &kept, &winners));
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_saved_selection(plan, s, n, indices, scales, BUDGET - 1, &kept, &winners));
  UNTOUCHED(NULL_POINTER, wtacrs_saved_selection(plan, s, n, NULL, scales, BUDGET, &kept, &winners));
  UNTOUCHED(OVERLAP, wtacrs_saved_selection(plan, s, n, indices, scales, TOKENS, &kept, &kept));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_saved_selection(plan, s, n, indices, scales, 0, &kept, &winners));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_saved_selection(plan, s, n, indices, NULL, 0, &kept, &winners));
  EXPECT(OK, wtacrs_saved_selection(plan, s, n, NULL, NULL, 0, &kept, &winners));
  REQUIRE(kept == BUDGET);
}

static void steps(void) {
  float input[TOKENS];
  EXPECT(OK, wtacrs_row_norms(context, WTACRS_F32, TOKENS, IN, h, IN, input, NULL));
  UNTOUCHED(NULL_POINTER, wtacrs_row_norms(NULL, WTACRS_F32, TOKENS, IN, h, IN, norms, NULL));
  UNTOUCHED(NULL_POINTER, wtacrs_row_norms(context, WTACRS_F32, TOKENS, IN, h, IN, NULL, NULL));
  UNTOUCHED(INVALID_ENUM, wtacrs_row_norms(context, 9, TOKENS, IN, h, IN, norms, NULL));
  UNTOUCHED(SIZE_OVERFLOW, wtacrs_row_norms(context, WTACRS_F32, SIZE_MAX, IN, h, IN, norms, NULL));
  UNTOUCHED(SIZE_OVERFLOW, wtacrs_row_norms(context, WTACRS_F32, SIZE_MAX / 4, 1, h, 1, norms, NULL));
  UNTOUCHED(OVERLAP, wtacrs_row_norms(context, WTACRS_F32, TOKENS, 1, norms, 1, norms, NULL));
#define SELECT(plan, norms, guess, capacity) \
  wtacrs_select(plan, norms, guess, 1, 0, 0, indices, scales, capacity, &kept, &winners, NULL, 0, NULL)
  UNTOUCHED(NULL_POINTER, SELECT(NULL, input, NULL, TOKENS));
  UNTOUCHED(NULL_POINTER, SELECT(plan, NULL, NULL, TOKENS));
  UNTOUCHED(NULL_POINTER, SELECT(norms_plan, input, NULL, TOKENS));
  UNTOUCHED(INVALID_ARGUMENT, SELECT(plan, input, input, TOKENS));
  UNTOUCHED(BUFFER_TOO_SMALL, SELECT(plan, input, NULL, BUDGET - 1));
  UNTOUCHED(OVERLAP, wtacrs_weights(plan, (float *)weights, NULL, weights, NULL));
  float poisoned[TOKENS];
  memcpy(poisoned, input, sizeof input);
  poisoned[31] = NAN;
  UNTOUCHED(INVALID_WEIGHTS, SELECT(plan, poisoned, NULL, TOKENS));
  UNTOUCHED(INVALID_WEIGHTS, wtacrs_weights(plan, poisoned, NULL, weights, NULL));
  UNTOUCHED(INVALID_WEIGHTS, SELECT(norms_plan, input, poisoned, TOKENS));

  float rows[BUDGET * IN];
  uint32_t order[3] = {4, 4, 9};
  double ones[3] = {1, 1, 1};
  uint64_t three = 3, many = BUDGET + 1;
  UNTOUCHED(INVALID_ARGUMENT, wtacrs_gather(plan, h, IN, order, &three, rows, IN, NULL));
  order[1] = TOKENS, order[2] = TOKENS + 1;
  UNTOUCHED(INVALID_ARGUMENT, wtacrs_gather(plan, h, IN, order, &three, rows, IN, NULL));
  UNTOUCHED(INVALID_ARGUMENT, wtacrs_gather(plan, h, IN, order, &many, rows, IN, NULL));
  UNTOUCHED(NULL_POINTER, wtacrs_gather(plan, h, IN, order, NULL, rows, IN, NULL));
  order[1] = 5, order[2] = 9;
  UNTOUCHED(OVERLAP, wtacrs_gather(plan, h, IN, order, &three, h, IN, NULL));
  EXPECT(OK, wtacrs_gather(plan, h, IN, order, &three, rows, IN, NULL));
#define GRADIENT(rows, scales, w) \
  wtacrs_weight_gradient(plan, rows, IN, order, scales, &three, dz, OUT, w, OUT, 0, scratch, backward_bytes, NULL)
  UNTOUCHED(NULL_POINTER, GRADIENT(NULL, ones, dw));
  UNTOUCHED(NULL_POINTER, GRADIENT(rows, NULL, dw));
  UNTOUCHED(OVERLAP, GRADIENT(rows, ones, rows));
  ones[2] = INFINITY;
  UNTOUCHED(INVALID_ARGUMENT, GRADIENT(rows, ones, dw));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_estimate(plan, h, IN, dz, OUT, 1, 0, dw, OUT, scratch, estimate_bytes - 1, NULL));
  UNTOUCHED(OVERLAP, wtacrs_estimate(plan, h, IN, dz, OUT, 1, 0, dz, OUT, scratch, estimate_bytes, NULL));
  double threshold = 55;
  mark();
  EXPECT(NULL_POINTER, wtacrs_theory(plan, weights, NULL, &threshold, NULL, NULL, &threshold));
  EXPECT(NULL_POINTER, wtacrs_theory(plan, NULL, NULL, &threshold, NULL, NULL, NULL));
  weights[3] = -1;
  EXPECT(INVALID_WEIGHTS, wtacrs_theory(plan, weights, NULL, &threshold, NULL, NULL, NULL));
  UNTOUCHED(OVERLAP, wtacrs_theory(plan, weights, NULL, weights, NULL, NULL, NULL));
  UNTOUCHED(OVERLAP, wtacrs_theory(plan, weights, NULL, NULL, (uint64_t *)weights, NULL, NULL));
  EXPECT(OVERLAP, wtacrs_theory(plan, weights, scales, NULL, NULL, NULL, scales + 1));
  EXPECT(OVERLAP, wtacrs_theory(plan, weights, NULL, &threshold, (uint64_t *)&threshold, NULL, NULL));
  EXPECT(OVERLAP, wtacrs_theory(plan, weights, NULL, &threshold, NULL, &threshold, NULL));
  REQUIRE(threshold == 55);
  UNTOUCHED(OVERLAP, wtacrs_expected_error(plan, h, IN, dz, OUT, weights, weights, NULL, NULL));
  EXPECT(OVERLAP, wtacrs_expected_error(plan, h, IN, dz, OUT, NULL, &threshold, (int32_t *)&threshold, NULL));
  REQUIRE(threshold == 55);
  size_t bytes = 55;
  EXPECT(OVERLAP, wtacrs_plan_memory(plan, &bytes, &bytes, NULL));
  EXPECT(OVERLAP, wtacrs_plan_memory(plan, NULL, &bytes, &bytes));
  REQUIRE(bytes == 55);
}

static void tensors(void) {
  int64_t shape[3] = {TOKENS, IN, 1}, strides[2] = {IN, 1}, out_shape[2] = {IN, OUT}, dz_shape[2] = {TOKENS, OUT};
  const wtacrs_dltensor good = {h, {1, 0}, 2, {2, 32, 1}, shape, NULL, 0};
  wtacrs_dltensor t;
#define FORWARD_DL(t) wtacrs_forward_dl(plan, t, NULL, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL)
#define WRONG(status, change) do { t = good; change; UNTOUCHED(status, FORWARD_DL(&t)); } while (0)
  EXPECT(OK, FORWARD_DL(&good));
  UNTOUCHED(NULL_POINTER, FORWARD_DL(NULL));
  UNTOUCHED(MISALIGNED, FORWARD_DL((wtacrs_dltensor *)((char *)scratch + 4)));
  WRONG(NULL_POINTER, t.data = NULL);
  WRONG(NULL_POINTER, t.shape = NULL);
  WRONG(DEVICE_MISMATCH, t.device.device_type = 2);
  WRONG(DEVICE_MISMATCH, t.device.device_type = -1);
  WRONG(SHAPE_MISMATCH, t.ndim = 1);
  WRONG(SHAPE_MISMATCH, t.ndim = 3);
  WRONG(SHAPE_MISMATCH, t.ndim = -2);
  WRONG(UNSUPPORTED, t.dtype.code = 0);
  WRONG(UNSUPPORTED, t.dtype.bits = 8);
  WRONG(UNSUPPORTED, t.dtype.lanes = 4);
  WRONG(SHAPE_MISMATCH, t.dtype.bits = 64);
  WRONG(SHAPE_MISMATCH, t.dtype.bits = 16);
  WRONG(MISALIGNED, t.byte_offset = 2);
  WRONG(SIZE_OVERFLOW, t.byte_offset = UINT64_MAX);
  int64_t wrong[2] = {TOKENS, IN + 1}, negative[2] = {-1, IN}, absurd[2] = {INT64_MAX, INT64_MAX};
  WRONG(SHAPE_MISMATCH, t.shape = wrong);
  WRONG(INVALID_ARGUMENT, t.shape = negative);
  WRONG(SIZE_OVERFLOW, t.shape = absurd);
  int64_t far[2] = {INT64_MAX, 1}, farther[2] = {INT64_MIN, 1}, away[2] = {INT64_MAX / 64, 1};
  WRONG(SIZE_OVERFLOW, t.strides = far);
  WRONG(SIZE_OVERFLOW, t.strides = farther);
  WRONG(SIZE_OVERFLOW, t.strides = away);

  /* Inputs of any strides: negative, zero, transposed. */
  int64_t back[2] = {-IN, -1}, none[2] = {0, 0}, column[2] = {1, TOKENS};
  t = good, t.strides = back, t.byte_offset = (TOKENS * IN - 1) * sizeof(float);
  EXPECT(OK, FORWARD_DL(&t));
  t = good, t.strides = none;
  EXPECT(OK, FORWARD_DL(&t));
  t = good, t.strides = column;
  EXPECT(OK, FORWARD_DL(&t));
  t = good, t.strides = strides;
  EXPECT(OK, FORWARD_DL(&t));

  /* Outputs must not have an element twice. */
  const wtacrs_dltensor g = {dz, {1, 0}, 2, {2, 32, 1}, dz_shape, NULL, 0};
  wtacrs_dltensor out = {dw, {1, 0}, 2, {2, 32, 1}, out_shape, none, 0};
#define BACKWARD_DL(out) \
  wtacrs_backward_dl(plan, saved, saved_bytes, &g, out, 0, NULL, NULL, scratch, backward_bytes, NULL)
  UNTOUCHED(OVERLAP, BACKWARD_DL(&out));
  int64_t close[2] = {OUT - 1, 1}, turned[2] = {1, IN}, mirrored[2] = {-OUT, 1};
  out.strides = close;
  UNTOUCHED(OVERLAP, BACKWARD_DL(&out));
  UNTOUCHED(NULL_POINTER, BACKWARD_DL(NULL));
  out.strides = turned;
  EXPECT(OK, BACKWARD_DL(&out));
  float first = dw[0], second = dw[1];
  out.strides = mirrored, out.byte_offset = (IN - 1) * OUT * sizeof(float);
  EXPECT(OK, BACKWARD_DL(&out));
  REQUIRE(fabsf(dw[(IN - 1) * OUT] - first) <= 1e-5f * fabsf(first) && fabsf(dw[(IN - 2) * OUT] - second) <= 1e-5f * fabsf(second));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_row_norms_dl(context, &good, norms, TOKENS - 1, NULL));
}

static void nothing(void) {
  wtacrs_layer *layer;
  wtacrs_plan *empty;
  size_t bytes;
  float values[4] = {5, 5, 5, 5};
  EXPECT(OK, wtacrs_layer_create(&layer));
  EXPECT(OK, wtacrs_layer_set_shape(layer, 0, 2, 2));
  EXPECT(OK, wtacrs_layer_set_budget_fraction(layer, 0.3));
  EXPECT(OK, wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT));
  EXPECT(OK, wtacrs_plan_create(context, layer, &empty));
  EXPECT(OK, wtacrs_plan_backward_scratch_bytes(empty, &bytes));
  REQUIRE(bytes == 0);
  EXPECT(OK, FORWARD(empty, NULL, 2, NULL, NULL, saved, saved_bytes));
  EXPECT(OK, BACKWARD(empty, saved, saved_bytes, NULL, 2, values, 2, 0, NULL, NULL, NULL, 0));
  REQUIRE(values[0] == 0 && values[3] == 0); /* a sum of nothing */
  EXPECT(OK, wtacrs_plan_destroy(empty));
  EXPECT(OK, wtacrs_layer_set_shape(layer, 4, 0, 2));
  EXPECT(OK, wtacrs_plan_create(context, layer, &empty));
  EXPECT(OK, FORWARD(empty, NULL, 0, NULL, NULL, saved, saved_bytes));
  EXPECT(OK, wtacrs_plan_destroy(empty));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  EXPECT(OK, wtacrs_row_norms(context, WTACRS_F32, 0, 5, NULL, 5, NULL, NULL));
}

static void memories(void) {
  wtacrs_norm_cache *cache, *loaded = NULL;
  uint64_t samples[2] = {1, 2}, lengths[2] = {3, UINT64_MAX}, changed[2] = {3, 2};
  float batch[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  size_t needed = 0;
  EXPECT(OK, wtacrs_norm_cache_create(&cache));
  mark();
  EXPECT(SIZE_OVERFLOW, wtacrs_norm_cache_fetch(cache, samples, lengths, 2, norms, TOKENS));
  EXPECT(SIZE_OVERFLOW, wtacrs_norm_cache_store(cache, samples, lengths, 2, batch, 8));
  lengths[1] = 5;
  EXPECT(NULL_POINTER, wtacrs_norm_cache_fetch(cache, NULL, lengths, 2, norms, TOKENS));
  EXPECT(NULL_POINTER, wtacrs_norm_cache_fetch(cache, samples, NULL, 2, norms, TOKENS));
  EXPECT(NULL_POINTER, wtacrs_norm_cache_fetch(cache, samples, lengths, 2, NULL, TOKENS));
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_cache_fetch(cache, samples, lengths, 2, norms, 7));
  EXPECT(SHAPE_MISMATCH, wtacrs_norm_cache_store(cache, samples, lengths, 2, batch, 7));
  batch[4] = -2;
  EXPECT(INVALID_WEIGHTS, wtacrs_norm_cache_store(cache, samples, lengths, 2, batch, 8));
  batch[4] = 5;
  EXPECT(OK, wtacrs_norm_cache_store(cache, samples, lengths, 2, batch, 8));
  EXPECT(SHAPE_MISMATCH, wtacrs_norm_cache_fetch(cache, samples, changed, 2, norms, TOKENS));
  unmarked(__LINE__);
  _Alignas(8) unsigned char bytes[512];
  EXPECT(NULL_POINTER, wtacrs_norm_cache_save(cache, bytes, sizeof bytes, NULL));
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_cache_save(cache, bytes, 10, &needed));
  REQUIRE(needed > 10 && needed < sizeof bytes);
  needed = 0;
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_cache_save(cache, bytes, 0, &needed));
  REQUIRE(needed > 10);
  EXPECT(OVERLAP, wtacrs_norm_cache_save(cache, &needed, sizeof needed, &needed));
  EXPECT(OK, wtacrs_norm_cache_save(cache, bytes, sizeof bytes, &needed));
  EXPECT(OVERLAP, wtacrs_norm_cache_load(bytes, needed, (wtacrs_norm_cache **)bytes));
  EXPECT(OVERLAP, wtacrs_norm_cache_load_on(context, 8, 8, bytes, needed, (wtacrs_norm_cache **)bytes));
  EXPECT(CORRUPTED, wtacrs_norm_cache_load(bytes, needed - 1, &loaded));
  EXPECT(CORRUPTED, wtacrs_norm_cache_load(bytes, 0, &loaded));
  EXPECT(NULL_POINTER, wtacrs_norm_cache_load(NULL, needed, &loaded));
  EXPECT(NULL_POINTER, wtacrs_norm_cache_load(bytes, needed, NULL));
  bytes[8] ^= 4;
  EXPECT(VERSION_MISMATCH, wtacrs_norm_cache_load(bytes, needed, &loaded));
  REQUIRE(loaded == NULL);
  EXPECT(OK, wtacrs_norm_cache_destroy(cache));
  EXPECT(INVALID_HANDLE, wtacrs_norm_cache_forget(cache, 1));

  wtacrs_norm_predictor *made = NULL;
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_create(0, &made));
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_create(SIZE_MAX, &made));
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_create_with(8, SIZE_MAX, 0.97, 0.01, 6, 128, 0, &made));
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_create_with(8, 8, NAN, 0.01, 6, 128, 0, &made));
  EXPECT(CORRUPTED, wtacrs_norm_predictor_load("no", 2, &made));
  EXPECT(OVERLAP, wtacrs_norm_predictor_load(&made, sizeof made, &made));
  EXPECT(OVERLAP, wtacrs_norm_predictor_load_on(context, &made, sizeof made, &made));
  needed = 0;
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_predictor_save(predictor, bytes, 0, &needed));
  REQUIRE(needed > 0);
  REQUIRE(made == NULL);
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  mark();
  norms[9] = NAN, norms[8] = NAN; /* some kept row, or not: both are refused or not looked at */
  for (int i = 0; i < TOKENS; i++) norms[i] = NAN;
  EXPECT(INVALID_WEIGHTS, wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms));
  mark();
  EXPECT(SHAPE_MISMATCH, wtacrs_norm_predictor_update(wide_predictor, plan, saved, saved_bytes, norms));
  double sum = 0;
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_predictor_statistics(predictor, plan, saved, saved_bytes, norms, &sum, 1));
  EXPECT(SHAPE_MISMATCH, wtacrs_norm_predictor_apply(predictor, &sum, 1));
}

static void batched(void) {
  wtacrs_tensor_mul *t;
  wtacrs_tensor_mul_plan *p = NULL;
  EXPECT(OK, wtacrs_tensor_mul_create(&t));
  EXPECT(INVALID_ARGUMENT, wtacrs_tensor_mul_plan_create(context, t, &p));
  EXPECT(SIZE_OVERFLOW, wtacrs_tensor_mul_set_shape(t, SIZE_MAX, 2, 1, 1, 1));
  EXPECT(SIZE_OVERFLOW, wtacrs_tensor_mul_set_shape(t, 1 << 20, 1 << 10, 1 << 20, 1 << 20, 1));
  EXPECT(OK, wtacrs_tensor_mul_set_shape(t, 1, 2, 16, 4, 12));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_exact(t, 2));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_precision(t, 2));
  EXPECT(OK, wtacrs_tensor_mul_set_precision(t, WTACRS_PRECISION_TF32));
  EXPECT(INVALID_BUDGET, wtacrs_tensor_mul_set_budget_rows(t, WTACRS_LEFT, 0));
  EXPECT(OK, wtacrs_tensor_mul_set_budget_rows(t, WTACRS_LEFT, 13));
  EXPECT(OK, wtacrs_tensor_mul_set_exact(t, WTACRS_RIGHT));
  EXPECT(INVALID_BUDGET, wtacrs_tensor_mul_plan_create(context, t, &p));
  EXPECT(OK, wtacrs_tensor_mul_set_budget_rows(t, WTACRS_LEFT, 5));
  EXPECT(OK, wtacrs_tensor_mul_plan_create(context, t, &p));
  size_t n, m = 55;
  EXPECT(OVERLAP, wtacrs_tensor_mul_plan_memory(p, &m, NULL, NULL, &m));
  REQUIRE(m == 55);
  EXPECT(OK, wtacrs_tensor_mul_plan_memory(p, &n, NULL, &m, NULL));
  float a[128], b[96], g[384], da[128], db[96];
  for (int i = 0; i < 128; i++) a[i] = (float)(i % 7) - 3, da[i] = 77;
  for (int i = 0; i < 96; i++) b[i] = (float)(i % 5) - 2, db[i] = 77;
  for (int i = 0; i < 384; i++) g[i] = (float)(i % 11) - 5;
  unsigned char *s = aligned_alloc(64, n), *w = aligned_alloc(64, m + 64);
  memset(s, 0, n);
#define TFORWARD(a, s, n) wtacrs_tensor_mul_forward(p, a, b, NULL, NULL, 1, 0, s, n, NULL, 0, NULL)
#define TBACKWARD(g, da, m) wtacrs_tensor_mul_backward(p, s, n, g, da, db, 0, NULL, NULL, w, m, NULL)
  EXPECT(CORRUPTED, TBACKWARD(g, da, m));
  EXPECT(NULL_POINTER, TFORWARD(NULL, s, n));
  EXPECT(BUFFER_TOO_SMALL, TFORWARD(a, s, n - 1));
  EXPECT(OVERLAP, TFORWARD(s, s, n));
  a[127] = NAN; /* the last item: the first must not have been written */
  b[95] = NAN;
  EXPECT(INVALID_WEIGHTS, TFORWARD(a, s, n));
  for (size_t i = 0; i < n; i++) REQUIRE(s[i] == 0);
  a[127] = 1, b[95] = 1;
  float guess[32] = {-1, 2, NAN};
  EXPECT(INVALID_WEIGHTS, wtacrs_tensor_mul_forward(p, a, b, NULL, guess, 1, 0, s, n, NULL, 0, NULL));
  guess[2] = 0;
  EXPECT(OK, wtacrs_tensor_mul_forward(p, a, b, NULL, guess, 1, 0, s, n, NULL, 0, NULL)); /* negative: not known */
  EXPECT(OK, TFORWARD(a, s, n));
  EXPECT(BUFFER_TOO_SMALL, TBACKWARD(g, da, m - 1));
  EXPECT(NULL_POINTER, TBACKWARD(NULL, da, m));
  EXPECT(OVERLAP, TBACKWARD(g, db, m));
  REQUIRE(da[0] == 77 && db[95] == 77);
  EXPECT(OK, TBACKWARD(g, da, m));
  REQUIRE(da[0] != 77);
  free(s), free(w);
  EXPECT(OK, wtacrs_tensor_mul_plan_destroy(p));
  EXPECT(OK, wtacrs_tensor_mul_set_exact(t, WTACRS_LEFT));
  EXPECT(OK, wtacrs_tensor_mul_set_shape(t, 2, 2, 0, SIZE_MAX, 0)); /* nothing, however wide */
  EXPECT(OK, wtacrs_tensor_mul_plan_create(context, t, &p));
  EXPECT(OK, wtacrs_tensor_mul_plan_memory(p, NULL, NULL, NULL, &m));
  REQUIRE(m == 0);
  EXPECT(OK, wtacrs_tensor_mul_plan_destroy(p));
  EXPECT(OK, wtacrs_tensor_mul_destroy(t));
}

static void last_error(void) {
  char words[8] = "1234567", one[1] = {'x'};
  size_t needed = 0;
  EXPECT(NULL_POINTER, wtacrs_plan_budget(NULL, NULL));
  EXPECT(OK, wtacrs_last_error(NULL, 0, &needed));
  REQUIRE(needed > sizeof words);
  EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(strcmp(words, "wtacrs_") == 0);
  EXPECT(OK, wtacrs_last_error(one, 1, NULL));
  REQUIRE(one[0] == 0);
  EXPECT(NULL_POINTER, wtacrs_last_error(NULL, 3, NULL));
  needed = 55;
  EXPECT(OVERLAP, wtacrs_last_error((char *)&needed, sizeof needed, &needed));
  REQUIRE(needed == 55);
  REQUIRE(strcmp(wtacrs_status_string(-1), "unknown status") == 0 && strcmp(wtacrs_status_string(99), "unknown status") == 0);
}

static float expected_dw[IN * OUT];

static void *one_thread(void *argument) {
  int *wrong = argument;
  char words[64];
  size_t needed = 99;
  if (wtacrs_last_error(words, sizeof words, &needed) != WTACRS_OK || needed != 1 || words[0]) ++*wrong; /* its own */
  unsigned char *s = aligned_alloc(64, (saved_bytes + 63) / 64 * 64), *w = aligned_alloc(64, (backward_bytes + 63) / 64 * 64);
  float mine[IN * OUT];
  for (int i = 0; i < 50; i++) {
    if (FORWARD(plan, h, IN, NULL, NULL, s, saved_bytes) != WTACRS_OK) ++*wrong;
    if (BACKWARD(plan, s, saved_bytes, dz, OUT, mine, OUT, 0, NULL, NULL, w, backward_bytes) != WTACRS_OK) ++*wrong;
    if (memcmp(mine, expected_dw, sizeof mine) != 0) ++*wrong;
    if (wtacrs_plan_budget(NULL, NULL) != WTACRS_NULL_POINTER) ++*wrong;
  }
  free(s), free(w);
  return NULL;
}

static void threads(void) {
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  EXPECT(OK, BACKWARD(plan, saved, saved_bytes, dz, OUT, expected_dw, OUT, 0, NULL, NULL, scratch, backward_bytes));
  EXPECT(INVALID_ENUM, wtacrs_context_create(7, 0, &context));
  pthread_t thread[2];
  int wrong[2] = {0, 0};
  for (int i = 0; i < 2; i++) REQUIRE(pthread_create(&thread[i], NULL, one_thread, &wrong[i]) == 0);
  for (int i = 0; i < 2; i++) REQUIRE(pthread_join(thread[i], NULL) == 0);
  REQUIRE(wrong[0] == 0 && wrong[1] == 0);
  char words[256];
  EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(strstr(words, "device is 7") != NULL); /* not what the threads did */
}

static void panics(void) {
  setenv("WTACRS_TEST_PANIC", "wtacrs_forward", 1);
  UNTOUCHED(PANIC, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  char words[256];
  EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(strstr(words, "wtacrs_forward: panicked: asked for") != NULL);
  EXPECT(OK, wtacrs_plan_destroy(NULL)); /* others are not touched */
  setenv("WTACRS_TEST_PANIC", "wtacrs_backward", 1);
  UNTOUCHED(PANIC, BACKWARD(plan, saved, saved_bytes, dz, OUT, dw, OUT, 0, norms, bias, scratch, backward_bytes));
  setenv("WTACRS_TEST_PANIC", "wtacrs_plan_destroy", 1);
  EXPECT(PANIC, wtacrs_plan_destroy(plan));
  unsetenv("WTACRS_TEST_PANIC");
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes)); /* and it goes on */
}

int main(void) {
  setenv("CUDA_VISIBLE_DEVICES", "", 1); /* no GPU, even where there is one */
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)((i * 37) % 19) / 9 - 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)((i * 23) % 17) / 8 - 1;
  EXPECT(OK, wtacrs_context_create(WTACRS_CPU, 0, &context));
  plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT);
  norms_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_NORMS);
  cached_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_CACHED);
  predicted_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_PREDICTED);
  wide_plan = make_plan(context, TOKENS, IN, OUT, BUDGET + 1, WTACRS_SOURCE_INPUT);
  EXPECT(OK, wtacrs_norm_predictor_create(IN, &predictor));
  EXPECT(OK, wtacrs_norm_predictor_create(IN + 1, &wide_predictor));
  EXPECT(OK, wtacrs_plan_saved_bytes(plan, &saved_bytes));
  EXPECT(OK, wtacrs_plan_backward_scratch_bytes(plan, &backward_bytes));
  EXPECT(OK, wtacrs_plan_estimate_scratch_bytes(plan, &estimate_bytes));
  REQUIRE(saved_bytes < sizeof saved_before);
  saved = aligned_alloc(64, sizeof saved_before + 64);
  scratch = aligned_alloc(64, sizeof saved_before + 64);
  memset(saved, 0, sizeof saved_before + 64);
  memset(scratch, 0, sizeof saved_before + 64);

  handles(), descriptions(), forward(), backward(), steps(), tensors(), nothing(), memories(), batched(), last_error();
  threads(), panics();

  EXPECT(OK, wtacrs_norm_predictor_destroy(predictor));
  EXPECT(OK, wtacrs_norm_predictor_destroy(wide_predictor));
  wtacrs_plan *plans[] = {plan, norms_plan, cached_plan, predicted_plan, wide_plan};
  for (int i = 0; i < 5; i++) EXPECT(OK, wtacrs_plan_destroy(plans[i]));
  EXPECT(OK, wtacrs_context_destroy(context));
  free(saved), free(scratch);
  puts(failures ? "failed" : "ok");
  return failures != 0;
}
