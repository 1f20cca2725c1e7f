//! What stands in for a GPU in tests. Not in the installed library: only with the feature `emulator`.
//!
//! With the environment variable WTACRS_CUDA_STANDIN=emulator, contexts of WTACRS_DEVICE_CUDA run on the emulator, which has two
//! "GPUs" whose memory is the host's; so the same C programs drive it. A Rust test may give a driver of its own instead,
//! such as one that writes its calls down.

use super::gpu::Gpu;
use crate::boundary::Outcome;
use std::cell::RefCell;
use std::sync::Arc;
use wtacrs_kernels::launch::driver::{Calls, DriverError, Installation};

type Opener = Box<dyn Fn(i32) -> Outcome<Gpu>>;

thread_local! {
    static OPENER: RefCell<Option<Opener>> = const { RefCell::new(None) };
}

/// How many GPUs the emulator is.
const EMULATED: i32 = 2;

/// From now on, contexts that this thread makes are of this driver.
pub fn use_driver<C: Calls>(installation: Arc<Installation<C>>) {
    let opener: Opener = Box::new(move |ordinal| Gpu::open(Arc::clone(&installation), ordinal));
    OPENER.with(|slot| *slot.borrow_mut() = Some(opener));
}

/// From now on, contexts that this thread makes are of the emulator.
pub fn use_emulator() {
    OPENER.with(|slot| *slot.borrow_mut() = Some(Box::new(emulated)));
}

fn emulated(ordinal: i32) -> Outcome<Gpu> {
    match ordinal {
        EMULATED.. => Err(DriverError::NoSuchDevice { ordinal: ordinal as u32, count: EMULATED as u32 }.into()),
        _ => Ok(Gpu::emulated(ordinal.max(0))),
    }
}

/// The stand-in for the GPU of a number, if there is to be one.
pub(super) fn stand_in(ordinal: i32) -> Option<Outcome<Gpu>> {
    let by_driver = OPENER.with(|slot| slot.borrow().as_ref().map(|opener| opener(ordinal)));
    by_driver.or_else(|| {
        let asked = std::env::var_os("WTACRS_CUDA_STANDIN").is_some_and(|asked| asked == "emulator");
        asked.then(|| emulated(ordinal))
    })
}
