/* A whole client of the CUDA path: a part of a recorded layer, whose rows lie 384 apart, on both devices.
 * Usage: cuda FOLDER, with h.raw and dz.raw (1024 x 384 floats) in it. The GPU is the emulator, so its memory is the
 * host's (WTACRS_CUDA_STANDIN=emulator). */
#include "check.h"

enum { ROWS = 1024, LEADING = 384, TOKENS = 300, IN = 72, OUT = 44, NARROW = 20, SEED = 42 };

static wtacrs_context *cpu, *gpu;
static float *h, *dz, *norms, *host_norms, *dw, *host_dw;

/* The same layer on a device. */
static equipped make(wtacrs_context *context, wtacrs_source source, size_t out, const uint64_t *further) {
  wtacrs_layer *layer = describe(TOKENS, IN, out, WTACRS_BUDGET_FRACTION, 0.3, source);
  CHECK(wtacrs_layer_set_further_offset(layer, further));
  return equip(freeze(context, layer));
}

static wtacrs_status forward(equipped on, const float *guess, const wtacrs_norm_predictor *predictor, uint64_t offset) {
  return forward_pass(on, h, LEADING, SEED, offset, SIZED(wtacrs_forward_options, .guess = guess, .predictor = predictor));
}

static wtacrs_status backward(equipped on, float *to, size_t out, int32_t accumulate, float *dz_norms, float *bias) {
  return backward_pass(
      on, dz, LEADING, to, out,
      SIZED(wtacrs_backward_options, .accumulate = accumulate, .dz_norms = dz_norms, .bias_gradient = bias));
}

static void row_norms(const wtacrs_context *context, size_t columns, const float *x, float *to) {
  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, columns, x, LEADING, to, NULL));
}

/* Indices and scales, in the host's memory. */
typedef struct {
  uint64_t kept, winners;
  uint32_t indices[TOKENS];
  double scales[TOKENS];
} selection;
#define ARRAYS(s) SELECTION((s).indices, (s).scales, TOKENS, &(s).kept, &(s).winners)

static selection saved_selection(equipped on) {
  selection s;
  CHECK(wtacrs_plan_saved_selection(on.plan, on.saved, on.info.saved_bytes, ARRAYS(s)));
  return s;
}

static int same(const selection *a, const selection *b) {
  return a->kept == b->kept && a->winners == b->winners && memcmp(a->indices, b->indices, a->kept * sizeof(uint32_t)) == 0 &&
         memcmp(a->scales, b->scales, a->kept * sizeof(double)) == 0;
}

static size_t common(const selection *a, const selection *b) {
  size_t both = 0;
  for (size_t i = 0, j = 0; i < a->kept && j < b->kept;) {
    both += a->indices[i] == b->indices[j];
    if (a->indices[i] <= b->indices[j]) i++;
    else j++;
  }
  return both;
}

/* What the CPU selects from norms that the GPU has taken: the same bits. */
static selection on_cpu(equipped host, const float *input_norms, const float *guess, uint64_t offset) {
  selection s;
  CHECK(wtacrs_plan_select(host.plan, input_norms, guess, SEED, offset, 0, ARRAYS(s), NULL, 0, NULL));
  return s;
}

/* dW from a selection by the CPU, from rows of its own. */
static void expected_dw(equipped host, selection *s, size_t out, float *to) {
  float *rows = aligned(s->kept * IN * sizeof(float));
  CHECK(wtacrs_plan_gather(host.plan, h, LEADING, ARRAYS(*s), rows, IN, NULL));
  CHECK(wtacrs_plan_weight_gradient(host.plan, rows, IN, ARRAYS(*s), dz, LEADING, to, out, 0, host.weight_gradient,
                                    host.info.weight_gradient_scratch_bytes, NULL));
  free(rows);
}

/* What does not depend on the device is equal; what does is as the header says. */
static void sizes(void) {
  equipped on = make(gpu, WTACRS_SOURCE_INPUT, OUT, NULL), host = make(cpu, WTACRS_SOURCE_INPUT, OUT, NULL);
  const wtacrs_plan_info g = on.info, c = host.info;
  REQUIRE(g.size == sizeof g && g.budget_rows == 90 && g.budget_rows == c.budget_rows && g.draws == c.draws);
  REQUIRE(g.exact_bytes == TOKENS * IN * sizeof(float) && g.exact_bytes == c.exact_bytes);
  REQUIRE(g.alignment == 256 && c.alignment == 64);
  REQUIRE(g.saved_bytes >= g.budget_rows * (IN * sizeof(float) + 12) && g.saved_bytes % g.alignment == 0);
  REQUIRE(g.forward_scratch_bytes > 0 && c.forward_scratch_bytes == 0);
  REQUIRE(g.estimate_scratch_bytes > g.saved_bytes && g.weight_gradient_scratch_bytes > 0);
  REQUIRE(g.saved_status_offset % 4 == 0 && g.saved_status_offset + 4 <= g.saved_bytes);
  REQUIRE(c.saved_status_offset == SIZE_MAX);
  discard(on), discard(host);
}

static void passes(void) {
  float *input_norms = aligned(TOKENS * sizeof(float)), *again = aligned(TOKENS * sizeof(float));
  row_norms(gpu, IN, h, input_norms), row_norms(cpu, IN, h, host_norms), row_norms(gpu, OUT, dz, norms);
  REQUIRE(distance(input_norms, host_norms, TOKENS) < 1e-6);

  const wtacrs_source sources[] = {WTACRS_SOURCE_INPUT, WTACRS_SOURCE_NORMS, WTACRS_SOURCE_CACHED};
  for (int i = 0; i < 3; i++) {
    const float *guess = sources[i] == WTACRS_SOURCE_INPUT ? NULL : norms;
    equipped on = make(gpu, sources[i], OUT, NULL), host = make(cpu, sources[i], OUT, NULL);
    for (uint64_t pass = 0; pass < 2; pass++) {
      const uint64_t offset = pass * on.info.draws;
      CHECK(forward(on, guess, NULL, offset));
      selection found = saved_selection(on), expected = on_cpu(host, input_norms, guess, offset);
      REQUIRE(found.kept == on.info.budget_rows && found.winners < found.kept && same(&found, &expected));
      CHECK(backward(on, dw, OUT, 0, again, NULL));
      expected_dw(host, &expected, OUT, host_dw);
      REQUIRE(distance(dw, host_dw, IN * OUT) < 1e-6);
      REQUIRE(memcmp(again, norms, TOKENS * sizeof(float)) == 0);
    }
    CHECK(backward(on, dw, OUT, 1, NULL, NULL));
    for (int k = 0; k < IN * OUT; k++) host_dw[k] *= 2;
    REQUIRE(distance(dw, host_dw, IN * OUT) < 1e-6);

    /* A layer that shares H reads the same saved memory. */
    if (sources[i] == WTACRS_SOURCE_INPUT) {
      equipped other = make(gpu, sources[i], NARROW, NULL), host_other = make(cpu, sources[i], NARROW, NULL);
      selection shared = saved_selection(on);
      CHECK(wtacrs_plan_backward(other.plan, on.saved, on.info.saved_bytes, dz, LEADING, dw, NARROW, NULL, other.backward,
                                 other.info.backward_scratch_bytes, NULL));
      expected_dw(host_other, &shared, NARROW, host_dw);
      REQUIRE(distance(dw, host_dw, IN * NARROW) < 1e-6);
      discard(other), discard(host_other);
    }
    discard(on), discard(host);
  }
  free(input_norms), free(again);
}

static void in_one_call(void) {
  equipped on = make(gpu, WTACRS_SOURCE_NORMS, OUT, NULL);
  CHECK(forward(on, norms, NULL, 7));
  CHECK(backward(on, host_dw, OUT, 0, NULL, NULL));
  CHECK(wtacrs_plan_estimate(on.plan, h, LEADING, dz, LEADING, SEED, 7, dw, OUT, on.estimate, on.info.estimate_scratch_bytes,
                             NULL));
  REQUIRE(memcmp(dw, host_dw, IN * OUT * sizeof(float)) == 0);
  discard(on);
}

static void steps(void) {
  equipped on = make(gpu, WTACRS_SOURCE_NORMS, OUT, NULL);
  const size_t budget = on.info.budget_rows;
  float *input_norms = aligned(TOKENS * sizeof(float)), *rows = aligned(budget * IN * sizeof(float));
  uint32_t *indices = aligned(budget * sizeof(uint32_t));
  double *scales = aligned(budget * sizeof(double));
  uint64_t *kept = aligned(sizeof(uint64_t)), *winners = aligned(sizeof(uint64_t));
  const wtacrs_selection *arrays = SELECTION(indices, scales, budget, kept, winners);
#define SELECT(item) \
  wtacrs_plan_select(on.plan, input_norms, norms, SEED, 0, item, arrays, on.forward, on.info.forward_scratch_bytes, NULL)
  row_norms(gpu, IN, h, input_norms);
  CHECK(SELECT(0));
  CHECK(forward(on, norms, NULL, 0));
  selection expected = saved_selection(on);
  REQUIRE(*kept == expected.kept && memcmp(indices, expected.indices, *kept * sizeof(uint32_t)) == 0);
  REQUIRE(*winners == expected.winners && memcmp(scales, expected.scales, *kept * sizeof(double)) == 0);

  /* The weights behind it, as the CPU makes them. */
  equipped host = make(cpu, WTACRS_SOURCE_NORMS, OUT, NULL);
  double *weights = aligned(TOKENS * sizeof(double)), host_weights[TOKENS];
  CHECK(wtacrs_plan_weights(on.plan, input_norms, norms, weights, NULL));
  CHECK(wtacrs_plan_weights(host.plan, input_norms, norms, host_weights, NULL));
  REQUIRE(memcmp(weights, host_weights, TOKENS * sizeof(double)) == 0);
  free(weights), discard(host);
  CHECK(wtacrs_plan_gather(on.plan, h, LEADING, arrays, rows, IN, NULL));
  REQUIRE(memcmp(rows + 5 * IN, h + (size_t)indices[5] * LEADING, IN * sizeof(float)) == 0);
  CHECK(wtacrs_plan_weight_gradient(on.plan, rows, IN, arrays, dz, LEADING, dw, OUT, 0, on.weight_gradient,
                                    on.info.weight_gradient_scratch_bytes, NULL));
  CHECK(backward(on, host_dw, OUT, 0, NULL, NULL));
  REQUIRE(distance(dw, host_dw, IN * OUT) < 1e-6);

  /* Another item of a batch draws otherwise. */
  CHECK(SELECT(1));
  REQUIRE(memcmp(indices, expected.indices, *kept * sizeof(uint32_t)) != 0);

  /* A norm that is not finite: the upper word names it, and nothing is kept. */
  input_norms[17] = NAN;
  CHECK(SELECT(0));
  REQUIRE(*kept == (uint64_t)18 << 32);
  free(input_norms), free(rows), free(indices), free(scales), free(kept), free(winners), discard(on);
}

/* Joint norms of two layers that share H: the same columns on both devices. */
static void joint_norms(void) {
  float *layers = aligned(2 * TOKENS * sizeof(float)), *joint = aligned(TOKENS * sizeof(float));
  float host_joint[TOKENS], expected[TOKENS];
  memcpy(layers, norms, TOKENS * sizeof(float)), memcpy(layers + TOKENS, host_norms, TOKENS * sizeof(float));
  for (int t = 0; t < TOKENS; t++) expected[t] = hypotf(norms[t], host_norms[t]);
#define JOINT(context, to) \
  wtacrs_context_norms(context, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, 2, TOKENS, layers, TOKENS, to, NULL)
  CHECK(JOINT(gpu, joint));
  CHECK(JOINT(cpu, host_joint));
  REQUIRE(distance(joint, expected, TOKENS) < 1e-6 && distance(host_joint, expected, TOKENS) < 1e-6);
  free(layers), free(joint);
}

static void tensors(void) {
  equipped on = make(gpu, WTACRS_SOURCE_INPUT, OUT, NULL);
  int64_t h_shape[2] = {TOKENS, IN}, dz_shape[2] = {TOKENS, OUT}, dw_shape[2] = {IN, OUT}, apart[2] = {LEADING, 1};
  const wtacrs_dltensor h_dl = {h - 4, {2, 0}, 2, {2, 32, 1}, h_shape, apart, 16};
  const wtacrs_dltensor dz_dl = {dz, {2, 0}, 2, {2, 32, 1}, dz_shape, apart, 0};
  const wtacrs_dltensor dw_dl = {dw, {2, 0}, 2, {2, 32, 1}, dw_shape, NULL, 0};
  CHECK(wtacrs_plan_forward_dl(on.plan, &h_dl, SEED, 0, NULL, on.saved, on.info.saved_bytes, on.forward,
                               on.info.forward_scratch_bytes, NULL));
  CHECK(wtacrs_plan_backward_dl(on.plan, on.saved, on.info.saved_bytes, &dz_dl, &dw_dl, NULL, on.backward,
                                on.info.backward_scratch_bytes, NULL));
  CHECK(forward(on, NULL, NULL, 0));
  CHECK(backward(on, host_dw, OUT, 0, NULL, NULL));
  REQUIRE(memcmp(dw, host_dw, IN * OUT * sizeof(float)) == 0);
  CHECK(wtacrs_context_norms_dl(gpu, WTACRS_AXIS_ROWS, &dz_dl, host_norms, TOKENS, NULL));
  REQUIRE(memcmp(norms, host_norms, TOKENS * sizeof(float)) == 0);
  discard(on);
}

/* A number that is added to the offset when the kernels run, on both devices. */
static void offsets(void) {
  uint64_t *further = aligned(sizeof(uint64_t));
  wtacrs_context *contexts[2] = {gpu, cpu};
  for (int i = 0; i < 2; i++) {
    equipped on = make(contexts[i], WTACRS_SOURCE_NORMS, OUT, further);
    *further = 1000;
    CHECK(forward(on, norms, NULL, 5));
    selection later = saved_selection(on);
    *further = 0;
    CHECK(forward(on, norms, NULL, 5));
    selection first = saved_selection(on);
    CHECK(forward(on, norms, NULL, 1005));
    selection expected = saved_selection(on);
    REQUIRE(same(&later, &expected) && !same(&later, &first));
    discard(on);
  }
  free(further);
}

/* The exact sum of dZ's rows beside their norms, written and added to, with and without norms. */
static void bias_gradient(void) {
  equipped on = make(gpu, WTACRS_SOURCE_INPUT, OUT, NULL), host = make(cpu, WTACRS_SOURCE_INPUT, OUT, NULL);
  float *bias = aligned(OUT * sizeof(float)), *alone = aligned(OUT * sizeof(float)), host_bias[OUT];
  float *again = aligned(TOKENS * sizeof(float));
  CHECK(forward(on, NULL, NULL, 0));
  CHECK(forward(host, NULL, NULL, 0));
  CHECK(backward(host, host_dw, OUT, 0, NULL, host_bias));
  CHECK(backward(on, host_dw, OUT, 0, NULL, NULL));
  CHECK(backward(on, dw, OUT, 0, again, bias));
  REQUIRE(distance(bias, host_bias, OUT) < 1e-6 && distance(again, norms, TOKENS) < 1e-6);
  REQUIRE(memcmp(dw, host_dw, IN * OUT * sizeof(float)) == 0);
  CHECK(backward(on, dw, OUT, 0, NULL, alone));
  REQUIRE(memcmp(alone, bias, OUT * sizeof(float)) == 0);
  CHECK(backward(on, dw, OUT, 1, NULL, alone));
  for (int k = 0; k < OUT; k++) REQUIRE(alone[k] == 2 * bias[k]);
  free(bias), free(alone), free(again), discard(on), discard(host);
}

/* Passes of a layer of which a size is zero: what a call would read or write may be NULL, and what must become zero does. */
typedef struct {
  size_t tokens, in, out;
  const float *h, *dz;
} shape;

static selection passes_of_zero_sizes(equipped on, shape of, float *to, float *sum, float *dz_norms) {
  memset(on.saved, 0xff, on.info.saved_bytes);
  CHECK(forward_pass(on, of.h, of.in, SEED, 0, NULL));
  const size_t weights = of.in * of.out;
  float *given = weights ? to : NULL;
  for (size_t j = 0; j < weights; j++) to[j] = 5;
  for (size_t j = 0; j < of.out; j++) sum[j] = 5;
  for (size_t j = 0; j < of.tokens; j++) dz_norms[j] = 5;
  for (int32_t accumulate = 1; accumulate >= 0; accumulate--) {
    CHECK(backward_pass(on, of.dz, of.out, given, of.out,
                        SIZED(wtacrs_backward_options, .accumulate = accumulate, .dz_norms = of.tokens ? dz_norms : NULL,
                              .bias_gradient = of.out ? sum : NULL)));
    for (size_t j = 0; j < weights; j++) REQUIRE(to[j] == (accumulate ? 5 : 0));
    if (!of.tokens)
      for (size_t j = 0; j < of.out; j++) REQUIRE(sum[j] == (accumulate ? 5 : 0));
    if (!of.out)
      for (size_t j = 0; j < of.tokens; j++) REQUIRE(dz_norms[j] == 0);
  }
  for (size_t j = 0; j < weights; j++) to[j] = 5;
  CHECK(backward_pass(on, of.dz, of.out, given, of.out, NULL));
  for (size_t j = 0; j < weights; j++) REQUIRE(to[j] == 0), to[j] = 5;
  CHECK(wtacrs_plan_estimate(on.plan, of.h, of.in, of.dz, of.out, SEED, 0, given, of.out, on.estimate,
                             on.info.estimate_scratch_bytes, NULL));
  for (size_t j = 0; j < weights; j++) REQUIRE(to[j] == 0);
  return saved_selection(on);
}

static void steps_of_zero_sizes(equipped on, shape of, const selection *expected) {
  const size_t tokens = of.tokens, in = of.in, out = of.out;
  uint32_t *indices = tokens ? aligned(tokens * sizeof(uint32_t)) : NULL;
  double *scales = tokens ? aligned(tokens * sizeof(double)) : NULL;
  float *input_norms = tokens ? aligned(tokens * sizeof(float)) : NULL,
        *rows = of.h ? aligned(tokens * in * sizeof(float)) : NULL;
  uint64_t *kept = aligned(sizeof(uint64_t)), *winners = aligned(sizeof(uint64_t));
  const wtacrs_selection *arrays = SELECTION(indices, scales, tokens, kept, winners);
  CHECK(wtacrs_context_norms(gpu, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, tokens, in, of.h, in, input_norms, NULL));
  if (!in)
    for (size_t j = 0; j < tokens; j++) REQUIRE(input_norms[j] == 0);
  CHECK(wtacrs_plan_weights(on.plan, input_norms, NULL, scales, NULL));
  *kept = *winners = 77;
  CHECK(wtacrs_plan_select(on.plan, input_norms, NULL, SEED, 0, 0, arrays, on.forward, on.info.forward_scratch_bytes, NULL));
  REQUIRE(*kept == expected->kept && *winners == expected->winners);
  CHECK(wtacrs_plan_gather(on.plan, of.h, in, arrays, rows, in, NULL));
  for (size_t j = 0; j < in * out; j++) dw[j] = 5;
  CHECK(wtacrs_plan_weight_gradient(on.plan, rows, in, arrays, of.dz, out, in && out ? dw : NULL, out, 0, on.weight_gradient,
                                    on.info.weight_gradient_scratch_bytes, NULL));
  for (size_t j = 0; j < in * out; j++) REQUIRE(dw[j] == 0);
  free(indices), free(scales), free(input_norms), free(rows), free(kept), free(winners);
}

static void zero_sizes(void) {
  const shape shapes[] = {{0, IN, OUT, NULL, NULL}, {0, 0, 0, NULL, NULL}, {30, 0, OUT, NULL, dz}, {30, IN, 0, h, NULL},
                          {30, 0, 0, NULL, NULL}};
  float *dz_norms = aligned(30 * sizeof(float)), *bias = aligned(OUT * sizeof(float)), host_bias[OUT];
  for (int i = 0; i < 5; i++) {
    const shape of = shapes[i];
    equipped sides[2];
    wtacrs_context *contexts[2] = {gpu, cpu};
    for (int k = 0; k < 2; k++)
      sides[k] =
          equip(freeze(contexts[k], describe(of.tokens, of.in, of.out, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_INPUT)));
    const selection found = passes_of_zero_sizes(sides[0], of, dw, bias, dz_norms);
    const selection expected = passes_of_zero_sizes(sides[1], of, host_dw, host_bias, dz_norms);
    /* Norms of no elements are the same on both devices, those of some may differ in the last bit. */
    REQUIRE(found.kept == expected.kept && found.winners == expected.winners && (of.tokens || !found.kept));
    REQUIRE(memcmp(found.indices, expected.indices, found.kept * sizeof(uint32_t)) == 0);
    REQUIRE(of.in || same(&found, &expected));
    if (of.dz) REQUIRE(distance(bias, host_bias, of.out) < 1e-6);

    equipped on = sides[0];
    steps_of_zero_sizes(on, of, &found);
    if (of.in) {
      wtacrs_norm_predictor *learning;
      CHECK(wtacrs_norm_predictor_create(gpu, of.in, NULL, &learning));
      for (size_t j = 0; j < of.tokens; j++) dz_norms[j] = 1;
      CHECK(wtacrs_norm_predictor_update(learning, on.plan, on.saved, on.info.saved_bytes, of.tokens ? dz_norms : NULL, NULL,
                                         NULL));
      uint32_t outcome, row;
      CHECK(wtacrs_norm_predictor_outcome(learning, &outcome, &row));
      CHECK(wtacrs_norm_predictor_destroy(learning));
    }
    discard(sides[0]), discard(sides[1]);
  }
  float norm = 5;
  CHECK(wtacrs_context_norms(gpu, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, 0, 1, NULL, 1, &norm, NULL));
  REQUIRE(norm == 0);
  CHECK(wtacrs_context_norms(gpu, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, 3, 0, NULL, 0, NULL, NULL));
  int64_t none[2] = {0, IN}, narrow[2] = {1, 0};
  wtacrs_dltensor empty = {NULL, {2, 0}, 2, {2, 32, 1}, none, NULL, 0};
  CHECK(wtacrs_context_norms_dl(gpu, WTACRS_AXIS_ROWS, &empty, NULL, 0, NULL));
  norm = 5, empty.shape = narrow;
  CHECK(wtacrs_context_norms_dl(gpu, WTACRS_AXIS_ROWS, &empty, &norm, 1, NULL));
  REQUIRE(norm == 0);
  free(dz_norms), free(bias);
}

/* The word that a forward pass leaves: 0, or 1 + the first row that is not finite. */
static uint32_t saved_status(equipped on) {
  return *(const uint32_t *)shifted(on.saved, on.info.saved_status_offset);
}

/* A row that is not finite: the saved status names it, and dW is zero. */
static void not_finite(void) {
  equipped on = make(gpu, WTACRS_SOURCE_INPUT, OUT, NULL);
  CHECK(forward(on, NULL, NULL, 0));
  REQUIRE(saved_status(on) == 0);
  float kept = h[123 * LEADING + 3];
  h[123 * LEADING + 3] = INFINITY;
  CHECK(forward(on, NULL, NULL, 0));
  REQUIRE(saved_status(on) == 124);
  uint64_t count;
  EXPECT_WORDS(INVALID_WEIGHTS, "row 123 of H",
               wtacrs_plan_saved_selection(on.plan, on.saved, on.info.saved_bytes, SIZED(wtacrs_selection, .kept = &count)));
  CHECK(backward(on, dw, OUT, 0, NULL, NULL));
  for (int i = 0; i < IN * OUT; i++) REQUIRE(dw[i] == 0);
  h[123 * LEADING + 3] = kept;
  discard(on);
}

static unsigned char *saved_predictor(const wtacrs_norm_predictor *predictor, size_t *count) {
  CHECK(wtacrs_norm_predictor_save(predictor, NULL, 0, count));
  unsigned char *bytes = aligned(*count);
  CHECK(wtacrs_norm_predictor_save(predictor, bytes, *count, count));
  return bytes;
}

static int are_equal(const wtacrs_norm_predictor *a, const wtacrs_norm_predictor *b) {
  size_t of_a, of_b;
  unsigned char *bytes = saved_predictor(a, &of_a), *others = saved_predictor(b, &of_b);
  int equal = of_a == of_b && memcmp(bytes, others, of_a) == 0;
  free(bytes), free(others);
  return equal;
}

static wtacrs_norm_predictor *reloaded(const wtacrs_norm_predictor *predictor, wtacrs_context *to) {
  size_t count;
  wtacrs_norm_predictor *loaded;
  unsigned char *bytes = saved_predictor(predictor, &count);
  CHECK(wtacrs_norm_predictor_load(to, bytes, count, &loaded));
  free(bytes);
  return loaded;
}

static int has_outcome(const wtacrs_norm_predictor *predictor, uint32_t outcome, uint32_t row) {
  uint32_t found[2] = {9, 9};
  CHECK(wtacrs_norm_predictor_outcome(predictor, &found[0], &found[1]));
  return found[0] == outcome && found[1] == row;
}

static wtacrs_status update(wtacrs_norm_predictor *predictor, equipped on, const float *cached) {
  return wtacrs_norm_predictor_update(predictor, on.plan, on.saved, on.info.saved_bytes, norms, cached, NULL);
}

static wtacrs_status statistics(const wtacrs_norm_predictor *predictor, equipped on, const float *cached, double *sums) {
  size_t count;
  CHECK(wtacrs_norm_predictor_statistics_count(predictor, &count));
  return wtacrs_norm_predictor_statistics(predictor, on.plan, on.saved, on.info.saved_bytes, norms, cached, sums, count,
                                          NULL);
}

static void predictors(void) {
  equipped on = make(gpu, WTACRS_SOURCE_PREDICTED, OUT, NULL), host = make(cpu, WTACRS_SOURCE_PREDICTED, OUT, NULL);
  wtacrs_norm_predictor *ours, *rank, *theirs;
  CHECK(wtacrs_norm_predictor_create(gpu, IN, NULL, &ours));
  CHECK(wtacrs_norm_predictor_create(gpu, IN, NULL, &rank));
  CHECK(wtacrs_norm_predictor_create(cpu, IN, NULL, &theirs));
  REQUIRE(has_outcome(ours, 1, 0) && has_outcome(theirs, 1, 0));
  size_t count;
  CHECK(wtacrs_norm_predictor_statistics_count(ours, &count));
  double *sums = aligned(count * sizeof(double));
  for (uint64_t step = 0; step < 3; step++) {
    CHECK(forward(on, NULL, ours, step * TOKENS));
    CHECK(backward(on, dw, OUT, 0, norms, NULL));
    CHECK(update(ours, on, NULL));
    REQUIRE(has_outcome(ours, 0, 0));
    /* By way of sums the same bits. */
    CHECK(statistics(rank, on, NULL, sums));
    CHECK(wtacrs_norm_predictor_apply(rank, sums, count, NULL));
    /* And the CPU's predictor learns the same from the same rows. */
    CHECK(forward(host, NULL, theirs, step * TOKENS));
    CHECK(update(theirs, host, NULL));
    REQUIRE(has_outcome(theirs, 0, 0));
  }
  REQUIRE(are_equal(ours, rank));

  /* Saved on the GPU, loaded on either device: all select alike. */
  wtacrs_norm_predictor *copy = reloaded(ours, cpu), *back = reloaded(ours, gpu);
  REQUIRE(are_equal(ours, back));
  CHECK(forward(on, NULL, ours, 5000));
  selection found = saved_selection(on);
  CHECK(forward(on, NULL, back, 5000));
  selection again = saved_selection(on);
  CHECK(forward(host, NULL, copy, 5000));
  selection loaded = saved_selection(host);
  CHECK(forward(host, NULL, theirs, 5000));
  selection learned = saved_selection(host);
  REQUIRE(same(&found, &again));
  printf("of %llu rows the CPU keeps %zu with the GPU's predictor, %zu with its own\n", (unsigned long long)found.kept,
         common(&found, &loaded), common(&found, &learned));
  REQUIRE(common(&found, &loaded) >= found.kept - 2 && common(&found, &learned) >= found.kept - 2);

  /* A norm that is not finite changes nothing, and is reported. */
  CHECK(forward(on, NULL, ours, 5000));
  norms[found.indices[4]] = NAN;
  CHECK(update(ours, on, NULL));
  REQUIRE(has_outcome(ours, 3, 5) && are_equal(ours, back));
  row_norms(gpu, OUT, dz, norms);

  wtacrs_norm_predictor *all[] = {ours, rank, theirs, copy, back};
  for (int i = 0; i < 5; i++) CHECK(wtacrs_norm_predictor_destroy(all[i]));
  free(sums), discard(on), discard(host);
}

/* Cached norms beside a predictor, which learns how far to trust them: the same code on both devices, alike after each
 * step. Every third norm is unknown, the others are stale. */
static void cached_beside_predicted(void) {
  equipped on = make(gpu, WTACRS_SOURCE_PREDICTED, OUT, NULL), host = make(cpu, WTACRS_SOURCE_PREDICTED, OUT, NULL);
  wtacrs_norm_predictor *ours, *rank, *theirs, *without;
  wtacrs_norm_predictor **made[] = {&ours, &rank, &without};
  for (int i = 0; i < 3; i++) CHECK(wtacrs_norm_predictor_create(gpu, IN, NULL, made[i]));
  CHECK(wtacrs_norm_predictor_create(cpu, IN, NULL, &theirs));
  size_t count;
  CHECK(wtacrs_norm_predictor_statistics_count(ours, &count));
  double *sums = aligned(count * sizeof(double)), *host_sums = aligned(count * sizeof(double));
  float *stale = aligned(TOKENS * sizeof(float));
  for (int t = 0; t < TOKENS; t++) stale[t] = t % 3 == 0 ? -1 : norms[t] * (1 + (float)(t % 7) / 10);
  for (uint64_t step = 0; step < 4; step++) {
    CHECK(forward(on, stale, ours, step * TOKENS));
    CHECK(backward(on, dw, OUT, 0, norms, NULL));
    CHECK(update(ours, on, stale));
    CHECK(update(without, on, NULL));
    REQUIRE(has_outcome(ours, 0, 0));
    CHECK(statistics(rank, on, stale, sums));
    CHECK(wtacrs_norm_predictor_apply(rank, sums, count, NULL));
    CHECK(forward(host, stale, theirs, step * TOKENS));
    CHECK(statistics(theirs, host, stale, host_sums));
    CHECK(update(theirs, host, stale));
    selection found = saved_selection(on), expected = saved_selection(host);
    REQUIRE(common(&found, &expected) >= found.kept - 2);
    REQUIRE(!same(&found, &expected) || memcmp(sums, host_sums, 4 * sizeof(double)) == 0);
  }
  REQUIRE(are_equal(ours, rank) && !are_equal(ours, without));

  /* What was learned moves guesses: the CPU's copy selects alike, and without the norms otherwise. */
  wtacrs_norm_predictor *copy = reloaded(ours, cpu), *before = reloaded(ours, gpu);
  CHECK(forward(on, stale, ours, 9000));
  selection found = saved_selection(on);
  CHECK(forward(host, stale, copy, 9000));
  selection expected = saved_selection(host);
  CHECK(forward(on, NULL, ours, 9000));
  selection alone = saved_selection(on);
  printf("beside cached norms the CPU keeps %zu of %llu rows, without them %zu are kept\n", common(&found, &expected),
         (unsigned long long)found.kept, common(&found, &alone));
  REQUIRE(common(&found, &expected) >= found.kept - 2 && common(&found, &alone) < found.kept - 2);

  /* A cached norm that is not finite: the saved status names the row, and the predictor's outcome its place among the kept.
   */
  float known = stale[found.indices[2]];
  stale[found.indices[2]] = NAN;
  CHECK(forward(on, stale, ours, 9000));
  REQUIRE(saved_status(on) == found.indices[2] + 1);
  stale[found.indices[2]] = known;
  CHECK(forward(on, stale, ours, 9000));
  stale[found.indices[2]] = INFINITY;
  CHECK(update(ours, on, stale));
  REQUIRE(has_outcome(ours, 3, 3) && are_equal(ours, before));

  wtacrs_norm_predictor *all[] = {ours, rank, theirs, copy, before, without};
  for (int i = 0; i < 6; i++) CHECK(wtacrs_norm_predictor_destroy(all[i]));
  free(sums), free(host_sums), free(stale), discard(on), discard(host);
}

/* The cache on another context, or with other bounds; and that it is the same. */
static wtacrs_norm_cache* saved_and_loaded(const wtacrs_norm_cache* cache, wtacrs_context* to, size_t samples,
                                           size_t tokens) {
  wtacrs_norm_cache *loaded;
  size_t needed, again;
  CHECK(wtacrs_norm_cache_save(cache, NULL, 0, &needed));
  unsigned char *bytes = aligned(needed), *others = aligned(needed);
  CHECK(wtacrs_norm_cache_save(cache, bytes, needed, &again));
  REQUIRE(again == needed);
  CHECK(wtacrs_norm_cache_load(to, samples, tokens, bytes, needed, &loaded));
  CHECK(wtacrs_norm_cache_save(loaded, others, needed, &again));
  REQUIRE(again == needed && memcmp(bytes, others, needed) == 0);
  free(bytes), free(others);
  return loaded;
}

enum { SAMPLES = 6, ROW = 50 };
static const uint64_t batch[SAMPLES] = {7, 0, 99, 3, 42, 8}, batch_tokens[SAMPLES] = {50, 31, 1, 0, 44, 17};

/* One training code for both devices: a batch of six samples, padded to rows of fifty tokens, then without padding. */
static wtacrs_norm_cache* cache_of_steps(wtacrs_context* context, const uint64_t* ids, const uint64_t* lengths,
                                         float* learned) {
  wtacrs_norm_cache *cache;
  equipped on = make(context, WTACRS_SOURCE_CACHED, OUT, NULL);
  float *guess = aligned(TOKENS * sizeof(float));
  CHECK(wtacrs_norm_cache_create(context, 100, 60, &cache));
  CHECK(wtacrs_norm_cache_fetch(cache, ids, lengths, SAMPLES, ROW, guess, TOKENS, NULL));
  for (int t = 0; t < TOKENS; t++) REQUIRE(guess[t] == -1);
  CHECK(forward(on, guess, NULL, 0));
  CHECK(backward(on, dw, OUT, 0, learned, NULL));
  CHECK(wtacrs_norm_cache_store(cache, ids, lengths, SAMPLES, ROW, learned, TOKENS, NULL));
  CHECK(wtacrs_norm_cache_fetch(cache, ids, lengths, SAMPLES, ROW, guess, TOKENS, NULL));
  for (int t = 0; t < TOKENS; t++) REQUIRE(guess[t] == ((uint64_t)t % ROW < batch_tokens[t / ROW] ? learned[t] : -1));
  CHECK(forward(on, guess, NULL, 1));

  /* Without padding, in another order, and one that is unknown. */
  uint64_t *mixed = aligned(3 * sizeof(uint64_t)), *of_mixed = aligned(3 * sizeof(uint64_t));
  mixed[0] = 8, mixed[1] = 1, mixed[2] = 0, of_mixed[0] = 17, of_mixed[1] = 2, of_mixed[2] = 31;
  CHECK(wtacrs_norm_cache_fetch(cache, mixed, of_mixed, 3, 0, guess, 55, NULL));
  REQUIRE(memcmp(guess, learned + 5 * ROW, 17 * sizeof(float)) == 0 && guess[17] == -1 && guess[18] == -1);
  REQUIRE(memcmp(guess + 19, learned + ROW, 31 * sizeof(float)) == 0);
  for (int t = 50; t < 55; t++) REQUIRE(guess[t] == -1);
  /* Of a sample twice in a batch the last counts; rows that are full need no lengths. */
  mixed[1] = 8;
  CHECK(wtacrs_norm_cache_store(cache, mixed, NULL, 2, 17, learned, 34, NULL));
  CHECK(wtacrs_norm_cache_fetch(cache, mixed, of_mixed, 1, 0, guess, 17, NULL));
  REQUIRE(memcmp(guess, learned + 17, 17 * sizeof(float)) == 0);
  mixed[0] = 0, mixed[1] = 1000;
  CHECK(wtacrs_norm_cache_forget(cache, mixed, 2, NULL));
  CHECK(wtacrs_norm_cache_fetch(cache, mixed, NULL, 1, 31, guess, 31, NULL));
  for (int t = 0; t < 31; t++) REQUIRE(guess[t] == -1);
  free(mixed), free(of_mixed), free(guess), discard(on);
  return cache;
}

/* What a GPU has left out is reported, the first and once. */
static void cache_faults(wtacrs_norm_cache *cache, uint64_t *ids, uint64_t *lengths, const float *learned) {
  float *guess = aligned(TOKENS * sizeof(float));
  uint32_t fault = 9;
  uint64_t sample = 9;
  CHECK(wtacrs_norm_cache_outcome(cache, &fault, &sample));
  REQUIRE(fault == 0 && sample == 0);
  const struct {
    uint64_t id, length;
    float norm;
    uint32_t fault;
    int is_store;
  } wrong[] = {
      {100, 3, 1, 1, 0}, {UINT64_MAX, 3, 1, 1, 1}, {42, 61, 1, 2, 1}, {42, UINT64_MAX, 1, 2, 0},
      {42, 43, 1, 3, 0}, {42, 3, NAN, 4, 1},       {42, 3, -1, 4, 1},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    ids[0] = 8, lengths[0] = 17, ids[1] = wrong[i].id, lengths[1] = wrong[i].length, ids[2] = 1 << 20, lengths[2] = 0;
    memcpy(guess, learned, TOKENS * sizeof(float));
    guess[18] = wrong[i].norm;
    if (wrong[i].is_store) CHECK(wtacrs_norm_cache_store(cache, ids, lengths, 3, 0, guess, 90, NULL));
    else CHECK(wtacrs_norm_cache_fetch(cache, ids, lengths, 3, 0, guess, 90, NULL));
    if (!wrong[i].is_store) REQUIRE(guess[16] != -1 && guess[17] == -1 && guess[89] == -1 && guess[90] == learned[90]);
    CHECK(wtacrs_norm_cache_outcome(cache, &fault, &sample));
    REQUIRE(fault == wrong[i].fault && sample == wrong[i].id);
    CHECK(wtacrs_norm_cache_outcome(cache, &fault, NULL));
    REQUIRE(fault == 0);
  }
  ids[0] = 42, lengths[0] = 44;
  CHECK(wtacrs_norm_cache_fetch(cache, ids, lengths, 1, 0, guess, 44, NULL));
  REQUIRE(memcmp(guess, learned + 4 * ROW, 44 * sizeof(float)) == 0);
  free(guess);
}

static void caches(void) {
  uint64_t *ids = aligned(SAMPLES * sizeof(uint64_t)), *lengths = aligned(SAMPLES * sizeof(uint64_t));
  memcpy(ids, batch, sizeof batch), memcpy(lengths, batch_tokens, sizeof batch_tokens);
  float *ours = aligned(TOKENS * sizeof(float)), *theirs = aligned(TOKENS * sizeof(float));
  float *guess = aligned(TOKENS * sizeof(float));
  wtacrs_norm_cache *on_gpu = cache_of_steps(gpu, ids, lengths, ours), *on_host = cache_of_steps(cpu, ids, lengths, theirs);

  /* Saved on either device, loaded on either, on the CPU also without bounds. */
  wtacrs_norm_cache *to_cpu = saved_and_loaded(on_gpu, cpu, 100, 60), *to_gpu = saved_and_loaded(on_host, gpu, 5000, 60);
  wtacrs_norm_cache *round = saved_and_loaded(to_cpu, gpu, 100, 60),
                    *unbounded = saved_and_loaded(round, cpu, SIZE_MAX, SIZE_MAX);
  CHECK(wtacrs_norm_cache_fetch(unbounded, ids + 4, lengths + 4, 1, 0, guess, 44, NULL));
  REQUIRE(memcmp(guess, ours + 4 * ROW, 44 * sizeof(float)) == 0);
  CHECK(wtacrs_norm_cache_fetch(to_gpu, ids + 4, lengths + 4, 1, 0, guess, 44, NULL));
  REQUIRE(memcmp(guess, theirs + 4 * ROW, 44 * sizeof(float)) == 0);
  cache_faults(on_gpu, ids, lengths, ours);

  wtacrs_norm_cache *all[] = {on_gpu, on_host, to_cpu, to_gpu, round, unbounded};
  for (int i = 0; i < 6; i++) CHECK(wtacrs_norm_cache_destroy(all[i]));
  free(ids), free(lengths), free(ours), free(theirs), free(guess);
}

enum { BATCH = 2, HEADS = 2, QUERIES = 24, CHANNELS = 16, KEYS = 20, ITEMS = BATCH * HEADS };

static wtacrs_tensor_mul_plan *scores_plan(wtacrs_context *context, int left_is_exact) {
  wtacrs_tensor_mul *product;
  wtacrs_tensor_mul_plan *plan;
  CHECK(wtacrs_tensor_mul_create(&product));
  CHECK(wtacrs_tensor_mul_set_shape(product, BATCH, HEADS, QUERIES, CHANNELS, KEYS));
  CHECK(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, 9));
  CHECK(
      wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, left_is_exact ? WTACRS_BUDGET_EXACT : WTACRS_BUDGET_ROWS, 7));
  CHECK(wtacrs_tensor_mul_plan_create(context, product, &plan));
  CHECK(wtacrs_tensor_mul_destroy(product));
  return plan;
}

/* Attention's two products, of small integers, whose norms are the same on both devices to the bit. */
static void products(void) {
  static float a[ITEMS * QUERIES * CHANNELS], b[ITEMS * KEYS * CHANNELS], g[ITEMS * QUERIES * KEYS];
  static float da[2][ITEMS * QUERIES * CHANNELS], db[2][ITEMS * CHANNELS * KEYS];
  static float rows[2][ITEMS * QUERIES], columns[2][ITEMS * KEYS];
  for (int i = 0; i < ITEMS * QUERIES * CHANNELS; i++) a[i] = (float)((i * 37 + i / 16) % 9) - 4;
  for (int i = 0; i < ITEMS * KEYS * CHANNELS; i++) b[i] = (float)((i * 29 + i / 7) % 11) - 5;
  for (int i = 0; i < ITEMS * QUERIES * KEYS; i++) g[i] = (float)((i * 23 + i / 20) % 7) - 3;
  /* B is the transpose of keys x channels. */
  int64_t a_shape[4] = {BATCH, HEADS, QUERIES, CHANNELS}, b_shape[4] = {BATCH, HEADS, CHANNELS, KEYS};
  int64_t b_strides[4] = {HEADS * KEYS * CHANNELS, KEYS * CHANNELS, 1, CHANNELS}, g_shape[4] = {BATCH, HEADS, QUERIES, KEYS};
  for (int is_exact = 0; is_exact < 2; is_exact++) {
    for (int on = 0; on < 2; on++) {
      const int is_gpu = on == 0, type = is_gpu ? 2 : 1;
      wtacrs_tensor_mul_plan *plan = scores_plan(is_gpu ? gpu : cpu, is_exact);
      const wtacrs_tensor_mul_plan_info info = product_info_of(plan);
      REQUIRE(info.alignment == (is_gpu ? 256 : 64) && (info.forward_scratch_bytes > 0) == is_gpu);
      void *saved = aligned(info.saved_bytes), *forward = aligned(info.forward_scratch_bytes);
      void *backward = aligned(info.backward_scratch_bytes);
      const wtacrs_dltensor a_dl = {a, {type, 0}, 4, {2, 32, 1}, a_shape, NULL, 0};
      const wtacrs_dltensor b_dl = {b, {type, 0}, 4, {2, 32, 1}, b_shape, b_strides, 0};
      const wtacrs_dltensor g_dl = {g, {type, 0}, 4, {2, 32, 1}, g_shape, NULL, 0};
      const wtacrs_dltensor da_dl = {da[on], {type, 0}, 4, {2, 32, 1}, a_shape, NULL, 0};
      const wtacrs_dltensor db_dl = {db[on], {type, 0}, 4, {2, 32, 1}, b_shape, NULL, 0};
      for (int step = 0; step < 2; step++) {
        const wtacrs_tensor_mul_forward_options* guesses =
            SIZED(wtacrs_tensor_mul_forward_options, .row_guess = step ? rows[on] : NULL,
                  .column_guess = step ? columns[on] : NULL);
        CHECK(wtacrs_tensor_mul_plan_forward_dl(plan, &a_dl, &b_dl, 9, 0, guesses, saved, info.saved_bytes, forward,
                                                info.forward_scratch_bytes, NULL));
        CHECK(wtacrs_tensor_mul_plan_backward_dl(plan, saved, info.saved_bytes, &g_dl, &da_dl, &db_dl,
                                                 SIZED(wtacrs_tensor_mul_backward_options, .accumulate = step,
                                                       .row_norms = rows[on], .column_norms = columns[on]),
                                                 backward, info.backward_scratch_bytes, NULL));
      }
      if (is_gpu) {
        const uint32_t *left = shifted(saved, info.left_status_offset), *right = shifted(saved, info.right_status_offset);
        REQUIRE(left != right);
        for (int i = 0; i < ITEMS; i++) REQUIRE(left[i] == 0 && right[i] == 0);
        /* A row by row B has no kernel: dA sums over its columns. */
        EXPECT(UNSUPPORTED, wtacrs_tensor_mul_plan_forward(plan, a, b, 9, 0, NULL, saved, info.saved_bytes, forward,
                                                           info.forward_scratch_bytes, NULL));
      } else {
        REQUIRE(info.left_status_offset == SIZE_MAX && info.right_status_offset == SIZE_MAX);
      }
      CHECK(wtacrs_tensor_mul_plan_destroy(plan));
      free(saved), free(forward), free(backward);
    }
    REQUIRE(memcmp(rows[0], rows[1], sizeof rows[0]) == 0 && memcmp(columns[0], columns[1], sizeof columns[0]) == 0);
    REQUIRE(distance(da[0], da[1], ITEMS * QUERIES * CHANNELS) < 1e-6);
    REQUIRE(distance(db[0], db[1], ITEMS * CHANNELS * KEYS) < 1e-6);
  }
}

/* Operators save and compute the CPU's bits, in memory of exactly the sizes that were asked for. */
static void operators(void) {
  enum { LINES = 37, COLUMNS = 203, ELEMENTS = LINES * COLUMNS };
  float *x = aligned(ELEMENTS * sizeof(float)), *gate = aligned(ELEMENTS * sizeof(float));
  float *dy = aligned(ELEMENTS * sizeof(float)), *y[2], *dx[2], *dgate[2], *dweight[2], *weight = aligned(COLUMNS * sizeof(float));
  for (int i = 0; i < ELEMENTS; i++) {
    x[i] = (float)((i * 37 + i / 11) % 97) / 16 - 3, gate[i] = (float)((i * 29) % 53) / 16 - 1;
    dy[i] = (float)((i * 23 + i / 20) % 71) / 16 - 2;
  }
  for (int j = 0; j < COLUMNS; j++) weight[j] = (float)(j % 7) / 4;
  for (int on = 0; on < 2; on++) {
    y[on] = aligned(ELEMENTS * sizeof(float)), dx[on] = aligned(ELEMENTS * sizeof(float));
    dgate[on] = aligned(ELEMENTS * sizeof(float)), dweight[on] = aligned(COLUMNS * sizeof(float));
  }
  for (int operation = 0; operation < 8; operation++)
    for (int packing = 1; packing < 4; packing++) {
      const int gated = operation >= 2 && operation <= 4 && packing < 3, norm = operation >= 6;
      for (int on = 0; on < 2; on++) {
        wtacrs_operator *op;
        wtacrs_operator_plan *plan;
        CHECK(wtacrs_operator_create(&op));
        CHECK(wtacrs_operator_set_operation(op, (wtacrs_operation)operation, gated));
        CHECK(wtacrs_operator_set_shape(op, LINES, COLUMNS));
        CHECK(wtacrs_operator_set_packing(op, (wtacrs_packing)packing));
        CHECK(wtacrs_operator_set_dropout(op, 0.2));
        CHECK(wtacrs_operator_plan_create(on ? cpu : gpu, op, &plan));
        CHECK(wtacrs_operator_destroy(op));
        wtacrs_operator_plan_info info = {.size = sizeof info};
        CHECK(wtacrs_operator_plan_get_info(plan, &info));
        REQUIRE(info.draws == LINES * 51);
        void *saved = aligned(info.saved_bytes), *scratch = aligned(info.backward_scratch_bytes);
        CHECK(wtacrs_operator_plan_forward(plan,
                                           SIZED(wtacrs_operator_forward, .x = x, .gate = gated ? gate : NULL,
                                                 .weight = norm ? weight : NULL, .y = y[on]),
                                           5, 6, saved, info.saved_bytes, NULL));
        CHECK(wtacrs_operator_plan_backward(plan,
                                            SIZED(wtacrs_operator_backward, .weight = norm ? weight : NULL, .dy = dy,
                                                  .dx = dx[on], .dgate = gated ? dgate[on] : NULL,
                                                  .dweight = norm ? dweight[on] : NULL),
                                            saved, info.saved_bytes, scratch, info.backward_scratch_bytes, NULL));
        if (info.restores) CHECK(wtacrs_operator_plan_restore(plan, saved, info.saved_bytes, y[on], NULL));
        CHECK(wtacrs_operator_plan_destroy(plan));
        free(saved), free(scratch);
      }
      REQUIRE(memcmp(y[0], y[1], ELEMENTS * sizeof(float)) == 0);
      REQUIRE(distance(dx[0], dx[1], ELEMENTS) < 1e-6);
      REQUIRE(!gated || memcmp(dgate[0], dgate[1], ELEMENTS * sizeof(float)) == 0);
      REQUIRE(!norm || distance(dweight[0], dweight[1], COLUMNS) < 1e-6);
    }
  for (int on = 0; on < 2; on++) free(y[on]), free(dx[on]), free(dgate[on]), free(dweight[on]);
  free(x), free(gate), free(dy), free(weight);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  h = read_raw(argv[1], "h.raw", ROWS * LEADING), dz = read_raw(argv[1], "dz.raw", ROWS * LEADING);
  norms = aligned(TOKENS * sizeof(float)), host_norms = aligned(TOKENS * sizeof(float));
  dw = aligned(IN * OUT * sizeof(float)), host_dw = aligned(IN * OUT * sizeof(float));
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &cpu));
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CUDA, -1, NULL, &gpu));
  sizes(), passes(), in_one_call(), steps(), joint_norms(), tensors(), offsets(), bias_gradient(), zero_sizes(),
      not_finite();
  predictors(), cached_beside_predicted(), caches(), products(), operators();
  CHECK(wtacrs_context_destroy(cpu));
  CHECK(wtacrs_context_destroy(gpu));
  void *all[] = {h, dz, norms, host_norms, dw, host_dw};
  for (int i = 0; i < 6; i++) free(all[i]);
  return finish();
}
