//! Results on their way into a matrix: four neighbours of a row at a time, added to what is there if asked, and rounded
//! once to the matrix's element type.
//!
//! One 8- or 16-byte access where the matrix is aligned to it and the four lie inside, single elements elsewhere.

use super::repeat::repeat;
use crate::element::{Bf16, Element, F16};
use wtacrs_simt::memory::{U32x2, U32x4, load, store};

/// An element type of a matrix that a kernel writes, as a number in its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Output {
    /// IEEE single precision.
    F32 = 0,
    /// IEEE half precision.
    F16 = 1,
    /// bfloat16.
    Bf16 = 2,
}

impl Output {
    /// Bytes of an element.
    #[inline(always)]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// A matrix that results are written to.
#[derive(Clone, Copy, Debug)]
pub struct Destination {
    matrix: *mut u8,
    /// Elements from one row to the next.
    leading: u64,
    columns: u32,
    /// An [`Output`].
    output: u32,
    accumulate: bool,
    /// Whether four elements, at a column that is a multiple of four, are aligned as one access wants them.
    aligned: bool,
}

impl Destination {
    /// A matrix of `columns` columns; `output` is an [`Output`].
    ///
    /// # Safety
    ///
    /// The rows that will be written are writable, and nobody else accesses what this thread writes.
    #[inline(always)]
    pub unsafe fn new(matrix: *mut u8, leading: u64, columns: u32, output: u32, accumulate: bool) -> Self {
        let bytes = if output == Output::F32 as u32 { 4 } else { 2 };
        let aligned = (matrix.addr() as u64 | (leading * bytes)).is_multiple_of(4 * bytes);
        Self { matrix, leading, columns, output, accumulate, aligned }
    }

    /// Writes those of the four values that lie in the matrix to `row` from `column` on, a multiple of four.
    ///
    /// # Safety
    ///
    /// As for [`Self::new`]; the matrix has the row.
    #[inline(always)]
    pub unsafe fn write(self, row: u32, column: u32, values: [f32; 4]) {
        let element = u64::from(row) * self.leading + u64::from(column);
        // SAFETY: the caller's promise.
        unsafe {
            if self.output == Output::F32 as u32 {
                self.write_f32(self.matrix.cast::<f32>().wrapping_add(element as usize), column, values);
            } else if self.output == Output::F16 as u32 {
                self.write_half::<F16>(self.matrix.cast::<u16>().wrapping_add(element as usize), column, values);
            } else {
                self.write_half::<Bf16>(self.matrix.cast::<u16>().wrapping_add(element as usize), column, values);
            }
        }
    }

    #[inline(always)]
    fn whole(self, column: u32) -> bool {
        self.aligned && column < self.columns && self.columns - column >= 4
    }

    #[inline(always)]
    unsafe fn write_f32(self, to: *mut f32, column: u32, mut values: [f32; 4]) {
        // SAFETY: `whole` says that four elements lie there, aligned; else each is asked for its column.
        unsafe {
            if self.whole(column) {
                if self.accumulate {
                    let U32x4(old) = load(to.cast::<U32x4>());
                    repeat!(I in 0 1 2 3 => { values[I as usize] += f32::from_bits(old[I as usize]); });
                }
                store(to.cast::<U32x4>(), U32x4(values.map(f32::to_bits)));
            } else {
                repeat!(I in 0 1 2 3 => {
                    if column + I < self.columns {
                        let to = to.wrapping_add(I as usize);
                        let old = if self.accumulate { load(to) } else { 0.0 };
                        let value = values[I as usize];
                        store(to, if self.accumulate { value + old } else { value });
                    }
                });
            }
        }
    }

    #[inline(always)]
    unsafe fn write_half<T: Element<Bits = u16>>(self, to: *mut u16, column: u32, mut values: [f32; 4]) {
        // SAFETY: as in `write_f32`.
        unsafe {
            if self.whole(column) {
                if self.accumulate {
                    let U32x2([low, high]) = load(to.cast::<U32x2>());
                    let old = [low as u16, (low >> 16) as u16, high as u16, (high >> 16) as u16];
                    repeat!(I in 0 1 2 3 => { values[I as usize] += T::widen(old[I as usize]); });
                }
                let [a, b, c, d] = values.map(|value| u32::from(T::narrow(value)));
                store(to.cast::<U32x2>(), U32x2([a | b << 16, c | d << 16]));
            } else {
                repeat!(I in 0 1 2 3 => {
                    if column + I < self.columns {
                        let to = to.wrapping_add(I as usize);
                        let mut value = values[I as usize];
                        if self.accumulate {
                            value += T::widen(load(to));
                        }
                        store(to, T::narrow(value));
                    }
                });
            }
        }
    }
}
