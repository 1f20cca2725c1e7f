//! A caller's matrices and tensors: pointer, dtype, shape and strides, checked before any element is touched.

use super::array::Region;
use super::elements::Number;
use super::enums::Dtype;
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome};
use core::ffi::c_void;
use core::ptr::NonNull;
use ndarray::{ArrayView, ArrayViewMut, Axis, Dim, Dimension, ShapeBuilder};

/// N axes of elements in a caller's memory. Strides are in elements; axes of one element or none have stride 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tensor<const N: usize> {
    /// The element at the lowest address, and not index 0 where strides are negative.
    lowest: *mut u8,
    dtype: Dtype,
    shape: [usize; N],
    strides: [isize; N],
    region: Region,
}

impl<const N: usize> Tensor<N> {
    /// Any strides, even zero or negative.
    ///
    /// # Errors
    ///
    /// Without elements, none but sizes. NULL_POINTER, MISALIGNED, SIZE_OVERFLOW.
    pub(crate) fn new(
        pointer: *const c_void,
        dtype: Dtype,
        shape: [usize; N],
        strides: [isize; N],
        what: &'static str,
    ) -> Outcome<Self> {
        let overflow =
            || Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("{what}: {shape:?} elements cannot be addressed"));
        // Without the empty axes: so ndarray counts as well.
        let count = shape.iter().filter(|&&len| len > 0).try_fold(1_usize, |count, &len| count.checked_mul(len));
        count.filter(|&count| isize::try_from(count).is_ok()).ok_or_else(overflow)?;
        let start = pointer.addr();
        if shape.contains(&0) {
            let region = Region { start, bytes: 0, what };
            return Ok(Self { lowest: pointer.cast_mut().cast(), dtype, shape, strides: [0; N], region });
        }
        if pointer.is_null() {
            return Err(Failure::new(WTACRS_STATUS_NULL_POINTER, format!("{what} is NULL")));
        }
        let bytes = dtype.bytes();
        if !start.is_multiple_of(bytes) {
            return Err(Failure::new(
                WTACRS_STATUS_MISALIGNED,
                format!("{what} is at {start:#x}, not a multiple of {bytes}"),
            ));
        }
        let strides = core::array::from_fn(|axis| if shape[axis] > 1 { strides[axis] } else { 0 });
        // Offsets of the first and the last element in memory from index 0.
        let (mut low, mut high) = (0_isize, 0_isize);
        for (&stride, &len) in strides.iter().zip(&shape) {
            let reach =
                isize::try_from(len - 1).ok().and_then(|steps| stride.checked_mul(steps)).ok_or_else(overflow)?;
            let end = if reach < 0 { &mut low } else { &mut high };
            *end = end.checked_add(reach).ok_or_else(overflow)?;
        }
        let in_bytes = |elements: isize| elements.checked_mul(bytes as isize);
        let extent = high.checked_sub(low).and_then(|elements| elements.checked_add(1)).and_then(in_bytes);
        let below = in_bytes(low).and_then(|low| start.checked_add_signed(low));
        let (Some(extent), Some(below)) = (extent, below) else { return Err(overflow()) };
        below.checked_add(extent as usize).ok_or_else(overflow)?;
        let region = Region { start: below, bytes: extent as usize, what };
        let lowest = pointer.cast_mut().cast::<u8>().wrapping_offset(low * bytes as isize);
        Ok(Self { lowest, dtype, shape, strides, region })
    }

    /// Row by row without gaps.
    pub(crate) fn contiguous(
        pointer: *const c_void,
        dtype: Dtype,
        shape: [usize; N],
        what: &'static str,
    ) -> Outcome<Self> {
        let strides = compact_strides(shape).ok_or_else(|| {
            Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("{what}: {shape:?} elements cannot be addressed"))
        })?;
        Self::new(pointer, dtype, shape, strides, what)
    }

    /// The same as an output: no two indices may be one element.
    pub(crate) fn writable(self) -> Outcome<Self> {
        let mut axes: [(usize, usize); N] =
            core::array::from_fn(|axis| (self.strides[axis].unsigned_abs(), self.shape[axis]));
        axes.sort_unstable();
        let mut reach = 0;
        for (stride, len) in axes.into_iter().filter(|&(_, len)| len > 1) {
            if stride <= reach && !self.shape.contains(&0) {
                let message = format!("{}: with strides {:?} elements share memory", self.region.what, self.strides);
                return Err(Failure::new(WTACRS_STATUS_OVERLAP, message));
            }
            // Cannot overflow: `new` has added them up.
            reach += stride * (len - 1);
        }
        Ok(self)
    }

    pub(crate) fn region(&self) -> Region {
        self.region
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub(crate) fn shape(&self) -> [usize; N] {
        self.shape
    }

    /// Elements from one index to the next; 0 for axes of one element or none.
    pub(crate) fn strides(&self) -> [isize; N] {
        self.strides
    }

    /// The element at the lowest address.
    pub(crate) fn lowest(&self) -> *mut u8 {
        self.lowest
    }

    /// # Safety
    ///
    /// Every element must be readable, and nobody may write to one, as long as the view lives. `T` is the dtype's.
    pub(crate) unsafe fn view<'a, T: Number>(&self) -> ArrayView<'a, T, Dim<[usize; N]>>
    where
        [usize; N]: ndarray::IntoDimension<Dim = Dim<[usize; N]>>,
        Dim<[usize; N]>: Dimension,
    {
        assert_eq!(T::DTYPE, self.dtype, "the view's type is the tensor's");
        if self.shape.contains(&0) {
            // SAFETY: no element is read.
            return unsafe { ArrayView::from_shape_ptr(self.shape, NonNull::dangling().as_ptr()) };
        }
        let strides = Dim(self.strides.map(isize::unsigned_abs));
        // SAFETY: `new` has checked for NULL, alignment, and that all offsets stay within the address space; the
        // caller has the rest. With the negative strides turned, `lowest` is the view's first element.
        let mut view = unsafe { ArrayView::from_shape_ptr(Dim(self.shape).strides(strides), self.lowest.cast()) };
        for axis in self.turned() {
            view.invert_axis(axis);
        }
        view
    }

    /// # Safety
    ///
    /// Every element must be writable, and nobody else may use one, as long as the view lives. `T` is the dtype's, and
    /// the tensor is [`Self::writable`].
    pub(crate) unsafe fn view_mut<'a, T: Number>(&self) -> ArrayViewMut<'a, T, Dim<[usize; N]>>
    where
        [usize; N]: ndarray::IntoDimension<Dim = Dim<[usize; N]>>,
        Dim<[usize; N]>: Dimension,
    {
        assert_eq!(T::DTYPE, self.dtype, "the view's type is the tensor's");
        if self.shape.contains(&0) {
            // SAFETY: no element is written.
            return unsafe { ArrayViewMut::from_shape_ptr(self.shape, NonNull::dangling().as_ptr()) };
        }
        let strides = Dim(self.strides.map(isize::unsigned_abs));
        // SAFETY: as in `view`; `writable` has checked that no two indices are one element.
        let mut view = unsafe { ArrayViewMut::from_shape_ptr(Dim(self.shape).strides(strides), self.lowest.cast()) };
        for axis in self.turned() {
            view.invert_axis(axis);
        }
        view
    }

    fn turned(&self) -> impl Iterator<Item = Axis> + use<N> {
        let strides = self.strides;
        (0..N).filter(move |&axis| strides[axis] < 0).map(Axis)
    }
}

impl Tensor<4> {
    /// The matrix of the last two axes at the given indices of the first two, which must be within the shape.
    pub(crate) fn matrix(&self, at: [usize; 2]) -> Tensor<2> {
        let mut offset = 0;
        for (axis, &index) in at.iter().enumerate() {
            assert!(index < self.shape[axis], "there is no such matrix");
            let steps = if self.strides[axis] < 0 { self.shape[axis] - 1 - index } else { index };
            offset += steps * self.strides[axis].unsigned_abs();
        }
        let lowest =
            if self.shape.contains(&0) { self.lowest } else { self.lowest.wrapping_add(offset * self.dtype.bytes()) };
        let (shape, strides) = ([self.shape[2], self.shape[3]], [self.strides[2], self.strides[3]]);
        Tensor { lowest, dtype: self.dtype, shape, strides, region: self.region }
    }
}

// SAFETY: a tensor is an address and numbers; only unsafe functions touch the elements, on their own promises.
unsafe impl<const N: usize> Send for Tensor<N> {}
// SAFETY: as above.
unsafe impl<const N: usize> Sync for Tensor<N> {}

impl Tensor<2> {
    /// Row by row, `leading` elements from one row to the next.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT if rows would overlap; and as for [`Self::new`].
    pub(crate) fn rows(
        pointer: *const c_void,
        dtype: Dtype,
        shape: [usize; 2],
        leading: usize,
        what: &'static str,
    ) -> Outcome<Self> {
        if leading < shape[1] {
            let message = format!("{what}: {leading} from row to row, but {} columns", shape[1]);
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, message));
        }
        let leading = isize::try_from(leading)
            .map_err(|_| Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("{what}: {leading} from row to row")))?;
        Self::new(pointer, dtype, shape, [leading, 1], what)
    }
}

/// Strides of rows without gaps; none if they overflow.
pub(crate) fn compact_strides<const N: usize>(shape: [usize; N]) -> Option<[isize; N]> {
    let mut strides = [1; N];
    let mut stride = 1_isize;
    for (to, len) in strides.iter_mut().zip(shape).rev() {
        *to = stride;
        stride = stride.checked_mul(isize::try_from(len.max(1)).ok()?)?;
    }
    Some(strides)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};

    fn pointer<T>(values: &[T]) -> *const c_void {
        values.as_ptr().cast()
    }

    #[test]
    fn strides_of_every_kind() {
        let values: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let grid = Array2::from_shape_vec((4, 6), values.clone()).expect("24");
        let tensor = |offset: usize, shape, strides| {
            let tensor = Tensor::<2>::new(pointer(&values[offset..]), Dtype::F32, shape, strides, "x").expect("valid");
            // SAFETY: all of it lies within `values`.
            unsafe { tensor.view::<f32>() }.to_owned()
        };
        assert_eq!(tensor(0, [4, 6], [6, 1]), grid);
        assert_eq!(tensor(0, [6, 4], [1, 6]), grid.t());
        assert_eq!(tensor(23, [4, 6], [-6, -1]), grid.slice(s![..;-1, ..;-1]));
        assert_eq!(tensor(5, [4, 3], [6, -2]), grid.slice(s![.., 1..;2]).slice(s![.., ..;-1]));
        assert_eq!(tensor(6, [3, 6], [0, 1]), grid.slice(s![1..2, ..]).broadcast((3, 6)).expect("one row"));
        assert_eq!(tensor(7, [1, 1], [isize::MIN, isize::MAX]), grid.slice(s![1..2, 1..2]));
        assert_eq!(tensor(0, [0, 5], [isize::MAX, 1]).dim(), (0, 5));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let values = [0.0_f32; 24];
        let at = pointer(&values);
        let status = |pointer, shape, strides| {
            Tensor::<2>::new(pointer, Dtype::F32, shape, strides, "x")
                .map_or_else(|failure| failure.status, |_| WTACRS_STATUS_OK)
        };
        assert_eq!(status(core::ptr::null(), [1, 1], [1, 1]), WTACRS_STATUS_NULL_POINTER);
        assert_eq!(status(core::ptr::null(), [0, 1], [1, 1]), WTACRS_STATUS_OK);
        assert_eq!(status(at.cast::<u8>().wrapping_add(2).cast(), [1, 1], [1, 1]), WTACRS_STATUS_MISALIGNED);
        for (shape, strides) in [
            ([usize::MAX, 2], [1, 1]),
            ([1 << 33, 1 << 33], [0, 0]),
            ([2, 2], [isize::MAX, 1]),
            ([2, 2], [isize::MIN, 1]),
            ([2, 2], [isize::MAX, isize::MIN]),
            ([1 << 40, 1 << 22], [1 << 22, 1]),
            ([3, 2], [isize::MAX / 2, 1]),
            ([2, 2], [-(1 << 60), 1]),
        ] {
            assert_eq!(status(at, shape, strides), WTACRS_STATUS_SIZE_OVERFLOW, "{shape:?} {strides:?}");
        }
    }

    #[test]
    fn outputs_have_no_element_twice() {
        let values = [0.0_f32; 24];
        let writable = |shape, strides| {
            let tensor = Tensor::<2>::new(pointer(&values), Dtype::F32, shape, strides, "x").expect("valid");
            tensor.writable().is_ok()
        };
        assert!(writable([4, 6], [6, 1]) && writable([6, 4], [1, 6]) && writable([3, 3], [6, 2]));
        assert!(writable([1, 6], [0, 1]) && writable([0, 6], [0, 0]));
        assert!(!writable([4, 6], [0, 1]) && !writable([4, 6], [5, 1]) && !writable([4, 3], [4, 2]));
    }

    #[test]
    fn compact_strides_fit_or_are_none() {
        assert_eq!(compact_strides([2, 3, 4]), Some([12, 4, 1]));
        assert_eq!(compact_strides([2, 0, 4]), Some([4, 4, 1]));
        assert_eq!(compact_strides([usize::MAX, 2, 2]), None);
        assert_eq!(compact_strides([1 << 32, 1 << 32]), None);
    }
}
