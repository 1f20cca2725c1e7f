/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libwtacrs: estimates of matrix products, above all of a linear layer's weight gradient dW = H^T dZ, from a few
 * column-row pairs, without bias and with little variance. Made by cbindgen from crates/wtacrs-ffi; do not edit.
 *
 * A training step in five calls: fill a wtacrs_layer, freeze it into a wtacrs_plan for a context, call
 * wtacrs_plan_forward and wtacrs_plan_backward each step with memory of the sizes that wtacrs_plan_get_info returns, and
 * let a wtacrs_norm_predictor learn (wtacrs_norm_predictor_update). What stands between the products is a wtacrs_operator.
 * docs/c-abi.md has the guide, examples/ programs.
 *
 * Conventions of every function:
 *
 * - It returns a wtacrs_status, 0 if it succeeded; wtacrs_last_error has the details. A comment's list of errors
 *   abbreviates WTACRS_STATUS_X to _X.
 * - Arguments are marked [in], [out], [in, out] or [scratch] (any contents before and after), and optional where NULL is
 *   allowed. Outputs need no initial values, and are written only if the call succeeds. No output may share memory with
 *   another argument of the call; the bytes from the first to the last element count. Operators may work in place.
 * - Handles are opaque. Each wtacrs_X_create is matched by a wtacrs_X_destroy; destroying NULL does nothing. A handle that
 *   was destroyed or is of another kind gives WTACRS_STATUS_INVALID_HANDLE and is never followed.
 * - An object is made for a context, on whose device it works. A plan is for one shape: another number of tokens is
 *   another plan. Plans are small and quickly made.
 * - Structs of options and of results begin with their size: set it to sizeof. Later versions of the library append fields.
 * - Memory is the caller's and only borrowed: until a call returns, on CUDA until its work is done. Matrices are aligned to
 *   their element.
 * - A number of 0 rows, tokens or features is allowed, and its pointer may then be NULL. On CUDA, batched products require
 *   sizes of at least 1.
 * - Any thread may call any function at any time. wtacrs_last_error is the calling thread's own.
 * - Randomness is a function of (seed, offset); there is no generator with a state. A pass advances the offset by the
 *   plan's `draws`.
 * - `stream` is a CUDA stream, borrowed and never synchronised. The CPU ignores it, and its calls are synchronous.
 *
 * On CUDA, calls with a stream take memory of the plan's GPU, launch kernels and do nothing else, so that all of them can be
 * captured in a CUDA graph. The context's CUDA context must be the calling thread's current one; otherwise the call returns
 * WTACRS_STATUS_DEVICE_MISMATCH. What no kernel does is WTACRS_STATUS_UNSUPPORTED. Any such call returns
 * WTACRS_STATUS_CUDA_ERROR if the driver refuses; kernels before the refused one may then have written outputs.
 *
 * The CPU path works on as many threads as its context's options say. Beside the caller's memory a call takes at most 64
 * bytes of the heap for each token while it runs, for a product 3.2 MB (6.3 MB for f64) a thread, and where rows are packed a
 * megabyte and a row of f32 for each thread. Any call may return WTACRS_STATUS_OUT_OF_MEMORY if the process cannot have
 * the memory that it needs of the heap, and WTACRS_STATUS_PANIC for a defect of the library, which is contained: the last
 * error has its place. Nothing is written to stderr: see wtacrs_set_log.
 */


#ifndef WTACRS_H
#define WTACRS_H

#include <stddef.h>
#include <stdint.h>

/* With dlpack.h included first, the functions take its DLTensor; otherwise this one, which has the same layout. */
#ifdef DLPACK_DLPACK_H_
typedef DLTensor wtacrs_dltensor;
#else
typedef struct wtacrs_dltensor {
  void *data;
  struct {
    int32_t device_type; /* 1: host, 2: CUDA; all others, such as pinned (3) or managed memory (13), are
                            WTACRS_STATUS_DEVICE_MISMATCH: pass them as what they are used as */
    int32_t device_id;
  } device;
  int32_t ndim;
  struct {
    uint8_t code; /* 2: IEEE floating point, 4: bfloat */
    uint8_t bits;
    uint16_t lanes; /* 1 */
  } dtype;
  int64_t *shape;
  int64_t *strides; /* in elements; NULL: row by row without gaps */
  uint64_t byte_offset;
} wtacrs_dltensor;
#endif

// Major version of the binary interface: the number in the shared library's SONAME. It changes when a program that was
// linked against an earlier library could go wrong with this one.
#define WTACRS_ABI_VERSION 0

// The library's version that the header belongs to: major, minor, patch. wtacrs_version is that of the loaded library.
#define WTACRS_VERSION_MAJOR 0

// See WTACRS_VERSION_MAJOR.
#define WTACRS_VERSION_MINOR 1

// See WTACRS_VERSION_MAJOR.
#define WTACRS_VERSION_PATCH 0

// Where a context works.
typedef enum wtacrs_device {
  // The host's cores and memory.
  WTACRS_DEVICE_CPU = 0,
  // An NVIDIA GPU of compute capability 8.0 or later, by the CUDA driver, which is loaded on first use.
  WTACRS_DEVICE_CUDA = 1,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_DEVICE_FORCE_32_BITS = 2147483647,
} wtacrs_device;

// The type of a matrix's elements.
typedef enum wtacrs_dtype {
  // IEEE 754 binary32.
  WTACRS_DTYPE_F32 = 0,
  // IEEE 754 binary16.
  WTACRS_DTYPE_F16 = 1,
  // The upper half of a binary32.
  WTACRS_DTYPE_BF16 = 2,
  // IEEE 754 binary64, for references.
  WTACRS_DTYPE_F64 = 3,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_DTYPE_FORCE_32_BITS = 2147483647,
} wtacrs_dtype;

// The sampling design: the rule that turns weights and a budget into a selection.
typedef enum wtacrs_design {
  // Equal probabilities, whatever the weights.
  WTACRS_DESIGN_UNIFORM = 0,
  // Column-row sampling: independent draws in proportion to the weights.
  WTACRS_DESIGN_CRS = 1,
  // The heaviest pairs and nothing else: biased.
  WTACRS_DESIGN_TOP_K = 2,
  // Winners, and independent draws from the tail.
  WTACRS_DESIGN_WTA_IID = 3,
  // Winners, and one draw from each stratum of the tail.
  WTACRS_DESIGN_WTA_STRATIFIED = 4,
  // Winners, and distinct pairs of the tail by a tree of duels. The default.
  WTACRS_DESIGN_WTA_PIVOTAL = 5,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_DESIGN_FORCE_32_BITS = 2147483647,
} wtacrs_design;

// What the weights of a forward pass are made from, besides the norms of the rows of H.
typedef enum wtacrs_source {
  // Nothing: weights are the norms of the rows of H.
  WTACRS_SOURCE_INPUT = 0,
  // Norms of dZ that the caller passes, taken as they are.
  WTACRS_SOURCE_NORMS = 1,
  // Norms of dZ from an earlier step, mixed with the input's; a negative norm is an unknown one.
  WTACRS_SOURCE_CACHED = 2,
  // A norm predictor's guess from H. The default.
  WTACRS_SOURCE_PREDICTED = 3,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_SOURCE_FORCE_32_BITS = 2147483647,
} wtacrs_source;

// The unit of a budget.
typedef enum wtacrs_budget {
  // A number of rows, at least one.
  WTACRS_BUDGET_ROWS = 0,
  // A share of the rows, in (0, 1]: the nearest number of rows, at least one if there are any.
  WTACRS_BUDGET_FRACTION = 1,
  // Every row: the gradient is exact.
  WTACRS_BUDGET_EXACT = 2,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_BUDGET_FORCE_32_BITS = 2147483647,
} wtacrs_budget;

// How precisely matrices are multiplied.
typedef enum wtacrs_precision {
  // f32 matrices in f32 throughout, and bf16 in bf16 where that is faster. The default.
  WTACRS_PRECISION_F32 = 0,
  // Both factors may be rounded to tf32 (10 bits after the point), with sums in f32.
  WTACRS_PRECISION_TF32 = 1,
  // Every factor in the dtype of dW, whatever its own: nothing is rounded before it is multiplied.
  WTACRS_PRECISION_WIDE = 2,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_PRECISION_FORCE_32_BITS = 2147483647,
} wtacrs_precision;

// Which program multiplies on a GPU.
typedef enum wtacrs_engine {
  // cuBLASLt where it is expected to be faster and can be loaded, and this library's kernels elsewhere. The default.
  WTACRS_ENGINE_AUTO = 0,
  // This library's kernels: the same bits on every GPU of one kind, whatever else is installed.
  WTACRS_ENGINE_OWN = 1,
  // cuBLASLt. Plans are refused where it cannot be loaded.
  WTACRS_ENGINE_CUBLASLT = 2,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_ENGINE_FORCE_32_BITS = 2147483647,
} wtacrs_engine;

// How kept rows are saved: as they are, or packed in few bits an element without bias. A packed row adds a little noise: of
// its square about 3e-5 at 8 bits, 0.01 at 4 and 0.25 at 2 on activations of transformers.
typedef enum wtacrs_packing {
  // Exact copies, in the input's dtype. The default.
  WTACRS_PACKING_NATIVE = 0,
  // 8 bits an element.
  WTACRS_PACKING_BITS8 = 1,
  // 4 bits an element: a quarter of bf16's bytes, and as much error as dropping 1 % of the rows.
  WTACRS_PACKING_BITS4 = 2,
  // 2 bits an element.
  WTACRS_PACKING_BITS2 = 3,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_PACKING_FORCE_32_BITS = 2147483647,
} wtacrs_packing;

// What a planner's budgets are to achieve.
typedef enum wtacrs_target {
  // All layers together take at most a share of the bytes of their inputs.
  WTACRS_TARGET_MEMORY = 0,
  // Estimates add at most a share of the variance that different batches make in the gradients.
  WTACRS_TARGET_NOISE = 1,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_TARGET_FORCE_32_BITS = 2147483647,
} wtacrs_target;

// One of the two gradients of C = A B.
typedef enum wtacrs_side {
  // The gradient of A, dA = G B^T, which sums over the columns of B.
  WTACRS_SIDE_LEFT = 0,
  // The gradient of B, dB = A^T G, which sums over the rows of A.
  WTACRS_SIDE_RIGHT = 1,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_SIDE_FORCE_32_BITS = 2147483647,
} wtacrs_side;

// Along which axis of a matrix norms are taken.
typedef enum wtacrs_axis {
  // A norm for each row.
  WTACRS_AXIS_ROWS = 0,
  // A norm for each column.
  WTACRS_AXIS_COLUMNS = 1,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_AXIS_FORCE_32_BITS = 2147483647,
} wtacrs_axis;

// What an operator computes of an array of rows x columns.
typedef enum wtacrs_operation {
  // y = x: for dropout alone, or to pack an array that is read back by wtacrs_operator_plan_restore.
  WTACRS_OPERATION_IDENTITY = 0,
  // max(x, 0).
  WTACRS_OPERATION_RELU = 1,
  // x Phi(x), with the normal law Phi.
  WTACRS_OPERATION_GELU = 2,
  // The approximation of GELU by tanh.
  WTACRS_OPERATION_GELU_TANH = 3,
  // x / (1 + e^-x), also called Swish.
  WTACRS_OPERATION_SILU = 4,
  // Of each row e^x over its sum.
  WTACRS_OPERATION_SOFTMAX = 5,
  // Of each row (x - mean) / sqrt(variance + epsilon), times a weight, plus a bias.
  WTACRS_OPERATION_LAYER_NORM = 6,
  // Of each row x / sqrt(mean of squares + epsilon), times a weight.
  WTACRS_OPERATION_RMS_NORM = 7,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_OPERATION_FORCE_32_BITS = 2147483647,
} wtacrs_operation;

// How much a message matters.
typedef enum wtacrs_log_level {
  // A call succeeded, but not as it was to.
  WTACRS_LOG_LEVEL_WARNING = 1,
  // A defect of the library: the call returns WTACRS_STATUS_PANIC.
  WTACRS_LOG_LEVEL_ERROR = 2,
  // Reserved: makes the enumeration 32 bits wide.
  WTACRS_LOG_LEVEL_FORCE_32_BITS = 2147483647,
} wtacrs_log_level;

// A device. Any number of threads may use one at the same time.
typedef struct wtacrs_context wtacrs_context;

// What a linear layer is like and how its weight gradient dW = H^T dZ is to be estimated. A lock guards it, so threads may
// share it.
typedef struct wtacrs_layer wtacrs_layer;

// Norms of dZ by training sample, from each sample's last visit. On the CPU a lock inside lets any number of threads use
// one: calls that change it wait for one another. On CUDA its calls belong on one stream, or on streams that wait for one
// another, whatever threads make them.
typedef struct wtacrs_norm_cache wtacrs_norm_cache;

// An online guess of the norms of dZ for one layer, or for layers that share H. On the CPU a lock inside lets any number of
// threads use one: forward passes read it, and calls that change it wait for them and for one another. On CUDA forward
// passes read its state and updates write it when they run, so calls on one predictor belong on one stream, or on streams
// that wait for one another, whatever threads make them.
typedef struct wtacrs_norm_predictor wtacrs_norm_predictor;

// What stands between the products of a model: an activation function, a gated unit, softmax, a norm, dropout, and how
// little of it is kept for the backward pass. A lock guards it, so threads may share it.
//
// Arrays are dense, rows x columns; where an operator works on each element by itself, any shape with as many elements
// will do. Arithmetic is in f32.
//
// What `saved` holds, and what the caller keeps until the backward pass and passes to it again (keeps_input, keeps_gate and
// keeps_output of wtacrs_operator_plan_info):
//
// operation                         packing   saved                                          the caller keeps
// ------------------------------------------------------------------------------------------------------------
// identity                          native    nothing                                        nothing
// identity                          packed    x: wtacrs_operator_plan_restore reads it back  nothing
// relu                              any       1 bit an element                               nothing
// gelu, gelu_tanh, silu             native    nothing                                        x
// gelu, gelu_tanh, silu             packed    the slope act'(x)                              nothing
// gated relu, gelu, gelu_tanh, silu native    nothing                                        x, gate
// gated relu, gelu, gelu_tanh, silu packed    act(x), and gate act'(x)                       nothing
// softmax                           native    nothing                                        y
// softmax                           packed    the roots of the probabilities                 nothing
// layer_norm                        native    mean and 1/sigma of each row, in f32           x
// rms_norm                          native    1/sigma of each row, in f32                    x
// layer_norm, rms_norm              packed    the normalised rows, and 1/sigma in f32        nothing
//
// Dropout of the output saves nothing but seed and offset, from which its mask is made again. Where there is nothing to
// save, not even those, saved memory has 0 bytes and may be NULL.
//
// Gradients from packed arrays are unbiased estimates, and 8 bits add as much noise as bf16's rounding does. All others are
// exact up to rounding. Elements that are not finite are no error: they make what they make in f32, and a packed group of
// 128 elements with one of them is read back as NaN; slopes stay finite.
typedef struct wtacrs_operator wtacrs_operator;

// An operator's settled plan. It never changes: any number of threads may use one at the same time, each with saved and
// scratch memory of its own.
typedef struct wtacrs_operator_plan wtacrs_operator_plan;

// A layer's settled plan. It never changes: any number of threads may use one at the same time, each with saved and
// scratch memory of its own.
typedef struct wtacrs_plan wtacrs_plan;

// What training steps have shown of a model's layers, and a budget for each of them. A lock guards it, so threads may share
// it. All of its memory, and all arrays that it is given, are the host's.
typedef struct wtacrs_planner wtacrs_planner;

// What a batched product C = A B is like, and how both gradients are to be estimated. A lock guards it, so threads may
// share it.
typedef struct wtacrs_tensor_mul wtacrs_tensor_mul;

// A batched product's settled plan. It never changes: any number of threads may use one at the same time, each with saved
// and scratch memory of its own.
typedef struct wtacrs_tensor_mul_plan wtacrs_tensor_mul_plan;

// What a call returns: 0 (WTACRS_STATUS_OK) or the reason why it was refused. A number once published keeps its meaning.
typedef int32_t wtacrs_status;

// What is known of a call that failed, beside its words.
typedef struct wtacrs_error_info {
  // [in] sizeof(wtacrs_error_info). The other fields are outputs.
  size_t size;
  // What the call returned; WTACRS_STATUS_OK if none has failed.
  wtacrs_status status;
  // The offending row, weight, norm, sum or sample, counted from 0; SIZE_MAX if the failure is not one entry's.
  size_t index;
  // Bytes of the whole text with its NUL.
  size_t text_bytes;
} wtacrs_error_info;

// A function for the library's messages.
//
// user      what wtacrs_set_log was given
// message   [in] NUL-terminated, valid during the call
typedef void (*wtacrs_log_function)(void *user, wtacrs_log_level level, const char *message);

// How a context works. Zeros, and NULL in place of the struct, stand for the defaults.
typedef struct wtacrs_context_options {
  // sizeof(wtacrs_context_options)
  size_t size;
  // How many threads a CPU's context computes on. 0: as many as RAYON_NUM_THREADS says, or as there are cores. 1: the
  // calling thread alone, and none is started. Any number gives the same results. On CUDA it must be 0.
  size_t threads;
} wtacrs_context_options;

// What a plan's calls need. Every size is in bytes. All memory is the caller's; it is aligned to `alignment`.
typedef struct wtacrs_plan_info {
  // [in] sizeof(wtacrs_plan_info). The other fields are outputs.
  size_t size;
  // The most rows that a forward pass keeps.
  size_t budget_rows;
  // How far a forward pass advances the offset of its randomness: one that starts at (seed, offset) leaves
  // (seed, offset + draws) to the next. With packed rows at least one for each token.
  uint64_t draws;
  // Alignment of saved memory, of scratch memory and of a predictor's statistics: 64, on CUDA 256.
  size_t alignment;
  // Saved memory, which lives from the forward to the backward pass: see wtacrs_layer_set_packing.
  size_t saved_bytes;
  // What the exact layer keeps in its place: H.
  size_t exact_bytes;
  // Scratch memory of wtacrs_plan_forward and wtacrs_plan_select: dead when the call returns (on CUDA, when its work is
  // done). 0 on the CPU, which takes a few words for each token from its own heap.
  size_t forward_scratch_bytes;
  // Scratch memory of wtacrs_plan_backward; 0 on the CPU.
  size_t backward_scratch_bytes;
  // Scratch memory of wtacrs_plan_estimate.
  size_t estimate_scratch_bytes;
  // Scratch memory of wtacrs_plan_weight_gradient; 0 on the CPU, and for a plan with packed rows, which that call refuses.
  size_t weight_gradient_scratch_bytes;
  // Where in saved memory on CUDA a forward pass leaves its status: a 32-bit word that is 0, or 1 + the index of the
  // first row of H whose norm or guess is negative or not finite. Nothing is kept then, and the backward pass makes a dW
  // of zeros (or adds nothing); but of NaN where cuBLASLt multiplies, all rows are packed, and dZ is not finite either.
  // SIZE_MAX on the CPU, where the forward pass itself returns the failure.
  size_t saved_status_offset;
  // How many such words there are, one behind another: 1, or more if all rows are packed. The status is the first that is
  // not 0. 0 on the CPU.
  size_t saved_status_words;
  // The program that multiplies in wtacrs_plan_backward: WTACRS_ENGINE_OWN or WTACRS_ENGINE_CUBLASLT, see
  // wtacrs_layer_set_engine. WTACRS_ENGINE_OWN on the CPU.
  wtacrs_engine engine;
  // Reserved; 0.
  int32_t reserved;
} wtacrs_plan_info;

// What a forward pass may be given. Zeros, and NULL in place of the struct, stand for nothing.
typedef struct wtacrs_forward_options {
  // sizeof(wtacrs_forward_options)
  size_t size;
  // [in] Norms of dZ, one for each token. WTACRS_SOURCE_NORMS and WTACRS_SOURCE_CACHED (negative: unknown) require it.
  // For WTACRS_SOURCE_PREDICTED cached norms (negative: unknown) are optional: they move the predictor's guesses as far
  // as it has learned to trust them. For WTACRS_SOURCE_INPUT it must be NULL. A plan that packs all rows does not read
  // it, and requires none.
  const float *guess;
  // [in] The layer's predictor, which this call only reads. WTACRS_SOURCE_PREDICTED requires it; for other sources it
  // must be NULL. A plan that packs all rows does not read it, and requires none.
  const struct wtacrs_norm_predictor *predictor;
  // [out] The weights that the rows are chosen by, one for each token, for wtacrs_planner_observe; with a predictor up to a
  // factor that all of them share. A plan that packs all rows writes what it would choose by, if it is given a predictor or a
  // guess as its source requires; on CUDA it has none: WTACRS_STATUS_UNSUPPORTED. One more kernel is launched on CUDA.
  double *weights;
} wtacrs_forward_options;

// What a backward pass may be asked for. Zeros, and NULL in place of the struct, stand for nothing.
typedef struct wtacrs_backward_options {
  // sizeof(wtacrs_backward_options)
  size_t size;
  // 0 to write dW and `bias_gradient`, whose old values are then never read; 1 to add to them.
  int32_t accumulate;
  // [out] Norms of the rows of dZ, one for each token: what a norm cache or predictor learns from.
  float *dz_norms;
  // [out] The exact sum of the rows of dZ: out_features numbers of dW's dtype.
  void *bias_gradient;
} wtacrs_backward_options;

// Where a selection lies, or is to be written: kept rows and their scales 1/pi.
typedef struct wtacrs_selection {
  // sizeof(wtacrs_selection)
  size_t size;
  // The kept rows, strictly ascending.
  uint32_t *indices;
  // The scale of each. wtacrs_plan_gather does not read it.
  double *scales;
  // Entries that `indices` and `scales` have room for. Ignored where a selection is read.
  size_t capacity;
  // How many rows are kept: one number.
  uint64_t *kept;
  // How many of them were certain: one number. Ignored where a selection is read.
  uint64_t *winners;
} wtacrs_selection;

// How a predictor learns. Zeros, and NULL in place of the struct, stand for the defaults.
typedef struct wtacrs_norm_predictor_options {
  // sizeof(wtacrs_norm_predictor_options)
  size_t size;
  // Random projections of H that the regression has, 1 to 2^14, on CUDA at most 512; 256 by default.
  size_t features;
  // What is left of a step's statistics after the next, above 0 and at most 1; 0.97 by default.
  double forgetting;
  // Ridge of the regression, above 0, as a share of the mean diagonal of its matrix; 0.1 by default.
  double ridge;
  // The most that the logarithm of a guess may differ from the mean of the last step, above 0 and at most 20; 6 by
  // default.
  double clamp;
  // The most rows that are learned from in a step, on CUDA at most 4096; 192 by default.
  size_t rows_per_update;
  // Seed of the projections' signs; 0 by default.
  uint64_t seed;
} wtacrs_norm_predictor_options;

// What a training step has shown of one layer.
typedef struct wtacrs_observation {
  // sizeof(wtacrs_observation)
  size_t size;
  // How many rows H had.
  size_t tokens;
  // [in, optional] What the rows were chosen by, one number for each token (`weights` of wtacrs_forward_options). Without
  // them the products of the norms below, which are the best that there could be.
  const double *weights;
  // [in] Norms of the rows of H, one for each token.
  const float *input_norms;
  // [in] Norms of the rows of this layer's dZ, one for each token (`dz_norms` of wtacrs_backward_options).
  const float *dz_norms;
  // How many rows the estimate of dW was made of.
  size_t budget_rows;
  // How they were saved.
  wtacrs_packing packing;
  // The squared Frobenius norm of the estimate of dW.
  double squared_norm;
  // The squared Frobenius norm of its difference from the estimate in the observation before, or a number below 0 if that is
  // not known. WTACRS_TARGET_NOISE requires some.
  double squared_change;
} wtacrs_observation;

// The budget of one layer.
typedef struct wtacrs_planned {
  // [in] sizeof(wtacrs_planned). The other fields are outputs.
  size_t size;
  // The share of the rows to keep, for WTACRS_BUDGET_FRACTION.
  double share;
  // How many rows the share was taken of: the mean of those that were observed.
  size_t tokens;
  // The sum of expected |dW' - dW|^2 / |dW|^2 of the estimates dW' of this layer and of those that share its input.
  double squared_error;
  // How to save the rows. WTACRS_PACKING_NATIVE with a share of 1 is a layer that is better left exact.
  wtacrs_packing packing;
  // 1; or 0, as all other fields, for a layer that was not observed before the planner was solved.
  int32_t is_planned;
} wtacrs_planned;

// What a batched product's passes need. Every size is in bytes. All memory is the caller's; it is aligned to `alignment`.
typedef struct wtacrs_tensor_mul_plan_info {
  // [in] sizeof(wtacrs_tensor_mul_plan_info). The other fields are outputs.
  size_t size;
  // How far a forward pass advances the offset of its randomness: see wtacrs_plan_info.
  uint64_t draws;
  // Alignment of saved and scratch memory: 64, on CUDA 256.
  size_t alignment;
  // Saved memory, which lives from the forward to the backward pass.
  size_t saved_bytes;
  // What the exact product keeps in its place: A and B.
  size_t exact_bytes;
  // Scratch memory of the forward pass; 0 on the CPU.
  size_t forward_scratch_bytes;
  // Scratch memory of the backward pass; 0 on the CPU.
  size_t backward_scratch_bytes;
  // Where in saved memory on CUDA a forward pass leaves the status words of dA and of dB: for each (batch, head) as many
  // 32-bit words as left_status_words and right_status_words say, as in wtacrs_plan_info. SIZE_MAX on the CPU.
  size_t left_status_offset;
  // See left_status_offset.
  size_t right_status_offset;
  // Words of the status of each (batch, head): see saved_status_words in wtacrs_plan_info.
  size_t left_status_words;
  // See left_status_words.
  size_t right_status_words;
  // The program that multiplies for dA: see wtacrs_plan_info.
  wtacrs_engine left_engine;
  // The same for dB.
  wtacrs_engine right_engine;
} wtacrs_tensor_mul_plan_info;

// What a forward pass may be given. Zeros, and NULL in place of the struct, stand for nothing.
typedef struct wtacrs_tensor_mul_forward_options {
  // sizeof(wtacrs_tensor_mul_forward_options)
  size_t size;
  // [in] Guesses of the norms of the rows of G, batch x heads x rows: those that wtacrs_tensor_mul_plan_backward wrote in
  // an earlier step; negative where one is unknown.
  const float *row_guess;
  // [in] The same for its columns, batch x heads x columns.
  const float *column_guess;
} wtacrs_tensor_mul_forward_options;

// What a backward pass may be asked for. Zeros, and NULL in place of the struct, stand for nothing.
typedef struct wtacrs_tensor_mul_backward_options {
  // sizeof(wtacrs_tensor_mul_backward_options)
  size_t size;
  // 0 to write the gradients, whose old values are then never read; 1 to add to them.
  int32_t accumulate;
  // [out] Norms of the rows of G, batch x heads x rows: the next step's guesses.
  float *row_norms;
  // [out] Norms of its columns, batch x heads x columns.
  float *column_norms;
} wtacrs_tensor_mul_backward_options;

// What an operator's passes need. Every size is in bytes. All memory is the caller's; it is aligned to `alignment`.
typedef struct wtacrs_operator_plan_info {
  // [in] sizeof(wtacrs_operator_plan_info). The other fields are outputs.
  size_t size;
  // How far a forward pass advances the offset of its randomness: 0 if nothing is packed and nothing dropped.
  uint64_t draws;
  // Alignment of saved and scratch memory: 64, on CUDA 256.
  size_t alignment;
  // Saved memory, which lives from the forward to the backward pass; may be 0.
  size_t saved_bytes;
  // Scratch memory of the backward pass; 0 on the CPU.
  size_t backward_scratch_bytes;
  // 1 if the backward pass must be given x, else 0.
  int32_t keeps_input;
  // 1 if it must be given the gate.
  int32_t keeps_gate;
  // 1 if it must be given y.
  int32_t keeps_output;
  // 1 if wtacrs_operator_plan_restore writes y from saved memory: for a packed identity or softmax.
  int32_t restores;
} wtacrs_operator_plan_info;

// What a forward pass reads and writes. Leave NULL what the operator does not have.
typedef struct wtacrs_operator_forward {
  // sizeof(wtacrs_operator_forward)
  size_t size;
  // [in] rows x columns
  const void *x;
  // [in] rows x columns: what a gated operator multiplies by, and NULL for the others.
  const void *gate;
  // [in, optional] A norm's weight, one for each column; without it 1.
  const float *weight;
  // [in, optional] The bias of WTACRS_OPERATION_LAYER_NORM, one for each column; without it 0.
  const float *bias;
  // [out, optional] rows x columns; may be x, which it then replaces. NULL to write saved memory alone.
  void *y;
} wtacrs_operator_forward;

// What a backward pass reads and writes. Leave NULL what the operator does not have.
typedef struct wtacrs_operator_backward {
  // sizeof(wtacrs_operator_backward)
  size_t size;
  // [in] x of the forward pass if the plan says keeps_input, else NULL.
  const void *x;
  // [in] The gate of the forward pass if the plan says keeps_gate, else NULL.
  const void *gate;
  // [in] y of the forward pass if the plan says keeps_output, else NULL.
  const void *y;
  // [in] A norm's weight, if the forward pass had one.
  const float *weight;
  // [in] The gradient of y, rows x columns.
  const void *dy;
  // [out] The gradient of x, rows x columns; may be dy, which it then replaces.
  void *dx;
  // [out] The gradient of the gate, rows x columns; required of a gated operator, else NULL.
  void *dgate;
  // [out, optional] The gradient of a norm's weight, which the forward pass need not have had.
  float *dweight;
  // [out, optional] The gradient of the bias of WTACRS_OPERATION_LAYER_NORM, which the forward pass need not have had.
  float *dbias;
} wtacrs_operator_backward;

// Done.
#define WTACRS_STATUS_OK 0

// A pointer that must not be NULL is NULL.
#define WTACRS_STATUS_NULL_POINTER 1

// A handle that was never returned, was destroyed, or belongs to an object of another kind.
#define WTACRS_STATUS_INVALID_HANDLE 2

// A number that the enumeration does not contain.
#define WTACRS_STATUS_INVALID_ENUM 3

// An argument out of its range, or one that contradicts another.
#define WTACRS_STATUS_INVALID_ARGUMENT 4

// Shapes, lengths or dtypes that do not fit one another.
#define WTACRS_STATUS_SHAPE_MISMATCH 5

// Sizes whose product is beyond what can be addressed.
#define WTACRS_STATUS_SIZE_OVERFLOW 6

// Memory smaller than the call requires.
#define WTACRS_STATUS_BUFFER_TOO_SMALL 7

// A pointer that is not aligned as its type or its function needs.
#define WTACRS_STATUS_MISALIGNED 8

// An output that shares memory with another argument, or with itself.
#define WTACRS_STATUS_OVERLAP 9

// A norm or weight that is negative, infinite or not a number; the last error names it.
#define WTACRS_STATUS_INVALID_WEIGHTS 10

// A budget of nothing, of more than all, or a share outside (0, 1].
#define WTACRS_STATUS_INVALID_BUDGET 11

// A combination that this version does not serve.
#define WTACRS_STATUS_UNSUPPORTED 12

// Memory of another device than the plan's.
#define WTACRS_STATUS_DEVICE_MISMATCH 13

// The device, or its driver, is missing.
#define WTACRS_STATUS_NO_DEVICE 14

// The CUDA driver refused; the last error quotes it.
#define WTACRS_STATUS_CUDA_ERROR 15

// Bytes that were changed since they were saved, or that this library never wrote.
#define WTACRS_STATUS_CORRUPTED 16

// Bytes saved by another version of their format.
#define WTACRS_STATUS_VERSION_MISMATCH 17

// A defect of this library, contained. Outputs of the call may be partly written; the object that it changed, if
// any, must be destroyed. The last error has the place of the defect.
#define WTACRS_STATUS_PANIC 18

// The process cannot have the memory that the call would take from its heap. Nothing was changed.
#define WTACRS_STATUS_OUT_OF_MEMORY 19

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The library's version, such as "0.1.0": NUL-terminated, valid for ever.
//
// Any thread may call it at any time.
const char *wtacrs_version(void);

// WTACRS_ABI_VERSION of the library that is loaded, to be compared with that of the header.
//
// Any thread may call it at any time.
int32_t wtacrs_abi_version(void);

// A status in a few words: NUL-terminated, in English, valid for ever. Unknown numbers have words too.
//
// Any thread may call it at any time.
const char *wtacrs_status_string(wtacrs_status status);

// What was wrong with this thread's last call that failed: a text that names the offending argument, index and value;
// empty if none has failed. Calls that succeed leave it unchanged, and so does this one.
//
// buffer    [out] as much of the text (UTF-8) as fits `capacity` bytes, cut between characters, and always a closing NUL
//           if `capacity` > 0. NULL if `capacity` is 0.
// info      [in, out, optional] with `size` set
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _MISALIGNED, _OVERLAP.
wtacrs_status wtacrs_last_error(char *buffer,
                                size_t capacity,
                                struct wtacrs_error_info *info);

// Sets the function that gets messages about what no status reports, or NULL. The library never writes to stderr; without a
// function such messages are lost. When this call returns, the old function is not running and is never called again.
//
// function  any thread may call it, during any call of the library. It must not call the library, and must return.
// user      passed on to it
//
// Errors: none.
wtacrs_status wtacrs_set_log(wtacrs_log_function function,
                             void *user);

// A context for `device`.
//
// ordinal   0 for the CPU. For CUDA the GPU's number, whose primary context is then used (that of the CUDA runtime and of
//           frameworks), or -1 for the calling thread's current CUDA context.
// options   [in, optional]
// context   [out]
//
// On the CPU, contexts of the same number of threads share a pool. The first call that is large enough starts its threads,
// and they have ended when the last object made for those contexts is destroyed. If they cannot start, the calling thread
// computes (and says so to wtacrs_set_log's function), and the next call tries again. A forked process starts its own
// threads; do not fork while another thread is in a call.
//
// On CUDA this call loads the kernels, once for each CUDA context: the driver compiles them for its GPU, which takes
// seconds the first time and is then cached on disk. The calling thread's current CUDA context stays current; if it has
// none, the GPU's primary context becomes current. Every later call that takes a stream must be made while the context's
// CUDA context is current; otherwise it returns WTACRS_STATUS_DEVICE_MISMATCH. Do not call this function while a stream
// is captured.
//
// Errors: WTACRS_STATUS_INVALID_ENUM; _INVALID_ARGUMENT for the ordinal or the options; _NO_DEVICE if there is no CUDA driver, if it is
// too old, if there is no such GPU or none of compute capability 8.0 or later, or no current context; _CUDA_ERROR,
// _UNSUPPORTED, _NULL_POINTER, _MISALIGNED.
wtacrs_status wtacrs_context_create(wtacrs_device device,
                                    int32_t ordinal,
                                    const struct wtacrs_context_options *options,
                                    struct wtacrs_context **context);

// Destroys a context; NULL is allowed. Objects that were made with it stay valid. On CUDA the loaded kernels stay in the
// CUDA context until that ends, for those objects and for the next wtacrs_context of it, and so does a primary context.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_context_destroy(struct wtacrs_context *context);

// A description of a layer. Shape and budget must be set; the other defaults are f32 matrices, WTACRS_DESIGN_WTA_PIVOTAL,
// WTACRS_SOURCE_PREDICTED, a mix of 0.01, WTACRS_PACKING_NATIVE and WTACRS_PRECISION_F32.
//
// layer     [out]
//
// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
wtacrs_status wtacrs_layer_create(struct wtacrs_layer **layer);

// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_layer_destroy(struct wtacrs_layer *layer);

// H is tokens x in_features, dZ tokens x out_features, dW in_features x out_features. Zeros are allowed.
//
// Errors: WTACRS_STATUS_SIZE_OVERFLOW for 2^32 tokens or more, or for a matrix beyond the address space;
// _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_shape(struct wtacrs_layer *layer,
                                     size_t tokens,
                                     size_t in_features,
                                     size_t out_features);

// The dtypes of H and dZ (WTACRS_DTYPE_F32, _F16, _BF16, in any mixture) and of dW (then WTACRS_DTYPE_F32); or
// WTACRS_DTYPE_F64 for all three.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _UNSUPPORTED, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_dtypes(struct wtacrs_layer *layer,
                                      wtacrs_dtype h,
                                      wtacrs_dtype dz,
                                      wtacrs_dtype dw);

// How many rows of H to keep: `amount` in the given unit. Rows are a whole number; more than there are tokens are refused
// when the plan is made. With WTACRS_BUDGET_EXACT the amount, the design, the source and the packing are ignored.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_BUDGET, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_budget(struct wtacrs_layer *layer,
                                      wtacrs_budget unit,
                                      double amount);

// The sampling design. All but WTACRS_DESIGN_TOP_K are unbiased.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_design(struct wtacrs_layer *layer, wtacrs_design design);

// What the weights are made from besides the norms of H.
//
// mix       The share, in [0, 1], of the input's own norms in weights from cached norms, so that a token whose norm was
//           zero can still be drawn; 0.01 serves. Other sources ignore it.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT for the mix, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_source(struct wtacrs_layer *layer,
                                      wtacrs_source source,
                                      double mix);

// How kept rows are saved, and so how large saved memory is. Packed rows add a little noise and no bias.
//
// If the budget is all rows (a fraction of 1, or as many rows as there are tokens) and they are packed, a forward pass takes
// no norms and chooses nothing: saved memory has neither indices nor scales, every scale is 1, and no guess is required or
// read. With WTACRS_BUDGET_EXACT rows are saved native whatever the packing.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_packing(struct wtacrs_layer *layer,
                                       wtacrs_packing packing);

// How precisely matrices are multiplied. What is selected, and with which probability, stays the same.
//
// With WTACRS_PRECISION_TF32, as frameworks allow it for f32, each factor has a relative error of about 2^-11, and a GPU's
// tensor cores multiply several times faster; the CPU, and matrices of other dtypes, ignore it.
//
// With WTACRS_PRECISION_WIDE, the CPU multiplies every factor in the dtype of dW, and a GPU refuses plans of 16-bit dtypes as
// WTACRS_STATUS_UNSUPPORTED. Otherwise, and with dZ in bf16, the CPU multiplies rows in bf16 or packed in 4 or 2 bits in bf16
// where it is faster so. It then rounds dZ times its scales, and packed rows as they are read back, to bf16 once: by a
// relative error of 2^-8 at most, which averages out over the rows.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_precision(struct wtacrs_layer *layer,
                                         wtacrs_precision precision);

// Which program multiplies kept rows with those of dZ on a GPU; the CPU ignores it.
//
// WTACRS_ENGINE_AUTO takes cuBLASLt if the GPU has compute capability 9 to 11, dW has at least 2^20 elements, and at least 512
// rows are kept. If rows of dZ must be gathered for it, the layer also needs 1024 input features; none are gathered where all
// rows are packed. The bits of cuBLASLt's products depend on its version and on the GPU. wtacrs_plan_get_info reports the engine
// of a plan's backward passes. wtacrs_plan_weight_gradient always multiplies by this library's kernels.
//
// A plan of cuBLASLt loads that library when it is made, so make no plan while a stream is captured. Run each pass once before
// you capture it: cuBLASLt loads its kernels at their first run.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_engine(struct wtacrs_layer *layer,
                                      wtacrs_engine engine);

// A number that passes which draw add to their offset when they run, so that a captured CUDA graph, in which seed and
// offset are fixed, draws anew at each replay.
//
// further_offset  [in, optional] one number in the memory of the plan's device, aligned to 8. It must live as long as
//                 the plans that are made of the description.
//
// Errors: WTACRS_STATUS_MISALIGNED, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_layer_set_further_offset(struct wtacrs_layer *layer,
                                              const uint64_t *further_offset);

// Freezes a description into a plan for a device. Later changes of the description do not touch the plan.
//
// On CUDA H and dZ must be of one dtype, WTACRS_DTYPE_F32, _F16 or _BF16: WTACRS_STATUS_UNSUPPORTED otherwise.
//
// plan      [out]
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT if shape or budget was not set; _INVALID_BUDGET if the budget does not fit;
// _UNSUPPORTED, also if WTACRS_ENGINE_CUBLASLT is asked for and cannot be loaded; _CUDA_ERROR, _SIZE_OVERFLOW, _NULL_POINTER,
// _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_plan_create(const struct wtacrs_context *context,
                                 const struct wtacrs_layer *layer,
                                 struct wtacrs_plan **plan);

// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_plan_destroy(struct wtacrs_plan *plan);

// What a plan's calls need: sizes of memory, its alignment, and the advance of the randomness.
//
// info      [in, out] with `size` set
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_plan_get_info(const struct wtacrs_plan *plan, struct wtacrs_plan_info *info);

// The forward pass: chooses rows of H, and writes them to `saved` with their indices and scales. One pass is enough for
// layers that read the same H (Q, K and V): plans of equal tokens, in_features, dtype of H, budget and packing read each
// other's saved memory.
//
// h         [in] tokens x in_features, of the plan's dtype, `h_leading` >= in_features elements from row to row
// seed, offset  where the randomness begins; see `draws` in wtacrs_plan_info
// options   [in, optional]
// saved     [out] `saved_bytes` >= the size in wtacrs_plan_info, aligned as it says
// scratch   [scratch] `scratch_bytes` >= forward_scratch_bytes, aligned likewise
// stream    the CUDA stream to work on (a CUstream or cudaStream_t of the context's CUDA context, or NULL for its default
//           stream), borrowed; ignored by the CPU, which is done when the call returns
//
// The same weights, budget, design, seed and offset give the same rows and scales on every machine and for every number
// of threads.
//
// On CUDA all memory is the GPU's and must live until the work is done. Three kernels are launched, or one if all rows are
// packed; nothing is allocated, copied or waited for, and the call can be captured in a CUDA graph (in which seed and
// offset are fixed: see wtacrs_layer_set_further_offset). A row that is not finite shows in the saved status and not here:
// see wtacrs_plan_info. Native rows are saved times their scales, rounded once more (the CPU saves them as they are); the
// backward pass of either device reads its own. The elements of a row of H must lie side by side.
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS names the first row of H or guess that is negative or not finite (where all rows are
// packed, the first row of H with an element that is not finite in f32);
// _SHAPE_MISMATCH for another layer's predictor, _DEVICE_MISMATCH for another device's; _INVALID_ARGUMENT,
// _BUFFER_TOO_SMALL, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. `saved` is then unchanged.
wtacrs_status wtacrs_plan_forward(const struct wtacrs_plan *plan,
                                  const void *h,
                                  size_t h_leading,
                                  uint64_t seed,
                                  uint64_t offset,
                                  const struct wtacrs_forward_options *options,
                                  void *saved,
                                  size_t saved_bytes,
                                  void *scratch,
                                  size_t scratch_bytes,
                                  void *stream);

// wtacrs_plan_forward with H as a DLPack tensor of two axes: any strides, byte_offset, sizes of zero. On CUDA the tensor
// is one of the plan's GPU (device type 2), whose rows' elements lie side by side: WTACRS_STATUS_UNSUPPORTED otherwise.
//
// Errors: as for wtacrs_plan_forward; also WTACRS_STATUS_DEVICE_MISMATCH, and _UNSUPPORTED for a dtype outside
// wtacrs_dtype.
wtacrs_status wtacrs_plan_forward_dl(const struct wtacrs_plan *plan,
                                     const wtacrs_dltensor *h,
                                     uint64_t seed,
                                     uint64_t offset,
                                     const struct wtacrs_forward_options *options,
                                     void *saved,
                                     size_t saved_bytes,
                                     void *scratch,
                                     size_t scratch_bytes,
                                     void *stream);

// The backward pass: dW from the saved rows and dZ, of which only the kept tokens' rows count.
//
// saved     [in] what a forward pass of such a plan wrote
// dz        [in] tokens x out_features, `dz_leading` >= out_features elements from row to row
// dw        [out] in_features x out_features, `dw_leading` >= out_features; also an input with options->accumulate
// options   [in, optional]
// scratch   [scratch] `scratch_bytes` >= backward_scratch_bytes
// stream    as in wtacrs_plan_forward
//
// On CUDA at most three kernels are launched, or four for packed rows, of which one reads dZ once for its norms and the
// bias gradient together, and the call can be captured. `saved` is not checked there: a forward pass must have written it
// earlier on this stream, or on one that this stream waits for. Norms may round otherwise if the bias gradient is asked for
// as well.
//
// The same bits for every number of threads on one machine; other machines may round otherwise.
//
// Errors: WTACRS_STATUS_CORRUPTED, _VERSION_MISMATCH or _SHAPE_MISMATCH if no forward pass of such a plan wrote `saved`;
// _INVALID_ENUM for `accumulate`; _INVALID_ARGUMENT, _BUFFER_TOO_SMALL, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER,
// _INVALID_HANDLE, _MISALIGNED. Outputs are then unchanged.
wtacrs_status wtacrs_plan_backward(const struct wtacrs_plan *plan,
                                   const void *saved,
                                   size_t saved_bytes,
                                   const void *dz,
                                   size_t dz_leading,
                                   void *dw,
                                   size_t dw_leading,
                                   const struct wtacrs_backward_options *options,
                                   void *scratch,
                                   size_t scratch_bytes,
                                   void *stream);

// wtacrs_plan_backward with dZ and dW as DLPack tensors of two axes: any strides, byte_offset, sizes of zero. For a weight
// that is stored as out_features x in_features, pass dW with its strides exchanged. On CUDA the elements of a row of dZ
// and of dW must lie side by side, so that dW cannot be such a transpose: WTACRS_STATUS_UNSUPPORTED.
//
// Errors: as for wtacrs_plan_backward; also WTACRS_STATUS_DEVICE_MISMATCH, and _UNSUPPORTED for a dtype outside
// wtacrs_dtype.
wtacrs_status wtacrs_plan_backward_dl(const struct wtacrs_plan *plan,
                                      const void *saved,
                                      size_t saved_bytes,
                                      const wtacrs_dltensor *dz,
                                      const wtacrs_dltensor *dw,
                                      const struct wtacrs_backward_options *options,
                                      void *scratch,
                                      size_t scratch_bytes,
                                      void *stream);

// Estimates the product of X^T (in_features x tokens) and Y (tokens x out_features) in one call: X in the place of H and Y
// in that of dZ, both whole, so that the weights are exact whatever the plan's source. Nothing is kept from one pass to
// another, so rows are not packed, whatever the plan's packing.
//
// x, y      [in] as H and dZ in wtacrs_plan_forward and wtacrs_plan_backward
// out       [out] in_features x out_features, of dW's dtype
// scratch   [scratch] `scratch_bytes` >= estimate_scratch_bytes
//
// On CUDA a row that is not finite makes a product of zeros.
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS for a row that is not finite; _INVALID_ARGUMENT, _BUFFER_TOO_SMALL,
// _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_plan_estimate(const struct wtacrs_plan *plan,
                                   const void *x,
                                   size_t x_leading,
                                   const void *y,
                                   size_t y_leading,
                                   uint64_t seed,
                                   uint64_t offset,
                                   void *out,
                                   size_t out_leading,
                                   void *scratch,
                                   size_t scratch_bytes,
                                   void *stream);

// wtacrs_plan_estimate with DLPack tensors of two axes.
//
// Errors: as for wtacrs_plan_estimate; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH, _UNSUPPORTED.
wtacrs_status wtacrs_plan_estimate_dl(const struct wtacrs_plan *plan,
                                      const wtacrs_dltensor *x,
                                      const wtacrs_dltensor *y,
                                      uint64_t seed,
                                      uint64_t offset,
                                      const wtacrs_dltensor *out,
                                      void *scratch,
                                      size_t scratch_bytes,
                                      void *stream);

// Reads the selection in saved memory back.
//
// saved     [in] what a forward pass of such a plan wrote
// selection [out] in the host's memory: `*kept` ascending indices with their scales, of which `*winners` were certain (if
//           all rows are packed, every index with the scale 1, though none is saved).
//           `indices` and `scales` have room for `capacity` entries, or are NULL with `capacity` 0 to ask for the counts
//           alone; `kept` and `winners` may be NULL.
//
// On CUDA only `saved` is the GPU's memory. The call waits for all that was launched in the CUDA context, so do not make
// it while a stream is captured.
//
// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL; on CUDA _INVALID_WEIGHTS for a row of H whose norm or guess was negative or not
// finite; as for wtacrs_plan_backward about `saved`; _INVALID_ARGUMENT, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE,
// _MISALIGNED.
wtacrs_status wtacrs_plan_saved_selection(const struct wtacrs_plan *plan,
                                          const void *saved,
                                          size_t saved_bytes,
                                          const struct wtacrs_selection *selection);

// A predictor that knows nothing yet, for H of `in_features` columns.
//
// context   Plans of this context take it, and on CUDA only those of this very handle.
// options   [in, optional]
// predictor [out]
//
// On CUDA its state lies in the GPU's memory. This call allocates it: do not make it while a stream is captured.
// wtacrs_norm_predictor_destroy waits for nothing, and may be called at any time while the CUDA context lives, by a garbage
// collector too. The next predictor or cache that is made in the CUDA context frees the memory. A CUDA graph that has captured
// calls with the predictor must not be launched afterwards.
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT for an option out of range, or for no features or more than 2^24; _UNSUPPORTED,
// _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_predictor_create(const struct wtacrs_context *context,
                                           size_t in_features,
                                           const struct wtacrs_norm_predictor_options *options,
                                           struct wtacrs_norm_predictor **predictor);

// Destroys a predictor; NULL is allowed.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_norm_predictor_destroy(struct wtacrs_norm_predictor *predictor);

// Learns from the rows that a forward pass of `plan` has saved.
//
// saved     [in] as in wtacrs_plan_backward
// dz_norms  [in] norms of dZ, one for each token, as wtacrs_plan_backward returns them; for layers that share H their joint
//           norms (wtacrs_context_norms)
// cached_norms  [in, optional] the guess that the forward pass of this step was given (negative: unknown): the predictor
//           then also learns how far to trust cached norms
// stream    as in wtacrs_plan_forward
//
// On CUDA three kernels are launched, nothing is allocated, and the call can be captured. A norm that is negative or not
// finite shows when the kernels run: the predictor then stays as it was, and wtacrs_norm_predictor_outcome reports it.
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS for a norm, or a cached norm of a kept row, that is negative or not finite;
// _SHAPE_MISMATCH for another number of in_features; _DEVICE_MISMATCH for a plan of another device or CUDA context; as
// for wtacrs_plan_backward about `saved`; _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. The predictor is then
// unchanged.
wtacrs_status wtacrs_norm_predictor_update(struct wtacrs_norm_predictor *predictor,
                                           const struct wtacrs_plan *plan,
                                           const void *saved,
                                           size_t saved_bytes,
                                           const float *dz_norms,
                                           const float *cached_norms,
                                           void *stream);

// How many numbers a step's statistics are.
//
// count     [out]
//
// Errors: WTACRS_STATUS_NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_predictor_statistics_count(const struct wtacrs_norm_predictor *predictor,
                                                     size_t *count);

// What one rank's rows bring to a step, as plain sums: add them over the ranks, and give the same total to every rank's
// wtacrs_norm_predictor_apply; then equal predictors stay equal. The predictor does not change. Statistics with and without
// cached norms, of CPUs and of GPUs, may be added.
//
// saved, dz_norms, cached_norms, stream  as in wtacrs_norm_predictor_update
// sums      [out] in the memory of the plan's device, with room for `capacity` numbers; on CUDA aligned to 256
//
// On CUDA two kernels are launched. Sums of a step with a norm that is negative or not finite are not finite there, and
// applying them changes nothing.
//
// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP; as for wtacrs_norm_predictor_update.
wtacrs_status wtacrs_norm_predictor_statistics(const struct wtacrs_norm_predictor *predictor,
                                               const struct wtacrs_plan *plan,
                                               const void *saved,
                                               size_t saved_bytes,
                                               const float *dz_norms,
                                               const float *cached_norms,
                                               double *sums,
                                               size_t capacity,
                                               void *stream);

// Learns from a step's statistics.
//
// sums      [in] `count` sums over all ranks, in the memory of the predictor's device; on CUDA aligned to 256
// stream    as in wtacrs_plan_forward; on CUDA one kernel is launched
//
// Errors: WTACRS_STATUS_SHAPE_MISMATCH for another count; on the CPU _INVALID_ARGUMENT for sums that no rows can have (on
// CUDA wtacrs_norm_predictor_outcome reports them); _DEVICE_MISMATCH, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE,
// _MISALIGNED. The predictor is then unchanged.
wtacrs_status wtacrs_norm_predictor_apply(struct wtacrs_norm_predictor *predictor,
                                          const double *sums,
                                          size_t count,
                                          void *stream);

// What came of the last step, for inspection.
//
// outcome   [out, optional] 0 if the predictor has learned; 1 if there was nothing to learn, or no step yet; 2 if the norms
//           have fallen so far that nothing was learned and the next step finds a new level; 3 (on CUDA) if the step was
//           refused for a number that is negative or not finite
// row       [out, optional] 0, or on CUDA 1 + the first kept row (in the order of the indices) with such a number in the
//           statistics of the last step on this rank
//
// On CUDA the call waits for all that was launched in the predictor's CUDA context: do not make it while a stream is
// captured.
//
// Errors: WTACRS_STATUS_OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_predictor_outcome(const struct wtacrs_norm_predictor *predictor,
                                            uint32_t *outcome,
                                            uint32_t *row);

// The whole predictor as bytes, for a checkpoint. wtacrs_norm_predictor_load reads them for any device and on any machine,
// and the loaded predictor continues to the same bits.
//
// buffer    [out] room for `capacity` bytes; NULL with `capacity` 0 to ask for their number alone
// needed    [out] how many bytes there are, also with WTACRS_STATUS_BUFFER_TOO_SMALL
//
// On CUDA the call waits for all that was launched in the predictor's CUDA context: do not make it while a stream is
// captured.
//
// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_predictor_save(const struct wtacrs_norm_predictor *predictor,
                                         void *buffer,
                                         size_t capacity,
                                         size_t *needed);

// A predictor from the bytes that wtacrs_norm_predictor_save wrote, otherwise as from wtacrs_norm_predictor_create.
//
// bytes     [in] `length` of them
// predictor [out]
//
// Errors: WTACRS_STATUS_CORRUPTED, _VERSION_MISMATCH, _OVERLAP; as for wtacrs_norm_predictor_create.
wtacrs_status wtacrs_norm_predictor_load(const struct wtacrs_context *context,
                                         const void *bytes,
                                         size_t length,
                                         struct wtacrs_norm_predictor **predictor);

// An empty cache for samples with the ids 0 to `samples` - 1 and at most `tokens_per_sample` tokens each. On the CPU either
// may be SIZE_MAX: no bound.
//
// cache     [out]
//
// On CUDA its norms lie in the GPU's memory, samples * (tokens_per_sample + 1) * 4 bytes. This call allocates them: do not
// make it while a stream is captured. wtacrs_norm_cache_destroy waits for nothing, and may be called at any time while the
// CUDA context lives, by a garbage collector too. The next predictor or cache that is made in the CUDA context frees the
// memory. A CUDA graph that has captured calls with the cache must not be launched afterwards.
//
// Errors: WTACRS_STATUS_UNSUPPORTED for a cache without bounds on CUDA; _SIZE_OVERFLOW, _CUDA_ERROR, _NULL_POINTER,
// _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_cache_create(const struct wtacrs_context *context,
                                       size_t samples,
                                       size_t tokens_per_sample,
                                       struct wtacrs_norm_cache **cache);

// Destroys a cache; NULL is allowed.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_norm_cache_destroy(struct wtacrs_norm_cache *cache);

// The norms of a batch's tokens, as WTACRS_SOURCE_CACHED takes them.
//
// samples   [in] `count` ids. (Ids of int64_t will do: negative ones are out of range.)
// lengths   [in, optional] as many numbers of tokens; NULL if every sample has `row_tokens`
// row_tokens  Sample i's norms begin at norms + i * row_tokens, as in a batch that is padded to rows of so many tokens.
//           With 0 they lie sample after sample without gaps.
// norms     [out] `tokens` floats (the plan's tokens), all of which are written: -1 for every token that is unknown, and
//           where no sample's token is
// stream    as in wtacrs_plan_forward
//
// All arrays are in the memory of the cache's device. On CUDA one kernel is launched, nothing is allocated, and the call
// can be captured. The ids are not known to the call there: a sample that is out of range, too long for the cache, its row
// or `norms`, or known with another length is then unknown, and wtacrs_norm_cache_outcome reports it.
//
// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL if `tokens` is less than count * row_tokens; on the CPU also for samples that have
// more tokens, _INVALID_ARGUMENT for an id out of range, and _SHAPE_MISMATCH for a sample that is too long or known with
// another length. _SIZE_OVERFLOW, _OVERLAP, _DEVICE_MISMATCH, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_cache_fetch(const struct wtacrs_norm_cache *cache,
                                      const uint64_t *samples,
                                      const uint64_t *lengths,
                                      size_t count,
                                      size_t row_tokens,
                                      float *norms,
                                      size_t tokens,
                                      void *stream);

// Remembers the norms of a batch's tokens (from wtacrs_plan_backward) in place of what was known of its samples; of a sample
// that is twice in the batch, the last.
//
// norms     [in] laid out as in wtacrs_norm_cache_fetch, and so are all other arguments
//
// On CUDA one kernel is launched, nothing is allocated, and the call can be captured. A sample that is out of range or too
// long, or has a norm that is negative or not finite, is left out there, as if the batch did not store it (an earlier one
// of the same id is not stored in its place), and wtacrs_norm_cache_outcome reports it.
//
// Errors: on the CPU WTACRS_STATUS_INVALID_WEIGHTS names a norm that is negative or not finite; otherwise as for
// wtacrs_norm_cache_fetch. The cache is then unchanged.
wtacrs_status wtacrs_norm_cache_store(struct wtacrs_norm_cache *cache,
                                      const uint64_t *samples,
                                      const uint64_t *lengths,
                                      size_t count,
                                      size_t row_tokens,
                                      const float *norms,
                                      size_t tokens,
                                      void *stream);

// Forgets samples, such as those whose text has changed. One that is unknown, or out of range, is not an error.
//
// samples   [in] `count` ids, in the memory of the cache's device
// stream    as in wtacrs_plan_forward; on CUDA one kernel is launched
//
// Errors: WTACRS_STATUS_SIZE_OVERFLOW, _DEVICE_MISMATCH, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_cache_forget(struct wtacrs_norm_cache *cache,
                                       const uint64_t *samples,
                                       size_t count,
                                       void *stream);

// What fetches and stores on a GPU have left out since the last call of this function, for inspection.
//
// fault     [out, optional] 0 if nothing was left out; otherwise why the first sample was (of a batch, the first in its
//           order): 1 if its id is out of range, 2 if it has more tokens than the cache, its row or the rest of the norms
//           has room for, 3 if it is known with another length, 4 if it has a norm that is negative or not finite. Always 0
//           on the CPU, where calls return such failures.
// sample    [out, optional] its id, or 0
//
// On CUDA the call waits for all that was launched in the cache's CUDA context: do not make it while a stream is captured.
//
// Errors: WTACRS_STATUS_OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_cache_outcome(struct wtacrs_norm_cache *cache,
                                        uint32_t *fault,
                                        uint64_t *sample);

// The whole cache as bytes, for a checkpoint. wtacrs_norm_cache_load reads them for any device and on any machine.
//
// buffer    [out] room for `capacity` bytes; NULL with `capacity` 0 to ask for their number alone
// needed    [out] how many bytes there are, also with WTACRS_STATUS_BUFFER_TOO_SMALL
//
// On CUDA the call waits for all that was launched in the cache's CUDA context: do not make it while a stream is captured.
//
// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP, _CUDA_ERROR, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_norm_cache_save(const struct wtacrs_norm_cache *cache,
                                     void *buffer,
                                     size_t capacity,
                                     size_t *needed);

// A cache from the bytes that wtacrs_norm_cache_save wrote, otherwise as from wtacrs_norm_cache_create.
//
// bytes     [in] `length` of them
// cache     [out]
//
// Errors: WTACRS_STATUS_SHAPE_MISMATCH names a sample that this cache has no room for; _CORRUPTED, _VERSION_MISMATCH,
// _OVERLAP; as for wtacrs_norm_cache_create.
wtacrs_status wtacrs_norm_cache_load(const struct wtacrs_context *context,
                                     size_t samples,
                                     size_t tokens_per_sample,
                                     const void *bytes,
                                     size_t length,
                                     struct wtacrs_norm_cache **cache);

// A planner without layers.
//
// planner   [out]
//
// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
wtacrs_status wtacrs_planner_create(struct wtacrs_planner **planner);

// Destroys a planner; NULL is allowed.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_planner_destroy(struct wtacrs_planner *planner);

// Adds a layer whose H has rows of `in_features` elements of a dtype.
//
// layer     [out] its number: 0 for the first, and one more for each
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT for no features, _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE,
// _MISALIGNED.
wtacrs_status wtacrs_planner_add_layer(struct wtacrs_planner *planner,
                                       size_t in_features,
                                       wtacrs_dtype dtype,
                                       size_t *layer);

// A layer reads the same H as an earlier one: both keep one selection of its rows, and get one budget.
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT for a layer that there is not, or that does not come later; _SHAPE_MISMATCH for other
// rows; _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_planner_share_input(struct wtacrs_planner *planner,
                                         size_t layer,
                                         size_t first);

// Notes what a step has shown of a layer. It costs a sort of the tokens' weights: some layers in some steps are enough.
//
// seen      [in]
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS names the first weight or norm that is negative or not finite; _INVALID_BUDGET for
// `budget_rows`; _INVALID_ARGUMENT for a layer that there is not, no tokens, or another number that cannot be; _INVALID_ENUM,
// _UNSUPPORTED, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. Nothing is then noted.
wtacrs_status wtacrs_planner_observe(struct wtacrs_planner *planner,
                                     size_t layer,
                                     const struct wtacrs_observation *seen);

// Measures by some rows of a layer's H how much noise packing makes. A few dozen rows of one step are enough if they are from all
// places of the sequences: first tokens alone may have less noise than the others. Without it, the noise is supposed that
// activations of transformers have.
//
// rows      how many there are
// h         [in] rows x the layer's in_features, of the layer's dtype or another, in the host's memory, `h_leading` >=
//           in_features elements from row to row
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS names a row with an element that is not finite; _INVALID_ARGUMENT for a layer that there
// is not, or no rows; _INVALID_ENUM, _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. Nothing is then noted.
wtacrs_status wtacrs_planner_observe_rows(struct wtacrs_planner *planner,
                                          size_t layer,
                                          wtacrs_dtype dtype,
                                          size_t rows,
                                          const void *h,
                                          size_t h_leading);

// How many numbers the statistics of all layers are.
//
// count     [out]
//
// Errors: WTACRS_STATUS_NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_planner_statistics_count(const struct wtacrs_planner *planner, size_t *count);

// What was observed since statistics were last applied, as plain sums: add them over the ranks, and give the same total to
// every rank's wtacrs_planner_apply; then equal planners stay equal. The planner does not change.
//
// sums      [out] room for `capacity` numbers
//
// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_planner_statistics(const struct wtacrs_planner *planner,
                                        double *sums,
                                        size_t capacity);

// Takes statistics in, and forgets those that were not applied: they are among them. Without ranks, what
// wtacrs_planner_statistics wrote.
//
// sums      [in] `count` sums over all ranks
//
// Errors: WTACRS_STATUS_SHAPE_MISMATCH for another count; _INVALID_ARGUMENT for a sum that is not finite; _NULL_POINTER,
// _INVALID_HANDLE, _MISALIGNED. The planner is then unchanged.
wtacrs_status wtacrs_planner_apply(struct wtacrs_planner *planner,
                                   const double *sums,
                                   size_t count);

// Shares memory out among the layers by all that was applied, so that the sum of their relative squared errors is least.
// wtacrs_planner_get_budget then has each layer's budget. Equal statistics and targets give equal budgets on every machine.
//
// target    WTACRS_TARGET_MEMORY or WTACRS_TARGET_NOISE
// share     of all bytes of the layers' inputs, in (0, 1]; or of the variance among batches, above 0
//
// Errors: WTACRS_STATUS_INVALID_BUDGET if even the fewest rows and bits take more than `share`; _INVALID_ARGUMENT if nothing was
// applied, for WTACRS_TARGET_NOISE also if no change was observed, and for a share out of its range; _INVALID_ENUM,
// _NULL_POINTER, _INVALID_HANDLE. The budgets are then those from before.
wtacrs_status wtacrs_planner_solve(struct wtacrs_planner *planner,
                                   wtacrs_target target,
                                   double share);

// The whole planner as bytes, for a checkpoint, but for the budgets of its last solution.
//
// buffer    [out] room for `capacity` bytes; NULL with `capacity` 0 to ask for their number alone
// needed    [out] how many bytes there are, also with WTACRS_STATUS_BUFFER_TOO_SMALL
//
// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_planner_save(const struct wtacrs_planner *planner,
                                  void *buffer,
                                  size_t capacity,
                                  size_t *needed);

// A planner from the bytes that wtacrs_planner_save wrote, which goes on to the same bits.
//
// bytes     [in] `length` of them
// planner   [out]
//
// Errors: WTACRS_STATUS_CORRUPTED, _VERSION_MISMATCH, _OVERLAP, _NULL_POINTER, _MISALIGNED.
wtacrs_status wtacrs_planner_load(const void *bytes, size_t length, struct wtacrs_planner **planner);

// A layer's budget, as the last wtacrs_planner_solve has found it.
//
// planned   [in, out] with `size` set
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT for a layer that there is not, or for the size; _NULL_POINTER, _INVALID_HANDLE,
// _MISALIGNED.
wtacrs_status wtacrs_planner_get_budget(const struct wtacrs_planner *planner,
                                        size_t layer,
                                        struct wtacrs_planned *planned);

// A description of C = A B for every (batch, head). The shape and both sides' budgets must be set; the other defaults are
// f32, WTACRS_DESIGN_WTA_PIVOTAL, a mix of 0.01, WTACRS_PACKING_NATIVE and WTACRS_PRECISION_F32.
//
// tensor_mul  [out]
//
// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
wtacrs_status wtacrs_tensor_mul_create(struct wtacrs_tensor_mul **tensor_mul);

// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_destroy(struct wtacrs_tensor_mul *tensor_mul);

// A is batch x heads x rows x inner, B batch x heads x inner x columns, C and its gradient G batch x heads x rows x
// columns. For scores = Q K^T: rows are queries, inner channels, columns keys.
//
// Errors: WTACRS_STATUS_SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_shape(struct wtacrs_tensor_mul *tensor_mul,
                                          size_t batch,
                                          size_t heads,
                                          size_t rows,
                                          size_t inner,
                                          size_t columns);

// The dtypes of A and B, and of G: WTACRS_DTYPE_F32, _F16 or _BF16, whose gradients are WTACRS_DTYPE_F32; or
// WTACRS_DTYPE_F64 for both, and for the gradients.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _UNSUPPORTED, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_dtypes(struct wtacrs_tensor_mul *tensor_mul,
                                           wtacrs_dtype operands,
                                           wtacrs_dtype gradient);

// How many pairs one gradient is estimated from: `amount` in the given unit. With WTACRS_BUDGET_EXACT, for which the amount
// is ignored, the gradient is exact, and the operand that it needs is saved whole: right for sums over channels, as of dP
// in context = P V.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_BUDGET, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_budget(struct wtacrs_tensor_mul *tensor_mul,
                                           wtacrs_side side,
                                           wtacrs_budget unit,
                                           double amount);

// The sampling design, as for a layer.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_design(struct wtacrs_tensor_mul *tensor_mul, wtacrs_design design);

// The share, in [0, 1], of the operand's own norms in weights from guessed norms of G; 0 for true norms.
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_mix(struct wtacrs_tensor_mul *tensor_mul, double mix);

// How the pairs of a sampled sum are saved: see wtacrs_layer_set_packing. What a side of WTACRS_BUDGET_EXACT needs is saved
// native. A side that packs all of its pairs reads no guess.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_packing(struct wtacrs_tensor_mul *tensor_mul,
                                            wtacrs_packing packing);

// How precisely matrices are multiplied: see wtacrs_layer_set_precision.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_precision(struct wtacrs_tensor_mul *tensor_mul,
                                              wtacrs_precision precision);

// Which program multiplies on a GPU: see wtacrs_layer_set_engine. Columns of G are gathered in any case.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_engine(struct wtacrs_tensor_mul *tensor_mul, wtacrs_engine engine);

// A number that forward passes add to their offset when they run: see wtacrs_layer_set_further_offset.
//
// Errors: WTACRS_STATUS_MISALIGNED, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_set_further_offset(struct wtacrs_tensor_mul *tensor_mul,
                                                   const uint64_t *further_offset);

// Freezes a description into a plan for a device. Later changes of the description do not touch the plan.
//
// On CUDA no size may be 0, and WTACRS_DTYPE_F64 is not served: WTACRS_STATUS_UNSUPPORTED.
//
// plan      [out]
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT if the shape or a side was not set; _INVALID_BUDGET if a budget does not fit;
// _UNSUPPORTED, _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_tensor_mul_plan_create(const struct wtacrs_context *context,
                                            const struct wtacrs_tensor_mul *tensor_mul,
                                            struct wtacrs_tensor_mul_plan **plan);

// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_tensor_mul_plan_destroy(struct wtacrs_tensor_mul_plan *plan);

// What a plan's passes need: sizes of memory, its alignment, and the advance of the randomness.
//
// info      [in, out] with `size` set
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_tensor_mul_plan_get_info(const struct wtacrs_tensor_mul_plan *plan,
                                              struct wtacrs_tensor_mul_plan_info *info);

// The forward pass: chooses and saves what both gradients need of A and B. Every (batch, head) has draws of its own.
//
// a, b      [in] batch x heads x rows x inner and batch x heads x inner x columns, of the plan's dtype, row by row without
//           gaps
// seed, offset, stream  as in wtacrs_plan_forward
// options   [in, optional]
// saved     [out] `saved_bytes` >= the size in wtacrs_tensor_mul_plan_info, aligned as it says
// scratch   [scratch] `scratch_bytes` >= forward_scratch_bytes, aligned likewise
//
// On CUDA six kernels are launched: three for each side, or one for a side that packs all of its pairs. dA sums over the
// columns of B, whose elements the kernels need side by side: pass B as the transpose of a columns x inner matrix to
// wtacrs_tensor_mul_plan_forward_dl. Here it is WTACRS_STATUS_UNSUPPORTED unless inner is 1.
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS, _UNSUPPORTED, _BUFFER_TOO_SMALL, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER,
// _INVALID_HANDLE, _MISALIGNED. `saved` is then unchanged.
wtacrs_status wtacrs_tensor_mul_plan_forward(const struct wtacrs_tensor_mul_plan *plan,
                                             const void *a,
                                             const void *b,
                                             uint64_t seed,
                                             uint64_t offset,
                                             const struct wtacrs_tensor_mul_forward_options *options,
                                             void *saved,
                                             size_t saved_bytes,
                                             void *scratch,
                                             size_t scratch_bytes,
                                             void *stream);

// wtacrs_tensor_mul_plan_forward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the
// last axis of A and the third of B have stride 1, and no stride is negative: WTACRS_STATUS_UNSUPPORTED otherwise. So the
// views (batch, heads, rows, inner) of a (batch, rows, heads, inner) buffer need no copies.
//
// Errors: as for wtacrs_tensor_mul_plan_forward; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH.
wtacrs_status wtacrs_tensor_mul_plan_forward_dl(const struct wtacrs_tensor_mul_plan *plan,
                                                const wtacrs_dltensor *a,
                                                const wtacrs_dltensor *b,
                                                uint64_t seed,
                                                uint64_t offset,
                                                const struct wtacrs_tensor_mul_forward_options *options,
                                                void *saved,
                                                size_t saved_bytes,
                                                void *scratch,
                                                size_t scratch_bytes,
                                                void *stream);

// The backward pass: both gradients from G = dC.
//
// saved     [in] what a forward pass of such a plan wrote
// g         [in] batch x heads x rows x columns
// da, db    [out] batch x heads x rows x inner and batch x heads x inner x columns, in WTACRS_DTYPE_F32 (_F64 for _F64),
//           all row by row without gaps; also inputs with options->accumulate
// options   [in, optional]
// scratch   [scratch] `scratch_bytes` >= backward_scratch_bytes
// stream    as in wtacrs_plan_forward
//
// Errors: as for wtacrs_plan_backward. Outputs are then unchanged.
wtacrs_status wtacrs_tensor_mul_plan_backward(const struct wtacrs_tensor_mul_plan *plan,
                                              const void *saved,
                                              size_t saved_bytes,
                                              const void *g,
                                              void *da,
                                              void *db,
                                              const struct wtacrs_tensor_mul_backward_options *options,
                                              void *scratch,
                                              size_t scratch_bytes,
                                              void *stream);

// wtacrs_tensor_mul_plan_backward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the
// last axis of G, dA and dB has stride 1, and no stride is negative: WTACRS_STATUS_UNSUPPORTED otherwise.
//
// Errors: as for wtacrs_tensor_mul_plan_backward; also WTACRS_STATUS_DEVICE_MISMATCH, _UNSUPPORTED.
wtacrs_status wtacrs_tensor_mul_plan_backward_dl(const struct wtacrs_tensor_mul_plan *plan,
                                                 const void *saved,
                                                 size_t saved_bytes,
                                                 const wtacrs_dltensor *g,
                                                 const wtacrs_dltensor *da,
                                                 const wtacrs_dltensor *db,
                                                 const struct wtacrs_tensor_mul_backward_options *options,
                                                 void *scratch,
                                                 size_t scratch_bytes,
                                                 void *stream);

// A description of an operator. Operation and shape must be set; the other defaults are WTACRS_DTYPE_F32,
// WTACRS_PACKING_NATIVE, no dropout and an epsilon of 1e-5.
//
// op        [out]
//
// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
wtacrs_status wtacrs_operator_create(struct wtacrs_operator **op);

// Destroys a description; NULL is allowed. Plans that were made of it stay valid.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_operator_destroy(struct wtacrs_operator *op);

// What y is of x, before dropout: see wtacrs_operation.
//
// gated     1 for act(x) gate, element by element, with a second array `gate`: WTACRS_OPERATION_RELU, _GELU, _GELU_TANH and
//           _SILU alone can be gated. 0 otherwise.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT if the operation cannot be gated; _NULL_POINTER,
// _INVALID_HANDLE.
wtacrs_status wtacrs_operator_set_operation(struct wtacrs_operator *op,
                                            wtacrs_operation operation,
                                            int32_t gated);

// x, y, the gate and their gradients have rows x columns elements; the weight, the bias and their gradients one for each
// column. Softmax and norms are taken along rows, and elements are packed in groups of 128 of a row, so choose long rows for
// an operator that works on each element by itself. Zeros are allowed.
//
// Errors: WTACRS_STATUS_SIZE_OVERFLOW for arrays beyond the address space; _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_operator_set_shape(struct wtacrs_operator *op,
                                        size_t rows,
                                        size_t columns);

// The dtype of x, y, the gate and their gradients: WTACRS_DTYPE_F32, _F16 or _BF16. A norm's weight and bias, and their
// gradients, are f32 always.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _UNSUPPORTED for WTACRS_DTYPE_F64; _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_operator_set_dtype(struct wtacrs_operator *op,
                                        wtacrs_dtype dtype);

// How what is saved is packed: see the table at wtacrs_operator.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_operator_set_packing(struct wtacrs_operator *op, wtacrs_packing packing);

// Dropout of the output: each element becomes 0 with this probability, and else is divided by the probability that it is
// kept. The mask is a function of seed, offset and the element's place. A native softmax, which keeps its output, has no
// dropout: follow it by an identity with dropout.
//
// probability  at least 0 and below 1; rounded to a multiple of 2^-32
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_operator_set_dropout(struct wtacrs_operator *op,
                                          double probability);

// What a norm adds to the variance or the mean of squares. Other operations ignore it.
//
// epsilon   finite in f32, and not negative
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_operator_set_epsilon(struct wtacrs_operator *op, double epsilon);

// A number that forward passes add to their offset when they run: see wtacrs_layer_set_further_offset. Backward passes read
// the sum from saved memory.
//
// Errors: WTACRS_STATUS_MISALIGNED, _NULL_POINTER, _INVALID_HANDLE.
wtacrs_status wtacrs_operator_set_further_offset(struct wtacrs_operator *op,
                                                 const uint64_t *further_offset);

// Freezes a description into a plan for a device. Later changes of the description do not touch the plan.
//
// plan      [out]
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT if operation or shape were not set; _UNSUPPORTED for a native softmax with dropout;
// _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_operator_plan_create(const struct wtacrs_context *context,
                                          const struct wtacrs_operator *op,
                                          struct wtacrs_operator_plan **plan);

// Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.
//
// Errors: WTACRS_STATUS_INVALID_HANDLE.
wtacrs_status wtacrs_operator_plan_destroy(struct wtacrs_operator_plan *plan);

// What a plan's passes need: sizes of memory, its alignment, the advance of the randomness, and what the caller keeps.
//
// info      [in, out] with `size` set
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT for the size, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_operator_plan_get_info(const struct wtacrs_operator_plan *plan,
                                            struct wtacrs_operator_plan_info *info);

// The forward pass: y, and what the backward pass needs.
//
// operands  [in] see wtacrs_operator_forward. Arrays are dense and of the plan's dtype. y may be x, exactly; otherwise no
//           output overlaps another argument. An operator that keeps its input (keeps_input) needs x again in the backward
//           pass, so replace x only where you have it elsewhere, or never call that pass.
// seed, offset, stream  as in wtacrs_plan_forward; a plan whose `draws` are 0 ignores seed and offset
// saved     [out] `saved_bytes` >= the size in wtacrs_operator_plan_info, aligned as it says; if that is 0, anything
//
// Errors: WTACRS_STATUS_NULL_POINTER if x, or the gate of a gated operator, is missing; _INVALID_ARGUMENT for an operand that
// the operator does not have; _BUFFER_TOO_SMALL, _OVERLAP, _INVALID_HANDLE, _MISALIGNED. Outputs are then unchanged.
wtacrs_status wtacrs_operator_plan_forward(const struct wtacrs_operator_plan *plan,
                                           const struct wtacrs_operator_forward *operands,
                                           uint64_t seed,
                                           uint64_t offset,
                                           void *saved,
                                           size_t saved_bytes,
                                           void *stream);

// The backward pass: the gradients of x, the gate, the weight and the bias, which are written and not added to.
//
// operands  [in] see wtacrs_operator_backward. dx may be dy, exactly; otherwise no output overlaps another argument.
// saved     [in] what a forward pass of such a plan wrote
// scratch   [scratch] `scratch_bytes` >= backward_scratch_bytes
// stream    as in wtacrs_plan_forward
//
// Errors: WTACRS_STATUS_NULL_POINTER if an operand that the operator needs is missing; _INVALID_ARGUMENT for one that it does
// not use; _BUFFER_TOO_SMALL, _OVERLAP, _INVALID_HANDLE, _MISALIGNED. On the CPU also, for what is in `saved`:
// _SHAPE_MISMATCH if another operator, or one of another shape or dtype, wrote it; _CORRUPTED, _VERSION_MISMATCH. Outputs
// are then unchanged.
wtacrs_status wtacrs_operator_plan_backward(const struct wtacrs_operator_plan *plan,
                                            const struct wtacrs_operator_backward *operands,
                                            const void *saved,
                                            size_t saved_bytes,
                                            void *scratch,
                                            size_t scratch_bytes,
                                            void *stream);

// Writes y again from what a forward pass saved: x or the probabilities within the packing's error and unbiased, behind the
// same dropout.
//
// saved     [in] what a forward pass of such a plan wrote
// y         [out] rows x columns, of the plan's dtype
// stream    as in wtacrs_plan_forward
//
// Errors: WTACRS_STATUS_UNSUPPORTED unless the plan restores; else as for wtacrs_operator_plan_backward.
wtacrs_status wtacrs_operator_plan_restore(const struct wtacrs_operator_plan *plan,
                                           const void *saved,
                                           size_t saved_bytes,
                                           void *y,
                                           void *stream);

// The Euclidean norms of the rows or columns of a matrix. A row or column that is not finite has a norm that is not finite;
// that is not an error here.
//
// For layers that share H, write the norms of their dZ into one layers x tokens matrix: its column norms are the joint
// norms, which a shared predictor learns from and a shared cache stores.
//
// axis      of which there is a norm for each: rows or columns
// x         [in] rows x columns of `dtype`, `x_leading` >= columns elements from row to row
// norms     [out] one float for each row or column
// stream    as in wtacrs_plan_forward
//
// The same bits for every number of threads, leading dimension and stride. On CUDA the dtype is WTACRS_DTYPE_F32, _F16 or
// _BF16: WTACRS_STATUS_UNSUPPORTED otherwise.
//
// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT, _UNSUPPORTED, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER,
// _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_context_norms(const struct wtacrs_context *context,
                                   wtacrs_axis axis,
                                   wtacrs_dtype dtype,
                                   size_t rows,
                                   size_t columns,
                                   const void *x,
                                   size_t x_leading,
                                   float *norms,
                                   void *stream);

// wtacrs_context_norms of a DLPack tensor of two axes; `norms` has room for `capacity` floats.
//
// Errors: as for wtacrs_context_norms; also WTACRS_STATUS_BUFFER_TOO_SMALL, _SHAPE_MISMATCH, _DEVICE_MISMATCH.
wtacrs_status wtacrs_context_norms_dl(const struct wtacrs_context *context,
                                      wtacrs_axis axis,
                                      const wtacrs_dltensor *x,
                                      float *norms,
                                      size_t capacity,
                                      void *stream);

// The weights of a plan's tokens from the norms of H and, by the plan's source, a guess of the norms of dZ. For
// wtacrs_plan_theory and for inspection: wtacrs_plan_select computes its own, which are equal.
//
// input_norms  [in] norms of the rows of H, one for each token
// guess     [in] norms of dZ for WTACRS_SOURCE_NORMS and WTACRS_SOURCE_CACHED; NULL for other sources, whose weights are
//           then the norms of H
// weights   [out] one number for each token: what the selection's integers stand for (rounded by at most 2^-29 of the
//           largest). If all weights are zero, every token is equally likely, and all weights are 1.
// stream    as in wtacrs_plan_forward
//
// On CUDA all arrays are the GPU's, and one block of one kernel computes them; if a norm is negative or not finite, all
// weights are NaN.
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS names the first norm that is negative or not finite; _INVALID_ARGUMENT, _OVERLAP,
// _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_plan_weights(const struct wtacrs_plan *plan,
                                  const float *input_norms,
                                  const float *guess,
                                  double *weights,
                                  void *stream);

// Chooses rows from norms alone: weights as in wtacrs_plan_weights, then the plan's design at (seed, offset). For weights
// of your own, pass them as `input_norms` to a plan of WTACRS_SOURCE_INPUT.
//
// input_norms, guess  [in] as in wtacrs_plan_weights
// item      the item of a batch that shares one offset; 0 if there is no batch
// selection [out] with `capacity` >= budget_rows; entries after `*kept` are left unchanged; `kept` and `winners` may be
//           NULL on the CPU
// scratch   [scratch] `scratch_bytes` >= forward_scratch_bytes
// stream    as in wtacrs_plan_forward
//
// The same bits on every machine.
//
// A plan that packs all rows chooses nothing: WTACRS_STATUS_UNSUPPORTED.
//
// On CUDA all arrays are the GPU's, `winners` too, and `kept` must not be NULL. The upper half of `*kept` is 0, or 1 + the
// index of the first norm that is negative or not finite; the lower half is then 0.
//
// Errors: as for wtacrs_plan_weights; also WTACRS_STATUS_BUFFER_TOO_SMALL, _UNSUPPORTED.
wtacrs_status wtacrs_plan_select(const struct wtacrs_plan *plan,
                                 const float *input_norms,
                                 const float *guess,
                                 uint64_t seed,
                                 uint64_t offset,
                                 uint32_t item,
                                 const struct wtacrs_selection *selection,
                                 void *scratch,
                                 size_t scratch_bytes,
                                 void *stream);

// Copies the rows of H that a selection keeps: what wtacrs_plan_weight_gradient takes. Rows are native: a plan with packed
// rows has wtacrs_plan_forward and wtacrs_plan_backward alone.
//
// h         [in] as in wtacrs_plan_forward
// selection [in] `indices` and `kept`
// rows      [out] kept x in_features, of H's dtype, `rows_leading` >= in_features elements from row to row
// stream    as in wtacrs_plan_forward
//
// On CUDA all memory is the GPU's, the indices are not checked, `rows` has as many rows as the plan's budget, and those
// from `*kept` on become zero.
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT if indices do not ascend, lie beyond the tokens, or are more than the budget;
// _UNSUPPORTED for a plan with packed rows; _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_plan_gather(const struct wtacrs_plan *plan,
                                 const void *h,
                                 size_t h_leading,
                                 const struct wtacrs_selection *selection,
                                 void *rows,
                                 size_t rows_leading,
                                 void *stream);

// wtacrs_plan_gather with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the budget).
//
// Errors: as for wtacrs_plan_gather; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH, _UNSUPPORTED.
wtacrs_status wtacrs_plan_gather_dl(const struct wtacrs_plan *plan,
                                    const wtacrs_dltensor *h,
                                    const struct wtacrs_selection *selection,
                                    const wtacrs_dltensor *rows,
                                    void *stream);

// dW from rows that the caller keeps: wtacrs_plan_backward with rows and a selection in the place of saved memory.
//
// rows      [in] kept x in_features, of H's dtype, `rows_leading` >= in_features elements from row to row
// selection [in] `indices`, `scales` and `kept`
// dz, dw    as in wtacrs_plan_backward
// accumulate  0 to write dW, 1 to add to it
// scratch   [scratch] `scratch_bytes` >= weight_gradient_scratch_bytes
// stream    as in wtacrs_plan_forward
//
// On CUDA all memory is the GPU's, and `rows`, `indices` and `scales` have as many rows and entries as the plan's budget.
// The rows of dZ are gathered and scaled first, rounded to their dtype.
//
// Errors: WTACRS_STATUS_INVALID_ARGUMENT also for a scale that is negative or not finite; as for wtacrs_plan_gather and
// wtacrs_plan_backward.
wtacrs_status wtacrs_plan_weight_gradient(const struct wtacrs_plan *plan,
                                          const void *rows,
                                          size_t rows_leading,
                                          const struct wtacrs_selection *selection,
                                          const void *dz,
                                          size_t dz_leading,
                                          void *dw,
                                          size_t dw_leading,
                                          int32_t accumulate,
                                          void *scratch,
                                          size_t scratch_bytes,
                                          void *stream);

// wtacrs_plan_weight_gradient with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the
// budget).
//
// Errors: as for wtacrs_plan_weight_gradient; also WTACRS_STATUS_SHAPE_MISMATCH, _DEVICE_MISMATCH, _UNSUPPORTED.
wtacrs_status wtacrs_plan_weight_gradient_dl(const struct wtacrs_plan *plan,
                                             const wtacrs_dltensor *rows,
                                             const struct wtacrs_selection *selection,
                                             const wtacrs_dltensor *dz,
                                             const wtacrs_dltensor *dw,
                                             int32_t accumulate,
                                             void *scratch,
                                             size_t scratch_bytes,
                                             void *stream);

// What a plan's design makes of weights, without drawing. All arrays are in the host's memory, whatever the plan's device.
//
// weights   [in] one number for each token (wtacrs_plan_weights). If all are zero, every token is equally likely.
// pair_norms  [in, optional] exact products |H_i| |dZ_i|, one for each token; `squared_error` requires them
// threshold [out, optional] pairs of at least this weight are winners, kept always; 0 if every pair of positive weight is
// winners   [out, optional] how many those are, by weights, whatever the plan's design
// expected_rows  [out, optional] how many distinct rows the plan's design keeps on average; all, if all are packed
// squared_error  [out, optional] the sum over the tail of (1/p_i - 1) pair_norms_i^2, p_i the probabilities with which
//           WTACRS_DESIGN_WTA_PIVOTAL keeps a pair: the expected squared Frobenius error if every pair of the tail were
//           drawn on its own, the yardstick by which sources of weights are compared; without the noise of packed rows
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS, _OVERLAP, _NULL_POINTER (also for `squared_error` without `pair_norms`),
// _INVALID_HANDLE, _MISALIGNED.
wtacrs_status wtacrs_plan_theory(const struct wtacrs_plan *plan,
                                 const double *weights,
                                 const double *pair_norms,
                                 double *threshold,
                                 uint64_t *winners,
                                 double *expected_rows,
                                 double *squared_error);

// The mean of the squared Frobenius error |dW' - dW|^2 over estimates dW' that the plan's design and budget draw with
// given weights, for these H and dZ. With C_i = H_i^T dZ_i, p_i the weights' shares of their sum, C the winners, T the
// tail, m the places left to it and q_i the weights' shares of the tail's sum:
//
// WTACRS_DESIGN_UNIFORM: n^2/k (1 - k/n) (sum |C_i|^2 - |dW|^2/n)/(n - 1).
// WTACRS_DESIGN_CRS: (sum |C_i|^2/p_i - |sum C_i|^2)/k.
// WTACRS_DESIGN_TOP_K: |sum of the C_i that are dropped|^2, which is the same in every draw.
// WTACRS_DESIGN_WTA_IID: (sum over T of |C_i|^2/q_i - |sum over T of C_i|^2)/m.
// WTACRS_DESIGN_WTA_STRATIFIED: its sum over strata of that.
// WTACRS_DESIGN_WTA_PIVOTAL: no closed form; WTACRS_DESIGN_WTA_IID's is an upper bound.
//
// Pairs of weight zero, which every design but WTACRS_DESIGN_UNIFORM leaves out, add their |sum of C_i|^2.
//
// Packed rows add the sum of v_i |dZ_i|^2 s_i, with v_i the variance of row i as it is read back and s_i the mean square of
// its scale: 1/pi_i of a row that is kept once, and at most 1 more of one that is drawn with replacement. v_i counts the
// zeros that fill a row's last group, and is that of one pass's random signs, which other passes' are near. If all rows are
// packed, that is the whole error, and weights have no part in it.
//
// h, dz     [in] as in wtacrs_plan_forward and wtacrs_plan_backward
// weights   [in, optional] one number for each token, as from wtacrs_plan_weights; without them the exact ones, norms of H
//           times norms of dZ
// squared_error  [out, optional] the mean, or an upper bound
// exact     [out, optional] 1 for the mean, 0 for an upper bound or where rows are packed
// squared_norm  [out, optional] |dW|^2, so that sqrt(*squared_error / *squared_norm) is the relative error
//
// All in doubles, without the rounding of dW's dtype. For inspection, not for every step, and for plans of the CPU: the
// call takes copies of H and dZ in doubles from its own heap, and the time of some exact products.
//
// Errors: WTACRS_STATUS_INVALID_WEIGHTS for a weight, or a row of H or dZ, that is negative or not finite;
// _DEVICE_MISMATCH for a plan of a GPU; _INVALID_ARGUMENT, _SIZE_OVERFLOW, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE,
// _MISALIGNED.
wtacrs_status wtacrs_plan_expected_error(const struct wtacrs_plan *plan,
                                         const void *h,
                                         size_t h_leading,
                                         const void *dz,
                                         size_t dz_leading,
                                         const double *weights,
                                         double *squared_error,
                                         int32_t *exact,
                                         double *squared_norm);

// wtacrs_plan_expected_error with DLPack tensors of two axes.
//
// Errors: as for wtacrs_plan_expected_error; also WTACRS_STATUS_SHAPE_MISMATCH, _UNSUPPORTED.
wtacrs_status wtacrs_plan_expected_error_dl(const struct wtacrs_plan *plan,
                                            const wtacrs_dltensor *h,
                                            const wtacrs_dltensor *dz,
                                            const double *weights,
                                            double *squared_error,
                                            int32_t *exact,
                                            double *squared_norm);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WTACRS_H */
