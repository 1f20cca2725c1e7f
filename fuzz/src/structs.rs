//! Structs that begin with their size, in every size: with exactly the bytes that they say they have.

use crate::memory::{MOST, Memory, Place};
use libfuzzer_sys::arbitrary::{self, Arbitrary};

/// The size that a struct says it has, and what lies behind the fields that are known.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Form {
    kind: u8,
    bytes: u8,
}

/// A struct, ready for a call.
#[derive(Clone, Copy, Debug)]
pub struct Struct<T> {
    pub pointer: *mut T,
    /// The bytes that it says it has, if there are so many.
    pub size: usize,
    /// Whether it can be read: of a size that is large enough, aligned, and without anything unknown.
    pub is_readable: bool,
}

impl<T> Struct<T> {
    /// Whether all its bytes can be written to, what is unknown of them too. The struct's first version has `first` bytes.
    pub fn is_writable(&self, first: usize) -> bool {
        self.size >= first && self.pointer.is_aligned()
    }

    /// Whether nothing or something that can be read is given where that is optional.
    pub fn is_readable_or_null(&self) -> bool {
        self.is_readable || self.pointer.is_null()
    }
}

impl Form {
    pub const PLAIN: Self = Self { kind: 0, bytes: 0 };

    pub fn is_null(self) -> bool {
        matches!(self.kind, 200..216)
    }

    /// A struct whose first field is its size, as this form has it.
    ///
    /// # Panics
    ///
    /// If `T` is larger than an argument may be.
    pub fn given<T: Copy>(self, memory: &mut Memory, value: T) -> Struct<T> {
        self.given_since(memory, value, size_of::<T>())
    }

    /// A struct that has grown: its first version had `first` bytes, and can be read still.
    ///
    /// # Panics
    ///
    /// If `T` is larger than an argument may be.
    pub fn given_since<T: Copy>(self, memory: &mut Memory, value: T, first: usize) -> Struct<T> {
        let (known, more) = (size_of::<T>(), usize::from(self.bytes) + 1);
        assert!(size_of::<usize>() <= known && known + more <= MOST);
        if self.is_null() {
            return Struct { pointer: std::ptr::null_mut(), size: 0, is_readable: false };
        }
        let (size, is_readable) = match self.kind {
            0..200 => (known, true),
            216..232 => (known + more, true),
            232..240 => (known + more, false),
            240..248 => (usize::from(self.bytes) % known, usize::from(self.bytes) % known >= first),
            248..252 => (usize::MAX - usize::from(self.bytes), false),
            _ => (known, false),
        };
        // The size itself can always be read.
        let room = if size > MOST { size_of::<usize>() } else { size.max(size_of::<usize>()) };
        let place = if self.kind >= 252 { Place::shifted(self.bytes % 7 + 1) } else { Place::Own(0) };
        let start = memory.place(place, room, 1);
        // SAFETY: `room` bytes were placed, of which the struct takes no more; nothing is read unaligned.
        unsafe {
            start.write_bytes(0, room);
            start.copy_from_nonoverlapping((&raw const value).cast(), room.min(known));
            start.cast::<usize>().write_unaligned(size);
            if matches!(self.kind, 232..240) {
                start.add(room - 1).write(1 + self.bytes / 2);
            }
        }
        Struct { pointer: start.cast(), size: if size > MOST { 0 } else { size }, is_readable }
    }
}
