/* Every kind of misuse: each gets its documented status and writes no output. (Structs with their size: options.c.) */
#include "check.h"
#include <pthread.h>

enum { TOKENS = 32, IN = 12, OUT = 8, BUDGET = 10, ROOM = 1 << 14 };

static wtacrs_context *context;
static wtacrs_plan *plan, *norms_plan, *cached_plan, *predicted_plan, *wide_plan;
static wtacrs_norm_predictor *predictor, *wide_predictor;
static float h[TOKENS * IN], dz[TOKENS * OUT], dw[IN * OUT], norms[TOKENS], bias[OUT];
static unsigned char *saved, *scratch;
static size_t saved_bytes, backward_bytes, estimate_bytes;
static uint32_t indices[TOKENS];
static double scales[TOKENS], weights[TOKENS];
static uint64_t kept, winners;

/* Outputs as no call leaves them. */
static void mark(void) {
  for (int i = 0; i < IN * OUT; i++) dw[i] = 77;
  for (int i = 0; i < TOKENS; i++) norms[i] = 1, indices[i] = 55, scales[i] = 55, weights[i] = 55;
  for (int i = 0; i < OUT; i++) bias[i] = 77;
  kept = winners = 55;
}
#define UNTOUCHED(status, call) \
  do { \
    mark(); \
    UNCHANGED(status, NULL, call); \
  } while (0)

#define FORWARD(plan, h, leading, guess_, predictor_, saved, bytes)                                                    \
  wtacrs_plan_forward(plan, h, leading, 1, 0, SIZED(wtacrs_forward_options, .guess = guess_, .predictor = predictor_), \
                      saved, bytes, NULL, 0, NULL)
#define BACKWARD(plan, saved, bytes, dz, leading, dw, dw_leading, accumulate_, norms_, bias_, scratch, scratch_bytes) \
  wtacrs_plan_backward( \
      plan, saved, bytes, dz, leading, dw, dw_leading, \
      SIZED(wtacrs_backward_options, .accumulate = accumulate_, .dz_norms = norms_, .bias_gradient = bias_), scratch, \
      scratch_bytes, NULL)
#define ROW_NORMS(context, dtype, rows, columns, x, leading, norms) \
  wtacrs_context_norms(context, WTACRS_AXIS_ROWS, dtype, rows, columns, x, leading, norms, NULL)

static void handles(void) {
  wtacrs_context *other = NULL, *kept_handle;
  EXPECT(NULL_POINTER, wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, NULL));
  EXPECT(INVALID_ENUM, wtacrs_context_create(2, 0, NULL, &other));
  EXPECT(INVALID_ENUM, wtacrs_context_create(-1, 0, NULL, &other));
  EXPECT(INVALID_ENUM, wtacrs_context_create(WTACRS_DEVICE_FORCE_32_BITS, 0, NULL, &other));
  EXPECT(INVALID_ARGUMENT, wtacrs_context_create(WTACRS_DEVICE_CPU, 1, NULL, &other));
  EXPECT(INVALID_ARGUMENT, wtacrs_context_create(WTACRS_DEVICE_CUDA, -2, NULL, &other));
  EXPECT(NO_DEVICE, wtacrs_context_create(WTACRS_DEVICE_CUDA, 0, NULL, &other));
  EXPECT(NO_DEVICE, wtacrs_context_create(WTACRS_DEVICE_CUDA, -1, NULL, &other));
  EXPECT(MISALIGNED, wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, shifted(scratch, 1)));
  REQUIRE(other == NULL);

  EXPECT(OK, wtacrs_context_destroy(NULL));
  EXPECT(OK, wtacrs_layer_destroy(NULL));
  EXPECT(OK, wtacrs_plan_destroy(NULL));
  EXPECT(OK, wtacrs_norm_cache_destroy(NULL));
  EXPECT(OK, wtacrs_norm_predictor_destroy(NULL));
  EXPECT(OK, wtacrs_tensor_mul_destroy(NULL));
  EXPECT(OK, wtacrs_tensor_mul_plan_destroy(NULL));

  EXPECT(OK, wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &other));
  kept_handle = other;
  EXPECT(OK, wtacrs_context_destroy(other));
  EXPECT(INVALID_HANDLE, wtacrs_context_destroy(other));
  EXPECT(OK, wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &other));
  REQUIRE(other != kept_handle); /* numbers are not used again */
  EXPECT(INVALID_HANDLE, ROW_NORMS(kept_handle, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, norms));
  EXPECT(OK, wtacrs_context_destroy(other));

  wtacrs_plan_info info = {.size = sizeof info, .budget_rows = 99};
  EXPECT(INVALID_HANDLE, wtacrs_plan_get_info((wtacrs_plan *)context, &info));
  EXPECT(INVALID_HANDLE, wtacrs_plan_get_info((wtacrs_plan *)&info, &info));
  EXPECT(INVALID_HANDLE, wtacrs_plan_destroy((wtacrs_plan *)context));
  EXPECT(NULL_POINTER, wtacrs_plan_get_info(NULL, &info));
  EXPECT(NULL_POINTER, wtacrs_plan_get_info(plan, NULL));
  REQUIRE(info.budget_rows == 99);
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
  EXPECT(INVALID_ENUM, wtacrs_layer_set_design(layer, 6));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_design(layer, INT32_MIN));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_source(layer, 4, 0.5));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_dtypes(layer, 0, 0, 4));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_dtypes(layer, -1, 0, 0));
  EXPECT(UNSUPPORTED, wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F64, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32));
  EXPECT(UNSUPPORTED, wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_BF16, WTACRS_DTYPE_BF16, WTACRS_DTYPE_BF16));
  EXPECT(INVALID_ARGUMENT, wtacrs_layer_set_source(layer, WTACRS_SOURCE_CACHED, 1.5));
  EXPECT(INVALID_ARGUMENT, wtacrs_layer_set_source(layer, WTACRS_SOURCE_CACHED, -0.5));
  EXPECT(INVALID_ARGUMENT, wtacrs_layer_set_source(layer, WTACRS_SOURCE_CACHED, NAN));
  EXPECT(NULL_POINTER, wtacrs_layer_set_source(NULL, WTACRS_SOURCE_CACHED, 0.5));
  EXPECT(OK, wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT, NAN)); /* ignored */
  EXPECT_WORDS(INVALID_ENUM, "precision is 3", wtacrs_layer_set_precision(layer, 3));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_precision(layer, -1));
  EXPECT(NULL_POINTER, wtacrs_layer_set_precision(NULL, WTACRS_PRECISION_TF32));
  EXPECT(OK, wtacrs_layer_set_precision(layer, WTACRS_PRECISION_TF32));
  EXPECT(OK, wtacrs_layer_set_precision(layer, WTACRS_PRECISION_WIDE));
  EXPECT(OK, wtacrs_layer_set_precision(layer, WTACRS_PRECISION_F32));
  EXPECT_WORDS(INVALID_ENUM, "engine is 3", wtacrs_layer_set_engine(layer, 3));
  EXPECT(INVALID_ENUM, wtacrs_layer_set_engine(layer, -1));
  EXPECT(NULL_POINTER, wtacrs_layer_set_engine(NULL, WTACRS_ENGINE_OWN));
  EXPECT(OK, wtacrs_layer_set_engine(layer, WTACRS_ENGINE_CUBLASLT));
  EXPECT(OK, wtacrs_layer_set_engine(layer, WTACRS_ENGINE_AUTO));
  EXPECT_WORDS(INVALID_ENUM, "packing is 4: it must lie between 0 and 3", wtacrs_layer_set_packing(layer, 4));
  EXPECT_WORDS(INVALID_ENUM, "packing is -1", wtacrs_layer_set_packing(layer, -1));
  EXPECT(NULL_POINTER, wtacrs_layer_set_packing(NULL, WTACRS_PACKING_BITS4));
  EXPECT(INVALID_HANDLE, wtacrs_layer_set_packing((wtacrs_layer *)context, WTACRS_PACKING_BITS4));
  EXPECT(OK, wtacrs_layer_set_packing(layer, WTACRS_PACKING_BITS4));
  EXPECT(OK, wtacrs_layer_set_packing(layer, WTACRS_PACKING_NATIVE));
  EXPECT(MISALIGNED, wtacrs_layer_set_further_offset(layer, shifted(scratch, 4)));
  EXPECT(OK, wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, TOKENS + 1));
  EXPECT(INVALID_BUDGET, wtacrs_plan_create(context, layer, &made)); /* k > n */
  EXPECT(OK, wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, BUDGET));
  EXPECT(NULL_POINTER, wtacrs_plan_create(NULL, layer, &made));
  EXPECT(NULL_POINTER, wtacrs_plan_create(context, NULL, &made));
  EXPECT(NULL_POINTER, wtacrs_plan_create(context, layer, NULL));
  REQUIRE(made == NULL);
  EXPECT(OK, wtacrs_layer_set_shape(layer, UINT32_MAX, 1 << 24, 1));
  EXPECT(OK, wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, UINT32_MAX));
  EXPECT(OK, wtacrs_plan_create(context, layer, &made)); /* large, but it can be addressed */
  EXPECT(OK, wtacrs_plan_destroy(made));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  EXPECT(INVALID_HANDLE, wtacrs_layer_set_source(layer, WTACRS_SOURCE_CACHED, 0.5));
}

/* One amount in three units, for a layer and for each side of a product: refused at once, whatever the shape. */
static void budgets(void) {
  static const struct {
    wtacrs_budget unit;
    double amount;
    wtacrs_status status;
  } cases[] = {
      {WTACRS_BUDGET_ROWS, 0, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_ROWS, -1, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_ROWS, 2.5, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_ROWS, 0x1p53, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_ROWS, INFINITY, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_ROWS, NAN, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_ROWS, 1, WTACRS_STATUS_OK},
      {WTACRS_BUDGET_ROWS, UINT32_MAX, WTACRS_STATUS_OK}, /* what does not fit is refused when the plan is made */
      {WTACRS_BUDGET_FRACTION, 0, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_FRACTION, -0.3, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_FRACTION, 1.01, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_FRACTION, INFINITY, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_FRACTION, NAN, WTACRS_STATUS_INVALID_BUDGET},
      {WTACRS_BUDGET_FRACTION, 1e-300, WTACRS_STATUS_OK},
      {WTACRS_BUDGET_FRACTION, 1, WTACRS_STATUS_OK},
      {WTACRS_BUDGET_EXACT, 0, WTACRS_STATUS_OK}, /* has no amount */
      {WTACRS_BUDGET_EXACT, -1, WTACRS_STATUS_OK},
      {WTACRS_BUDGET_EXACT, NAN, WTACRS_STATUS_OK},
      {3, 1, WTACRS_STATUS_INVALID_ENUM},
      {-1, 1, WTACRS_STATUS_INVALID_ENUM},
      {WTACRS_BUDGET_FORCE_32_BITS, 1, WTACRS_STATUS_INVALID_ENUM},
  };
  wtacrs_layer *layer;
  wtacrs_tensor_mul *product;
  CHECK(wtacrs_layer_create(&layer));
  CHECK(wtacrs_tensor_mul_create(&product));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    REQUIRE(wtacrs_layer_set_budget(layer, cases[i].unit, cases[i].amount) == cases[i].status);
    for (int side = 0; side < 2; side++)
      REQUIRE(wtacrs_tensor_mul_set_budget(product, side, cases[i].unit, cases[i].amount) == cases[i].status);
  }
  EXPECT(NULL_POINTER, wtacrs_layer_set_budget(NULL, WTACRS_BUDGET_ROWS, 1));
  EXPECT(NULL_POINTER, wtacrs_tensor_mul_set_budget(NULL, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 1));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_budget(product, 2, WTACRS_BUDGET_ROWS, 1));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_budget(product, -1, WTACRS_BUDGET_EXACT, 0));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  EXPECT(OK, wtacrs_tensor_mul_destroy(product));

  /* What the units come to, of 32 tokens. */
  const struct {
    wtacrs_budget unit;
    double amount;
    size_t rows;
  } fitting[] = {{WTACRS_BUDGET_ROWS, 7, 7},          {WTACRS_BUDGET_ROWS, TOKENS, TOKENS},
                 {WTACRS_BUDGET_FRACTION, 0.3, 10},   {WTACRS_BUDGET_FRACTION, 1e-300, 1},
                 {WTACRS_BUDGET_FRACTION, 1, TOKENS}, {WTACRS_BUDGET_EXACT, NAN, TOKENS}};
  for (size_t i = 0; i < sizeof fitting / sizeof *fitting; i++) {
    wtacrs_plan *made = freeze(context, describe(TOKENS, IN, OUT, fitting[i].unit, fitting[i].amount, WTACRS_SOURCE_INPUT));
    REQUIRE(info_of(made).budget_rows == fitting[i].rows);
    EXPECT(OK, wtacrs_plan_destroy(made));
  }
}

static void forward(void) {
  UNTOUCHED(NULL_POINTER, FORWARD(NULL, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(plan, NULL, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(plan, h, IN, NULL, NULL, NULL, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(norms_plan, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(cached_plan, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(NULL_POINTER, FORWARD(predicted_plan, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(INVALID_ARGUMENT, FORWARD(plan, h, IN, norms, NULL, saved, saved_bytes));
  UNTOUCHED(INVALID_ARGUMENT, FORWARD(plan, h, IN, NULL, predictor, saved, saved_bytes));
  UNTOUCHED(SHAPE_MISMATCH, FORWARD(predicted_plan, h, IN, NULL, wide_predictor, saved, saved_bytes));
  UNTOUCHED(INVALID_ARGUMENT, FORWARD(plan, h, IN - 1, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(SIZE_OVERFLOW, FORWARD(plan, h, SIZE_MAX / 2, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(SIZE_OVERFLOW, FORWARD(plan, h, SIZE_MAX, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes - 1));
  UNTOUCHED(MISALIGNED, FORWARD(plan, h, IN, NULL, NULL, saved + 32, saved_bytes));
  UNTOUCHED(MISALIGNED, FORWARD(plan, shifted(h, 2), IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(MISALIGNED, FORWARD(norms_plan, h, IN, shifted(norms, 2), NULL, saved, saved_bytes));
  UNTOUCHED(OVERLAP, FORWARD(plan, saved + 64, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(OVERLAP, FORWARD(norms_plan, h, IN, (float *)saved, NULL, saved, saved_bytes));

  float keep = h[5 * IN + 3];
  float bad[] = {NAN, INFINITY};
  for (int i = 0; i < 2; i++) {
    h[5 * IN + 3] = bad[i];
    UNTOUCHED(INVALID_WEIGHTS, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
    REQUIRE(strstr(error_text(), "wtacrs_plan_forward: input norm 5") != NULL);
  }
  h[5 * IN + 3] = keep;
  float guess[TOKENS];
  for (int i = 0; i < TOKENS; i++) guess[i] = 1;
  guess[7] = NAN;
  UNTOUCHED(INVALID_WEIGHTS, FORWARD(norms_plan, h, IN, guess, NULL, saved, saved_bytes));
  UNTOUCHED(INVALID_WEIGHTS, FORWARD(cached_plan, h, IN, guess, NULL, saved, saved_bytes));
  guess[7] = -1;
  UNTOUCHED(INVALID_WEIGHTS, FORWARD(norms_plan, h, IN, guess, NULL, saved, saved_bytes));
  EXPECT(OK, FORWARD(cached_plan, h, IN, guess, NULL, saved, saved_bytes)); /* negative: unknown */
}

static void backward(void) {
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  void *s = saved, *w = scratch;
  size_t n = saved_bytes, m = backward_bytes;
  UNTOUCHED(NULL_POINTER, BACKWARD(NULL, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(NULL_POINTER, BACKWARD(plan, NULL, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(NULL_POINTER, BACKWARD(plan, s, n, NULL, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(NULL_POINTER, BACKWARD(plan, s, n, dz, OUT, NULL, OUT, 0, norms, bias, w, m));
  UNTOUCHED(INVALID_ENUM, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 2, norms, bias, w, m));
  UNTOUCHED(INVALID_ARGUMENT, BACKWARD(plan, s, n, dz, OUT - 1, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(INVALID_ARGUMENT, BACKWARD(plan, s, n, dz, OUT, dw, OUT - 1, 0, norms, bias, w, m));
  UNTOUCHED(BUFFER_TOO_SMALL, BACKWARD(plan, s, n - 1, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, saved + 8, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, s, n, dz, OUT, shifted(dw, 1), OUT, 0, norms, bias, w, m));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, shifted(norms, 1), bias, w, m));
  UNTOUCHED(MISALIGNED, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, shifted(bias, 1), w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dz, OUT, 0, norms, bias, w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, dw, bias, w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, norms, w, m));
  UNTOUCHED(OVERLAP, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, dz, bias, w, m));
  REQUIRE(m == 0); /* so that any scratch will do */
  EXPECT(OK, BACKWARD(plan, s, n, dz, OUT, dw, OUT, 0, norms, bias, NULL, 0));

  /* Saved memory that no forward pass of such a plan wrote. */
#define SAVED(plan, bytes, indices_, scales_, capacity_, kept_, winners_) \
  wtacrs_plan_saved_selection(plan, s, bytes, SELECTION(indices_, scales_, capacity_, kept_, winners_))
  UNTOUCHED(SHAPE_MISMATCH, SAVED(wide_plan, ROOM, indices, scales, TOKENS, &kept, &winners));
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
  UNTOUCHED(CORRUPTED, SAVED(plan, n, indices, scales, TOKENS, &kept, &winners));
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, SAVED(plan, n, indices, scales, BUDGET - 1, &kept, &winners));
  UNTOUCHED(NULL_POINTER, SAVED(plan, n, NULL, scales, BUDGET, &kept, &winners));
  UNTOUCHED(NULL_POINTER, SAVED(plan, n, indices, NULL, BUDGET, &kept, &winners));
  UNTOUCHED(MISALIGNED, SAVED(plan, n, indices, shifted(scales, 4), BUDGET, &kept, &winners));
  UNTOUCHED(OVERLAP, SAVED(plan, n, indices, scales, TOKENS, &kept, &kept));
  UNTOUCHED(BUFFER_TOO_SMALL, SAVED(plan, n, indices, scales, 0, &kept, &winners));
  UNTOUCHED(BUFFER_TOO_SMALL, SAVED(plan, n, indices, NULL, 0, &kept, &winners));
  EXPECT(OK, SAVED(plan, n, NULL, NULL, 0, &kept, &winners));
  REQUIRE(kept == BUDGET);
}

static void steps(void) {
  float input[TOKENS];
  EXPECT(OK, ROW_NORMS(context, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, input));
  UNTOUCHED(NULL_POINTER, ROW_NORMS(NULL, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, norms));
  UNTOUCHED(NULL_POINTER, ROW_NORMS(context, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, NULL));
  UNTOUCHED(INVALID_ENUM, ROW_NORMS(context, 9, TOKENS, IN, h, IN, norms));
  UNTOUCHED(INVALID_ENUM, wtacrs_context_norms(context, 2, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, norms, NULL));
  UNTOUCHED(INVALID_ENUM, wtacrs_context_norms(context, -1, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, norms, NULL));
  UNTOUCHED(SIZE_OVERFLOW, ROW_NORMS(context, WTACRS_DTYPE_F32, SIZE_MAX, IN, h, IN, norms));
  UNTOUCHED(SIZE_OVERFLOW, ROW_NORMS(context, WTACRS_DTYPE_F32, SIZE_MAX / 4, 1, h, 1, norms));
  UNTOUCHED(OVERLAP, ROW_NORMS(context, WTACRS_DTYPE_F32, TOKENS, 1, norms, 1, norms));
  UNTOUCHED(OVERLAP,
            wtacrs_context_norms(context, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, 1, TOKENS, norms, TOKENS, norms, NULL));
#define SELECT(plan, norms, guess, capacity) \
  wtacrs_plan_select(plan, norms, guess, 1, 0, 0, SELECTION(indices, scales, capacity, &kept, &winners), NULL, 0, NULL)
  UNTOUCHED(NULL_POINTER, SELECT(NULL, input, NULL, TOKENS));
  UNTOUCHED(NULL_POINTER, SELECT(plan, NULL, NULL, TOKENS));
  UNTOUCHED(NULL_POINTER, SELECT(norms_plan, input, NULL, TOKENS));
  UNTOUCHED(INVALID_ARGUMENT, SELECT(plan, input, input, TOKENS));
  UNTOUCHED(INVALID_ARGUMENT, SELECT(predicted_plan, input, input, TOKENS));
  UNTOUCHED(BUFFER_TOO_SMALL, SELECT(plan, input, NULL, BUDGET - 1));
  UNTOUCHED(OVERLAP, wtacrs_plan_weights(plan, (float *)weights, NULL, weights, NULL));
  float poisoned[TOKENS];
  memcpy(poisoned, input, sizeof input);
  poisoned[31] = NAN;
  UNTOUCHED(INVALID_WEIGHTS, SELECT(plan, poisoned, NULL, TOKENS));
  UNTOUCHED(INVALID_WEIGHTS, wtacrs_plan_weights(plan, poisoned, NULL, weights, NULL));
  UNTOUCHED(INVALID_WEIGHTS, SELECT(norms_plan, input, poisoned, TOKENS));

  float rows[BUDGET * IN];
  uint32_t order[3] = {4, 4, 9};
  double ones[3] = {1, 1, 1};
  uint64_t three = 3, many = BUDGET + 1;
#define GATHER(h, kept, rows) wtacrs_plan_gather(plan, h, IN, SELECTION(order, NULL, 0, kept, NULL), rows, IN, NULL)
  UNTOUCHED(INVALID_ARGUMENT, GATHER(h, &three, rows));
  order[1] = TOKENS, order[2] = TOKENS + 1;
  UNTOUCHED(INVALID_ARGUMENT, GATHER(h, &three, rows));
  UNTOUCHED(INVALID_ARGUMENT, GATHER(h, &many, rows));
  UNTOUCHED(NULL_POINTER, GATHER(h, NULL, rows));
  order[1] = 5, order[2] = 9;
  UNTOUCHED(OVERLAP, GATHER(h, &three, h));
  EXPECT(OK, GATHER(h, &three, rows));
#define GRADIENT(rows, scales_, w) \
  wtacrs_plan_weight_gradient(plan, rows, IN, SELECTION(order, scales_, 0, &three, NULL), dz, OUT, w, OUT, 0, scratch, \
                              backward_bytes, NULL)
  UNTOUCHED(NULL_POINTER, GRADIENT(NULL, ones, dw));
  UNTOUCHED(NULL_POINTER, GRADIENT(rows, NULL, dw));
  UNTOUCHED(OVERLAP, GRADIENT(rows, ones, rows));
  ones[2] = INFINITY;
  UNTOUCHED(INVALID_ARGUMENT, GRADIENT(rows, ones, dw));
  ones[2] = -1;
  UNTOUCHED(INVALID_ARGUMENT, GRADIENT(rows, ones, dw));
#define ESTIMATE(out, w, bytes) wtacrs_plan_estimate(plan, h, IN, dz, OUT, 1, 0, out, OUT, w, bytes, NULL)
  UNTOUCHED(NULL_POINTER, ESTIMATE(dw, NULL, estimate_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, ESTIMATE(dw, scratch, estimate_bytes - 1));
  UNTOUCHED(MISALIGNED, ESTIMATE(dw, scratch + 4, estimate_bytes));
  UNTOUCHED(OVERLAP, ESTIMATE(dz, scratch, estimate_bytes));
  UNTOUCHED(OVERLAP, ESTIMATE((float *)scratch, scratch, estimate_bytes));

  double threshold = 55;
  mark();
  EXPECT(NULL_POINTER, wtacrs_plan_theory(plan, weights, NULL, &threshold, NULL, NULL, &threshold));
  EXPECT(NULL_POINTER, wtacrs_plan_theory(plan, NULL, NULL, &threshold, NULL, NULL, NULL));
  weights[3] = -1;
  EXPECT(INVALID_WEIGHTS, wtacrs_plan_theory(plan, weights, NULL, &threshold, NULL, NULL, NULL));
  UNTOUCHED(OVERLAP, wtacrs_plan_theory(plan, weights, NULL, weights, NULL, NULL, NULL));
  UNTOUCHED(OVERLAP, wtacrs_plan_theory(plan, weights, NULL, NULL, (uint64_t *)weights, NULL, NULL));
  EXPECT(OVERLAP, wtacrs_plan_theory(plan, weights, scales, NULL, NULL, NULL, scales + 1));
  EXPECT(OVERLAP, wtacrs_plan_theory(plan, weights, NULL, &threshold, (uint64_t *)&threshold, NULL, NULL));
  EXPECT(OVERLAP, wtacrs_plan_theory(plan, weights, NULL, &threshold, NULL, &threshold, NULL));
  REQUIRE(threshold == 55);
  UNTOUCHED(OVERLAP, wtacrs_plan_expected_error(plan, h, IN, dz, OUT, weights, weights, NULL, NULL));
  EXPECT(OVERLAP, wtacrs_plan_expected_error(plan, h, IN, dz, OUT, NULL, &threshold, (int32_t *)&threshold, NULL));
  REQUIRE(threshold == 55);
}

static void tensors(void) {
  int64_t shape[3] = {TOKENS, IN, 1}, strides[2] = {IN, 1}, out_shape[2] = {IN, OUT}, dz_shape[2] = {TOKENS, OUT};
  const wtacrs_dltensor good = {h, {1, 0}, 2, {2, 32, 1}, shape, NULL, 0};
  wtacrs_dltensor t;
#define FORWARD_DL(t) wtacrs_plan_forward_dl(plan, t, 1, 0, NULL, saved, saved_bytes, NULL, 0, NULL)
#define WRONG(status, change) \
  do { \
    t = good; \
    change; \
    UNTOUCHED(status, FORWARD_DL(&t)); \
  } while (0)
  EXPECT(OK, FORWARD_DL(&good));
  UNTOUCHED(NULL_POINTER, FORWARD_DL(NULL));
  UNTOUCHED(MISALIGNED, FORWARD_DL(shifted(scratch, 4)));
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
#define BACKWARD_DL(out) wtacrs_plan_backward_dl(plan, saved, saved_bytes, &g, out, NULL, scratch, backward_bytes, NULL)
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
  REQUIRE(fabsf(dw[(IN - 1) * OUT] - first) <= 1e-5f * fabsf(first));
  REQUIRE(fabsf(dw[(IN - 2) * OUT] - second) <= 1e-5f * fabsf(second));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &good, norms, TOKENS - 1, NULL));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_context_norms_dl(context, WTACRS_AXIS_COLUMNS, &good, norms, IN - 1, NULL));
  UNTOUCHED(INVALID_ENUM, wtacrs_context_norms_dl(context, 2, &good, norms, TOKENS, NULL));
}

static void nothing(void) {
  wtacrs_layer *layer = describe(0, 2, 2, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_INPUT);
  wtacrs_plan *empty;
  float values[4] = {5, 5, 5, 5};
  EXPECT(OK, wtacrs_plan_create(context, layer, &empty));
  REQUIRE(info_of(empty).backward_scratch_bytes == 0);
  EXPECT(OK, FORWARD(empty, NULL, 2, NULL, NULL, saved, saved_bytes));
  EXPECT(OK, BACKWARD(empty, saved, saved_bytes, NULL, 2, values, 2, 0, NULL, NULL, NULL, 0));
  REQUIRE(values[0] == 0 && values[3] == 0); /* a sum of nothing */
  EXPECT(OK, wtacrs_plan_destroy(empty));
  EXPECT(OK, wtacrs_layer_set_shape(layer, 4, 0, 2));
  EXPECT(OK, wtacrs_plan_create(context, layer, &empty));
  EXPECT(OK, FORWARD(empty, NULL, 0, NULL, NULL, saved, saved_bytes));
  EXPECT(OK, wtacrs_plan_destroy(empty));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  EXPECT(OK, ROW_NORMS(context, WTACRS_DTYPE_F32, 0, 5, NULL, 5, NULL));
  EXPECT(OK, wtacrs_context_norms(context, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, 5, 0, NULL, 0, NULL, NULL));
  EXPECT(OK, wtacrs_context_norms(context, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, 0, 4, NULL, 4, values, NULL));
  REQUIRE(values[0] == 0 && values[3] == 0);
}

static void caches(void) {
  wtacrs_norm_cache *cache = NULL, *loaded = NULL;
  uint64_t samples[2] = {1, 2}, lengths[2] = {3, UINT64_MAX}, changed[2] = {3, 2};
  float batch[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  size_t needed = 0;
#define FETCH(cache, samples, lengths, norms, tokens) \
  wtacrs_norm_cache_fetch(cache, samples, lengths, 2, 0, norms, tokens, NULL)
#define STORE(lengths, tokens) wtacrs_norm_cache_store(cache, samples, lengths, 2, 0, batch, tokens, NULL)
  EXPECT(NULL_POINTER, wtacrs_norm_cache_create(NULL, SIZE_MAX, SIZE_MAX, &cache));
  EXPECT(NULL_POINTER, wtacrs_norm_cache_create(context, SIZE_MAX, SIZE_MAX, NULL));
  EXPECT(MISALIGNED, wtacrs_norm_cache_create(context, SIZE_MAX, SIZE_MAX, shifted(scratch, 4)));
  REQUIRE(cache == NULL);
  EXPECT(OK, wtacrs_norm_cache_create(context, SIZE_MAX, SIZE_MAX, &cache));
  UNTOUCHED(SIZE_OVERFLOW, FETCH(cache, samples, lengths, norms, TOKENS));
  EXPECT(SIZE_OVERFLOW, STORE(lengths, 8));
  lengths[1] = 5;
  UNTOUCHED(NULL_POINTER, FETCH(cache, NULL, lengths, norms, TOKENS));
  UNTOUCHED(NULL_POINTER, FETCH(cache, samples, NULL, norms, TOKENS));
  UNTOUCHED(NULL_POINTER, FETCH(cache, samples, lengths, NULL, TOKENS));
  UNTOUCHED(BUFFER_TOO_SMALL, FETCH(cache, samples, lengths, norms, 7));
  EXPECT(BUFFER_TOO_SMALL, STORE(lengths, 7));
  batch[4] = -2;
  EXPECT_WORDS(INVALID_WEIGHTS, "sample 2, token 1", STORE(lengths, 8));
  batch[4] = 5;
  EXPECT(OK, FETCH(cache, samples, lengths, norms, TOKENS)); /* nothing of these batches was stored */
  for (int t = 0; t < TOKENS; t++) REQUIRE(norms[t] == -1);
  EXPECT(OK, STORE(lengths, 8));
  UNTOUCHED(SHAPE_MISMATCH, FETCH(cache, samples, changed, norms, TOKENS));
  uint32_t word;
  EXPECT(OVERLAP, wtacrs_norm_cache_outcome(cache, (uint32_t *)samples, samples));
  EXPECT(MISALIGNED, wtacrs_norm_cache_outcome(cache, &word, shifted(samples, 4)));

  _Alignas(8) unsigned char bytes[512];
#define LOAD(bytes, length, cache) wtacrs_norm_cache_load(context, 8, 8, bytes, length, cache)
  EXPECT(NULL_POINTER, wtacrs_norm_cache_save(cache, bytes, sizeof bytes, NULL));
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_cache_save(cache, bytes, 10, &needed));
  REQUIRE(needed > 10 && needed < sizeof bytes);
  needed = 0;
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_cache_save(cache, bytes, 0, &needed));
  REQUIRE(needed > 10);
  EXPECT(OVERLAP, wtacrs_norm_cache_save(cache, &needed, sizeof needed, &needed));
  EXPECT(OK, wtacrs_norm_cache_save(cache, bytes, sizeof bytes, &needed));
  EXPECT(OVERLAP, LOAD(bytes, needed, (wtacrs_norm_cache **)bytes));
  EXPECT(OVERLAP, wtacrs_norm_cache_load(context, SIZE_MAX, SIZE_MAX, bytes, needed, (wtacrs_norm_cache **)bytes));
  EXPECT(CORRUPTED, LOAD(bytes, needed - 1, &loaded));
  EXPECT(CORRUPTED, LOAD(bytes, 0, &loaded));
  EXPECT(NULL_POINTER, LOAD(NULL, needed, &loaded));
  EXPECT(NULL_POINTER, LOAD(bytes, needed, NULL));
  EXPECT(NULL_POINTER, wtacrs_norm_cache_load(NULL, 8, 8, bytes, needed, &loaded));
  EXPECT_WORDS(SHAPE_MISMATCH, "sample 2", wtacrs_norm_cache_load(context, 2, 8, bytes, needed, &loaded));
  EXPECT_WORDS(SHAPE_MISMATCH, "5 tokens", wtacrs_norm_cache_load(context, 8, 4, bytes, needed, &loaded));
  bytes[8] ^= 4;
  EXPECT(VERSION_MISMATCH, LOAD(bytes, needed, &loaded));
  REQUIRE(loaded == NULL);
  EXPECT(OK, wtacrs_norm_cache_destroy(cache));
  EXPECT(INVALID_HANDLE, wtacrs_norm_cache_forget(cache, samples, 1, NULL));
}

static void predictors(void) {
  wtacrs_norm_predictor *made = NULL;
  _Alignas(8) unsigned char bytes[8];
  size_t needed = 0;
#define CREATE(features_, forgetting_, ridge_, clamp_) \
  wtacrs_norm_predictor_create(context, 8, \
                               SIZED(wtacrs_norm_predictor_options, .features = features_, .forgetting = forgetting_, \
                                     .ridge = ridge_, .clamp = clamp_), \
                               &made)
  EXPECT(NULL_POINTER, wtacrs_norm_predictor_create(NULL, IN, NULL, &made));
  EXPECT(NULL_POINTER, wtacrs_norm_predictor_create(context, IN, NULL, NULL));
  EXPECT(MISALIGNED, wtacrs_norm_predictor_create(context, IN, NULL, shifted(scratch, 4)));
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_create(context, 0, NULL, &made));
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_create(context, SIZE_MAX, NULL, &made));
  EXPECT(INVALID_ARGUMENT, CREATE(SIZE_MAX, 0, 0, 0));
  EXPECT(INVALID_ARGUMENT, CREATE((1 << 14) + 1, 0, 0, 0));
  EXPECT(INVALID_ARGUMENT, CREATE(8, NAN, 0, 0));
  EXPECT(INVALID_ARGUMENT, CREATE(8, 1.5, 0, 0));
  EXPECT(INVALID_ARGUMENT, CREATE(8, 0, -1, 0));
  EXPECT(INVALID_ARGUMENT, CREATE(8, 0, 0, 20.5));
  EXPECT(CORRUPTED, wtacrs_norm_predictor_load(context, "no", 2, &made));
  EXPECT(NULL_POINTER, wtacrs_norm_predictor_load(NULL, "no", 2, &made));
  EXPECT(NULL_POINTER, wtacrs_norm_predictor_load(context, NULL, 2, &made));
  EXPECT(NULL_POINTER, wtacrs_norm_predictor_load(context, "no", 2, NULL));
  EXPECT(OVERLAP, wtacrs_norm_predictor_load(context, &made, sizeof made, &made));
  EXPECT(BUFFER_TOO_SMALL, wtacrs_norm_predictor_save(predictor, bytes, 0, &needed));
  REQUIRE(needed > 0);
  REQUIRE(made == NULL);

  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
#define UPDATE(predictor, norms, cached) \
  wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms, cached, NULL)
  float poisoned[TOKENS];
  for (int i = 0; i < TOKENS; i++) poisoned[i] = NAN;
  UNTOUCHED(INVALID_WEIGHTS, UPDATE(predictor, poisoned, NULL));
  UNTOUCHED(INVALID_WEIGHTS, UPDATE(predictor, norms, poisoned));
  UNTOUCHED(NULL_POINTER, UPDATE(predictor, NULL, NULL));
  UNTOUCHED(MISALIGNED, UPDATE(predictor, norms, shifted(norms, 2)));
  UNTOUCHED(SHAPE_MISMATCH, UPDATE(wide_predictor, norms, NULL));
  double sum = 0;
  size_t count;
  EXPECT(BUFFER_TOO_SMALL,
         wtacrs_norm_predictor_statistics(predictor, plan, saved, saved_bytes, norms, NULL, &sum, 1, NULL));
  EXPECT(SHAPE_MISMATCH, wtacrs_norm_predictor_apply(predictor, &sum, 1, NULL));
  CHECK(wtacrs_norm_predictor_statistics_count(predictor, &count));
  double *sums = aligned(count * sizeof(double));
#define STATISTICS(norms, cached) \
  wtacrs_norm_predictor_statistics(predictor, plan, saved, saved_bytes, norms, cached, sums, count, NULL)
  EXPECT(OVERLAP, STATISTICS((float *)sums, NULL));
  EXPECT(OVERLAP, STATISTICS(norms, (float *)sums));
  EXPECT(INVALID_WEIGHTS, STATISTICS(norms, poisoned));
  for (size_t i = 0; i < count; i++) sums[i] = NAN;
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_apply(predictor, sums, count, NULL));
  uint32_t word = 55;
  EXPECT(OVERLAP, wtacrs_norm_predictor_outcome(predictor, &word, &word));
  EXPECT(MISALIGNED, wtacrs_norm_predictor_outcome(predictor, shifted(bytes, 2), NULL));
  REQUIRE(word == 55);
  EXPECT(OK, wtacrs_norm_predictor_outcome(predictor, NULL, NULL));
  EXPECT(OK, wtacrs_norm_predictor_outcome(predictor, &word, NULL));
  REQUIRE(word == 1); /* whatever was refused, nothing was learned */
  free(sums);
}

static void batched(void) {
  wtacrs_tensor_mul *t;
  wtacrs_tensor_mul_plan *p = NULL;
  EXPECT(OK, wtacrs_tensor_mul_create(&t));
  EXPECT(INVALID_ARGUMENT, wtacrs_tensor_mul_plan_create(context, t, &p));
  EXPECT(SIZE_OVERFLOW, wtacrs_tensor_mul_set_shape(t, SIZE_MAX, 2, 1, 1, 1));
  EXPECT(SIZE_OVERFLOW, wtacrs_tensor_mul_set_shape(t, 1 << 20, 1 << 10, 1 << 20, 1 << 20, 1));
  EXPECT(OK, wtacrs_tensor_mul_set_shape(t, 1, 2, 16, 4, 12));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_precision(t, 3));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_engine(t, 3));
  EXPECT_WORDS(INVALID_ENUM, "packing is 4", wtacrs_tensor_mul_set_packing(t, 4));
  EXPECT(NULL_POINTER, wtacrs_tensor_mul_set_packing(NULL, WTACRS_PACKING_BITS4));
  EXPECT(INVALID_HANDLE, wtacrs_tensor_mul_set_packing((wtacrs_tensor_mul *)plan, WTACRS_PACKING_BITS4));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_design(t, 6));
  EXPECT(INVALID_ENUM, wtacrs_tensor_mul_set_dtypes(t, WTACRS_DTYPE_F32, 4));
  EXPECT(UNSUPPORTED, wtacrs_tensor_mul_set_dtypes(t, WTACRS_DTYPE_F64, WTACRS_DTYPE_F32));
  EXPECT(INVALID_ARGUMENT, wtacrs_tensor_mul_set_mix(t, 1.5));
  EXPECT(INVALID_ARGUMENT, wtacrs_tensor_mul_set_mix(t, NAN));
  EXPECT(MISALIGNED, wtacrs_tensor_mul_set_further_offset(t, shifted(scratch, 4)));
  EXPECT(OK, wtacrs_tensor_mul_set_precision(t, WTACRS_PRECISION_TF32));
  EXPECT(OK, wtacrs_tensor_mul_set_budget(t, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 13));
  EXPECT(INVALID_ARGUMENT, wtacrs_tensor_mul_plan_create(context, t, &p)); /* one side */
  EXPECT(OK, wtacrs_tensor_mul_set_budget(t, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_EXACT, 0));
  EXPECT(INVALID_BUDGET, wtacrs_tensor_mul_plan_create(context, t, &p));
  EXPECT(OK, wtacrs_tensor_mul_set_budget(t, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 5));
  REQUIRE(p == NULL);
  EXPECT(OK, wtacrs_tensor_mul_plan_create(context, t, &p));
  const wtacrs_tensor_mul_plan_info info = product_info_of(p);
  const size_t n = info.saved_bytes, m = info.backward_scratch_bytes;
  REQUIRE(info.left_status_offset == SIZE_MAX && info.right_status_offset == SIZE_MAX && info.forward_scratch_bytes == 0);
  REQUIRE(info.alignment == 64 && info.draws > 0 && info.exact_bytes == 2 * (16 * 4 + 4 * 12) * sizeof(float));

  float a[128], b[96], g[384], da[128], db[96];
  for (int i = 0; i < 128; i++) a[i] = (float)(i % 7) - 3, da[i] = 77;
  for (int i = 0; i < 96; i++) b[i] = (float)(i % 5) - 2, db[i] = 77;
  for (int i = 0; i < 384; i++) g[i] = (float)(i % 11) - 5;
  unsigned char *s = aligned(n), *w = aligned(m + 64);
  memset(s, 0, n);
#define TFORWARD(a, options, s, n) wtacrs_tensor_mul_plan_forward(p, a, b, 1, 0, options, s, n, NULL, 0, NULL)
#define TBACKWARD(g, da, options, m) wtacrs_tensor_mul_plan_backward(p, s, n, g, da, db, options, w, m, NULL)
  EXPECT(CORRUPTED, TBACKWARD(g, da, NULL, m));
  EXPECT(NULL_POINTER, TFORWARD(NULL, NULL, s, n));
  EXPECT(BUFFER_TOO_SMALL, TFORWARD(a, NULL, s, n - 1));
  EXPECT(OVERLAP, TFORWARD(s, NULL, s, n));
  a[127] = NAN; /* the last item: the first must not have been written */
  b[95] = NAN;
  EXPECT(INVALID_WEIGHTS, TFORWARD(a, NULL, s, n));
  for (size_t i = 0; i < n; i++) REQUIRE(s[i] == 0);
  a[127] = 1, b[95] = 1;
  float guess[32] = {-1, 2, NAN};
  const wtacrs_tensor_mul_forward_options *guessed = SIZED(wtacrs_tensor_mul_forward_options, .column_guess = guess);
  EXPECT(INVALID_WEIGHTS, TFORWARD(a, guessed, s, n));
  guess[2] = 0;
  EXPECT(OVERLAP, TFORWARD(a, SIZED(wtacrs_tensor_mul_forward_options, .row_guess = (float *)s), s, n));
  EXPECT(MISALIGNED, TFORWARD(a, SIZED(wtacrs_tensor_mul_forward_options, .row_guess = shifted(guess, 2)), s, n));
  for (size_t i = 0; i < n; i++) REQUIRE(s[i] == 0);
  EXPECT(OK, TFORWARD(a, guessed, s, n)); /* negative: unknown */
  EXPECT(OK, TFORWARD(a, NULL, s, n));
  EXPECT(NULL_POINTER, TBACKWARD(NULL, da, NULL, m));
  EXPECT(OVERLAP, TBACKWARD(g, db, NULL, m));
  EXPECT(OVERLAP, TBACKWARD(g, da, SIZED(wtacrs_tensor_mul_backward_options, .row_norms = g), m));
  EXPECT(OVERLAP, TBACKWARD(g, da, SIZED(wtacrs_tensor_mul_backward_options, .row_norms = guess, .column_norms = guess), m));
  EXPECT(MISALIGNED, TBACKWARD(g, da, SIZED(wtacrs_tensor_mul_backward_options, .column_norms = shifted(guess, 2)), m));
  EXPECT(INVALID_ENUM, TBACKWARD(g, da, SIZED(wtacrs_tensor_mul_backward_options, .accumulate = 2), m));
  EXPECT(INVALID_ENUM, TBACKWARD(g, da, SIZED(wtacrs_tensor_mul_backward_options, .accumulate = -1), m));
  REQUIRE(da[0] == 77 && db[95] == 77);
  EXPECT(OK, TBACKWARD(g, da, NULL, m));
  REQUIRE(da[0] != 77);
  free(s), free(w);
  EXPECT(OK, wtacrs_tensor_mul_plan_destroy(p));
  EXPECT(OK, wtacrs_tensor_mul_set_budget(t, WTACRS_SIDE_LEFT, WTACRS_BUDGET_EXACT, 0));
  EXPECT(OK, wtacrs_tensor_mul_set_shape(t, 2, 2, 0, SIZE_MAX, 0)); /* nothing, however wide */
  EXPECT(OK, wtacrs_tensor_mul_plan_create(context, t, &p));
  REQUIRE(product_info_of(p).exact_bytes == 0);
  EXPECT(OK, wtacrs_tensor_mul_plan_destroy(p));
  EXPECT(OK, wtacrs_tensor_mul_destroy(t));
}

static wtacrs_plan *packed_plan(wtacrs_packing packing, size_t rows, wtacrs_source source) {
  wtacrs_layer *layer = describe(TOKENS, IN, OUT, WTACRS_BUDGET_ROWS, (double)rows, source);
  CHECK(wtacrs_layer_set_packing(layer, packing));
  return freeze(context, layer);
}

static void packed(void) {
  wtacrs_plan *some = packed_plan(WTACRS_PACKING_BITS4, BUDGET, WTACRS_SOURCE_INPUT);
  wtacrs_plan *other = packed_plan(WTACRS_PACKING_BITS8, BUDGET, WTACRS_SOURCE_INPUT);
  wtacrs_plan *all = packed_plan(WTACRS_PACKING_BITS4, TOKENS, WTACRS_SOURCE_PREDICTED);
  wtacrs_plan *all_by_norms = packed_plan(WTACRS_PACKING_BITS4, TOKENS, WTACRS_SOURCE_NORMS);
  const wtacrs_plan_info info = info_of(some), of_all = info_of(all);
  REQUIRE(of_all.saved_bytes < ROOM && of_all.backward_scratch_bytes < ROOM && of_all.draws >= TOKENS);
  const size_t n = info.saved_bytes, m = info.backward_scratch_bytes;
  unsigned char *s = saved, *w = scratch;

  /* Saved memory is of one packing. */
  memset(s, 0, ROOM);
  UNTOUCHED(CORRUPTED, BACKWARD(some, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  EXPECT(OK, FORWARD(some, h, IN, NULL, NULL, s, n));
  EXPECT(OK, BACKWARD(some, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m));
  EXPECT_WORDS(SHAPE_MISMATCH,
               "32 pairs, 12 columns, budget 10, F32, rows packed in 4 bits; expected 32 pairs, 12 columns, budget 10, F32, "
               "rows packed in 8 bits",
               BACKWARD(other, s, ROOM, dz, OUT, dw, OUT, 0, norms, bias, w, ROOM));
  EXPECT_WORDS(SHAPE_MISMATCH, "expected 32 pairs, 12 columns, budget 10, F32, native rows",
               BACKWARD(plan, s, ROOM, dz, OUT, dw, OUT, 0, norms, bias, w, ROOM));
  UNTOUCHED(SHAPE_MISMATCH, BACKWARD(all, s, ROOM, dz, OUT, dw, OUT, 0, norms, bias, w, ROOM));
  UNTOUCHED(SHAPE_MISMATCH,
            wtacrs_norm_predictor_update(predictor, plan, s, ROOM, norms, NULL, NULL));
  for (size_t at = 0; at < 64; at++) { /* whatever byte of the header has changed */
    s[at] ^= 1;
    mark();
    wtacrs_status status = BACKWARD(some, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m);
    REQUIRE(status == WTACRS_STATUS_CORRUPTED || status == WTACRS_STATUS_VERSION_MISMATCH);
    REQUIRE(dw[0] == 77 && norms[0] == 1 && bias[0] == 77);
    s[at] ^= 1;
  }
  for (size_t at = 128; at < n; at += 3) s[at] ^= 0x5a; /* scales, grids or codes: another dW, or a scale that is refused */
  wtacrs_status status = BACKWARD(some, s, n, dz, OUT, dw, OUT, 0, norms, bias, w, m);
  REQUIRE(status == WTACRS_STATUS_OK || status == WTACRS_STATUS_CORRUPTED);

  /* Steps with rows of the caller's are for native ones. */
  uint64_t one = 1;
  indices[0] = 3, scales[0] = 1;
  const wtacrs_selection *chosen = SELECTION(indices, scales, 1, &one, NULL);
  EXPECT_WORDS(UNSUPPORTED, "wtacrs_layer_set_packing has set 4 bits", wtacrs_plan_gather(some, h, IN, chosen, w, IN, NULL));
  EXPECT_WORDS(UNSUPPORTED, "wtacrs_plan_weight_gradient works on native rows",
               wtacrs_plan_weight_gradient(some, h, IN, chosen, dz, OUT, dw, OUT, 0, w, m, NULL));
  REQUIRE(info.weight_gradient_scratch_bytes == 0);

  /* All rows: nothing is guessed, but what is passed must be what it should be, and rows must be finite. */
  memset(s, 0, ROOM);
  EXPECT(OK, FORWARD(all, h, IN, NULL, NULL, s, of_all.saved_bytes));
  EXPECT(OK, FORWARD(all, h, IN, norms, predictor, s, of_all.saved_bytes));
  EXPECT(OK, FORWARD(all_by_norms, h, IN, NULL, NULL, s, of_all.saved_bytes));
  UNTOUCHED(INVALID_HANDLE, FORWARD(all, h, IN, NULL, (wtacrs_norm_predictor *)plan, s, of_all.saved_bytes));
  UNTOUCHED(INVALID_ARGUMENT, FORWARD(all_by_norms, h, IN, NULL, predictor, s, of_all.saved_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, FORWARD(all, h, IN, NULL, NULL, s, of_all.saved_bytes - 1));
  float bad[TOKENS * IN];
  for (int i = 0; i < 2; i++) {
    memcpy(bad, h, sizeof bad);
    bad[21 * IN + 11] = i ? NAN : -INFINITY, bad[30 * IN] = NAN;
    UNTOUCHED(INVALID_WEIGHTS, FORWARD(all, bad, IN, NULL, NULL, s, of_all.saved_bytes));
    wtacrs_error_info error = {.size = sizeof error};
    EXPECT(OK, wtacrs_last_error(NULL, 0, &error));
    REQUIRE(error.index == 21 && strstr(error_text(), "row 21 has an element that is not finite"));
    UNTOUCHED(INVALID_WEIGHTS, FORWARD(some, bad, IN, NULL, NULL, s, of_all.saved_bytes));
    EXPECT(OK, wtacrs_last_error(NULL, 0, &error));
    REQUIRE(error.index == 21);
  }
  EXPECT(OK, BACKWARD(all, s, of_all.saved_bytes, dz, OUT, dw, OUT, 0, norms, bias, w, of_all.backward_scratch_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, wtacrs_plan_saved_selection(all, s, of_all.saved_bytes,
                                                          SELECTION(indices, scales, TOKENS - 1, &kept, &winners)));

  /* Of a batch the last item is refused before the first is written. */
  wtacrs_tensor_mul *t;
  wtacrs_tensor_mul_plan *p;
  CHECK(wtacrs_tensor_mul_create(&t));
  CHECK(wtacrs_tensor_mul_set_shape(t, 1, 2, 4, 3, 5));
  CHECK(wtacrs_tensor_mul_set_packing(t, WTACRS_PACKING_BITS2));
  CHECK(wtacrs_tensor_mul_set_budget(t, WTACRS_SIDE_LEFT, WTACRS_BUDGET_FRACTION, 1));
  CHECK(wtacrs_tensor_mul_set_budget(t, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_FRACTION, 1));
  CHECK(wtacrs_tensor_mul_plan_create(context, t, &p));
  CHECK(wtacrs_tensor_mul_destroy(t));
  float a[24] = {0}, b[30] = {0};
  b[29] = INFINITY;
  UNTOUCHED(INVALID_WEIGHTS, wtacrs_tensor_mul_plan_forward(p, a, b, 1, 0, NULL, s, ROOM, NULL, 0, NULL));
  CHECK(wtacrs_tensor_mul_plan_destroy(p));

  wtacrs_plan *plans[] = {some, other, all, all_by_norms};
  for (int i = 0; i < 4; i++) CHECK(wtacrs_plan_destroy(plans[i]));
}

static void last_error(void) {
  char words[8] = "1234567", one[1] = {'x'};
  wtacrs_error_info info = {.size = sizeof info};
  EXPECT(NULL_POINTER, wtacrs_plan_get_info(NULL, NULL));
  EXPECT(OK, wtacrs_last_error(NULL, 0, &info));
  REQUIRE(info.text_bytes > sizeof words && info.status == WTACRS_STATUS_NULL_POINTER && info.index == SIZE_MAX);
  EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(strcmp(words, "wtacrs_") == 0);
  EXPECT(OK, wtacrs_last_error(one, 1, NULL));
  REQUIRE(one[0] == 0);
  EXPECT(NULL_POINTER, wtacrs_last_error(NULL, 3, NULL));
  info.text_bytes = 55;
  EXPECT(OVERLAP, wtacrs_last_error((char *)&info, sizeof info, &info));
  info.size = 8;
  EXPECT(INVALID_ARGUMENT, wtacrs_last_error(words, sizeof words, &info));
  REQUIRE(info.text_bytes == 55 && strcmp(words, "wtacrs_") == 0);
  REQUIRE(strcmp(wtacrs_status_string(-1), "unknown status") == 0 &&
          strcmp(wtacrs_status_string(99), "unknown status") == 0);
}

static float expected_dw[IN * OUT];

static void *one_thread(void *unused) {
  (void)unused;
  char words[64];
  wtacrs_error_info info = {.size = sizeof info};
  EXPECT(OK, wtacrs_last_error(words, sizeof words, &info));
  REQUIRE(info.text_bytes == 1 && words[0] == 0 && info.status == WTACRS_STATUS_OK); /* its own */
  unsigned char *s = aligned(saved_bytes), *w = aligned(backward_bytes);
  float mine[IN * OUT];
  for (int i = 0; i < 50; i++) {
    EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, s, saved_bytes));
    EXPECT(OK, BACKWARD(plan, s, saved_bytes, dz, OUT, mine, OUT, 0, NULL, NULL, w, backward_bytes));
    REQUIRE(memcmp(mine, expected_dw, sizeof mine) == 0);
    EXPECT(NULL_POINTER, wtacrs_plan_get_info(NULL, NULL));
  }
  free(s), free(w);
  return NULL;
}

static void threads(void) {
  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  EXPECT(OK, BACKWARD(plan, saved, saved_bytes, dz, OUT, expected_dw, OUT, 0, NULL, NULL, scratch, backward_bytes));
  EXPECT(INVALID_ENUM, wtacrs_context_create(7, 0, NULL, &context));
  pthread_t thread[2];
  for (int i = 0; i < 2; i++) REQUIRE(pthread_create(&thread[i], NULL, one_thread, NULL) == 0);
  for (int i = 0; i < 2; i++) REQUIRE(pthread_join(thread[i], NULL) == 0);
  REQUIRE(strstr(error_text(), "device is 7") != NULL); /* not what the threads did */
}

static void panics(void) {
  setenv("WTACRS_TEST_PANIC", "wtacrs_plan_forward", 1);
  UNTOUCHED(PANIC, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes));
  REQUIRE(strstr(error_text(), "wtacrs_plan_forward: panicked at ") != NULL);
  EXPECT(OK, wtacrs_plan_destroy(NULL)); /* others are not touched */
  setenv("WTACRS_TEST_PANIC", "wtacrs_plan_backward", 1);
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
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT);
  norms_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_NORMS);
  cached_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_CACHED);
  predicted_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_PREDICTED);
  wide_plan = make_plan(context, TOKENS, IN, OUT, BUDGET + 1, WTACRS_SOURCE_INPUT);
  CHECK(wtacrs_norm_predictor_create(context, IN, NULL, &predictor));
  CHECK(wtacrs_norm_predictor_create(context, IN + 1, NULL, &wide_predictor));
  const wtacrs_plan_info info = info_of(plan);
  saved_bytes = info.saved_bytes, backward_bytes = info.backward_scratch_bytes, estimate_bytes = info.estimate_scratch_bytes;
  REQUIRE(saved_bytes < ROOM && estimate_bytes < ROOM);
  saved = aligned(ROOM), scratch = aligned(ROOM);
  memset(saved, 0, ROOM), memset(scratch, 0, ROOM);
  watch(saved, ROOM), watch(dw, sizeof dw), watch(norms, sizeof norms), watch(bias, sizeof bias);
  watch(indices, sizeof indices), watch(scales, sizeof scales), watch(weights, sizeof weights);
  watch(&kept, sizeof kept), watch(&winners, sizeof winners);

  handles(), descriptions(), budgets(), forward(), backward(), steps(), tensors(), nothing(), caches(), predictors();
  batched(), packed(), last_error(), threads(), panics();

  CHECK(wtacrs_norm_predictor_destroy(predictor));
  CHECK(wtacrs_norm_predictor_destroy(wide_predictor));
  wtacrs_plan *plans[] = {plan, norms_plan, cached_plan, predicted_plan, wide_plan};
  for (int i = 0; i < 5; i++) CHECK(wtacrs_plan_destroy(plans[i]));
  CHECK(wtacrs_context_destroy(context));
  free(saved), free(scratch);
  return finish();
}
