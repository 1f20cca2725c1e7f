//! Writes results into a matrix: four neighbours of a row at a time, added to the old values if asked, and rounded once to
//! the matrix's element type.
//!
//! The four take one access of 8 or 16 bytes where the matrix is aligned to it and all of them lie inside, and one access
//! each elsewhere. Old values are fetched in a call of their own, so that several can be on their way together.

use super::repeat;
use super::vector::Packed;
use crate::kernel::body::element::{Bf16, F16, F32};
use crate::kernel::matrix::DataType;
use wtacrs_simt::memory::{U32x2, U32x4, load, store};

/// Old values of four neighbours, as they lie in memory: 16-bit elements fill the first two words.
///
/// No array: LLVM would join its words in pairs as soon as they are loaded, and so wait for the load.
#[derive(Clone, Copy, Debug)]
pub struct Old(u32, u32, u32, u32);

impl Old {
    /// Of no values.
    pub const NONE: Self = Self(0, 0, 0, 0);
}

/// An element type of outputs.
pub trait Output: Packed {
    /// The words of four neighbours.
    fn words(quad: Self::Quad) -> Old;
    /// Four neighbours of their words.
    fn quad(words: Old) -> Self::Quad;
    /// An element as the lower half of a word, or all of it.
    fn word(bits: Self::Bits) -> u32;
}

impl Output for F32 {
    #[inline(always)]
    fn words(U32x4([a, b, c, d]): U32x4) -> Old {
        Old(a, b, c, d)
    }

    #[inline(always)]
    fn quad(Old(a, b, c, d): Old) -> U32x4 {
        U32x4([a, b, c, d])
    }

    #[inline(always)]
    fn word(bits: f32) -> u32 {
        bits.to_bits()
    }
}

macro_rules! sixteen_bits {
    ($($element:ty)*) => {$(
        impl Output for $element {
            #[inline(always)]
            fn words(U32x2([low, high]): U32x2) -> Old {
                Old(low, high, 0, 0)
            }

            #[inline(always)]
            fn quad(Old(low, high, ..): Old) -> U32x2 {
                U32x2([low, high])
            }

            #[inline(always)]
            fn word(bits: u16) -> u32 {
                bits.into()
            }
        }
    )*};
}

sixteen_bits! { F16 Bf16 }

/// `typed!(destination, T => expression)`: the expression with T as the [`Output`] of the matrix. All threads take one
/// branch.
macro_rules! typed {
    ($destination:expr, $output:ident => $expression:expr) => {{
        use crate::kernel::body::element::{Bf16, F16, F32};
        use crate::kernel::matrix::DataType;
        let output = $destination.output();
        if output == DataType::F32 as u32 {
            type $output = F32;
            $expression
        } else if output == DataType::F16 as u32 {
            type $output = F16;
            $expression
        } else {
            type $output = Bf16;
            $expression
        }
    }};
}

pub(crate) use typed;

/// The matrix that results are written to.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    matrix: *mut u8,
    /// Elements from one row to the next.
    leading: u64,
    columns: u32,
    /// A [`DataType`].
    output: u32,
    accumulate: bool,
    /// Whether four elements, from a column that is a multiple of four, are aligned for one access.
    aligned: bool,
}

impl Destination {
    /// A matrix of `columns` columns; `output` is a [`DataType`].
    ///
    /// # Safety
    ///
    /// The rows that will be written are writable, and no other thread accesses the elements that this one writes.
    #[inline(always)]
    pub unsafe fn new(matrix: *mut u8, leading: u64, columns: u32, output: u32, accumulate: bool) -> Self {
        let bytes = if output == DataType::F32 as u32 { 4 } else { 2 };
        let aligned = (matrix.addr() as u64 | (leading * bytes)).is_multiple_of(4 * bytes);
        Self { matrix, leading, columns, output, accumulate, aligned }
    }

    /// The element type, for `typed!`.
    #[inline(always)]
    pub fn output(self) -> u32 {
        self.output
    }

    /// Whether results are added to old values.
    #[inline(always)]
    pub fn accumulates(self) -> bool {
        self.accumulate
    }

    /// The old values of those of four elements that lie in the matrix, in `row` from `column` on, a multiple of four, if
    /// results are added to them; otherwise zeros.
    ///
    /// # Safety
    ///
    /// As for [`Self::new`]; the matrix has the row.
    #[inline(always)]
    pub unsafe fn fetch(self, row: u32, column: u32) -> Old {
        // SAFETY: the caller's promise. The words of f16 and bf16 are fetched alike.
        unsafe {
            if !self.accumulate {
                Old::NONE
            } else if self.output == DataType::F32 as u32 {
                self.fetch_as::<F32>(row, column)
            } else {
                self.fetch_as::<Bf16>(row, column)
            }
        }
    }

    #[inline(always)]
    unsafe fn fetch_as<T: Output>(self, row: u32, column: u32) -> Old {
        let from: *mut T::Bits = self.place(row, column);
        // SAFETY: `whole` means that four elements lie there, aligned; otherwise each element's column is checked.
        unsafe {
            if self.whole(column) {
                T::words(load(from.cast::<T::Quad>()))
            } else {
                let word = |i: u32| {
                    if column + i < self.columns { T::word(load(from.wrapping_add(i as usize))) } else { 0 }
                };
                if T::PER_WORD == 1 {
                    Old(word(0), word(1), word(2), word(3))
                } else {
                    Old(word(0) | word(1) << 16, word(2) | word(3) << 16, 0, 0)
                }
            }
        }
    }

    /// Writes those of the four values that lie in the matrix to `row` from `column` on, a multiple of four, added to the
    /// old ones if that was asked.
    ///
    /// # Safety
    ///
    /// As for [`Self::new`], with elements of type T; the matrix has the row.
    #[inline(always)]
    pub unsafe fn put<T: Output>(self, row: u32, column: u32, mut values: [f32; 4], old: Old) {
        let to: *mut T::Bits = self.place(row, column);
        if self.accumulate {
            let old = T::from_quad(T::quad(old));
            repeat!(I in 0 1 2 3 => { values[I as usize] += old[I as usize]; });
        }
        // SAFETY: as in `fetch_as`.
        unsafe {
            if self.whole(column) {
                store(to.cast::<T::Quad>(), T::to_quad(values));
            } else {
                repeat!(I in 0 1 2 3 => {
                    if column + I < self.columns {
                        store(to.wrapping_add(I as usize), T::narrow(values[I as usize]));
                    }
                });
            }
        }
    }

    /// The old bits of an element that lies in the matrix, if results are added to it; otherwise 0.
    ///
    /// # Safety
    ///
    /// As for [`Self::new`]; the matrix has the row.
    #[inline(always)]
    pub unsafe fn fetch_one(self, row: u32, column: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe {
            if !self.accumulate {
                0
            } else if self.output == DataType::F32 as u32 {
                load(self.place::<u32>(row, column))
            } else {
                u32::from(load(self.place::<u16>(row, column)))
            }
        }
    }

    /// Writes one value of a column that lies in the matrix, added to the old one if that was asked.
    ///
    /// # Safety
    ///
    /// As for [`Self::put`].
    #[inline(always)]
    pub unsafe fn put_one<T: Output>(self, row: u32, column: u32, mut value: f32, old: u32) {
        if self.accumulate {
            let [old, ..] = T::from_quad(T::quad(Old(old, 0, 0, 0)));
            value += old;
        }
        // SAFETY: the caller's promise.
        unsafe { store(self.place(row, column), T::narrow(value)) }
    }

    #[inline(always)]
    fn place<B>(self, row: u32, column: u32) -> *mut B {
        let element = u64::from(row) * self.leading + u64::from(column);
        self.matrix.cast::<B>().wrapping_add(element as usize)
    }

    #[inline(always)]
    fn whole(self, column: u32) -> bool {
        self.aligned && column < self.columns && self.columns - column >= 4
    }
}
