//! Where work is done.

use crate::array::Array;
use crate::device::{Device, Gpu};
use crate::dtype::{WTACRS_CPU, WTACRS_CUDA};
use crate::guard::{Failure, Outcome, guard};
use crate::registry::Registry;
use crate::status::*;

/// A device. Any number of threads may use one at the same time.
pub struct wtacrs_context {
    _opaque: (),
}

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) device: Device,
}

static CONTEXTS: Registry<Context> = Registry::new("context");

pub(crate) fn context(handle: *const wtacrs_context) -> Outcome<std::sync::Arc<Context>> {
    CONTEXTS.get(handle)
}

/// A context for `device`, WTACRS_CPU or WTACRS_CUDA. `ordinal` is 0 for the CPU; for CUDA it is the GPU's number, whose
/// primary context is then used (the one of the CUDA runtime and of frameworks), or -1 for the calling thread's current
/// CUDA context.
///
/// The CPU path runs on the process's rayon pool (as many threads as cores, or as RAYON_NUM_THREADS says), which is
/// started by the first call that computes and does not survive a fork.
///
/// On CUDA this call loads the kernels, once for each CUDA context: the driver compiles them for its GPU, which takes
/// seconds the first time and is then cached on disk. The calling thread's current CUDA context stays current; if it
/// has none, the GPU's primary context becomes current. Every later call that takes a stream must be made while the
/// context's CUDA context is current, and is otherwise answered with WTACRS_DEVICE_MISMATCH. Not to be called while a
/// stream is captured.
///
/// Errors: WTACRS_INVALID_ENUM, WTACRS_INVALID_ARGUMENT for the ordinal, WTACRS_NULL_POINTER, WTACRS_MISALIGNED;
/// WTACRS_NO_DEVICE if there is no CUDA driver, if it is too old, or if there is no such GPU, none of compute capability
/// 8.0 or later, or no current context; WTACRS_CUDA_ERROR. The last error has the details.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_context_create(
    device: i32,
    ordinal: i32,
    context: *mut *mut wtacrs_context,
) -> wtacrs_status {
    guard("wtacrs_context_create", || {
        let output = Array::new(context, 1, "context")?;
        let device = match device {
            WTACRS_CPU if ordinal == 0 => Device::Cpu,
            WTACRS_CPU => {
                let message = format!("the ordinal is {ordinal}: there is one CPU, 0");
                return Err(Failure::new(WTACRS_INVALID_ARGUMENT, message));
            }
            WTACRS_CUDA if ordinal >= -1 => Device::Cuda(Gpu::open(ordinal)?),
            WTACRS_CUDA => {
                let message = format!("the ordinal is {ordinal}: it must be -1 or more");
                return Err(Failure::new(WTACRS_INVALID_ARGUMENT, message));
            }
            _ => return Err(Failure::new(WTACRS_INVALID_ENUM, format!("device is {device}: it must be 0 or 1"))),
        };
        // SAFETY: an output of one pointer, checked for NULL and alignment.
        unsafe { output.set(CONTEXTS.insert(Context { device })) };
        Ok(())
    })
}

/// Destroys a context; NULL is allowed. Plans that were made with it stay valid. On CUDA the loaded kernels stay in the CUDA
/// context until that ends, for its plans and for the next wtacrs_context of it, and so does a primary context.
///
/// Errors: WTACRS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_context_destroy(context: *mut wtacrs_context) -> wtacrs_status {
    guard("wtacrs_context_destroy", || CONTEXTS.remove(context))
}
