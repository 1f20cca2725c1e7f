/* The library in a process: threads by count and their end, forks, limits, the log, equal bytes for equal calls, and the
 * index of what was wrong. Run it where nothing else starts threads. */
#include "check.h"
#include <dirent.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Large enough that every pass is shared out among threads. */
enum { TOKENS = 4096, IN = 64, OUT = 48, BUDGET = 1000 };

static float *h, *dz;

static int threads_now(void) {
  DIR *tasks = opendir("/proc/self/task");
  REQUIRE(tasks != NULL);
  int count = 0;
  for (struct dirent *task; (task = readdir(tasks));) count += task->d_name[0] != '.';
  closedir(tasks);
  return count;
}

static wtacrs_context *context_of(size_t threads) {
  wtacrs_context *made;
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, SIZED(wtacrs_context_options, .threads = threads), &made));
  return made;
}

/* A step's bits: saved memory, dW and norms. */
typedef struct {
  size_t bytes;
  unsigned char *bits;
} outcome;

static outcome step(const wtacrs_context *context, unsigned char before) {
  wtacrs_plan *plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT);
  wtacrs_plan_info info = info_of(plan);
  size_t dw_bytes = IN * OUT * sizeof(float), norms_bytes = TOKENS * sizeof(float);
  outcome made = {info.saved_bytes + dw_bytes + norms_bytes, aligned(info.saved_bytes + dw_bytes + norms_bytes)};
  memset(made.bits, before, made.bytes);
  void *scratch = aligned(info.backward_scratch_bytes);
  float *dw = (float *)(made.bits + info.saved_bytes), *norms = dw + IN * OUT;
  CHECK(wtacrs_plan_forward(plan, h, IN, 1, 0, NULL, made.bits, info.saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_plan_backward(plan, made.bits, info.saved_bytes, dz, OUT, dw, OUT,
                             SIZED(wtacrs_backward_options, .dz_norms = norms), scratch, info.backward_scratch_bytes, NULL));
  free(scratch);
  CHECK(wtacrs_plan_destroy(plan));
  return made;
}

static void same(outcome expected, const wtacrs_context *context, unsigned char before) {
  outcome found = step(context, before);
  REQUIRE(found.bytes == expected.bytes && memcmp(found.bits, expected.bits, found.bytes) == 0);
  free(found.bits);
}

static void counts(outcome expected) {
  REQUIRE(threads_now() == 1);
  wtacrs_context *alone = context_of(1);
  same(expected, alone, 1);
  REQUIRE(threads_now() == 1); /* the caller's */
  wtacrs_context *three = context_of(3), *also_three = context_of(3), *two = context_of(2);
  REQUIRE(threads_now() == 1); /* none before they are needed */
  same(expected, three, 2);
  REQUIRE(threads_now() == 4);
  same(expected, also_three, 3);
  REQUIRE(threads_now() == 4); /* shared */
  same(expected, two, 4);
  REQUIRE(threads_now() == 6);
  wtacrs_plan *plan = make_plan(two, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT);
  CHECK(wtacrs_context_destroy(three));
  CHECK(wtacrs_context_destroy(two));
  REQUIRE(threads_now() == 6); /* others use them */
  CHECK(wtacrs_context_destroy(also_three));
  REQUIRE(threads_now() == 3);
  CHECK(wtacrs_plan_destroy(plan));
  REQUIRE(threads_now() == 1); /* all have ended */
  CHECK(wtacrs_context_destroy(alone));
  wtacrs_context *none = NULL;
  EXPECT_WORDS(INVALID_ARGUMENT, "threads",
               wtacrs_context_create(WTACRS_DEVICE_CPU, 0, SIZED(wtacrs_context_options, .threads = SIZE_MAX), &none));
  EXPECT_WORDS(INVALID_ARGUMENT, "threads",
               wtacrs_context_create(WTACRS_DEVICE_CUDA, 0, SIZED(wtacrs_context_options, .threads = 2), &none));
  REQUIRE(none == NULL);
}

/* Children of a process that has computed, and of such children. */
static void forks(outcome expected, int generations) {
  wtacrs_context *used = context_of(2), *unused = context_of(3);
  same(expected, used, 5);
  REQUIRE(threads_now() == 3);
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    alarm(60); /* ends a child that hangs */
    REQUIRE(threads_now() == 1);
    same(expected, used, 6);
    same(expected, unused, 7);
    wtacrs_context *own = context_of(2);
    same(expected, own, 8);
    CHECK(wtacrs_context_destroy(own));
    CHECK(wtacrs_context_destroy(used));
    CHECK(wtacrs_context_destroy(unused));
    REQUIRE(threads_now() == 1);
    if (generations > 1) forks(expected, generations - 1);
    _exit(finish());
  }
  int status;
  REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  same(expected, used, 9);
  REQUIRE(threads_now() == 3);
  CHECK(wtacrs_context_destroy(used));
  CHECK(wtacrs_context_destroy(unused));
  REQUIRE(threads_now() == 1);
}

/* Sanitizers reserve address space of their own. */
#if !defined(__SANITIZE_ADDRESS__)
/* Messages of the library. */
static char logged[256];
static int messages;
static wtacrs_log_level last_level;
static void write_down(void *user, wtacrs_log_level level, const char *message) {
  REQUIRE(user == logged);
  snprintf(logged, sizeof logged, "%s", message);
  last_level = level, messages++;
}

/* No thread can start, since there is no address space for its stack. Later there is. */
static void limits(outcome expected) {
  wtacrs_context *context = context_of(2);
  CHECK(wtacrs_set_log(write_down, logged));
  messages = 0;
  /* A first step, so that the heap has what the next one needs. */
  wtacrs_context *alone = context_of(1);
  same(expected, alone, 10);
  struct rlimit before, limit;
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  unsigned long pages;
  FILE *sizes = fopen("/proc/self/statm", "r");
  REQUIRE(sizes != NULL && fscanf(sizes, "%lu", &pages) == 1);
  fclose(sizes);
  limit = before, limit.rlim_cur = pages * (unsigned long)sysconf(_SC_PAGESIZE) + (1 << 20);
  REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
  same(expected, context, 11);
  int alone_then = threads_now(), written = messages;
  REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
  REQUIRE(alone_then == 1 && written > 0 && last_level == WTACRS_LOG_LEVEL_WARNING);
  REQUIRE(strstr(logged, "2 threads cannot start") != NULL);
  same(expected, context, 12);
  REQUIRE(threads_now() == 3 && messages == written);
  CHECK(wtacrs_set_log(NULL, NULL));
  CHECK(wtacrs_context_destroy(alone));
  CHECK(wtacrs_context_destroy(context));
}

#else
static void limits(outcome expected) { (void)expected; }
#endif

/* A selection with fewer rows than the budget leaves room, in which nothing of what was there before remains. */
static void saved_bytes_are_equal(void) {
  wtacrs_context *context = context_of(2);
  wtacrs_layer *layer = describe(TOKENS, IN, OUT, WTACRS_BUDGET_ROWS, BUDGET, WTACRS_SOURCE_INPUT);
  CHECK(wtacrs_layer_set_design(layer, WTACRS_DESIGN_CRS));
  wtacrs_plan *plan = freeze(context, layer);
  wtacrs_plan_info info = info_of(plan);
  unsigned char *first = aligned(info.saved_bytes), *second = aligned(info.saved_bytes);
  memset(first, 0x5a, info.saved_bytes);
  CHECK(wtacrs_plan_forward(plan, h, IN, 1, 0, NULL, first, info.saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_plan_forward(plan, h, IN, 1, 0, NULL, second, info.saved_bytes, NULL, 0, NULL));
  uint64_t kept;
  CHECK(wtacrs_plan_saved_selection(plan, first, info.saved_bytes, SELECTION(NULL, NULL, 0, &kept, NULL)));
  REQUIRE(kept < BUDGET && memcmp(first, second, info.saved_bytes) == 0);
  free(first), free(second);
  CHECK(wtacrs_plan_destroy(plan));
  CHECK(wtacrs_context_destroy(context));
}

static void index_of_what_was_wrong(void) {
  wtacrs_context *context = context_of(2);
  wtacrs_plan *plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT);
  wtacrs_plan_info info = info_of(plan);
  void *saved = aligned(info.saved_bytes);
  float kept = h[1234 * IN + 5];
  h[1234 * IN + 5] = NAN;
  EXPECT_WORDS(INVALID_WEIGHTS, "1234", wtacrs_plan_forward(plan, h, IN, 1, 0, NULL, saved, info.saved_bytes, NULL, 0, NULL));
  h[1234 * IN + 5] = kept;
  wtacrs_error_info error = {.size = sizeof error};
  CHECK(wtacrs_last_error(NULL, 0, &error));
  REQUIRE(error.status == WTACRS_STATUS_INVALID_WEIGHTS && error.index == 1234);
  EXPECT(NULL_POINTER, wtacrs_plan_forward(plan, NULL, IN, 1, 0, NULL, saved, info.saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_last_error(NULL, 0, &error));
  REQUIRE(error.status == WTACRS_STATUS_NULL_POINTER && error.index == SIZE_MAX);
  free(saved);
  CHECK(wtacrs_plan_destroy(plan));
  CHECK(wtacrs_context_destroy(context));
}

int main(void) {
  REQUIRE((h = malloc(TOKENS * IN * sizeof *h)) && (dz = malloc(TOKENS * OUT * sizeof *dz)));
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)((i * 37) % 19) / (float)(9 + i % 7) - 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)((i * 23) % 17) / (float)(8 + i % 5) - 1;
  char version[32];
  snprintf(version, sizeof version, "%d.%d.%d", WTACRS_VERSION_MAJOR, WTACRS_VERSION_MINOR, WTACRS_VERSION_PATCH);
  REQUIRE(strcmp(version, wtacrs_version()) == 0);
  wtacrs_context *alone = context_of(1);
  outcome expected = step(alone, 0);
  CHECK(wtacrs_context_destroy(alone));
  limits(expected); /* first: the system keeps the stacks of threads that have ended, for the next ones */
  counts(expected);
  forks(expected, 2);
  saved_bytes_are_equal();
  index_of_what_was_wrong();
  REQUIRE(threads_now() == 1);
  free(expected.bits), free(h), free(dz);
  return finish();
}
