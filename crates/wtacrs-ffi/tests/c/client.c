/* A whole client: a recorded layer's dW by one call and by steps, norm cache, norm predictor, save and load.
 * Usage: client FOLDER, with h.raw and dz.raw (1024 x 384 floats) in it. */
#include "check.h"

enum { TOKENS = 1024, FEATURES = 384, ELEMENTS = TOKENS * FEATURES, WEIGHTS = FEATURES * FEATURES, SEED = 42 };

static wtacrs_context *context;
static float *h, *dz, *norms, dw[WEIGHTS];
static double exact[WEIGHTS];

static double error_of(const float *estimate) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < WEIGHTS; i++) {
    difference += (estimate[i] - exact[i]) * (estimate[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  return sqrt(difference / size);
}

/* The layer on the CPU, of a context that is destroyed before the first step: plans live on. */
static equipped layer(wtacrs_source source) {
  wtacrs_context *own;
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &own));
  equipped made = equip(freeze(own, describe(TOKENS, FEATURES, FEATURES, WTACRS_BUDGET_FRACTION, 0.3, source)));
  CHECK(wtacrs_context_destroy(own));
  return made;
}

static wtacrs_status forward(equipped on, uint64_t seed, uint64_t offset, const wtacrs_forward_options *options) {
  return forward_pass(on, h, FEATURES, seed, offset, options);
}

static wtacrs_status backward(equipped on, const wtacrs_backward_options *options) {
  return backward_pass(on, dz, FEATURES, dw, FEATURES, options);
}

/* Indices and scales that a forward pass has saved. */
typedef struct {
  uint64_t kept, winners;
  uint32_t indices[TOKENS];
  double scales[TOKENS];
} selection;

static selection saved_selection(equipped on) {
  selection s;
  CHECK(wtacrs_plan_saved_selection(on.plan, on.saved, on.info.saved_bytes,
                                    SELECTION(s.indices, s.scales, TOKENS, &s.kept, &s.winners)));
  return s;
}

static int same(const selection *a, const selection *b) {
  return a->kept == b->kept && a->winners == b->winners && memcmp(a->indices, b->indices, a->kept * sizeof(uint32_t)) == 0 &&
         memcmp(a->scales, b->scales, a->kept * sizeof(double)) == 0;
}

static void sizes(equipped on) {
  const wtacrs_plan_info info = on.info;
  REQUIRE(info.size == sizeof info && info.budget_rows == 307 && info.draws == 1024 && info.alignment == 64);
  REQUIRE(info.exact_bytes == ELEMENTS * sizeof(float) && info.saved_bytes < info.exact_bytes * 32 / 100);
  REQUIRE(info.forward_scratch_bytes == 0 && info.weight_gradient_scratch_bytes == 0 && info.backward_scratch_bytes == 0);
  REQUIRE(info.estimate_scratch_bytes == info.saved_bytes);
  REQUIRE(info.saved_status_offset == SIZE_MAX); /* the forward pass itself returns the failure */
}

/* Both passes with exact norms, which leave `dw` and the saved memory to the steps below. */
static void passes(equipped on) {
  float *again = aligned(TOKENS * sizeof(float)), *bias = aligned(FEATURES * sizeof(float));
  CHECK(forward(on, SEED, 0, SIZED(wtacrs_forward_options, .guess = norms)));
  CHECK(backward(on, SIZED(wtacrs_backward_options, .dz_norms = again, .bias_gradient = bias)));
  double error = error_of(dw);
  printf("error %.3f at budget %zu: %zu bytes saved of %zu\n", error, on.info.budget_rows, on.info.saved_bytes,
         on.info.exact_bytes);
  REQUIRE(error > 0.08 && error < 0.14);
  REQUIRE(memcmp(norms, again, TOKENS * sizeof(float)) == 0);
  double sum = 0;
  for (size_t t = 0; t < TOKENS; t++) sum += dz[t * FEATURES + 7];
  REQUIRE(fabs(sum - bias[7]) < 1e-4);

  CHECK(backward(on, SIZED(wtacrs_backward_options, .accumulate = 1)));
  for (size_t i = 0; i < WEIGHTS; i++) dw[i] /= 2;
  REQUIRE(fabs(error_of(dw) - error) < 1e-6);
  CHECK(backward(on, NULL));
  free(again), free(bias);
}

/* The same bits in one call, which knows the exact norms too, and step by step. */
static void steps(equipped on) {
  const size_t budget = on.info.budget_rows;
  float *other = aligned(WEIGHTS * sizeof(float)), *rows = aligned(budget * FEATURES * sizeof(float));
  float *input_norms = aligned(TOKENS * sizeof(float));
  CHECK(wtacrs_plan_estimate(on.plan, h, FEATURES, dz, FEATURES, SEED, 0, other, FEATURES, on.estimate,
                             on.info.estimate_scratch_bytes, NULL));
  REQUIRE(memcmp(dw, other, sizeof dw) == 0);

  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, FEATURES, h, FEATURES, input_norms, NULL));
  selection found, saved = saved_selection(on);
  const wtacrs_selection *arrays = SELECTION(found.indices, found.scales, budget, &found.kept, &found.winners);
  CHECK(wtacrs_plan_select(on.plan, input_norms, norms, SEED, 0, 0, arrays, NULL, 0, NULL));
  REQUIRE(found.kept == budget && same(&found, &saved));
  CHECK(wtacrs_plan_gather(on.plan, h, FEATURES, arrays, rows, FEATURES, NULL));
  REQUIRE(memcmp(rows + FEATURES, h + (size_t)found.indices[1] * FEATURES, FEATURES * sizeof(float)) == 0);
  CHECK(wtacrs_plan_weight_gradient(on.plan, rows, FEATURES, arrays, dz, FEATURES, other, FEATURES, 0, on.weight_gradient,
                                    on.info.weight_gradient_scratch_bytes, NULL));
  REQUIRE(memcmp(dw, other, sizeof dw) == 0);

  /* What stands behind it. */
  double *weights = aligned(TOKENS * sizeof(double)), threshold, expected_rows, squared_error;
  uint64_t winners;
  CHECK(wtacrs_plan_weights(on.plan, input_norms, norms, weights, NULL));
  CHECK(wtacrs_plan_theory(on.plan, weights, weights, &threshold, &winners, &expected_rows, &squared_error));
  REQUIRE(winners == found.winners && expected_rows == (double)budget && threshold > 0 && squared_error > 0);
  free(other), free(rows), free(input_norms), free(weights);
}

/* DLPack: an H with a byte_offset, and dW transposed, as PyTorch stores weights. */
static void tensors(equipped on) {
  float *other = aligned(WEIGHTS * sizeof(float));
  int64_t shape[2] = {TOKENS, FEATURES}, square[2] = {FEATURES, FEATURES}, turned[2] = {1, FEATURES};
  const wtacrs_dltensor h_dl = {h - 4, {1, 0}, 2, {2, 32, 1}, shape, NULL, 16};
  const wtacrs_dltensor dz_dl = {dz, {1, 0}, 2, {2, 32, 1}, shape, NULL, 0};
  const wtacrs_dltensor dw_dl = {other, {1, 0}, 2, {2, 32, 1}, square, turned, 0};
  CHECK(wtacrs_plan_forward_dl(on.plan, &h_dl, SEED, 0, SIZED(wtacrs_forward_options, .guess = norms), on.saved,
                               on.info.saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_plan_backward_dl(on.plan, on.saved, on.info.saved_bytes, &dz_dl, &dw_dl, NULL, on.backward,
                                on.info.backward_scratch_bytes, NULL));
  for (size_t i = 0; i < FEATURES; i++)
    for (size_t j = 0; j < FEATURES; j++) {
      const float expected = dw[i * FEATURES + j];
      REQUIRE(fabsf(other[j * FEATURES + i] - expected) <= 1e-5f * fabsf(expected) + 1e-7f);
    }
  free(other);
}

/* Every row, whatever the design, and whatever the source: a predictor would be refused. */
static void exact_budget(void) {
  wtacrs_layer *description = describe(TOKENS, FEATURES, FEATURES, WTACRS_BUDGET_EXACT, 0, WTACRS_SOURCE_PREDICTED);
  CHECK(wtacrs_layer_set_design(description, WTACRS_DESIGN_CRS));
  equipped on = equip(freeze(context, description));
  REQUIRE(on.info.budget_rows == TOKENS);
  CHECK(forward(on, SEED, 0, NULL));
  selection found = saved_selection(on);
  REQUIRE(found.kept == TOKENS);
  for (int t = 0; t < TOKENS; t++) REQUIRE(found.indices[t] == (uint32_t)t && found.scales[t] == 1);
  CHECK(backward(on, NULL));
  REQUIRE(error_of(dw) < 1e-5);
  REQUIRE(forward(on, SEED, 0, SIZED(wtacrs_forward_options, .guess = norms)) == WTACRS_STATUS_INVALID_ARGUMENT);
  discard(on);
}

static unsigned char *predictor_bytes(const wtacrs_norm_predictor *predictor, size_t *count) {
  CHECK(wtacrs_norm_predictor_save(predictor, NULL, 0, count));
  unsigned char *bytes = aligned(*count);
  CHECK(wtacrs_norm_predictor_save(predictor, bytes, *count, count));
  return bytes;
}

static uint32_t outcome_of(const wtacrs_norm_predictor *predictor) {
  uint32_t outcome = 9, row = 9;
  CHECK(wtacrs_norm_predictor_outcome(predictor, &outcome, &row));
  REQUIRE(row == 0); /* a call on the CPU names the row itself */
  return outcome;
}

/* Cold it knows nothing; by sums of ranks it learns the same; saved and loaded, it is the same. */
static void predictors(void) {
  equipped on = layer(WTACRS_SOURCE_PREDICTED);
  wtacrs_norm_predictor *predictor, *loaded, *rank;
  CHECK(wtacrs_norm_predictor_create(context, FEATURES, NULL, &predictor));
  CHECK(wtacrs_norm_predictor_create(context, FEATURES, NULL, &rank));
  REQUIRE(outcome_of(predictor) == 1);
  const wtacrs_forward_options *with_predictor = SIZED(wtacrs_forward_options, .predictor = predictor);
  CHECK(forward(on, 1, 0, with_predictor));
  CHECK(wtacrs_norm_predictor_update(predictor, on.plan, on.saved, on.info.saved_bytes, norms, NULL, NULL));
  REQUIRE(outcome_of(predictor) == 0 && outcome_of(rank) == 1);

  size_t count, needed, rank_needed;
  CHECK(wtacrs_norm_predictor_statistics_count(rank, &count));
  double *sums = aligned(count * sizeof(double));
  CHECK(wtacrs_norm_predictor_statistics(rank, on.plan, on.saved, on.info.saved_bytes, norms, NULL, sums, count, NULL));
  REQUIRE(outcome_of(rank) == 1);
  CHECK(wtacrs_norm_predictor_apply(rank, sums, count, NULL));
  REQUIRE(outcome_of(rank) == 0);
  unsigned char *bytes = predictor_bytes(predictor, &needed), *rank_bytes = predictor_bytes(rank, &rank_needed);
  REQUIRE(needed == rank_needed && memcmp(bytes, rank_bytes, needed) == 0);

  CHECK(wtacrs_norm_predictor_load(context, bytes, needed, &loaded));
  CHECK(forward(on, 1, on.info.draws, SIZED(wtacrs_forward_options, .predictor = loaded)));
  selection by_loaded = saved_selection(on);
  CHECK(forward(on, 1, on.info.draws, with_predictor));
  selection found = saved_selection(on);
  REQUIRE(same(&found, &by_loaded));
  CHECK(backward(on, NULL));
  REQUIRE(error_of(dw) < 0.3);

  /* Norms that fall by more than the clamp, e^6, leave it without a level; the next step finds a new one. */
  float *faint = aligned(TOKENS * sizeof(float));
  for (int t = 0; t < TOKENS; t++) faint[t] = norms[t] * 1e-6f;
  CHECK(wtacrs_norm_predictor_update(loaded, on.plan, on.saved, on.info.saved_bytes, faint, NULL, NULL));
  REQUIRE(outcome_of(loaded) == 2);
  CHECK(wtacrs_norm_predictor_update(loaded, on.plan, on.saved, on.info.saved_bytes, faint, NULL, NULL));
  REQUIRE(outcome_of(loaded) == 0);

  CHECK(wtacrs_norm_predictor_destroy(predictor));
  CHECK(wtacrs_norm_predictor_destroy(loaded));
  CHECK(wtacrs_norm_predictor_destroy(rank));
  free(sums), free(bytes), free(rank_bytes), free(faint), discard(on);
}

/* Eight samples of 128 tokens, by ids that no bound fits. Warm with true norms, and a mix of 0.01, it is near exact. */
static void caches(void) {
  enum { SAMPLES = 8, LENGTH = 128 };
  wtacrs_norm_cache *cache, *restored;
  uint64_t samples[SAMPLES], lengths[SAMPLES];
  for (unsigned i = 0; i < SAMPLES; i++) samples[i] = (UINT64_C(1) << 40) + i, lengths[i] = LENGTH;
  float *guess = aligned(TOKENS * sizeof(float));
  CHECK(wtacrs_norm_cache_create(context, SIZE_MAX, SIZE_MAX, &cache));
  CHECK(wtacrs_norm_cache_fetch(cache, samples, lengths, SAMPLES, 0, guess, TOKENS, NULL));
  for (int t = 0; t < TOKENS; t++) REQUIRE(guess[t] == -1);
  CHECK(wtacrs_norm_cache_store(cache, samples, lengths, SAMPLES, 0, norms, TOKENS, NULL));
  CHECK(wtacrs_norm_cache_forget(cache, samples + 7, 1, NULL));

  size_t needed;
  CHECK(wtacrs_norm_cache_save(cache, NULL, 0, &needed));
  unsigned char *bytes = aligned(needed);
  CHECK(wtacrs_norm_cache_save(cache, bytes, needed, &needed));
  CHECK(wtacrs_norm_cache_load(context, SIZE_MAX, SIZE_MAX, bytes, needed, &restored));
  CHECK(wtacrs_norm_cache_fetch(restored, samples, NULL, SAMPLES, LENGTH, guess, TOKENS, NULL));
  REQUIRE(memcmp(guess, norms, 7 * LENGTH * sizeof(float)) == 0);
  for (int t = 7 * LENGTH; t < TOKENS; t++) REQUIRE(guess[t] == -1);
  uint32_t fault = 9;
  uint64_t sample = 9;
  CHECK(wtacrs_norm_cache_outcome(restored, &fault, &sample));
  REQUIRE(fault == 0 && sample == 0);

  equipped on = layer(WTACRS_SOURCE_CACHED);
  CHECK(forward(on, 1, 0, SIZED(wtacrs_forward_options, .guess = guess)));
  CHECK(backward(on, NULL));
  REQUIRE(error_of(dw) < 0.2);
  CHECK(wtacrs_norm_cache_destroy(cache));
  CHECK(wtacrs_norm_cache_destroy(restored));
  free(guess), free(bytes), discard(on);
}

/* Layers that share H: the column norms of the layers x tokens matrix of their norms. */
static void joint_norms(void) {
  float *layers = aligned(2 * TOKENS * sizeof(float)), *joint = aligned(TOKENS * sizeof(float));
  memcpy(layers, norms, TOKENS * sizeof(float)), memcpy(layers + TOKENS, norms, TOKENS * sizeof(float));
  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, 2, TOKENS, layers, TOKENS, joint, NULL));
  for (int t = 0; t < TOKENS; t++) REQUIRE(fabsf(joint[t] - norms[t] * sqrtf(2)) < 1e-5f * norms[t] + 1e-12f);
  free(layers), free(joint);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  REQUIRE(wtacrs_abi_version() == WTACRS_ABI_VERSION);
  h = read_raw(argv[1], "h.raw", ELEMENTS), dz = read_raw(argv[1], "dz.raw", ELEMENTS);
  for (size_t t = 0; t < TOKENS; t++)
    for (size_t i = 0; i < FEATURES; i++)
      for (size_t j = 0; j < FEATURES; j++) exact[i * FEATURES + j] += (double)h[t * FEATURES + i] * dz[t * FEATURES + j];
  norms = aligned(TOKENS * sizeof(float));
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, FEATURES, dz, FEATURES, norms, NULL));

  equipped on = layer(WTACRS_SOURCE_NORMS);
  sizes(on), passes(on), steps(on), tensors(on);
  discard(on);
  exact_budget(), predictors(), caches(), joint_norms();

  CHECK(wtacrs_context_destroy(context));
  free(h), free(dz), free(norms);
  return finish();
}
