//! Structs of C whose first field is their size, so that later versions of the library can append fields.
//!
//! A caller sets `size` to its own `sizeof`. A struct that ends early is refused, since this is the first version; of a
//! later, longer one the bytes that are unknown here must be zero, so that no request is silently ignored.

use super::array::Array;
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};

/// A struct of C that begins with its size.
///
/// # Safety
///
/// The type is `repr(C)`, its first field is `size: usize`, and any bytes are a value of it.
pub(crate) unsafe trait SizedStruct: Copy + Default {}

/// Reads a struct; the default if the pointer is NULL.
///
/// # Errors
///
/// MISALIGNED, INVALID_ARGUMENT for a size that is too small, UNSUPPORTED for unknown fields that are not zero.
///
/// # Safety
///
/// The pointer is NULL, or leads to a struct of as many bytes as its first field says.
pub(crate) unsafe fn read<T: SizedStruct>(pointer: *const T, what: &'static str) -> Outcome<T> {
    let Some(found) = Array::optional(pointer, 1, what)? else { return Ok(T::default()) };
    // SAFETY: not NULL and aligned; the caller has the rest.
    let size = unsafe { checked_size(found.as_ptr(), what) }?;
    let bytes = found.as_ptr().cast::<u8>().cast_const();
    // SAFETY: the caller says that there are so many bytes.
    let rest = unsafe { core::slice::from_raw_parts(bytes.add(size_of::<T>()), size - size_of::<T>()) };
    if rest.iter().any(|&byte| byte != 0) {
        let message = format!("{what} has fields that this version of the library does not know");
        return Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message));
    }
    // SAFETY: not NULL, aligned, and as long as a `T`.
    Ok(unsafe { found.as_ptr().read() })
}

/// Writes a struct, except for its size, and zeros into what lies behind it.
///
/// # Errors
///
/// NULL_POINTER, MISALIGNED, INVALID_ARGUMENT for a size that is too small.
///
/// # Safety
///
/// The pointer is NULL, or leads to a struct of as many bytes as its first field says, which nobody else uses.
pub(crate) unsafe fn write<T: SizedStruct>(pointer: *mut T, what: &'static str, value: T) -> Outcome {
    let found = Array::new(pointer.cast_const(), 1, what)?;
    // SAFETY: not NULL and aligned; the caller has the rest.
    let size = unsafe { checked_size(found.as_ptr(), what) }?;
    // SAFETY: the caller says that there are `size` bytes, at least as many as a `T` has; the size is restored.
    unsafe {
        found.as_ptr().cast::<u8>().add(size_of::<T>()).write_bytes(0, size - size_of::<T>());
        found.as_ptr().write(value);
        found.as_ptr().cast::<usize>().write(size);
    }
    Ok(())
}

/// # Safety
///
/// The pointer leads to a `usize`.
unsafe fn checked_size<T: SizedStruct>(pointer: *const T, what: &'static str) -> Outcome<usize> {
    // SAFETY: the caller has it.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size >= size_of::<T>() && isize::try_from(size).is_ok() {
        return Ok(size);
    }
    let message = format!("the size of {what} is {size}: set it to sizeof, here {}", size_of::<T>());
    Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, Default, PartialEq)]
    struct Options {
        size: usize,
        value: f64,
    }

    // SAFETY: repr(C), begins with its size, and has numbers alone.
    unsafe impl SizedStruct for Options {}

    /// The options of a later version, with a field more.
    #[repr(C)]
    struct Later {
        size: usize,
        value: f64,
        unknown: u64,
    }

    #[test]
    fn structs_of_every_size() {
        // SAFETY: every struct below has as many bytes as it says, or is refused for its size alone.
        let read = |pointer: *const Options| unsafe { super::read(pointer, "options") };
        assert_eq!(read(core::ptr::null()).expect("defaults"), Options::default());
        let given = Options { size: size_of::<Options>(), value: 2.5 };
        assert_eq!(read(&given).expect("as it is"), given);
        for size in [0, 8, size_of::<Options>() - 1, usize::MAX] {
            let refused = read(&Options { size, value: 0.0 }).expect_err("a size that cannot be");
            assert_eq!(refused.status, WTACRS_STATUS_INVALID_ARGUMENT);
        }
        let mut later = Later { size: size_of::<Later>(), value: 2.5, unknown: 0 };
        let pointer = (&raw const later).cast::<Options>();
        assert_eq!(read(pointer).expect("nothing unknown is asked for").value, 2.5);
        later.unknown = 1;
        assert_eq!(read((&raw const later).cast()).expect_err("unknown").status, WTACRS_STATUS_UNSUPPORTED);
        // SAFETY: as above.
        let written = unsafe { write((&raw mut later).cast(), "info", Options { size: 0, value: 7.0 }) };
        written.expect("room");
        assert_eq!((later.size, later.value, later.unknown), (size_of::<Later>(), 7.0, 0));
        let mut short = Options { size: 8, value: 1.0 };
        // SAFETY: as above.
        assert!(unsafe { write(&mut short, "info", given) }.is_err());
        assert_eq!(short, Options { size: 8, value: 1.0 });
    }
}
