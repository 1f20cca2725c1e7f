//! libwtacrs: the C interface. `include/wtacrs.h` is made from this crate's comments; docs/c-abi.md is the guide.
//!
//! | room | holds |
//! |---|---|
//! | `boundary` | what every call crosses: the guard that stops panics, handles, failures, statuses, last error, log |
//! | `arguments` | what callers pass, checked before anything is read or written |
//! | `api` | the entry points, a file for each object or group of calls |
//! | `device` | what differs by device, as traits |
//! | `cpu`, `cuda` | the two bodies of those traits |
//!
//! A call goes from C to core in four steps: the guard, handles looked up in their registry, arguments checked, and then
//! the device's body: core's functions on typed views, or the launches of wtacrs-kernels.
//!
//! # Safety
//!
//! Every `unsafe` function here requires of its caller: a pointer is NULL or leads to memory of the documented size that
//! lives, and that no other thread writes to (or, for an output, uses), until the call returns; on a GPU, until its work is
//! done. Everything else is checked.

// The types are C's.
#![allow(non_camel_case_types)]
// Stated once, above, for all of them.
#![allow(clippy::missing_safety_doc)]
// C has no named arguments.
#![allow(clippy::too_many_arguments)]

mod api;
mod arguments;
mod boundary;
mod cpu;
mod cuda;
mod device;

pub use self::api::*;
pub use self::arguments::enums::*;
pub use self::arguments::{wtacrs_dldatatype, wtacrs_dldevice, wtacrs_dltensor};
pub use self::boundary::status::*;
#[cfg(feature = "emulator")]
pub use self::cuda::stand_in;
