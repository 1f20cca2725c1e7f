/* What the examples share: a check of every status, aligned memory, the recorded layer of testdata/, which is read without
 * a library (its file is a JSON header and then plain floats), and the error of an estimate. */
#ifndef LAYER_H
#define LAYER_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

enum { TOKENS = 1024, IN_FEATURES = 384, OUT_FEATURES = 384 };

/* A call that fails ends the program with the library's own words about it. */
static inline void check(wtacrs_status status) {
  if (status == WTACRS_STATUS_OK) return;
  char words[512];
  wtacrs_last_error(words, sizeof words, NULL);
  fprintf(stderr, "%s: %s\n", wtacrs_status_string(status), words);
  exit(1);
}

/* Memory for `bytes`, aligned as a plan asks. Where it asks for none, NULL is what its calls take. */
static inline void *allocate(size_t bytes, size_t alignment) {
  if (bytes == 0) return NULL;
  void *memory = aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory) return memory;
  fprintf(stderr, "no memory for %zu bytes\n", bytes);
  exit(1);
}

/* The floats of one tensor: H or dZ, tokens x features. */
static inline float *read_tensor(const char *path, const char *name) {
  FILE *file = fopen(path, "rb");
  uint64_t header_bytes = 0;
  if (!file || fread(&header_bytes, 8, 1, file) != 1 || header_bytes > 1 << 20) goto failed;
  char *header = calloc(header_bytes + 1, 1), key[32];
  if (!header || fread(header, 1, header_bytes, file) != header_bytes) goto failed;
  snprintf(key, sizeof key, "\"%s\":{", name);
  char *entry = strstr(header, key), *offsets = entry ? strstr(entry, "\"data_offsets\":[") : NULL;
  if (!offsets) goto failed;
  long begin = strtol(offsets + strlen("\"data_offsets\":["), NULL, 10);
  free(header);
  size_t count = (size_t)TOKENS * IN_FEATURES;
  float *values = malloc(count * sizeof(float));
  if (!values || fseek(file, 8 + (long)header_bytes + begin, SEEK_SET) || fread(values, sizeof(float), count, file) != count)
    goto failed;
  fclose(file);
  return values;
failed:
  fprintf(stderr, "%s: no tensor %s\n", path, name);
  exit(1);
}

/* ||estimate - exact|| / ||exact||, with the exact dW by the definition. Programs that call it link -lm. */
static inline double relative_error(const float *estimate, const float *h, const float *dz) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < IN_FEATURES; i++)
    for (size_t j = 0; j < OUT_FEATURES; j++) {
      double exact = 0;
      for (size_t t = 0; t < TOKENS; t++) exact += (double)h[t * IN_FEATURES + i] * dz[t * OUT_FEATURES + j];
      difference += (estimate[i * OUT_FEATURES + j] - exact) * (estimate[i * OUT_FEATURES + j] - exact);
      size += exact * exact;
    }
  return sqrt(difference / size);
}

#endif
