/* Misuse of the CUDA path: each gets its documented status and writes no output. The GPU is the emulator
 * (WTACRS_CUDA_STANDIN=emulator). */
#include "check.h"

enum { TOKENS = 64, IN = 24, OUT = 16, BUDGET = 10 };

static int failures;

static void expect(wtacrs_status found, wtacrs_status expected, const char *word, const char *call, int line) {
  char words[512];
  wtacrs_last_error(words, sizeof words, NULL);
  if (found != expected || (word && !strstr(words, word))) {
    printf("%d: %s: %s, expected %s and \"%s\" (%s)\n", line, call, wtacrs_status_string(found),
           wtacrs_status_string(expected), word ? word : "", words);
    failures++;
  }
}
#define EXPECT(status, word, call) expect(call, WTACRS_##status, word, #call, __LINE__)

static wtacrs_context *gpu, *other_gpu, *cpu;
static float *h, *dz, *dw, *norms;
static unsigned char *saved, *forward_scratch, *backward_scratch;
static size_t saved_bytes, forward_bytes, backward_bytes;
static unsigned char before[1 << 16];

static wtacrs_status plan_of(wtacrs_context *context, int32_t source, const int32_t dtypes[3], wtacrs_plan **made) {
  wtacrs_layer *layer;
  CHECK(wtacrs_layer_create(&layer));
  CHECK(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
  CHECK(wtacrs_layer_set_dtypes(layer, dtypes[0], dtypes[1], dtypes[2]));
  CHECK(wtacrs_layer_set_budget_rows(layer, BUDGET));
  CHECK(wtacrs_layer_set_source(layer, source));
  wtacrs_status status = wtacrs_plan_create(context, layer, made);
  CHECK(wtacrs_layer_destroy(layer));
  return status;
}

static const int32_t all_f32[3] = {WTACRS_F32, WTACRS_F32, WTACRS_F32};

static wtacrs_plan *make(wtacrs_context *context, int32_t source) {
  wtacrs_plan *made;
  CHECK(plan_of(context, source, all_f32, &made));
  return made;
}

#define UNTOUCHED(status, word, call) \
  do { \
    memcpy(before, saved, saved_bytes); \
    for (int i_ = 0; i_ < IN * OUT; i_++) dw[i_] = 77; \
    EXPECT(status, word, call); \
    int same_ = memcmp(before, saved, saved_bytes) == 0; \
    for (int i_ = 0; i_ < IN * OUT; i_++) same_ &= dw[i_] == 77; \
    if (!same_) printf("%d: an output was written\n", __LINE__), failures++; \
  } while (0)

#define FORWARD(plan, h, leading, guess, predictor, saved, bytes, scratch, scratch_bytes) \
  wtacrs_forward(plan, h, leading, guess, predictor, 1, 0, saved, bytes, scratch, scratch_bytes, NULL)
#define BACKWARD(plan, dz, leading, dw, dw_leading, norms, bias, scratch, bytes) \
  wtacrs_backward(plan, saved, saved_bytes, dz, leading, dw, dw_leading, 0, norms, bias, scratch, bytes, NULL)

static void devices(void) {
  wtacrs_context *none = NULL;
  EXPECT(NO_DEVICE, "there is no GPU 2", wtacrs_context_create(WTACRS_CUDA, 2, &none));
  EXPECT(INVALID_ARGUMENT, "-2", wtacrs_context_create(WTACRS_CUDA, -2, &none));
  EXPECT(NULL_POINTER, NULL, wtacrs_context_create(WTACRS_CUDA, 0, NULL));
  wtacrs_plan *made = NULL;
  const int32_t doubles[3] = {WTACRS_F64, WTACRS_F64, WTACRS_F64}, mixed[3] = {WTACRS_F32, WTACRS_BF16, WTACRS_F32};
  EXPECT(UNSUPPORTED, "F64", plan_of(gpu, WTACRS_SOURCE_INPUT, doubles, &made));
  EXPECT(UNSUPPORTED, "one type", plan_of(gpu, WTACRS_SOURCE_INPUT, mixed, &made));
  wtacrs_layer *layer;
  CHECK(wtacrs_layer_create(&layer));
  CHECK(wtacrs_layer_set_budget_fraction(layer, 0.3));
  CHECK(wtacrs_layer_set_shape(layer, UINT32_MAX, 1, 1));
  EXPECT(SIZE_OVERFLOW, "tokens", wtacrs_plan_create(gpu, layer, &made));
  EXPECT(MISALIGNED, "further_offset", wtacrs_layer_set_further_offset(layer, (uint64_t *)(saved + 4)));
  CHECK(wtacrs_layer_destroy(layer));
  if (none || made) puts("an output was written"), failures++;
}

static void passes(void) {
  wtacrs_plan *plan = make(gpu, WTACRS_SOURCE_INPUT), *with_norms = make(gpu, WTACRS_SOURCE_NORMS);
  wtacrs_plan *predicted = make(gpu, WTACRS_SOURCE_PREDICTED);
  unsigned char *f = forward_scratch, *b = backward_scratch;
  UNTOUCHED(NULL_POINTER, "h is NULL", FORWARD(plan, NULL, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(NULL_POINTER, "saved", FORWARD(plan, h, IN, NULL, NULL, NULL, saved_bytes, f, forward_bytes));
  UNTOUCHED(NULL_POINTER, "scratch", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, NULL, forward_bytes));
  UNTOUCHED(NULL_POINTER, "guess", FORWARD(with_norms, h, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(BUFFER_TOO_SMALL, "scratch", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes - 1));
  UNTOUCHED(BUFFER_TOO_SMALL, "saved", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes - 1, f, forward_bytes));
  UNTOUCHED(MISALIGNED, "multiple of 256", FORWARD(plan, h, IN, NULL, NULL, saved + 64, saved_bytes, f, forward_bytes));
  UNTOUCHED(MISALIGNED, "multiple of 256", FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, f + 128, forward_bytes));
  UNTOUCHED(MISALIGNED, "h is at", FORWARD(plan, (char *)h + 2, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(OVERLAP, NULL, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, saved, forward_bytes));
  UNTOUCHED(OVERLAP, NULL, FORWARD(plan, saved, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(INVALID_ARGUMENT, "row to row", FORWARD(plan, h, IN - 1, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(INVALID_ARGUMENT, "guess", FORWARD(plan, h, IN, norms, NULL, saved, saved_bytes, f, forward_bytes));

  EXPECT(OK, NULL, FORWARD(plan, h, IN, NULL, NULL, saved, saved_bytes, f, forward_bytes));
  UNTOUCHED(MISALIGNED, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, NULL, (char *)norms + 2, b, backward_bytes));
  UNTOUCHED(OVERLAP, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, NULL, dw + 3, b, backward_bytes));
  UNTOUCHED(OVERLAP, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, norms, norms + TOKENS - 1, b, backward_bytes));
  UNTOUCHED(OVERLAP, "bias_gradient", BACKWARD(plan, dz, OUT, dw, OUT, NULL, saved, b, backward_bytes));
  UNTOUCHED(NULL_POINTER, "dw", BACKWARD(plan, dz, OUT, NULL, OUT, NULL, NULL, b, backward_bytes));
  UNTOUCHED(OVERLAP, NULL, BACKWARD(plan, dz, OUT, dz, OUT, NULL, NULL, b, backward_bytes));
  UNTOUCHED(MISALIGNED, "dz_norms", BACKWARD(plan, dz, OUT, dw, OUT, (float *)((char *)norms + 2), NULL, b, backward_bytes));
  if (backward_bytes)
    UNTOUCHED(BUFFER_TOO_SMALL, "scratch", BACKWARD(plan, dz, OUT, dw, OUT, NULL, NULL, b, backward_bytes - 1));
  UNTOUCHED(INVALID_ENUM, "accumulate", wtacrs_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, 2, NULL, NULL, b,
                                                        backward_bytes, NULL));

  /* Memory of another device; strides that no kernel takes. */
  int64_t h_shape[2] = {TOKENS, IN}, turned[2] = {1, TOKENS}, back[2] = {-IN, 1}, none[2] = {0, 1};
  const wtacrs_dltensor good = {h, {2, 0}, 2, {2, 32, 1}, h_shape, NULL, 0};
  wtacrs_dltensor t = good;
#define FORWARD_DL(t) wtacrs_forward_dl(plan, t, NULL, NULL, 1, 0, saved, saved_bytes, f, forward_bytes, NULL)
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
  EXPECT(OK, NULL, FORWARD_DL(&good));
  int64_t dz_shape[2] = {TOKENS, OUT}, dw_shape[2] = {IN, OUT}, exchanged[2] = {1, IN};
  const wtacrs_dltensor g = {dz, {2, 0}, 2, {2, 32, 1}, dz_shape, NULL, 0};
  const wtacrs_dltensor out = {dw, {2, 0}, 2, {2, 32, 1}, dw_shape, exchanged, 0};
  UNTOUCHED(UNSUPPORTED, "dw has the strides", wtacrs_backward_dl(plan, saved, saved_bytes, &g, &out, 0, NULL, NULL, b,
                                                                  backward_bytes, NULL));
  EXPECT(DEVICE_MISMATCH, "not of the host", wtacrs_row_norms_dl(cpu, &good, norms, TOKENS, NULL));
  EXPECT(UNSUPPORTED, "F64", wtacrs_row_norms(gpu, WTACRS_F64, 4, 4, h, 4, norms, NULL));

  /* Predictors of another device, context, layer or size. */
  wtacrs_norm_predictor *on_cpu, *on_other, *ours, *wide, *made = NULL;
  CHECK(wtacrs_norm_predictor_create(IN, &on_cpu));
  CHECK(wtacrs_norm_predictor_create_on(other_gpu, IN, &on_other));
  CHECK(wtacrs_norm_predictor_create_on(gpu, IN, &ours));
  CHECK(wtacrs_norm_predictor_create_on(gpu, IN + 1, &wide));
#define PREDICTED(p, guess) FORWARD(predicted, h, IN, guess, p, saved, saved_bytes, f, forward_bytes)
  CHECK(wtacrs_plan_forward_scratch_bytes(predicted, &forward_bytes));
  UNTOUCHED(NULL_POINTER, "predictor", PREDICTED(NULL, NULL));
  UNTOUCHED(DEVICE_MISMATCH, "the CPU's", PREDICTED(on_cpu, NULL));
  UNTOUCHED(DEVICE_MISMATCH, "another context", PREDICTED(on_other, NULL));
  UNTOUCHED(SHAPE_MISMATCH, "25 input features", PREDICTED(wide, NULL));
  UNTOUCHED(MISALIGNED, "guess", PREDICTED(ours, (float *)((char *)norms + 2)));
  UNTOUCHED(OVERLAP, "guess", PREDICTED(ours, (float *)saved));
  EXPECT(OK, NULL, PREDICTED(ours, norms));
  UNTOUCHED(INVALID_HANDLE, NULL, PREDICTED((wtacrs_norm_predictor *)plan, NULL));
  EXPECT(OK, NULL, PREDICTED(ours, NULL));
  EXPECT(DEVICE_MISMATCH, "_on", wtacrs_norm_predictor_update(ours, predicted, saved, saved_bytes, norms));
  EXPECT(DEVICE_MISMATCH, "the plan is a GPU's", wtacrs_norm_predictor_update(on_cpu, predicted, saved, saved_bytes, norms));
  EXPECT(DEVICE_MISMATCH, "the plan is a GPU's", wtacrs_norm_predictor_update_on(on_cpu, predicted, saved, saved_bytes, norms, NULL));
  EXPECT(DEVICE_MISMATCH, "another context", wtacrs_norm_predictor_update_on(on_other, predicted, saved, saved_bytes, norms, NULL));
  EXPECT(SHAPE_MISMATCH, "25", wtacrs_norm_predictor_update_on(wide, predicted, saved, saved_bytes, norms, NULL));
  EXPECT(NULL_POINTER, "dz_norms", wtacrs_norm_predictor_update_on(ours, predicted, saved, saved_bytes, NULL, NULL));
#define UPDATE_CACHED(p, cached) wtacrs_norm_predictor_update_cached_on(p, predicted, saved, saved_bytes, norms, cached, NULL)
  EXPECT(NULL_POINTER, "cached_norms", UPDATE_CACHED(ours, NULL));
  EXPECT(MISALIGNED, "cached_norms", UPDATE_CACHED(ours, (float *)((char *)norms + 2)));
  EXPECT(DEVICE_MISMATCH, "the plan is a GPU's", UPDATE_CACHED(on_cpu, norms));
  EXPECT(DEVICE_MISMATCH, "another context", UPDATE_CACHED(on_other, norms));
  EXPECT(DEVICE_MISMATCH, "_on", wtacrs_norm_predictor_update_cached(ours, predicted, saved, saved_bytes, norms, norms));
  EXPECT(INVALID_ARGUMENT, "at most 512", wtacrs_norm_predictor_create_with_on(gpu, 1024, 513, 0.97, 0.01, 6, 128, 0, &made));
  EXPECT(INVALID_ARGUMENT, "at most 4096", wtacrs_norm_predictor_create_with_on(gpu, 64, 32, 0.97, 0.01, 6, 5000, 0, &made));
  EXPECT(INVALID_ARGUMENT, NULL, wtacrs_norm_predictor_create_on(gpu, 0, &made));
  EXPECT(CORRUPTED, NULL, wtacrs_norm_predictor_load_on(gpu, "no", 2, &made));
  double sum = 0;
  EXPECT(BUFFER_TOO_SMALL, "room for 1", wtacrs_norm_predictor_statistics_on(ours, predicted, saved, saved_bytes, norms, &sum, 1, NULL));
  EXPECT(BUFFER_TOO_SMALL, "room for 1", wtacrs_norm_predictor_statistics_cached_on(ours, predicted, saved, saved_bytes, norms, norms, &sum, 1, NULL));
  size_t sums_count;
  CHECK(wtacrs_norm_predictor_statistics_count(ours, &sums_count));
  double *sums = aligned(sums_count * sizeof(double));
  EXPECT(NULL_POINTER, "cached_norms", wtacrs_norm_predictor_statistics_cached_on(ours, predicted, saved, saved_bytes, norms, NULL, sums, sums_count, NULL));
  EXPECT(OVERLAP, "cached_norms", wtacrs_norm_predictor_statistics_cached_on(ours, predicted, saved, saved_bytes, norms, (float *)sums, sums, sums_count, NULL));
  free(sums);
  EXPECT(SHAPE_MISMATCH, "1 sums", wtacrs_norm_predictor_apply_on(ours, &sum, 1, NULL));
  EXPECT(UNSUPPORTED, "the CPU", wtacrs_norm_predictor_outcome(on_cpu, NULL, NULL));
  uint32_t word;
  EXPECT(OVERLAP, "outcome shares memory with row", wtacrs_norm_predictor_outcome(ours, &word, &word));
  if (made) puts("an output was written"), failures++;
  CHECK(wtacrs_norm_predictor_destroy(on_cpu));
  CHECK(wtacrs_norm_predictor_destroy(on_other));
  CHECK(wtacrs_norm_predictor_destroy(ours));
  CHECK(wtacrs_norm_predictor_destroy(wide));

  /* Steps alone. */
  double *weights = aligned(TOKENS * sizeof(double));
  uint32_t *indices = aligned(TOKENS * sizeof(uint32_t));
  uint64_t *kept = aligned(sizeof(uint64_t)), winners;
  EXPECT(NULL_POINTER, "weights", wtacrs_weights(plan, norms, NULL, NULL, NULL));
  EXPECT(NULL_POINTER, "input_norms", wtacrs_weights(plan, NULL, NULL, weights, NULL));
  EXPECT(NULL_POINTER, "guess", wtacrs_weights(with_norms, norms, NULL, weights, NULL));
  EXPECT(INVALID_ARGUMENT, "guess", wtacrs_weights(plan, norms, norms, weights, NULL));
  EXPECT(MISALIGNED, "weights", wtacrs_weights(plan, norms, NULL, (double *)((char *)weights + 4), NULL));
  EXPECT(OVERLAP, "weights", wtacrs_weights(plan, norms, NULL, (double *)norms, NULL));
  EXPECT(MISALIGNED, "winners", wtacrs_select(plan, norms, NULL, 1, 0, 0, indices, weights, TOKENS, kept, (uint64_t *)((char *)&winners + 4), f, forward_bytes, NULL));
  EXPECT(OVERLAP, "winners", wtacrs_select(plan, norms, NULL, 1, 0, 0, indices, weights, TOKENS, kept, kept, f, forward_bytes, NULL));
  EXPECT(INVALID_ARGUMENT, "guess", wtacrs_select(predicted, norms, norms, 1, 0, 0, indices, weights, TOKENS, kept, NULL, f, forward_bytes, NULL));
  EXPECT(NULL_POINTER, "kept", wtacrs_select(plan, norms, NULL, 1, 0, 0, indices, weights, TOKENS, NULL, NULL, f, forward_bytes, NULL));
  EXPECT(BUFFER_TOO_SMALL, "budget is 10", wtacrs_select(plan, norms, NULL, 1, 0, 0, indices, weights, 9, kept, NULL, f, forward_bytes, NULL));
  EXPECT(MISALIGNED, NULL, wtacrs_saved_selection(plan, saved, saved_bytes, NULL, NULL, 0, NULL, (uint64_t *)((char *)&winners + 4)));
  memset(saved, 0xff, saved_bytes);
  EXPECT(CORRUPTED, NULL, wtacrs_saved_selection(plan, saved, saved_bytes, NULL, NULL, 0, kept, NULL));
  free(weights), free(indices), free(kept);
  CHECK(wtacrs_plan_destroy(plan));
  CHECK(wtacrs_plan_destroy(with_norms));
  CHECK(wtacrs_plan_destroy(predicted));
}

static void caches(void) {
  wtacrs_norm_cache *ours, *host, *bounded, *made = NULL;
  uint64_t *ids = aligned(4 * sizeof(uint64_t)), *lengths = aligned(4 * sizeof(uint64_t));
  ids[0] = 1, ids[1] = 2, lengths[0] = 3, lengths[1] = 4;
  float *guess = aligned(16 * sizeof(float));
  for (int i = 0; i < 16; i++) guess[i] = 77;
  EXPECT(NULL_POINTER, "context", wtacrs_norm_cache_create_on(NULL, 8, 4, &made));
  EXPECT(NULL_POINTER, "cache is NULL", wtacrs_norm_cache_create_on(gpu, 8, 4, NULL));
  EXPECT(INVALID_HANDLE, NULL, wtacrs_norm_cache_create_on((wtacrs_context *)h, 8, 4, &made));
  EXPECT(SIZE_OVERFLOW, "tokens is 4294967295", wtacrs_norm_cache_create_on(gpu, 1, UINT32_MAX, &made));
  EXPECT(SIZE_OVERFLOW, "larger than any memory", wtacrs_norm_cache_create_on(gpu, SIZE_MAX, 2, &made));
  CHECK(wtacrs_norm_cache_create_on(gpu, 8, 4, &ours));
  CHECK(wtacrs_norm_cache_create_on(cpu, 8, 4, &bounded));
  CHECK(wtacrs_norm_cache_create(&host));
  wtacrs_norm_cache *both[2] = {ours, bounded};
  for (int i = 0; i < 2; i++) {
    wtacrs_norm_cache *c = both[i];
    EXPECT(NULL_POINTER, "samples", wtacrs_norm_cache_fetch_on(c, NULL, lengths, 2, 0, guess, 16, NULL));
    EXPECT(NULL_POINTER, "lengths is NULL", wtacrs_norm_cache_fetch_on(c, ids, NULL, 2, 0, guess, 16, NULL));
    EXPECT(NULL_POINTER, "norms", wtacrs_norm_cache_fetch_on(c, ids, lengths, 2, 0, NULL, 16, NULL));
    EXPECT(MISALIGNED, "samples", wtacrs_norm_cache_fetch_on(c, (uint64_t *)((char *)ids + 4), lengths, 2, 0, guess, 16, NULL));
    EXPECT(MISALIGNED, "lengths", wtacrs_norm_cache_fetch_on(c, ids, (uint64_t *)((char *)lengths + 4), 2, 0, guess, 16, NULL));
    EXPECT(BUFFER_TOO_SMALL, "room for 7 norms", wtacrs_norm_cache_fetch_on(c, ids, NULL, 2, 4, guess, 7, NULL));
    EXPECT(BUFFER_TOO_SMALL, "room for 7 norms", wtacrs_norm_cache_store_on(c, ids, NULL, 2, 4, guess, 7, NULL));
    EXPECT(SIZE_OVERFLOW, "rows", wtacrs_norm_cache_fetch_on(c, ids, NULL, 2, SIZE_MAX, guess, 16, NULL));
    EXPECT(SIZE_OVERFLOW, "samples", wtacrs_norm_cache_forget_on(c, ids, SIZE_MAX, NULL));
    EXPECT(SHAPE_MISMATCH, "at most 4", wtacrs_norm_cache_fetch_on(c, ids, NULL, 2, 5, guess, 16, NULL));
    EXPECT(OVERLAP, "norms shares memory with samples", wtacrs_norm_cache_fetch_on(c, ids, lengths, 2, 0, (float *)ids, 4, NULL));
    EXPECT(OVERLAP, "lengths", wtacrs_norm_cache_fetch_on(c, ids, lengths, 2, 0, (float *)lengths, 4, NULL));
    EXPECT(NULL_POINTER, "samples", wtacrs_norm_cache_forget_on(c, NULL, 1, NULL));
    EXPECT(OK, NULL, wtacrs_norm_cache_fetch_on(c, NULL, NULL, 0, 0, NULL, 0, NULL));
    EXPECT(OK, NULL, wtacrs_norm_cache_store_on(c, NULL, NULL, 0, 3, NULL, 0, NULL));
    EXPECT(OK, NULL, wtacrs_norm_cache_forget_on(c, NULL, 0, NULL));
  }
  EXPECT(SIZE_OVERFLOW, "samples", wtacrs_norm_cache_store_on(ours, ids, lengths, (size_t)1 << 32, 0, guess, 16, NULL));
  EXPECT(DEVICE_MISMATCH, "_on", wtacrs_norm_cache_fetch(ours, ids, lengths, 2, guess, 16));
  EXPECT(DEVICE_MISMATCH, "_on", wtacrs_norm_cache_store(ours, ids, lengths, 2, guess, 7));
  EXPECT(DEVICE_MISMATCH, "_on", wtacrs_norm_cache_forget(ours, 1));
  /* The CPU tells at once what a GPU finds later. */
  EXPECT(UNSUPPORTED, "the CPU", wtacrs_norm_cache_outcome(bounded, NULL, NULL));
  EXPECT(BUFFER_TOO_SMALL, "room for 6 norms", wtacrs_norm_cache_store_on(bounded, ids, lengths, 2, 0, guess, 6, NULL));
  lengths[1] = 5;
  EXPECT(SHAPE_MISMATCH, "samples[1], 2, has 5 tokens", wtacrs_norm_cache_fetch_on(bounded, ids, lengths, 2, 0, guess, 16, NULL));
  EXPECT(SHAPE_MISMATCH, "lengths[1] is 5", wtacrs_norm_cache_fetch_on(bounded, ids, lengths, 2, 4, guess, 16, NULL));
  EXPECT(SHAPE_MISMATCH, "5 tokens", wtacrs_norm_cache_store(bounded, ids, lengths, 2, guess, 8));
  lengths[1] = UINT64_MAX;
  EXPECT(SIZE_OVERFLOW, "lengths[1], of sample 2", wtacrs_norm_cache_fetch_on(bounded, ids, lengths, 2, 0, guess, 16, NULL));
  ids[1] = 8, lengths[1] = 4;
  EXPECT(INVALID_ARGUMENT, "samples[1] is 8", wtacrs_norm_cache_fetch_on(bounded, ids, lengths, 2, 0, guess, 16, NULL));
  EXPECT(INVALID_ARGUMENT, "samples[1] is 8", wtacrs_norm_cache_store_on(bounded, ids, lengths, 2, 4, guess, 16, NULL));
  for (int i = 0; i < 16; i++) {
    if (guess[i] != 77) printf("%d: an output was written\n", __LINE__), failures++;
  }
  guess[5] = -2;
  ids[1] = 2;
  EXPECT(INVALID_WEIGHTS, "sample 2, token 1", wtacrs_norm_cache_store_on(bounded, ids, lengths, 2, 4, guess, 16, NULL));
  EXPECT(OK, NULL, wtacrs_norm_cache_store_on(host, ids, lengths, 1, 3, guess, 3, NULL));
  lengths[0] = 2;
  EXPECT(SHAPE_MISMATCH, "sample 1", wtacrs_norm_cache_fetch_on(host, ids, lengths, 1, 0, guess, 16, NULL));
  uint64_t word = 5;
  EXPECT(OVERLAP, "fault", wtacrs_norm_cache_outcome(ours, (uint32_t *)&word, &word));
  EXPECT(MISALIGNED, "sample", wtacrs_norm_cache_outcome(ours, NULL, (uint64_t *)((char *)ids + 4)));

  /* Saved bytes that do not fit. */
  unsigned char bytes[256];
  size_t needed;
  CHECK(wtacrs_norm_cache_save(host, bytes, sizeof bytes, &needed));
  wtacrs_context *contexts[2] = {gpu, cpu};
  for (int i = 0; i < 2; i++) {
    EXPECT(SHAPE_MISMATCH, "sample 1 is remembered, and the cache is for 1", wtacrs_norm_cache_load_on(contexts[i], 1, 4, bytes, needed, &made));
    EXPECT(SHAPE_MISMATCH, "with 3 tokens", wtacrs_norm_cache_load_on(contexts[i], 2, 2, bytes, needed, &made));
    EXPECT(CORRUPTED, NULL, wtacrs_norm_cache_load_on(contexts[i], 2, 3, bytes, needed - 1, &made));
    EXPECT(NULL_POINTER, "bytes", wtacrs_norm_cache_load_on(contexts[i], 2, 3, NULL, 5, &made));
    EXPECT(NULL_POINTER, "cache", wtacrs_norm_cache_load_on(contexts[i], 2, 3, bytes, needed, NULL));
  }
  EXPECT(NULL_POINTER, "needed", wtacrs_norm_cache_save(ours, NULL, 0, NULL));
  EXPECT(BUFFER_TOO_SMALL, "room for 9", wtacrs_norm_cache_save(ours, bytes, 9, &needed));
  if (made) puts("an output was written"), failures++;
  CHECK(wtacrs_norm_cache_destroy(ours));
  CHECK(wtacrs_norm_cache_destroy(host));
  CHECK(wtacrs_norm_cache_destroy(bounded));
  EXPECT(INVALID_HANDLE, NULL, wtacrs_norm_cache_fetch_on(ours, ids, lengths, 1, 0, guess, 16, NULL));
  free(ids), free(lengths), free(guess);
}

int main(void) {
  CHECK(wtacrs_context_create(WTACRS_CPU, 0, &cpu));
  CHECK(wtacrs_context_create(WTACRS_CUDA, 0, &gpu));
  CHECK(wtacrs_context_create(WTACRS_CUDA, 1, &other_gpu));
  wtacrs_plan *plan = make(gpu, WTACRS_SOURCE_INPUT);
  CHECK(wtacrs_plan_saved_bytes(plan, &saved_bytes));
  CHECK(wtacrs_plan_forward_scratch_bytes(plan, &forward_bytes));
  CHECK(wtacrs_plan_backward_scratch_bytes(plan, &backward_bytes));
  CHECK(wtacrs_plan_destroy(plan));
  REQUIRE(saved_bytes < sizeof before);
  h = aligned(TOKENS * IN * sizeof(float)), dz = aligned(TOKENS * OUT * sizeof(float));
  dw = aligned(IN * OUT * sizeof(float)), norms = aligned(TOKENS * sizeof(float));
  saved = aligned(saved_bytes + 256), forward_scratch = aligned(forward_bytes * 2 + 512);
  backward_scratch = aligned(backward_bytes + 256);
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)((i * 37) % 19) / 9 - 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)((i * 23) % 17) / 8 - 1;
  for (int i = 0; i < TOKENS; i++) norms[i] = 1;
  devices(), passes(), caches();
  CHECK(wtacrs_context_destroy(gpu));
  CHECK(wtacrs_context_destroy(other_gpu));
  CHECK(wtacrs_context_destroy(cpu));
  void *all[] = {h, dz, dw, norms, saved, forward_scratch, backward_scratch};
  for (int i = 0; i < 7; i++) free(all[i]);
  puts(failures ? "failed" : "ok");
  return failures != 0;
}
