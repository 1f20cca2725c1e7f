//! Where work is done.

use crate::arguments::Array;
use crate::arguments::enums::{one_of, wtacrs_device};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard};
use crate::cpu::Cpu;
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

/// A context for `device`.
///
/// ordinal   0 for the CPU. For CUDA the GPU's number, whose primary context is then used (that of the CUDA runtime and of
///           frameworks), or -1 for the calling thread's current CUDA context.
/// context   [out]
///
/// The CPU path runs on the process's rayon pool (as many threads as cores, or as RAYON_NUM_THREADS says). The first call
/// that computes starts it, and it does not survive a fork.
///
/// On CUDA this call loads the kernels, once for each CUDA context: the driver compiles them for its GPU, which takes
/// seconds the first time and is then cached on disk. The calling thread's current CUDA context stays current; if it has
/// none, the GPU's primary context becomes current. Every later call that takes a stream must be made while the context's
/// CUDA context is current; otherwise it returns WTACRS_STATUS_DEVICE_MISMATCH. Do not call this function while a stream
/// is captured.
///
/// Errors: WTACRS_STATUS_INVALID_ENUM; _INVALID_ARGUMENT for the ordinal; _NO_DEVICE if there is no CUDA driver, if it is
/// too old, if there is no such GPU or none of compute capability 8.0 or later, or no current context; _CUDA_ERROR,
/// _NULL_POINTER, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_context_create(
    device: wtacrs_device,
    ordinal: i32,
    context: *mut *mut wtacrs_context,
) -> wtacrs_status {
    guard("wtacrs_context_create", || {
        let output = Array::new(context, 1, "context")?;
        let refused = |message| Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message));
        let device: Arc<dyn Device> = match one_of("device", device, &[false, true])? {
            false if ordinal != 0 => return refused(format!("the ordinal is {ordinal}: there is one CPU, 0")),
            false => Arc::new(Cpu),
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
