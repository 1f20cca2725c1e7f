/* A CUDA driver for examples/c/cuda_layer.c where libwtacrs works on the emulator: memory of the host, and one stream that
 * is never behind. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long gpu_memory;
enum { SUCCESS = 0, OUT_OF_MEMORY = 2 };

int cuInit(unsigned flags) { return (void)flags, SUCCESS; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, SUCCESS; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
  static int primary;
  return (void)device, *context = &primary, SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, SUCCESS; }
int cuCtxSetCurrent(void *context) { return (void)context, SUCCESS; }
int cuStreamCreate(void **stream, unsigned flags) { return (void)flags, *stream = NULL, SUCCESS; }
int cuStreamDestroy_v2(void *stream) { return (void)stream, SUCCESS; }
int cuStreamSynchronize(void *stream) { return (void)stream, SUCCESS; }
int cuMemAlloc_v2(gpu_memory *memory, size_t bytes) {
  void *allocated = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!allocated) return OUT_OF_MEMORY;
  /* NaN, so that a read of what nobody wrote shows. */
  memset(allocated, 0xff, bytes);
  return *memory = (uintptr_t)allocated, SUCCESS;
}
int cuMemFree_v2(gpu_memory memory) { return free((void *)(uintptr_t)memory), SUCCESS; }
int cuMemcpyHtoDAsync_v2(gpu_memory to, const void *from, size_t bytes, void *stream) {
  return (void)stream, memcpy((void *)(uintptr_t)to, from, bytes), SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, gpu_memory from, size_t bytes, void *stream) {
  return (void)stream, memcpy(to, (void *)(uintptr_t)from, bytes), SUCCESS;
}
