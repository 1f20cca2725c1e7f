/* Every entry point contains a panic, and returns if every argument is NULL or 0.
 * Usage: panics exports.txt */
#include "check.h"
#include <dlfcn.h>

/* Under the calling conventions of this test, passing more arguments than a function has is harmless. */
typedef wtacrs_status (*entry)(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                               void *, void *, void *);

static wtacrs_status call(entry function) {
  return function(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
}

/* Those that cannot fail, and the one that reports failures. */
static int is_exempt(const char *name) {
  const char *names[] = {"wtacrs_version", "wtacrs_abi_version", "wtacrs_status_string", "wtacrs_last_error"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(name, names[i])) return 1;
  return 0;
}

static int ends_with(const char *name, const char *end) {
  return strlen(name) > strlen(end) && !strcmp(name + strlen(name) - strlen(end), end);
}

int main(int argc, char **argv) {
  REQUIRE(argc == 2);
  FILE *list = fopen(argv[1], "r");
  REQUIRE(list != NULL);
  char name[128];
  int count = 0;
  while (fscanf(list, "%127s", name) == 1) {
    if (is_exempt(name)) continue;
    void *symbol = dlsym(RTLD_DEFAULT, name);
    entry function;
    memcpy(&function, &symbol, sizeof function);
    now = name;
    REQUIRE(symbol != NULL);
    setenv("WTACRS_TEST_PANIC", name, 1);
    EXPECT(PANIC, call(function));
    REQUIRE(!strncmp(error_text(), name, strlen(name)) && strstr(error_text(), "panicked at ") &&
            strstr(error_text(), "guard.rs"));
    unsetenv("WTACRS_TEST_PANIC");
    wtacrs_status answer = call(function);
    REQUIRE(answer != WTACRS_STATUS_PANIC && (answer == WTACRS_STATUS_OK) == (ends_with(name, "_destroy") || !strcmp(name, "wtacrs_set_log")));
    count++;
  }
  fclose(list);
  REQUIRE(count >= 60);
  return finish();
}
