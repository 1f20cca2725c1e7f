// A C++ program with two Rust libraries, libwtacrs and neighbour.rs, all linked statically: each one's panics and
// exceptions reach the one who catches them. Panics of libwtacrs need its `dev` profile.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <wtacrs.hpp>

extern "C" bool neighbour_catches_its_panic();

static wtacrs_status refused(wtacrs_status status) {
  try {
    wtacrs::check(status);
  } catch (const wtacrs::Error &error) {
    return error.status();
  }
  return WTACRS_STATUS_OK;
}

int main() {
  if (!neighbour_catches_its_panic()) return 1;
  const auto layer = wtacrs::layer();
  if (refused(wtacrs_layer_set_budget(layer.get(), WTACRS_BUDGET_FRACTION, 1.5)) != WTACRS_STATUS_INVALID_BUDGET) return 2;
  setenv("WTACRS_TEST_PANIC", "wtacrs_layer_set_budget", 1);
  if (refused(wtacrs_layer_set_budget(layer.get(), WTACRS_BUDGET_FRACTION, 0.5)) != WTACRS_STATUS_PANIC) return 3;
  if (!neighbour_catches_its_panic()) return 4;
  try {
    throw std::string("on purpose");
  } catch (const std::string &) {
    std::puts("panics and exceptions were caught");
  }
  return 0;
}
