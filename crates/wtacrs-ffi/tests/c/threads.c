/* Objects shared by threads: plans, predictors and caches in use, changed and destroyed at the same time. Each call does
 * what it would do alone, or returns that the handle is gone. */
#include "check.h"
#include <pthread.h>

enum { TOKENS = 48, IN = 16, OUT = 8, BUDGET = 12, THREADS = 4, ROUNDS = 40 };

static wtacrs_context *context;
static wtacrs_plan *plan, *predicted_plan;
static float h[TOKENS * IN], dz[TOKENS * OUT], norms[TOKENS], cached[TOKENS], expected[IN * OUT];
static wtacrs_plan_info info; /* of either plan */

static wtacrs_norm_predictor *small_predictor(void) {
  wtacrs_norm_predictor *made;
  CHECK(wtacrs_norm_predictor_create(context, IN, SIZED(wtacrs_norm_predictor_options, .features = 8), &made));
  return made;
}

static wtacrs_status predicted_pass(const wtacrs_plan* by, const wtacrs_norm_predictor* predictor, uint64_t offset,
                                    void* saved) {
  return wtacrs_plan_forward(by, h, IN, 1, offset, SIZED(wtacrs_forward_options, .predictor = predictor), saved,
                             info.saved_bytes, NULL, 0, NULL);
}

static void in_threads(void *(*function)(void *), void *argument) {
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) REQUIRE(pthread_create(&threads[i], NULL, function, argument) == 0);
  for (int i = 0; i < THREADS; i++) REQUIRE(pthread_join(threads[i], NULL) == 0);
}

/* One plan, memory of its own in each thread, one H, one dZ. */
static void *steps(void *unused) {
  (void)unused;
  void *saved = aligned(info.saved_bytes), *scratch = aligned(info.backward_scratch_bytes);
  float dw[IN * OUT];
  char words[64] = "x";
  EXPECT(OK, wtacrs_last_error(words, sizeof words, NULL));
  REQUIRE(words[0] == 0); /* a thread begins without one */
  for (int i = 0; i < ROUNDS; i++) {
    EXPECT(OK, wtacrs_plan_forward(plan, h, IN, 1, 0, NULL, saved, info.saved_bytes, NULL, 0, NULL));
    EXPECT(OK, wtacrs_plan_backward(plan, saved, info.saved_bytes, dz, OUT, dw, OUT, NULL, scratch,
                                    info.backward_scratch_bytes, NULL));
    REQUIRE(memcmp(dw, expected, sizeof dw) == 0);
    EXPECT(NULL_POINTER, wtacrs_plan_get_info(NULL, NULL));
  }
  free(saved), free(scratch);
  return NULL;
}

/* A predictor from which all threads guess, and that all teach, inspect and save. */
static wtacrs_norm_predictor *predictor;
static void *predict(void *unused) {
  (void)unused;
  void *saved = aligned(info.saved_bytes);
  size_t needed;
  uint32_t outcome;
  for (int i = 0; i < ROUNDS; i++) {
    EXPECT(OK, predicted_pass(predicted_plan, predictor, (uint64_t)i, saved));
    EXPECT(OK, wtacrs_norm_predictor_update(predictor, predicted_plan, saved, info.saved_bytes, norms, NULL, NULL));
    EXPECT(OK, wtacrs_norm_predictor_outcome(predictor, &outcome, NULL));
    REQUIRE(outcome == 0);
    if (i % 8) continue;
    EXPECT(OK, wtacrs_norm_predictor_save(predictor, NULL, 0, &needed));
    void *bytes = malloc(needed);
    wtacrs_norm_predictor *loaded = NULL;
    EXPECT(OK, wtacrs_norm_predictor_save(predictor, bytes, needed, &needed));
    EXPECT(OK, wtacrs_norm_predictor_load(context, bytes, needed, &loaded));
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
    EXPECT(OK, wtacrs_norm_predictor_update(of, plan, saved_rows, info.saved_bytes, norms, cached, NULL));
  return NULL;
}
static void updates_lose_nothing(void) {
  wtacrs_norm_predictor *together = small_predictor(), *in_turn = small_predictor();
  unsigned char bytes[2][2048];
  size_t needed[2];
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
static void *remember_norms(void *unused) {
  (void)unused;
  for (int i = 0; i < ROUNDS; i++) {
    uint64_t samples[2] = {(uint64_t)i % 3, 7}, lengths[2] = {TOKENS / 2, TOKENS / 2};
    float mine[TOKENS], found[TOKENS];
    for (int t = 0; t < TOKENS; t++) mine[t] = (float)i;
    EXPECT(OK, wtacrs_norm_cache_store(cache, samples, lengths, 2, 0, mine, TOKENS, NULL));
    EXPECT(OK, wtacrs_norm_cache_fetch(cache, samples, lengths, 2, 0, found, TOKENS, NULL));
    for (int t = 1; t < TOKENS / 2; t++) REQUIRE(found[t] == found[0] && found[TOKENS / 2 + t] == found[TOKENS / 2]);
    if (i % 10 == 0) EXPECT(OK, wtacrs_norm_cache_forget(cache, samples, 1, NULL));
  }
  return NULL;
}

/* Handles that one thread destroys while others use them: each call is done, or refused and writes nothing. */
static wtacrs_plan *doomed;
static wtacrs_norm_predictor *doomed_predictor;
static void *until_gone(void *unused) {
  (void)unused;
  unsigned char *saved = aligned(info.saved_bytes), *before = aligned(info.saved_bytes);
  for (wtacrs_status status = WTACRS_STATUS_OK; status == WTACRS_STATUS_OK;) {
    memcpy(before, saved, info.saved_bytes);
    status = predicted_pass(doomed, doomed_predictor, 0, saved);
    REQUIRE(status == WTACRS_STATUS_OK || status == WTACRS_STATUS_INVALID_HANDLE);
    if (status != WTACRS_STATUS_OK) REQUIRE(memcmp(before, saved, info.saved_bytes) == 0);
  }
  free(saved), free(before);
  return NULL;
}
static void *destroyer(void *argument) {
  void *saved = aligned(info.saved_bytes);
  for (int i = 0; i < 5; i++) EXPECT(OK, predicted_pass(doomed, doomed_predictor, 0, saved));
  free(saved);
  if (argument) EXPECT(OK, wtacrs_norm_predictor_destroy(doomed_predictor));
  else EXPECT(OK, wtacrs_plan_destroy(doomed));
  return NULL;
}
static void destroyed_while_in_use(void) {
  for (int of_predictor = 0; of_predictor < 2; of_predictor++) {
    doomed = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_PREDICTED);
    doomed_predictor = small_predictor();
    pthread_t last;
    REQUIRE(pthread_create(&last, NULL, destroyer, of_predictor ? (void *)&doomed : NULL) == 0);
    in_threads(until_gone, NULL);
    REQUIRE(pthread_join(last, NULL) == 0);
    if (of_predictor) EXPECT(OK, wtacrs_plan_destroy(doomed));
    else EXPECT(OK, wtacrs_norm_predictor_destroy(doomed_predictor));
  }
}

/* Objects made and destroyed everywhere at once: no two have the same number. */
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
  CHECK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_INPUT);
  predicted_plan = make_plan(context, TOKENS, IN, OUT, BUDGET, WTACRS_SOURCE_PREDICTED);
  info = info_of(plan);
  saved_rows = aligned(info.saved_bytes);
  void *scratch = aligned(info.backward_scratch_bytes);
  CHECK(wtacrs_plan_forward(plan, h, IN, 1, 0, NULL, saved_rows, info.saved_bytes, NULL, 0, NULL));
  CHECK(wtacrs_plan_backward(plan, saved_rows, info.saved_bytes, dz, OUT, expected, OUT,
                             SIZED(wtacrs_backward_options, .dz_norms = norms), scratch, info.backward_scratch_bytes, NULL));
  for (int i = 0; i < TOKENS; i++) cached[i] = norms[i] * (float)(1 + i % 5);
  predictor = small_predictor();
  CHECK(wtacrs_norm_cache_create(context, SIZE_MAX, SIZE_MAX, &cache));

  wtacrs_context *none;
  EXPECT(INVALID_ENUM, wtacrs_context_create(7, 0, NULL, &none));
  in_threads(steps, NULL);
  in_threads(predict, NULL);
  updates_lose_nothing();
  in_threads(remember_norms, NULL);
  in_threads(make_and_destroy, NULL);
  REQUIRE(count == THREADS * ROUNDS);
  for (size_t i = 0; i < count; i++)
    for (size_t j = 0; j < i; j++) REQUIRE(made[i] != made[j]);
  destroyed_while_in_use();
  REQUIRE(strstr(error_text(), "device is 7") != NULL); /* not what other threads did */

  CHECK(wtacrs_norm_predictor_destroy(predictor));
  CHECK(wtacrs_norm_cache_destroy(cache));
  CHECK(wtacrs_plan_destroy(plan));
  CHECK(wtacrs_plan_destroy(predicted_plan));
  CHECK(wtacrs_context_destroy(context));
  free(saved_rows), free(scratch);
  return finish();
}
