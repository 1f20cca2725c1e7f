// A thin C++17 wrapper of libwtacrs: handles that destroy themselves, statuses that throw. Header only.
#ifndef WTACRS_HPP
#define WTACRS_HPP

#include <wtacrs.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

namespace wtacrs {

// A call that failed: its status, and what wtacrs_last_error says.
class Error : public std::runtime_error {
 public:
  explicit Error(wtacrs_status status) : std::runtime_error(words(status)), status_(status) {}
  wtacrs_status status() const noexcept { return status_; }

 private:
  static std::string words(wtacrs_status status) {
    std::size_t needed = 0;
    wtacrs_last_error(nullptr, 0, &needed);
    std::string text(needed, '\0');
    wtacrs_last_error(text.data(), text.size(), nullptr);
    if (!text.empty()) text.pop_back();
    return std::string(wtacrs_status_string(status)) + ": " + text;
  }
  wtacrs_status status_;
};

inline void check(wtacrs_status status) {
  if (status != WTACRS_OK) throw Error(status);
}

namespace detail {
template <auto Destroy>
struct Destroyer {
  template <class T>
  void operator()(T *handle) const noexcept {
    Destroy(handle);
  }
};
template <class T, auto Destroy>
using Handle = std::unique_ptr<T, Destroyer<Destroy>>;

template <class H, class Create, class... Arguments>
H make(Create create, Arguments... arguments) {
  typename H::pointer handle = nullptr;
  check(create(arguments..., &handle));
  return H(handle);
}

template <class T, class Query, class Object>
T ask(Query query, const Object *object) {
  T value{};
  check(query(object, &value));
  return value;
}
}  // namespace detail

using Context = detail::Handle<wtacrs_context, wtacrs_context_destroy>;
using Layer = detail::Handle<wtacrs_layer, wtacrs_layer_destroy>;
using NormPredictor = detail::Handle<wtacrs_norm_predictor, wtacrs_norm_predictor_destroy>;
using NormCache = detail::Handle<wtacrs_norm_cache, wtacrs_norm_cache_destroy>;

inline Context cpu() { return detail::make<Context>(wtacrs_context_create, WTACRS_CPU, 0); }
inline Layer layer() { return detail::make<Layer>(wtacrs_layer_create); }
inline NormPredictor norm_predictor(std::size_t in_features) {
  return detail::make<NormPredictor>(wtacrs_norm_predictor_create, in_features);
}

// Memory aligned as saved and scratch memory must be.
class Memory {
 public:
  explicit Memory(std::size_t bytes)
      : data_(std::aligned_alloc(64, (bytes + 63) / 64 * 64 + 64)), bytes_(bytes) {
    if (!data_) throw std::bad_alloc();
  }
  void *data() const noexcept { return data_.get(); }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  struct Free {
    void operator()(void *memory) const noexcept { std::free(memory); }
  };
  std::unique_ptr<void, Free> data_;
  std::size_t bytes_;
};

// A plan with the sizes that it asks for. Shared freely between threads, as the C plan is.
class Plan {
 public:
  Plan(const Context &context, const Layer &layer)
      : plan_(detail::make<Handle>(wtacrs_plan_create, context.get(), layer.get())) {}

  const wtacrs_plan *get() const noexcept { return plan_.get(); }
  std::size_t budget() const { return detail::ask<std::size_t>(wtacrs_plan_budget, get()); }
  std::uint64_t draws() const { return detail::ask<std::uint64_t>(wtacrs_plan_draws, get()); }
  Memory saved() const { return Memory(detail::ask<std::size_t>(wtacrs_plan_saved_bytes, get())); }
  Memory forward_scratch() const { return Memory(detail::ask<std::size_t>(wtacrs_plan_forward_scratch_bytes, get())); }
  Memory backward_scratch() const { return Memory(detail::ask<std::size_t>(wtacrs_plan_backward_scratch_bytes, get())); }

 private:
  using Handle = detail::Handle<wtacrs_plan, wtacrs_plan_destroy>;
  Handle plan_;
};

}  // namespace wtacrs

#endif
