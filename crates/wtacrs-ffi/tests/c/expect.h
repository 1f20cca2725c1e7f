/* Expectations of the test programs: what is not so is printed, counted, and makes the program fail. */
#ifndef EXPECT_H
#define EXPECT_H

#include <stdio.h>
#include <wtacrs.h>

static _Atomic int failures;

static inline void expect(wtacrs_status found, wtacrs_status expected, const char *call, int line) {
  if (found != expected) {
    char words[256];
    wtacrs_last_error(words, sizeof words, NULL);
    printf("%d: %s: %s, expected %s (%s)\n", line, call, wtacrs_status_string(found), wtacrs_status_string(expected), words);
    failures++;
  }
}
#define EXPECT(status, call) expect(call, WTACRS_##status, #call, __LINE__)
#define REQUIRE(truth) \
  do { if (!(truth)) { printf("%d: not so: %s\n", __LINE__, #truth); failures++; } } while (0)

/* The plan of a layer of floats. */
static inline wtacrs_plan *make_plan(const wtacrs_context *context, size_t tokens, size_t in, size_t out, size_t budget,
                                     int32_t source) {
  wtacrs_layer *layer;
  wtacrs_plan *made = NULL;
  EXPECT(OK, wtacrs_layer_create(&layer));
  EXPECT(OK, wtacrs_layer_set_shape(layer, tokens, in, out));
  EXPECT(OK, wtacrs_layer_set_budget_rows(layer, budget));
  EXPECT(OK, wtacrs_layer_set_source(layer, source));
  EXPECT(OK, wtacrs_plan_create(context, layer, &made));
  EXPECT(OK, wtacrs_layer_destroy(layer));
  return made;
}

#endif
