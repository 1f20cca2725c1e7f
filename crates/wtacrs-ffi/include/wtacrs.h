/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libwtacrs: estimates of matrix products, above all of a linear layer's weight gradient dW = H^T dZ, from a few
 * column-row pairs, without bias and with little variance. Made by cbindgen from crates/wtacrs-ffi; do not edit.
 *
 * What holds for every function:
 *
 * - Handles are opaque. Each wtacrs_X_create is matched by a wtacrs_X_destroy; destroying NULL does nothing. A handle
 *   that was destroyed or is of another kind is answered with WTACRS_INVALID_HANDLE, never followed.
 * - Memory is the caller's and is only borrowed until a call returns (on CUDA, until its work is done). Matrices are
 *   aligned to their element, saved and scratch memory to 64 bytes (on CUDA 256; larger than asked for is allowed).
 *   Outputs need no initial values.
 * - Outputs are written only if the call returns WTACRS_OK, except where a comment says so of a size. No output may
 *   share memory with another argument of the call; the bytes from the first to the last element count.
 * - A number of 0 rows, tokens or features is allowed, and its pointer may then be NULL; on CUDA, batched products want
 *   every size to be at least 1.
 * - A plan is for one shape: another number of tokens is another plan. Plans are small and quickly made.
 * - Any thread may call any function at any time. A plan is shared freely; saved and scratch memory is for one call at
 *   a time. wtacrs_last_error is the calling thread's own.
 * - Randomness is a function of (seed, offset); there is no generator with a state. A pass advances the offset by what
 *   the plan's draws function tells.
 * - `stream` is a CUDA stream, borrowed and never synchronised; on the CPU it is ignored, and calls are synchronous.
 * - On CUDA, calls with a stream take memory of the plan's GPU, launch kernels and do nothing else, so that all of them
 *   can be captured in a CUDA graph. The context's CUDA context must be the calling thread's current one; otherwise,
 *   WTACRS_DEVICE_MISMATCH. What no kernel does is WTACRS_UNSUPPORTED, with words. WTACRS_CUDA_ERROR comes of any such
 *   call if the driver refuses; kernels before the one refused may then have written outputs.
 * - The CPU path works in one rayon pool of the process, with as many threads as RAYON_NUM_THREADS says, or as there are
 *   cores.
 * - Any call may return WTACRS_OUT_OF_MEMORY if its arguments ask for memory of the heap that the process cannot have;
 *   memory of a GPU that cannot be had is WTACRS_CUDA_ERROR.
 * - Any call may also return WTACRS_PANIC: a defect of the library, contained; it is told on stderr as well.
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
                            WTACRS_DEVICE_MISMATCH: pass them as what they are used as */
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

/*
 The host's cores and memory.
 */
#define WTACRS_CPU 0

/*
 An NVIDIA GPU of compute capability 8.0 or later, by the CUDA driver, which is loaded when it is first asked for.
 */
#define WTACRS_CUDA 1

/*
 IEEE 754 binary32.
 */
#define WTACRS_F32 0

/*
 IEEE 754 binary16.
 */
#define WTACRS_F16 1

/*
 The upper half of a binary32.
 */
#define WTACRS_BF16 2

/*
 IEEE 754 binary64, for references.
 */
#define WTACRS_F64 3

/*
 Equal probabilities, whatever the weights.
 */
#define WTACRS_UNIFORM 0

/*
 Column-row sampling: independent draws in proportion to the weights.
 */
#define WTACRS_CRS 1

/*
 The heaviest pairs and nothing else: biased.
 */
#define WTACRS_TOP_K 2

/*
 Winners, and independent draws from the tail.
 */
#define WTACRS_WTA_IID 3

/*
 Winners, and one draw from each stratum of the tail.
 */
#define WTACRS_WTA_STRATIFIED 4

/*
 Winners, and distinct pairs of the tail by a tree of duels. The default.
 */
#define WTACRS_WTA_PIVOTAL 5

/*
 Weights are the norms of the rows of H alone.
 */
#define WTACRS_SOURCE_INPUT 0

/*
 Weights are norms of H times norms of dZ that the caller gives, taken as they are.
 */
#define WTACRS_SOURCE_NORMS 1

/*
 Weights from norms of an earlier step, mixed with the input's; a negative norm is an unknown one.
 */
#define WTACRS_SOURCE_CACHED 2

/*
 Weights from what a norm predictor makes of H. The default.
 */
#define WTACRS_SOURCE_PREDICTED 3

/*
 Products of f32 in f32 throughout. The default.
 */
#define WTACRS_PRECISION_F32 0

/*
 Products of f32 may round both factors to tf32, 10 bits behind the point, with sums in f32.
 */
#define WTACRS_PRECISION_TF32 1

/*
 The gradient of A, dA = G B^T, which sums over the columns of B.
 */
#define WTACRS_LEFT 0

/*
 The gradient of B, dB = A^T G, which sums over the rows of A.
 */
#define WTACRS_RIGHT 1

/*
 Major version of the binary interface: the number in the shared library's SONAME. It changes when a program that was
 linked against an earlier library could go wrong with this one.
 */
#define WTACRS_ABI_VERSION 0

/*
 A device. Any number of threads may use one at the same time.
 */
typedef struct wtacrs_context wtacrs_context;

/*
 What a linear layer is like and how its weight gradient dW = H^T dZ is to be estimated. A description is guarded by
 a lock, so threads may share it, but one thread at a time is what makes sense.
 */
typedef struct wtacrs_layer wtacrs_layer;

/*
 Norms of dZ by training sample, from each sample's last visit. A lock inside lets any number of threads use one;
 calls that change it wait for one another. (One on a GPU has none: its calls belong on one stream.)
 */
typedef struct wtacrs_norm_cache wtacrs_norm_cache;

/*
 An online guess of the norms of dZ for one layer, or for layers that share H. A lock inside lets any number of
 threads use one; forward passes read it, and calls that change it wait for them and for one another.
 */
typedef struct wtacrs_norm_predictor wtacrs_norm_predictor;

/*
 A layer's settled plan. It never changes: any number of threads may use one at the same time, each with saved and
 scratch memory of its own.
 */
typedef struct wtacrs_plan wtacrs_plan;

/*
 What a batched product C = A B is like, and how both gradients are to be estimated. A description is guarded by a
 lock, so threads may share it, but one thread at a time is what makes sense.
 */
typedef struct wtacrs_tensor_mul wtacrs_tensor_mul;

/*
 A batched product's settled plan. It never changes: any number of threads may use one at the same time, each with
 saved and scratch memory of its own.
 */
typedef struct wtacrs_tensor_mul_plan wtacrs_tensor_mul_plan;

/*
 What a call comes back with; `WTACRS_OK` is zero. A number once given keeps its meaning.
 */
typedef int32_t wtacrs_status;

/*
 Done.
 */
#define WTACRS_OK 0

/*
 A pointer that must not be NULL is NULL.
 */
#define WTACRS_NULL_POINTER 1

/*
 A handle that was never given, was destroyed, or is of another kind.
 */
#define WTACRS_INVALID_HANDLE 2

/*
 A number that is none of the enumeration's.
 */
#define WTACRS_INVALID_ENUM 3

/*
 An argument out of its range, or one that contradicts another.
 */
#define WTACRS_INVALID_ARGUMENT 4

/*
 Shapes, lengths or dtypes that do not fit one another.
 */
#define WTACRS_SHAPE_MISMATCH 5

/*
 Sizes whose product is beyond what can be addressed.
 */
#define WTACRS_SIZE_OVERFLOW 6

/*
 Memory smaller than asked for.
 */
#define WTACRS_BUFFER_TOO_SMALL 7

/*
 A pointer that is not aligned as its type or its function needs.
 */
#define WTACRS_MISALIGNED 8

/*
 An output that shares memory with another argument, or with itself.
 */
#define WTACRS_OVERLAP 9

/*
 A norm or weight that is negative, infinite or not a number; the last error names it.
 */
#define WTACRS_INVALID_WEIGHTS 10

/*
 A budget of nothing, of more than all, or a share outside (0, 1].
 */
#define WTACRS_INVALID_BUDGET 11

/*
 A combination that this version does not serve.
 */
#define WTACRS_UNSUPPORTED 12

/*
 Memory of another device than the plan's.
 */
#define WTACRS_DEVICE_MISMATCH 13

/*
 The device, or its driver, is not there.
 */
#define WTACRS_NO_DEVICE 14

/*
 The CUDA driver refused; the last error has its words.
 */
#define WTACRS_CUDA_ERROR 15

/*
 Saved bytes that are not what was saved.
 */
#define WTACRS_CORRUPTED 16

/*
 Bytes saved by another version of their format.
 */
#define WTACRS_VERSION_MISMATCH 17

/*
 A defect of this library, contained. Outputs of the call may be partly written; the object that it changed, if
 any, must be destroyed. The place of the defect is printed on stderr.
 */
#define WTACRS_PANIC 18

/*
 The process cannot have the memory that the call would take from its heap. Nothing was changed.
 */
#define WTACRS_OUT_OF_MEMORY 19

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 An empty cache.

 Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_norm_cache_create(struct wtacrs_norm_cache **cache);

/*
 Destroys a cache; NULL is allowed.

 Errors: WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_norm_cache_destroy(struct wtacrs_norm_cache *cache);

/*
 The norms of a batch's tokens, sample after sample, as WTACRS_SOURCE_CACHED takes them: -1 for every token of a sample
 that is not known. `samples` and `lengths` hold `count` ids and numbers of tokens, and `norms` has room for `capacity`
 floats, at least one for each token.

 Errors: WTACRS_SHAPE_MISMATCH if a sample is known with another length, or is longer than a cache of
 wtacrs_norm_cache_create_on takes, and WTACRS_INVALID_ARGUMENT for an id beyond its samples; WTACRS_DEVICE_MISMATCH for
 a cache on a GPU; WTACRS_BUFFER_TOO_SMALL, WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
 WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_norm_cache_fetch(const struct wtacrs_norm_cache *cache,
                                      const uint64_t *samples,
                                      const uint64_t *lengths,
                                      size_t count,
                                      float *norms,
                                      size_t capacity);

/*
 Remembers the norms of a batch's tokens, sample after sample (from wtacrs_backward), in place of what was known of
 these samples; of a sample that is twice in the batch, the last. `total` floats, which must be one for each token.

 Errors: WTACRS_INVALID_WEIGHTS names a norm that is negative or not finite; WTACRS_SHAPE_MISMATCH also for another
 `total`; otherwise as for wtacrs_norm_cache_fetch. The cache is then as it was.
 */
wtacrs_status wtacrs_norm_cache_store(struct wtacrs_norm_cache *cache,
                                      const uint64_t *samples,
                                      const uint64_t *lengths,
                                      size_t count,
                                      const float *norms,
                                      size_t total);

/*
 Forgets a sample, such as one whose text has changed; one that is not known is no error.

 Errors: WTACRS_DEVICE_MISMATCH for a cache on a GPU; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_norm_cache_forget(struct wtacrs_norm_cache *cache, uint64_t sample);

/*
 The whole cache as bytes, for a checkpoint; wtacrs_norm_cache_load reads them on any machine, and
 wtacrs_norm_cache_load_on for any device. For a cache on a GPU this call waits for all that was launched in its CUDA
 context, so it must not be made while a stream is captured. `*needed` becomes their number, also with
 WTACRS_BUFFER_TOO_SMALL. With `buffer` NULL and `capacity` 0 it is only asked for.

 Errors: WTACRS_BUFFER_TOO_SMALL, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
 WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_cache_save(const struct wtacrs_norm_cache *cache,
                                     void *buffer,
                                     size_t capacity,
                                     size_t *needed);

/*
 A cache from the `length` bytes that wtacrs_norm_cache_save wrote.

 Errors: WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH, WTACRS_NULL_POINTER, WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_norm_cache_load(const void *bytes, size_t length, struct wtacrs_norm_cache **cache);

/*
 An empty cache for a context's device, of samples with the ids 0 to `samples` - 1 and at most `tokens_per_sample` tokens
 each. On CUDA its norms lie in the GPU's memory, samples * (tokens_per_sample + 1) * 4 bytes, which is allocated by this
 call and freed by wtacrs_norm_cache_destroy, which waits for all that was launched: neither may be called while a stream
 is captured, and the CUDA context must still live when the cache is destroyed. Calls on one cache belong on one stream,
 or on streams that wait for one another. On the CPU it is a cache as of wtacrs_norm_cache_create that refuses other samples.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_SIZE_OVERFLOW, WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_cache_create_on(const struct wtacrs_context *context,
                                          size_t samples,
                                          size_t tokens_per_sample,
                                          struct wtacrs_norm_cache **cache);

/*
 A cache for a context's device, as of wtacrs_norm_cache_create_on, from the `length` bytes that wtacrs_norm_cache_save
 wrote, on whatever device.

 Errors: WTACRS_SHAPE_MISMATCH names a sample that this cache has no room for; as for wtacrs_norm_cache_load and
 wtacrs_norm_cache_create_on.
 */
wtacrs_status wtacrs_norm_cache_load_on(const struct wtacrs_context *context,
                                        size_t samples,
                                        size_t tokens_per_sample,
                                        const void *bytes,
                                        size_t length,
                                        struct wtacrs_norm_cache **cache);

/*
 wtacrs_norm_cache_fetch for any device: the norms of a batch's tokens, as WTACRS_SOURCE_CACHED takes them, -1 for every
 one that is not known. `samples`, `lengths` and `norms` are in the memory of the cache's device: on CUDA ids and lengths
 lie on the GPU, where a data loader puts them with the batch. (Ids of int64_t will do: negative ones are out of range.)

 `samples` holds `count` ids, `lengths` as many numbers of tokens. Sample i's norms begin at `norms` + i * `row_tokens`,
 as in a batch that is padded to rows of `row_tokens` tokens; `lengths` may then be NULL, if all rows are full. With
 `row_tokens` 0 they lie sample after sample without gaps. `norms` has `tokens` floats (the plan's `tokens`), and all of
 them are written: what is no sample's token is -1 as well.

 `stream` as in wtacrs_forward. On CUDA one kernel is launched, nothing is allocated, and the call can be captured. It
 cannot know the ids: a sample that is out of range, too long for the cache, its row or `norms`, or known with another
 length is then not known, and wtacrs_norm_cache_outcome tells.

 Errors: WTACRS_BUFFER_TOO_SMALL if `tokens` is less than count * row_tokens; on the CPU also for samples that have more
 tokens, WTACRS_INVALID_ARGUMENT for an id out of range, and WTACRS_SHAPE_MISMATCH for a sample that is too long or known
 with another length. WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED,
 WTACRS_OVERLAP, WTACRS_DEVICE_MISMATCH, WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_cache_fetch_on(const struct wtacrs_norm_cache *cache,
                                         const uint64_t *samples,
                                         const uint64_t *lengths,
                                         size_t count,
                                         size_t row_tokens,
                                         float *norms,
                                         size_t tokens,
                                         void *stream);

/*
 wtacrs_norm_cache_store for any device: remembers the norms of a batch's tokens in place of what was known of its samples;
 of a sample that is twice in the batch, the last. All arguments are as for wtacrs_norm_cache_fetch_on, and `norms` is
 what wtacrs_backward gives.

 On CUDA one kernel is launched, nothing is allocated, and the call can be captured. It cannot know ids and norms: a
 sample that is out of range or too long, or has a norm that is negative or not finite, is left out, as if the batch did
 not store it (an earlier one of the same id is not stored in its place), and wtacrs_norm_cache_outcome tells.

 Errors: on the CPU WTACRS_INVALID_WEIGHTS names a norm that is negative or not finite; otherwise as for
 wtacrs_norm_cache_fetch_on. The cache is then as it was.
 */
wtacrs_status wtacrs_norm_cache_store_on(struct wtacrs_norm_cache *cache,
                                         const uint64_t *samples,
                                         const uint64_t *lengths,
                                         size_t count,
                                         size_t row_tokens,
                                         const float *norms,
                                         size_t tokens,
                                         void *stream);

/*
 wtacrs_norm_cache_forget for any device: forgets `count` samples, whose ids are in the memory of the cache's device.
 `stream` as in wtacrs_forward; on CUDA one kernel is launched. One that is not known, or out of range, is no error.

 Errors: WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_DEVICE_MISMATCH,
 WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_cache_forget_on(struct wtacrs_norm_cache *cache,
                                          const uint64_t *samples,
                                          size_t count,
                                          void *stream);

/*
 What fetches and stores on a GPU have left out, for looking at: waits for all that was launched in the cache's CUDA
 context, and must not be called while a stream is captured. `*fault` is 0 if all went well, and otherwise tells of the
 first sample that was left out since the last call of this function (of a batch, the first in its order): 1 if its id
 is out of range, 2 if it has more tokens than the cache, its row or the rest of `norms` has room for, 3 if it is known with
 another length, 4 if it has a norm that is negative or not finite. `*sample` is its id, or 0. Either may be NULL. On the
 CPU it is WTACRS_UNSUPPORTED, as calls tell at once.

 Errors: WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
 WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_cache_outcome(struct wtacrs_norm_cache *cache,
                                        uint32_t *fault,
                                        uint64_t *sample);

/*
 A context for `device`, WTACRS_CPU or WTACRS_CUDA. `ordinal` is 0 for the CPU; for CUDA it is the GPU's number, whose
 primary context is then used (the one of the CUDA runtime and of frameworks), or -1 for the calling thread's current
 CUDA context.

 The CPU path runs on the process's rayon pool (as many threads as cores, or as RAYON_NUM_THREADS says), which is
 started by the first call that computes and does not survive a fork.

 On CUDA this call loads the kernels, once for each CUDA context: the driver compiles them for its GPU, which takes
 seconds the first time and is then cached on disk. The calling thread's current CUDA context stays current; if it
 has none, the GPU's primary context becomes current. Every later call that takes a stream must be made while the
 context's CUDA context is current, and is otherwise answered with WTACRS_DEVICE_MISMATCH. Not to be called while a
 stream is captured.

 Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_ARGUMENT for the ordinal, WTACRS_NULL_POINTER, WTACRS_MISALIGNED;
 WTACRS_NO_DEVICE if there is no CUDA driver, if it is too old, or if there is no such GPU, none of compute capability
 8.0 or later, or no current context; WTACRS_CUDA_ERROR. The last error has the details.
 */
wtacrs_status wtacrs_context_create(int32_t device,
                                    int32_t ordinal,
                                    struct wtacrs_context **context);

/*
 Destroys a context; NULL is allowed. Plans that were made with it stay valid. On CUDA the loaded kernels stay in the CUDA
 context until that ends, for its plans and for the next wtacrs_context of it, and so does a primary context.

 Errors: WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_context_destroy(struct wtacrs_context *context);

/*
 Estimates the product of X^T (in_features x tokens) and Y (tokens x out_features) in one call: `x` in the place of H
 and `y` in that of dZ, both whole, so that the weights are exact whatever the plan's source. `out` is in_features x
 out_features, of dW's dtype. Leading dimensions, seed and offset as in wtacrs_forward and wtacrs_backward; `scratch`
 is aligned to 64 (on CUDA 256), and wtacrs_plan_estimate_scratch_bytes tells its size. On CUDA a row that is not finite
 makes a product of zeros.

 Errors: WTACRS_INVALID_WEIGHTS for a row that is not finite; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
 WTACRS_INVALID_ARGUMENT, WTACRS_SIZE_OVERFLOW, WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_estimate(const struct wtacrs_plan *plan,
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

/*
 wtacrs_estimate with DLPack tensors of two axes.

 Errors: as for wtacrs_estimate; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
 */
wtacrs_status wtacrs_estimate_dl(const struct wtacrs_plan *plan,
                                 const wtacrs_dltensor *x,
                                 const wtacrs_dltensor *y,
                                 uint64_t seed,
                                 uint64_t offset,
                                 const wtacrs_dltensor *out,
                                 void *scratch,
                                 size_t scratch_bytes,
                                 void *stream);

/*
 What a plan's design makes of weights, without drawing: `weights` holds `tokens` doubles (wtacrs_weights), and
 `pair_norms`, which may be NULL, as many exact products |H_i| |dZ_i|. Outputs may be NULL where they are not wanted.

 `threshold`: pairs of at least this weight are winners, kept always; 0 if every pair of positive weight is.
 `winners`: how many those are, by weights, whatever the plan's design.
 `expected_rows`: how many distinct rows the plan's design keeps on average.
 `squared_error`: the sum over the tail of (1/p_i - 1) pair_norms_i^2, p_i the winner-take-all designs' probabilities
 of being kept: the expected squared Frobenius error if every pair of the tail were drawn on its own, the yardstick by
 which sources of weights are compared. Needs `pair_norms`.

 Errors: WTACRS_INVALID_WEIGHTS; WTACRS_NULL_POINTER (also for `squared_error` without `pair_norms`),
 WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_theory(const struct wtacrs_plan *plan,
                            const double *weights,
                            const double *pair_norms,
                            double *threshold,
                            uint64_t *winners,
                            double *expected_rows,
                            double *squared_error);

/*
 The mean of the squared Frobenius error |dW' - dW|^2 over estimates dW' that the plan's design and budget draw with
 `weights` (`tokens` doubles, as from wtacrs_weights; NULL: the exact ones, norms of H times norms of dZ), for these H and
 dZ. Dtypes and leading dimensions as in wtacrs_forward and wtacrs_backward. With C_i = H_i^T dZ_i, p_i the weights'
 shares of their sum, C the winners, T the tail, m the places left to it and q_i the weights' shares of the tail's sum:

 WTACRS_UNIFORM: n^2/k (1 - k/n) (sum |C_i|^2 - |dW|^2/n)/(n - 1).
 WTACRS_CRS: (sum |C_i|^2/p_i - |sum C_i|^2)/k.
 WTACRS_TOP_K: |sum of the C_i that are dropped|^2, which is the same in every draw.
 WTACRS_WTA_IID: (sum over T of |C_i|^2/q_i - |sum over T of C_i|^2)/m.
 WTACRS_WTA_STRATIFIED: its sum over strata of that.
 WTACRS_WTA_PIVOTAL: no closed form; WTACRS_WTA_IID's is an upper bound.

 Pairs of weight zero, which every design but WTACRS_UNIFORM leaves out, add their |sum of C_i|^2.

 `*squared_error` is the mean, or the bound; `*exact` is 1 for the mean and 0 for an upper bound; `*squared_norm` is
 |dW|^2, so that sqrt(*squared_error / *squared_norm) is the relative error. Each may be NULL where it is not wanted. All
 in doubles, without the rounding of dW's dtype.

 For looking at, not for every step, and for plans of the CPU: it takes copies of H and dZ in doubles from its own heap,
 and the time of some exact products.

 Errors: WTACRS_INVALID_WEIGHTS for a weight, or a row of H or dZ, that is negative or not finite; WTACRS_NULL_POINTER,
 WTACRS_INVALID_HANDLE, WTACRS_INVALID_ARGUMENT, WTACRS_SIZE_OVERFLOW, WTACRS_MISALIGNED, WTACRS_OVERLAP,
 WTACRS_DEVICE_MISMATCH for a plan of a GPU.
 */
wtacrs_status wtacrs_expected_error(const struct wtacrs_plan *plan,
                                    const void *h,
                                    size_t h_leading,
                                    const void *dz,
                                    size_t dz_leading,
                                    const double *weights,
                                    double *squared_error,
                                    int32_t *exact,
                                    double *squared_norm);

/*
 wtacrs_expected_error with DLPack tensors of two axes.

 Errors: as for wtacrs_expected_error; also WTACRS_SHAPE_MISMATCH, WTACRS_UNSUPPORTED.
 */
wtacrs_status wtacrs_expected_error_dl(const struct wtacrs_plan *plan,
                                       const wtacrs_dltensor *h,
                                       const wtacrs_dltensor *dz,
                                       const double *weights,
                                       double *squared_error,
                                       int32_t *exact,
                                       double *squared_norm);

/*
 A description of a layer. Shape and budget must be set; the other defaults are f32 matrices, WTACRS_WTA_PIVOTAL,
 WTACRS_SOURCE_PREDICTED, a mix of 0.01 and WTACRS_PRECISION_F32.

 Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_layer_create(struct wtacrs_layer **layer);

/*
 Destroys a description; NULL is allowed. Plans that were made of it stay valid.

 Errors: WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_destroy(struct wtacrs_layer *layer);

/*
 H is tokens x in_features, dZ tokens x out_features, dW in_features x out_features. Zeros are allowed.

 Errors: WTACRS_SIZE_OVERFLOW for 2^32 tokens or more, or for a matrix beyond the address space;
 WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_shape(struct wtacrs_layer *layer,
                                     size_t tokens,
                                     size_t in_features,
                                     size_t out_features);

/*
 The dtypes of H and dZ (WTACRS_F32, WTACRS_F16, WTACRS_BF16, in any mixture) and of dW (then WTACRS_F32); or
 WTACRS_F64 for all three.

 Errors: WTACRS_INVALID_ENUM, WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_dtypes(struct wtacrs_layer *layer, int32_t h, int32_t dz, int32_t dw);

/*
 How many rows of H to keep, at least one; more than there are tokens is refused when the plan is made.

 Errors: WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_budget_rows(struct wtacrs_layer *layer, size_t rows);

/*
 What share of the rows of H to keep, in (0, 1]: the nearest number of rows, at least one if there are any.

 Errors: WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_budget_fraction(struct wtacrs_layer *layer, double fraction);

/*
 The sampling design: WTACRS_UNIFORM, WTACRS_CRS, WTACRS_TOP_K, WTACRS_WTA_IID, WTACRS_WTA_STRATIFIED or
 WTACRS_WTA_PIVOTAL. All but WTACRS_TOP_K are unbiased.

 Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_design(struct wtacrs_layer *layer, int32_t design);

/*
 What the forward pass knows of the norms of dZ: WTACRS_SOURCE_INPUT (nothing), WTACRS_SOURCE_NORMS,
 WTACRS_SOURCE_CACHED or WTACRS_SOURCE_PREDICTED.

 Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_source(struct wtacrs_layer *layer, int32_t source);

/*
 The share, in [0, 1], of the input's own norms in weights from cached norms, so that a token whose norm was zero can
 still be drawn.

 Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_mix(struct wtacrs_layer *layer,
                                   double mix);

/*
 How precisely f32 matrices are multiplied: WTACRS_PRECISION_F32, or WTACRS_PRECISION_TF32 as frameworks allow it, with a
 relative error of about 2^-11 in each factor. A GPU's tensor cores then multiply several times faster; the CPU, and
 matrices of other dtypes, know no difference. What is selected, and with which probability, stays the same.

 Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_precision(struct wtacrs_layer *layer,
                                         int32_t precision);

/*
 A number in the memory of the plan's device, aligned to 8, that passes which draw add to their offset when they run:
 so that a captured CUDA graph, in which seed and offset are fixed, draws anew at each replay. NULL: none. It must live
 as long as plans that are made of the description.

 Errors: WTACRS_MISALIGNED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_layer_set_further_offset(struct wtacrs_layer *layer,
                                              const uint64_t *further_offset);

/*
 The forward pass: chooses rows of H (tokens x in_features, of the plan's dtype, `h_leading` >= in_features elements
 from row to row), and writes them to `saved` with their indices and scales. For layers that read the same H (Q, K
 and V) one pass is enough: plans of equal tokens, in_features, dtype of H and budget read each other's saved memory.

 `guess` holds `tokens` floats for WTACRS_SOURCE_NORMS and WTACRS_SOURCE_CACHED (negative: not known). For
 WTACRS_SOURCE_PREDICTED it may be NULL; cached norms given there (negative: not known) move the predictor's guesses as
 far as it has learnt to trust them (wtacrs_norm_predictor_update_cached, and _update_cached_on for any device). For
 WTACRS_SOURCE_INPUT it must be NULL. `predictor` is for WTACRS_SOURCE_PREDICTED, and must be NULL otherwise; this call
 only reads it.
 Randomness is a function of `seed` and `offset` alone; see wtacrs_plan_draws.

 `saved` and `scratch` are aligned to 64 (on CUDA 256) and of the sizes that the plan tells; larger ones are allowed.
 `stream` is the CUDA stream to work on (a CUstream or cudaStream_t of the context's CUDA context, or NULL for its
 default stream), borrowed; the CPU ignores it and is done when the call returns.

 The same weights, budget, design, seed and offset give the same rows and scales on every machine and for every
 number of threads.

 On CUDA all memory is the GPU's and must live until the work is done. Three kernels are launched; nothing is
 allocated, copied or waited for, and the call can be captured in a CUDA graph (in which seed and offset are fixed: see
 wtacrs_layer_set_further_offset). A row that is not finite shows in the saved status, not here: see
 wtacrs_plan_saved_status_offset. Rows are saved times their scales, rounded once more (the CPU saves them as they
 are); the backward pass of either device knows its own. The elements of a row of H must lie side by side.

 Errors: WTACRS_INVALID_WEIGHTS names the first row of H or guess that is negative or not finite;
 WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_INVALID_ARGUMENT, WTACRS_SHAPE_MISMATCH (another layer's predictor),
 WTACRS_SIZE_OVERFLOW, WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP. `saved` is then as it was.
 */
wtacrs_status wtacrs_forward(const struct wtacrs_plan *plan,
                             const void *h,
                             size_t h_leading,
                             const float *guess,
                             const struct wtacrs_norm_predictor *predictor,
                             uint64_t seed,
                             uint64_t offset,
                             void *saved,
                             size_t saved_bytes,
                             void *scratch,
                             size_t scratch_bytes,
                             void *stream);

/*
 wtacrs_forward with H as a DLPack tensor of two axes: any strides, byte_offset, sizes of zero. On CUDA the tensor is
 one of the plan's GPU (device type 2), whose rows' elements lie side by side: WTACRS_UNSUPPORTED otherwise.

 Errors: as for wtacrs_forward; also WTACRS_DEVICE_MISMATCH, and WTACRS_UNSUPPORTED for a dtype that no plan has.
 */
wtacrs_status wtacrs_forward_dl(const struct wtacrs_plan *plan,
                                const wtacrs_dltensor *h,
                                const float *guess,
                                const struct wtacrs_norm_predictor *predictor,
                                uint64_t seed,
                                uint64_t offset,
                                void *saved,
                                size_t saved_bytes,
                                void *scratch,
                                size_t scratch_bytes,
                                void *stream);

/*
 The backward pass: dW (in_features x out_features, `dw_leading` >= out_features elements from row to row) from the
 saved rows and dZ (tokens x out_features, `dz_leading` >= out_features), of which only the kept tokens' rows count.
 `accumulate` is 0 to write dW (its old values are never read) or 1 to add to it; so for `bias_gradient`.

 `dz_norms`, if not NULL, becomes the `tokens` norms of the rows of dZ, for a norm cache or predictor.
 `bias_gradient`, if not NULL, becomes the exact sum of the rows of dZ: `out_features` numbers of dW's dtype.
 `scratch` is aligned to 64 (on CUDA 256); wtacrs_plan_backward_scratch_bytes tells its size. `stream` as in
 wtacrs_forward.

 On CUDA at most three kernels are launched, of which one reads dZ once for its norms and `bias_gradient` together, and
 the call can be captured. `saved` is not checked there: it must be what a forward pass of such a plan wrote, earlier on
 this stream or on one that it waits for. Norms may round otherwise if `bias_gradient` is asked for as well.

 The same bits for every number of threads on one machine; other machines may round otherwise.

 Errors: WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH or WTACRS_SHAPE_MISMATCH if no forward pass of such a plan wrote
 `saved`; WTACRS_INVALID_ENUM for `accumulate`; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_INVALID_ARGUMENT,
 WTACRS_SIZE_OVERFLOW, WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP. Outputs are then as they were.
 */
wtacrs_status wtacrs_backward(const struct wtacrs_plan *plan,
                              const void *saved,
                              size_t saved_bytes,
                              const void *dz,
                              size_t dz_leading,
                              void *dw,
                              size_t dw_leading,
                              int32_t accumulate,
                              float *dz_norms,
                              void *bias_gradient,
                              void *scratch,
                              size_t scratch_bytes,
                              void *stream);

/*
 wtacrs_backward with dZ and dW as DLPack tensors of two axes: any strides, byte_offset, sizes of zero. For a weight
 that is stored as out_features x in_features, pass dW with its strides exchanged. On CUDA the elements of a row of
 dZ and of dW must lie side by side, so that dW cannot be such a transpose: WTACRS_UNSUPPORTED.

 Errors: as for wtacrs_backward; also WTACRS_DEVICE_MISMATCH, and WTACRS_UNSUPPORTED for a dtype that no plan has.
 */
wtacrs_status wtacrs_backward_dl(const struct wtacrs_plan *plan,
                                 const void *saved,
                                 size_t saved_bytes,
                                 const wtacrs_dltensor *dz,
                                 const wtacrs_dltensor *dw,
                                 int32_t accumulate,
                                 float *dz_norms,
                                 void *bias_gradient,
                                 void *scratch,
                                 size_t scratch_bytes,
                                 void *stream);

/*
 The Euclidean norms of the rows of x (rows x columns of `dtype`, `x_leading` >= columns elements from row to row)
 into `norms`, `rows` floats. A row that is not finite has a norm that is not finite; that is no error here.

 The same bits for every number of threads, leading dimension and stride. `stream` as in wtacrs_forward. On CUDA the
 dtype is WTACRS_F32, WTACRS_F16 or WTACRS_BF16: WTACRS_UNSUPPORTED.

 Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
 WTACRS_SIZE_OVERFLOW, WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_row_norms(const struct wtacrs_context *context,
                               int32_t dtype,
                               size_t rows,
                               size_t columns,
                               const void *x,
                               size_t x_leading,
                               float *norms,
                               void *stream);

/*
 wtacrs_row_norms of a DLPack tensor of two axes; `norms` has room for `capacity` floats.

 Errors: as for wtacrs_row_norms; also WTACRS_BUFFER_TOO_SMALL, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED,
 WTACRS_SHAPE_MISMATCH.
 */
wtacrs_status wtacrs_row_norms_dl(const struct wtacrs_context *context,
                                  const wtacrs_dltensor *x,
                                  float *norms,
                                  size_t capacity,
                                  void *stream);

/*
 The Euclidean norms of the columns of x, into `columns` floats; otherwise as wtacrs_row_norms. Of a matrix with a row of
 `tokens` norms for each layer they are the joint norms of layers that share H, on any device: what
 wtacrs_joint_norms does for norms on the host.

 Errors: as for wtacrs_row_norms.
 */
wtacrs_status wtacrs_column_norms(const struct wtacrs_context *context,
                                  int32_t dtype,
                                  size_t rows,
                                  size_t columns,
                                  const void *x,
                                  size_t x_leading,
                                  float *norms,
                                  void *stream);

/*
 wtacrs_column_norms of a DLPack tensor of two axes; `norms` has room for `capacity` floats.

 Errors: as for wtacrs_row_norms_dl.
 */
wtacrs_status wtacrs_column_norms_dl(const struct wtacrs_context *context,
                                     const wtacrs_dltensor *x,
                                     float *norms,
                                     size_t capacity,
                                     void *stream);

/*
 One guess for layers that share H: `out[i]` = sqrt(sum over layers of layers[l][i]^2), for `count` layers of `tokens`
 norms each. Teach a shared predictor, or fill a shared cache, with these. For norms on the host; on a GPU
 wtacrs_column_norms makes them of one layers x tokens matrix.

 Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED, WTACRS_SIZE_OVERFLOW, WTACRS_OVERLAP (also of `out` with a layer).
 */
wtacrs_status wtacrs_joint_norms(const float *const *layers,
                                 size_t count,
                                 size_t tokens,
                                 float *out);

/*
 Freezes a description into a plan for a device. Later changes of the description do not touch it.

 On CUDA H and dZ must be of one dtype, WTACRS_F32, WTACRS_F16 or WTACRS_BF16: WTACRS_UNSUPPORTED.

 Errors: WTACRS_INVALID_ARGUMENT if shape or budget was not set, WTACRS_INVALID_BUDGET if the budget does not fit,
 WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_create(const struct wtacrs_context *context,
                                 const struct wtacrs_layer *layer,
                                 struct wtacrs_plan **plan);

/*
 Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.

 Errors: WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_plan_destroy(struct wtacrs_plan *plan);

/*
 The most rows that a forward pass keeps.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_budget(const struct wtacrs_plan *plan, size_t *rows);

/*
 Bytes of the saved memory that a forward pass writes and its backward pass reads: the caller's, aligned to 64 (on CUDA
 256).

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_saved_bytes(const struct wtacrs_plan *plan,
                                      size_t *bytes);

/*
 Bytes of scratch memory for wtacrs_forward and wtacrs_select: the caller's, aligned to 64 (on CUDA 256), dead when the
 call returns (on CUDA, when its work is done). 0 on the CPU, which takes a few words for each token from its own heap.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_forward_scratch_bytes(const struct wtacrs_plan *plan,
                                                size_t *bytes);

/*
 Bytes of scratch memory for wtacrs_backward: the caller's, aligned to 64 (on CUDA 256), dead when the call returns (on
 CUDA, when its work is done). On the CPU also for wtacrs_weight_gradient.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_backward_scratch_bytes(const struct wtacrs_plan *plan,
                                                 size_t *bytes);

/*
 Bytes of scratch memory for wtacrs_estimate: the caller's, aligned to 64 (on CUDA 256), dead when the call returns (on
 CUDA, when its work is done).

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_estimate_scratch_bytes(const struct wtacrs_plan *plan,
                                                 size_t *bytes);

/*
 Bytes of scratch memory for wtacrs_weight_gradient: the caller's, aligned to 64 (on CUDA 256), dead when the call
 returns. On the CPU it is wtacrs_plan_backward_scratch_bytes.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_weight_gradient_scratch_bytes(const struct wtacrs_plan *plan,
                                                        size_t *bytes);

/*
 Where in saved memory on CUDA a forward pass leaves its status, in bytes from the beginning: a 32-bit word that is 0,
 or 1 + the index of the first row of H whose norm or guess is negative or not finite. Nothing is kept then, and the
 backward pass makes a dW of zeros (or adds nothing). A training loop may look at it when it next waits for the GPU.

 Errors: WTACRS_UNSUPPORTED on the CPU, which tells such a row at once; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
 WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_saved_status_offset(const struct wtacrs_plan *plan,
                                              size_t *offset);

/*
 How far a forward pass advances the offset of its randomness: one that starts at (seed, offset) leaves
 (seed, offset + draws) to the next. There is no generator with a state of its own.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_plan_draws(const struct wtacrs_plan *plan, uint64_t *draws);

/*
 The memory of a step: bytes that live from the forward to the backward pass, the most scratch memory of either
 pass, and what the exact layer keeps, which is H. Outputs may be NULL where they are not wanted.

 Errors: WTACRS_MISALIGNED, WTACRS_OVERLAP, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_plan_memory(const struct wtacrs_plan *plan,
                                 size_t *saved_bytes,
                                 size_t *scratch_bytes,
                                 size_t *exact_bytes);

/*
 A predictor that knows nothing yet, with default settings (256 features, forgetting 0.97, ridge 0.1, clamp 6,
 192 rows a step, seed 0), for H of `in_features` columns.

 Errors: WTACRS_INVALID_ARGUMENT for no features or more than 2^24; WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_norm_predictor_create(size_t in_features, struct wtacrs_norm_predictor **predictor);

/*
 A predictor with settings of the caller's: random projections of H (1 to 2^14), what is left of a step's statistics
 after the next (above 0, at most 1), ridge (above 0), the most that the logarithm of a guess may be from the mean (above
 0, at most 20), the most rows learned from in a step (at least 1), and the seed of the projections' signs.

 Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_norm_predictor_create_with(size_t in_features,
                                                size_t features,
                                                double forgetting,
                                                double ridge,
                                                double clamp,
                                                size_t rows_per_update,
                                                uint64_t seed,
                                                struct wtacrs_norm_predictor **predictor);

/*
 Destroys a predictor; NULL is allowed.

 Errors: WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_norm_predictor_destroy(struct wtacrs_norm_predictor *predictor);

/*
 Learns from the rows that a forward pass of `plan` has saved, and from `tokens` norms of dZ, which wtacrs_backward
 gives (wtacrs_joint_norms for layers that share H).

 Errors: WTACRS_INVALID_WEIGHTS for a norm that is negative or not finite; WTACRS_SHAPE_MISMATCH for another number of
 in_features; WTACRS_DEVICE_MISMATCH for a predictor or plan on a GPU; as for wtacrs_backward about `saved`;
 WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED. The predictor is then as it was.
 */
wtacrs_status wtacrs_norm_predictor_update(struct wtacrs_norm_predictor *predictor,
                                           const struct wtacrs_plan *plan,
                                           const void *saved,
                                           size_t saved_bytes,
                                           const float *dz_norms);

/*
 wtacrs_norm_predictor_update that also learns how far to trust cached norms: `cached_norms` are the `tokens` floats that
 the forward pass of this step was given as its guess (negative: not known).

 Errors: as for wtacrs_norm_predictor_update; WTACRS_INVALID_WEIGHTS also for a cached norm of a kept row that is not
 finite.
 */
wtacrs_status wtacrs_norm_predictor_update_cached(struct wtacrs_norm_predictor *predictor,
                                                  const struct wtacrs_plan *plan,
                                                  const void *saved,
                                                  size_t saved_bytes,
                                                  const float *dz_norms,
                                                  const float *cached_norms);

/*
 How many numbers a step's statistics are.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_norm_predictor_statistics_count(const struct wtacrs_norm_predictor *predictor,
                                                     size_t *count);

/*
 What one rank's rows bring to a step: plain sums in `sums`, with room for `capacity` of them. Add them over the ranks,
 and give the same total to every rank's wtacrs_norm_predictor_apply: then equal predictors stay equal. Otherwise as
 wtacrs_norm_predictor_update, but the predictor does not change.

 Errors: WTACRS_BUFFER_TOO_SMALL; as for wtacrs_norm_predictor_update; WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_norm_predictor_statistics(const struct wtacrs_norm_predictor *predictor,
                                               const struct wtacrs_plan *plan,
                                               const void *saved,
                                               size_t saved_bytes,
                                               const float *dz_norms,
                                               double *sums,
                                               size_t capacity);

/*
 wtacrs_norm_predictor_statistics of a step whose forward pass was given cached norms: to
 wtacrs_norm_predictor_update_cached what that is to wtacrs_norm_predictor_update. Statistics of both kinds may be added.

 Errors: as for wtacrs_norm_predictor_statistics and wtacrs_norm_predictor_update_cached.
 */
wtacrs_status wtacrs_norm_predictor_statistics_cached(const struct wtacrs_norm_predictor *predictor,
                                                      const struct wtacrs_plan *plan,
                                                      const void *saved,
                                                      size_t saved_bytes,
                                                      const float *dz_norms,
                                                      const float *cached_norms,
                                                      double *sums,
                                                      size_t capacity);

/*
 Learns from a step's statistics, `count` sums over all ranks.

 Errors: WTACRS_SHAPE_MISMATCH for another count; WTACRS_INVALID_ARGUMENT for sums that no rows can have;
 WTACRS_DEVICE_MISMATCH for a predictor on a GPU; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED. The
 predictor is then as it was.
 */
wtacrs_status wtacrs_norm_predictor_apply(struct wtacrs_norm_predictor *predictor,
                                          const double *sums,
                                          size_t count);

/*
 The whole predictor as bytes, for a checkpoint; wtacrs_norm_predictor_load reads them on any machine, and the loaded
 predictor continues to the same bits. For a predictor on a GPU this call waits for all that was launched in its CUDA
 context, so it must not be made while a stream is captured. `*needed` becomes their number, also with
 WTACRS_BUFFER_TOO_SMALL. With `buffer` NULL and `capacity` 0 it is only asked for.

 Errors: WTACRS_BUFFER_TOO_SMALL, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
 WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_save(const struct wtacrs_norm_predictor *predictor,
                                         void *buffer,
                                         size_t capacity,
                                         size_t *needed);

/*
 A predictor from the `length` bytes that wtacrs_norm_predictor_save wrote.

 Errors: WTACRS_CORRUPTED, WTACRS_VERSION_MISMATCH, WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_MISALIGNED,
 WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_norm_predictor_load(const void *bytes,
                                         size_t length,
                                         struct wtacrs_norm_predictor **predictor);

/*
 wtacrs_norm_predictor_create for a context's device. On CUDA its state lies in the GPU's memory, which is allocated by
 this call and freed by wtacrs_norm_predictor_destroy, which waits for all that was launched: neither may be called while
 a stream is captured, and the CUDA context must still live when the predictor is destroyed. Forward passes read the
 state and updates write it when they run, so calls on one predictor belong on one stream, or on streams that wait for
 one another. A plan on CUDA takes only predictors that were made with the handle of its own context; one of another
 handle, though it be of the same GPU, is WTACRS_DEVICE_MISMATCH.

 Errors: as for wtacrs_norm_predictor_create; also WTACRS_INVALID_HANDLE and WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_create_on(const struct wtacrs_context *context,
                                              size_t in_features,
                                              struct wtacrs_norm_predictor **predictor);

/*
 wtacrs_norm_predictor_create_with for a context's device, as wtacrs_norm_predictor_create_on. On CUDA at most 512
 features and 4096 rows a step are possible.

 Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_create_with_on(const struct wtacrs_context *context,
                                                   size_t in_features,
                                                   size_t features,
                                                   double forgetting,
                                                   double ridge,
                                                   double clamp,
                                                   size_t rows_per_update,
                                                   uint64_t seed,
                                                   struct wtacrs_norm_predictor **predictor);

/*
 A predictor for a context's device from the `length` bytes that wtacrs_norm_predictor_save wrote, on whatever device.

 Errors: as for wtacrs_norm_predictor_load and wtacrs_norm_predictor_create_with_on.
 */
wtacrs_status wtacrs_norm_predictor_load_on(const struct wtacrs_context *context,
                                            const void *bytes,
                                            size_t length,
                                            struct wtacrs_norm_predictor **predictor);

/*
 wtacrs_norm_predictor_update for any device: `saved` and `dz_norms` are in the memory of the plan's device, and
 `stream` is as in wtacrs_forward. On CUDA three kernels are launched, nothing is allocated, and the call can be captured.

 On CUDA a norm that is negative or not finite shows when the kernels run: the predictor then stays as it was, and
 wtacrs_norm_predictor_outcome tells.

 Errors: as for wtacrs_norm_predictor_update; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_update_on(struct wtacrs_norm_predictor *predictor,
                                              const struct wtacrs_plan *plan,
                                              const void *saved,
                                              size_t saved_bytes,
                                              const float *dz_norms,
                                              void *stream);

/*
 wtacrs_norm_predictor_update_cached for any device: `cached_norms` is in the memory of the plan's device too. Otherwise
 as wtacrs_norm_predictor_update_on; on CUDA a cached norm of a kept row that is not finite shows likewise.

 Errors: as for wtacrs_norm_predictor_update_cached; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_update_cached_on(struct wtacrs_norm_predictor *predictor,
                                                     const struct wtacrs_plan *plan,
                                                     const void *saved,
                                                     size_t saved_bytes,
                                                     const float *dz_norms,
                                                     const float *cached_norms,
                                                     void *stream);

/*
 wtacrs_norm_predictor_statistics for any device: `sums` is in the memory of the plan's device, on CUDA aligned to 256.
 `stream` as in wtacrs_forward; on CUDA two kernels are launched. Sums of a step with a norm that is no number are not
 finite on CUDA, and applying them changes nothing.

 Errors: as for wtacrs_norm_predictor_statistics; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_statistics_on(const struct wtacrs_norm_predictor *predictor,
                                                  const struct wtacrs_plan *plan,
                                                  const void *saved,
                                                  size_t saved_bytes,
                                                  const float *dz_norms,
                                                  double *sums,
                                                  size_t capacity,
                                                  void *stream);

/*
 wtacrs_norm_predictor_statistics_cached for any device: to wtacrs_norm_predictor_update_cached_on what
 wtacrs_norm_predictor_statistics_on is to wtacrs_norm_predictor_update_on. Statistics of both kinds, and of CPUs and
 GPUs, may be added.

 Errors: as for wtacrs_norm_predictor_statistics_cached; also WTACRS_DEVICE_MISMATCH and WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_statistics_cached_on(const struct wtacrs_norm_predictor *predictor,
                                                         const struct wtacrs_plan *plan,
                                                         const void *saved,
                                                         size_t saved_bytes,
                                                         const float *dz_norms,
                                                         const float *cached_norms,
                                                         double *sums,
                                                         size_t capacity,
                                                         void *stream);

/*
 wtacrs_norm_predictor_apply for any device: `sums` is in the memory of the predictor's device, on CUDA aligned to 256.
 `stream` as in wtacrs_forward; on CUDA one kernel is launched.

 Errors: WTACRS_SHAPE_MISMATCH for another count; on the CPU WTACRS_INVALID_ARGUMENT for sums that no rows can have (on
 CUDA see wtacrs_norm_predictor_outcome); WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED,
 WTACRS_DEVICE_MISMATCH, WTACRS_CUDA_ERROR. The predictor is then as it was.
 */
wtacrs_status wtacrs_norm_predictor_apply_on(struct wtacrs_norm_predictor *predictor,
                                             const double *sums,
                                             size_t count,
                                             void *stream);

/*
 What came of the last step on a GPU, for looking at: waits for all that was launched in its CUDA context, and must not be
 called while a stream is captured. `*outcome` is 0 if the predictor has learned, 1 if there was nothing to learn, 2 if
 in addition the norms have fallen so far that their level is found anew, 3 if the step was refused for a number that
 is none. `*row` is 0, or 1 + the first kept row (in the order of the indices) with such a number, in the statistics of
 the last step on this rank. Either may be NULL. On the CPU it is WTACRS_UNSUPPORTED, as calls tell at once.

 Errors: WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP,
 WTACRS_CUDA_ERROR.
 */
wtacrs_status wtacrs_norm_predictor_outcome(const struct wtacrs_norm_predictor *predictor,
                                            uint32_t *outcome,
                                            uint32_t *row);

/*
 Reads the selection in saved memory back: `*kept` indices, ascending, with their scales, of which `*winners` were
 certain. `indices` and `scales` have room for `capacity` entries, or are NULL with `capacity` 0 to ask for the counts
 alone; `kept` and `winners` may be NULL where they are not wanted.

 On CUDA only `saved` is the GPU's memory. The call waits for all that was launched in the CUDA context, so it must
 not be made while a stream is captured; and WTACRS_INVALID_WEIGHTS names a row of H whose norm or guess was no number.

 Errors: WTACRS_BUFFER_TOO_SMALL; as for wtacrs_backward about `saved`; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
 WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_saved_selection(const struct wtacrs_plan *plan,
                                     const void *saved,
                                     size_t saved_bytes,
                                     uint32_t *indices,
                                     double *scales,
                                     size_t capacity,
                                     uint64_t *kept,
                                     uint64_t *winners);

/*
 A status in a few words: NUL-terminated, in English, for ever valid. Numbers that are no status have words too.

 Any thread may call it at any time.
 */
const char *wtacrs_status_string(wtacrs_status status);

/*
 What was wrong with the last call of this thread that failed, with the offending argument, index and value; empty
 if none has failed. Calls that succeed leave it as it is, and so does this one.

 Writes as much of the text (UTF-8) as fits `capacity` bytes, cut between characters, and always a closing NUL if
 `capacity` > 0; `*needed` becomes the bytes of the whole text with its NUL. `buffer` may be NULL if `capacity` is 0,
 and `needed` may be NULL.

 Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_last_error(char *buffer,
                                size_t capacity,
                                size_t *needed);

/*
 The weights of a plan's tokens from the norms of H and, by the plan's source, a guess of the norms of dZ (for
 WTACRS_SOURCE_INPUT and WTACRS_SOURCE_PREDICTED `guess` is NULL, and the weights are the input's norms): `tokens`
 doubles, each the weight that the selection's integers stand for (rounded by at most 2^-29 of the largest). For wtacrs_theory
 and for looking at; wtacrs_select makes its own, the same.

 On CUDA all arrays are the GPU's, and one block of one kernel makes them; if a norm is negative or not finite, all
 weights are NaN. `stream` is as in wtacrs_forward.

 Errors: WTACRS_INVALID_WEIGHTS names the first norm that is negative or not finite; WTACRS_INVALID_ARGUMENT,
 WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_weights(const struct wtacrs_plan *plan,
                             const float *input_norms,
                             const float *guess,
                             double *weights,
                             void *stream);

/*
 Chooses rows from norms alone: weights as in wtacrs_weights, then the plan's design at (seed, offset). For weights of
 your own, pass them as `input_norms` to a plan of WTACRS_SOURCE_INPUT. `item` is the item of a batch that shares one
 offset, 0 if there is none.

 Writes `*kept` ascending indices with their scales, and of how many of them were certain, `*winners` (either may be
 NULL); `capacity` is at least what the plan's budget says. Entries beyond `*kept` are left as they are. `scratch` as
 in wtacrs_forward; `stream` too.

 The same bits on every machine.

 On CUDA all arrays are the GPU's, `winners` too, and `kept` must not be NULL. The upper half of `*kept` is 0, or 1 +
 the index of the first norm that is negative or not finite; the lower half is then 0.

 Errors: as for wtacrs_weights; also WTACRS_BUFFER_TOO_SMALL.
 */
wtacrs_status wtacrs_select(const struct wtacrs_plan *plan,
                            const float *input_norms,
                            const float *guess,
                            uint64_t seed,
                            uint64_t offset,
                            uint32_t item,
                            uint32_t *indices,
                            double *scales,
                            size_t capacity,
                            uint64_t *kept,
                            uint64_t *winners,
                            void *scratch,
                            size_t scratch_bytes,
                            void *stream);

/*
 Copies the rows of H (as in wtacrs_forward) that `indices` name, `*kept` of them, into `rows` (kept x in_features, of
 H's dtype, `rows_leading` >= in_features elements from row to row): what wtacrs_weight_gradient takes.

 On CUDA all memory is the GPU's, the indices are not checked, `rows` has as many rows as the plan's budget, and those
 from `*kept` on become zero.

 Errors: WTACRS_INVALID_ARGUMENT if indices do not ascend, lie beyond the tokens, or are more than the budget;
 WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_SIZE_OVERFLOW, WTACRS_MISALIGNED, WTACRS_OVERLAP.
 */
wtacrs_status wtacrs_gather(const struct wtacrs_plan *plan,
                            const void *h,
                            size_t h_leading,
                            const uint32_t *indices,
                            const uint64_t *kept,
                            void *rows,
                            size_t rows_leading,
                            void *stream);

/*
 wtacrs_gather with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the budget).

 Errors: as for wtacrs_gather; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
 */
wtacrs_status wtacrs_gather_dl(const struct wtacrs_plan *plan,
                               const wtacrs_dltensor *h,
                               const uint32_t *indices,
                               const uint64_t *kept,
                               const wtacrs_dltensor *rows,
                               void *stream);

/*
 dW from rows that the caller keeps: as wtacrs_backward, with `rows` (kept x in_features, of H's dtype, `rows_leading`
 >= in_features elements from row to row), `*kept` indices and scales in place of saved memory.

 `scratch` is of the size that wtacrs_plan_weight_gradient_scratch_bytes tells. On CUDA all memory is the GPU's, and
 `rows`, `indices` and `scales` have as many rows and entries as the plan's budget. The rows of dZ are gathered and
 scaled first, rounded to their dtype.

 Errors: WTACRS_INVALID_ARGUMENT also for a scale that is negative or not finite; as for wtacrs_gather and
 wtacrs_backward.
 */
wtacrs_status wtacrs_weight_gradient(const struct wtacrs_plan *plan,
                                     const void *rows,
                                     size_t rows_leading,
                                     const uint32_t *indices,
                                     const double *scales,
                                     const uint64_t *kept,
                                     const void *dz,
                                     size_t dz_leading,
                                     void *dw,
                                     size_t dw_leading,
                                     int32_t accumulate,
                                     void *scratch,
                                     size_t scratch_bytes,
                                     void *stream);

/*
 wtacrs_weight_gradient with DLPack tensors of two axes; `rows` has exactly `*kept` rows (on CUDA as many as the budget).

 Errors: as for wtacrs_weight_gradient; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
 */
wtacrs_status wtacrs_weight_gradient_dl(const struct wtacrs_plan *plan,
                                        const wtacrs_dltensor *rows,
                                        const uint32_t *indices,
                                        const double *scales,
                                        const uint64_t *kept,
                                        const wtacrs_dltensor *dz,
                                        const wtacrs_dltensor *dw,
                                        int32_t accumulate,
                                        void *scratch,
                                        size_t scratch_bytes,
                                        void *stream);

/*
 A description of C = A B for every (batch, head). The shape and both sides' budgets must be set (or exactness); the
 other defaults are f32, WTACRS_WTA_PIVOTAL, a mix of 0.01 and WTACRS_PRECISION_F32.

 Errors: WTACRS_NULL_POINTER, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_tensor_mul_create(struct wtacrs_tensor_mul **tensor_mul);

/*
 Destroys a description; NULL is allowed. Plans that were made of it stay valid.

 Errors: WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_destroy(struct wtacrs_tensor_mul *tensor_mul);

/*
 A is batch x heads x rows x inner, B batch x heads x inner x columns, C and its gradient G batch x heads x rows x
 columns. For scores = Q K^T: rows are queries, inner channels, columns keys.

 Errors: WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_shape(struct wtacrs_tensor_mul *tensor_mul,
                                          size_t batch,
                                          size_t heads,
                                          size_t rows,
                                          size_t inner,
                                          size_t columns);

/*
 The dtypes of A and B, and of G: WTACRS_F32, WTACRS_F16 or WTACRS_BF16, whose gradients are WTACRS_F32; or WTACRS_F64
 for both, and for the gradients.

 Errors: WTACRS_INVALID_ENUM, WTACRS_UNSUPPORTED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_dtypes(struct wtacrs_tensor_mul *tensor_mul,
                                           int32_t operands,
                                           int32_t gradient);

/*
 How many pairs one gradient, WTACRS_LEFT or WTACRS_RIGHT, is estimated from.

 Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_budget_rows(struct wtacrs_tensor_mul *tensor_mul,
                                                int32_t side,
                                                size_t rows);

/*
 What share of its pairs, in (0, 1], one gradient, WTACRS_LEFT or WTACRS_RIGHT, is estimated from.

 Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_BUDGET, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_budget_fraction(struct wtacrs_tensor_mul *tensor_mul,
                                                    int32_t side,
                                                    double fraction);

/*
 One gradient, WTACRS_LEFT or WTACRS_RIGHT, is exact, and the operand that it needs saved whole: right for sums over
 channels, as of dP in context = P V.

 Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_exact(struct wtacrs_tensor_mul *tensor_mul,
                                          int32_t side);

/*
 The sampling design, as for a layer.

 Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_design(struct wtacrs_tensor_mul *tensor_mul, int32_t design);

/*
 The share, in [0, 1], of the operand's own norms in weights from guessed norms of G; 0 for true norms.

 Errors: WTACRS_INVALID_ARGUMENT, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_mix(struct wtacrs_tensor_mul *tensor_mul, double mix);

/*
 How precisely f32 matrices are multiplied: see wtacrs_layer_set_precision.

 Errors: WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_precision(struct wtacrs_tensor_mul *tensor_mul, int32_t precision);

/*
 A number that forward passes add to their offset when they run: see wtacrs_layer_set_further_offset.

 Errors: WTACRS_MISALIGNED, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_set_further_offset(struct wtacrs_tensor_mul *tensor_mul,
                                                   const uint64_t *further_offset);

/*
 Freezes a description into a plan for a device. Later changes of the description do not touch it.

 On CUDA no size may be 0, and WTACRS_F64 is not served: WTACRS_UNSUPPORTED.

 Errors: WTACRS_INVALID_ARGUMENT if the shape or a side was not set, WTACRS_INVALID_BUDGET if a budget does not fit,
 WTACRS_SIZE_OVERFLOW, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_tensor_mul_plan_create(const struct wtacrs_context *context,
                                            const struct wtacrs_tensor_mul *tensor_mul,
                                            struct wtacrs_tensor_mul_plan **plan);

/*
 Destroys a plan; NULL is allowed. Calls in flight on other threads end as if it still lived.

 Errors: WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_plan_destroy(struct wtacrs_tensor_mul_plan *plan);

/*
 Bytes of the memory of a step: saved from the forward to the backward pass; scratch of the forward pass (0 on the
 CPU) and of the backward pass; and what the exact product keeps, which is A and B. All memory is the caller's,
 aligned to 64 (on CUDA 256). Outputs may be NULL where they are not wanted.

 Errors: WTACRS_MISALIGNED, WTACRS_OVERLAP, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE.
 */
wtacrs_status wtacrs_tensor_mul_plan_memory(const struct wtacrs_tensor_mul_plan *plan,
                                            size_t *saved_bytes,
                                            size_t *forward_scratch_bytes,
                                            size_t *backward_scratch_bytes,
                                            size_t *exact_bytes);

/*
 Where in saved memory on CUDA a forward pass leaves the status words of one gradient, WTACRS_LEFT or WTACRS_RIGHT, in
 bytes from the beginning: batch x heads 32-bit words, each as wtacrs_plan_saved_status_offset tells.

 Errors: WTACRS_UNSUPPORTED on the CPU, WTACRS_INVALID_ENUM, WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE,
 WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_tensor_mul_plan_saved_status_offset(const struct wtacrs_tensor_mul_plan *plan,
                                                         int32_t side,
                                                         size_t *offset);

/*
 How far a forward pass advances the offset of its randomness; see wtacrs_plan_draws.

 Errors: WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_MISALIGNED.
 */
wtacrs_status wtacrs_tensor_mul_plan_draws(const struct wtacrs_tensor_mul_plan *plan, uint64_t *draws);

/*
 The forward pass: chooses and saves what both gradients need of A (batch x heads x rows x inner) and B (batch x heads
 x inner x columns), of the plan's dtype, row by row without gaps. Every (batch, head) has draws of its own.

 `row_guess` (batch x heads x rows) and `column_guess` (batch x heads x columns) are guesses of the norms of the rows and
 columns of G, those that wtacrs_tensor_mul_backward gave in an earlier step; NULL if there are none, and negative
 where one is not known. Otherwise as wtacrs_forward; `saved` is as wtacrs_tensor_mul_plan_memory tells.

 On CUDA six kernels are launched. dA sums over the columns of B, of which the kernels want the elements side by side:
 give B as the transpose of a columns x inner matrix, to wtacrs_tensor_mul_forward_dl; here it is WTACRS_UNSUPPORTED
 unless inner is 1.

 Errors: WTACRS_INVALID_WEIGHTS; WTACRS_NULL_POINTER, WTACRS_INVALID_HANDLE, WTACRS_SIZE_OVERFLOW,
 WTACRS_BUFFER_TOO_SMALL, WTACRS_MISALIGNED, WTACRS_OVERLAP. `saved` is then as it was.
 */
wtacrs_status wtacrs_tensor_mul_forward(const struct wtacrs_tensor_mul_plan *plan,
                                        const void *a,
                                        const void *b,
                                        const float *row_guess,
                                        const float *column_guess,
                                        uint64_t seed,
                                        uint64_t offset,
                                        void *saved,
                                        size_t saved_bytes,
                                        void *scratch,
                                        size_t scratch_bytes,
                                        void *stream);

/*
 wtacrs_tensor_mul_forward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the last
 axis of A and the third of B have stride 1, and no stride is negative: WTACRS_UNSUPPORTED otherwise. So the views
 (batch, heads, rows, inner) of a (batch, rows, heads, inner) buffer need no copies.

 Errors: as for wtacrs_tensor_mul_forward; also WTACRS_SHAPE_MISMATCH, WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
 */
wtacrs_status wtacrs_tensor_mul_forward_dl(const struct wtacrs_tensor_mul_plan *plan,
                                           const wtacrs_dltensor *a,
                                           const wtacrs_dltensor *b,
                                           const float *row_guess,
                                           const float *column_guess,
                                           uint64_t seed,
                                           uint64_t offset,
                                           void *saved,
                                           size_t saved_bytes,
                                           void *scratch,
                                           size_t scratch_bytes,
                                           void *stream);

/*
 The backward pass: both gradients from G = dC (batch x heads x rows x columns): dA (batch x heads x rows x inner) and
 dB (batch x heads x inner x columns), in WTACRS_F32 (WTACRS_F64 for WTACRS_F64), all row by row without gaps.
 `accumulate` is 0 to write them or 1 to add to them.

 `row_norms` (batch x heads x rows) and `column_norms` (batch x heads x columns), if not NULL, become the norms of the
 rows and columns of G: the next step's guesses. Otherwise as wtacrs_backward.

 Errors: as for wtacrs_backward. Outputs are then as they were.
 */
wtacrs_status wtacrs_tensor_mul_backward(const struct wtacrs_tensor_mul_plan *plan,
                                         const void *saved,
                                         size_t saved_bytes,
                                         const void *g,
                                         void *da,
                                         void *db,
                                         int32_t accumulate,
                                         float *row_norms,
                                         float *column_norms,
                                         void *scratch,
                                         size_t scratch_bytes,
                                         void *stream);

/*
 wtacrs_tensor_mul_backward with DLPack tensors of four axes: any strides, byte_offset, sizes of zero. On CUDA the last
 axis of G, dA and dB has stride 1, and no stride is negative: WTACRS_UNSUPPORTED otherwise.

 Errors: as for wtacrs_tensor_mul_backward; also WTACRS_DEVICE_MISMATCH, WTACRS_UNSUPPORTED.
 */
wtacrs_status wtacrs_tensor_mul_backward_dl(const struct wtacrs_tensor_mul_plan *plan,
                                            const void *saved,
                                            size_t saved_bytes,
                                            const wtacrs_dltensor *g,
                                            const wtacrs_dltensor *da,
                                            const wtacrs_dltensor *db,
                                            int32_t accumulate,
                                            float *row_norms,
                                            float *column_norms,
                                            void *scratch,
                                            size_t scratch_bytes,
                                            void *stream);

/*
 The library's version, such as "0.1.0": NUL-terminated, for ever valid.

 Any thread may call it at any time.
 */
const char *wtacrs_version(void);

/*
 WTACRS_ABI_VERSION of the library that is loaded, to be compared with that of the header.

 Any thread may call it at any time.
 */
int32_t wtacrs_abi_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WTACRS_H */
