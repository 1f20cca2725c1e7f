/* A whole client of the CUDA path: a part of a recorded layer, whose rows lie 384 apart, on both devices.
 * Usage: cuda FOLDER, with h.raw and dz.raw (1024 x 384 floats) in it. The GPU is the emulator, so its memory is the
 * host's (WTACRS_CUDA_STANDIN=emulator). */
#include "check.h"

enum { ROWS = 1024, LEADING = 384, TOKENS = 300, IN = 72, OUT = 44, NARROW = 20 };

static wtacrs_context *cpu, *gpu;
static float *h, *dz, *norms, *host_norms, *dw, *host_dw;
static size_t budget;

typedef struct {
  wtacrs_plan *plan;
  size_t saved_bytes, forward_bytes, backward_bytes;
  void *saved, *forward, *backward;
} side;

/* The same layer on a device. */
static side make(wtacrs_context *context, int32_t source, size_t out, const uint64_t *further) {
  wtacrs_layer *layer;
  side made;
  CHECK(wtacrs_layer_create(&layer));
  CHECK(wtacrs_layer_set_shape(layer, TOKENS, IN, out));
  CHECK(wtacrs_layer_set_budget_fraction(layer, 0.3));
  CHECK(wtacrs_layer_set_source(layer, source));
  CHECK(wtacrs_layer_set_further_offset(layer, further));
  CHECK(wtacrs_plan_create(context, layer, &made.plan));
  CHECK(wtacrs_layer_destroy(layer));
  CHECK(wtacrs_plan_saved_bytes(made.plan, &made.saved_bytes));
  CHECK(wtacrs_plan_forward_scratch_bytes(made.plan, &made.forward_bytes));
  CHECK(wtacrs_plan_backward_scratch_bytes(made.plan, &made.backward_bytes));
  made.saved = aligned(made.saved_bytes);
  made.forward = aligned(made.forward_bytes);
  made.backward = aligned(made.backward_bytes);
  return made;
}

static void end(side made) {
  CHECK(wtacrs_plan_destroy(made.plan));
  free(made.saved), free(made.forward), free(made.backward);
}

static wtacrs_status forward(side on, const float *guess, const wtacrs_norm_predictor *predictor, uint64_t offset) {
  return wtacrs_forward(on.plan, h, LEADING, guess, predictor, 42, offset, on.saved, on.saved_bytes, on.forward,
                        on.forward_bytes, NULL);
}

static wtacrs_status backward(side on, float *to, size_t out, int32_t accumulate, float *dz_norms) {
  return wtacrs_backward(on.plan, on.saved, on.saved_bytes, dz, LEADING, to, out, accumulate, dz_norms, NULL,
                         on.backward, on.backward_bytes, NULL);
}

/* Indices and scales that a forward pass has saved. */
typedef struct {
  uint64_t kept, winners;
  uint32_t indices[TOKENS];
  double scales[TOKENS];
} selection;

static selection saved_selection(side on) {
  selection s;
  CHECK(wtacrs_saved_selection(on.plan, on.saved, on.saved_bytes, s.indices, s.scales, TOKENS, &s.kept, &s.winners));
  return s;
}

static int same(const selection *a, const selection *b) {
  return a->kept == b->kept && a->winners == b->winners && memcmp(a->indices, b->indices, a->kept * sizeof(uint32_t)) == 0 &&
         memcmp(a->scales, b->scales, a->kept * sizeof(double)) == 0;
}

/* What the CPU selects from norms that the GPU has taken: the same bits. */
static selection on_cpu(side host, const float *input_norms, const float *guess, uint64_t offset) {
  selection s;
  CHECK(wtacrs_select(host.plan, input_norms, guess, 42, offset, 0, s.indices, s.scales, TOKENS, &s.kept, &s.winners,
                      NULL, 0, NULL));
  return s;
}

/* dW from a selection by the CPU, from rows of its own. */
static void expected_dw(side host, selection *s, size_t out, float *to) {
  float *rows = aligned(s->kept * IN * sizeof(float));
  CHECK(wtacrs_gather(host.plan, h, LEADING, s->indices, &s->kept, rows, IN, NULL));
  CHECK(wtacrs_weight_gradient(host.plan, rows, IN, s->indices, s->scales, &s->kept, dz, LEADING, to, out, 0,
                               host.backward, host.backward_bytes, NULL));
  free(rows);
}

static void passes(void) {
  float *input_norms = aligned(TOKENS * sizeof(float)), *again = aligned(TOKENS * sizeof(float));
  CHECK(wtacrs_row_norms(gpu, WTACRS_F32, TOKENS, IN, h, LEADING, input_norms, NULL));
  CHECK(wtacrs_row_norms(cpu, WTACRS_F32, TOKENS, IN, h, LEADING, host_norms, NULL));
  REQUIRE(distance(input_norms, host_norms, TOKENS) < 1e-6);
  CHECK(wtacrs_row_norms(gpu, WTACRS_F32, TOKENS, OUT, dz, LEADING, norms, NULL));

  const int32_t sources[] = {WTACRS_SOURCE_INPUT, WTACRS_SOURCE_NORMS, WTACRS_SOURCE_CACHED};
  for (int i = 0; i < 3; i++) {
    const float *guess = sources[i] == WTACRS_SOURCE_INPUT ? NULL : norms;
    side on = make(gpu, sources[i], OUT, NULL), host = make(cpu, sources[i], OUT, NULL);
    uint64_t draws, host_draws;
    CHECK(wtacrs_plan_draws(on.plan, &draws));
    CHECK(wtacrs_plan_draws(host.plan, &host_draws));
    CHECK(wtacrs_plan_budget(on.plan, &budget));
    REQUIRE(draws == host_draws && budget == 90);
    for (uint64_t pass = 0; pass < 2; pass++) {
      CHECK(forward(on, guess, NULL, pass * draws));
      selection found = saved_selection(on), expected = on_cpu(host, input_norms, guess, pass * draws);
      REQUIRE(found.kept == budget && found.winners < budget && same(&found, &expected));
      CHECK(backward(on, dw, OUT, 0, again));
      expected_dw(host, &expected, OUT, host_dw);
      REQUIRE(distance(dw, host_dw, IN * OUT) < 1e-6);
      REQUIRE(memcmp(again, norms, TOKENS * sizeof(float)) == 0);
    }
    CHECK(backward(on, dw, OUT, 1, NULL));
    for (int k = 0; k < IN * OUT; k++) host_dw[k] *= 2;
    REQUIRE(distance(dw, host_dw, IN * OUT) < 1e-6);

    /* A layer that shares H reads the same saved memory. */
    if (sources[i] == WTACRS_SOURCE_INPUT) {
      side other = make(gpu, sources[i], NARROW, NULL), host_other = make(cpu, sources[i], NARROW, NULL);
      selection shared = saved_selection(on);
      CHECK(wtacrs_backward(other.plan, on.saved, on.saved_bytes, dz, LEADING, dw, NARROW, 0, NULL, NULL, other.backward,
                            other.backward_bytes, NULL));
      expected_dw(host_other, &shared, NARROW, host_dw);
      REQUIRE(distance(dw, host_dw, IN * NARROW) < 1e-6);
      end(other), end(host_other);
    }
    end(on), end(host);
  }
  free(input_norms), free(again);
}

static void in_one_call(void) {
  side on = make(gpu, WTACRS_SOURCE_NORMS, OUT, NULL);
  size_t bytes;
  CHECK(wtacrs_plan_estimate_scratch_bytes(on.plan, &bytes));
  void *scratch = aligned(bytes);
  CHECK(forward(on, norms, NULL, 7));
  CHECK(backward(on, host_dw, OUT, 0, NULL));
  CHECK(wtacrs_estimate(on.plan, h, LEADING, dz, LEADING, 42, 7, dw, OUT, scratch, bytes, NULL));
  REQUIRE(memcmp(dw, host_dw, IN * OUT * sizeof(float)) == 0);
  free(scratch), end(on);
}

static void steps(void) {
  side on = make(gpu, WTACRS_SOURCE_NORMS, OUT, NULL);
  float *input_norms = aligned(TOKENS * sizeof(float)), *rows = aligned(budget * IN * sizeof(float));
  uint32_t *indices = aligned(budget * sizeof(uint32_t));
  double *scales = aligned(budget * sizeof(double));
  uint64_t *kept = aligned(sizeof(uint64_t)), *winners = aligned(sizeof(uint64_t));
  size_t bytes;
  CHECK(wtacrs_plan_weight_gradient_scratch_bytes(on.plan, &bytes));
  void *scratch = aligned(bytes);
  CHECK(wtacrs_row_norms(gpu, WTACRS_F32, TOKENS, IN, h, LEADING, input_norms, NULL));
  CHECK(wtacrs_select(on.plan, input_norms, norms, 42, 0, 0, indices, scales, budget, kept, winners,
                      on.forward, on.forward_bytes, NULL));
  CHECK(forward(on, norms, NULL, 0));
  selection expected = saved_selection(on);
  REQUIRE(*kept == expected.kept && memcmp(indices, expected.indices, *kept * sizeof(uint32_t)) == 0);
  REQUIRE(*winners == expected.winners && memcmp(scales, expected.scales, *kept * sizeof(double)) == 0);

  /* The weights behind it, as the CPU makes them. */
  side host = make(cpu, WTACRS_SOURCE_NORMS, OUT, NULL);
  double *weights = aligned(TOKENS * sizeof(double)), host_weights[TOKENS];
  CHECK(wtacrs_weights(on.plan, input_norms, norms, weights, NULL));
  CHECK(wtacrs_weights(host.plan, input_norms, norms, host_weights, NULL));
  REQUIRE(memcmp(weights, host_weights, TOKENS * sizeof(double)) == 0);
  free(weights), end(host);
  CHECK(wtacrs_gather(on.plan, h, LEADING, indices, kept, rows, IN, NULL));
  REQUIRE(memcmp(rows + 5 * IN, h + (size_t)indices[5] * LEADING, IN * sizeof(float)) == 0);
  CHECK(wtacrs_weight_gradient(on.plan, rows, IN, indices, scales, kept, dz, LEADING, dw, OUT, 0, scratch, bytes, NULL));
  CHECK(backward(on, host_dw, OUT, 0, NULL));
  REQUIRE(distance(dw, host_dw, IN * OUT) < 1e-6);

  /* Another item of a batch draws otherwise. */
  CHECK(wtacrs_select(on.plan, input_norms, norms, 42, 0, 1, indices, scales, budget, kept, NULL, on.forward,
                      on.forward_bytes, NULL));
  REQUIRE(memcmp(indices, expected.indices, *kept * sizeof(uint32_t)) != 0);

  /* A norm that is none: the upper word tells it, and nothing is kept. */
  input_norms[17] = NAN;
  CHECK(wtacrs_select(on.plan, input_norms, norms, 42, 0, 0, indices, scales, budget, kept, NULL, on.forward,
                      on.forward_bytes, NULL));
  REQUIRE(*kept == (uint64_t)18 << 32);

  /* Joint norms of two layers. */
  float *both = aligned(2 * TOKENS * sizeof(float));
  memcpy(both, norms, TOKENS * sizeof(float)), memcpy(both + TOKENS, host_norms, TOKENS * sizeof(float));
  CHECK(wtacrs_column_norms(gpu, WTACRS_F32, 2, TOKENS, both, TOKENS, input_norms, NULL));
  const float *layers[2] = {norms, host_norms};
  float joint[TOKENS], columns[TOKENS];
  CHECK(wtacrs_joint_norms(layers, 2, TOKENS, joint));
  CHECK(wtacrs_column_norms(cpu, WTACRS_F32, 2, TOKENS, both, TOKENS, columns, NULL));
  REQUIRE(distance(input_norms, joint, TOKENS) < 1e-6 && distance(columns, joint, TOKENS) < 1e-6);
  free(both), free(input_norms), free(rows), free(indices), free(scales), free(kept), free(winners);
  free(scratch), end(on);
}

static void tensors(void) {
  side on = make(gpu, WTACRS_SOURCE_INPUT, OUT, NULL);
  int64_t h_shape[2] = {TOKENS, IN}, dz_shape[2] = {TOKENS, OUT}, dw_shape[2] = {IN, OUT}, apart[2] = {LEADING, 1};
  wtacrs_dltensor h_dl = {h - 4, {2, 0}, 2, {2, 32, 1}, h_shape, apart, 16};
  wtacrs_dltensor dz_dl = {dz, {2, 0}, 2, {2, 32, 1}, dz_shape, apart, 0};
  wtacrs_dltensor dw_dl = {dw, {2, 0}, 2, {2, 32, 1}, dw_shape, NULL, 0};
  CHECK(wtacrs_forward_dl(on.plan, &h_dl, NULL, NULL, 42, 0, on.saved, on.saved_bytes, on.forward, on.forward_bytes, NULL));
  CHECK(wtacrs_backward_dl(on.plan, on.saved, on.saved_bytes, &dz_dl, &dw_dl, 0, NULL, NULL, on.backward,
                           on.backward_bytes, NULL));
  CHECK(forward(on, NULL, NULL, 0));
  CHECK(backward(on, host_dw, OUT, 0, NULL));
  REQUIRE(memcmp(dw, host_dw, IN * OUT * sizeof(float)) == 0);
  CHECK(wtacrs_row_norms_dl(gpu, &dz_dl, host_norms, TOKENS, NULL));
  REQUIRE(memcmp(norms, host_norms, TOKENS * sizeof(float)) == 0);
  end(on);
}

/* A number that is added to the offset when the kernels run, on both devices. */
static void offsets(void) {
  uint64_t *further = aligned(sizeof(uint64_t));
  wtacrs_context *contexts[2] = {gpu, cpu};
  for (int i = 0; i < 2; i++) {
    side on = make(contexts[i], WTACRS_SOURCE_NORMS, OUT, further);
    *further = 1000;
    CHECK(forward(on, norms, NULL, 5));
    selection later = saved_selection(on);
    *further = 0;
    CHECK(forward(on, norms, NULL, 5));
    selection first = saved_selection(on);
    CHECK(forward(on, norms, NULL, 1005));
    selection expected = saved_selection(on);
    REQUIRE(same(&later, &expected) && !same(&later, &first));
    end(on);
  }
  free(further);
}

/* The exact sum of dZ's rows beside their norms, written and added to, with and without norms. */
static void bias_gradient(void) {
  side on = make(gpu, WTACRS_SOURCE_INPUT, OUT, NULL), host = make(cpu, WTACRS_SOURCE_INPUT, OUT, NULL);
  float *bias = aligned(OUT * sizeof(float)), *alone = aligned(OUT * sizeof(float)), host_bias[OUT];
  float *again = aligned(TOKENS * sizeof(float));
  CHECK(forward(on, NULL, NULL, 0));
  CHECK(forward(host, NULL, NULL, 0));
  CHECK(wtacrs_backward(host.plan, host.saved, host.saved_bytes, dz, LEADING, host_dw, OUT, 0, NULL, host_bias,
                        host.backward, host.backward_bytes, NULL));
  CHECK(backward(on, host_dw, OUT, 0, NULL));
  CHECK(wtacrs_backward(on.plan, on.saved, on.saved_bytes, dz, LEADING, dw, OUT, 0, again, bias, on.backward,
                        on.backward_bytes, NULL));
  REQUIRE(distance(bias, host_bias, OUT) < 1e-6 && distance(again, norms, TOKENS) < 1e-6);
  REQUIRE(memcmp(dw, host_dw, IN * OUT * sizeof(float)) == 0);
  CHECK(wtacrs_backward(on.plan, on.saved, on.saved_bytes, dz, LEADING, dw, OUT, 0, NULL, alone, on.backward,
                        on.backward_bytes, NULL));
  REQUIRE(memcmp(alone, bias, OUT * sizeof(float)) == 0);
  CHECK(wtacrs_backward(on.plan, on.saved, on.saved_bytes, dz, LEADING, dw, OUT, 1, NULL, alone, on.backward,
                        on.backward_bytes, NULL));
  for (int k = 0; k < OUT; k++) REQUIRE(alone[k] == 2 * bias[k]);
  free(bias), free(alone), free(again), end(on), end(host);
}

/* Nothing of what a call would read or write needs to be there, and what must become zero does. */
static void zero_sizes(void) {
  const size_t shapes[][3] = {{0, IN, OUT}, {0, 0, 0}, {30, 0, OUT}, {30, IN, 0}, {30, 0, 0}};
  uint64_t *kept = aligned(sizeof(uint64_t)), *winners = aligned(sizeof(uint64_t));
  float *dz_norms = aligned(30 * sizeof(float)), *bias = aligned(OUT * sizeof(float)), host_bias[OUT];
  for (int i = 0; i < 5; i++) {
    size_t tokens = shapes[i][0], in = shapes[i][1], out = shapes[i][2];
    side sides[2];
    wtacrs_context *contexts[2] = {gpu, cpu};
    selection found[2];
    for (int k = 0; k < 2; k++) {
      wtacrs_layer *layer;
      side *on = &sides[k];
      CHECK(wtacrs_layer_create(&layer));
      CHECK(wtacrs_layer_set_shape(layer, tokens, in, out));
      CHECK(wtacrs_layer_set_budget_fraction(layer, 0.3));
      CHECK(wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT));
      CHECK(wtacrs_plan_create(contexts[k], layer, &on->plan));
      CHECK(wtacrs_layer_destroy(layer));
      CHECK(wtacrs_plan_saved_bytes(on->plan, &on->saved_bytes));
      CHECK(wtacrs_plan_forward_scratch_bytes(on->plan, &on->forward_bytes));
      CHECK(wtacrs_plan_backward_scratch_bytes(on->plan, &on->backward_bytes));
      on->saved = aligned(on->saved_bytes), memset(on->saved, 0xff, on->saved_bytes);
      on->forward = aligned(on->forward_bytes), on->backward = aligned(on->backward_bytes);
      float *to = k ? host_dw : dw, *sum = k ? host_bias : bias;
      const float *some_h = tokens && in ? h : NULL, *some_dz = tokens && out ? dz : NULL;
      CHECK(wtacrs_forward(on->plan, some_h, in, NULL, NULL, 42, 0, on->saved, on->saved_bytes, on->forward,
                           on->forward_bytes, NULL));
      found[k] = saved_selection(*on);
      for (size_t j = 0; j < in * out; j++) to[j] = 5;
      for (size_t j = 0; j < out; j++) sum[j] = 5;
      for (size_t j = 0; j < tokens; j++) dz_norms[j] = 5;
      for (int32_t accumulate = 1; accumulate >= 0; accumulate--) {
        CHECK(wtacrs_backward(on->plan, on->saved, on->saved_bytes, some_dz, out, in && out ? to : NULL, out, accumulate,
                              tokens ? dz_norms : NULL, out ? sum : NULL, on->backward, on->backward_bytes, NULL));
        for (size_t j = 0; j < in * out; j++) REQUIRE(to[j] == (accumulate ? 5 : 0));
        if (!tokens)
          for (size_t j = 0; j < out; j++) REQUIRE(sum[j] == (accumulate ? 5 : 0));
        if (!out)
          for (size_t j = 0; j < tokens; j++) REQUIRE(dz_norms[j] == 0);
      }
      CHECK(wtacrs_backward(on->plan, on->saved, on->saved_bytes, some_dz, out, in && out ? to : NULL, out, 0, NULL, NULL,
                            on->backward, on->backward_bytes, NULL));
      for (size_t j = 0; j < in * out; j++) REQUIRE(to[j] == 0);
      size_t bytes;
      CHECK(wtacrs_plan_estimate_scratch_bytes(on->plan, &bytes));
      void *scratch = aligned(bytes);
      for (size_t j = 0; j < in * out; j++) to[j] = 5;
      CHECK(wtacrs_estimate(on->plan, some_h, in, some_dz, out, 42, 0, in && out ? to : NULL, out, scratch, bytes, NULL));
      for (size_t j = 0; j < in * out; j++) REQUIRE(to[j] == 0);
      free(scratch);
    }
    /* Norms of no elements are the same on both devices, those of some may differ in the last bit. */
    REQUIRE(found[0].kept == found[1].kept && found[0].winners == found[1].winners && (tokens || !found[0].kept));
    REQUIRE(memcmp(found[0].indices, found[1].indices, found[0].kept * sizeof(uint32_t)) == 0);
    REQUIRE(in || same(&found[0], &found[1]));
    if (tokens && out) REQUIRE(distance(bias, host_bias, out) < 1e-6);

    /* The steps alone. */
    side on = sides[0];
    uint32_t *indices = tokens ? aligned(tokens * sizeof(uint32_t)) : NULL;
    double *scales = tokens ? aligned(tokens * sizeof(double)) : NULL;
    float *input_norms = tokens ? aligned(tokens * sizeof(float)) : NULL;
    CHECK(wtacrs_row_norms(gpu, WTACRS_F32, tokens, in, tokens && in ? h : NULL, in, input_norms, NULL));
    if (!in)
      for (size_t j = 0; j < tokens; j++) REQUIRE(input_norms[j] == 0);
    CHECK(wtacrs_weights(on.plan, input_norms, NULL, scales, NULL));
    *kept = *winners = 77;
    CHECK(wtacrs_select(on.plan, input_norms, NULL, 42, 0, 0, indices, scales, tokens, kept, winners, on.forward,
                        on.forward_bytes, NULL));
    REQUIRE(*kept == found[0].kept && *winners == found[0].winners);
    size_t bytes;
    CHECK(wtacrs_plan_weight_gradient_scratch_bytes(on.plan, &bytes));
    void *scratch = aligned(bytes);
    float *rows = tokens && in ? aligned(tokens * in * sizeof(float)) : NULL;
    CHECK(wtacrs_gather(on.plan, tokens && in ? h : NULL, in, indices, kept, rows, in, NULL));
    for (size_t j = 0; j < in * out; j++) dw[j] = 5;
    CHECK(wtacrs_weight_gradient(on.plan, rows, in, indices, scales, kept, tokens && out ? dz : NULL, out,
                                 in && out ? dw : NULL, out, 0, scratch, bytes, NULL));
    for (size_t j = 0; j < in * out; j++) REQUIRE(dw[j] == 0);
    if (in) {
      wtacrs_norm_predictor *learning;
      CHECK(wtacrs_norm_predictor_create_on(gpu, in, &learning));
      for (size_t j = 0; j < tokens; j++) dz_norms[j] = 1;
      CHECK(wtacrs_norm_predictor_update_on(learning, on.plan, on.saved, on.saved_bytes, tokens ? dz_norms : NULL, NULL));
      uint32_t outcome, row;
      CHECK(wtacrs_norm_predictor_outcome(learning, &outcome, &row));
      CHECK(wtacrs_norm_predictor_destroy(learning));
    }
    free(indices), free(scales), free(input_norms), free(rows), free(scratch);
    end(sides[0]), end(sides[1]);
  }
  float norm = 5;
  CHECK(wtacrs_column_norms(gpu, WTACRS_F32, 0, 1, NULL, 1, &norm, NULL));
  REQUIRE(norm == 0);
  CHECK(wtacrs_column_norms(gpu, WTACRS_F32, 3, 0, NULL, 0, NULL, NULL));
  int64_t none[2] = {0, IN}, narrow[2] = {1, 0};
  wtacrs_dltensor empty = {NULL, {2, 0}, 2, {2, 32, 1}, none, NULL, 0};
  CHECK(wtacrs_row_norms_dl(gpu, &empty, NULL, 0, NULL));
  norm = 5, empty.shape = narrow;
  CHECK(wtacrs_row_norms_dl(gpu, &empty, &norm, 1, NULL));
  REQUIRE(norm == 0);
  free(kept), free(winners), free(dz_norms), free(bias);
}

/* A row that is no number: the saved status names it, and dW is zero. */
static void no_number(void) {
  side on = make(gpu, WTACRS_SOURCE_INPUT, OUT, NULL), host = make(cpu, WTACRS_SOURCE_INPUT, OUT, NULL);
  size_t at;
  uint32_t *status;
  CHECK(wtacrs_plan_saved_status_offset(on.plan, &at));
  REQUIRE(wtacrs_plan_saved_status_offset(host.plan, &at) == WTACRS_UNSUPPORTED);
  REQUIRE(at % 4 == 0 && at + 4 <= on.saved_bytes);
  status = (uint32_t *)((char *)on.saved + at);
  CHECK(forward(on, NULL, NULL, 0));
  REQUIRE(*status == 0);
  float kept = h[123 * LEADING + 3];
  h[123 * LEADING + 3] = INFINITY;
  CHECK(forward(on, NULL, NULL, 0));
  REQUIRE(*status == 124);
  uint64_t count;
  REQUIRE(wtacrs_saved_selection(on.plan, on.saved, on.saved_bytes, NULL, NULL, 0, &count, NULL) == WTACRS_INVALID_WEIGHTS);
  char words[256];
  CHECK(wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(strstr(words, "row 123 of H") != NULL);
  CHECK(backward(on, dw, OUT, 0, NULL));
  for (int i = 0; i < IN * OUT; i++) REQUIRE(dw[i] == 0);
  h[123 * LEADING + 3] = kept;
  end(on), end(host);
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

static void predictors(void) {
  side on = make(gpu, WTACRS_SOURCE_PREDICTED, OUT, NULL), host = make(cpu, WTACRS_SOURCE_PREDICTED, OUT, NULL);
  wtacrs_norm_predictor *ours, *rank, *theirs, *copy, *back;
  CHECK(wtacrs_norm_predictor_create_on(gpu, IN, &ours));
  CHECK(wtacrs_norm_predictor_create_on(gpu, IN, &rank));
  CHECK(wtacrs_norm_predictor_create_on(cpu, IN, &theirs));
  size_t count, needed;
  CHECK(wtacrs_norm_predictor_statistics_count(ours, &count));
  double *sums = aligned(count * sizeof(double));
  for (uint64_t step = 0; step < 3; step++) {
    CHECK(forward(on, NULL, ours, step * TOKENS));
    CHECK(backward(on, dw, OUT, 0, norms));
    CHECK(wtacrs_norm_predictor_update_on(ours, on.plan, on.saved, on.saved_bytes, norms, NULL));
    uint32_t outcome = 9, row = 9;
    CHECK(wtacrs_norm_predictor_outcome(ours, &outcome, &row));
    REQUIRE(outcome == 0 && row == 0);
    /* By way of sums the same bits. */
    CHECK(wtacrs_norm_predictor_statistics_on(rank, on.plan, on.saved, on.saved_bytes, norms, sums, count, NULL));
    CHECK(wtacrs_norm_predictor_apply_on(rank, sums, count, NULL));
    /* And the CPU's predictor learns the same from the same rows. */
    CHECK(forward(host, NULL, theirs, step * TOKENS));
    CHECK(wtacrs_norm_predictor_update_on(theirs, host.plan, host.saved, host.saved_bytes, norms, NULL));
  }
  CHECK(wtacrs_norm_predictor_save(ours, NULL, 0, &needed));
  unsigned char *bytes = malloc(needed), *others = malloc(needed);
  CHECK(wtacrs_norm_predictor_save(ours, bytes, needed, &needed));
  CHECK(wtacrs_norm_predictor_save(rank, others, needed, &needed));
  REQUIRE(memcmp(bytes, others, needed) == 0);

  /* Saved on the GPU, loaded on either device: all select alike. */
  CHECK(wtacrs_norm_predictor_load_on(cpu, bytes, needed, &copy));
  CHECK(wtacrs_norm_predictor_load_on(gpu, bytes, needed, &back));
  CHECK(wtacrs_norm_predictor_save(back, others, needed, &needed));
  REQUIRE(memcmp(bytes, others, needed) == 0);
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

  /* A norm that is none changes nothing, and is told. */
  selection kept = found;
  CHECK(forward(on, NULL, ours, 5000));
  norms[kept.indices[4]] = NAN;
  CHECK(wtacrs_norm_predictor_update_on(ours, on.plan, on.saved, on.saved_bytes, norms, NULL));
  uint32_t outcome, row;
  CHECK(wtacrs_norm_predictor_outcome(ours, &outcome, &row));
  REQUIRE(outcome == 3 && row == 5);
  CHECK(wtacrs_norm_predictor_save(ours, others, needed, &needed));
  REQUIRE(memcmp(bytes, others, needed) == 0);
  CHECK(wtacrs_row_norms(gpu, WTACRS_F32, TOKENS, OUT, dz, LEADING, norms, NULL));

  wtacrs_norm_predictor *all[] = {ours, rank, theirs, copy, back};
  for (int i = 0; i < 5; i++) CHECK(wtacrs_norm_predictor_destroy(all[i]));
  free(sums), free(bytes), free(others), end(on), end(host);
}

/* Cached norms beside a predictor, which learns how far to trust them: the same code on both devices, alike after each
 * step. Every third norm is not known, the others are stale. */
static void cached_beside_predicted(void) {
  side on = make(gpu, WTACRS_SOURCE_PREDICTED, OUT, NULL), host = make(cpu, WTACRS_SOURCE_PREDICTED, OUT, NULL);
  wtacrs_norm_predictor *ours, *rank, *theirs, *copy, *without;
  wtacrs_norm_predictor **made[] = {&ours, &rank, &without};
  for (int i = 0; i < 3; i++) CHECK(wtacrs_norm_predictor_create_on(gpu, IN, made[i]));
  CHECK(wtacrs_norm_predictor_create_on(cpu, IN, &theirs));
  size_t count, needed;
  CHECK(wtacrs_norm_predictor_statistics_count(ours, &count));
  double *sums = aligned(count * sizeof(double)), *host_sums = aligned(count * sizeof(double));
  float *stale = aligned(TOKENS * sizeof(float));
  for (int t = 0; t < TOKENS; t++) stale[t] = t % 3 == 0 ? -1 : norms[t] * (1 + (float)(t % 7) / 10);
  for (uint64_t step = 0; step < 4; step++) {
    CHECK(forward(on, stale, ours, step * TOKENS));
    CHECK(backward(on, dw, OUT, 0, norms));
    CHECK(wtacrs_norm_predictor_update_cached_on(ours, on.plan, on.saved, on.saved_bytes, norms, stale, NULL));
    CHECK(wtacrs_norm_predictor_update_on(without, on.plan, on.saved, on.saved_bytes, norms, NULL));
    uint32_t outcome = 9, row = 9;
    CHECK(wtacrs_norm_predictor_outcome(ours, &outcome, &row));
    REQUIRE(outcome == 0 && row == 0);
    CHECK(wtacrs_norm_predictor_statistics_cached_on(rank, on.plan, on.saved, on.saved_bytes, norms, stale, sums, count, NULL));
    CHECK(wtacrs_norm_predictor_apply_on(rank, sums, count, NULL));
    CHECK(forward(host, stale, theirs, step * TOKENS));
    CHECK(wtacrs_norm_predictor_statistics_cached_on(theirs, host.plan, host.saved, host.saved_bytes, norms, stale, host_sums, count, NULL));
    CHECK(wtacrs_norm_predictor_update_cached_on(theirs, host.plan, host.saved, host.saved_bytes, norms, stale, NULL));
    selection found = saved_selection(on), expected = saved_selection(host);
    REQUIRE(common(&found, &expected) >= found.kept - 2);
    REQUIRE(!same(&found, &expected) || memcmp(sums, host_sums, 4 * sizeof(double)) == 0);
  }
  CHECK(wtacrs_norm_predictor_save(ours, NULL, 0, &needed));
  unsigned char *bytes = malloc(needed), *others = malloc(needed);
  CHECK(wtacrs_norm_predictor_save(ours, bytes, needed, &needed));
  CHECK(wtacrs_norm_predictor_save(rank, others, needed, &needed));
  REQUIRE(memcmp(bytes, others, needed) == 0);
  CHECK(wtacrs_norm_predictor_save(without, others, needed, &needed));
  REQUIRE(memcmp(bytes, others, needed) != 0);

  /* What was learned moves guesses: the CPU's copy selects alike, and without the norms otherwise. */
  CHECK(wtacrs_norm_predictor_load_on(cpu, bytes, needed, &copy));
  CHECK(forward(on, stale, ours, 9000));
  selection found = saved_selection(on);
  CHECK(forward(host, stale, copy, 9000));
  selection expected = saved_selection(host);
  CHECK(forward(on, NULL, ours, 9000));
  selection alone = saved_selection(on);
  printf("beside cached norms the CPU keeps %zu of %llu rows, without them %zu are kept\n", common(&found, &expected),
         (unsigned long long)found.kept, common(&found, &alone));
  REQUIRE(common(&found, &expected) >= found.kept - 2 && common(&found, &alone) < found.kept - 2);

  /* A cached norm that is none: the saved status tells the row, and the predictor's outcome its place among the kept. */
  size_t at;
  CHECK(wtacrs_plan_saved_status_offset(on.plan, &at));
  float before = stale[found.indices[2]];
  stale[found.indices[2]] = NAN;
  CHECK(forward(on, stale, ours, 9000));
  REQUIRE(*(uint32_t *)((char *)on.saved + at) == found.indices[2] + 1);
  stale[found.indices[2]] = before;
  CHECK(forward(on, stale, ours, 9000));
  stale[found.indices[2]] = INFINITY;
  CHECK(wtacrs_norm_predictor_update_cached_on(ours, on.plan, on.saved, on.saved_bytes, norms, stale, NULL));
  uint32_t outcome, row;
  CHECK(wtacrs_norm_predictor_outcome(ours, &outcome, &row));
  REQUIRE(outcome == 3 && row == 3);
  CHECK(wtacrs_norm_predictor_save(ours, others, needed, &needed));
  REQUIRE(memcmp(bytes, others, needed) == 0);

  wtacrs_norm_predictor *all[] = {ours, rank, theirs, copy, without};
  for (int i = 0; i < 5; i++) CHECK(wtacrs_norm_predictor_destroy(all[i]));
  free(sums), free(host_sums), free(stale), free(bytes), free(others), end(on), end(host);
}

static wtacrs_norm_cache *saved_and_loaded(const wtacrs_norm_cache *cache, wtacrs_context *to, size_t samples) {
  wtacrs_norm_cache *loaded;
  size_t needed, again;
  CHECK(wtacrs_norm_cache_save(cache, NULL, 0, &needed));
  unsigned char *bytes = malloc(needed), *others = malloc(needed);
  CHECK(wtacrs_norm_cache_save(cache, bytes, needed, &again));
  REQUIRE(again == needed);
  CHECK(wtacrs_norm_cache_load_on(to, samples, 60, bytes, needed, &loaded));
  CHECK(wtacrs_norm_cache_save(loaded, others, needed, &again));
  REQUIRE(again == needed && memcmp(bytes, others, needed) == 0);
  free(bytes), free(others);
  return loaded;
}

/* One training code for both devices: a batch of six samples, padded to rows of fifty tokens, then without padding. */
static void caches(void) {
  enum { SAMPLES = 6, ROW = 50 };
  uint64_t *ids = aligned(SAMPLES * sizeof(uint64_t)), *lengths = aligned(SAMPLES * sizeof(uint64_t));
  const uint64_t batch[SAMPLES] = {7, 0, 99, 3, 42, 8}, tokens[SAMPLES] = {50, 31, 1, 0, 44, 17};
  memcpy(ids, batch, sizeof batch), memcpy(lengths, tokens, sizeof tokens);
  float *guess = aligned(TOKENS * sizeof(float)), *both[2] = {aligned(TOKENS * sizeof(float)), aligned(TOKENS * sizeof(float))};
  const float *learned = both[0];
  wtacrs_context *contexts[2] = {gpu, cpu};
  wtacrs_norm_cache *made[2];
  for (int i = 0; i < 2; i++) {
    wtacrs_norm_cache *cache;
    learned = both[i];
    side on = make(contexts[i], WTACRS_SOURCE_CACHED, OUT, NULL);
    CHECK(wtacrs_norm_cache_create_on(contexts[i], 100, 60, &cache));
    CHECK(wtacrs_norm_cache_fetch_on(cache, ids, lengths, SAMPLES, ROW, guess, TOKENS, NULL));
    for (int t = 0; t < TOKENS; t++) REQUIRE(guess[t] == -1);
    CHECK(forward(on, guess, NULL, 0));
    CHECK(backward(on, dw, OUT, 0, both[i]));
    CHECK(wtacrs_norm_cache_store_on(cache, ids, lengths, SAMPLES, ROW, learned, TOKENS, NULL));
    CHECK(wtacrs_norm_cache_fetch_on(cache, ids, lengths, SAMPLES, ROW, guess, TOKENS, NULL));
    for (int t = 0; t < TOKENS; t++) REQUIRE(guess[t] == ((uint64_t)t % ROW < tokens[t / ROW] ? learned[t] : -1));
    CHECK(forward(on, guess, NULL, 1));

    /* Without padding, in another order, and one that is not known. */
    uint64_t *mixed = aligned(3 * sizeof(uint64_t)), *of_mixed = aligned(3 * sizeof(uint64_t));
    mixed[0] = 8, mixed[1] = 1, mixed[2] = 0, of_mixed[0] = 17, of_mixed[1] = 2, of_mixed[2] = 31;
    CHECK(wtacrs_norm_cache_fetch_on(cache, mixed, of_mixed, 3, 0, guess, 55, NULL));
    REQUIRE(memcmp(guess, learned + 5 * ROW, 17 * sizeof(float)) == 0 && guess[17] == -1 && guess[18] == -1);
    REQUIRE(memcmp(guess + 19, learned + ROW, 31 * sizeof(float)) == 0);
    for (int t = 50; t < 55; t++) REQUIRE(guess[t] == -1);
    /* Of a sample twice in a batch the last counts; rows that are full need no lengths. */
    mixed[1] = 8;
    CHECK(wtacrs_norm_cache_store_on(cache, mixed, NULL, 2, 17, learned, 34, NULL));
    CHECK(wtacrs_norm_cache_fetch_on(cache, mixed, of_mixed, 1, 0, guess, 17, NULL));
    REQUIRE(memcmp(guess, learned + 17, 17 * sizeof(float)) == 0);
    mixed[0] = 0, mixed[1] = 1000;
    CHECK(wtacrs_norm_cache_forget_on(cache, mixed, 2, NULL));
    CHECK(wtacrs_norm_cache_fetch_on(cache, mixed, NULL, 1, 31, guess, 31, NULL));
    for (int t = 0; t < 31; t++) REQUIRE(guess[t] == -1);
    free(mixed), free(of_mixed), end(on);
    made[i] = cache;
  }

  /* Saved on either device, loaded on either. */
  size_t needed;
  wtacrs_norm_cache *to_cpu = saved_and_loaded(made[0], cpu, 100), *to_gpu = saved_and_loaded(made[1], gpu, 5000);
  wtacrs_norm_cache *round = saved_and_loaded(to_cpu, gpu, 100), *plain;
  CHECK(wtacrs_norm_cache_save(round, NULL, 0, &needed));
  unsigned char *bytes = malloc(needed);
  CHECK(wtacrs_norm_cache_save(round, bytes, needed, &needed));
  CHECK(wtacrs_norm_cache_load(bytes, needed, &plain));
  CHECK(wtacrs_norm_cache_fetch(plain, batch + 4, tokens + 4, 1, guess, 44));
  REQUIRE(memcmp(guess, both[0] + 4 * ROW, 44 * sizeof(float)) == 0);
  CHECK(wtacrs_norm_cache_fetch_on(to_gpu, ids + 4, lengths + 4, 1, 0, guess, 44, NULL));
  REQUIRE(memcmp(guess, both[1] + 4 * ROW, 44 * sizeof(float)) == 0);

  /* What a GPU has left out is told, the first and once. */
  uint32_t fault = 9;
  uint64_t sample = 9;
  CHECK(wtacrs_norm_cache_outcome(made[0], &fault, &sample));
  REQUIRE(fault == 0 && sample == 0);
  const struct { uint64_t id, length; float norm; uint32_t fault; int is_store; } wrong[] = {
      {100, 3, 1, 1, 0}, {UINT64_MAX, 3, 1, 1, 1}, {42, 61, 1, 2, 1}, {42, UINT64_MAX, 1, 2, 0},
      {42, 43, 1, 3, 0}, {42, 3, NAN, 4, 1},       {42, 3, -1, 4, 1},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    ids[0] = 8, lengths[0] = 17, ids[1] = wrong[i].id, lengths[1] = wrong[i].length, ids[2] = 1 << 20, lengths[2] = 0;
    memcpy(guess, learned, TOKENS * sizeof(float));
    guess[18] = wrong[i].norm;
    if (wrong[i].is_store) CHECK(wtacrs_norm_cache_store_on(made[0], ids, lengths, 3, 0, guess, 90, NULL));
    else CHECK(wtacrs_norm_cache_fetch_on(made[0], ids, lengths, 3, 0, guess, 90, NULL));
    if (!wrong[i].is_store) REQUIRE(guess[16] != -1 && guess[17] == -1 && guess[89] == -1 && guess[90] == learned[90]);
    CHECK(wtacrs_norm_cache_outcome(made[0], &fault, &sample));
    REQUIRE(fault == wrong[i].fault && sample == wrong[i].id);
    CHECK(wtacrs_norm_cache_outcome(made[0], &fault, NULL));
    REQUIRE(fault == 0);
  }
  ids[0] = 42, lengths[0] = 44;
  CHECK(wtacrs_norm_cache_fetch_on(made[0], ids, lengths, 1, 0, guess, 44, NULL));
  REQUIRE(memcmp(guess, both[0] + 4 * ROW, 44 * sizeof(float)) == 0);

  wtacrs_norm_cache *all[] = {made[0], made[1], to_cpu, to_gpu, round, plain};
  for (int i = 0; i < 6; i++) CHECK(wtacrs_norm_cache_destroy(all[i]));
  free(ids), free(lengths), free(guess), free(both[0]), free(both[1]), free(bytes);
}

enum { BATCH = 2, HEADS = 2, QUERIES = 24, CHANNELS = 16, KEYS = 20, ITEMS = BATCH * HEADS };

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
  wtacrs_context *contexts[2] = {gpu, cpu};
  for (int is_exact = 0; is_exact < 2; is_exact++) {
    for (int on = 0; on < 2; on++) {
      wtacrs_tensor_mul *t;
      wtacrs_tensor_mul_plan *p;
      CHECK(wtacrs_tensor_mul_create(&t));
      CHECK(wtacrs_tensor_mul_set_shape(t, BATCH, HEADS, QUERIES, CHANNELS, KEYS));
      CHECK(wtacrs_tensor_mul_set_budget_rows(t, WTACRS_RIGHT, 9));
      if (is_exact) CHECK(wtacrs_tensor_mul_set_exact(t, WTACRS_LEFT));
      else CHECK(wtacrs_tensor_mul_set_budget_rows(t, WTACRS_LEFT, 7));
      CHECK(wtacrs_tensor_mul_plan_create(contexts[on], t, &p));
      CHECK(wtacrs_tensor_mul_destroy(t));
      size_t saved_bytes, forward_bytes, backward_bytes;
      CHECK(wtacrs_tensor_mul_plan_memory(p, &saved_bytes, &forward_bytes, &backward_bytes, NULL));
      void *saved = aligned(saved_bytes), *forward = aligned(forward_bytes), *backward = aligned(backward_bytes);
      const int type = on == 0 ? 2 : 1;
      const wtacrs_dltensor a_dl = {a, {type, 0}, 4, {2, 32, 1}, a_shape, NULL, 0};
      const wtacrs_dltensor b_dl = {b, {type, 0}, 4, {2, 32, 1}, b_shape, b_strides, 0};
      const wtacrs_dltensor g_dl = {g, {type, 0}, 4, {2, 32, 1}, g_shape, NULL, 0};
      const wtacrs_dltensor da_dl = {da[on], {type, 0}, 4, {2, 32, 1}, a_shape, NULL, 0};
      const wtacrs_dltensor db_dl = {db[on], {type, 0}, 4, {2, 32, 1}, b_shape, NULL, 0};
      for (int step = 0; step < 2; step++) {
        const float *row_guess = step ? rows[on] : NULL, *column_guess = step ? columns[on] : NULL;
        CHECK(wtacrs_tensor_mul_forward_dl(p, &a_dl, &b_dl, row_guess, column_guess, 9, 0, saved, saved_bytes, forward,
                                           forward_bytes, NULL));
        CHECK(wtacrs_tensor_mul_backward_dl(p, saved, saved_bytes, &g_dl, &da_dl, &db_dl, step, rows[on], columns[on],
                                            backward, backward_bytes, NULL));
      }
      if (on == 0) {
        size_t left, right;
        CHECK(wtacrs_tensor_mul_plan_saved_status_offset(p, WTACRS_LEFT, &left));
        CHECK(wtacrs_tensor_mul_plan_saved_status_offset(p, WTACRS_RIGHT, &right));
        const uint32_t *words[2] = {(uint32_t *)((char *)saved + left), (uint32_t *)((char *)saved + right)};
        for (int i = 0; i < ITEMS; i++) REQUIRE(words[0][i] == 0 && words[1][i] == 0);
        /* A row by row B has no kernel: dA sums over its columns. */
        REQUIRE(wtacrs_tensor_mul_forward(p, a, b, NULL, NULL, 9, 0, saved, saved_bytes, forward, forward_bytes, NULL) ==
                WTACRS_UNSUPPORTED);
      }
      CHECK(wtacrs_tensor_mul_plan_destroy(p));
      free(saved), free(forward), free(backward);
    }
    REQUIRE(memcmp(rows[0], rows[1], sizeof rows[0]) == 0 && memcmp(columns[0], columns[1], sizeof columns[0]) == 0);
    REQUIRE(distance(da[0], da[1], ITEMS * QUERIES * CHANNELS) < 1e-6);
    REQUIRE(distance(db[0], db[1], ITEMS * CHANNELS * KEYS) < 1e-6);
  }
}

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  h = read_raw(argv[1], "h.raw", ROWS * LEADING), dz = read_raw(argv[1], "dz.raw", ROWS * LEADING);
  norms = aligned(TOKENS * sizeof(float)), host_norms = aligned(TOKENS * sizeof(float));
  dw = aligned(IN * OUT * sizeof(float)), host_dw = aligned(IN * OUT * sizeof(float));
  CHECK(wtacrs_context_create(WTACRS_CPU, 0, &cpu));
  CHECK(wtacrs_context_create(WTACRS_CUDA, -1, &gpu));
  passes(), in_one_call(), steps(), tensors(), offsets(), bias_gradient(), zero_sizes(), no_number(), predictors();
  cached_beside_predicted(), caches(), products();
  CHECK(wtacrs_context_destroy(cpu));
  CHECK(wtacrs_context_destroy(gpu));
  void *all[] = {h, dz, norms, host_norms, dw, host_dw};
  for (int i = 0; i < 6; i++) free(all[i]);
  puts("ok");
  return 0;
}
