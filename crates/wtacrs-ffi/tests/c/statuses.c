/* One call for each status of the header that returns it, and that leaves a last error (but for WTACRS_STATUS_OK).
 * Usage: statuses WTACRS_STATUS_NAME; prints the number. tests/statuses.rs fails if the header has one that is not here. */
#include "check.h"
#include <sys/resource.h>

enum { TOKENS = 8, FEATURES = 4 };

static wtacrs_context *context;
static wtacrs_layer *layer;
static equipped on;
static float h[TOKENS * FEATURES];

static wtacrs_status forward(void *memory, size_t bytes) {
  return wtacrs_plan_forward(on.plan, h, FEATURES, 1, 0, NULL, memory, bytes, NULL, 0, NULL);
}

static wtacrs_status selection(void) {
  uint64_t kept;
  return wtacrs_plan_saved_selection(on.plan, on.saved, on.info.saved_bytes, SIZED(wtacrs_selection, .kept = &kept));
}

static wtacrs_status tensor(int device, int32_t axes) {
  int64_t shape[2] = {TOKENS, FEATURES};
  const wtacrs_dltensor x = {h, {device, 0}, axes, {2, 32, 1}, shape, NULL, 0};
  return wtacrs_plan_forward_dl(on.plan, &x, 1, 0, NULL, on.saved, on.info.saved_bytes, NULL, 0, NULL);
}

static wtacrs_status ok(void) { return forward(on.saved, on.info.saved_bytes); }
static wtacrs_status null_pointer(void) { return forward(NULL, on.info.saved_bytes); }
static wtacrs_status invalid_handle(void) { return wtacrs_plan_destroy((wtacrs_plan *)layer); }
static wtacrs_status invalid_enum(void) { return wtacrs_layer_set_design(layer, 99); }
static wtacrs_status invalid_argument(void) { return wtacrs_layer_set_source(layer, WTACRS_SOURCE_CACHED, 2); }
static wtacrs_status shape_mismatch(void) { return tensor(1, 1); }
static wtacrs_status size_overflow(void) { return wtacrs_layer_set_shape(layer, 8, SIZE_MAX, 1); }
static wtacrs_status buffer_too_small(void) { return forward(on.saved, on.info.saved_bytes - 1); }
static wtacrs_status misaligned(void) { return forward(shifted(on.saved, 1), on.info.saved_bytes); }
static wtacrs_status overlap(void) {
  return wtacrs_plan_forward(on.plan, on.saved, FEATURES, 1, 0, NULL, on.saved, on.info.saved_bytes, NULL, 0, NULL);
}
static wtacrs_status invalid_weights(void) { return h[0] = NAN, ok(); }
static wtacrs_status invalid_budget(void) { return wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, 0); }
static wtacrs_status unsupported(void) {
  return wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F64, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32);
}
static wtacrs_status device_mismatch(void) { return tensor(2, 2); }
/* The test's own libcuda.so.1 makes of CUDA what the environment says. */
static wtacrs_status cuda(void) { return wtacrs_context_create(WTACRS_DEVICE_CUDA, 0, NULL, &context); }
static wtacrs_status corrupted(void) { return memset(on.saved, 0, 64), selection(); }
static wtacrs_status version_mismatch(void) {
  CHECK(ok());
  ((unsigned char *)on.saved)[8] ^= 64;
  return selection();
}
/* A predictor of 2 GiB in a process that may have one. */
static wtacrs_status out_of_memory(void) {
  struct rlimit limit;
  wtacrs_norm_predictor *predictor;
  REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
  limit.rlim_cur = (rlim_t)1 << 30;
  REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
  return wtacrs_norm_predictor_create(context, 1 << 24, SIZED(wtacrs_norm_predictor_options, .features = 1 << 14),
                                      &predictor);
}
static wtacrs_status panicked(void) {
  setenv("WTACRS_TEST_PANIC", "wtacrs_plan_forward", 1);
  return ok();
}

static const struct {
  const char *name;
  wtacrs_status (*produce)(void);
} table[] = {
    {"WTACRS_STATUS_OK", ok},
    {"WTACRS_STATUS_NULL_POINTER", null_pointer},
    {"WTACRS_STATUS_INVALID_HANDLE", invalid_handle},
    {"WTACRS_STATUS_INVALID_ENUM", invalid_enum},
    {"WTACRS_STATUS_INVALID_ARGUMENT", invalid_argument},
    {"WTACRS_STATUS_SHAPE_MISMATCH", shape_mismatch},
    {"WTACRS_STATUS_SIZE_OVERFLOW", size_overflow},
    {"WTACRS_STATUS_BUFFER_TOO_SMALL", buffer_too_small},
    {"WTACRS_STATUS_MISALIGNED", misaligned},
    {"WTACRS_STATUS_OVERLAP", overlap},
    {"WTACRS_STATUS_INVALID_WEIGHTS", invalid_weights},
    {"WTACRS_STATUS_INVALID_BUDGET", invalid_budget},
    {"WTACRS_STATUS_UNSUPPORTED", unsupported},
    {"WTACRS_STATUS_DEVICE_MISMATCH", device_mismatch},
    {"WTACRS_STATUS_NO_DEVICE", cuda},
    {"WTACRS_STATUS_CUDA_ERROR", cuda},
    {"WTACRS_STATUS_CORRUPTED", corrupted},
    {"WTACRS_STATUS_VERSION_MISMATCH", version_mismatch},
    {"WTACRS_STATUS_PANIC", panicked},
    {"WTACRS_STATUS_OUT_OF_MEMORY", out_of_memory},
};

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  for (int i = 0; i < TOKENS * FEATURES; i++) h[i] = (float)(i + 1);
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  layer = describe(TOKENS, FEATURES, FEATURES, WTACRS_BUDGET_ROWS, 4, WTACRS_SOURCE_INPUT);
  wtacrs_plan *plan;
  CHECK(wtacrs_plan_create(context, layer, &plan));
  on = equip(plan);
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
    if (strcmp(argv[1], table[i].name) != 0) continue;
    wtacrs_status status = table[i].produce();
    wtacrs_error_info info = {.size = sizeof info};
    wtacrs_last_error(NULL, 0, &info);
    int agrees = (info.text_bytes > 1) == (status != WTACRS_STATUS_OK) && info.status == status;
    printf("%d %s\n", status, agrees ? "" : "without its last error");
    return 0;
  }
  printf("no call for %s\n", argv[1]);
  return 2;
}
