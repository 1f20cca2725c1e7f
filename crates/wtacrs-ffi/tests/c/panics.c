/* Every entry point: a panic inside is contained, and NULL or 0 for every argument is answered.
 * Usage: panics exports.txt */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

/* More arguments than a function has are no harm under the calling conventions that this test runs on. */
typedef wtacrs_status (*entry)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                               void *, void *, void *);

static wtacrs_status call(entry function) {
  return function(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
}

int main(int argc, char **argv) {
  FILE *list = argc == 2 ? fopen(argv[1], "r") : NULL;
  char name[128];
  int failures = 0, count = 0;
  if (!list) return 2;
  while (fscanf(list, "%127s", name) == 1) {
    if (!strcmp(name, "wtacrs_version") || !strcmp(name, "wtacrs_abi_version") || !strcmp(name, "wtacrs_status_string") ||
        !strcmp(name, "wtacrs_last_error"))
      continue;
    void *symbol = dlsym(RTLD_DEFAULT, name);
    entry function;
    memcpy(&function, &symbol, sizeof function);
    if (!symbol) {
      printf("%s: not there\n", name);
      return 1;
    }
    setenv("WTACRS_TEST_PANIC", name, 1);
    wtacrs_status panicked = call(function);
    char words[256];
    wtacrs_last_error(words, sizeof words, NULL);
    unsetenv("WTACRS_TEST_PANIC");
    wtacrs_status answered = call(function);
    int destroys = strlen(name) > 8 && !strcmp(name + strlen(name) - 8, "_destroy");
    int nothing_to_do = destroys || !strcmp(name, "wtacrs_joint_norms");
    if (panicked != WTACRS_PANIC || strncmp(words, name, strlen(name)) != 0 || answered == WTACRS_PANIC ||
        (answered == WTACRS_OK) != nothing_to_do) {
      printf("%s: %s, then %s\n", name, wtacrs_status_string(panicked), wtacrs_status_string(answered));
      failures++;
    }
    count++;
  }
  fclose(list);
  if (count < 60) return 3;
  puts(failures ? "failed" : "ok");
  return failures != 0;
}
