/* Operators: every operation in every packing beside its formula, what it saves, passes in place, and what is refused. */
#include "check.h"

enum { ROWS = 20, COLUMNS = 200, ELEMENTS = ROWS * COLUMNS, OPERATIONS = 8, PACKINGS = 4 };

static wtacrs_context *context;
static float x[ELEMENTS], gate[ELEMENTS], dy[ELEMENTS], weight[COLUMNS], bias[COLUMNS];

static const char *NAMES[OPERATIONS] = {"identity", "relu", "gelu", "gelu_tanh", "silu", "softmax", "layer_norm", "rms_norm"};
static const size_t BITS[PACKINGS] = {0, 8, 4, 2};
/* The largest relative errors of a gradient, from packing alone. */
static const double ERRORS[PACKINGS] = {1e-5, 0.02, 0.3, 1.5};

static int is_activation(int operation) { return operation >= WTACRS_OPERATION_RELU && operation <= WTACRS_OPERATION_SILU; }
static int is_norm(int operation) { return operation >= WTACRS_OPERATION_LAYER_NORM; }

/* y and gradients, and what made them. */
typedef struct {
  float y[ELEMENTS], dx[ELEMENTS], dgate[ELEMENTS], dweight[COLUMNS], dbias[COLUMNS];
} results;

typedef struct {
  wtacrs_operation operation;
  int gated;
  wtacrs_packing packing;
  double dropout;
} setting;

static wtacrs_operator *describe_operator(setting of) {
  wtacrs_operator *op;
  CHECK(wtacrs_operator_create(&op));
  CHECK(wtacrs_operator_set_operation(op, of.operation, of.gated));
  CHECK(wtacrs_operator_set_shape(op, ROWS, COLUMNS));
  CHECK(wtacrs_operator_set_packing(op, of.packing));
  CHECK(wtacrs_operator_set_dropout(op, of.dropout));
  return op;
}

static wtacrs_operator_plan_info info_of_operator(const wtacrs_operator_plan *plan) {
  wtacrs_operator_plan_info info = {.size = sizeof info};
  CHECK(wtacrs_operator_plan_get_info(plan, &info));
  return info;
}

/* A plan with memory for one call at a time. */
typedef struct {
  wtacrs_operator_plan *plan;
  wtacrs_operator_plan_info info;
  void *saved, *scratch;
} operator_on;

static operator_on equip_operator(wtacrs_operator *op) {
  operator_on on;
  CHECK(wtacrs_operator_plan_create(context, op, &on.plan));
  CHECK(wtacrs_operator_destroy(op));
  on.info = info_of_operator(on.plan);
  on.saved = on.info.saved_bytes ? aligned(on.info.saved_bytes) : NULL;
  on.scratch = on.info.backward_scratch_bytes ? aligned(on.info.backward_scratch_bytes) : NULL;
  return on;
}

static void discard_operator(operator_on on) {
  CHECK(wtacrs_operator_plan_destroy(on.plan));
  free(on.saved), free(on.scratch);
}

static wtacrs_status forward(operator_on on, const wtacrs_operator_forward *operands, uint64_t offset) {
  return wtacrs_operator_plan_forward(on.plan, operands, 42, offset, on.saved, on.info.saved_bytes, NULL);
}

static wtacrs_status backward(operator_on on, const wtacrs_operator_backward *operands) {
  return wtacrs_operator_plan_backward(on.plan, operands, on.saved, on.info.saved_bytes, on.scratch,
                                       on.info.backward_scratch_bytes, NULL);
}

/* Both passes, with what the operator has and nothing else; in place where that is asked for. */
static void passes(operator_on on, setting of, int in_place, uint64_t offset, results *to) {
  const int norm = is_norm(of.operation), layer_norm = of.operation == WTACRS_OPERATION_LAYER_NORM;
  if (in_place) memcpy(to->y, x, sizeof x), memcpy(to->dx, dy, sizeof dy);
  const wtacrs_operator_forward forwards = {.size = sizeof forwards,
                                            .x = in_place ? to->y : x,
                                            .gate = of.gated ? gate : NULL,
                                            .weight = norm ? weight : NULL,
                                            .bias = layer_norm ? bias : NULL,
                                            .y = to->y};
  CHECK(forward(on, &forwards, offset));
  const wtacrs_operator_backward backwards = {.size = sizeof backwards,
                                              .x = on.info.keeps_input ? x : NULL,
                                              .gate = on.info.keeps_gate ? gate : NULL,
                                              .y = on.info.keeps_output ? to->y : NULL,
                                              .weight = norm ? weight : NULL,
                                              .dy = in_place ? to->dx : dy,
                                              .dx = to->dx,
                                              .dgate = of.gated ? to->dgate : NULL,
                                              .dweight = norm ? to->dweight : NULL,
                                              .dbias = layer_norm ? to->dbias : NULL};
  CHECK(backward(on, &backwards));
}

/* An activation function and its slope. */
static double act(int operation, double v, double *slope) {
  const double normal = 0.5 * (1 + erf(v / sqrt(2))), density = exp(-v * v / 2) / sqrt(8 * atan(1));
  const double c = sqrt(0.5 / atan(1)), t = tanh(c * (v + 0.044715 * v * v * v)), s = 1 / (1 + exp(-v));
  switch (operation) {
    case WTACRS_OPERATION_RELU: return *slope = v > 0, v > 0 ? v : 0;
    case WTACRS_OPERATION_GELU: return *slope = normal + v * density, v * normal;
    case WTACRS_OPERATION_GELU_TANH:
      return *slope = 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * c * (1 + 3 * 0.044715 * v * v), 0.5 * v * (1 + t);
    case WTACRS_OPERATION_SILU: return *slope = s * (1 + v * (1 - s)), v * s;
    default: return *slope = 1, v;
  }
}

/* One row of a softmax or a norm by its formula. */
static void expected_row(int operation, const float *v, const float *d, float *y, float *dx, results *to) {
  double mean = 0, variance = 0, sum = 0, largest = v[0], along = 0, average = 0, normed[COLUMNS], g[COLUMNS];
  for (int j = 0; j < COLUMNS; j++) mean += v[j] / (double)COLUMNS, largest = fmax(largest, v[j]);
  if (operation == WTACRS_OPERATION_RMS_NORM) mean = 0;
  for (int j = 0; j < COLUMNS; j++) {
    variance += (v[j] - mean) * (v[j] - mean) / COLUMNS;
    sum += exp(v[j] - largest);
  }
  const double inverse = 1 / sqrt(variance + 1e-5);
  for (int j = 0; j < COLUMNS; j++) {
    normed[j] = operation == WTACRS_OPERATION_SOFTMAX ? exp(v[j] - largest) / sum : (v[j] - mean) * inverse;
    g[j] = operation == WTACRS_OPERATION_SOFTMAX ? d[j] : d[j] * (double)weight[j];
    along += g[j] * normed[j], average += g[j] / COLUMNS;
  }
  for (int j = 0; j < COLUMNS; j++) {
    if (operation == WTACRS_OPERATION_SOFTMAX) {
      y[j] = (float)normed[j], dx[j] = (float)(normed[j] * (g[j] - along));
      continue;
    }
    const int has_mean = operation == WTACRS_OPERATION_LAYER_NORM;
    y[j] = (float)(normed[j] * weight[j] + (has_mean ? bias[j] : 0));
    dx[j] = (float)(inverse * (g[j] - (has_mean ? average : 0) - normed[j] * along / COLUMNS));
    to->dweight[j] += (float)(d[j] * normed[j]), to->dbias[j] += d[j];
  }
}

static void expected(setting of, results *to) {
  memset(to, 0, sizeof *to);
  if (of.operation >= WTACRS_OPERATION_SOFTMAX) {
    for (int i = 0; i < ELEMENTS; i += COLUMNS) expected_row(of.operation, x + i, dy + i, to->y + i, to->dx + i, to);
    return;
  }
  for (int i = 0; i < ELEMENTS; i++) {
    double slope, value = act(of.operation, x[i], &slope), by = of.gated ? gate[i] : 1;
    to->y[i] = (float)(value * by), to->dx[i] = (float)(dy[i] * slope * by), to->dgate[i] = (float)(dy[i] * value);
  }
}

/* Bytes behind the header: codes of groups of 128 and of 72 columns, which takes 128; a grid of each; numbers of each row. */
static size_t bytes_behind_header(setting of) {
  const size_t bits = BITS[of.packing], codes = ROWS * 256 * bits / 8, grids = ROWS * 2 * 4;
  if (of.operation == WTACRS_OPERATION_RELU && !of.gated) return ROWS * 7 * 4; /* words of 32 elements */
  if (of.packing == WTACRS_PACKING_NATIVE) return is_norm(of.operation) ? ROWS * (of.operation == WTACRS_OPERATION_LAYER_NORM ? 8 : 4) : 0;
  if (of.gated) return 2 * (codes + grids);
  return codes + (is_activation(of.operation) ? 0 : grids) + (is_norm(of.operation) ? ROWS * 4 : 0);
}

static void sizes(setting of, const wtacrs_operator_plan_info *info) {
  const int native = of.packing == WTACRS_PACKING_NATIVE, relu = of.operation == WTACRS_OPERATION_RELU && !of.gated;
  const size_t behind = bytes_behind_header(of);
  const uint64_t packed = !native && !relu ? ROWS : 0, dropped = of.dropout > 0 ? ROWS * COLUMNS / 4 : 0;
  REQUIRE(info->draws == (packed > dropped ? packed : dropped) && info->alignment == 64);
  REQUIRE(info->saved_bytes == (behind || info->draws ? 64 + behind : 0));
  const int keeps = native && !relu;
  REQUIRE(info->keeps_input == (keeps && (is_activation(of.operation) || is_norm(of.operation))));
  REQUIRE(info->keeps_gate == (keeps && of.gated));
  REQUIRE(info->keeps_output == (keeps && of.operation == WTACRS_OPERATION_SOFTMAX));
  REQUIRE(info->restores == (!native && (of.operation == WTACRS_OPERATION_IDENTITY || of.operation == WTACRS_OPERATION_SOFTMAX)));
}

static void close_to(const float *found, const float *formula, size_t count, double most, const char *what) {
  const double error = distance(found, formula, count);
  if (error <= most) return;
  printf("%s: an error of %.3g in %s\n", now, error, what);
  failures++;
}

static void operation(setting of) {
  static results exact, apart, within;
  expected(of, &exact);
  operator_on on = equip_operator(describe_operator(of));
  sizes(of, &on.info);
  passes(on, of, 0, 0, &apart);
  const double most = ERRORS[of.packing];
  close_to(apart.y, exact.y, ELEMENTS, 1e-5, "y");
  close_to(apart.dx, exact.dx, ELEMENTS, most, "dx");
  if (of.gated) close_to(apart.dgate, exact.dgate, ELEMENTS, most, "dgate");
  if (is_norm(of.operation)) close_to(apart.dweight, exact.dweight, COLUMNS, most, "dweight");
  if (of.operation == WTACRS_OPERATION_LAYER_NORM) close_to(apart.dbias, exact.dbias, COLUMNS, 1e-5, "dbias");

  /* In place the same bits; and the same saved bytes where y is not asked for. */
  void *before = aligned(on.info.saved_bytes);
  if (on.saved) memcpy(before, on.saved, on.info.saved_bytes);
  passes(on, of, 1, 0, &within);
  REQUIRE(memcmp(apart.y, within.y, sizeof apart.y) == 0 && memcmp(apart.dx, within.dx, sizeof apart.dx) == 0);
  const wtacrs_operator_forward only = {.size = sizeof only, .x = x, .gate = of.gated ? gate : NULL};
  CHECK(forward(on, &only, 0));
  REQUIRE(!on.saved || memcmp(before, on.saved, on.info.saved_bytes) == 0);
  if (on.info.draws) {
    CHECK(forward(on, &only, on.info.draws));
    REQUIRE(memcmp(before, on.saved, on.info.saved_bytes) != 0);
  }
  free(before);

  if (on.info.restores) {
    static float restored[ELEMENTS];
    CHECK(wtacrs_operator_plan_restore(on.plan, on.saved, on.info.saved_bytes, restored, NULL));
    close_to(restored, exact.y, ELEMENTS, most, "what is restored");
  } else {
    EXPECT_WORDS(UNSUPPORTED, "cannot be restored",
                 wtacrs_operator_plan_restore(on.plan, on.saved, on.info.saved_bytes, within.y, NULL));
  }
  discard_operator(on);
}

/* Elements are dropped as often as asked, the others grow, and the backward pass has the same mask. */
static void dropout(setting of) {
  static results without, with;
  expected(of, &without);
  of.dropout = 0.25;
  operator_on on = equip_operator(describe_operator(of));
  sizes(of, &on.info);
  passes(on, of, 0, 1000, &with);
  int kept = 0, counted = 0;
  for (int i = 0; i < ELEMENTS; i++) {
    if (fabs(without.y[i]) < 1e-3) continue;
    counted++, kept += with.y[i] != 0;
    if (with.y[i] != 0) REQUIRE(fabs(with.y[i] * 0.75 - without.y[i]) < 1e-5 * (1 + fabs(without.y[i])));
    else if (of.operation < WTACRS_OPERATION_SOFTMAX) REQUIRE(with.dx[i] == 0);
  }
  const double share = (double)kept / counted;
  REQUIRE(fabs(share - 0.75) < 5 * sqrt(0.1875 / counted));
  discard_operator(on);
}

/* A further offset counts as the offset does. */
static void further_offset(void) {
  now = "further offset";
  static float y[2][ELEMENTS];
  static const uint64_t further = 88;
  for (int i = 0; i < 2; i++) {
    wtacrs_operator *op = describe_operator((setting){WTACRS_OPERATION_GELU, 0, WTACRS_PACKING_BITS4, 0.5});
    CHECK(wtacrs_operator_set_further_offset(op, i ? &further : NULL));
    operator_on on = equip_operator(op);
    CHECK(forward(on, SIZED(wtacrs_operator_forward, .x = x, .y = y[i]), i ? 12 : 100));
    discard_operator(on);
  }
  REQUIRE(memcmp(y[0], y[1], sizeof y[0]) == 0);
}

/* Elements that are not finite are no error. */
static void not_finite(void) {
  now = "not finite";
  static results to;
  const float kept = x[7];
  const setting of = {WTACRS_OPERATION_IDENTITY, 0, WTACRS_PACKING_BITS8, 0};
  operator_on on = equip_operator(describe_operator(of));
  x[7] = NAN;
  passes(on, of, 0, 0, &to);
  CHECK(wtacrs_operator_plan_restore(on.plan, on.saved, on.info.saved_bytes, to.y, NULL));
  for (int j = 0; j < COLUMNS; j++) REQUIRE(isnan(to.y[j]) == (j < 128));
  x[7] = kept;
  discard_operator(on);
}

static void half_precision(void) {
  now = "half precision";
  const wtacrs_dtype dtypes[] = {WTACRS_DTYPE_F16, WTACRS_DTYPE_BF16};
  for (int i = 0; i < 2; i++) {
    /* 0, 1, -2 and 3 as f16 and bf16. */
    static const uint16_t values[2][4] = {{0, 0x3c00, 0xc000, 0x4200}, {0, 0x3f80, 0xc000, 0x4040}};
    uint16_t half[8], ones[8], y[8], gradient[8];
    for (int j = 0; j < 8; j++) half[j] = values[i][j % 4], ones[j] = values[i][1];
    wtacrs_operator *op = describe_operator((setting){WTACRS_OPERATION_RELU, 0, WTACRS_PACKING_NATIVE, 0});
    CHECK(wtacrs_operator_set_shape(op, 2, 4));
    CHECK(wtacrs_operator_set_dtype(op, dtypes[i]));
    operator_on on = equip_operator(op);
    REQUIRE(on.info.saved_bytes == 64 + 2 * 4);
    CHECK(forward(on, SIZED(wtacrs_operator_forward, .x = half, .y = y), 0));
    CHECK(backward(on, SIZED(wtacrs_operator_backward, .dy = ones, .dx = gradient)));
    for (int j = 0; j < 8; j++) {
      const int positive = j % 4 == 1 || j % 4 == 3;
      REQUIRE(y[j] == (positive ? half[j] : 0) && gradient[j] == (positive ? ones[j] : 0));
    }
    discard_operator(on);
  }
}

static void descriptions(void) {
  now = "descriptions";
  wtacrs_operator *op;
  wtacrs_operator_plan *plan = NULL;
  CHECK(wtacrs_operator_create(&op));
  EXPECT_WORDS(INVALID_ARGUMENT, "operation was not set", wtacrs_operator_plan_create(context, op, &plan));
  EXPECT(INVALID_ENUM, wtacrs_operator_set_operation(op, 8, 0));
  EXPECT_WORDS(INVALID_ENUM, "gated is 2", wtacrs_operator_set_operation(op, WTACRS_OPERATION_GELU, 2));
  EXPECT_WORDS(INVALID_ARGUMENT, "cannot be gated", wtacrs_operator_set_operation(op, WTACRS_OPERATION_RMS_NORM, 1));
  CHECK(wtacrs_operator_set_operation(op, WTACRS_OPERATION_SOFTMAX, 0));
  EXPECT_WORDS(INVALID_ARGUMENT, "shape was not set", wtacrs_operator_plan_create(context, op, &plan));
  EXPECT(SIZE_OVERFLOW, wtacrs_operator_set_shape(op, SIZE_MAX / 4, 5));
  EXPECT(SIZE_OVERFLOW, wtacrs_operator_set_shape(op, 0, SIZE_MAX));
  CHECK(wtacrs_operator_set_shape(op, ROWS, COLUMNS));
  EXPECT(INVALID_ENUM, wtacrs_operator_set_dtype(op, 4));
  EXPECT_WORDS(UNSUPPORTED, "F64", wtacrs_operator_set_dtype(op, WTACRS_DTYPE_F64));
  EXPECT(INVALID_ENUM, wtacrs_operator_set_packing(op, -1));
  const double probabilities[] = {-0.1, 1, 2, NAN, INFINITY};
  for (int i = 0; i < 5; i++) EXPECT_WORDS(INVALID_ARGUMENT, "probability", wtacrs_operator_set_dropout(op, probabilities[i]));
  const double epsilons[] = {-1e-9, NAN, INFINITY, 1e300};
  for (int i = 0; i < 4; i++) EXPECT_WORDS(INVALID_ARGUMENT, "epsilon", wtacrs_operator_set_epsilon(op, epsilons[i]));
  EXPECT(MISALIGNED, wtacrs_operator_set_further_offset(op, shifted(x, 4)));
  CHECK(wtacrs_operator_set_dropout(op, 0.1));
  EXPECT_WORDS(UNSUPPORTED, "softmax keeps its output", wtacrs_operator_plan_create(context, op, &plan));
  CHECK(wtacrs_operator_set_packing(op, WTACRS_PACKING_BITS8));
  EXPECT(NULL_POINTER, wtacrs_operator_plan_create(context, op, NULL));
  EXPECT(NULL_POINTER, wtacrs_operator_plan_create(NULL, op, &plan));
  EXPECT(NULL_POINTER, wtacrs_operator_plan_create(context, NULL, &plan));
  /* Rows that can be addressed, of which what is saved cannot: 40 bytes of each element. */
  CHECK(wtacrs_operator_set_operation(op, WTACRS_OPERATION_SILU, 1));
  CHECK(wtacrs_operator_set_shape(op, SIZE_MAX / 32, 1));
  EXPECT_WORDS(SIZE_OVERFLOW, "saved", wtacrs_operator_plan_create(context, op, &plan));
  CHECK(wtacrs_operator_set_operation(op, WTACRS_OPERATION_LAYER_NORM, 0));
  CHECK(wtacrs_operator_set_shape(op, SIZE_MAX, 0));
  EXPECT_WORDS(SIZE_OVERFLOW, "saved", wtacrs_operator_plan_create(context, op, &plan));
  REQUIRE(plan == NULL);
  CHECK(wtacrs_operator_destroy(op));
}

/* Refused calls write nothing. */
static void refused_passes(void) {
  now = "refused passes";
  static results to;
  static float more[2 * ELEMENTS];
  operator_on gated = equip_operator(describe_operator((setting){WTACRS_OPERATION_SILU, 1, WTACRS_PACKING_BITS8, 0}));
  operator_on norm = equip_operator(describe_operator((setting){WTACRS_OPERATION_RMS_NORM, 0, WTACRS_PACKING_NATIVE, 0}));
  operator_on plain = equip_operator(describe_operator((setting){WTACRS_OPERATION_GELU, 0, WTACRS_PACKING_BITS4, 0}));
  watch(&to, sizeof to), watch(more, sizeof more), watch(plain.saved, plain.info.saved_bytes);
  watch(gated.saved, gated.info.saved_bytes), watch(norm.saved, norm.info.saved_bytes);
#define FORWARD(...) SIZED(wtacrs_operator_forward, __VA_ARGS__)
#define BACKWARD(...) SIZED(wtacrs_operator_backward, __VA_ARGS__)
  UNCHANGED(NULL_POINTER, "x is NULL", forward(plain, NULL, 0));
  UNCHANGED(NULL_POINTER, "x is NULL", forward(plain, FORWARD(.y = to.y), 0));
  UNCHANGED(NULL_POINTER, "gate is NULL", forward(gated, FORWARD(.x = x, .y = to.y), 0));
  UNCHANGED(INVALID_ARGUMENT, "gate was given", forward(plain, FORWARD(.x = x, .gate = gate, .y = to.y), 0));
  UNCHANGED(INVALID_ARGUMENT, "weight was given", forward(plain, FORWARD(.x = x, .weight = weight, .y = to.y), 0));
  UNCHANGED(INVALID_ARGUMENT, "bias was given", forward(norm, FORWARD(.x = x, .bias = bias, .y = to.y), 0));
  UNCHANGED(MISALIGNED, "x is at", forward(plain, FORWARD(.x = shifted(x, 2), .y = to.y), 0));
  UNCHANGED(MISALIGNED, "y is at", forward(plain, FORWARD(.x = x, .y = shifted(to.y, 1)), 0));
  UNCHANGED(MISALIGNED, "weight is at", forward(norm, FORWARD(.x = x, .weight = shifted(weight, 3), .y = to.y), 0));
  UNCHANGED(OVERLAP, "y shares memory with x", forward(plain, FORWARD(.x = more, .y = more + 1), 0));
  UNCHANGED(OVERLAP, "y shares memory with gate", forward(gated, FORWARD(.x = x, .gate = more, .y = more), 0));
  UNCHANGED(OVERLAP, "y shares memory with gate", forward(gated, FORWARD(.x = more, .gate = more, .y = more), 0));
  UNCHANGED(OVERLAP, "y shares memory with weight", forward(norm, FORWARD(.x = x, .weight = more, .y = more), 0));
  UNCHANGED(BUFFER_TOO_SMALL, "saved",
            wtacrs_operator_plan_forward(plain.plan, FORWARD(.x = x, .y = to.y), 0, 0, plain.saved, plain.info.saved_bytes - 1, NULL));
  UNCHANGED(NULL_POINTER, "saved",
            wtacrs_operator_plan_forward(plain.plan, FORWARD(.x = x, .y = to.y), 0, 0, NULL, plain.info.saved_bytes, NULL));
  UNCHANGED(MISALIGNED, "saved", wtacrs_operator_plan_forward(plain.plan, FORWARD(.x = x, .y = to.y), 0, 0, shifted(plain.saved, 4),
                                                              plain.info.saved_bytes, NULL));
  UNCHANGED(OVERLAP, "saved", forward(plain, FORWARD(.x = plain.saved, .y = to.y), 0));
  UNCHANGED(OVERLAP, "y shares memory with saved", forward(plain, FORWARD(.x = x, .y = plain.saved), 0));

  UNCHANGED(CORRUPTED, "was not written", backward(plain, BACKWARD(.dy = dy, .dx = to.dx)));
  CHECK(forward(plain, FORWARD(.x = x, .y = to.y), 0));
  CHECK(forward(gated, FORWARD(.x = x, .gate = gate, .y = to.y), 0));
  CHECK(forward(norm, FORWARD(.x = x, .y = to.y), 0));
  UNCHANGED(NULL_POINTER, "dy is NULL", backward(plain, NULL));
  UNCHANGED(NULL_POINTER, "dx is NULL", backward(plain, BACKWARD(.dy = dy)));
  UNCHANGED(NULL_POINTER, "dgate is NULL", backward(gated, BACKWARD(.dy = dy, .dx = to.dx)));
  UNCHANGED(NULL_POINTER, "x is NULL", backward(norm, BACKWARD(.dy = dy, .dx = to.dx)));
  UNCHANGED(INVALID_ARGUMENT, "x was given", backward(plain, BACKWARD(.x = x, .dy = dy, .dx = to.dx)));
  UNCHANGED(INVALID_ARGUMENT, "y was given", backward(plain, BACKWARD(.y = x, .dy = dy, .dx = to.dx)));
  UNCHANGED(INVALID_ARGUMENT, "gate was given", backward(gated, BACKWARD(.gate = x, .dy = dy, .dx = to.dx, .dgate = to.dgate)));
  UNCHANGED(INVALID_ARGUMENT, "dgate was given", backward(plain, BACKWARD(.dy = dy, .dx = to.dx, .dgate = to.dgate)));
  UNCHANGED(INVALID_ARGUMENT, "dweight was given", backward(plain, BACKWARD(.dy = dy, .dx = to.dx, .dweight = to.dweight)));
  UNCHANGED(INVALID_ARGUMENT, "dbias was given", backward(norm, BACKWARD(.x = x, .dy = dy, .dx = to.dx, .dbias = to.dbias)));
  UNCHANGED(OVERLAP, "dx shares memory with dy", backward(plain, BACKWARD(.dy = more, .dx = more + 1)));
  UNCHANGED(OVERLAP, "dx shares memory with x", backward(norm, BACKWARD(.x = more, .dy = dy, .dx = more)));
  UNCHANGED(OVERLAP, "dx shares memory with dgate", backward(gated, BACKWARD(.dy = dy, .dx = more, .dgate = more + ELEMENTS - 1)));
  UNCHANGED(OVERLAP, "dgate shares memory with dy", backward(gated, BACKWARD(.dy = more, .dx = to.dx, .dgate = more)));
  UNCHANGED(OVERLAP, "shares memory with saved", backward(plain, BACKWARD(.dy = dy, .dx = plain.saved)));

  /* Other operators' saved memory: of another packing, operation, dropout and shape. */
  const setting others[] = {{WTACRS_OPERATION_GELU, 0, WTACRS_PACKING_BITS2, 0},
                            {WTACRS_OPERATION_GELU_TANH, 0, WTACRS_PACKING_BITS4, 0},
                            {WTACRS_OPERATION_GELU, 0, WTACRS_PACKING_BITS4, 0.5}};
  for (int i = 0; i < 5; i++) {
    wtacrs_operator *op = describe_operator(others[i < 3 ? i : 0]);
    if (i >= 3) CHECK(wtacrs_operator_set_packing(op, WTACRS_PACKING_BITS4));
    if (i == 3) CHECK(wtacrs_operator_set_shape(op, ROWS / 2, 2 * COLUMNS));
    if (i == 4) CHECK(wtacrs_operator_set_dtype(op, WTACRS_DTYPE_F16));
    operator_on other = equip_operator(op);
    free(other.saved), other.saved = aligned(1 << 16);
    memcpy(other.saved, plain.saved, plain.info.saved_bytes);
    UNCHANGED(SHAPE_MISMATCH, "another operator's: Gelu of 20 x 200 elements, F32, packed in 4 bits",
              backward(other, BACKWARD(.dy = dy, .dx = to.dx)));
    discard_operator(other);
  }
  unsigned char *header = plain.saved;
  header[16] ^= 1;
  UNCHANGED(CORRUPTED, "has been changed", backward(plain, BACKWARD(.dy = dy, .dx = to.dx)));
  header[16] ^= 1, header[8] ^= 64;
  UNCHANGED(VERSION_MISMATCH, "version 65", backward(plain, BACKWARD(.dy = dy, .dx = to.dx)));
  header[8] ^= 64;
  EXPECT(OK, backward(plain, BACKWARD(.dy = dy, .dx = to.dx)));
  discard_operator(gated), discard_operator(norm), discard_operator(plain);
}

/* Nothing of any size, for which pointers may be NULL. */
static void nothing(void) {
  for (int i = 0; i < OPERATIONS; i++)
    for (int packing = 0; packing < PACKINGS; packing++)
      for (int empty = 0; empty < 3; empty++) {
        now = NAMES[i];
        wtacrs_operator *op = describe_operator((setting){(wtacrs_operation)i, 0, (wtacrs_packing)packing, packing ? 0.5 : 0});
        CHECK(wtacrs_operator_set_shape(op, empty & 1 ? 3 : 0, empty & 2 ? 4 : 0));
        operator_on on = equip_operator(op);
        CHECK(forward(on, NULL, 0));
        float sums[4] = {1, 1, 1, 1};
        const int summed = is_norm(i) && empty == 2;
        CHECK(backward(on, BACKWARD(.dweight = summed ? sums : NULL)));
        for (int j = 0; j < 4; j++) REQUIRE(sums[j] == (summed ? 0 : 1));
        if (on.info.restores) CHECK(wtacrs_operator_plan_restore(on.plan, on.saved, on.info.saved_bytes, NULL, NULL));
        discard_operator(on);
      }
}

int main(void) {
  unsigned state = 1;
#define NEXT (state = state * 1664525 + 1013904223, (float)(state >> 16) / 16384 - 2)
  for (int i = 0; i < ELEMENTS; i++) x[i] = NEXT, gate[i] = NEXT, dy[i] = NEXT;
  for (int j = 0; j < COLUMNS; j++) weight[j] = NEXT, bias[j] = NEXT;
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  for (int i = 0; i < OPERATIONS; i++)
    for (int gated = 0; gated <= is_activation(i); gated++)
      for (int packing = 0; packing < PACKINGS; packing++) {
        const setting of = {(wtacrs_operation)i, gated, (wtacrs_packing)packing, 0};
        now = NAMES[i];
        operation(of);
        if (i != WTACRS_OPERATION_SOFTMAX || packing) dropout(of);
      }
  further_offset(), not_finite(), half_precision(), descriptions(), refused_passes(), nothing();
  CHECK(wtacrs_context_destroy(context));
  return finish();
}
