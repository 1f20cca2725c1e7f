/* Structs that carry their size: a caller of today, one that was compiled against an earlier, shorter struct and one with a
 * later, longer one are served, what this library does not know is refused, and no byte outside the struct is looked at. */
#include "check.h"

enum { TOKENS = 32, IN = 12, OUT = 8, BUDGET = 10, LATER = 24 /* bytes of fields that are unknown today */ };

static wtacrs_context *context;
static equipped on;
static wtacrs_tensor_mul_plan *product;
static wtacrs_tensor_mul_plan_info sizes;
static wtacrs_operator_plan *operator_plan;
static wtacrs_operator_plan_info operator_sizes;
static wtacrs_planner *planner;
static float h[TOKENS * IN], dz[TOKENS * OUT], dw[IN * OUT], norms[TOKENS], input_norms[TOKENS], rows[BUDGET * IN];
static float a[4 * 3], b[3 * 5], g[4 * 5], da[4 * 3], db[3 * 5], row_norms[4];
static unsigned char *product_saved, *product_scratch, *operator_saved;
static float layer_y[TOKENS * IN];
static uint32_t indices[BUDGET];
static double scales[BUDGET];
static uint64_t kept, winners;

static int64_t of_h[2] = {TOKENS, IN}, of_dz[2] = {TOKENS, OUT}, of_dw[2] = {IN, OUT};
static int64_t of_a[4] = {1, 1, 4, 3}, of_b[4] = {1, 1, 3, 5}, of_g[4] = {1, 1, 4, 5};
static int64_t of_rows[2] = {BUDGET, IN};

static wtacrs_dltensor tensor(float *data, int32_t axes, int64_t *shape) {
  return (wtacrs_dltensor){data, {1, 0}, axes, {2, 32, 1}, shape, NULL, 0};
}

/* Every call that takes a struct with its size, with everything else as it should be. */
static wtacrs_status forward(void *options) { return forward_pass(on, h, IN, 1, 0, options); }
static wtacrs_status forward_dl(void *options) {
  const wtacrs_dltensor x = tensor(h, 2, of_h);
  return wtacrs_plan_forward_dl(on.plan, &x, 1, 0, options, on.saved, on.info.saved_bytes, NULL, 0, NULL);
}
static wtacrs_status backward(void *options) { return backward_pass(on, dz, OUT, dw, OUT, options); }
static wtacrs_status backward_dl(void *options) {
  const wtacrs_dltensor x = tensor(dz, 2, of_dz), to = tensor(dw, 2, of_dw);
  return wtacrs_plan_backward_dl(on.plan, on.saved, on.info.saved_bytes, &x, &to, options, on.backward,
                                 on.info.backward_scratch_bytes, NULL);
}
static wtacrs_status saved_selection(void *selection) {
  return wtacrs_plan_saved_selection(on.plan, on.saved, on.info.saved_bytes, selection);
}
static wtacrs_status select_rows(void *selection) {
  return wtacrs_plan_select(on.plan, input_norms, NULL, 1, 0, 0, selection, NULL, 0, NULL);
}
static wtacrs_status gather(void *selection) { return wtacrs_plan_gather(on.plan, h, IN, selection, rows, IN, NULL); }
static wtacrs_status gather_dl(void *selection) {
  const wtacrs_dltensor x = tensor(h, 2, of_h), to = tensor(rows, 2, of_rows);
  return wtacrs_plan_gather_dl(on.plan, &x, selection, &to, NULL);
}
static wtacrs_status weight_gradient(void *selection) {
  return wtacrs_plan_weight_gradient(on.plan, rows, IN, selection, dz, OUT, dw, OUT, 0, on.weight_gradient,
                                     on.info.weight_gradient_scratch_bytes, NULL);
}
static wtacrs_status weight_gradient_dl(void *selection) {
  const wtacrs_dltensor of = tensor(rows, 2, of_rows), x = tensor(dz, 2, of_dz), to = tensor(dw, 2, of_dw);
  return wtacrs_plan_weight_gradient_dl(on.plan, &of, selection, &x, &to, 0, on.weight_gradient,
                                        on.info.weight_gradient_scratch_bytes, NULL);
}
static wtacrs_status predictor_create(void *options) {
  wtacrs_norm_predictor *made = NULL;
  wtacrs_status status = wtacrs_norm_predictor_create(context, IN, options, &made);
  REQUIRE((made != NULL) == (status == WTACRS_STATUS_OK));
  CHECK(wtacrs_norm_predictor_destroy(made));
  return status;
}
static wtacrs_status product_forward(void *options) {
  return wtacrs_tensor_mul_plan_forward(product, a, b, 1, 0, options, product_saved, sizes.saved_bytes, NULL, 0, NULL);
}
static wtacrs_status product_forward_dl(void *options) {
  const wtacrs_dltensor x = tensor(a, 4, of_a), y = tensor(b, 4, of_b);
  return wtacrs_tensor_mul_plan_forward_dl(product, &x, &y, 1, 0, options, product_saved, sizes.saved_bytes, NULL, 0, NULL);
}
static wtacrs_status product_backward(void *options) {
  return wtacrs_tensor_mul_plan_backward(product, product_saved, sizes.saved_bytes, g, da, db, options, product_scratch,
                                         sizes.backward_scratch_bytes, NULL);
}
static wtacrs_status product_backward_dl(void *options) {
  const wtacrs_dltensor x = tensor(g, 4, of_g), left = tensor(da, 4, of_a), right = tensor(db, 4, of_b);
  return wtacrs_tensor_mul_plan_backward_dl(product, product_saved, sizes.saved_bytes, &x, &left, &right, options,
                                            product_scratch, sizes.backward_scratch_bytes, NULL);
}
static wtacrs_status info(void *into) { return wtacrs_plan_get_info(on.plan, into); }
static wtacrs_status product_info(void *into) { return wtacrs_tensor_mul_plan_get_info(product, into); }

static wtacrs_status operator_forward(void *operands) {
  return wtacrs_operator_plan_forward(operator_plan, operands, 1, 0, operator_saved, operator_sizes.saved_bytes, NULL);
}
static wtacrs_status operator_backward(void *operands) {
  return wtacrs_operator_plan_backward(operator_plan, operands, operator_saved, operator_sizes.saved_bytes, NULL, 0, NULL);
}
static wtacrs_status observe(void *seen) { return wtacrs_planner_observe(planner, 0, seen); }
static wtacrs_status budget(void *into) { return wtacrs_planner_get_budget(planner, 0, into); }
static wtacrs_status operator_info(void *into) { return wtacrs_operator_plan_get_info(operator_plan, into); }

/* A struct of `bytes` in memory of its own, which says that it has `size`: the example, and zeros behind it. */
static unsigned char *struct_of(size_t bytes, size_t size, const void *example, size_t known) {
  unsigned char *made = aligned(bytes);
  memset(made, 0, bytes);
  memcpy(made, example, bytes < known ? bytes : known);
  memcpy(made, &size, sizeof size);
  return made;
}

typedef wtacrs_status call(void *);

static void refused(const char *name, call *function, const void *example, size_t first, size_t known) {
  now = name;
  char words[64];
  snprintf(words, sizeof words, "set it to sizeof, here %zu", known);
  const size_t wrong[] = {0, sizeof(size_t), first - sizeof(size_t), first - 1, SIZE_MAX};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    /* As short as it says, but for the size itself, which is read. */
    size_t bytes = wrong[i] < sizeof(size_t) ? sizeof(size_t) : wrong[i] < known ? wrong[i] : known;
    unsigned char *made = struct_of(bytes, wrong[i], example, known), *before = struct_of(bytes, wrong[i], example, known);
    UNCHANGED(INVALID_ARGUMENT, words, function(made));
    REQUIRE(memcmp(made, before, bytes) == 0);
    free(made), free(before);
  }
  unsigned char *made = struct_of(known + sizeof(size_t), known, example, known);
  memmove(made + 4, made, known);
  UNCHANGED(MISALIGNED, NULL, function(made + 4));
  free(made);
}

/* A struct that is read, of which the first version had `first` bytes. */
static void option(const char *name, call *function, const void *example, size_t first, size_t known, wtacrs_status if_null) {
  refused(name, function, example, first, known);
  unsigned char *made = struct_of(first, first, example, known);
  EXPECT(OK, function(made));
  free(made);
  made = struct_of(known, known, example, known);
  EXPECT(OK, function(made));
  free(made);
  made = struct_of(known + LATER, known + LATER, example, known);
  EXPECT(OK, function(made));
  for (size_t at = 0; at < LATER; at += LATER - 1) {
    made[known + at] = 1;
    UNCHANGED(UNSUPPORTED, "does not know", function(made));
    made[known + at] = 0;
  }
  EXPECT(OK, function(made));
  free(made);
  REQUIRE(function(NULL) == if_null);
}

/* A struct that is written: fields of a later version become zero, and those that an earlier one lacks are not written. */
static void output(const char *name, call *function, const void *filled, size_t first, size_t known) {
  static const unsigned char zeros[LATER];
  refused(name, function, filled, first, known);
  for (size_t more = 0; more <= LATER; more += LATER) {
    size_t size = known + more;
    unsigned char *made = aligned(size);
    memcpy(made, &size, sizeof size);
    EXPECT(OK, function(made));
    REQUIRE(memcmp(made, &size, sizeof size) == 0);
    REQUIRE(memcmp(made + sizeof size, (const unsigned char *)filled + sizeof size, known - sizeof size) == 0);
    REQUIRE(memcmp(made + known, zeros, more) == 0);
    free(made);
  }
  unsigned char *earlier = aligned(first);
  memcpy(earlier, &first, sizeof first);
  EXPECT(OK, function(earlier));
  REQUIRE(memcmp(earlier, &first, sizeof first) == 0);
  REQUIRE(memcmp(earlier + sizeof first, (const unsigned char *)filled + sizeof first, first - sizeof first) == 0);
  free(earlier);
  EXPECT(NULL_POINTER, function(NULL));
}

static unsigned char *predictor_of(const wtacrs_norm_predictor_options *options, size_t *count) {
  wtacrs_norm_predictor *made;
  CHECK(wtacrs_norm_predictor_create(context, IN, options, &made));
  CHECK(wtacrs_norm_predictor_save(made, NULL, 0, count));
  unsigned char *bytes = aligned(*count);
  CHECK(wtacrs_norm_predictor_save(made, bytes, *count, count));
  CHECK(wtacrs_norm_predictor_destroy(made));
  return bytes;
}

/* Zeros stand for the documented defaults. */
static void predictor_defaults(void) {
  now = "defaults";
  const wtacrs_norm_predictor_options zeros = {.size = sizeof zeros};
  const wtacrs_norm_predictor_options defaults = {
      .size = sizeof defaults, .features = 256, .forgetting = 0.97, .ridge = 0.1, .clamp = 6, .rows_per_update = 192};
  wtacrs_norm_predictor_options others = defaults;
  others.ridge = 0.2;
  const wtacrs_norm_predictor_options *given[] = {&zeros, &defaults, &others};
  size_t expected_count, count;
  unsigned char *expected = predictor_of(NULL, &expected_count);
  for (int i = 0; i < 3; i++) {
    unsigned char *bytes = predictor_of(given[i], &count);
    int same = count == expected_count && memcmp(bytes, expected, count) == 0;
    REQUIRE(same == (given[i] != &others));
    free(bytes);
  }
  free(expected);
}

static void make_product(void) {
  wtacrs_tensor_mul *description;
  CHECK(wtacrs_tensor_mul_create(&description));
  CHECK(wtacrs_tensor_mul_set_shape(description, 1, 1, 4, 3, 5));
  CHECK(wtacrs_tensor_mul_set_budget(description, WTACRS_SIDE_LEFT, WTACRS_BUDGET_ROWS, 3));
  CHECK(wtacrs_tensor_mul_set_budget(description, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, 2));
  CHECK(wtacrs_tensor_mul_plan_create(context, description, &product));
  CHECK(wtacrs_tensor_mul_destroy(description));
  sizes = product_info_of(product);
  product_saved = aligned(sizes.saved_bytes), product_scratch = aligned(sizes.backward_scratch_bytes);
}

static void make_operator(void) {
  wtacrs_operator *op;
  CHECK(wtacrs_operator_create(&op));
  CHECK(wtacrs_operator_set_operation(op, WTACRS_OPERATION_LAYER_NORM, 0));
  CHECK(wtacrs_operator_set_shape(op, TOKENS, IN));
  CHECK(wtacrs_operator_set_packing(op, WTACRS_PACKING_BITS8));
  CHECK(wtacrs_operator_plan_create(context, op, &operator_plan));
  CHECK(wtacrs_operator_destroy(op));
  operator_sizes = (wtacrs_operator_plan_info){.size = sizeof operator_sizes};
  CHECK(wtacrs_operator_plan_get_info(operator_plan, &operator_sizes));
  operator_saved = aligned(operator_sizes.saved_bytes);
}

int main(void) {
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)((i * 37) % 19) / 9 - 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)((i * 23) % 17) / 8 - 1;
  for (int i = 0; i < 12; i++) a[i] = (float)(i % 5) - 2;
  for (int i = 0; i < 15; i++) b[i] = (float)(i % 7) - 3;
  for (int i = 0; i < 20; i++) g[i] = (float)(i % 3) - 1;
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  CHECK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, input_norms, NULL));
  on = equip(make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT));
  make_product(), make_operator();
  size_t layer;
  CHECK(wtacrs_planner_create(&planner));
  CHECK(wtacrs_planner_add_layer(planner, IN, WTACRS_DTYPE_F32, &layer));
  watch(on.saved, on.info.saved_bytes), watch(dw, sizeof dw), watch(norms, sizeof norms), watch(rows, sizeof rows);
  watch(indices, sizeof indices), watch(scales, sizeof scales), watch(&kept, sizeof kept), watch(&winners, sizeof winners);
  watch(operator_saved, operator_sizes.saved_bytes), watch(layer_y, sizeof layer_y);
  watch(product_saved, sizes.saved_bytes), watch(da, sizeof da), watch(db, sizeof db), watch(row_norms, sizeof row_norms);

  const wtacrs_forward_options forward_options = {.size = sizeof forward_options};
  const wtacrs_backward_options backward_options = {.size = sizeof backward_options, .dz_norms = norms};
  const wtacrs_selection selection = *SELECTION(indices, scales, BUDGET, &kept, &winners);
  const wtacrs_norm_predictor_options predictor_options = {.size = sizeof predictor_options, .features = 4, .seed = 7};
  const wtacrs_tensor_mul_forward_options product_forward_options = {.size = sizeof product_forward_options};
  const wtacrs_tensor_mul_backward_options product_backward_options = {
      .size = sizeof product_backward_options, .row_norms = row_norms};
  const wtacrs_operator_forward operands = {.size = sizeof operands, .x = h, .y = layer_y};
  const wtacrs_operator_backward gradients = {.size = sizeof gradients, .dy = h, .dx = layer_y};
  const wtacrs_observation observation = {
      .size = sizeof observation, .tokens = TOKENS, .input_norms = input_norms, .dz_norms = input_norms, .budget_rows = 3,
      .squared_norm = 2};
#define SINCE(function, example, first) option(#function, function, &example, first, sizeof example, WTACRS_STATUS_OK)
#define OPTIONAL(function, example) SINCE(function, example, sizeof example)
#define NEEDED(function, example) \
  option(#function, function, &example, sizeof example, sizeof example, WTACRS_STATUS_NULL_POINTER)
  SINCE(forward, forward_options, offsetof(wtacrs_forward_options, weights));
  SINCE(forward_dl, forward_options, offsetof(wtacrs_forward_options, weights));
  NEEDED(observe, observation);
  OPTIONAL(backward, backward_options);
  OPTIONAL(backward_dl, backward_options);
  NEEDED(saved_selection, selection);
  NEEDED(select_rows, selection);
  NEEDED(gather, selection);
  NEEDED(gather_dl, selection);
  NEEDED(weight_gradient, selection);
  NEEDED(weight_gradient_dl, selection);
  OPTIONAL(predictor_create, predictor_options);
  OPTIONAL(product_forward, product_forward_options);
  OPTIONAL(product_forward_dl, product_forward_options);
  OPTIONAL(product_backward, product_backward_options);
  OPTIONAL(product_backward_dl, product_backward_options);
  NEEDED(operator_forward, operands);
  NEEDED(operator_backward, gradients);
  output("plan's info", info, &on.info, offsetof(wtacrs_plan_info, saved_status_words), sizeof on.info);
  output("product's info", product_info, &sizes, offsetof(wtacrs_tensor_mul_plan_info, left_status_words), sizeof sizes);
  const wtacrs_planned planned = {.size = sizeof planned};
  output("planned", budget, &planned, sizeof planned, sizeof planned);
  output("operator's info", operator_info, &operator_sizes, sizeof operator_sizes, sizeof operator_sizes);
  predictor_defaults();

  CHECK(wtacrs_planner_destroy(planner));
  CHECK(wtacrs_tensor_mul_plan_destroy(product));
  CHECK(wtacrs_operator_plan_destroy(operator_plan));
  CHECK(wtacrs_context_destroy(context));
  free(product_saved), free(product_scratch), free(operator_saved), discard(on);
  return finish();
}
