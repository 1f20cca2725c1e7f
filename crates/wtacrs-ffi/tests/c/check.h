/* What the C programs of these tests share: checks that name what failed, aligned memory, recorded matrices. */
#ifndef CHECK_H
#define CHECK_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

static void check(wtacrs_status status, const char *what, int line) {
  if (status != WTACRS_OK) {
    char words[512];
    wtacrs_last_error(words, sizeof words, NULL);
    fprintf(stderr, "%d: %s: %s (%s)\n", line, what, wtacrs_status_string(status), words);
    exit(1);
  }
}
#define CHECK(call) check(call, #call, __LINE__)

static void require(int truth, const char *what, int line) {
  if (!truth) {
    fprintf(stderr, "%d: not so: %s\n", line, what);
    exit(1);
  }
}
#define REQUIRE(truth) require(truth, #truth, __LINE__)

/* Memory of `bytes` that are all 0xa5, aligned as a GPU's is. */
static inline void *aligned(size_t bytes) {
  size_t rounded = (bytes + 255) / 256 * 256 + 256;
  void *memory = aligned_alloc(256, rounded);
  REQUIRE(memory != NULL);
  return memset(memory, 0xa5, rounded);
}

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
#endif
