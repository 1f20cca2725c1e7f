//! Structs of C whose first field is their size, so that later versions of the library can append fields.
//!
//! A caller sets `size` to its own `sizeof`. A struct of an earlier version ends early: the fields that it lacks are those of
//! the default, or are not written. Of a later, longer one the bytes that are unknown here must be zero, so that no request
//! is silently ignored.

use super::array::Array;
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};

/// A struct of C that begins with its size.
///
/// # Safety
///
/// The type is `repr(C)`, its first field is `size: usize`, and any bytes are a value of it.
pub(crate) unsafe trait SizedStruct: Copy + Default {
    /// Bytes of the first version of the struct: every caller has as many.
    const FIRST_BYTES: usize = size_of::<Self>();
}

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
    let known = size.min(size_of::<T>());
    // SAFETY: the caller says that there are so many bytes.
    let rest = unsafe { core::slice::from_raw_parts(bytes.add(known), size - known) };
    if rest.iter().any(|&byte| byte != 0) {
        let message = format!("{what} has fields that this version of the library does not know");
        return Err(Failure::new(WTACRS_STATUS_UNSUPPORTED, message));
    }
    let mut value = T::default();
    // SAFETY: no more bytes than there are, or than a `T` has, any of which are a value of it.
    unsafe { (&raw mut value).cast::<u8>().copy_from_nonoverlapping(bytes, known) };
    Ok(value)
}

/// Writes a struct, except for its size, as far as the caller's goes, and zeros into what lies behind it.
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
    let (to, known) = (found.as_ptr().cast::<u8>(), size.min(size_of::<T>()));
    // SAFETY: the caller says that there are `size` bytes, of which the size itself is the first; it is restored.
    unsafe {
        to.add(known).write_bytes(0, size - known);
        to.copy_from_nonoverlapping((&raw const value).cast(), known);
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
    if size >= T::FIRST_BYTES && isize::try_from(size).is_ok() {
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

    /// Options of a second version, of which the first had no `added`.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Grown {
        size: usize,
        value: f64,
        added: u64,
    }

    impl Default for Grown {
        fn default() -> Self {
            Self { size: size_of::<Self>(), value: 0.0, added: 5 }
        }
    }

    // SAFETY: as above.
    unsafe impl SizedStruct for Grown {
        const FIRST_BYTES: usize = core::mem::offset_of!(Grown, added);
    }

    #[test]
    fn a_struct_of_an_earlier_version_ends_early() {
        let mut given = Options { size: size_of::<Options>(), value: 2.5 };
        // SAFETY: every struct below has as many bytes as it says, or is refused for its size alone.
        let read = |pointer: *const Options| unsafe { super::read(pointer.cast::<Grown>(), "options") };
        assert_eq!(read(&given).expect("as the first version is"), Grown { size: 16, value: 2.5, added: 5 });
        // SAFETY: as above.
        unsafe { write((&raw mut given).cast(), "info", Grown { size: 0, value: 7.0, added: 8 }) }.expect("room");
        assert_eq!(given, Options { size: 16, value: 7.0 });
        given.size -= 1;
        assert_eq!(read(&given).expect_err("too short").status, WTACRS_STATUS_INVALID_ARGUMENT);
        let mut whole = Grown { size: 24, value: 1.0, added: 1 };
        // SAFETY: as above.
        assert_eq!(unsafe { super::read(&whole, "options") }.expect("as it is"), whole);
        // SAFETY: as above.
        unsafe { write(&mut whole, "info", Grown { size: 0, value: 7.0, added: 8 }) }.expect("room");
        assert_eq!(whole, Grown { size: 24, value: 7.0, added: 8 });
    }

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
