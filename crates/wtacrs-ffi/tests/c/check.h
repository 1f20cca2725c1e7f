/* What the C programs of these tests share: checks that name what failed, structs that carry their size, plans, and memory.
 *
 * CHECK and REQUIRE end the program. EXPECT counts what is not so and goes on; the program ends by finish(). */
#ifndef CHECK_H
#define CHECK_H

#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

/* What is being checked, for messages; a program may set it. */
static const char *now = "";
static _Atomic int failures;

static inline const char *error_text(void) {
  static _Thread_local char text[512];
  wtacrs_last_error(text, sizeof text, NULL);
  return text;
}

static inline void check(wtacrs_status status, const char *call, const char *file, int line) {
  if (status == WTACRS_STATUS_OK) return;
  printf("%s:%d: %s %s: %s (%s)\n", file, line, now, call, wtacrs_status_string(status), error_text());
  exit(1);
}
#define CHECK(call) check(call, #call, __FILE__, __LINE__)

static inline void require(int truth, const char *what, const char *file, int line) {
  if (truth) return;
  printf("%s:%d: %s not so: %s (%s)\n", file, line, now, what, error_text());
  exit(1);
}
#define REQUIRE(truth) require(truth, #truth, __FILE__, __LINE__)

static inline void expect(wtacrs_status found, wtacrs_status expected, const char *words, const char *call, int line) {
  if (found == expected && (words == NULL || strstr(error_text(), words))) return;
  printf("%d: %s %s: %s, expected %s \"%s\" (%s)\n", line, now, call, wtacrs_status_string(found),
         wtacrs_status_string(expected), words ? words : "", error_text());
  failures++;
}
/* A call returns WTACRS_STATUS_`status`, and the last error then contains `words`. */
#define EXPECT(status, call) expect(call, WTACRS_STATUS_##status, NULL, #call, __LINE__)
#define EXPECT_WORDS(status, words, call) expect(call, WTACRS_STATUS_##status, words, #call, __LINE__)

/* Outputs that no refused call may write: watch() each once, then compare around a call by UNCHANGED. */
static struct {
  unsigned char *memory, *before;
  size_t bytes;
} watched[16];

static inline void watch(void *memory, size_t bytes) {
  size_t at = 0;
  while (watched[at].memory) at++;
  REQUIRE(at + 1 < sizeof watched / sizeof watched[0]);
  watched[at].memory = memory, watched[at].before = malloc(bytes), watched[at].bytes = bytes;
  REQUIRE(watched[at].before != NULL);
}

static inline void remember(void) {
  for (size_t at = 0; watched[at].memory; at++) memcpy(watched[at].before, watched[at].memory, watched[at].bytes);
}

static inline void expect_unchanged(int line) {
  for (size_t at = 0; watched[at].memory; at++)
    if (memcmp(watched[at].before, watched[at].memory, watched[at].bytes) != 0) {
      printf("%d: output %zu was written\n", line, at);
      failures++;
    }
}
#define UNCHANGED(status, words, call) \
  do { \
    remember(); \
    expect(call, WTACRS_STATUS_##status, words, #call, __LINE__); \
    expect_unchanged(__LINE__); \
  } while (0)

/* The last line of a program, and its exit status. */
static inline int finish(void) {
  puts(failures ? "failed" : "ok");
  return failures != 0;
}

/* A pointer to a struct with its size, the fields that are named, and zeros elsewhere, such as
 * SIZED(wtacrs_forward_options, .guess = norms). */
#define SIZED(type, ...) (&(type){.size = sizeof(type), __VA_ARGS__})

/* A selection in the caller's arrays. */
#define SELECTION(indices_, scales_, capacity_, kept_, winners_) \
  SIZED(wtacrs_selection, .indices = indices_, .scales = scales_, .capacity = capacity_, .kept = kept_, .winners = winners_)

/* Memory of exactly so many bytes, which are all 0xa5, aligned as a GPU's is. */
static inline void *aligned(size_t bytes) {
  void *memory = memalign(256, bytes ? bytes : 1);
  REQUIRE(memory != NULL);
  return memset(memory, 0xa5, bytes);
}

static inline void *shifted(void *pointer, size_t bytes) { return (char *)pointer + bytes; }

static inline float *read_raw(const char *folder, const char *name, size_t count) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  REQUIRE(file != NULL);
  float *values = aligned(count * sizeof(float));
  REQUIRE(fread(values, sizeof(float), count, file) == count);
  fclose(file);
  return values;
}

/* ||a - b|| / ||b||, in the Frobenius norm. */
static inline double distance(const float *a, const float *b, size_t count) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < count; i++) {
    difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    size += (double)b[i] * b[i];
  }
  return sqrt(difference / size);
}

/* The description of a layer of floats. */
static inline wtacrs_layer *describe(size_t tokens, size_t in, size_t out, wtacrs_budget unit, double amount,
                                     wtacrs_source source) {
  wtacrs_layer *layer;
  CHECK(wtacrs_layer_create(&layer));
  CHECK(wtacrs_layer_set_shape(layer, tokens, in, out));
  CHECK(wtacrs_layer_set_budget(layer, unit, amount));
  CHECK(wtacrs_layer_set_source(layer, source, 0.01));
  return layer;
}

/* The plan of a description, which is destroyed. */
static inline wtacrs_plan *freeze(const wtacrs_context *context, wtacrs_layer *layer) {
  wtacrs_plan *plan;
  CHECK(wtacrs_plan_create(context, layer, &plan));
  CHECK(wtacrs_layer_destroy(layer));
  return plan;
}

static inline wtacrs_plan *make_plan(const wtacrs_context *context, size_t tokens, size_t in, size_t out, size_t budget,
                                     wtacrs_source source) {
  return freeze(context, describe(tokens, in, out, WTACRS_BUDGET_ROWS, (double)budget, source));
}

static inline wtacrs_plan_info info_of(const wtacrs_plan *plan) {
  wtacrs_plan_info info = {.size = sizeof info};
  CHECK(wtacrs_plan_get_info(plan, &info));
  return info;
}

static inline wtacrs_tensor_mul_plan_info product_info_of(const wtacrs_tensor_mul_plan *plan) {
  wtacrs_tensor_mul_plan_info info = {.size = sizeof info};
  CHECK(wtacrs_tensor_mul_plan_get_info(plan, &info));
  return info;
}

/* A plan with memory for one call at a time. */
typedef struct {
  wtacrs_plan *plan;
  wtacrs_plan_info info;
  void *saved, *forward, *backward, *estimate, *weight_gradient; /* the last four: scratch */
} equipped;

static inline equipped equip(wtacrs_plan *plan) {
  wtacrs_plan_info info = info_of(plan);
  return (equipped){
      .plan = plan,
      .info = info,
      .saved = aligned(info.saved_bytes),
      .forward = aligned(info.forward_scratch_bytes),
      .backward = aligned(info.backward_scratch_bytes),
      .estimate = aligned(info.estimate_scratch_bytes),
      .weight_gradient = aligned(info.weight_gradient_scratch_bytes),
  };
}

static inline void discard(equipped on) {
  CHECK(wtacrs_plan_destroy(on.plan));
  free(on.saved), free(on.forward), free(on.backward), free(on.estimate), free(on.weight_gradient);
}

static inline wtacrs_status forward_pass(equipped on, const float *h, size_t leading, uint64_t seed, uint64_t offset,
                                         const wtacrs_forward_options *options) {
  return wtacrs_plan_forward(on.plan, h, leading, seed, offset, options, on.saved, on.info.saved_bytes, on.forward,
                             on.info.forward_scratch_bytes, NULL);
}

static inline wtacrs_status backward_pass(equipped on, const float *dz, size_t dz_leading, float *dw, size_t dw_leading,
                                          const wtacrs_backward_options *options) {
  return wtacrs_plan_backward(on.plan, on.saved, on.info.saved_bytes, dz, dz_leading, dw, dw_leading, options, on.backward,
                              on.info.backward_scratch_bytes, NULL);
}

#endif
