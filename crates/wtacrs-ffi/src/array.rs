//! A caller's arrays: checked before anything is read or written.

use crate::guard::{Failure, Outcome};
use crate::status::*;
use core::ffi::c_void;
use core::slice;

/// Alignment of saved and scratch memory on the CPU.
pub(crate) const BLOCK_ALIGNMENT: usize = 64;
/// And on a GPU.
pub(crate) const DEVICE_ALIGNMENT: usize = wtacrs_kernels::plan::ALIGNMENT as usize;

/// A pointer and a length that a caller gave: not NULL (unless empty), aligned, within the address space.
#[derive(Debug)]
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

impl<T> Array<T> {
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

    fn aligned(pointer: *const T, len: usize, alignment: usize, what: &'static str) -> Outcome<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|&bytes| isize::try_from(bytes).is_ok());
        let end = bytes.and_then(|bytes| pointer.addr().checked_add(bytes));
        if end.is_none() {
            return Err(Failure::new(WTACRS_SIZE_OVERFLOW, format!("{what}: {len} entries cannot be addressed")));
        }
        if len > 0 && pointer.is_null() {
            return Err(Failure::new(WTACRS_NULL_POINTER, format!("{what} is NULL")));
        }
        if len > 0 && !pointer.addr().is_multiple_of(alignment) {
            let message = format!("{what} is at {:#x}, not a multiple of {alignment}", pointer.addr());
            return Err(Failure::new(WTACRS_MISALIGNED, message));
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

impl<T> Array<T> {
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

/// Saved or scratch memory, of which `needed` bytes are used; if that is 0, whatever was given.
pub(crate) fn block(pointer: *const c_void, bytes: usize, needed: usize, what: &'static str) -> Outcome<Array<u8>> {
    aligned_block(pointer, bytes, needed, BLOCK_ALIGNMENT, what)
}

/// The same in a GPU's memory.
pub(crate) fn device_block(
    pointer: *const c_void,
    bytes: usize,
    needed: usize,
    what: &'static str,
) -> Outcome<Array<u8>> {
    aligned_block(pointer, bytes, needed, DEVICE_ALIGNMENT, what)
}

fn aligned_block(
    pointer: *const c_void,
    bytes: usize,
    needed: usize,
    alignment: usize,
    what: &'static str,
) -> Outcome<Array<u8>> {
    if bytes < needed {
        let message = format!("{what} has {bytes} bytes where {needed} are needed");
        return Err(Failure::new(WTACRS_BUFFER_TOO_SMALL, message));
    }
    Array::aligned(pointer.cast(), needed, alignment, what)
}

/// Refuses outputs that share a byte with one another or with an input.
pub(crate) fn check_disjoint(outputs: &[Region], inputs: &[Region]) -> Outcome {
    for (at, output) in outputs.iter().enumerate() {
        for other in outputs[at + 1..].iter().chain(inputs) {
            let apart = output.start + output.bytes <= other.start || other.start + other.bytes <= output.start;
            if !apart && output.bytes > 0 && other.bytes > 0 {
                let message = format!("{} shares memory with {}", output.what, other.what);
                return Err(Failure::new(WTACRS_OVERLAP, message));
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

/// Writes those of the values that are wanted, or none.
///
/// # Errors
///
/// MISALIGNED, OVERLAP.
///
/// # Safety
///
/// The pointers are NULL or outputs of one value each.
pub(crate) unsafe fn report<T: Copy, const N: usize>(outputs: [(*mut T, &'static str); N], values: [T; N]) -> Outcome {
    let wanted = Wanted::new(outputs)?;
    check_disjoint(&wanted.regions().collect::<Vec<_>>(), &[])?;
    // SAFETY: checked for alignment and overlap; the caller has the rest.
    unsafe { wanted.set(values) };
    Ok(())
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
        let status = |array: Outcome<Array<u32>>| array.map_or_else(|failure| failure.status, |_| WTACRS_OK);
        assert_eq!(status(Array::new(at(0), 4, "x")), WTACRS_OK);
        assert_eq!(status(Array::new(core::ptr::null(), 0, "x")), WTACRS_OK);
        assert_eq!(status(Array::new(core::ptr::null(), 1, "x")), WTACRS_NULL_POINTER);
        assert_eq!(status(Array::new(at(1), 1, "x")), WTACRS_MISALIGNED);
        assert_eq!(status(Array::new(at(0), usize::MAX / 4 + 1, "x")), WTACRS_SIZE_OVERFLOW);
        assert_eq!(status(Array::new(at(0), isize::MAX as usize / 4 + 1, "x")), WTACRS_SIZE_OVERFLOW);
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
