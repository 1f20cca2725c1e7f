/* Every function with a twin for DLPack: the twin gives what the function itself gives, for inputs and outputs that lie in
 * memory in any way, and writes to no byte between an output's elements. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

enum { TOKENS = 24, IN = 6, OUT = 5, BUDGET = 9, BATCH = 2, HEADS = 3, AXES = 4, ROOM = 8192 };
static const float UNTOUCHED = -12345.5f;

static void require(int truth, const char *what, const char *layout, int line) {
  if (truth) return;
  char words[512];
  wtacrs_last_error(words, sizeof words, NULL);
  fprintf(stderr, "line %d, %s: %s (%s)\n", line, layout, what, words);
  exit(1);
}
static const char *now = "";
#define REQUIRE(truth) require(truth, #truth, now, __LINE__)
#define OK(call) REQUIRE((call) == WTACRS_OK)

/* How a tensor lies in memory: in which order of axes, how far apart, and which axes run backwards. */
typedef struct {
  const char *name;
  int from_first; /* the first axis is the innermost */
  int apart;      /* elements between neighbours of the innermost axis */
  int padding;    /* elements behind each row, plane, ... */
  unsigned backward;
  int no_strides; /* strides are NULL */
} Layout;

static const Layout layouts[] = {
    {"strides NULL", 0, 1, 0, 0, 1},       {"row by row", 0, 1, 0, 0, 0},       {"rows apart", 0, 1, 3, 0, 0},
    {"transposed", 1, 1, 0, 0, 0},         {"transposed, apart", 1, 2, 1, 0, 0}, {"every second", 0, 2, 0, 0, 0},
    {"first axis backward", 0, 1, 1, 1, 0}, {"last axis backward", 0, 1, 0, 10, 0}, {"all backward", 0, 2, 1, 15, 0},
    {"transposed, all backward", 1, 3, 2, 15, 0},
};
enum { LAYOUTS = sizeof layouts / sizeof layouts[0] };

typedef struct {
  float memory[ROOM];
  int64_t shape[AXES], strides[AXES];
  wtacrs_dltensor tensor;
} Placed;

/* Lays a tensor out, three elements into its memory, with `dense`'s values; NULL: for an output. */
static const wtacrs_dltensor *place(Placed *to, const Layout *layout, int axes, const int64_t *shape, const float *dense) {
  int64_t step = layout->apart, first = 3;
  for (int i = 0; i < axes; i++) {
    const int axis = layout->from_first ? i : axes - 1 - i;
    const int backward = layout->backward >> axis & 1;
    to->shape[axis] = shape[axis];
    to->strides[axis] = backward ? -step : step;
    if (backward && shape[axis] > 0) first += (shape[axis] - 1) * step;
    step = step * (shape[axis] > 0 ? shape[axis] : 1) + layout->padding;
  }
  REQUIRE(first + step < ROOM);
  for (int i = 0; i < ROOM; i++) to->memory[i] = UNTOUCHED;
  const wtacrs_dltensor tensor = {to->memory, {1, 0}, axes, {2, 32, 1}, to->shape, layout->no_strides ? NULL : to->strides,
                                  (uint64_t)first * sizeof(float)};
  to->tensor = tensor;
  int64_t count = 1;
  for (int i = 0; i < axes; i++) count *= shape[i];
  for (int64_t i = 0; dense != NULL && i < count; i++) {
    int64_t rest = i, at = first;
    for (int axis = axes - 1; axis >= 0; axis--) at += rest % shape[axis] * to->strides[axis], rest /= shape[axis];
    to->memory[at] = dense[i];
  }
  return &to->tensor;
}

/* An output's elements are `expected`, but for the rounding of a product taken in another order; nothing else was
 * written. */
static void check_output(Placed *placed, const float *expected, float bound) {
  const int64_t *shape = placed->shape, first = (int64_t)(placed->tensor.byte_offset / sizeof(float));
  int64_t count = 1;
  for (int i = 0; i < placed->tensor.ndim; i++) count *= shape[i];
  for (int64_t i = 0; i < count; i++) {
    int64_t rest = i, at = first;
    for (int axis = placed->tensor.ndim - 1; axis >= 0; axis--)
      at += rest % shape[axis] * placed->strides[axis], rest /= shape[axis];
    REQUIRE(fabsf(placed->memory[at] - expected[i]) <= bound);
    placed->memory[at] = UNTOUCHED;
  }
  for (int i = 0; i < ROOM; i++) REQUIRE(placed->memory[i] == UNTOUCHED);
}

static void *memory(size_t bytes) {
  void *block = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  REQUIRE(block != NULL);
  return block;
}

static void fill(float *values, int count, unsigned seed) {
  for (int i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = ((float)(seed >> 8) / 8388608.0f - 1.0f) * (i / IN % 5 == 2 ? 4.0f : 1.0f);
  }
}

static wtacrs_context *context;
static Placed a, b, c;

static wtacrs_plan *linear_plan(size_t tokens) {
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  OK(wtacrs_layer_create(&layer));
  OK(wtacrs_layer_set_shape(layer, tokens, IN, OUT));
  if (tokens > 0) OK(wtacrs_layer_set_budget_rows(layer, BUDGET));
  else OK(wtacrs_layer_set_budget_fraction(layer, 0.3));
  OK(wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT));
  OK(wtacrs_plan_create(context, layer, &plan));
  OK(wtacrs_layer_destroy(layer));
  return plan;
}

static void linear(void) {
  static float h[TOKENS * IN], dz[TOKENS * OUT], dw[IN * OUT], estimate[IN * OUT], rows[BUDGET * IN], norms[TOKENS];
  fill(h, TOKENS * IN, 1);
  fill(dz, TOKENS * OUT, 2);
  wtacrs_plan *plan = linear_plan(TOKENS);
  size_t saved_bytes, backward_bytes, estimate_bytes;
  OK(wtacrs_plan_saved_bytes(plan, &saved_bytes));
  OK(wtacrs_plan_backward_scratch_bytes(plan, &backward_bytes));
  OK(wtacrs_plan_estimate_scratch_bytes(plan, &estimate_bytes));
  void *saved = memory(saved_bytes), *again = memory(saved_bytes), *scratch = memory(backward_bytes + estimate_bytes);
  memset(saved, 0, saved_bytes), memset(again, 0, saved_bytes);
  uint32_t indices[BUDGET];
  double scales[BUDGET], told, told_again, size, size_again;
  uint64_t kept;
  int32_t exact;
  OK(wtacrs_forward(plan, h, IN, NULL, NULL, 4, 5, saved, saved_bytes, NULL, 0, NULL));
  OK(wtacrs_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, 0, NULL, NULL, scratch, backward_bytes, NULL));
  OK(wtacrs_saved_selection(plan, saved, saved_bytes, indices, scales, BUDGET, &kept, NULL));
  REQUIRE(kept == BUDGET);
  OK(wtacrs_gather(plan, h, IN, indices, &kept, rows, IN, NULL));
  OK(wtacrs_row_norms(context, WTACRS_F32, TOKENS, IN, h, IN, norms, NULL));
  OK(wtacrs_estimate(plan, h, IN, dz, OUT, 4, 5, estimate, OUT, scratch, estimate_bytes, NULL));
  OK(wtacrs_expected_error(plan, h, IN, dz, OUT, NULL, &told, &exact, &size));
  REQUIRE(told > 0 && size > 0);
  const int64_t of_h[2] = {TOKENS, IN}, of_dz[2] = {TOKENS, OUT}, of_dw[2] = {IN, OUT}, of_rows[2] = {BUDGET, IN};
  for (int i = 0; i < LAYOUTS; i++) {
    /* Inputs and outputs in different layouts. */
    const Layout *one = &layouts[i], *two = &layouts[(i + 3) % LAYOUTS], *three = &layouts[(i * 3 + 1) % LAYOUTS];
    now = one->name;
    float found[TOKENS];
    OK(wtacrs_row_norms_dl(context, place(&a, one, 2, of_h, h), found, TOKENS, NULL));
    REQUIRE(memcmp(found, norms, sizeof found) == 0);
    OK(wtacrs_forward_dl(plan, place(&a, one, 2, of_h, h), NULL, NULL, 4, 5, again, saved_bytes, NULL, 0, NULL));
    REQUIRE(memcmp(saved, again, saved_bytes) == 0);
    OK(wtacrs_backward_dl(plan, saved, saved_bytes, place(&b, two, 2, of_dz, dz), place(&c, three, 2, of_dw, NULL), 0, NULL,
                          NULL, scratch, backward_bytes, NULL));
    check_output(&c, dw, 1e-5f);
    OK(wtacrs_backward_dl(plan, saved, saved_bytes, place(&b, three, 2, of_dz, dz), place(&c, one, 2, of_dw, dw), 1, NULL,
                          NULL, scratch, backward_bytes, NULL));
    float twice[IN * OUT];
    for (int j = 0; j < IN * OUT; j++) twice[j] = 2 * dw[j];
    check_output(&c, twice, 1e-5f);
    OK(wtacrs_gather_dl(plan, place(&a, two, 2, of_h, h), indices, &kept, place(&c, one, 2, of_rows, NULL), NULL));
    check_output(&c, rows, 0);
    OK(wtacrs_weight_gradient_dl(plan, place(&a, one, 2, of_rows, rows), indices, scales, &kept,
                                 place(&b, three, 2, of_dz, dz), place(&c, two, 2, of_dw, NULL), 0, scratch,
                                 backward_bytes, NULL));
    check_output(&c, dw, 1e-5f);
    OK(wtacrs_estimate_dl(plan, place(&a, three, 2, of_h, h), place(&b, one, 2, of_dz, dz), 4, 5,
                          place(&c, two, 2, of_dw, NULL), scratch, estimate_bytes, NULL));
    check_output(&c, estimate, 1e-5f);
    OK(wtacrs_expected_error_dl(plan, place(&a, one, 2, of_h, h), place(&b, two, 2, of_dz, dz), NULL, &told_again, &exact,
                                &size_again));
    REQUIRE(fabs(told_again - told) <= 1e-12 * told && fabs(size_again - size) <= 1e-12 * size);
  }
  /* A stride of zero: every token has the first one's row. */
  now = "stride 0";
  static float equal[TOKENS * IN];
  for (int t = 0; t < TOKENS; t++) memcpy(equal + t * IN, h, IN * sizeof(float));
  OK(wtacrs_forward(plan, equal, IN, NULL, NULL, 4, 5, saved, saved_bytes, NULL, 0, NULL));
  place(&a, &layouts[1], 2, of_h, h);
  a.strides[0] = 0;
  OK(wtacrs_forward_dl(plan, &a.tensor, NULL, NULL, 4, 5, again, saved_bytes, NULL, 0, NULL));
  REQUIRE(memcmp(saved, again, saved_bytes) == 0);
  OK(wtacrs_plan_destroy(plan));
  free(saved), free(again), free(scratch);
}

/* Without tokens each call is allowed, pointers may be NULL whatever the strides, and dW is a sum of nothing. */
static void no_tokens(void) {
  wtacrs_plan *plan = linear_plan(0);
  size_t saved_bytes;
  OK(wtacrs_plan_saved_bytes(plan, &saved_bytes));
  void *saved = memory(saved_bytes), *scratch = memory(saved_bytes);
  const int64_t of_h[2] = {0, IN}, of_dz[2] = {0, OUT}, of_dw[2] = {IN, OUT};
  const float zeros[IN * OUT] = {0};
  const uint64_t kept = 0;
  double told = 7, size = 7;
  int32_t exact;
  for (int i = 0; i < LAYOUTS; i++) {
    const Layout *one = &layouts[i];
    now = one->name;
    place(&a, one, 2, of_h, NULL), place(&b, one, 2, of_dz, NULL);
    if (i % 2 == 0) a.tensor.data = b.tensor.data = NULL;
    OK(wtacrs_row_norms_dl(context, &a.tensor, NULL, 0, NULL));
    OK(wtacrs_forward_dl(plan, &a.tensor, NULL, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL));
    OK(wtacrs_backward_dl(plan, saved, saved_bytes, &b.tensor, place(&c, one, 2, of_dw, NULL), 0, NULL, NULL, NULL, 0, NULL));
    check_output(&c, zeros, 0);
    OK(wtacrs_gather_dl(plan, &a.tensor, NULL, &kept, &a.tensor, NULL));
    OK(wtacrs_weight_gradient_dl(plan, &a.tensor, NULL, NULL, &kept, &b.tensor, place(&c, one, 2, of_dw, NULL), 0, NULL, 0,
                                 NULL));
    check_output(&c, zeros, 0);
    OK(wtacrs_estimate_dl(plan, &a.tensor, &b.tensor, 1, 0, place(&c, one, 2, of_dw, NULL), scratch, saved_bytes, NULL));
    check_output(&c, zeros, 0);
    OK(wtacrs_expected_error_dl(plan, &a.tensor, &b.tensor, NULL, &told, &exact, &size));
    REQUIRE(told == 0 && size == 0);
  }
  OK(wtacrs_plan_destroy(plan));
  free(saved), free(scratch);
}

static void tensor_mul(int64_t batch) {
  enum { ROWS = 7, INNER = 4, COLUMNS = 6, ITEMS = BATCH * HEADS };
  static float x[ITEMS * ROWS * INNER], y[ITEMS * INNER * COLUMNS], g[ITEMS * ROWS * COLUMNS], dx[ITEMS * ROWS * INNER],
      dy[ITEMS * INNER * COLUMNS];
  fill(x, ITEMS * ROWS * INNER, 3);
  fill(y, ITEMS * INNER * COLUMNS, 4);
  fill(g, ITEMS * ROWS * COLUMNS, 5);
  wtacrs_tensor_mul *product;
  wtacrs_tensor_mul_plan *plan;
  OK(wtacrs_tensor_mul_create(&product));
  OK(wtacrs_tensor_mul_set_shape(product, (size_t)batch, HEADS, ROWS, INNER, COLUMNS));
  OK(wtacrs_tensor_mul_set_budget_rows(product, WTACRS_LEFT, 3));
  OK(wtacrs_tensor_mul_set_budget_rows(product, WTACRS_RIGHT, 4));
  OK(wtacrs_tensor_mul_plan_create(context, product, &plan));
  OK(wtacrs_tensor_mul_destroy(product));
  size_t saved_bytes, scratch_bytes;
  OK(wtacrs_tensor_mul_plan_memory(plan, &saved_bytes, NULL, &scratch_bytes, NULL));
  void *saved = memory(saved_bytes), *again = memory(saved_bytes), *scratch = memory(scratch_bytes);
  memset(saved, 0, saved_bytes), memset(again, 0, saved_bytes);
  OK(wtacrs_tensor_mul_forward(plan, x, y, NULL, NULL, 8, 9, saved, saved_bytes, NULL, 0, NULL));
  OK(wtacrs_tensor_mul_backward(plan, saved, saved_bytes, g, dx, dy, 0, NULL, NULL, scratch, scratch_bytes, NULL));
  const int64_t of_x[AXES] = {batch, HEADS, ROWS, INNER}, of_y[AXES] = {batch, HEADS, INNER, COLUMNS},
                of_g[AXES] = {batch, HEADS, ROWS, COLUMNS};
  for (int i = 0; i < LAYOUTS; i++) {
    const Layout *one = &layouts[i], *two = &layouts[(i + 3) % LAYOUTS], *three = &layouts[(i * 3 + 1) % LAYOUTS];
    now = one->name;
    OK(wtacrs_tensor_mul_forward_dl(plan, place(&a, one, AXES, of_x, x), place(&b, two, AXES, of_y, y), NULL, NULL, 8, 9,
                                    again, saved_bytes, NULL, 0, NULL));
    REQUIRE(memcmp(saved, again, saved_bytes) == 0);
    OK(wtacrs_tensor_mul_backward_dl(plan, saved, saved_bytes, place(&a, three, AXES, of_g, g),
                                     place(&b, one, AXES, of_x, NULL), place(&c, two, AXES, of_y, NULL), 0, NULL, NULL,
                                     scratch, scratch_bytes, NULL));
    check_output(&b, dx, 1e-5f);
    check_output(&c, dy, 1e-5f);
  }
  OK(wtacrs_tensor_mul_plan_destroy(plan));
  free(saved), free(again), free(scratch);
}

int main(void) {
  OK(wtacrs_context_create(WTACRS_CPU, 0, &context));
  linear();
  no_tokens();
  tensor_mul(BATCH);
  tensor_mul(0);
  OK(wtacrs_context_destroy(context));
  puts("ok");
  return 0;
}
