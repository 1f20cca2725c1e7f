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

#endif
