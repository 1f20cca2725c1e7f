/* Misuse of the CUDA path: each gets its documented status and writes no output. The GPU is the emulator
 * (WTACRS_CUDA_STANDIN=emulator). */
#include "check.h"

enum { TOKENS = 64, IN = 24, OUT = 16, BUDGET = 10 };

static wtacrs_context *gpu, *other_gpu, *cpu;
static float *h, *dz, *dw, *norms;
static unsigned char *saved, *forward_scratch, *backward_scratch;
static size_t saved_bytes, forward_bytes, backward_bytes;

static wtacrs_plan *make(wtacrs_context *context, wtacrs_source source) {
  return make_plan(context, TOKENS, IN, OUT, BUDGET, source);
}

#define UNTOUCHED(status, words, call) \
  do { \
    for (int i_ = 0; i_ < IN * OUT; i_++) dw[i_] = 77; \
    UNCHANGED(status, words, call); \
  } while (0)

#define FORWARD(plan, h, leading, guess_, predictor_, saved, bytes, scratch, scratch_bytes)                            \
  wtacrs_plan_forward(plan, h, leading, 1, 0, SIZED(wtacrs_forward_options, .guess = guess_, .predictor = predictor_), \
                      saved, bytes, scratch, scratch_bytes, NULL)
#define BACKWARD(plan, dz, leading, dw, dw_leading, norms, bias, scratch, bytes) \
  wtacrs_plan_backward(plan, saved, saved_bytes, dz, leading, dw, dw_leading, \
                       SIZED(wtacrs_backward_options, .dz_norms = norms, .bias_gradient = bias), scratch, bytes, NULL)

static void devices(void) {
  wtacrs_context *none = NULL;
  EXPECT_WORDS(NO_DEVICE, "there is no GPU 2", wtacrs_context_create(WTACRS_DEVICE_CUDA, 2, NULL, &none));
  EXPECT_WORDS(INVALID_ARGUMENT, "-2", wtacrs_context_create(WTACRS_DEVICE_CUDA, -2, NULL, &none));
  EXPECT(NULL_POINTER, wtacrs_context_create(WTACRS_DEVICE_CUDA, 0, NULL, NULL));
  wtacrs_plan *made = NULL;
  wtacrs_layer *layer = describe(TOKENS, IN, OUT, WTACRS_BUDGET_ROWS, BUDGET, WTACRS_SOURCE_INPUT);
  CHECK(wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F64, WTACRS_DTYPE_F64, WTACRS_DTYPE_F64));
  EXPECT_WORDS(UNSUPPORTED, "F64", wtacrs_plan_create(gpu, layer, &made));
  CHECK(wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F32, WTACRS_DTYPE_BF16, WTACRS_DTYPE_F32));
  EXPECT_WORDS(UNSUPPORTED, "one type", wtacrs_plan_create(gpu, layer, &made));
  CHECK(wtacrs_layer_set_precision(layer, WTACRS_PRECISION_WIDE));
  CHECK(wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_BF16, WTACRS_DTYPE_BF16, WTACRS_DTYPE_F32));
  EXPECT_WORDS(UNSUPPORTED, "WTACRS_PRECISION_WIDE", wtacrs_plan_create(gpu, layer, &made));
  CHECK(wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32));
  EXPECT(OK, wtacrs_plan_create(gpu, layer, &made));
  CHECK(wtacrs_plan_destroy(made));
  made = NULL;
  CHECK(wtacrs_layer_set_shape(layer, UINT32_MAX, 1, 1));
  EXPECT_WORDS(SIZE_OVERFLOW, "tokens", wtacrs_plan_create(gpu, layer, &made));
  EXPECT_WORDS(MISALIGNED, "further_offset", wtacrs_layer_set_further_offset(layer, shifted(saved, 4)));
  CHECK(wtacrs_layer_destroy(layer));
  REQUIRE(none == NULL && made == NULL);
}

static void passes(void) {
  wtacrs_plan *plan = make(gpu, WTACRS_SOURCE_INPUT), *with_norms = make(gpu, WTACRS_SOURCE_NORMS);
  unsigned char *f = forward_scratch, *b = backward_scratch;
  UNTOUCHED(NULL_POINTER, "h is NULL", FORWARD(plan, NULL, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(NULL_POINTER, "saved", FORWARD(plan, h, IN, NULL, NULL, NULL, saved_bytes, f, forward_bytes));
  UNTOUCHED(NULL_POINTER, "scratch", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, NULL, forward_bytes));
  UNTOUCHED(NULL_POINTER, "guess", FORWARD(with_norms, h, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, "scratch", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes - 1));
  UNTOUCHED(BUFFER_TOO_SMALL, "saved", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes - 1, f, forward_bytes));
  UNTOUCHED(MISALIGNED, "multiple of 256", FORWARD(plan, h, IN, NULL, NULL, saved + 64, saved_bytes, f, forward_bytes));
  UNTOUCHED(MISALIGNED, "multiple of 256", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, f + 128, forward_bytes));
  UNTOUCHED(MISALIGNED, "h is at", FORWARD(plan, shifted(h, 2), IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(OVERLAP, NULL, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, saved, forward_bytes));
  UNTOUCHED(OVERLAP, NULL, FORWARD(plan, saved, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(INVALID_ARGUMENT, "row to row", FORWARD(plan, h, IN - 1, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(INVALID_ARGUMENT, "guess", FORWARD(plan, h, IN, norms, NULL, saved, saved_bytes, f, forward_bytes));

  EXPECT(OK, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(MISALIGNED, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, NULL, shifted(norms, 2), b, backward_bytes));
  UNTOUCHED(OVERLAP, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, NULL, dw + 3, b, backward_bytes));
  UNTOUCHED(OVERLAP, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, norms, norms + TOKENS - 1, b, backward_bytes));
  UNTOUCHED(OVERLAP, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, NULL, saved, b, backward_bytes));
  UNTOUCHED(NULL_POINTER, "dw", BACKWARD(plan, dz, OUT, NULL, OUT, NULL, NULL, b, backward_bytes));
  UNTOUCHED(OVERLAP, NULL, BACKWARD(plan, dz, OUT, dz, OUT, NULL, NULL, b, backward_bytes));
  UNTOUCHED(MISALIGNED, "dz_norms", BACKWARD(plan, dz, OUT, dw, OUT, shifted(norms, 2), NULL, b, backward_bytes));
  if (backward_bytes)
    UNTOUCHED(BUFFER_TOO_SMALL, "scratch", BACKWARD(plan, dz, OUT, dw, OUT, NULL, NULL, b, backward_bytes - 1));
  UNTOUCHED(INVALID_ENUM, "accumulate",
            wtacrs_plan_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, SIZED(wtacrs_backward_options, .accumulate = 2),
                                 b, backward_bytes, NULL));
  CHECK(wtacrs_plan_destroy(plan));
  CHECK(wtacrs_plan_destroy(with_norms));
}

/* Memory of another device; strides that no kernel takes. */
static void tensors(void) {
  wtacrs_plan *plan = make(gpu, WTACRS_SOURCE_INPUT);
  int64_t h_shape[2] = {TOKENS, IN}, turned[2] = {1, TOKENS}, back[2] = {-IN, 1}, none[2] = {0, 1};
  const wtacrs_dltensor good = {h, {2, 0}, 2, {2, 32, 1}, h_shape, NULL, 0};
  wtacrs_dltensor t = good;
#define FORWARD_DL(t) \
  wtacrs_plan_forward_dl(plan, t, 1, 0, NULL, saved, saved_bytes, forward_scratch, forward_bytes, NULL)
  t.device.device_type = 1;
  UNTOUCHED(DEVICE_MISMATCH, "device type 1 and number 0, not of CUDA (2) and 0", FORWARD_DL(&t));
  t = good, t.device.device_id = 1;
  UNTOUCHED(DEVICE_MISMATCH, "device type 2 and number 1", FORWARD_DL(&t));
  t = good, t.strides = turned;
  UNTOUCHED(UNSUPPORTED, "side by side", FORWARD_DL(&t));
  t = good, t.strides = back, t.byte_offset = (TOKENS - 1) * IN * sizeof(float);
  UNTOUCHED(UNSUPPORTED, "side by side", FORWARD_DL(&t));
  t = good, t.strides = none;
  UNTOUCHED(UNSUPPORTED, "side by side", FORWARD_DL(&t));
  EXPECT(OK, FORWARD_DL(&good));
  int64_t dz_shape[2] = {TOKENS, OUT}, dw_shape[2] = {IN, OUT}, exchanged[2] = {1, IN};
  const wtacrs_dltensor g = {dz, {2, 0}, 2, {2, 32, 1}, dz_shape, NULL, 0};
  const wtacrs_dltensor out = {dw, {2, 0}, 2, {2, 32, 1}, dw_shape, exchanged, 0};
  UNTOUCHED(UNSUPPORTED, "dw has the strides",
            wtacrs_plan_backward_dl(plan, saved, saved_bytes, &g, &out, NULL, backward_scratch, backward_bytes, NULL));
  EXPECT_WORDS(DEVICE_MISMATCH, "not of the host",
               wtacrs_context_norms_dl(cpu, WTACRS_AXIS_ROWS, &good, norms, TOKENS, NULL));
  EXPECT_WORDS(UNSUPPORTED, "F64", wtacrs_context_norms(gpu, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F64, 4, 4, h, 4, norms, NULL));
  EXPECT_WORDS(UNSUPPORTED, "F64",
               wtacrs_context_norms(gpu, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F64, 4, 4, h, 4, norms, NULL));
  CHECK(wtacrs_plan_destroy(plan));
}

/* Predictors of another device, context, layer or size. */
static void predictors(void) {
  equipped on = equip(make(gpu, WTACRS_SOURCE_PREDICTED)), host = equip(make(cpu, WTACRS_SOURCE_PREDICTED));
  wtacrs_plan *plan = make(gpu, WTACRS_SOURCE_INPUT);
  wtacrs_norm_predictor *on_cpu, *on_other, *ours, *wide, *made = NULL;
  CHECK(wtacrs_norm_predictor_create(cpu, IN, NULL, &on_cpu));
  CHECK(wtacrs_norm_predictor_create(other_gpu, IN, NULL, &on_other));
  CHECK(wtacrs_norm_predictor_create(gpu, IN, NULL, &ours));
  CHECK(wtacrs_norm_predictor_create(gpu, IN + 1, NULL, &wide));
#define PREDICTED(p, guess) \
  FORWARD(on.plan, h, IN, guess, p, saved, saved_bytes, forward_scratch, on.info.forward_scratch_bytes)
  UNTOUCHED(NULL_POINTER, "predictor", PREDICTED(NULL, NULL));
  UNTOUCHED(DEVICE_MISMATCH, "the CPU's", PREDICTED(on_cpu, NULL));
  UNTOUCHED(DEVICE_MISMATCH, "another context", PREDICTED(on_other, NULL));
  UNTOUCHED(SHAPE_MISMATCH, "25 input features", PREDICTED(wide, NULL));
  UNTOUCHED(MISALIGNED, "guess", PREDICTED(ours, shifted(norms, 2)));
  UNTOUCHED(OVERLAP, "guess", PREDICTED(ours, (float *)saved));
  EXPECT(OK, PREDICTED(ours, norms));
  UNTOUCHED(INVALID_HANDLE, NULL, PREDICTED((wtacrs_norm_predictor *)plan, NULL));
  EXPECT(OK, PREDICTED(ours, NULL));
  EXPECT_WORDS(DEVICE_MISMATCH, "the predictor is a GPU's",
               forward_pass(host, h, IN, 1, 0, SIZED(wtacrs_forward_options, .predictor = ours)));
  EXPECT(OK, forward_pass(host, h, IN, 1, 0, SIZED(wtacrs_forward_options, .predictor = on_cpu)));

#define UPDATE(p, norms, cached) wtacrs_norm_predictor_update(p, on.plan, saved, saved_bytes, norms, cached, NULL)
  EXPECT_WORDS(DEVICE_MISMATCH, "the plan is a GPU's", UPDATE(on_cpu, norms, NULL));
  EXPECT_WORDS(DEVICE_MISMATCH, "the plan is a GPU's", UPDATE(on_cpu, norms, norms));
  EXPECT_WORDS(DEVICE_MISMATCH, "another context", UPDATE(on_other, norms, NULL));
  EXPECT_WORDS(DEVICE_MISMATCH, "another context", UPDATE(on_other, norms, norms));
  EXPECT(DEVICE_MISMATCH,
         wtacrs_norm_predictor_update(ours, host.plan, host.saved, host.info.saved_bytes, norms, NULL, NULL));
  EXPECT_WORDS(SHAPE_MISMATCH, "25", UPDATE(wide, norms, NULL));
  EXPECT_WORDS(NULL_POINTER, "dz_norms", UPDATE(ours, NULL, NULL));
  EXPECT_WORDS(MISALIGNED, "cached_norms", UPDATE(ours, norms, shifted(norms, 2)));

#define CREATE(in_features, ...) \
  wtacrs_norm_predictor_create(gpu, in_features, SIZED(wtacrs_norm_predictor_options, __VA_ARGS__), &made)
  EXPECT_WORDS(INVALID_ARGUMENT, "at most 512", CREATE(1024, .features = 513));
  EXPECT_WORDS(INVALID_ARGUMENT, "at most 4096", CREATE(64, .features = 32, .rows_per_update = 5000));
  EXPECT(INVALID_ARGUMENT, wtacrs_norm_predictor_create(gpu, 0, NULL, &made));
  EXPECT(CORRUPTED, wtacrs_norm_predictor_load(gpu, "no", 2, &made));
  REQUIRE(made == NULL);

  size_t count;
  CHECK(wtacrs_norm_predictor_statistics_count(ours, &count));
  double sum = 0, *sums = aligned(count * sizeof(double) + 64);
#define STATISTICS(norms, cached, sums, count) \
  wtacrs_norm_predictor_statistics(ours, on.plan, saved, saved_bytes, norms, cached, sums, count, NULL)
  EXPECT_WORDS(BUFFER_TOO_SMALL, "room for 1", STATISTICS(norms, NULL, &sum, 1));
  EXPECT_WORDS(BUFFER_TOO_SMALL, "room for 1", STATISTICS(norms, norms, &sum, 1));
  EXPECT_WORDS(OVERLAP, "dz_norms", STATISTICS((float *)sums, NULL, sums, count));
  EXPECT_WORDS(OVERLAP, "cached_norms", STATISTICS(norms, (float *)sums, sums, count));
  EXPECT_WORDS(MISALIGNED, "multiple of 256", STATISTICS(norms, NULL, sums + 8, count));
  EXPECT_WORDS(MISALIGNED, "multiple of 256", wtacrs_norm_predictor_apply(ours, sums + 8, count, NULL));
  EXPECT_WORDS(SHAPE_MISMATCH, "1 sums", wtacrs_norm_predictor_apply(ours, &sum, 1, NULL));
  free(sums);

  uint32_t word = 9, row = 9;
  EXPECT(OK, wtacrs_norm_predictor_outcome(on_cpu, &word, &row));
  REQUIRE(word == 1 && row == 0); /* as on a GPU, where nothing was learned yet */
  EXPECT_WORDS(OVERLAP, "outcome shares memory with row", wtacrs_norm_predictor_outcome(ours, &word, &word));
  CHECK(wtacrs_norm_predictor_destroy(on_cpu));
  CHECK(wtacrs_norm_predictor_destroy(on_other));
  CHECK(wtacrs_norm_predictor_destroy(ours));
  CHECK(wtacrs_norm_predictor_destroy(wide));
  CHECK(wtacrs_plan_destroy(plan));
  discard(on), discard(host);
}

static void steps(void) {
  wtacrs_plan *plan = make(gpu, WTACRS_SOURCE_INPUT), *with_norms = make(gpu, WTACRS_SOURCE_NORMS);
  wtacrs_plan *predicted = make(gpu, WTACRS_SOURCE_PREDICTED);
  double *weights = aligned(TOKENS * sizeof(double)), error = 77;
  uint32_t *indices = aligned(TOKENS * sizeof(uint32_t));
  uint64_t *kept = aligned(sizeof(uint64_t)), winners;
  EXPECT_WORDS(NULL_POINTER, "weights", wtacrs_plan_weights(plan, norms, NULL, NULL, NULL));
  EXPECT_WORDS(NULL_POINTER, "input_norms", wtacrs_plan_weights(plan, NULL, NULL, weights, NULL));
  EXPECT_WORDS(NULL_POINTER, "guess", wtacrs_plan_weights(with_norms, norms, NULL, weights, NULL));
  EXPECT_WORDS(INVALID_ARGUMENT, "guess", wtacrs_plan_weights(plan, norms, norms, weights, NULL));
  EXPECT_WORDS(MISALIGNED, "weights", wtacrs_plan_weights(plan, norms, NULL, shifted(weights, 4), NULL));
  EXPECT_WORDS(OVERLAP, "weights", wtacrs_plan_weights(plan, norms, NULL, (double *)norms, NULL));
#define SELECT(plan, guess, capacity, kept, winners) \
  wtacrs_plan_select(plan, norms, guess, 1, 0, 0, SELECTION(indices, weights, capacity, kept, winners), forward_scratch, \
                     2 * forward_bytes, NULL)
  EXPECT_WORDS(MISALIGNED, "winners", SELECT(plan, NULL, TOKENS, kept, shifted(&winners, 4)));
  EXPECT_WORDS(OVERLAP, "winners", SELECT(plan, NULL, TOKENS, kept, kept));
  EXPECT_WORDS(INVALID_ARGUMENT, "guess", SELECT(predicted, norms, TOKENS, kept, NULL));
  EXPECT_WORDS(NULL_POINTER, "kept", SELECT(plan, NULL, TOKENS, NULL, NULL));
  EXPECT_WORDS(BUFFER_TOO_SMALL, "budget is 10", SELECT(plan, NULL, 9, kept, NULL));
#define SAVED_SELECTION(...) wtacrs_plan_saved_selection(plan, saved, saved_bytes, SIZED(wtacrs_selection, __VA_ARGS__))
  EXPECT(MISALIGNED, SAVED_SELECTION(.winners = shifted(&winners, 4)));
  memset(saved, 0xff, saved_bytes);
  EXPECT(CORRUPTED, SAVED_SELECTION(.kept = kept));
  EXPECT(DEVICE_MISMATCH, wtacrs_plan_expected_error(plan, h, IN, dz, OUT, NULL, &error, NULL, NULL));
  REQUIRE(error == 77);
  free(weights), free(indices), free(kept);
  CHECK(wtacrs_plan_destroy(plan));
  CHECK(wtacrs_plan_destroy(with_norms));
  CHECK(wtacrs_plan_destroy(predicted));
}

/* What both devices refuse alike. */
static void refused_by_every_cache(wtacrs_norm_cache *c, uint64_t *ids, uint64_t *lengths, float *guess) {
  EXPECT_WORDS(NULL_POINTER, "samples", wtacrs_norm_cache_fetch(c, NULL, lengths, 2, 0, guess, 16, NULL));
  EXPECT_WORDS(NULL_POINTER, "lengths is NULL", wtacrs_norm_cache_fetch(c, ids, NULL, 2, 0, guess, 16, NULL));
  EXPECT_WORDS(NULL_POINTER, "norms", wtacrs_norm_cache_fetch(c, ids, lengths, 2, 0, NULL, 16, NULL));
  EXPECT_WORDS(MISALIGNED, "samples", wtacrs_norm_cache_fetch(c, shifted(ids, 4), lengths, 2, 0, guess, 16, NULL));
  EXPECT_WORDS(MISALIGNED, "lengths", wtacrs_norm_cache_fetch(c, ids, shifted(lengths, 4), 2, 0, guess, 16, NULL));
  EXPECT_WORDS(BUFFER_TOO_SMALL, "room for 7 norms", wtacrs_norm_cache_fetch(c, ids, NULL, 2, 4, guess, 7, NULL));
  EXPECT_WORDS(BUFFER_TOO_SMALL, "room for 7 norms", wtacrs_norm_cache_store(c, ids, NULL, 2, 4, guess, 7, NULL));
  EXPECT_WORDS(SIZE_OVERFLOW, "rows", wtacrs_norm_cache_fetch(c, ids, NULL, 2, SIZE_MAX, guess, 16, NULL));
  EXPECT_WORDS(SIZE_OVERFLOW, "samples", wtacrs_norm_cache_forget(c, ids, SIZE_MAX, NULL));
  EXPECT_WORDS(SHAPE_MISMATCH, "the cache", wtacrs_norm_cache_fetch(c, ids, NULL, 2, 5, guess, 16, NULL));
  EXPECT_WORDS(OVERLAP, "norms shares memory with samples",
               wtacrs_norm_cache_fetch(c, ids, lengths, 2, 0, (float*)ids, 4, NULL));
  EXPECT_WORDS(OVERLAP, "lengths", wtacrs_norm_cache_fetch(c, ids, lengths, 2, 0, (float *)lengths, 4, NULL));
  EXPECT_WORDS(NULL_POINTER, "samples", wtacrs_norm_cache_forget(c, NULL, 1, NULL));
  EXPECT(OK, wtacrs_norm_cache_fetch(c, NULL, NULL, 0, 0, NULL, 0, NULL));
  EXPECT(OK, wtacrs_norm_cache_store(c, NULL, NULL, 0, 3, NULL, 0, NULL));
  EXPECT(OK, wtacrs_norm_cache_forget(c, NULL, 0, NULL));
}

/* What a GPU finds when its kernels run, the CPU returns at once. */
static void refused_on_the_host(wtacrs_norm_cache *c, uint64_t *ids, uint64_t *lengths, float *guess) {
  uint32_t fault = 9;
  uint64_t sample = 9;
  EXPECT(OK, wtacrs_norm_cache_outcome(c, &fault, &sample));
  REQUIRE(fault == 0 && sample == 0);
  EXPECT_WORDS(BUFFER_TOO_SMALL, "room for 6 norms", wtacrs_norm_cache_store(c, ids, lengths, 2, 0, guess, 6, NULL));
  lengths[1] = 5;
  EXPECT_WORDS(SHAPE_MISMATCH, "samples[1], 2, has 5 tokens",
               wtacrs_norm_cache_fetch(c, ids, lengths, 2, 0, guess, 16, NULL));
  EXPECT_WORDS(SHAPE_MISMATCH, "lengths[1] is 5", wtacrs_norm_cache_fetch(c, ids, lengths, 2, 4, guess, 16, NULL));
  EXPECT_WORDS(SHAPE_MISMATCH, "5 tokens", wtacrs_norm_cache_store(c, ids, lengths, 2, 0, guess, 8, NULL));
  lengths[1] = UINT64_MAX;
  EXPECT_WORDS(SIZE_OVERFLOW, "lengths[1], of sample 2", wtacrs_norm_cache_fetch(c, ids, lengths, 2, 0, guess, 16, NULL));
  ids[1] = 8, lengths[1] = 4;
  EXPECT_WORDS(INVALID_ARGUMENT, "samples[1] is 8", wtacrs_norm_cache_fetch(c, ids, lengths, 2, 0, guess, 16, NULL));
  EXPECT_WORDS(INVALID_ARGUMENT, "samples[1] is 8", wtacrs_norm_cache_store(c, ids, lengths, 2, 4, guess, 16, NULL));
  for (int i = 0; i < 16; i++) REQUIRE(guess[i] == 77);
  guess[5] = -2;
  ids[1] = 2;
  EXPECT_WORDS(INVALID_WEIGHTS, "sample 2, token 1", wtacrs_norm_cache_store(c, ids, lengths, 2, 4, guess, 16, NULL));
  EXPECT(OK, wtacrs_norm_cache_outcome(c, &fault, &sample));
  REQUIRE(fault == 0 && sample == 0);
}

static void caches(void) {
  wtacrs_norm_cache *ours, *host, *bounded, *made = NULL;
  uint64_t *ids = aligned(4 * sizeof(uint64_t)), *lengths = aligned(4 * sizeof(uint64_t));
  ids[0] = 1, ids[1] = 2, lengths[0] = 3, lengths[1] = 4;
  float *guess = aligned(16 * sizeof(float));
  for (int i = 0; i < 16; i++) guess[i] = 77;
  EXPECT_WORDS(NULL_POINTER, "context", wtacrs_norm_cache_create(NULL, 8, 4, &made));
  EXPECT_WORDS(NULL_POINTER, "cache is NULL", wtacrs_norm_cache_create(gpu, 8, 4, NULL));
  EXPECT(INVALID_HANDLE, wtacrs_norm_cache_create((wtacrs_context *)h, 8, 4, &made));
  EXPECT_WORDS(SIZE_OVERFLOW, "tokens is 4294967295", wtacrs_norm_cache_create(gpu, 1, UINT32_MAX, &made));
  EXPECT_WORDS(SIZE_OVERFLOW, "larger than any memory", wtacrs_norm_cache_create(gpu, SIZE_MAX - 1, 2, &made));
  EXPECT_WORDS(UNSUPPORTED, "a number of samples", wtacrs_norm_cache_create(gpu, SIZE_MAX, 2, &made));
  EXPECT_WORDS(UNSUPPORTED, "a number of samples", wtacrs_norm_cache_create(gpu, 2, SIZE_MAX, &made));
  CHECK(wtacrs_norm_cache_create(gpu, 8, 4, &ours));
  CHECK(wtacrs_norm_cache_create(cpu, 8, 4, &bounded));
  CHECK(wtacrs_norm_cache_create(cpu, SIZE_MAX, SIZE_MAX, &host));
  refused_by_every_cache(ours, ids, lengths, guess), refused_by_every_cache(bounded, ids, lengths, guess);
  EXPECT_WORDS(SIZE_OVERFLOW, "samples", wtacrs_norm_cache_store(ours, ids, lengths, (size_t)1 << 32, 0, guess, 16, NULL));
  refused_on_the_host(bounded, ids, lengths, guess);
  EXPECT(OK, wtacrs_norm_cache_store(host, ids, lengths, 1, 3, guess, 3, NULL));
  lengths[0] = 2;
  EXPECT_WORDS(SHAPE_MISMATCH, "sample 1", wtacrs_norm_cache_fetch(host, ids, lengths, 1, 0, guess, 16, NULL));
  uint64_t word = 5;
  EXPECT_WORDS(OVERLAP, "fault", wtacrs_norm_cache_outcome(ours, (uint32_t *)&word, &word));
  EXPECT_WORDS(MISALIGNED, "sample", wtacrs_norm_cache_outcome(ours, NULL, shifted(ids, 4)));

  /* Saved bytes that do not fit. */
  unsigned char bytes[256];
  size_t needed;
  CHECK(wtacrs_norm_cache_save(host, bytes, sizeof bytes, &needed));
  wtacrs_context *contexts[2] = {gpu, cpu};
  for (int i = 0; i < 2; i++) {
#define LOAD(samples, tokens, bytes, length, cache) \
  wtacrs_norm_cache_load(contexts[i], samples, tokens, bytes, length, cache)
    EXPECT_WORDS(SHAPE_MISMATCH, "sample 1 is remembered, and the cache is for 1", LOAD(1, 4, bytes, needed, &made));
    EXPECT_WORDS(SHAPE_MISMATCH, "with 3 tokens", LOAD(2, 2, bytes, needed, &made));
    EXPECT(CORRUPTED, LOAD(2, 3, bytes, needed - 1, &made));
    EXPECT_WORDS(NULL_POINTER, "bytes", LOAD(2, 3, NULL, 5, &made));
    EXPECT_WORDS(NULL_POINTER, "cache", LOAD(2, 3, bytes, needed, NULL));
  }
  EXPECT(UNSUPPORTED, wtacrs_norm_cache_load(gpu, SIZE_MAX, SIZE_MAX, bytes, needed, &made));
  EXPECT_WORDS(NULL_POINTER, "needed", wtacrs_norm_cache_save(ours, NULL, 0, NULL));
  EXPECT_WORDS(BUFFER_TOO_SMALL, "room for 9", wtacrs_norm_cache_save(ours, bytes, 9, &needed));
  REQUIRE(made == NULL);
  CHECK(wtacrs_norm_cache_destroy(ours));
  CHECK(wtacrs_norm_cache_destroy(host));
  CHECK(wtacrs_norm_cache_destroy(bounded));
  EXPECT(INVALID_HANDLE, wtacrs_norm_cache_fetch(ours, ids, lengths, 1, 0, guess, 16, NULL));
  free(ids), free(lengths), free(guess);
}

int main(void) {
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &cpu));
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CUDA, 0, NULL, &gpu));
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CUDA, 1, NULL, &other_gpu));
  wtacrs_plan *plan = make(gpu, WTACRS_SOURCE_INPUT);
  const wtacrs_plan_info info = info_of(plan);
  CHECK(wtacrs_plan_destroy(plan));
  saved_bytes = info.saved_bytes, forward_bytes = info.forward_scratch_bytes, backward_bytes = info.backward_scratch_bytes;
  h = aligned(TOKENS * IN * sizeof(float)), dz = aligned(TOKENS * OUT * sizeof(float));
  dw = aligned(IN * OUT * sizeof(float)), norms = aligned(TOKENS * sizeof(float));
  saved = aligned(saved_bytes + 256), forward_scratch = aligned(forward_bytes * 2 + 512);
  backward_scratch = aligned(backward_bytes + 256);
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)((i * 37) % 19) / 9 - 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)((i * 23) % 17) / 8 - 1;
  for (int i = 0; i < TOKENS; i++) norms[i] = 1;
  watch(saved, saved_bytes), watch(dw, IN * OUT * sizeof(float));
  devices(), passes(), tensors(), predictors(), steps(), caches();
  CHECK(wtacrs_context_destroy(gpu));
  CHECK(wtacrs_context_destroy(other_gpu));
  CHECK(wtacrs_context_destroy(cpu));
  void *all[] = {h, dz, dw, norms, saved, forward_scratch, backward_scratch};
  for (int i = 0; i < 7; i++) free(all[i]);
  return finish();
}
