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
using TensorMul = detail::Handle<wtacrs_tensor_mul, wtacrs_tensor_mul_destroy>;

inline Context cpu() { return detail::make<Context>(wtacrs_context_create, WTACRS_CPU, 0); }
// The calling thread's current CUDA context, or the primary context of a GPU's number.
inline Context cuda(std::int32_t ordinal = -1) { return detail::make<Context>(wtacrs_context_create, WTACRS_CUDA, ordinal); }
inline Layer layer() { return detail::make<Layer>(wtacrs_layer_create); }
inline TensorMul tensor_mul() { return detail::make<TensorMul>(wtacrs_tensor_mul_create); }
inline NormPredictor norm_predictor(std::size_t in_features) {
  return detail::make<NormPredictor>(wtacrs_norm_predictor_create, in_features);
}
// For a context's device; its calls are those that end in _on.
inline NormPredictor norm_predictor(const Context &context, std::size_t in_features) {
  return detail::make<NormPredictor>(wtacrs_norm_predictor_create_on, context.get(), in_features);
}

// Memory of the host, aligned as saved and scratch memory must be there. For a GPU ask a plan for the bytes alone.
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
  std::size_t saved_bytes() const { return detail::ask<std::size_t>(wtacrs_plan_saved_bytes, get()); }
  std::size_t forward_bytes() const { return detail::ask<std::size_t>(wtacrs_plan_forward_scratch_bytes, get()); }
  std::size_t backward_bytes() const { return detail::ask<std::size_t>(wtacrs_plan_backward_scratch_bytes, get()); }
  Memory saved() const { return Memory(saved_bytes()); }
  Memory forward_scratch() const { return Memory(forward_bytes()); }
  Memory backward_scratch() const { return Memory(backward_bytes()); }

 private:
  using Handle = detail::Handle<wtacrs_plan, wtacrs_plan_destroy>;
  Handle plan_;
};

// The same of a batched product.
class TensorMulPlan {
 public:
  TensorMulPlan(const Context &context, const TensorMul &product)
      : plan_(detail::make<Handle>(wtacrs_tensor_mul_plan_create, context.get(), product.get())) {
    check(wtacrs_tensor_mul_plan_memory(get(), &saved_bytes_, &forward_bytes_, &backward_bytes_, nullptr));
  }

  const wtacrs_tensor_mul_plan *get() const noexcept { return plan_.get(); }
  std::uint64_t draws() const { return detail::ask<std::uint64_t>(wtacrs_tensor_mul_plan_draws, get()); }
  std::size_t saved_bytes() const noexcept { return saved_bytes_; }
  std::size_t forward_bytes() const noexcept { return forward_bytes_; }
  std::size_t backward_bytes() const noexcept { return backward_bytes_; }
  Memory saved() const { return Memory(saved_bytes_); }
  Memory forward_scratch() const { return Memory(forward_bytes_); }
  Memory backward_scratch() const { return Memory(backward_bytes_); }

 private:
  using Handle = detail::Handle<wtacrs_tensor_mul_plan, wtacrs_tensor_mul_plan_destroy>;
  Handle plan_;
  std::size_t saved_bytes_ = 0, forward_bytes_ = 0, backward_bytes_ = 0;
};

}  // namespace wtacrs

#endif
