/* One linear layer on an NVIDIA GPU: memory and stream by CUDA's driver API, as an engine without CUDA's runtime has them.
 *
 *   cc cuda_layer.c $(pkg-config --cflags --libs wtacrs) -lm -ldl -o cuda_layer
 *   ./cuda_layer testdata/minilm_l3_value_imdb_1024.safetensors
 *
 * Builds without CUDA's headers: it loads the driver when it runs, and is skipped where there is none
 * (WTACRS_REQUIRE_GPU=1: fails). Not run on hardware yet: a test runs it on libwtacrs's emulator.
 */
#include "layer.h"
#include <dlfcn.h>

/* What <cuda.h> declares of the driver API, as far as this program calls it. */
typedef unsigned long long gpu_memory;
static struct {
  int (*init)(unsigned);
  int (*device)(int *, int);
  int (*retain)(void **, int);
  int (*release)(int);
  int (*set_current)(void *);
  int (*stream_create)(void **, unsigned);
  int (*stream_destroy)(void *);
  int (*synchronize)(void *);
  int (*allocate)(gpu_memory *, size_t);
  int (*free)(gpu_memory);
  int (*to_gpu)(gpu_memory, const void *, size_t, void *);
  int (*to_host)(void *, gpu_memory, size_t, void *);
} cu;

/* Ends the program where there is no GPU. */
static void skip(const char *why) {
  const char *required = getenv("WTACRS_REQUIRE_GPU");
  int fails = required && !strcmp(required, "1");
  fprintf(fails ? stderr : stdout, "cuda_layer: %s: %s\n", fails ? "failed" : "skipped", why);
  exit(fails);
}

static void load_driver(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW);
  if (!driver) skip("there is no CUDA driver (libcuda.so.1)");
  struct {
    const char *name;
    void *function;
  } needed[] = {
      {"cuInit", &cu.init},
      {"cuDeviceGet", &cu.device},
      {"cuDevicePrimaryCtxRetain", &cu.retain},
      {"cuDevicePrimaryCtxRelease_v2", &cu.release},
      {"cuCtxSetCurrent", &cu.set_current},
      {"cuStreamCreate", &cu.stream_create},
      {"cuStreamDestroy_v2", &cu.stream_destroy},
      {"cuStreamSynchronize", &cu.synchronize},
      {"cuMemAlloc_v2", &cu.allocate},
      {"cuMemFree_v2", &cu.free},
      {"cuMemcpyHtoDAsync_v2", &cu.to_gpu},
      {"cuMemcpyDtoHAsync_v2", &cu.to_host},
  };
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
    void *symbol = dlsym(driver, needed[i].name);
    if (!symbol) skip("the CUDA driver is too old");
    memcpy(needed[i].function, &symbol, sizeof symbol);
  }
}

/* A CUresult other than CUDA_SUCCESS ends the program. */
static void check_cuda(int result, const char *call) {
  if (result == 0) return;
  fprintf(stderr, "%s: CUDA error %d\n", call, result);
  exit(1);
}
#define CUDA(function, ...) check_cuda(cu.function(__VA_ARGS__), #function)

/* A pointer of the GPU, as libwtacrs takes it. */
static void *allocate_on_gpu(size_t bytes) {
  gpu_memory memory = 0;
  if (bytes > 0) CUDA(allocate, &memory, bytes);
  return (void *)(uintptr_t)memory;
}

static void free_on_gpu(void *memory) {
  if (memory) CUDA(free, (uintptr_t)memory);
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: cuda_layer LAYER.safetensors\n"), 2;
  load_driver();
  int device;
  if (cu.init(0) != 0 || cu.device(&device, 0) != 0) skip("the CUDA driver finds no GPU");
  float *h = read_tensor(argv[1], "h"), *dz = read_tensor(argv[1], "dz");
  const size_t h_bytes = (size_t)TOKENS * IN_FEATURES * sizeof(float);
  const size_t dz_bytes = (size_t)TOKENS * OUT_FEATURES * sizeof(float);
  const size_t dw_bytes = (size_t)IN_FEATURES * OUT_FEATURES * sizeof(float);

  /* The engine's own: a context that is current, and a stream. -1 makes libwtacrs work in that context. */
  void *primary, *stream;
  CUDA(retain, &primary, device);
  CUDA(set_current, primary);
  CUDA(stream_create, &stream, 1 /* CU_STREAM_NON_BLOCKING */);
  wtacrs_context *context;
  check(wtacrs_context_create(WTACRS_DEVICE_CUDA, -1, NULL, &context));

  wtacrs_layer *layer;
  wtacrs_plan *plan;
  wtacrs_norm_predictor *predictor;
  check(wtacrs_layer_create(&layer));
  check(wtacrs_layer_set_shape(layer, TOKENS, IN_FEATURES, OUT_FEATURES));
  check(wtacrs_layer_set_budget(layer, WTACRS_BUDGET_FRACTION, 0.3));
  check(wtacrs_plan_create(context, layer, &plan));
  check(wtacrs_layer_destroy(layer));
  check(wtacrs_norm_predictor_create(context, IN_FEATURES, NULL, &predictor));

  /* All memory is on the GPU. One block of scratch serves both passes, which one stream runs in turn. */
  wtacrs_plan_info info = {.size = sizeof info};
  check(wtacrs_plan_get_info(plan, &info));
  size_t scratch_bytes = info.forward_scratch_bytes > info.backward_scratch_bytes ? info.forward_scratch_bytes
                                                                                   : info.backward_scratch_bytes;
  void *h_gpu = allocate_on_gpu(h_bytes), *dz_gpu = allocate_on_gpu(dz_bytes), *dw_gpu = allocate_on_gpu(dw_bytes);
  void *norms_gpu = allocate_on_gpu(TOKENS * sizeof(float));
  void *saved = allocate_on_gpu(info.saved_bytes), *scratch = allocate_on_gpu(scratch_bytes);
  CUDA(to_gpu, (uintptr_t)h_gpu, h, h_bytes, stream);
  CUDA(to_gpu, (uintptr_t)dz_gpu, dz, dz_bytes, stream);
  float *dw = malloc(dw_bytes);
  if (!dw) return 1;

  /* Every step is launches on the stream. Only the copy of dW waits for them, to print its error. */
  const uint64_t seed = 42;
  uint64_t offset = 0;
  for (int step = 0; step < 3; step++) {
    wtacrs_forward_options forward = {.size = sizeof forward, .predictor = predictor};
    check(wtacrs_plan_forward(plan, h_gpu, IN_FEATURES, seed, offset, &forward, saved, info.saved_bytes, scratch,
                              scratch_bytes, stream));
    offset += info.draws; /* the next pass draws other bits */

    wtacrs_backward_options backward = {.size = sizeof backward, .dz_norms = norms_gpu};
    check(wtacrs_plan_backward(plan, saved, info.saved_bytes, dz_gpu, OUT_FEATURES, dw_gpu, OUT_FEATURES, &backward,
                               scratch, scratch_bytes, stream));
    check(wtacrs_norm_predictor_update(predictor, plan, saved, info.saved_bytes, norms_gpu, NULL, stream));
    CUDA(to_host, dw, (uintptr_t)dw_gpu, dw_bytes, stream);
    CUDA(synchronize, stream);
    printf("step %d: relative error of dW %.3f\n", step, relative_error(dw, h, dz));
  }
  printf("%zu of %d tokens: %zu bytes saved, %zu scratch; the exact layer saves %zu\n", info.budget_rows, TOKENS,
         info.saved_bytes, scratch_bytes, info.exact_bytes);

  /* The predictor's state is in GPU memory, so it goes before the context that it is in. */
  check(wtacrs_norm_predictor_destroy(predictor));
  check(wtacrs_plan_destroy(plan));
  check(wtacrs_context_destroy(context));
  void *on_gpu[] = {h_gpu, dz_gpu, dw_gpu, norms_gpu, saved, scratch};
  for (size_t i = 0; i < sizeof on_gpu / sizeof *on_gpu; i++) free_on_gpu(on_gpu[i]);
  CUDA(stream_destroy, stream);
  CUDA(release, device);
  free(h), free(dz), free(dw);
  return 0;
}
