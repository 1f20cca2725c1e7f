/* Objects shared by threads: plans, predictors and caches in use, changed and destroyed at the same time. Each call
 * gives what it would give alone, or says that the handle is gone. */
#include "expect.h"
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 48, IN = 16, OUT = 8, BUDGET = 12, THREADS = 4, ROUNDS = 40 };

static wtacrs_context *context;
static wtacrs_plan *plan, *predicted_plan;
static float h[TOKENS * IN], dz[TOKENS * OUT], norms[TOKENS], cached[TOKENS], expected[IN * OUT];
static size_t saved_bytes, scratch_bytes;

static void *aligned(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  if (!memory) abort();
  memset(memory, 0, bytes);
  return memory;
}

static void in_threads(void *(*function)(void *), void *argument) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, function, argument) == 0);
  for (int i = 0; i < THREADS; i++) REQUIRE(pthread_join(threads[i], NULL) == 0);
}

/* One plan, memory of its own in each thread, one H, one dZ. */
static void *steps(void *unused) {
  (void)unused;
  void *saved = aligned(saved_bytes), *scratch = aligned(scratch_bytes);
  float dw[IN * OUT];
  char words[64] = "x";
  EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(words[0] == 0); /* a thread begins without one */
  for (int i = 0; i < ROUNDS; i++) {
    EXPECT(OK, wtacrs_forward(plan, h, IN, NULL, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL));
    EXPECT(OK, wtacrs_backward(plan, saved, saved_bytes, dz, OUT, dw, OUT, 0, NULL, NULL, scratch, scratch_bytes, NULL));
    REQUIRE(memcmp(dw, expected, sizeof dw) == 0);
    EXPECT(NULL_POINTER, wtacrs_plan_budget(NULL, NULL));
  }
  free(saved), free(scratch);
  return NULL;
}

/* A predictor that all threads read, teach and save. */
static wtacrs_norm_predictor *predictor;
static void *predict(void *unused) {
  (void)unused;
  void *saved = aligned(saved_bytes);
  size_t needed;
  for (int i = 0; i < ROUNDS; i++) {
    EXPECT(OK, wtacrs_forward(predicted_plan, h, IN, NULL, predictor, 1, (uint64_t)i, saved, saved_bytes, NULL, 0, NULL));
    EXPECT(OK, wtacrs_norm_predictor_update(predictor, predicted_plan, saved, saved_bytes, norms));
    if (i % 8) continue;
    EXPECT(OK, wtacrs_norm_predictor_save(predictor, NULL, 0, &needed));
    void *bytes = malloc(needed);
    wtacrs_norm_predictor *loaded = NULL;
    EXPECT(OK, wtacrs_norm_predictor_save(predictor, bytes, needed, &needed));
    EXPECT(OK, wtacrs_norm_predictor_load(bytes, needed, &loaded));
    EXPECT(OK, wtacrs_norm_predictor_destroy(loaded));
    free(bytes);
  }
  free(saved);
  return NULL;
}

/* Updates wait for one another: so many of them, all alike, leave what they leave one after the other. A cached norm is
 * measured against the guess of that moment, so that one which missed another would show. */
static void *saved_rows;
static void *learn(void *of) {
  for (int i = 0; i < ROUNDS; i++)
    EXPECT(OK, wtacrs_norm_predictor_update_cached(of, plan, saved_rows, saved_bytes, norms, cached));
  return NULL;
}
static void updates_lose_nothing(void) {
  wtacrs_norm_predictor *together, *in_turn;
  unsigned char bytes[2][2048];
  size_t needed[2];
  EXPECT(OK, wtacrs_norm_predictor_create_with(IN, 8, 0.97, 0.01, 6, 128, 0, &together));
  EXPECT(OK, wtacrs_norm_predictor_create_with(IN, 8, 0.97, 0.01, 6, 128, 0, &in_turn));
  in_threads(learn, together);
  for (int i = 0; i < THREADS; i++) learn(in_turn);
  EXPECT(OK, wtacrs_norm_predictor_save(together, bytes[0], sizeof bytes[0], &needed[0]));
  EXPECT(OK, wtacrs_norm_predictor_save(in_turn, bytes[1], sizeof bytes[1], &needed[1]));
  REQUIRE(needed[0] == needed[1] && memcmp(bytes[0], bytes[1], needed[0]) == 0);
  EXPECT(OK, wtacrs_norm_predictor_destroy(together));
  EXPECT(OK, wtacrs_norm_predictor_destroy(in_turn));
}

/* A cache: a sample's norms are those of one store, never a mixture. */
static wtacrs_norm_cache *cache;
static void *remember(void *unused) {
  (void)unused;
  for (int i = 0; i < ROUNDS; i++) {
    uint64_t samples[2] = {(uint64_t)i % 3, 7}, lengths[2] = {TOKENS / 2, TOKENS / 2};
    float mine[TOKENS], found[TOKENS];
    for (int t = 0; t < TOKENS; t++) mine[t] = (float)i;
    EXPECT(OK, wtacrs_norm_cache_store(cache, samples, lengths, 2, mine, TOKENS));
    EXPECT(OK, wtacrs_norm_cache_fetch(cache, samples, lengths, 2, found, TOKENS));
    for (int t = 1; t < TOKENS / 2; t++) REQUIRE(found[t] == found[0] && found[TOKENS / 2 + t] == found[TOKENS / 2]);
    if (i % 10 == 0) EXPECT(OK, wtacrs_norm_cache_forget(cache, samples[0]));
  }
  return NULL;
}

/* Handles that one thread destroys while others use them: each call is done, or refused and writes nothing. */
static wtacrs_plan *doomed;
static wtacrs_norm_predictor *doomed_predictor;
static void *until_gone(void *unused) {
  (void)unused;
  unsigned char *saved = aligned(saved_bytes), *before = aligned(saved_bytes);
  for (wtacrs_status status = WTACRS_OK; status == WTACRS_OK;) {
    memcpy(before, saved, saved_bytes);
    status = wtacrs_forward(doomed, h, IN, NULL, doomed_predictor, 1, 0, saved, saved_bytes, NULL, 0, NULL);
    REQUIRE(status == WTACRS_OK || status == WTACRS_INVALID_HANDLE);
    if (status != WTACRS_OK) REQUIRE(memcmp(before, saved, saved_bytes) == 0);
  }
  free(saved), free(before);
  return NULL;
}
static void *destroyer(void *argument) {
  void *saved = aligned(saved_bytes);
  for (int i = 0; i < 5; i++)
    EXPECT(OK, wtacrs_forward(doomed, h, IN, NULL, doomed_predictor, 1, 0, saved, saved_bytes, NULL, 0, NULL));
  free(saved);
  if (argument) EXPECT(OK, wtacrs_norm_predictor_destroy(doomed_predictor));
  else EXPECT(OK, wtacrs_plan_destroy(doomed));
  return NULL;
}

/* Objects made and destroyed everywhere at once: numbers are never given twice. */
static void *made[THREADS * ROUNDS];
static _Atomic size_t count;
static void *make_and_destroy(void *unused) {
  (void)unused;
  for (int i = 0; i < ROUNDS; i++) {
    wtacrs_plan *mine = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT);
    made[count++] = mine;
    EXPECT(OK, wtacrs_plan_destroy(mine));
    EXPECT(INVALID_HANDLE, wtacrs_plan_destroy(mine));
  }
  return NULL;
}

int main(void) {
  for (int i = 0; i < TOKENS * IN; i++) h[i] = (float)((i * 37) % 19) / 9 - 1;
  for (int i = 0; i < TOKENS * OUT; i++) dz[i] = (float)((i * 23) % 17) / 8 - 1;
  EXPECT(OK, wtacrs_context_create(WTACRS_CPU, 0, &context));
  plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT), predicted_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_PREDICTED);
  EXPECT(OK, wtacrs_plan_saved_bytes(plan, &saved_bytes));
  EXPECT(OK, wtacrs_plan_backward_scratch_bytes(plan, &scratch_bytes));
  void *saved = aligned(saved_bytes), *scratch = aligned(scratch_bytes);
  EXPECT(OK, wtacrs_forward(plan, h, IN, NULL, NULL, 1, 0, saved, saved_bytes, NULL, 0, NULL));
  EXPECT(OK, wtacrs_backward(plan, saved, saved_bytes, dz, OUT, expected, OUT, 0, norms, NULL, scratch, scratch_bytes, NULL));
  free(scratch), saved_rows = saved;
  for (int i = 0; i < TOKENS; i++) cached[i] = norms[i] * (float)(1 + i % 5);
  EXPECT(OK, wtacrs_norm_predictor_create_with(IN, 8, 0.97, 0.01, 6, 128, 0, &predictor));
  EXPECT(OK, wtacrs_norm_cache_create(&cache));

  EXPECT(INVALID_ENUM, wtacrs_context_create(7, 0, &context));
  in_threads(steps, NULL);
  in_threads(predict, NULL);
  updates_lose_nothing();
  free(saved);
  in_threads(remember, NULL);
  in_threads(make_and_destroy, NULL);
  REQUIRE(count == THREADS * ROUNDS);
  for (size_t i = 0; i < count; i++)
    for (size_t j = 0; j < i; j++) REQUIRE(made[i] != made[j]);
  for (int of_predictor = 0; of_predictor < 2; of_predictor++) {
    doomed = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_PREDICTED);
    EXPECT(OK, wtacrs_norm_predictor_create_with(IN, 8, 0.97, 0.01, 6, 128, 0, &doomed_predictor));
    pthread_t last;
    REQUIRE(pthread_create(&last, NULL, destroyer, of_predictor ? (void *)&doomed : NULL) == 0);
    in_threads(until_gone, NULL);
    REQUIRE(pthread_join(last, NULL) == 0);
    if (of_predictor) EXPECT(OK, wtacrs_plan_destroy(doomed));
    else EXPECT(OK, wtacrs_norm_predictor_destroy(doomed_predictor));
  }
  char words[256];
  EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(strstr(words, "device is 7") != NULL); /* not what other threads did */

  EXPECT(OK, wtacrs_norm_predictor_destroy(predictor));
  EXPECT(OK, wtacrs_norm_cache_destroy(cache));
  EXPECT(OK, wtacrs_plan_destroy(plan));
  EXPECT(OK, wtacrs_plan_destroy(predicted_plan));
  EXPECT(OK, wtacrs_context_destroy(context));
  puts(failures ? "failed" : "ok");
  return failures != 0;
}
