/* One call for each status of the header that comes back with it, and leaves words about it (but for WTACRS_OK).
 * Usage: statuses WTACRS_NAME; prints the number. tests/statuses.rs fails if the header has one that is not here. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <wtacrs.h>

enum { TOKENS = 8, FEATURES = 4 };

static wtacrs_context *context;
static wtacrs_layer *layer;
static wtacrs_plan *plan;
static float h[TOKENS * FEATURES];
static unsigned char *saved;
static size_t saved_bytes;

static wtacrs_status forward(void *memory, size_t bytes) {
  return wtacrs_forward(plan, h, FEATURES, NULL, NULL, 1, 0, memory, bytes, NULL, 0, NULL);
}

static wtacrs_status selection(void) {
  uint64_t kept;
  return wtacrs_saved_selection(plan, saved, saved_bytes, NULL, NULL, 0, &kept, NULL);
}

static wtacrs_status tensor(int32_t device, int32_t axes) {
  int64_t shape[2] = {TOKENS, FEATURES};
  wtacrs_dltensor x = {h, {1, 0}, axes, {2, 32, 1}, shape, NULL, 0};
  memcpy(&x.device, &device, sizeof device);
  return wtacrs_forward_dl(plan, &x, NULL, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL);
}

static wtacrs_status ok(void) { return forward(saved, saved_bytes); }
static wtacrs_status null_pointer(void) { return forward(NULL, saved_bytes); }
static wtacrs_status invalid_handle(void) { return wtacrs_plan_destroy((wtacrs_plan *)layer); }
static wtacrs_status invalid_enum(void) { return wtacrs_layer_set_design(layer, 99); }
static wtacrs_status invalid_argument(void) { return wtacrs_layer_set_mix(layer, 2); }
static wtacrs_status shape_mismatch(void) { return tensor(1, 1); }
static wtacrs_status size_overflow(void) { return wtacrs_layer_set_shape(layer, 8, SIZE_MAX, 1); }
static wtacrs_status buffer_too_small(void) { return forward(saved, saved_bytes - 1); }
static wtacrs_status misaligned(void) { return forward(saved + 1, saved_bytes); }
static wtacrs_status overlap(void) {
  return wtacrs_forward(plan, saved, FEATURES, NULL, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL);
}
static wtacrs_status invalid_weights(void) { return h[0] = NAN, forward(saved, saved_bytes); }
static wtacrs_status invalid_budget(void) { return wtacrs_layer_set_budget_rows(layer, 0); }
static wtacrs_status unsupported(void) { return wtacrs_layer_set_dtypes(layer, WTACRS_F64, WTACRS_F32, WTACRS_F32); }
static wtacrs_status device_mismatch(void) { return tensor(2, 2); }
/* The test's own libcuda.so.1 makes of CUDA what the environment says. */
static wtacrs_status cuda(void) { return wtacrs_context_create(WTACRS_CUDA, 0, &context); }
static wtacrs_status corrupted(void) { return memset(saved, 0, 64), selection(); }
static wtacrs_status version_mismatch(void) {
  wtacrs_status done = forward(saved, saved_bytes);
  saved[8] ^= 64;
  return done ? done : selection();
}
static wtacrs_status out_of_memory(void) {
  struct rlimit limit;
  wtacrs_norm_predictor *predictor; /* of 2 GiB, where there is one */
  if (getrlimit(RLIMIT_AS, &limit)) return -1;
  limit.rlim_cur = (rlim_t)1 << 30;
  return setrlimit(RLIMIT_AS, &limit) ? -1
                                      : wtacrs_norm_predictor_create_with(1 << 24, 1 << 14, 0.97, 0.01, 6, 128, 0, &predictor);
}
static wtacrs_status panicked(void) {
  setenv("WTACRS_TEST_PANIC", "wtacrs_forward", 1);
  return forward(saved, saved_bytes);
}

static const struct {
  const char *name;
  wtacrs_status (*produce)(void);
} table[] = {
    {"WTACRS_OK", ok},
    {"WTACRS_NULL_POINTER", null_pointer},
    {"WTACRS_INVALID_HANDLE", invalid_handle},
    {"WTACRS_INVALID_ENUM", invalid_enum},
    {"WTACRS_INVALID_ARGUMENT", invalid_argument},
    {"WTACRS_SHAPE_MISMATCH", shape_mismatch},
    {"WTACRS_SIZE_OVERFLOW", size_overflow},
    {"WTACRS_BUFFER_TOO_SMALL", buffer_too_small},
    {"WTACRS_MISALIGNED", misaligned},
    {"WTACRS_OVERLAP", overlap},
    {"WTACRS_INVALID_WEIGHTS", invalid_weights},
    {"WTACRS_INVALID_BUDGET", invalid_budget},
    {"WTACRS_UNSUPPORTED", unsupported},
    {"WTACRS_DEVICE_MISMATCH", device_mismatch},
    {"WTACRS_NO_DEVICE", cuda},
    {"WTACRS_CUDA_ERROR", cuda},
    {"WTACRS_CORRUPTED", corrupted},
    {"WTACRS_VERSION_MISMATCH", version_mismatch},
    {"WTACRS_PANIC", panicked},
    {"WTACRS_OUT_OF_MEMORY", out_of_memory},
};

static int setup(void) {
  for (int i = 0; i < TOKENS * FEATURES; i++) h[i] = (float)(i + 1);
  return wtacrs_context_create(WTACRS_CPU, 0, &context) || wtacrs_layer_create(&layer) ||
         wtacrs_layer_set_shape(layer, TOKENS, FEATURES, FEATURES) || wtacrs_layer_set_budget_rows(layer, 4) ||
         wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT) || wtacrs_plan_create(context, layer, &plan) ||
         wtacrs_plan_saved_bytes(plan, &saved_bytes) || !(saved = aligned_alloc(64, saved_bytes + 64));
}

int main(int argc, char **argv) {
  if (argc != 2 || setup()) return 1;
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
    if (strcmp(argv[1], table[i].name) != 0) continue;
    wtacrs_status status = table[i].produce();
    size_t words;
    wtacrs_last_error(NULL, 0, &words);
    printf("%d %s\n", status, (words > 1) == (status != WTACRS_OK) ? "" : "without words");
    free(saved);
    return 0;
  }
  printf("no call for %s\n", argv[1]);
  return 2;
}
