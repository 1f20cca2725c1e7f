//! A caller's arrays: checked before anything is read or written.

use super::Stream;
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::ffi::c_void;
use core::slice;

/// A pointer and a length that a caller gave: not NULL (unless empty), aligned, within the address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array<T> {
    pointer: *mut T,
    len: usize,
    what: &'static str,
}

/// Bytes that a call reads or writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) start: usize,
    pub(crate) bytes: usize,
    pub(crate) what: &'static str,
}

impl<T: Copy> Array<T> {
    /// # Errors
    ///
    /// NULL_POINTER unless `len` is 0, MISALIGNED, SIZE_OVERFLOW.
    pub(crate) fn new(pointer: *const T, len: usize, what: &'static str) -> Outcome<Self> {
        Self::aligned(pointer, len, align_of::<T>(), what)
    }

    /// None if the pointer is NULL.
    pub(crate) fn optional(pointer: *const T, len: usize, what: &'static str) -> Outcome<Option<Self>> {
        if pointer.is_null() { Ok(None) } else { Self::new(pointer, len, what).map(Some) }
    }

    /// [`Self::new`] with an alignment of one's own.
    pub(crate) fn aligned(pointer: *const T, len: usize, alignment: usize, what: &'static str) -> Outcome<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
        let end = bytes.and_then(|bytes| pointer.addr().checked_add(bytes));
        if end.is_none() {
            return Err(Failure::new(
                WTACRS_STATUS_SIZE_OVERFLOW,
                format!("{what}: {len} entries cannot be addressed"),
            ));
        }
        if len > 0 && pointer.is_null() {
            return Err(Failure::new(WTACRS_STATUS_NULL_POINTER, format!("{what} is NULL")));
        }
        if len > 0 && !pointer.addr().is_multiple_of(alignment) {
            let message = format!("{what} is at {:#x}, not a multiple of {alignment}", pointer.addr());
            return Err(Failure::new(WTACRS_STATUS_MISALIGNED, message));
        }
        Ok(Self { pointer: pointer.cast_mut(), len, what })
    }

    pub(crate) fn region(&self) -> Region {
        Region { start: self.pointer.addr(), bytes: self.len * size_of::<T>(), what: self.what }
    }

    /// # Safety
    ///
    /// The array must be readable, and nobody may write to it, as long as the slice lives.
    pub(crate) unsafe fn get<'a>(&self) -> &'a [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `new` has checked for NULL, alignment and size; the caller has the rest.
        unsafe { slice::from_raw_parts(self.pointer, self.len) }
    }

    /// # Safety
    ///
    /// The array must be writable, and nobody else may use it, as long as the slice lives.
    pub(crate) unsafe fn get_mut<'a>(&self) -> &'a mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as in `get`.
        unsafe { slice::from_raw_parts_mut(self.pointer, self.len) }
    }

    pub(crate) fn as_ptr(&self) -> *mut T {
        self.pointer
    }
}

impl<T: Copy> Array<T> {
    /// Writes the only entry of an output.
    ///
    /// # Safety
    ///
    /// The array must be writable and have one entry.
    pub(crate) unsafe fn set(&self, value: T) {
        debug_assert_eq!(self.len, 1);
        // SAFETY: `new` has checked for NULL and alignment; the caller has the rest.
        unsafe { self.pointer.write(value) }
    }
}

/// Saved or scratch memory as a caller gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pointer: *const c_void,
    bytes: usize,
    what: &'static str,
}

impl Block {
    pub(crate) fn saved(pointer: *const c_void, bytes: usize) -> Self {
        Self { pointer, bytes, what: "saved" }
    }

    pub(crate) fn scratch(pointer: *const c_void, bytes: usize) -> Self {
        Self { pointer, bytes, what: "scratch" }
    }

    /// The first `needed` bytes; if that is 0, the pointer may be anything.
    ///
    /// # Errors
    ///
    /// BUFFER_TOO_SMALL, NULL_POINTER, MISALIGNED.
    pub(crate) fn check(self, needed: usize, alignment: usize) -> Outcome<Array<u8>> {
        let Self { pointer, bytes, what } = self;
        if bytes < needed {
            let message = format!("{what} has {bytes} bytes where {needed} are needed");
            return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
        }
        Array::aligned(pointer.cast(), needed, alignment, what)
    }
}

/// Saved and scratch memory and the stream of a pass, as they were given.
#[derive(Clone, Copy)]
pub(crate) struct PassMemory {
    pub(crate) saved: *const c_void,
    pub(crate) saved_bytes: usize,
    pub(crate) scratch: *const c_void,
    pub(crate) scratch_bytes: usize,
    pub(crate) stream: Stream,
}

impl PassMemory {
    /// The saved and the scratch memory, of which so many bytes are needed.
    ///
    /// # Errors
    ///
    /// As for [`Block::check`].
    pub(crate) fn check(self, saved: usize, scratch: usize, alignment: usize) -> Outcome<(Array<u8>, Array<u8>)> {
        let of_saved = Block::saved(self.saved, self.saved_bytes).check(saved, alignment)?;
        Ok((of_saved, Block::scratch(self.scratch, self.scratch_bytes).check(scratch, alignment)?))
    }
}

/// Refuses outputs that share a byte with one another or with an input.
pub(crate) fn check_disjoint(outputs: &[Region], inputs: &[Region]) -> Outcome {
    for (at, output) in outputs.iter().enumerate() {
        for other in outputs[at + 1..].iter().chain(inputs) {
            let apart = output.start + output.bytes <= other.start || other.start + other.bytes <= output.start;
            if !apart && output.bytes > 0 && other.bytes > 0 {
                let message = format!("{} shares memory with {}", output.what, other.what);
                return Err(Failure::new(WTACRS_STATUS_OVERLAP, message));
            }
        }
    }
    Ok(())
}

/// Outputs of one value each, of which a caller may want some.
pub(crate) struct Wanted<T, const N: usize>([Option<Array<T>>; N]);

impl<T: Copy, const N: usize> Wanted<T, N> {
    /// # Errors
    ///
    /// MISALIGNED.
    pub(crate) fn new(outputs: [(*mut T, &'static str); N]) -> Outcome<Self> {
        let mut wanted = [const { None }; N];
        for (to, (pointer, what)) in wanted.iter_mut().zip(outputs) {
            *to = Array::optional(pointer, 1, what)?;
        }
        Ok(Self(wanted))
    }

    pub(crate) fn regions(&self) -> impl Iterator<Item = Region> {
        self.0.iter().flatten().map(Array::region)
    }

    /// # Safety
    ///
    /// The outputs must be writable and apart.
    pub(crate) unsafe fn set(&self, values: [T; N]) {
        for (output, value) in self.0.iter().zip(values) {
            if let Some(output) = output {
                // SAFETY: the caller has it.
                unsafe { output.set(value) };
            }
        }
    }
}

/// Cached norms as core has them: for C, a negative norm is an unknown one.
pub(crate) fn known_norms<'a>(norms: impl IntoIterator<Item = &'a f32>) -> Vec<Option<f32>> {
    norms.into_iter().map(|&norm| if norm < 0.0 { None } else { Some(norm) }).collect()
}

/// The regions of arguments that are there.
pub(crate) fn regions<const N: usize>(regions: [Option<Region>; N]) -> Vec<Region> {
    regions.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_checked() {
        let memory = [0_u32; 4];
        let at = |offset: usize| memory.as_ptr().cast::<u8>().wrapping_add(offset).cast::<u32>();
        let status = |array: Outcome<Array<u32>>| array.map_or_else(|failure| failure.status, |_| WTACRS_STATUS_OK);
        assert_eq!(status(Array::new(at(0), 4, "x")), WTACRS_STATUS_OK);
        assert_eq!(status(Array::new(core::ptr::null(), 0, "x")), WTACRS_STATUS_OK);
        assert_eq!(status(Array::new(core::ptr::null(), 1, "x")), WTACRS_STATUS_NULL_POINTER);
        assert_eq!(status(Array::new(at(1), 1, "x")), WTACRS_STATUS_MISALIGNED);
        assert_eq!(status(Array::new(at(0), usize::MAX / 4 + 1, "x")), WTACRS_STATUS_SIZE_OVERFLOW);
        assert_eq!(status(Array::new(at(0), isize::MAX as usize / 4 + 1, "x")), WTACRS_STATUS_SIZE_OVERFLOW);
    }

    #[test]
    fn touching_is_not_sharing() {
        let region = |start, bytes| Region { start, bytes, what: "it" };
        let overlap = |a, b| check_disjoint(&[a], &[b]).is_err();
        assert!(!overlap(region(64, 64), region(128, 64)));
        assert!(!overlap(region(128, 64), region(64, 64)));
        assert!(overlap(region(64, 65), region(128, 64)));
        assert!(overlap(region(64, 640), region(128, 4)));
        assert!(!overlap(region(100, 0), region(64, 64)));
        assert!(check_disjoint(&[region(0, 4), region(2, 4)], &[]).is_err());
        assert!(check_disjoint(&[], &[region(0, 4), region(2, 4)]).is_ok(), "inputs may share");
    }
}
