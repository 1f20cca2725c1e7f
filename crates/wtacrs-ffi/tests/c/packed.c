/* Packed rows: what they save, how far off the gradients are that they give, and that a layer trains with them.
 * Usage: packed FOLDER, with h.raw and dz.raw (1024 x 384 floats) in it. */
#include "check.h"

enum { TOKENS = 1024, FEATURES = 384, ELEMENTS = TOKENS * FEATURES, WEIGHTS = FEATURES * FEATURES, GROUPS = 3 };

static wtacrs_context *context;
static float *h, *dz, *norms, *exact, *dw;

static const struct {
  wtacrs_packing packing;
  size_t bits;
  /* Relative errors of dW at 0.3 of the rows by exact norms, and at all of them: between a half and one and a half of these. */
  double sampled, all;
} PACKINGS[] = {{WTACRS_PACKING_BITS8, 8, 0.106, 0.0021}, {WTACRS_PACKING_BITS4, 4, 0.112, 0.036}, {WTACRS_PACKING_BITS2, 2, 0.208, 0.178}};
enum { COUNT = sizeof PACKINGS / sizeof *PACKINGS };

static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static equipped layer(wtacrs_packing packing, wtacrs_budget unit, double amount, wtacrs_source source) {
  wtacrs_layer *description = describe(TOKENS, FEATURES, FEATURES, unit, amount, source);
  CHECK(wtacrs_layer_set_packing(description, packing));
  return equip(freeze(context, description));
}

/* Both passes. Where all rows are packed, nothing is guessed. */
static double error_of(equipped on, uint64_t seed, const wtacrs_forward_options *options) {
  CHECK(forward_pass(on, h, FEATURES, seed, 0, options));
  CHECK(backward_pass(on, dz, FEATURES, dw, FEATURES, NULL));
  return distance(dw, exact, WEIGHTS);
}

static void sampled_rows(void) {
  for (int i = 0; i < COUNT; i++) {
    equipped on = layer(PACKINGS[i].packing, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_NORMS);
    const size_t kept = on.info.budget_rows;
    REQUIRE(kept == 307 && on.info.draws >= TOKENS && on.info.exact_bytes == ELEMENTS * sizeof(float));
    REQUIRE(on.info.saved_bytes == 64 + rounded(kept * 4) + rounded(kept * 8) + rounded(kept * GROUPS * 4) +
                                       rounded(kept * FEATURES * PACKINGS[i].bits / 8));
    REQUIRE(on.info.backward_scratch_bytes == 0);
    double error = error_of(on, 42, SIZED(wtacrs_forward_options, .guess = norms));
    printf("0.3 of the rows in %zu bits: error %.4f, %zu bytes of %zu\n", PACKINGS[i].bits, error, on.info.saved_bytes,
           on.info.exact_bytes);
    REQUIRE(error > PACKINGS[i].sampled / 2 && error < PACKINGS[i].sampled * 1.5);

    /* What is chosen does not depend on how it is saved. */
    equipped native = layer(WTACRS_PACKING_NATIVE, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_NORMS);
    static uint32_t chosen[2][TOKENS];
    static double scales[2][TOKENS];
    uint64_t counts[2];
    CHECK(forward_pass(native, h, FEATURES, 42, 0, SIZED(wtacrs_forward_options, .guess = norms)));
    const equipped both[2] = {native, on};
    for (int j = 0; j < 2; j++)
      CHECK(wtacrs_plan_saved_selection(both[j].plan, both[j].saved, both[j].info.saved_bytes,
                                        SELECTION(chosen[j], scales[j], TOKENS, &counts[j], NULL)));
    REQUIRE(counts[0] == counts[1] && memcmp(chosen[0], chosen[1], counts[0] * sizeof(uint32_t)) == 0);
    REQUIRE(memcmp(scales[0], scales[1], counts[0] * sizeof(double)) == 0);
    discard(on), discard(native);
  }
}

/* No norms, no selection, no indices, no scales; no guess is asked for or read. */
static void all_rows(void) {
  static const wtacrs_source SOURCES[] = {WTACRS_SOURCE_INPUT, WTACRS_SOURCE_NORMS, WTACRS_SOURCE_CACHED,
                                          WTACRS_SOURCE_PREDICTED};
  static uint32_t indices[TOKENS];
  static double scales[TOKENS];
  for (int i = 0; i < COUNT; i++) {
    equipped on = layer(PACKINGS[i].packing, WTACRS_BUDGET_FRACTION, 1, WTACRS_SOURCE_PREDICTED);
    REQUIRE(on.info.budget_rows == TOKENS && on.info.draws >= TOKENS);
    REQUIRE(on.info.saved_bytes == 64 + TOKENS * GROUPS * 4 + TOKENS * FEATURES * PACKINGS[i].bits / 8);
    double error = error_of(on, 42, NULL);
    printf("all rows in %zu bits: error %.4f, %zu bytes of %zu\n", PACKINGS[i].bits, error, on.info.saved_bytes,
           on.info.exact_bytes);
    REQUIRE(error > PACKINGS[i].all / 2 && error < PACKINGS[i].all * 1.5);

    uint64_t kept, winners;
    CHECK(wtacrs_plan_saved_selection(on.plan, on.saved, on.info.saved_bytes,
                                      SELECTION(indices, scales, TOKENS, &kept, &winners)));
    REQUIRE(kept == TOKENS && winners == TOKENS);
    for (uint32_t t = 0; t < TOKENS; t++) REQUIRE(indices[t] == t && scales[t] == 1);

    /* As many rows as tokens are all of them too; whatever the source, the same bytes. */
    for (int s = 0; s < 4; s++) {
      equipped other = layer(PACKINGS[i].packing, WTACRS_BUDGET_ROWS, TOKENS, SOURCES[s]);
      CHECK(forward_pass(other, h, FEATURES, 42, 0, NULL));
      REQUIRE(other.info.saved_bytes == on.info.saved_bytes && memcmp(other.saved, on.saved, on.info.saved_bytes) == 0);
      discard(other);
    }

    /* Without bias: the mean of sixteen has a quarter of the error. */
    float *mean = aligned(WEIGHTS * sizeof(float));
    memset(mean, 0, WEIGHTS * sizeof(float));
    CHECK(backward_pass(on, dz, FEATURES, dw, FEATURES, NULL));
    double errors = 0;
    for (int seed = 0; seed < 16; seed++) {
      errors += error_of(on, 100 + (uint64_t)seed, NULL) / 16;
      for (size_t w = 0; w < WEIGHTS; w++) mean[w] += dw[w] / 16;
    }
    printf("  a mean of %.4f, and that of the mean gradient %.4f\n", errors, distance(mean, exact, WEIGHTS));
    REQUIRE(distance(mean, exact, WEIGHTS) < errors / 3);
    free(mean), discard(on);
  }
}

/* A predictor learns from packed rows; where all are packed it may be given, is not read, and may learn. */
static void predictors(void) {
  wtacrs_norm_predictor *predictor;
  CHECK(wtacrs_norm_predictor_create(context, FEATURES, NULL, &predictor));
  const wtacrs_forward_options *predicted = SIZED(wtacrs_forward_options, .predictor = predictor);
  equipped on = layer(WTACRS_PACKING_BITS4, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_PREDICTED);
  double cold = error_of(on, 7, predicted);
  for (uint64_t step = 0; step < 4; step++) {
    CHECK(forward_pass(on, h, FEATURES, 1, step * on.info.draws, predicted));
    CHECK(wtacrs_norm_predictor_update(predictor, on.plan, on.saved, on.info.saved_bytes, norms, NULL, NULL));
  }
  double warm = error_of(on, 7, predicted);
  printf("predicted norms, 4 bits: error %.3f, from %.3f\n", warm, cold);
  REQUIRE(warm < 0.7 * cold);

  equipped all = layer(WTACRS_PACKING_BITS4, WTACRS_BUDGET_FRACTION, 1, WTACRS_SOURCE_PREDICTED);
  double without = error_of(all, 7, NULL);
  REQUIRE(error_of(all, 7, predicted) == without);
  CHECK(wtacrs_norm_predictor_update(predictor, all.plan, all.saved, all.info.saved_bytes, norms, NULL, NULL));
  uint32_t outcome = 9;
  CHECK(wtacrs_norm_predictor_outcome(predictor, &outcome, NULL));
  REQUIRE(outcome == 0);
  CHECK(wtacrs_norm_predictor_destroy(predictor));
  discard(on), discard(all);
}

/* What stays native: an exact layer, and a product in one call. */
static void native_rows(void) {
  equipped exactly = layer(WTACRS_PACKING_BITS2, WTACRS_BUDGET_EXACT, 0, WTACRS_SOURCE_PREDICTED);
  REQUIRE(exactly.info.saved_bytes > exactly.info.exact_bytes);
  REQUIRE(error_of(exactly, 1, NULL) < 1e-5);
  equipped native = layer(WTACRS_PACKING_NATIVE, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_INPUT);
  equipped packed = layer(WTACRS_PACKING_BITS2, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_INPUT);
  REQUIRE(packed.info.estimate_scratch_bytes == native.info.estimate_scratch_bytes);
  float *other = aligned(WEIGHTS * sizeof(float));
  CHECK(wtacrs_plan_estimate(native.plan, h, FEATURES, dz, FEATURES, 5, 0, dw, FEATURES, native.estimate,
                             native.info.estimate_scratch_bytes, NULL));
  CHECK(wtacrs_plan_estimate(packed.plan, h, FEATURES, dz, FEATURES, 5, 0, other, FEATURES, packed.estimate,
                             packed.info.estimate_scratch_bytes, NULL));
  REQUIRE(memcmp(dw, other, WEIGHTS * sizeof(float)) == 0);
  free(other), discard(exactly), discard(native), discard(packed);
}

/* Rows that lie apart, or column by column, give the same codes as dense ones. */
static void strides(void) {
  float *turned = aligned(ELEMENTS * sizeof(float)), *wide = aligned(TOKENS * (FEATURES + 5) * sizeof(float));
  for (size_t t = 0; t < TOKENS; t++)
    for (size_t i = 0; i < FEATURES; i++) turned[i * TOKENS + t] = wide[t * (FEATURES + 5) + i] = h[t * FEATURES + i];
  int64_t shape[2] = {TOKENS, FEATURES}, columns[2] = {1, TOKENS};
  const wtacrs_dltensor h_dl = {turned, {1, 0}, 2, {2, 32, 1}, shape, columns, 0};
  equipped on = layer(WTACRS_PACKING_BITS4, WTACRS_BUDGET_FRACTION, 1, WTACRS_SOURCE_INPUT);
  unsigned char *dense = aligned(on.info.saved_bytes);
  CHECK(forward_pass(on, h, FEATURES, 3, 0, NULL));
  memcpy(dense, on.saved, on.info.saved_bytes);
  CHECK(forward_pass(on, wide, FEATURES + 5, 3, 0, NULL));
  REQUIRE(memcmp(dense, on.saved, on.info.saved_bytes) == 0);
  CHECK(wtacrs_plan_forward_dl(on.plan, &h_dl, 3, 0, NULL, on.saved, on.info.saved_bytes, NULL, 0, NULL));
  REQUIRE(memcmp(dense, on.saved, on.info.saved_bytes) == 0);
  free(turned), free(wide), free(dense), discard(on);
}

/* Fits H W to what other weights make of H, by gradient descent: how far W is from them, of how far it was. */
static double train(wtacrs_packing packing, double share) {
  enum { ROWS = 192, IN = 24, OUT = 6, STEPS = 150 };
  static float x[ROWS * IN], gradient[ROWS * OUT], true_w[IN * OUT], w[IN * OUT], step[IN * OUT];
  static float gradient_norms[ROWS];
  uint32_t random = 1;
  for (int i = 0; i < ROWS * IN; i++) x[i] = (float)((random = random * 1664525 + 1013904223) >> 8) / (1 << 23) - 1;
  for (int i = 0; i < IN * OUT; i++) true_w[i] = (float)(i * 31 % 17) / 8 - 1, w[i] = 0;
  wtacrs_layer *description = describe(ROWS, IN, OUT, WTACRS_BUDGET_FRACTION, share, WTACRS_SOURCE_PREDICTED);
  CHECK(wtacrs_layer_set_packing(description, packing));
  equipped on = equip(freeze(context, description));
  wtacrs_norm_predictor *predictor;
  CHECK(wtacrs_norm_predictor_create(context, IN, NULL, &predictor));
  uint64_t offset = 0;
  for (int s = 0; s < STEPS; s++) {
    for (int t = 0; t < ROWS; t++)
      for (int j = 0; j < OUT; j++) {
        float sum = 0;
        for (int i = 0; i < IN; i++) sum += x[t * IN + i] * (w[i * OUT + j] - true_w[i * OUT + j]);
        gradient[t * OUT + j] = sum / ROWS;
      }
    CHECK(forward_pass(on, x, IN, 11, offset, SIZED(wtacrs_forward_options, .predictor = predictor)));
    offset += on.info.draws;
    CHECK(backward_pass(on, gradient, OUT, step, OUT, SIZED(wtacrs_backward_options, .dz_norms = gradient_norms)));
    CHECK(wtacrs_norm_predictor_update(predictor, on.plan, on.saved, on.info.saved_bytes, gradient_norms, NULL, NULL));
    for (int i = 0; i < IN * OUT; i++) w[i] -= step[i];
  }
  CHECK(wtacrs_norm_predictor_destroy(predictor));
  discard(on);
  return distance(w, true_w, IN * OUT);
}

static void training(void) {
  double full = train(WTACRS_PACKING_NATIVE, 1);
  static const struct {
    wtacrs_packing packing;
    double share;
  } runs[] = {{WTACRS_PACKING_BITS4, 0.5}, {WTACRS_PACKING_BITS8, 1}, {WTACRS_PACKING_BITS4, 1}, {WTACRS_PACKING_BITS2, 1}};
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
    double packed = train(runs[i].packing, runs[i].share);
    printf("after training at %.1f, packing %d: %.2g of the way is left, %.2g with full gradients\n", runs[i].share,
           (int)runs[i].packing, packed, full);
    REQUIRE(packed < 0.02);
  }
}

/* C = A B of two heads: sampled sides are packed, exact ones are not. */
static void batched(void) {
  enum { HEADS = 2, ROWS = 40, INNER = 24, COLUMNS = 30 };
  static float a[HEADS * ROWS * INNER], b[HEADS * INNER * COLUMNS], g[HEADS * ROWS * COLUMNS];
  static float da[HEADS * ROWS * INNER], db[HEADS * INNER * COLUMNS], full_a[HEADS * ROWS * INNER],
      full_b[HEADS * INNER * COLUMNS];
  for (int i = 0; i < HEADS * ROWS * INNER; i++) a[i] = (float)(i * 37 % 29) / 14 - 1;
  for (int i = 0; i < HEADS * INNER * COLUMNS; i++) b[i] = (float)(i * 23 % 31) / 15 - 1;
  for (int i = 0; i < HEADS * ROWS * COLUMNS; i++) g[i] = (float)(i * 41 % 37) / 18 - 1;
  size_t bytes[3];
  for (int run = 0; run < 3; run++) {
    /* Exact; both sides whole and packed; one side exact. */
    static const wtacrs_budget LEFT[] = {WTACRS_BUDGET_EXACT, WTACRS_BUDGET_FRACTION, WTACRS_BUDGET_EXACT};
    static const wtacrs_budget RIGHT[] = {WTACRS_BUDGET_EXACT, WTACRS_BUDGET_FRACTION, WTACRS_BUDGET_FRACTION};
    wtacrs_tensor_mul *product;
    wtacrs_tensor_mul_plan *plan;
    CHECK(wtacrs_tensor_mul_create(&product));
    CHECK(wtacrs_tensor_mul_set_shape(product, 1, HEADS, ROWS, INNER, COLUMNS));
    CHECK(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, LEFT[run], 1));
    CHECK(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, RIGHT[run], 1));
    CHECK(wtacrs_tensor_mul_set_packing(product, WTACRS_PACKING_BITS8));
    CHECK(wtacrs_tensor_mul_plan_create(context, product, &plan));
    CHECK(wtacrs_tensor_mul_destroy(product));
    const wtacrs_tensor_mul_plan_info info = product_info_of(plan);
    bytes[run] = info.saved_bytes;
    void *saved = aligned(info.saved_bytes), *scratch = aligned(info.backward_scratch_bytes);
    CHECK(wtacrs_tensor_mul_plan_forward(plan, a, b, 9, 0, NULL, saved, info.saved_bytes, NULL, 0, NULL));
    CHECK(wtacrs_tensor_mul_plan_backward(plan, saved, info.saved_bytes, g, run ? da : full_a, run ? db : full_b, NULL,
                                          scratch, info.backward_scratch_bytes, NULL));
    if (run) {
      REQUIRE(info.draws >= ROWS);
      double left = distance(da, full_a, HEADS * ROWS * INNER), right = distance(db, full_b, HEADS * INNER * COLUMNS);
      REQUIRE(right > 1e-5 && right < 0.02 && (run == 1 ? left > 1e-5 && left < 0.02 : left < 1e-6));
    }
    CHECK(wtacrs_tensor_mul_plan_destroy(plan));
    free(saved), free(scratch);
  }
  /* A row of 24 elements has one group of 32: 8 words and a grid. */
  REQUIRE(bytes[1] == HEADS * (128 + rounded(COLUMNS * 4) + rounded(COLUMNS * 32) + rounded(ROWS * 4) + rounded(ROWS * 32)));
  REQUIRE(bytes[1] < bytes[2] && bytes[2] < bytes[0]);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  h = read_raw(argv[1], "h.raw", ELEMENTS), dz = read_raw(argv[1], "dz.raw", ELEMENTS);
  norms = aligned(TOKENS * sizeof(float));
  exact = aligned(WEIGHTS * sizeof(float)), dw = aligned(WEIGHTS * sizeof(float));
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, FEATURES, dz, FEATURES, norms, NULL));
  equipped whole = layer(WTACRS_PACKING_NATIVE, WTACRS_BUDGET_EXACT, 0, WTACRS_SOURCE_INPUT);
  CHECK(forward_pass(whole, h, FEATURES, 0, 0, NULL));
  CHECK(backward_pass(whole, dz, FEATURES, exact, FEATURES, NULL));
  discard(whole);

  sampled_rows(), all_rows(), predictors(), native_rows(), strides(), training(), batched();
  CHECK(wtacrs_context_destroy(context));
  free(h), free(dz), free(norms), free(exact), free(dw);
  return finish();
}
