//! Where work is done.

use crate::arguments::Array;
use crate::arguments::enums::{one_of, wtacrs_device};
use crate::arguments::options::{self, SizedStruct};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard};
use crate::cpu::{Cpu, most_threads};
use crate::cuda::Cuda;
use crate::device::Device;
use std::sync::Arc;

/// A device. Any number of threads may use one at the same time.
pub struct wtacrs_context {
    _opaque: (),
}

static CONTEXTS: Registry<Arc<dyn Device>> = Registry::new("context");

pub(crate) fn device(handle: *const wtacrs_context) -> Outcome<Arc<dyn Device>> {
    Ok(Arc::clone(&*CONTEXTS.get(handle)?))
}

/// How a context works. Zeros, and NULL in place of the struct, stand for the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wtacrs_context_options {
    /// sizeof(wtacrs_context_options)
    pub size: usize,
    /// How many threads a CPU's context computes on. 0: as many as RAYON_NUM_THREADS says, or as there are cores. 1: the
    /// calling thread alone, and none is started. Any number gives the same results. On CUDA it must be 0.
    pub threads: usize,
}

// SAFETY: repr(C), begins with its size, and has numbers alone.
unsafe impl SizedStruct for wtacrs_context_options {}

/// A context for `device`.
///
/// ordinal   0 for the CPU. For CUDA the GPU's number, whose primary context is then used (that of the CUDA runtime and of
///           frameworks), or -1 for the calling thread's current CUDA context.
/// options   [in, optional]
/// context   [out]
///
/// On the CPU, contexts of the same number of threads share a pool. The first call that is large enough starts its threads,
/// and they have ended when the last object made for those contexts is destroyed. If they cannot start, the calling thread
/// computes (and says so to wtacrs_set_log's function), and the next call tries again. A forked process starts its own
/// threads; do not fork while another thread is in a call.
///
/// On CUDA this call loads the kernels, once for each CUDA context: the driver compiles them for its GPU, which takes
/// seconds the first time and is then cached on disk. The calling thread's current CUDA context stays current; if it has
/// none, the GPU's primary context becomes current. Every later call that takes a stream must be made while the context's
/// CUDA context is current; otherwise it returns WTACRS_STATUS_DEVICE_MISMATCH. Do not call this function while a stream
/// is captured.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM; _INVALID_ARGUMENT for the ordinal or the options; _NO_DEVICE if there is no CUDA driver, if it is
/// too old, if there is no such GPU or none of compute capability 8.0 or later, or no current context; _CUDA_ERROR,
/// _UNSUPPORTED, _NULL_POINTER, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_context_create(
    device: wtacrs_device,
    ordinal: i32,
    options: *const wtacrs_context_options,
    context: *mut *mut wtacrs_context,
) -> wtacrs_status {
    guard("wtacrs_context_create", || {
        let output = Array::new(context, 1, "context")?;
        let refused = |message| Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message));
        // SAFETY: as documented.
        let wtacrs_context_options { threads, .. } = unsafe { options::read(options, "options") }?;
        let device: Arc<dyn Device> = match one_of("device", device, &[false, true])? {
            false if ordinal != 0 => return refused(format!("the ordinal is {ordinal}: there is one CPU, 0")),
            false if threads > most_threads() => {
                return refused(format!("{threads} threads, where a pool has at most {}", most_threads()));
            }
            false => Arc::new(Cpu::new(threads)),
            true if threads != 0 => return refused(format!("{threads} threads, for a GPU")),
            true if ordinal < -1 => return refused(format!("the ordinal is {ordinal}: it must be -1 or more")),
            true => Arc::new(Cuda::open(ordinal)?),
        };
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(CONTEXTS.insert(device)) };
        Ok(())
    })
}

/// Destroys a context; NULL is allowed. Objects that were made with it stay valid. On CUDA the loaded kernels stay in the
/// CUDA context until that ends, for those objects and for the next wtacrs_context of it, and so does a primary context.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_context_destroy(context: *mut wtacrs_context) -> wtacrs_status {
    guard("wtacrs_context_destroy", || CONTEXTS.remove(context))
}
