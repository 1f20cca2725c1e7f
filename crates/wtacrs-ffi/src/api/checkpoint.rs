//! Objects as bytes in a caller's memory.

use crate::arguments::{Array, check_disjoint};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::ffi::c_void;

/// A caller's buffer for an object's bytes, and where to write how many there are.
pub(super) struct Checkpoint {
    room: Array<u8>,
    needed: Array<usize>,
    /// Whether only their number is asked for.
    is_query: bool,
}

impl Checkpoint {
    pub(super) fn new(buffer: *mut c_void, capacity: usize, needed: *mut usize) -> Outcome<Self> {
        let needed = Array::new(needed.cast_const(), 1, "needed")?;
        let room = Array::new(buffer.cast::<u8>().cast_const(), capacity, "buffer")?;
        check_disjoint(&[room.region(), needed.region()], &[])?;
        Ok(Self { room, needed, is_query: buffer.is_null() && capacity == 0 })
    }

    pub(super) fn is_query(&self) -> bool {
        self.is_query
    }

    /// # Safety
    ///
    /// The buffer and the number are writable and used by nobody else.
    pub(super) unsafe fn write_needed(&self, needed: usize) {
        // SAFETY: checked for NULL and alignment; the caller has the rest.
        unsafe { self.needed.set(needed) };
    }

    /// # Safety
    ///
    /// As for [`Self::write_needed`].
    pub(super) unsafe fn write(&self, bytes: &[u8]) -> Outcome {
        // SAFETY: the caller has it.
        unsafe { self.write_needed(bytes.len()) };
        if self.is_query {
            return Ok(());
        }
        // SAFETY: checked for NULL, alignment and overlap; the caller has the rest.
        let room = unsafe { self.room.get_mut() };
        let capacity = room.len();
        let message = || format!("room for {capacity} bytes where {} are needed", bytes.len());
        let room =
            room.get_mut(..bytes.len()).ok_or_else(|| Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message()))?;
        room.copy_from_slice(bytes);
        Ok(())
    }
}
