/* Objects used after they were destroyed, in every wrong order and as every wrong kind: always refused, and never at the
 * cost of another object. What must outlive nothing, such as a description behind its plan, may go first. */
#include "expect.h"
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 8, IN = 4, OUT = 4, KINDS = 7 };

static wtacrs_context *context;
static float h[TOKENS * IN], dz[TOKENS * OUT], dw[IN * OUT], norms[TOKENS];

static void *new_context(void) {
  wtacrs_context *made = NULL;
  EXPECT(OK, wtacrs_context_create(WTACRS_CPU, 0, &made));
  return made;
}
static void *new_layer(void) {
  wtacrs_layer *made = NULL;
  EXPECT(OK, wtacrs_layer_create(&made));
  EXPECT(OK, wtacrs_layer_set_shape(made, TOKENS, IN, OUT));
  EXPECT(OK, wtacrs_layer_set_budget_rows(made, 4));
  return made;
}
static void *new_plan(void) {
  wtacrs_layer *layer = new_layer();
  wtacrs_plan *made = NULL;
  EXPECT(OK, wtacrs_plan_create(context, layer, &made));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  return made;
}
static void *new_cache(void) {
  wtacrs_norm_cache *made = NULL;
  EXPECT(OK, wtacrs_norm_cache_create(&made));
  return made;
}
static void *new_predictor(void) {
  wtacrs_norm_predictor *made = NULL;
  EXPECT(OK, wtacrs_norm_predictor_create_with(IN, 4, 0.97, 0.01, 6, 128, 0, &made));
  return made;
}
static void *new_product(void) {
  wtacrs_tensor_mul *made = NULL;
  EXPECT(OK, wtacrs_tensor_mul_create(&made));
  EXPECT(OK, wtacrs_tensor_mul_set_shape(made, 1, 1, 4, 4, 4));
  EXPECT(OK, wtacrs_tensor_mul_set_exact(made, WTACRS_LEFT));
  EXPECT(OK, wtacrs_tensor_mul_set_exact(made, WTACRS_RIGHT));
  return made;
}
static void *new_product_plan(void) {
  wtacrs_tensor_mul *product = new_product();
  wtacrs_tensor_mul_plan *made = NULL;
  EXPECT(OK, wtacrs_tensor_mul_plan_create(context, product, &made));
  EXPECT(OK, wtacrs_tensor_mul_destroy(product));
  return made;
}

static wtacrs_status end_context(void *handle) { return wtacrs_context_destroy(handle); }
static wtacrs_status end_layer(void *handle) { return wtacrs_layer_destroy(handle); }
static wtacrs_status end_plan(void *handle) { return wtacrs_plan_destroy(handle); }
static wtacrs_status end_cache(void *handle) { return wtacrs_norm_cache_destroy(handle); }
static wtacrs_status end_predictor(void *handle) { return wtacrs_norm_predictor_destroy(handle); }
static wtacrs_status end_product(void *handle) { return wtacrs_tensor_mul_destroy(handle); }
static wtacrs_status end_product_plan(void *handle) { return wtacrs_tensor_mul_plan_destroy(handle); }

/* One call of each kind that only reads the object. */
static wtacrs_status use_context(void *handle) { return wtacrs_row_norms(handle, WTACRS_F32, TOKENS, IN, h, IN, norms, NULL); }
static wtacrs_status use_layer(void *handle) { return wtacrs_layer_set_mix(handle, 0.5); }
static wtacrs_status use_plan(void *handle) {
  size_t rows;
  return wtacrs_plan_budget(handle, &rows);
}
static wtacrs_status use_cache(void *handle) { return wtacrs_norm_cache_forget(handle, 1); }
static wtacrs_status use_predictor(void *handle) {
  size_t count;
  return wtacrs_norm_predictor_statistics_count(handle, &count);
}
static wtacrs_status use_product(void *handle) { return wtacrs_tensor_mul_set_mix(handle, 0.5); }
static wtacrs_status use_product_plan(void *handle) {
  uint64_t draws;
  return wtacrs_tensor_mul_plan_draws(handle, &draws);
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
};

/* Every kind in the place of every other, alive and destroyed. */
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

/* A plan without its description and its context; a step whose plan, predictor or saved memory is another's. */
static void steps_in_wrong_order(void) {
  wtacrs_context *own = new_context();
  wtacrs_layer *layer = new_layer();
  wtacrs_plan *plan = NULL, *other = NULL;
  EXPECT(OK, wtacrs_plan_create(own, layer, &plan));
  EXPECT(OK, wtacrs_layer_set_dtypes(layer, WTACRS_F64, WTACRS_F64, WTACRS_F64));
  EXPECT(OK, wtacrs_plan_create(own, layer, &other));
  EXPECT(OK, wtacrs_context_destroy(own));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  EXPECT(INVALID_HANDLE, wtacrs_plan_create(own, layer, &plan));
  wtacrs_norm_predictor *predictor = new_predictor();
  size_t saved_bytes, scratch_bytes, others_bytes;
  EXPECT(OK, wtacrs_plan_saved_bytes(plan, &saved_bytes));
  EXPECT(OK, wtacrs_plan_saved_bytes(other, &others_bytes));
  EXPECT(OK, wtacrs_plan_backward_scratch_bytes(plan, &scratch_bytes));
  size_t room = saved_bytes > others_bytes ? saved_bytes : others_bytes;
  unsigned char *saved = aligned_alloc(64, room), *scratch = aligned_alloc(64, scratch_bytes);
  if (!saved || !scratch) abort();
  memset(saved, 0, room);
#define FORWARD(plan) wtacrs_forward(plan, h, IN, NULL, predictor, 1, 0, saved, room, NULL, 0, NULL)
#define BACKWARD(plan) wtacrs_backward(plan, saved, room, dz, OUT, dw, OUT, 0, norms, NULL, scratch, scratch_bytes, NULL)
  for (int i = 0; i < IN * OUT; i++) dw[i] = 77;
  for (int i = 0; i < TOKENS; i++) norms[i] = 1;
  EXPECT(CORRUPTED, BACKWARD(plan)); /* before any forward pass */
  EXPECT(CORRUPTED, wtacrs_norm_predictor_update(predictor, plan, saved, room, norms));
  EXPECT(OK, FORWARD(plan));
  size_t large = 0;
  EXPECT(OK, wtacrs_plan_backward_scratch_bytes(other, &large));
  unsigned char *wide = aligned_alloc(64, large);
  double wide_dw[IN * OUT], wide_dz[TOKENS * OUT] = {0};
  for (int i = 0; i < IN * OUT; i++) wide_dw[i] = 77;
  EXPECT(SHAPE_MISMATCH, wtacrs_backward(other, saved, room, wide_dz, OUT, wide_dw, OUT, 0, NULL, NULL, wide, large, NULL));
  for (int i = 0; i < IN * OUT; i++) REQUIRE(dw[i] == 77 && wide_dw[i] == 77);
  EXPECT(OK, BACKWARD(plan));
  EXPECT(OK, BACKWARD(plan)); /* saved memory may be read again */
  EXPECT(OK, wtacrs_norm_predictor_update(predictor, plan, saved, room, norms));
  EXPECT(OK, wtacrs_norm_predictor_destroy(predictor));
  unsigned char before[64];
  memcpy(before, saved, sizeof before);
  EXPECT(INVALID_HANDLE, FORWARD(plan));
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
  size_t rows;
  EXPECT(OK, wtacrs_plan_create(context, layer, &first));
  EXPECT(OK, wtacrs_layer_set_budget_rows(layer, 2));
  EXPECT(INVALID_BUDGET, wtacrs_layer_set_budget_rows(layer, 0)); /* what is refused changes nothing */
  EXPECT(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, 8, SIZE_MAX, 1));
  EXPECT(OK, wtacrs_plan_create(context, layer, &second));
  EXPECT(OK, wtacrs_plan_budget(first, &rows));
  REQUIRE(rows == 4);
  EXPECT(OK, wtacrs_plan_budget(second, &rows));
  REQUIRE(rows == 2);
  EXPECT(OK, wtacrs_plan_destroy(first));
  EXPECT(OK, wtacrs_plan_budget(second, &rows));
  EXPECT(OK, wtacrs_plan_destroy(second));
  EXPECT(OK, wtacrs_layer_destroy(layer));
}

int main(void) {
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)(i % 7) + 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)(i % 5) - 2;
  context = new_context();
  every_kind_as_every_other(), steps_in_wrong_order(), descriptions_go_on();
  EXPECT(OK, wtacrs_context_destroy(context));
  puts(failures ? "failed" : "ok");
  return failures != 0;
}
