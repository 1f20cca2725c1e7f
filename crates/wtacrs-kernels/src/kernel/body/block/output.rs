//! Writes results into a matrix: four neighbours of a row at a time, added to the old values if asked, and rounded once to
//! the matrix's element type.
//!
//! The four take one access of 8 or 16 bytes where the matrix is aligned to it and all of them lie inside, and one access
//! each elsewhere.

use super::repeat;
use crate::kernel::body::element::{Bf16, Element, F16};
use crate::kernel::matrix::DataType;
use wtacrs_simt::memory::{U32x2, U32x4, load, store};

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
            if self.output == DataType::F32 as u32 {
                self.write_f32(self.matrix.cast::<f32>().wrapping_add(element as usize), column, values);
            } else if self.output == DataType::F16 as u32 {
                self.write_half::<F16>(self.matrix.cast::<u16>().wrapping_add(element as usize), column, values);
            } else {
                self.write_half::<Bf16>(self.matrix.cast::<u16>().wrapping_add(element as usize), column, values);
            }
        }
    }

    /// Writes one value of a column that lies in the matrix.
    ///
    /// # Safety
    ///
    /// As for [`Self::write`].
    #[inline(always)]
    pub unsafe fn write_one(self, row: u32, column: u32, value: f32) {
        let element = (u64::from(row) * self.leading + u64::from(column)) as usize;
        // SAFETY: the caller's promise.
        unsafe {
            if self.output == DataType::F32 as u32 {
                let to = self.matrix.cast::<f32>().wrapping_add(element);
                store(to, if self.accumulate { value + load(to) } else { value });
            } else if self.output == DataType::F16 as u32 {
                self.write_one_half::<F16>(element, value);
            } else {
                self.write_one_half::<Bf16>(element, value);
            }
        }
    }

    #[inline(always)]
    unsafe fn write_one_half<T: Element<Bits = u16>>(self, element: usize, value: f32) {
        let to = self.matrix.cast::<u16>().wrapping_add(element);
        // SAFETY: the caller's promise.
        unsafe { store(to, T::narrow(if self.accumulate { value + T::widen(load(to)) } else { value })) }
    }

    #[inline(always)]
    fn whole(self, column: u32) -> bool {
        self.aligned && column < self.columns && self.columns - column >= 4
    }

    #[inline(always)]
    unsafe fn write_f32(self, to: *mut f32, column: u32, mut values: [f32; 4]) {
        // SAFETY: `whole` means that four elements lie there, aligned; otherwise each element's column is checked.
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
