/* Objects used after they were destroyed, in every wrong order and as every wrong kind: always refused, and never at the
 * cost of another object. What nothing depends on any more, such as a description behind its plan, may go first. */
#include "check.h"

enum { TOKENS = 8, IN = 4, OUT = 4, KINDS = 9 };

static wtacrs_context *context;
static float h[TOKENS * IN], dz[TOKENS * OUT], dw[IN * OUT], norms[TOKENS];

static void *new_context(void) {
  wtacrs_context *made;
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &made));
  return made;
}
static void *new_layer(void) { return describe(TOKENS, IN, OUT, WTACRS_BUDGET_ROWS, 4, WTACRS_SOURCE_PREDICTED); }
static void *new_plan(void) { return freeze(context, new_layer()); }
static void *new_cache(void) {
  wtacrs_norm_cache *made;
  CHECK(wtacrs_norm_cache_create(context, SIZE_MAX, SIZE_MAX, &made));
  return made;
}
static void *new_predictor(void) {
  wtacrs_norm_predictor *made;
  CHECK(wtacrs_norm_predictor_create(context, IN, SIZED(wtacrs_norm_predictor_options, .features = 4), &made));
  return made;
}
static void *new_product(void) {
  wtacrs_tensor_mul *made;
  CHECK(wtacrs_tensor_mul_create(&made));
  CHECK(wtacrs_tensor_mul_set_shape(made, 1, 1, 4, 4, 4));
  CHECK(wtacrs_tensor_mul_set_budget(made, WTACRS_SIDE_LEFT, WTACRS_BUDGET_EXACT, 0));
  CHECK(wtacrs_tensor_mul_set_budget(made, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_EXACT, 0));
  return made;
}
static void *new_product_plan(void) {
  wtacrs_tensor_mul *product = new_product();
  wtacrs_tensor_mul_plan *made;
  CHECK(wtacrs_tensor_mul_plan_create(context, product, &made));
  CHECK(wtacrs_tensor_mul_destroy(product));
  return made;
}
static void *new_operator(void) {
  wtacrs_operator *made;
  CHECK(wtacrs_operator_create(&made));
  CHECK(wtacrs_operator_set_operation(made, WTACRS_OPERATION_GELU, 0));
  CHECK(wtacrs_operator_set_shape(made, TOKENS, IN));
  return made;
}
static void *new_operator_plan(void) {
  wtacrs_operator *op = new_operator();
  wtacrs_operator_plan *made;
  CHECK(wtacrs_operator_plan_create(context, op, &made));
  CHECK(wtacrs_operator_destroy(op));
  return made;
}

static wtacrs_status end_context(void *handle) { return wtacrs_context_destroy(handle); }
static wtacrs_status end_layer(void *handle) { return wtacrs_layer_destroy(handle); }
static wtacrs_status end_plan(void *handle) { return wtacrs_plan_destroy(handle); }
static wtacrs_status end_cache(void *handle) { return wtacrs_norm_cache_destroy(handle); }
static wtacrs_status end_predictor(void *handle) { return wtacrs_norm_predictor_destroy(handle); }
static wtacrs_status end_product(void *handle) { return wtacrs_tensor_mul_destroy(handle); }
static wtacrs_status end_product_plan(void *handle) { return wtacrs_tensor_mul_plan_destroy(handle); }
static wtacrs_status end_operator(void *handle) { return wtacrs_operator_destroy(handle); }
static wtacrs_status end_operator_plan(void *handle) { return wtacrs_operator_plan_destroy(handle); }

/* One call of each kind that does not end the object. */
static wtacrs_status use_context(void *handle) {
  return wtacrs_context_norms(handle, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, norms, NULL);
}
static wtacrs_status use_layer(void *handle) { return wtacrs_layer_set_design(handle, WTACRS_DESIGN_CRS); }
static wtacrs_status use_plan(void *handle) {
  return wtacrs_plan_get_info(handle, SIZED(wtacrs_plan_info, .draws = 0));
}
static wtacrs_status use_cache(void *handle) {
  const uint64_t sample = 1;
  return wtacrs_norm_cache_forget(handle, &sample, 1, NULL);
}
static wtacrs_status use_predictor(void *handle) {
  size_t count;
  return wtacrs_norm_predictor_statistics_count(handle, &count);
}
static wtacrs_status use_product(void *handle) { return wtacrs_tensor_mul_set_mix(handle, 0.5); }
static wtacrs_status use_product_plan(void *handle) {
  return wtacrs_tensor_mul_plan_get_info(handle, SIZED(wtacrs_tensor_mul_plan_info, .draws = 0));
}
static wtacrs_status use_operator(void *handle) { return wtacrs_operator_set_dropout(handle, 0.5); }
static wtacrs_status use_operator_plan(void *handle) {
  return wtacrs_operator_plan_get_info(handle, SIZED(wtacrs_operator_plan_info, .draws = 0));
}

static const struct {
  void *(*make)(void);
  wtacrs_status (*use)(void *);
  wtacrs_status (*end)(void *);
} kinds[KINDS] = {
    {new_context, use_context, end_context},       {new_layer, use_layer, end_layer},
    {new_plan, use_plan, end_plan},                {new_cache, use_cache, end_cache},
    {new_predictor, use_predictor, end_predictor}, {new_product, use_product, end_product},
    {new_product_plan, use_product_plan, end_product_plan},
    {new_operator, use_operator, end_operator},    {new_operator_plan, use_operator_plan, end_operator_plan},
};

/* A handle of every kind is passed as every other kind, alive and destroyed. */
static void every_kind_as_every_other(void) {
  void *objects[KINDS];
  for (int i = 0; i < KINDS; i++) objects[i] = kinds[i].make();
  for (int i = 0; i < KINDS; i++)
    for (int j = 0; j < KINDS; j++) {
      if (i == j) continue;
      EXPECT(INVALID_HANDLE, kinds[i].use(objects[j]));
      EXPECT(INVALID_HANDLE, kinds[i].end(objects[j]));
    }
  for (int i = 0; i < KINDS; i++) {
    EXPECT(OK, kinds[i].use(objects[i])); /* and it still lives */
    EXPECT(OK, kinds[i].end(objects[i]));
    EXPECT(INVALID_HANDLE, kinds[i].use(objects[i]));
    EXPECT(INVALID_HANDLE, kinds[i].end(objects[i]));
    void *next = kinds[i].make();
    REQUIRE(next != objects[i]); /* numbers are not used again, so the old one cannot mean the new object */
    EXPECT(INVALID_HANDLE, kinds[i].end(objects[i]));
    EXPECT(OK, kinds[i].use(next));
    EXPECT(OK, kinds[i].end(next));
    int local;
    EXPECT(INVALID_HANDLE, kinds[i].use(&local));
    EXPECT(INVALID_HANDLE, kinds[i].end(&local));
    EXPECT(NULL_POINTER, kinds[i].use(NULL));
    EXPECT(OK, kinds[i].end(NULL));
  }
}

/* Predictors, caches and plans live on when their context is destroyed, which makes no new ones. One CPU is every CPU: the
 * predictor of one context serves a plan of another. */
static void objects_outlive_their_context(void) {
  wtacrs_context *own = new_context(), *other = new_context();
  wtacrs_norm_predictor *predictor;
  wtacrs_norm_cache *cache, *none = NULL;
  CHECK(wtacrs_norm_predictor_create(own, IN, NULL, &predictor));
  CHECK(wtacrs_norm_cache_create(own, 4, TOKENS, &cache));
  equipped on = equip(freeze(other, new_layer()));
  CHECK(wtacrs_context_destroy(own));
  CHECK(wtacrs_context_destroy(other));
  EXPECT(INVALID_HANDLE, wtacrs_norm_cache_create(own, 4, TOKENS, &none));
  EXPECT(INVALID_HANDLE, wtacrs_norm_cache_load(own, 4, TOKENS, h, 0, &none));
  EXPECT(INVALID_HANDLE, wtacrs_norm_predictor_create(own, IN, NULL, (wtacrs_norm_predictor **)&none));
  EXPECT(INVALID_HANDLE, wtacrs_norm_predictor_create((wtacrs_context *)cache, IN, NULL, (wtacrs_norm_predictor **)&none));
  REQUIRE(none == NULL);

  const uint64_t sample = 3;
  EXPECT(OK, forward_pass(on, h, IN, 1, 0, SIZED(wtacrs_forward_options, .predictor = predictor)));
  EXPECT(OK, backward_pass(on, dz, OUT, dw, OUT, SIZED(wtacrs_backward_options, .dz_norms = norms)));
  EXPECT(OK, wtacrs_norm_predictor_update(predictor, on.plan, on.saved, on.info.saved_bytes, norms, NULL, NULL));
  EXPECT(OK, wtacrs_norm_cache_store(cache, &sample, NULL, 1, TOKENS, norms, TOKENS, NULL));
  EXPECT(OK, wtacrs_norm_predictor_destroy(predictor));
  EXPECT(OK, wtacrs_norm_cache_destroy(cache));
  discard(on);
}

/* A plan without its description and its context; a step whose plan, predictor or saved memory is another's. */
static void steps_in_wrong_order(void) {
  wtacrs_context *own = new_context();
  wtacrs_layer *layer = new_layer();
  wtacrs_plan *plan = NULL, *other = NULL;
  CHECK(wtacrs_plan_create(own, layer, &plan));
  CHECK(wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F64, WTACRS_DTYPE_F64, WTACRS_DTYPE_F64));
  CHECK(wtacrs_plan_create(own, layer, &other));
  CHECK(wtacrs_context_destroy(own));
  CHECK(wtacrs_layer_destroy(layer));
  EXPECT(INVALID_HANDLE, wtacrs_plan_create(own, layer, &plan));

  wtacrs_norm_predictor *predictor = new_predictor();
  const wtacrs_plan_info info = info_of(plan), wide_info = info_of(other);
  size_t room = info.saved_bytes > wide_info.saved_bytes ? info.saved_bytes : wide_info.saved_bytes;
  unsigned char *saved = aligned(room), *scratch = aligned(info.backward_scratch_bytes);
  unsigned char *wide = aligned(wide_info.backward_scratch_bytes), before[64];
  memset(saved, 0, room);
#define FORWARD(plan) \
  wtacrs_plan_forward(plan, h, IN, 1, 0, SIZED(wtacrs_forward_options, .predictor = predictor), saved, room, NULL, 0, NULL)
#define BACKWARD(plan) \
  wtacrs_plan_backward(plan, saved, room, dz, OUT, dw, OUT, SIZED(wtacrs_backward_options, .dz_norms = norms), scratch, \
                       info.backward_scratch_bytes, NULL)
#define UPDATE(plan) wtacrs_norm_predictor_update(predictor, plan, saved, room, norms, NULL, NULL)
  for (int i = 0; i < IN * OUT; i++) dw[i] = 77;
  for (int i = 0; i < TOKENS; i++) norms[i] = 1;
  EXPECT(CORRUPTED, BACKWARD(plan)); /* before any forward pass */
  EXPECT(CORRUPTED, UPDATE(plan));
  EXPECT(OK, FORWARD(plan));
  double wide_dw[IN * OUT], wide_dz[TOKENS * OUT] = {0};
  for (int i = 0; i < IN * OUT; i++) wide_dw[i] = 77;
  EXPECT(SHAPE_MISMATCH, wtacrs_plan_backward(other, saved, room, wide_dz, OUT, wide_dw, OUT, NULL, wide,
                                              wide_info.backward_scratch_bytes, NULL));
  for (int i = 0; i < IN * OUT; i++) REQUIRE(dw[i] == 77 && wide_dw[i] == 77);
  EXPECT(OK, BACKWARD(plan));
  EXPECT(OK, BACKWARD(plan)); /* saved memory may be read again */
  EXPECT(OK, UPDATE(plan));
  EXPECT(OK, wtacrs_norm_predictor_destroy(predictor));
  memcpy(before, saved, sizeof before);
  EXPECT(INVALID_HANDLE, FORWARD(plan));
  EXPECT(INVALID_HANDLE, UPDATE(plan));
  REQUIRE(memcmp(before, saved, sizeof before) == 0);
  EXPECT(OK, BACKWARD(plan)); /* needs none */
  EXPECT(OK, wtacrs_plan_destroy(plan));
  for (int i = 0; i < IN * OUT; i++) dw[i] = 77;
  EXPECT(INVALID_HANDLE, BACKWARD(plan));
  EXPECT(INVALID_HANDLE, FORWARD(plan));
  for (int i = 0; i < IN * OUT; i++) REQUIRE(dw[i] == 77);
  EXPECT(OK, wtacrs_plan_destroy(other));
  free(saved), free(scratch), free(wide);
}

/* Descriptions may be changed after a plan was made of them, and plans made of one description are apart. */
static void descriptions_go_on(void) {
  wtacrs_layer *layer = new_layer();
  wtacrs_plan *first = NULL, *second = NULL;
  CHECK(wtacrs_plan_create(context, layer, &first));
  EXPECT(OK, wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, 2));
  EXPECT(INVALID_BUDGET, wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, 0)); /* what is refused changes nothing */
  EXPECT(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, 8, SIZE_MAX, 1));
  CHECK(wtacrs_plan_create(context, layer, &second));
  REQUIRE(info_of(first).budget_rows == 4 && info_of(second).budget_rows == 2);
  EXPECT(OK, wtacrs_plan_destroy(first));
  REQUIRE(info_of(second).budget_rows == 2);
  EXPECT(OK, wtacrs_plan_destroy(second));
  EXPECT(OK, wtacrs_layer_destroy(layer));
}

int main(void) {
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)(i % 7) + 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)(i % 5) - 2;
  context = new_context();
  every_kind_as_every_other(), objects_outlive_their_context(), steps_in_wrong_order(), descriptions_go_on();
  CHECK(wtacrs_context_destroy(context));
  return finish();
}
