/* What each sanitizer must find, so that its silence about the other programs means something. Never run without one.
 * Usage: controls stray | leak | undefined | race | none */
#include "check.h"
#include <limits.h>
#include <pthread.h>

/* Large enough that two passes overlap in time. */
enum { TOKENS = 1024, IN = 64, OUT = 64 };
static wtacrs_context *context;
static equipped on;
static float h[TOKENS * IN], dz[TOKENS * OUT];
static pthread_barrier_t together;

/* Scratch memory is for one call at a time: two at once are the caller's mistake, which no status can report. */
static void *with_shared_scratch(void *unused) {
  float dw[IN * OUT];
  (void)unused;
  for (int i = 0; i < 50; i++) {
    pthread_barrier_wait(&together);
    CHECK(backward_pass(on, dz, OUT, dw, OUT, NULL));
  }
  return NULL;
}

static void race(void) {
  on = equip(make_plan(context, TOKENS, IN, OUT, TOKENS / 2, WTACRS_SOURCE_INPUT));
  for (int i = 0; i < TOKENS * IN; i++) h[i] = 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = 1;
  CHECK(forward_pass(on, h, IN, 1, 0, NULL));
  pthread_t threads[2];
  pthread_barrier_init(&together, NULL, 2);
  for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, with_shared_scratch, NULL);
  for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  float *rows = calloc(4 * 4, sizeof(float)), norms[5];
  REQUIRE(rows != NULL);
  if (!strcmp(argv[1], "stray")) {
    /* One row more than there is: the library reads it, as its argument says. */
    CHECK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, 5, 4, rows, 4, norms, NULL));
  } else if (!strcmp(argv[1], "leak")) {
    rows = NULL;
  } else if (!strcmp(argv[1], "undefined")) {
    volatile int most = INT_MAX;
    most = most + argc;
  } else if (!strcmp(argv[1], "race")) {
    race();
  }
  free(rows);
  return 0;
}
