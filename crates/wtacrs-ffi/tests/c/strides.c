/* Every function with a twin for DLPack: the twin gives what the function itself gives, for inputs and outputs that lie in
 * memory in any way, and writes to no byte between an output's elements. */
#include "check.h"

enum { TOKENS = 24, IN = 6, OUT = 5, BUDGET = 9, BATCH = 2, HEADS = 3, AXES = 4, ROOM = 8192 };
static const float UNTOUCHED = -12345.5f;

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

static void fill(float *values, int count, unsigned seed) {
  for (int i = 0; i < count; i++) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = ((float)(seed >> 8) / 8388608.0f - 1.0f) * (i / IN % 5 == 2 ? 4.0f : 1.0f);
  }
}

static wtacrs_context *context;
static Placed a, b, c;

static void linear(void) {
  static float h[TOKENS * IN], dz[TOKENS * OUT], dw[IN * OUT], estimate[IN * OUT], rows[BUDGET * IN], norms[TOKENS];
  float column_norms[IN];
  fill(h, TOKENS * IN, 1);
  fill(dz, TOKENS * OUT, 2);
  const equipped on = equip(make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT));
  const size_t saved_bytes = on.info.saved_bytes, backward_bytes = on.info.backward_scratch_bytes;
  void *again = aligned(saved_bytes);
  memset(on.saved, 0, saved_bytes), memset(again, 0, saved_bytes);
  uint32_t indices[BUDGET];
  double scales[BUDGET], error, error_again, size, size_again;
  uint64_t kept;
  int32_t exact;
  const wtacrs_selection *selection = SELECTION(indices, scales, BUDGET, &kept, NULL);
  CHECK(forward_pass(on, h, IN, 4, 5, NULL));
  CHECK(backward_pass(on, dz, OUT, dw, OUT, NULL));
  CHECK(wtacrs_plan_saved_selection(on.plan, on.saved, saved_bytes, selection));
  REQUIRE(kept == BUDGET);
  CHECK(wtacrs_plan_gather(on.plan, h, IN, selection, rows, IN, NULL));
  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, norms, NULL));
  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_COLUMNS, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, column_norms, NULL));
  CHECK(
      wtacrs_plan_estimate(on.plan, h, IN, dz, OUT, 4, 5, estimate, OUT, on.estimate, on.info.estimate_scratch_bytes, NULL));
  CHECK(wtacrs_plan_expected_error(on.plan, h, IN, dz, OUT, NULL, &error, &exact, &size));
  REQUIRE(error > 0 && size > 0);
  const int64_t of_h[2] = {TOKENS, IN}, of_dz[2] = {TOKENS, OUT}, of_dw[2] = {IN, OUT}, of_rows[2] = {BUDGET, IN};
  for (int i = 0; i < LAYOUTS; i++) {
    /* Inputs and outputs in different layouts. */
    const Layout *one = &layouts[i], *two = &layouts[(i + 3) % LAYOUTS], *three = &layouts[(i * 3 + 1) % LAYOUTS];
    now = one->name;
    float found[TOKENS];
    CHECK(wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, place(&a, one, 2, of_h, h), found, TOKENS, NULL));
    REQUIRE(memcmp(found, norms, sizeof norms) == 0);
    CHECK(wtacrs_context_norms_dl(context, WTACRS_AXIS_COLUMNS, &a.tensor, found, IN, NULL));
    REQUIRE(memcmp(found, column_norms, sizeof column_norms) == 0);
    CHECK(wtacrs_plan_forward_dl(on.plan, &a.tensor, 4, 5, NULL, again, saved_bytes, NULL, 0, NULL));
    REQUIRE(memcmp(on.saved, again, saved_bytes) == 0);
    CHECK(wtacrs_plan_backward_dl(on.plan, on.saved, saved_bytes, place(&b, two, 2, of_dz, dz),
                                  place(&c, three, 2, of_dw, NULL), NULL, on.backward, backward_bytes, NULL));
    check_output(&c, dw, 1e-5f);
    CHECK(wtacrs_plan_backward_dl(on.plan, on.saved, saved_bytes, place(&b, three, 2, of_dz, dz),
                                  place(&c, one, 2, of_dw, dw), SIZED(wtacrs_backward_options, .accumulate = 1), on.backward,
                                  backward_bytes, NULL));
    float twice[IN * OUT];
    for (int j = 0; j < IN * OUT; j++) twice[j] = 2 * dw[j];
    check_output(&c, twice, 1e-5f);
    CHECK(wtacrs_plan_gather_dl(on.plan, place(&a, two, 2, of_h, h), selection, place(&c, one, 2, of_rows, NULL), NULL));
    check_output(&c, rows, 0);
    CHECK(wtacrs_plan_weight_gradient_dl(on.plan, place(&a, one, 2, of_rows, rows), selection,
                                         place(&b, three, 2, of_dz, dz), place(&c, two, 2, of_dw, NULL), 0,
                                         on.weight_gradient, on.info.weight_gradient_scratch_bytes, NULL));
    check_output(&c, dw, 1e-5f);
    CHECK(wtacrs_plan_estimate_dl(on.plan, place(&a, three, 2, of_h, h), place(&b, one, 2, of_dz, dz), 4, 5,
                                  place(&c, two, 2, of_dw, NULL), on.estimate, on.info.estimate_scratch_bytes, NULL));
    check_output(&c, estimate, 1e-5f);
    CHECK(wtacrs_plan_expected_error_dl(on.plan, place(&a, one, 2, of_h, h), place(&b, two, 2, of_dz, dz), NULL,
                                        &error_again, &exact, &size_again));
    REQUIRE(fabs(error_again - error) <= 1e-12 * error && fabs(size_again - size) <= 1e-12 * size);
  }
  /* A stride of zero: every token has the first one's row. */
  now = "stride 0";
  static float equal[TOKENS * IN];
  for (int t = 0; t < TOKENS; t++) memcpy(equal + t * IN, h, IN * sizeof(float));
  CHECK(forward_pass(on, equal, IN, 4, 5, NULL));
  place(&a, &layouts[1], 2, of_h, h);
  a.strides[0] = 0;
  CHECK(wtacrs_plan_forward_dl(on.plan, &a.tensor, 4, 5, NULL, again, saved_bytes, NULL, 0, NULL));
  REQUIRE(memcmp(on.saved, again, saved_bytes) == 0);
  free(again), discard(on);
}

/* Without tokens each call is allowed, pointers may be NULL whatever the strides, and dW is a sum of nothing. */
static void no_tokens(void) {
  wtacrs_layer *layer = describe(0, IN, OUT, WTACRS_BUDGET_FRACTION, 0.3, WTACRS_SOURCE_INPUT);
  const equipped on = equip(freeze(context, layer));
  const size_t saved_bytes = on.info.saved_bytes;
  const int64_t of_h[2] = {0, IN}, of_dz[2] = {0, OUT}, of_dw[2] = {IN, OUT};
  const float zeros[IN * OUT] = {0};
  uint64_t kept = 0;
  const wtacrs_selection *selection = SELECTION(NULL, NULL, 0, &kept, NULL);
  double error = 7, size = 7;
  int32_t exact;
  for (int i = 0; i < LAYOUTS; i++) {
    const Layout *one = &layouts[i];
    now = one->name;
    place(&a, one, 2, of_h, NULL), place(&b, one, 2, of_dz, NULL);
    if (i % 2 == 0) a.tensor.data = b.tensor.data = NULL;
    float sums[IN];
    CHECK(wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &a.tensor, NULL, 0, NULL));
    CHECK(wtacrs_context_norms_dl(context, WTACRS_AXIS_COLUMNS, &a.tensor, sums, IN, NULL));
    REQUIRE(memcmp(sums, zeros, sizeof sums) == 0);
    CHECK(wtacrs_plan_forward_dl(on.plan, &a.tensor, 1, 0, NULL, on.saved, saved_bytes, NULL, 0, NULL));
    CHECK(wtacrs_plan_backward_dl(on.plan, on.saved, saved_bytes, &b.tensor, place(&c, one, 2, of_dw, NULL), NULL, NULL, 0,
                                  NULL));
    check_output(&c, zeros, 0);
    CHECK(wtacrs_plan_gather_dl(on.plan, &a.tensor, selection, &a.tensor, NULL));
    CHECK(wtacrs_plan_weight_gradient_dl(on.plan, &a.tensor, selection, &b.tensor, place(&c, one, 2, of_dw, NULL), 0, NULL,
                                         0, NULL));
    check_output(&c, zeros, 0);
    CHECK(wtacrs_plan_estimate_dl(on.plan, &a.tensor, &b.tensor, 1, 0, place(&c, one, 2, of_dw, NULL), on.estimate,
                                  on.info.estimate_scratch_bytes, NULL));
    check_output(&c, zeros, 0);
    CHECK(wtacrs_plan_expected_error_dl(on.plan, &a.tensor, &b.tensor, NULL, &error, &exact, &size));
    REQUIRE(error == 0 && size == 0);
  }
  discard(on);
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
  CHECK(wtacrs_tensor_mul_create(&product));
  CHECK(wtacrs_tensor_mul_set_shape(product, (size_t)batch, HEADS, ROWS, INNER, COLUMNS));
  CHECK(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 3));
  CHECK(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, 4));
  CHECK(wtacrs_tensor_mul_plan_create(context, product, &plan));
  CHECK(wtacrs_tensor_mul_destroy(product));
  const wtacrs_tensor_mul_plan_info info = product_info_of(plan);
  const size_t saved_bytes = info.saved_bytes, scratch_bytes = info.backward_scratch_bytes;
  void *saved = aligned(saved_bytes), *again = aligned(saved_bytes), *scratch = aligned(scratch_bytes);
  memset(saved, 0, saved_bytes), memset(again, 0, saved_bytes);
  CHECK(wtacrs_tensor_mul_plan_forward(plan, x, y, 8, 9, NULL, saved, saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_tensor_mul_plan_backward(plan, saved, saved_bytes, g, dx, dy, NULL, scratch, scratch_bytes, NULL));
  const int64_t of_x[AXES] = {batch, HEADS, ROWS, INNER}, of_y[AXES] = {batch, HEADS, INNER, COLUMNS},
                of_g[AXES] = {batch, HEADS, ROWS, COLUMNS};
  for (int i = 0; i < LAYOUTS; i++) {
    const Layout *one = &layouts[i], *two = &layouts[(i + 3) % LAYOUTS], *three = &layouts[(i * 3 + 1) % LAYOUTS];
    now = one->name;
    CHECK(wtacrs_tensor_mul_plan_forward_dl(plan, place(&a, one, AXES, of_x, x), place(&b, two, AXES, of_y, y), 8, 9, NULL,
                                            again, saved_bytes, NULL, 0, NULL));
    REQUIRE(memcmp(saved, again, saved_bytes) == 0);
    CHECK(wtacrs_tensor_mul_plan_backward_dl(plan, saved, saved_bytes, place(&a, three, AXES, of_g, g),
                                             place(&b, one, AXES, of_x, NULL), place(&c, two, AXES, of_y, NULL), NULL,
                                             scratch, scratch_bytes, NULL));
    check_output(&b, dx, 1e-5f);
    check_output(&c, dy, 1e-5f);
  }
  CHECK(wtacrs_tensor_mul_plan_destroy(plan));
  free(saved), free(again), free(scratch);
}

int main(void) {
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  linear();
  no_tokens();
  tensor_mul(BATCH);
  tensor_mul(0);
  CHECK(wtacrs_context_destroy(context));
  return finish();
}
