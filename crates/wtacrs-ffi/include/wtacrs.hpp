// A thin C++17 wrapper of libwtacrs, without a library of its own. Calls are those of wtacrs.h, on `.get()`.
//
// Owns: a handle is a std::unique_ptr that destroys its object; a plan owns its handle, and Memory its bytes.
// Throws: `check`, and what makes an object, throw Error for a status other than WTACRS_STATUS_OK; Memory throws
// std::bad_alloc. Destructors throw nothing.
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
    wtacrs_error_info info{};
    info.size = sizeof info;
    wtacrs_last_error(nullptr, 0, &info);
    std::string text(info.text_bytes, '\0');
    wtacrs_last_error(text.data(), text.size(), nullptr);
    if (!text.empty()) text.pop_back();  // the NUL
    return std::string(wtacrs_status_string(status)) + ": " + text;
  }
  wtacrs_status status_;
};

inline void check(wtacrs_status status) {
  if (status != WTACRS_STATUS_OK) throw Error(status);
}

// A struct of wtacrs.h with its size set and all else zero, which stands for the defaults.
template <class Struct>
Struct sized() {
  Struct made{};
  made.size = sizeof made;
  return made;
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
}  // namespace detail

using Context = detail::Handle<wtacrs_context, wtacrs_context_destroy>;
using Layer = detail::Handle<wtacrs_layer, wtacrs_layer_destroy>;
using NormPredictor = detail::Handle<wtacrs_norm_predictor, wtacrs_norm_predictor_destroy>;
using NormCache = detail::Handle<wtacrs_norm_cache, wtacrs_norm_cache_destroy>;
using TensorMul = detail::Handle<wtacrs_tensor_mul, wtacrs_tensor_mul_destroy>;
using Operator = detail::Handle<wtacrs_operator, wtacrs_operator_destroy>;

// By default with a thread for each core; the options' `threads` says otherwise.
inline Context cpu(const wtacrs_context_options *options = nullptr) {
  return detail::make<Context>(wtacrs_context_create, WTACRS_DEVICE_CPU, 0, options);
}
// The calling thread's current CUDA context, or the primary context of a GPU's number.
inline Context cuda(std::int32_t ordinal = -1) {
  return detail::make<Context>(wtacrs_context_create, WTACRS_DEVICE_CUDA, ordinal, nullptr);
}
inline Layer layer() { return detail::make<Layer>(wtacrs_layer_create); }
inline TensorMul tensor_mul() { return detail::make<TensorMul>(wtacrs_tensor_mul_create); }
// "operator" is a word of C++.
inline Operator make_operator() { return detail::make<Operator>(wtacrs_operator_create); }
inline NormPredictor norm_predictor(const Context &context, std::size_t in_features,
                                    const wtacrs_norm_predictor_options *options = nullptr) {
  return detail::make<NormPredictor>(wtacrs_norm_predictor_create, context.get(), in_features, options);
}
// On the CPU a cache needs no bounds.
inline NormCache norm_cache(const Context &context, std::size_t samples = SIZE_MAX,
                            std::size_t tokens_per_sample = SIZE_MAX) {
  return detail::make<NormCache>(wtacrs_norm_cache_create, context.get(), samples, tokens_per_sample);
}

// Memory of the host, aligned as a plan asks. For a GPU allocate as many bytes there.
class Memory {
 public:
  Memory(std::size_t bytes, std::size_t alignment)
      : data_(bytes ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment) : nullptr),
        bytes_(bytes) {
    if (bytes && !data_) throw std::bad_alloc();
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

namespace detail {
// A plan, and what its calls need. It never changes, so threads share it freely, each with memory of its own.
template <class Plan, class Info, auto Create, auto GetInfo, auto Destroy, class Description>
class PlanOf {
 public:
  PlanOf(const Context &context, const Description &description)
      : plan_(make<Handle<Plan, Destroy>>(Create, context.get(), description.get())), info_(sized<Info>()) {
    check(GetInfo(get(), &info_));
  }

  const Plan *get() const noexcept { return plan_.get(); }
  const Info &info() const noexcept { return info_; }
  Memory saved() const { return {info_.saved_bytes, info_.alignment}; }
  Memory forward_scratch() const { return {info_.forward_scratch_bytes, info_.alignment}; }
  Memory backward_scratch() const { return {info_.backward_scratch_bytes, info_.alignment}; }

 private:
  Handle<Plan, Destroy> plan_;
  Info info_;
};
}  // namespace detail

using Plan = detail::PlanOf<wtacrs_plan, wtacrs_plan_info, wtacrs_plan_create, wtacrs_plan_get_info, wtacrs_plan_destroy,
                            Layer>;
using TensorMulPlan = detail::PlanOf<wtacrs_tensor_mul_plan, wtacrs_tensor_mul_plan_info, wtacrs_tensor_mul_plan_create,
                                     wtacrs_tensor_mul_plan_get_info, wtacrs_tensor_mul_plan_destroy, TensorMul>;
// It has no forward_scratch().
using OperatorPlan = detail::PlanOf<wtacrs_operator_plan, wtacrs_operator_plan_info, wtacrs_operator_plan_create,
                                    wtacrs_operator_plan_get_info, wtacrs_operator_plan_destroy, Operator>;

}  // namespace wtacrs

#endif
