/* A client of the first ABI baseline. The program beside this source was built once and is never built again: later
 * libraries of the same ABI must run it. It prints what it has verified, and ends with 1 at the first thing that is not so.
 * What it relies on is the interface alone: not which rows a seed draws, which may change with notice. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wtacrs.h>

enum { TOKENS = 60, IN = 7, OUT = 5, BUDGET = 20 };

static void require(int truth, const char *what, int line) {
  if (truth) return;
  char words[512];
  wtacrs_last_error(words, sizeof words, NULL);
  printf("not so, line %d: %s\nlast error: %s\n", line, what, words);
  exit(1);
}
#define REQUIRE(truth) require(truth, #truth, __LINE__)
#define OK(call) require((call) == WTACRS_STATUS_OK, #call, __LINE__)
#define REFUSED(status, call) require((call) == WTACRS_STATUS_##status, #status " by " #call, __LINE__)

/* A struct with its size, the fields that are named, and zeros. */
#define SIZED(type, ...) (&(type){.size = sizeof(type), __VA_ARGS__})
#define SELECTION(indices_, scales_, capacity_, kept_, winners_) \
  SIZED(wtacrs_selection, .indices = indices_, .scales = scales_, .capacity = capacity_, .kept = kept_, .winners = winners_)

static void verified(const char *what) { printf("verified: %s\n", what); }

static void *memory(size_t bytes) {
  void *block = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  REQUIRE(block != NULL);
  memset(block, 0xa5, bytes);
  return block;
}

static uint32_t state = 1;
static float random_value(void) {
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1.0f;
}

/* Every function of the baseline, so that the loader must find them all before the program starts. */
static void (*const functions[])(void) = {
    (void (*)(void))wtacrs_abi_version,
    (void (*)(void))wtacrs_context_create,
    (void (*)(void))wtacrs_context_destroy,
    (void (*)(void))wtacrs_context_norms,
    (void (*)(void))wtacrs_context_norms_dl,
    (void (*)(void))wtacrs_last_error,
    (void (*)(void))wtacrs_layer_create,
    (void (*)(void))wtacrs_layer_destroy,
    (void (*)(void))wtacrs_layer_set_budget,
    (void (*)(void))wtacrs_layer_set_design,
    (void (*)(void))wtacrs_layer_set_dtypes,
    (void (*)(void))wtacrs_layer_set_further_offset,
    (void (*)(void))wtacrs_layer_set_precision,
    (void (*)(void))wtacrs_layer_set_shape,
    (void (*)(void))wtacrs_layer_set_source,
    (void (*)(void))wtacrs_norm_cache_create,
    (void (*)(void))wtacrs_norm_cache_destroy,
    (void (*)(void))wtacrs_norm_cache_fetch,
    (void (*)(void))wtacrs_norm_cache_forget,
    (void (*)(void))wtacrs_norm_cache_load,
    (void (*)(void))wtacrs_norm_cache_outcome,
    (void (*)(void))wtacrs_norm_cache_save,
    (void (*)(void))wtacrs_norm_cache_store,
    (void (*)(void))wtacrs_norm_predictor_apply,
    (void (*)(void))wtacrs_norm_predictor_create,
    (void (*)(void))wtacrs_norm_predictor_destroy,
    (void (*)(void))wtacrs_norm_predictor_load,
    (void (*)(void))wtacrs_norm_predictor_outcome,
    (void (*)(void))wtacrs_norm_predictor_save,
    (void (*)(void))wtacrs_norm_predictor_statistics,
    (void (*)(void))wtacrs_norm_predictor_statistics_count,
    (void (*)(void))wtacrs_norm_predictor_update,
    (void (*)(void))wtacrs_plan_backward,
    (void (*)(void))wtacrs_plan_backward_dl,
    (void (*)(void))wtacrs_plan_create,
    (void (*)(void))wtacrs_plan_destroy,
    (void (*)(void))wtacrs_plan_estimate,
    (void (*)(void))wtacrs_plan_estimate_dl,
    (void (*)(void))wtacrs_plan_expected_error,
    (void (*)(void))wtacrs_plan_expected_error_dl,
    (void (*)(void))wtacrs_plan_forward,
    (void (*)(void))wtacrs_plan_forward_dl,
    (void (*)(void))wtacrs_plan_gather,
    (void (*)(void))wtacrs_plan_gather_dl,
    (void (*)(void))wtacrs_plan_get_info,
    (void (*)(void))wtacrs_plan_saved_selection,
    (void (*)(void))wtacrs_plan_select,
    (void (*)(void))wtacrs_plan_theory,
    (void (*)(void))wtacrs_plan_weight_gradient,
    (void (*)(void))wtacrs_plan_weight_gradient_dl,
    (void (*)(void))wtacrs_plan_weights,
    (void (*)(void))wtacrs_set_log,
    (void (*)(void))wtacrs_status_string,
    (void (*)(void))wtacrs_tensor_mul_create,
    (void (*)(void))wtacrs_tensor_mul_destroy,
    (void (*)(void))wtacrs_tensor_mul_plan_backward,
    (void (*)(void))wtacrs_tensor_mul_plan_backward_dl,
    (void (*)(void))wtacrs_tensor_mul_plan_create,
    (void (*)(void))wtacrs_tensor_mul_plan_destroy,
    (void (*)(void))wtacrs_tensor_mul_plan_forward,
    (void (*)(void))wtacrs_tensor_mul_plan_forward_dl,
    (void (*)(void))wtacrs_tensor_mul_plan_get_info,
    (void (*)(void))wtacrs_tensor_mul_set_budget,
    (void (*)(void))wtacrs_tensor_mul_set_design,
    (void (*)(void))wtacrs_tensor_mul_set_dtypes,
    (void (*)(void))wtacrs_tensor_mul_set_further_offset,
    (void (*)(void))wtacrs_tensor_mul_set_mix,
    (void (*)(void))wtacrs_tensor_mul_set_precision,
    (void (*)(void))wtacrs_tensor_mul_set_shape,
    (void (*)(void))wtacrs_version,
};

static wtacrs_context *context;
static float h[TOKENS * IN], dz[TOKENS * OUT], dz_norms[TOKENS], h_norms[TOKENS];
static double exact[IN * OUT];

static wtacrs_plan *plan_of(wtacrs_source source, wtacrs_design design, size_t rows) {
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  OK(wtacrs_layer_create(&layer));
  OK(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
  OK(wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32));
  OK(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_ROWS, (double)rows));
  OK(wtacrs_layer_set_design(layer, design));
  OK(wtacrs_layer_set_source(layer, source, 0));
  OK(wtacrs_layer_set_precision(layer, WTACRS_PRECISION_F32));
  OK(wtacrs_layer_set_further_offset(layer, NULL));
  OK(wtacrs_plan_create(context, layer, &plan));
  OK(wtacrs_layer_destroy(layer));
  return plan;
}

static wtacrs_plan_info info_of(const wtacrs_plan *plan) {
  wtacrs_plan_info info = {.size = sizeof info};
  OK(wtacrs_plan_get_info(plan, &info));
  REQUIRE(info.size == sizeof info);
  return info;
}

static double error_of(const float *estimate) {
  double difference = 0, size = 0;
  for (int i = 0; i < IN * OUT; i++) {
    difference += (estimate[i] - exact[i]) * (estimate[i] - exact[i]);
    size += exact[i] * exact[i];
  }
  return sqrt(difference / size);
}

static void write_nothing(void *user, wtacrs_log_level level, const char *message) { (void)user, (void)level, (void)message; }

static void check_versions_and_statuses(void) {
  REQUIRE(wtacrs_abi_version() == WTACRS_ABI_VERSION);
  REQUIRE(strlen(wtacrs_version()) > 0);
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) REQUIRE(functions[i] != NULL);
  verified("ABI version and every function of the first export list");

  wtacrs_context *made;
  wtacrs_layer *layer;
  wtacrs_plan *plan;
  REFUSED(NULL_POINTER, wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, NULL));
  REFUSED(INVALID_ENUM, wtacrs_context_create(77777, 0, NULL, &made));
  REFUSED(INVALID_ENUM, wtacrs_context_create(WTACRS_DEVICE_FORCE_32_BITS, 0, NULL, &made));
  REFUSED(INVALID_ARGUMENT, wtacrs_context_create(WTACRS_DEVICE_CPU, 5, NULL, &made));
  REFUSED(INVALID_HANDLE, wtacrs_plan_create(context, (wtacrs_layer *)context, &plan));
  char words[256];
  wtacrs_error_info error = {.size = sizeof error};
  OK(wtacrs_last_error(words, sizeof words, &error));
  REQUIRE(error.text_bytes == strlen(words) + 1 && strstr(words, "wtacrs_plan_create") != NULL);
  REQUIRE(error.status == WTACRS_STATUS_INVALID_HANDLE && error.index == SIZE_MAX);
  OK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, SIZED(wtacrs_context_options, .threads = 1), &made));
  OK(wtacrs_context_destroy(made));
  OK(wtacrs_set_log(write_nothing, words));
  OK(wtacrs_set_log(NULL, NULL));
  OK(wtacrs_layer_create(&layer));
  REFUSED(SIZE_OVERFLOW, wtacrs_layer_set_shape(layer, 4, SIZE_MAX / 2, 1));
  REFUSED(UNSUPPORTED, wtacrs_layer_set_dtypes(layer, WTACRS_DTYPE_F64, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32));
  REFUSED(INVALID_BUDGET, wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, 1.5));
  OK(wtacrs_layer_destroy(layer));
  OK(wtacrs_layer_destroy(NULL));
  const wtacrs_status statuses[] = {
      WTACRS_STATUS_OK, WTACRS_STATUS_NULL_POINTER, WTACRS_STATUS_INVALID_HANDLE, WTACRS_STATUS_INVALID_ENUM,
      WTACRS_STATUS_INVALID_ARGUMENT, WTACRS_STATUS_SHAPE_MISMATCH, WTACRS_STATUS_SIZE_OVERFLOW,
      WTACRS_STATUS_BUFFER_TOO_SMALL, WTACRS_STATUS_MISALIGNED, WTACRS_STATUS_OVERLAP, WTACRS_STATUS_INVALID_WEIGHTS,
      WTACRS_STATUS_INVALID_BUDGET, WTACRS_STATUS_UNSUPPORTED, WTACRS_STATUS_DEVICE_MISMATCH, WTACRS_STATUS_NO_DEVICE,
      WTACRS_STATUS_CUDA_ERROR, WTACRS_STATUS_CORRUPTED, WTACRS_STATUS_VERSION_MISMATCH, WTACRS_STATUS_PANIC,
      WTACRS_STATUS_OUT_OF_MEMORY};
  const char *unknown = wtacrs_status_string(-5);
  for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
    REQUIRE(statuses[i] == (wtacrs_status)i && strcmp(wtacrs_status_string(statuses[i]), unknown) != 0);
  verified("numbers of statuses, and the last error's words");
}

/* A row (3, 4) in every dtype, and the tensor's layout: strides that run backwards, byte_offset, no strides. */
static void check_dtypes_and_dltensor(void) {
  const float f32[2] = {3, 4};
  const double f64[2] = {3, 4};
  const uint16_t f16[2] = {0x4200, 0x4400}, bf16[2] = {0x4040, 0x4080};
  const void *rows[4] = {f32, f16, bf16, f64};
  const wtacrs_dtype dtypes[4] = {WTACRS_DTYPE_F32, WTACRS_DTYPE_F16, WTACRS_DTYPE_BF16, WTACRS_DTYPE_F64};
  const uint8_t codes[4] = {2, 2, 4, 2}, bits[4] = {32, 16, 16, 64};
  for (int i = 0; i < 4; i++) {
    float norm = 0, columns[2] = {0, 0};
    OK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, dtypes[i], 1, 2, rows[i], 2, &norm, NULL));
    OK(wtacrs_context_norms(context, WTACRS_AXIS_COLUMNS, dtypes[i], 1, 2, rows[i], 2, columns, NULL));
    REQUIRE(norm == 5 && columns[0] == 3 && columns[1] == 4);
    int64_t shape[2] = {2, 1}, strides[2] = {-1, 7};
    uint8_t element = (uint8_t)(bits[i] / 8);
    wtacrs_dltensor x = {(void *)rows[i], {1, 0}, 2, {codes[i], bits[i], 1}, shape, strides, element};
    float norms[3] = {0, 0, -7};
    OK(wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &x, norms, 2, NULL));
    REQUIRE(norms[0] == 4 && norms[1] == 3 && norms[2] == -7);
    x.strides = NULL, x.byte_offset = 0;
    OK(wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &x, norms, 2, NULL));
    REQUIRE(norms[0] == 3 && norms[1] == 4);
    REFUSED(BUFFER_TOO_SMALL, wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &x, norms, 1, NULL));
    x.ndim = 3;
    REFUSED(SHAPE_MISMATCH, wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &x, norms, 2, NULL));
    x.ndim = 2, x.dtype.lanes = 2;
    REFUSED(UNSUPPORTED, wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &x, norms, 2, NULL));
    x.dtype.lanes = 1, x.device.device_type = 99;
    REFUSED(DEVICE_MISMATCH, wtacrs_context_norms_dl(context, WTACRS_AXIS_ROWS, &x, norms, 2, NULL));
  }
  verified("numbers of dtypes and axes, and the layout of wtacrs_dltensor");
}

static void check_designs(void) {
  const wtacrs_design designs[] = {WTACRS_DESIGN_UNIFORM, WTACRS_DESIGN_CRS, WTACRS_DESIGN_TOP_K, WTACRS_DESIGN_WTA_IID,
                                   WTACRS_DESIGN_WTA_STRATIFIED, WTACRS_DESIGN_WTA_PIVOTAL};
  for (int d = 0; d < 6; d++) {
    wtacrs_plan *plan = plan_of(WTACRS_SOURCE_INPUT, designs[d], BUDGET);
    uint32_t indices[BUDGET];
    double scales[BUDGET], mean_kept = 0;
    uint64_t kept, winners;
    int uniform = 1, unscaled = 1;
    for (uint64_t seed = 0; seed < 50; seed++) {
      OK(wtacrs_plan_select(plan, h_norms, NULL, seed, 3, 0, SELECTION(indices, scales, BUDGET, &kept, &winners), NULL, 0,
                            NULL));
      REQUIRE(kept > 0 && kept <= BUDGET && winners <= kept);
      for (uint64_t i = 0; i < kept; i++) {
        REQUIRE(indices[i] < TOKENS && (i == 0 || indices[i] > indices[i - 1]) && scales[i] > 0);
        uniform &= fabs(scales[i] - (double)TOKENS / BUDGET) < 1e-9;
        unscaled &= scales[i] == 1;
      }
      mean_kept += (double)kept / 50;
    }
    REQUIRE(uniform == (designs[d] == WTACRS_DESIGN_UNIFORM));
    REQUIRE(unscaled == (designs[d] == WTACRS_DESIGN_TOP_K));
    /* Independent draws repeat; the others do not, but for a stratum's cut. */
    const int repeats = designs[d] == WTACRS_DESIGN_CRS || designs[d] == WTACRS_DESIGN_WTA_IID;
    REQUIRE(repeats ? mean_kept < BUDGET - 1 : mean_kept > BUDGET - 1.5);
    const int distinct = designs[d] == WTACRS_DESIGN_UNIFORM || designs[d] == WTACRS_DESIGN_TOP_K ||
                         designs[d] == WTACRS_DESIGN_WTA_PIVOTAL;
    REQUIRE(!distinct || mean_kept > BUDGET - 1e-9);
    double weights[TOKENS], threshold, rows, error;
    uint64_t heaviest;
    OK(wtacrs_plan_weights(plan, h_norms, NULL, weights, NULL));
    OK(wtacrs_plan_theory(plan, weights, weights, &threshold, &heaviest, &rows, &error));
    REQUIRE(threshold > 0 && error > 0 && fabs(rows - mean_kept) < 1);
    if (designs[d] >= WTACRS_DESIGN_WTA_IID) REQUIRE(winners == heaviest && winners > 0);
    REQUIRE((info_of(plan).draws == 0) == (designs[d] == WTACRS_DESIGN_TOP_K));
    double expected, size;
    int32_t is_exact;
    OK(wtacrs_plan_expected_error(plan, h, IN, dz, OUT, weights, &expected, &is_exact, &size));
    REQUIRE(expected > 0 && size > 0 && (is_exact == 0 || is_exact == 1));
    OK(wtacrs_plan_destroy(plan));
    REFUSED(INVALID_HANDLE, wtacrs_plan_destroy(plan));
  }
  verified("numbers of designs by what they draw, theory and the expected error");
}

static void check_passes(void) {
  const wtacrs_source sources[] = {WTACRS_SOURCE_INPUT, WTACRS_SOURCE_NORMS, WTACRS_SOURCE_CACHED, WTACRS_SOURCE_PREDICTED};
  double error[4];
  for (int s = 0; s < 4; s++) {
    wtacrs_plan *plan = plan_of(sources[s], WTACRS_DESIGN_WTA_PIVOTAL, BUDGET);
    wtacrs_norm_predictor *predictor = NULL;
    if (s == 3) OK(wtacrs_norm_predictor_create(context, IN, NULL, &predictor));
    const wtacrs_forward_options *forward =
        SIZED(wtacrs_forward_options, .guess = s == 1 || s == 2 ? dz_norms : NULL, .predictor = predictor);
    const wtacrs_plan_info info = info_of(plan);
    REQUIRE(info.budget_rows == BUDGET && info.exact_bytes == sizeof h && info.saved_bytes > BUDGET * (IN * 4 + 12));
    REQUIRE(info.alignment == 64 && info.forward_scratch_bytes == 0 && info.saved_status_offset == SIZE_MAX);
    const size_t saved_bytes = info.saved_bytes, scratch_bytes = info.backward_scratch_bytes;
    void *saved = memory(saved_bytes), *scratch = memory(scratch_bytes);
    float dw[IN * OUT], mean[IN * OUT] = {0}, norms[TOKENS], bias[OUT];
    const wtacrs_backward_options *backward = SIZED(wtacrs_backward_options, .dz_norms = norms, .bias_gradient = bias);
    const wtacrs_backward_options *add = SIZED(wtacrs_backward_options, .accumulate = 1);
#define FORWARD(offset, saved, bytes) wtacrs_plan_forward(plan, h, IN, 7, offset, forward, saved, bytes, NULL, 0, NULL)
#define BACKWARD(to, options) \
  wtacrs_plan_backward(plan, saved, saved_bytes, dz, OUT, to, OUT, options, scratch, scratch_bytes, NULL)
    REFUSED(CORRUPTED, BACKWARD(dw, NULL));
    REFUSED(BUFFER_TOO_SMALL, FORWARD(0, saved, saved_bytes - 1));
    REFUSED(MISALIGNED, FORWARD(0, (char *)saved + 8, saved_bytes));
    error[s] = 0;
    for (uint64_t step = 0; step < 2000; step++) {
      OK(FORWARD(step * info.draws, saved, saved_bytes));
      OK(BACKWARD(dw, backward));
      OK(BACKWARD(mean, add));
      if (s == 3 && step < 20) OK(wtacrs_norm_predictor_update(predictor, plan, saved, saved_bytes, norms, NULL, NULL));
      error[s] += error_of(dw) / 2000;
    }
    for (int i = 0; i < IN * OUT; i++) mean[i] /= 2000;
    REQUIRE(error[s] > 0.01 && error_of(mean) < error[s] / 10);
    REQUIRE(memcmp(norms, dz_norms, sizeof norms) == 0);
    double sum = 0;
    for (int t = 0; t < TOKENS; t++) sum += dz[t * OUT + 2];
    REQUIRE(fabs(sum - bias[2]) < 1e-4);
    REFUSED(OVERLAP, BACKWARD(dz, NULL));

    /* The same rows by a descriptor whose rows lie apart and run backwards. */
    enum { GAP = IN + 3 };
    static float apart[TOKENS * GAP];
    for (int t = 0; t < TOKENS; t++) memcpy(apart + (TOKENS - 1 - t) * GAP, h + t * IN, IN * sizeof(float));
    int64_t shape[2] = {TOKENS, IN}, strides[2] = {-GAP, 1};
    wtacrs_dltensor x = {apart, {1, 0}, 2, {2, 32, 1}, shape, strides, (TOKENS - 1) * GAP * sizeof(float)};
    uint32_t indices[BUDGET], again[BUDGET];
    double scales[BUDGET], scales_again[BUDGET];
    uint64_t kept, kept_again, winners;
    OK(FORWARD(1, saved, saved_bytes));
    OK(wtacrs_plan_saved_selection(plan, saved, saved_bytes, SELECTION(indices, scales, BUDGET, &kept, &winners)));
    OK(wtacrs_plan_forward_dl(plan, &x, 7, 1, forward, saved, saved_bytes, NULL, 0, NULL));
    OK(wtacrs_plan_saved_selection(plan, saved, saved_bytes, SELECTION(again, scales_again, BUDGET, &kept_again, NULL)));
    REQUIRE(kept == kept_again && memcmp(indices, again, kept * sizeof *indices) == 0);
    REQUIRE(memcmp(scales, scales_again, kept * sizeof *scales) == 0);
    OK(wtacrs_norm_predictor_destroy(predictor));
    OK(wtacrs_plan_destroy(plan));
    free(saved), free(scratch);
  }
  REQUIRE(error[1] < error[0] && error[2] < error[0]);
  verified("numbers of sources, both passes of a layer, unbiased, raw and by wtacrs_dltensor");
}

/* Every row, by rows, by a fraction, and by name; and what a struct of another size comes to. */
static void check_whole_budget_and_steps(void) {
  wtacrs_plan *plan = plan_of(WTACRS_SOURCE_NORMS, WTACRS_DESIGN_WTA_PIVOTAL, TOKENS);
  const wtacrs_plan_info info = info_of(plan);
  void *scratch = memory(info.estimate_scratch_bytes + info.weight_gradient_scratch_bytes);
  float dw[IN * OUT], rows[TOKENS * IN];
  OK(wtacrs_plan_estimate(plan, h, IN, dz, OUT, 1, 2, dw, OUT, scratch, info.estimate_scratch_bytes, NULL));
  REQUIRE(error_of(dw) < 1e-5);
  uint32_t indices[TOKENS];
  double scales[TOKENS];
  uint64_t kept;
  const wtacrs_selection *selection = SELECTION(indices, scales, TOKENS, &kept, NULL);
  OK(wtacrs_plan_select(plan, h_norms, dz_norms, 1, 2, 0, selection, NULL, 0, NULL));
  REQUIRE(kept == TOKENS);
  OK(wtacrs_plan_gather(plan, h, IN, selection, rows, IN, NULL));
  REQUIRE(memcmp(rows, h, sizeof h) == 0);
  OK(wtacrs_plan_weight_gradient(plan, rows, IN, selection, dz, OUT, dw, OUT, 0, scratch, info.weight_gradient_scratch_bytes,
                                 NULL));
  REQUIRE(error_of(dw) < 1e-5);
  float bad[TOKENS];
  memcpy(bad, dz_norms, sizeof bad);
  bad[4] = NAN;
  REFUSED(INVALID_WEIGHTS, wtacrs_plan_select(plan, h_norms, bad, 1, 2, 0, selection, NULL, 0, NULL));
  OK(wtacrs_plan_destroy(plan));
  free(scratch);

  const wtacrs_budget units[] = {WTACRS_BUDGET_ROWS, WTACRS_BUDGET_FRACTION, WTACRS_BUDGET_EXACT};
  const double amounts[] = {TOKENS, 1, 0};
  for (int i = 0; i < 3; i++) {
    wtacrs_layer *layer;
    OK(wtacrs_layer_create(&layer));
    OK(wtacrs_layer_set_shape(layer, TOKENS, IN, OUT));
    OK(wtacrs_layer_set_budget(layer, units[i], amounts[i]));
    OK(wtacrs_plan_create(context, layer, &plan));
    OK(wtacrs_layer_destroy(layer));
    REQUIRE(info_of(plan).budget_rows == TOKENS);
    OK(wtacrs_plan_destroy(plan));
  }
  verified("a whole budget is exact, at once and step by step");
}

/* A program that was compiled against a longer struct: fields that the library does not know must be zero, and are zero in
 * what it writes. A library that has come to know such a field takes it as what it is. */
static void check_structs(void) {
  wtacrs_plan *plan = plan_of(WTACRS_SOURCE_INPUT, WTACRS_DESIGN_WTA_PIVOTAL, BUDGET);
  struct {
    wtacrs_plan_info known;
    unsigned char later[256];
  } info = {.known.size = sizeof info}, short_info = {.known.size = sizeof(size_t)};
  memset(info.later, 0xa5, sizeof info.later);
  OK(wtacrs_plan_get_info(plan, &info.known));
  REQUIRE(info.known.size == sizeof info && info.known.budget_rows == BUDGET && info.later[255] == 0);
  REFUSED(INVALID_ARGUMENT, wtacrs_plan_get_info(plan, &short_info.known));
  void *saved = memory(info.known.saved_bytes);
  struct {
    wtacrs_forward_options known;
    unsigned char later[256];
  } options = {.known.size = sizeof options};
#define FORWARD_WITH(options) \
  wtacrs_plan_forward(plan, h, IN, 1, 0, options, saved, info.known.saved_bytes, NULL, 0, NULL)
  OK(FORWARD_WITH(&options.known));
  OK(FORWARD_WITH(SIZED(wtacrs_forward_options, .guess = NULL)));
  OK(FORWARD_WITH(NULL));
  options.later[255] = 1;
  REFUSED(UNSUPPORTED, FORWARD_WITH(&options.known));
  options.known.size = 0;
  REFUSED(INVALID_ARGUMENT, FORWARD_WITH(&options.known));
  OK(wtacrs_plan_destroy(plan));
  free(saved);
  verified("structs of this size, longer ones, and shorter ones");
}

static void check_predictor_and_cache(void) {
  wtacrs_plan *plan = plan_of(WTACRS_SOURCE_PREDICTED, WTACRS_DESIGN_WTA_PIVOTAL, BUDGET);
  wtacrs_norm_predictor *taught, *by_sums, *loaded;
  const wtacrs_norm_predictor_options *settings = SIZED(wtacrs_norm_predictor_options, .features = 4, .forgetting = 0.9,
                                                        .ridge = 0.01, .clamp = 5, .rows_per_update = 64, .seed = 3);
  OK(wtacrs_norm_predictor_create(context, IN, settings, &taught));
  OK(wtacrs_norm_predictor_create(context, IN, settings, &by_sums));
  size_t count, needed, needed_again;
  OK(wtacrs_norm_predictor_statistics_count(taught, &count));
  const size_t saved_bytes = info_of(plan).saved_bytes;
  void *saved = memory(saved_bytes);
  double *sums = memory(count * sizeof *sums);
  OK(wtacrs_plan_forward(plan, h, IN, 1, 1, SIZED(wtacrs_forward_options, .guess = dz_norms, .predictor = taught), saved,
                         saved_bytes, NULL, 0, NULL));
  uint32_t outcome = 9, row = 9;
  OK(wtacrs_norm_predictor_outcome(taught, &outcome, &row));
  REQUIRE(outcome == 1 && row == 0);
  OK(wtacrs_norm_predictor_update(taught, plan, saved, saved_bytes, dz_norms, dz_norms, NULL));
  OK(wtacrs_norm_predictor_outcome(taught, &outcome, &row));
  REQUIRE(outcome == 0 && row == 0);
  OK(wtacrs_norm_predictor_statistics(by_sums, plan, saved, saved_bytes, dz_norms, dz_norms, sums, count, NULL));
  OK(wtacrs_norm_predictor_apply(by_sums, sums, count, NULL));
  OK(wtacrs_norm_predictor_save(taught, NULL, 0, &needed));
  unsigned char *bytes = memory(needed), *bytes_again = memory(needed);
  OK(wtacrs_norm_predictor_save(taught, bytes, needed, &needed));
  OK(wtacrs_norm_predictor_load(context, bytes, needed, &loaded));
  OK(wtacrs_norm_predictor_save(loaded, bytes_again, needed, &needed_again));
  REQUIRE(needed == needed_again && memcmp(bytes, bytes_again, needed) == 0);
  OK(wtacrs_norm_predictor_save(by_sums, bytes_again, needed, &needed_again));
  REQUIRE(memcmp(bytes, bytes_again, needed) == 0);
  OK(wtacrs_norm_predictor_destroy(taught));
  OK(wtacrs_norm_predictor_destroy(by_sums));
  OK(wtacrs_norm_predictor_destroy(loaded));
  OK(wtacrs_plan_destroy(plan));

  wtacrs_norm_cache *cache, *restored;
  const uint64_t samples[2] = {11, UINT64_C(1) << 40}, lengths[2] = {TOKENS / 4, TOKENS * 3 / 4};
  float norms[TOKENS];
  OK(wtacrs_norm_cache_create(context, SIZE_MAX, SIZE_MAX, &cache));
  OK(wtacrs_norm_cache_store(cache, samples, lengths, 2, 0, dz_norms, TOKENS, NULL));
  OK(wtacrs_norm_cache_forget(cache, samples, 1, NULL));
  OK(wtacrs_norm_cache_save(cache, NULL, 0, &needed));
  bytes = realloc(bytes, needed);
  REQUIRE(bytes != NULL);
  OK(wtacrs_norm_cache_save(cache, bytes, needed, &needed));
  OK(wtacrs_norm_cache_load(context, SIZE_MAX, SIZE_MAX, bytes, needed, &restored));
  OK(wtacrs_norm_cache_fetch(restored, samples, lengths, 2, 0, norms, TOKENS, NULL));
  REQUIRE(norms[0] == -1 && memcmp(norms + TOKENS / 4, dz_norms + TOKENS / 4, TOKENS * 3) == 0);
  uint64_t sample = 9;
  OK(wtacrs_norm_cache_outcome(restored, &outcome, &sample));
  REQUIRE(outcome == 0 && sample == 0);
  OK(wtacrs_norm_cache_destroy(cache));
  OK(wtacrs_norm_cache_destroy(restored));

  /* With bounds, in rows of a padded batch. */
  const uint64_t ids[2] = {1, 0}, of_ids[2] = {20, 30};
  OK(wtacrs_norm_cache_create(context, 2, TOKENS / 2, &cache));
  REFUSED(INVALID_ARGUMENT, wtacrs_norm_cache_store(cache, samples, of_ids, 2, TOKENS / 2, dz_norms, TOKENS, NULL));
  OK(wtacrs_norm_cache_store(cache, ids, of_ids, 2, TOKENS / 2, dz_norms, TOKENS, NULL));
  OK(wtacrs_norm_cache_fetch(cache, ids, of_ids, 2, TOKENS / 2, norms, TOKENS, NULL));
  for (int t = 0; t < TOKENS; t++) REQUIRE(norms[t] == (t >= 20 && t < 30 ? -1 : dz_norms[t]));
  OK(wtacrs_norm_cache_destroy(cache));
  free(saved), free(sums), free(bytes), free(bytes_again);
  verified("norm predictor and norm cache, and that they are the same after a save and a load");
}

/* One batch of one head: A (TOKENS x IN), B (IN x OUT), G = dz; dA = G B^T and dB = A^T G. */
static void check_tensor_mul(void) {
  wtacrs_tensor_mul *product;
  wtacrs_tensor_mul_plan *plan;
  OK(wtacrs_tensor_mul_create(&product));
  OK(wtacrs_tensor_mul_set_shape(product, 1, 1, TOKENS, IN, OUT));
  OK(wtacrs_tensor_mul_set_dtypes(product, WTACRS_DTYPE_F32, WTACRS_DTYPE_F32));
  OK(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_LEFT, WTACRS_BUDGET_EXACT, 0));
  OK(wtacrs_tensor_mul_set_budget(product, WTACRS_SIDE_RIGHT, WTACRS_BUDGET_ROWS, TOKENS));
  OK(wtacrs_tensor_mul_set_design(product, WTACRS_DESIGN_WTA_PIVOTAL));
  OK(wtacrs_tensor_mul_set_mix(product, 0.01));
  OK(wtacrs_tensor_mul_set_precision(product, WTACRS_PRECISION_F32));
  OK(wtacrs_tensor_mul_plan_create(context, product, &plan));
  OK(wtacrs_tensor_mul_destroy(product));
  wtacrs_tensor_mul_plan_info info = {.size = sizeof info};
  OK(wtacrs_tensor_mul_plan_get_info(plan, &info));
  REQUIRE(info.size == sizeof info && info.alignment == 64 && info.exact_bytes == (TOKENS + OUT) * IN * sizeof(float));
  REQUIRE(info.left_status_offset == SIZE_MAX && info.right_status_offset == SIZE_MAX);
  void *saved = memory(info.saved_bytes), *forward = memory(info.forward_scratch_bytes);
  void *backward = memory(info.backward_scratch_bytes);
  float b[IN * OUT], da[TOKENS * IN], db[IN * OUT], row_norms[TOKENS], column_norms[OUT];
  for (int i = 0; i < IN * OUT; i++) b[i] = random_value();
  const wtacrs_tensor_mul_backward_options *with_norms =
      SIZED(wtacrs_tensor_mul_backward_options, .row_norms = row_norms, .column_norms = column_norms);
  for (int step = 0; step < 2; step++) {
    const wtacrs_tensor_mul_forward_options *guesses =
        SIZED(wtacrs_tensor_mul_forward_options, .row_guess = row_norms, .column_guess = column_norms);
    OK(wtacrs_tensor_mul_plan_forward(plan, h, b, 1, step * info.draws, step ? guesses : NULL, saved, info.saved_bytes,
                                      forward, info.forward_scratch_bytes, NULL));
    OK(wtacrs_tensor_mul_plan_backward(plan, saved, info.saved_bytes, dz, da, db, with_norms, backward,
                                       info.backward_scratch_bytes, NULL));
    REQUIRE(error_of(db) < 1e-5);
  }
  for (int t = 0; t < TOKENS; t++) {
    for (int i = 0; i < IN; i++) {
      double sum = 0;
      for (int o = 0; o < OUT; o++) sum += (double)dz[t * OUT + o] * b[i * OUT + o];
      REQUIRE(fabs(sum - da[t * IN + i]) < 1e-4);
    }
    REQUIRE(fabsf(row_norms[t] - dz_norms[t]) < 1e-5f);
  }
  OK(wtacrs_tensor_mul_plan_destroy(plan));
  free(saved), free(forward), free(backward);
  verified("batched products, their sides exact and of a whole budget");
}

int main(void) {
  OK(wtacrs_context_create(WTACRS_DEVICE_CPU, 0, NULL, &context));
  for (int t = 0; t < TOKENS; t++) {
    const float size = t % 9 == 4 ? 5 : 1, gradient = t % 7 == 2 ? 3 : 0.3f;
    for (int i = 0; i < IN; i++) h[t * IN + i] = size * random_value();
    for (int o = 0; o < OUT; o++) dz[t * OUT + o] = gradient * random_value();
    for (int i = 0; i < IN; i++)
      for (int o = 0; o < OUT; o++) exact[i * OUT + o] += (double)h[t * IN + i] * dz[t * OUT + o];
  }
  OK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, IN, h, IN, h_norms, NULL));
  OK(wtacrs_context_norms(context, WTACRS_AXIS_ROWS, WTACRS_DTYPE_F32, TOKENS, OUT, dz, OUT, dz_norms, NULL));
  check_versions_and_statuses();
  check_dtypes_and_dltensor();
  check_designs();
  check_passes();
  check_whole_budget_and_steps();
  check_structs();
  check_predictor_and_cache();
  check_tensor_mul();
  OK(wtacrs_context_destroy(context));
  printf("ok: libwtacrs %s serves a client of ABI %d\n", wtacrs_version(), WTACRS_ABI_VERSION);
  return 0;
}
