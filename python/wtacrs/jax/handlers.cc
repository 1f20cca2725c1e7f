// The three XLA FFI handlers of `wtacrs.jax`, which handlers.py calls.
//
// A plan is made for each call: it is arithmetic on sizes, and so no state has to live with an XLA executable. Handlers
// are pure functions of their operands; the predictor comes and goes as the bytes of wtacrs_norm_predictor_save. JAX aligns
// every array to 64 bytes, which is what saved memory requires.
#include <wtacrs.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace {

namespace ffi = xla::ffi;

constexpr std::size_t kAlignment = 64;

// A status that is not WTACRS_STATUS_OK, in the words of the last error.
ffi::Error Refusal(wtacrs_status status) {
  wtacrs_error_info info{};
  info.size = sizeof info;
  wtacrs_last_error(nullptr, 0, &info);
  std::string words(info.text_bytes > 0 ? info.text_bytes : 1, '\0');
  wtacrs_last_error(words.data(), words.size(), nullptr);
  words.resize(std::strlen(words.c_str()));
  std::string message = std::string(wtacrs_status_string(status)) + ": " + words;
  const bool defect = status == WTACRS_STATUS_PANIC;
  return ffi::Error(defect ? ffi::ErrorCode::kInternal : ffi::ErrorCode::kInvalidArgument, std::move(message));
}

#define RETURN_IF_REFUSED(call)                                    \
  do {                                                             \
    const wtacrs_status status_ = (call);                          \
    if (status_ != WTACRS_STATUS_OK) return Refusal(status_);      \
  } while (false)

std::optional<wtacrs_dtype> DtypeOf(ffi::DataType type) {
  switch (type) {
    case ffi::DataType::F32: return WTACRS_DTYPE_F32;
    case ffi::DataType::F16: return WTACRS_DTYPE_F16;
    case ffi::DataType::BF16: return WTACRS_DTYPE_BF16;
    case ffi::DataType::F64: return WTACRS_DTYPE_F64;
    default: return std::nullopt;
  }
}

// What sums of products are taken in, and the dtype of dW.
wtacrs_dtype SumsOf(wtacrs_dtype h) { return h == WTACRS_DTYPE_F64 ? WTACRS_DTYPE_F64 : WTACRS_DTYPE_F32; }

// What is fixed while a program is traced. XLA knows no enumerations of C, so these arrive as integers.
struct Settings {
  double budget;  // a share of the tokens, if `rows` is 0
  std::int64_t rows;
  std::int32_t packing;
  std::int32_t design;
  std::int32_t source;
  double mix;
};

// A struct of options or results, which begins with its size. Zeros stand for what is not asked for.
template <typename Struct>
Struct Sized() {
  Struct made{};
  made.size = sizeof(Struct);
  return made;
}

class Plan {
 public:
  Plan() = default;
  Plan(const Plan &) = delete;
  Plan &operator=(const Plan &) = delete;
  ~Plan() {
    wtacrs_plan_destroy(plan_);
    wtacrs_layer_destroy(layer_);
    wtacrs_context_destroy(context_);
  }

  wtacrs_status Make(const std::size_t (&shape)[3], wtacrs_dtype h, wtacrs_dtype dz, const Settings &settings) {
    wtacrs_status status = wtacrs_context_create(WTACRS_DEVICE_CPU, 0, nullptr, &context_);
    const auto then = [&status](auto step) {
      if (status == WTACRS_STATUS_OK) status = step();
    };
    then([&] { return wtacrs_layer_create(&layer_); });
    then([&] { return wtacrs_layer_set_shape(layer_, shape[0], shape[1], shape[2]); });
    then([&] { return wtacrs_layer_set_dtypes(layer_, h, dz, SumsOf(h)); });
    then([&] {
      return settings.rows > 0
                 ? wtacrs_layer_set_budget(layer_, WTACRS_BUDGET_ROWS, static_cast<double>(settings.rows))
                 : wtacrs_layer_set_budget(layer_, WTACRS_BUDGET_FRACTION, settings.budget);
    });
    then([&] { return wtacrs_layer_set_packing(layer_, static_cast<wtacrs_packing>(settings.packing)); });
    then([&] { return wtacrs_layer_set_design(layer_, static_cast<wtacrs_design>(settings.design)); });
    then([&] { return wtacrs_layer_set_source(layer_, static_cast<wtacrs_source>(settings.source), settings.mix); });
    then([&] { return wtacrs_plan_create(context_, layer_, &plan_); });
    return status;
  }

  const wtacrs_context *context() const { return context_; }
  const wtacrs_plan *get() const { return plan_; }

 private:
  wtacrs_context *context_ = nullptr;
  wtacrs_layer *layer_ = nullptr;
  wtacrs_plan *plan_ = nullptr;
};

class Predictor {
 public:
  Predictor() = default;
  Predictor(const Predictor &) = delete;
  Predictor &operator=(const Predictor &) = delete;
  ~Predictor() { wtacrs_norm_predictor_destroy(predictor_); }

  wtacrs_status Load(const Plan &plan, ffi::Buffer<ffi::U8> state) {
    return wtacrs_norm_predictor_load(plan.context(), state.typed_data(), state.element_count(), &predictor_);
  }
  wtacrs_norm_predictor *get() const { return predictor_; }

 private:
  wtacrs_norm_predictor *predictor_ = nullptr;
};

// Memory of a call's own, aligned to 64. (XLA's ScratchAllocator gives none on the CPU.)
class Memory {
 public:
  explicit Memory(std::size_t bytes)
      : data_(bytes > 0 ? ::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow) : nullptr),
        missing_(bytes > 0 && data_ == nullptr) {}
  Memory(const Memory &) = delete;
  Memory &operator=(const Memory &) = delete;
  ~Memory() { ::operator delete(data_, std::align_val_t{kAlignment}, std::nothrow); }

  void *get() const { return data_; }
  bool missing() const { return missing_; }

 private:
  void *data_;
  bool missing_;
};

ffi::Error NoMemory(std::size_t bytes) {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "no memory for " + std::to_string(bytes) + " bytes");
}

ffi::Error UnknownDtype(const char *what) {
  return ffi::Error::InvalidArgument(std::string(what) + " must be of float32, float16, bfloat16 or float64");
}

// (h, norms, state, key) -> saved. `state` is empty where there is no predictor; `key` is (seed low, seed high, offset low,
// offset high).
ffi::Error Forward(ffi::AnyBuffer h, ffi::Buffer<ffi::F32> norms, ffi::Buffer<ffi::U8> state,
                   ffi::Buffer<ffi::U32> key, ffi::ResultBuffer<ffi::U8> saved, double budget, std::int64_t rows,
                   std::int32_t packing, std::int32_t design, std::int32_t source, double mix) {
  const auto dtype = DtypeOf(h.element_type());
  if (!dtype) return UnknownDtype("h");
  const auto shape = h.dimensions();
  if (shape.size() != 2 || key.element_count() != 4 ||
      norms.element_count() != static_cast<std::size_t>(shape[0])) {
    return ffi::Error::InvalidArgument("h must have two axes, norms one entry for each of its rows, and key four");
  }
  const auto tokens = static_cast<std::size_t>(shape[0]), features = static_cast<std::size_t>(shape[1]);
  Plan plan;
  // What is saved does not depend on out_features.
  RETURN_IF_REFUSED(
      plan.Make({tokens, features, 1}, *dtype, SumsOf(*dtype), {budget, rows, packing, design, source, mix}));
  Predictor predictor;
  if (source == WTACRS_SOURCE_PREDICTED) RETURN_IF_REFUSED(predictor.Load(plan, state));
  const std::uint32_t *words = key.typed_data();
  const std::uint64_t seed = words[0] | std::uint64_t{words[1]} << 32;
  const std::uint64_t offset = words[2] | std::uint64_t{words[3]} << 32;
  auto options = Sized<wtacrs_forward_options>();
  options.guess = norms.typed_data();
  options.predictor = predictor.get();
  RETURN_IF_REFUSED(wtacrs_plan_forward(plan.get(), h.untyped_data(), features, seed, offset, &options,
                                        saved->typed_data(), saved->element_count(), nullptr, 0, nullptr));
  return ffi::Error::Success();
}

// (saved, dz) -> (dw, norms of the rows of dz). Where all rows are packed nobody has a use for these norms: they are not
// computed, and -1 stands for each.
ffi::Error Backward(ffi::Buffer<ffi::U8> saved, ffi::AnyBuffer dz,
                    ffi::Result<ffi::AnyBuffer> dw, ffi::ResultBuffer<ffi::F32> norms, std::int32_t h_dtype,
                    double budget, std::int64_t rows, std::int32_t packing, std::int32_t design,
                    std::int32_t source, double mix) {
  const auto dtype = DtypeOf(dz.element_type());
  if (!dtype) return UnknownDtype("dz");
  const auto shape = dz.dimensions(), out = dw->dimensions();
  if (shape.size() != 2 || out.size() != 2 || shape[1] != out[1] ||
      norms->element_count() != static_cast<std::size_t>(shape[0])) {
    return ffi::Error::InvalidArgument("dz and dw must have two axes, and norms one entry for each row of dz");
  }
  const auto tokens = static_cast<std::size_t>(shape[0]), out_features = static_cast<std::size_t>(shape[1]);
  const auto in_features = static_cast<std::size_t>(out[0]);
  const auto h = static_cast<wtacrs_dtype>(h_dtype);
  Plan plan;
  RETURN_IF_REFUSED(
      plan.Make({tokens, in_features, out_features}, h, *dtype, {budget, rows, packing, design, source, mix}));
  if (DtypeOf(dw->element_type()) != SumsOf(h)) {
    return ffi::Error::InvalidArgument("dw must be of the dtype that products are taken in");
  }
  auto info = Sized<wtacrs_plan_info>();
  RETURN_IF_REFUSED(wtacrs_plan_get_info(plan.get(), &info));
  const Memory scratch(info.backward_scratch_bytes);
  if (scratch.missing()) return NoMemory(info.backward_scratch_bytes);
  auto options = Sized<wtacrs_backward_options>();
  const bool packs_all = packing != WTACRS_PACKING_NATIVE && info.budget_rows == tokens;
  if (packs_all) {
    std::fill_n(norms->typed_data(), tokens, -1.0f);
  } else {
    options.dz_norms = norms->typed_data();
  }
  RETURN_IF_REFUSED(wtacrs_plan_backward(plan.get(), saved.typed_data(), saved.element_count(), dz.untyped_data(),
                                         out_features, dw->untyped_data(), out_features, &options, scratch.get(),
                                         info.backward_scratch_bytes, nullptr));
  return ffi::Error::Success();
}

// (state, saved, dz_norms, cached norms) -> the state that has learnt from the step.
ffi::Error Learn(ffi::Buffer<ffi::U8> state, ffi::Buffer<ffi::U8> saved,
                 ffi::Buffer<ffi::F32> dz_norms, ffi::Buffer<ffi::F32> cached, ffi::ResultBuffer<ffi::U8> learnt,
                 std::int64_t in_features, std::int32_t h_dtype, double budget, std::int64_t rows, std::int32_t packing,
                 std::int32_t design, std::int32_t source, double mix) {
  const std::size_t tokens = dz_norms.element_count();
  if (cached.element_count() != tokens || in_features < 0) {
    return ffi::Error::InvalidArgument("cached norms and norms of dZ must have one entry for each token");
  }
  const auto h = static_cast<wtacrs_dtype>(h_dtype);
  Plan plan;
  RETURN_IF_REFUSED(plan.Make({tokens, static_cast<std::size_t>(in_features), 1}, h, SumsOf(h),
                              {budget, rows, packing, design, source, mix}));
  Predictor predictor;
  RETURN_IF_REFUSED(predictor.Load(plan, state));
  RETURN_IF_REFUSED(wtacrs_norm_predictor_update(predictor.get(), plan.get(), saved.typed_data(),
                                                 saved.element_count(), dz_norms.typed_data(), cached.typed_data(),
                                                 nullptr));
  std::size_t needed = 0;
  RETURN_IF_REFUSED(
      wtacrs_norm_predictor_save(predictor.get(), learnt->typed_data(), learnt->element_count(), &needed));
  if (needed != learnt->element_count()) return ffi::Error::Internal("a predictor's bytes have changed in number");
  return ffi::Error::Success();
}

}  // namespace

#define SETTINGS            \
  .Attr<double>("budget")   \
      .Attr<std::int64_t>("rows")   \
      .Attr<std::int32_t>("packing") \
      .Attr<std::int32_t>("design") \
      .Attr<std::int32_t>("source") \
      .Attr<double>("mix")

XLA_FFI_DEFINE_HANDLER_SYMBOL(wtacrs_jax_forward, Forward,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .Ret<ffi::Buffer<ffi::U8>>() SETTINGS);

XLA_FFI_DEFINE_HANDLER_SYMBOL(wtacrs_jax_backward, Backward,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<std::int32_t>("h_dtype") SETTINGS);

XLA_FFI_DEFINE_HANDLER_SYMBOL(wtacrs_jax_learn, Learn,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::U8>>()
                                  .Attr<std::int64_t>("in_features")
                                  .Attr<std::int32_t>("h_dtype") SETTINGS);
