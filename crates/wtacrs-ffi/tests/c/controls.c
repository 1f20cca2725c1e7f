/* What each sanitizer must find, so that its silence about the other programs means something. Never run without one.
 * Usage: controls stray | leak | undefined | race | none */
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

/* Large enough that two passes overlap in time. */
enum { TOKENS = 1024, IN = 64, OUT = 64 };
static wtacrs_context *context;
static wtacrs_plan *plan;
static float h[TOKENS * IN], dz[TOKENS * OUT];
static size_t saved_bytes, scratch_bytes;
static void *saved, *scratch;
static pthread_barrier_t together;

/* Scratch memory is for one call at a time: two at once are the caller's mistake, which no status can tell. */
static void *with_shared_scratch(void *unused) {
  float *dw = malloc(IN * OUT * sizeof(float));
  (void)unused;
  for (int i = 0; dw && i < 50; i++) {
    pthread_barrier_wait(&together);
    wtacrs_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, 0, NULL, NULL, scratch, scratch_bytes, NULL);
  }
  free(dw);
  return NULL;
}

static int race(void) {
  wtacrs_layer *layer;
  wtacrs_layer_create(&layer);
  wtacrs_layer_set_shape(layer, TOKENS, IN, OUT);
  wtacrs_layer_set_budget_rows(layer, TOKENS / 2);
  wtacrs_layer_set_source(layer, WTACRS_SOURCE_INPUT);
  wtacrs_plan_create(context, layer, &plan);
  wtacrs_plan_saved_bytes(plan, &saved_bytes);
  wtacrs_plan_backward_scratch_bytes(plan, &scratch_bytes);
  saved = aligned_alloc(64, saved_bytes), scratch = aligned_alloc(64, scratch_bytes);
  for (int i = 0; i < TOKENS * IN; i++) h[i] = 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = 1;
  if (wtacrs_forward(plan, h, IN, NULL, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL) != WTACRS_OK) return 1;
  pthread_t threads[2];
  pthread_barrier_init(&together, NULL, 2);
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, with_shared_scratch, NULL);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  return 0;
}

int main(int argc, char **argv) {
  if (argc != 2 || wtacrs_context_create(WTACRS_CPU, 0, &context) != WTACRS_OK) return 1;
  float *rows = calloc(4 * 4, sizeof(float)), norms[5];
  if (!rows) return 1;
  if (!strcmp(argv[1], "stray")) {
    /* One row more than there is: the library reads it, as it is told to. */
    wtacrs_row_norms(context, WTACRS_F32, 5, 4, rows, 4, norms, NULL);
  } else if (!strcmp(argv[1], "leak")) {
    rows = NULL;
  } else if (!strcmp(argv[1], "undefined")) {
    volatile int most = INT_MAX;
    most = most + argc;
  } else if (!strcmp(argv[1], "race")) {
    if (race()) return 1;
  }
  free(rows);
  return 0;
}
