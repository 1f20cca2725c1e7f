//! Each step alone on a GPU.

use super::{data_type, memory, strides};
use crate::array::{Array, check_disjoint, device_block, regions};
use crate::device::Gpu;
use crate::dtype::Dtype;
use crate::guard::Outcome;
use crate::linear::{norm_guess, update};
use crate::plan::Plan;
use crate::tensor::Tensor;
use core::ffi::c_void;
use core::ptr;
use wtacrs_kernels::plan::{
    DeviceRandomness, GatherBuffers, GradientBuffers, LinearPlan, Matrix, SelectBuffers, launch_column_norms,
    launch_row_norms,
};

/// A matrix as kernels take it.
pub(super) fn matrix(x: &Tensor<2>, dtype: Dtype) -> Outcome<Matrix> {
    let ([rows, columns], strides) = (x.shape(), strides(x)?);
    let matrix = Matrix { at: x.lowest(), data_type: data_type(dtype)?, batch: 1, rows, columns, strides };
    matrix.check()?;
    Ok(matrix)
}

/// # Safety
///
/// The contract of `wtacrs_row_norms`; `norms` was checked.
pub(crate) unsafe fn row_norms(
    gpu: &Gpu,
    x: &Tensor<2>,
    dtype: Dtype,
    norms: &Array<f32>,
    stream: *mut c_void,
) -> Outcome {
    let matrix = matrix(x, dtype)?;
    // SAFETY: checked; the caller has the rest.
    Ok(unsafe { launch_row_norms(&mut gpu.on(stream)?, &matrix, norms.as_ptr()) }?)
}

/// # Safety
///
/// The contract of `wtacrs_column_norms`; `norms` was checked.
pub(crate) unsafe fn column_norms(
    gpu: &Gpu,
    x: &Tensor<2>,
    dtype: Dtype,
    norms: &Array<f32>,
    stream: *mut c_void,
) -> Outcome {
    let matrix = matrix(x, dtype)?;
    // SAFETY: checked; the caller has the rest.
    Ok(unsafe { launch_column_norms(&mut gpu.on(stream)?, &matrix, norms.as_ptr()) }?)
}

/// Where a selection lies in device memory: room for as many pairs as the budget.
pub(crate) struct DeviceSelection {
    pub(crate) indices: Array<u32>,
    pub(crate) scales: Option<Array<f64>>,
    /// Two words: how many pairs, and a status.
    pub(crate) kept: Array<u64>,
}

impl DeviceSelection {
    pub(crate) fn new(plan: &Plan, indices: *const u32, scales: Option<*const f64>, kept: *const u64) -> Outcome<Self> {
        let budget = plan.budget.get();
        Ok(Self {
            indices: Array::new(indices, budget, "indices")?,
            scales: scales.map(|scales| Array::new(scales, budget, "scales")).transpose()?,
            kept: Array::new(kept, 1, "kept")?,
        })
    }

    fn regions(&self) -> Vec<crate::array::Region> {
        regions([Some(self.indices.region()), self.scales.as_ref().map(Array::region), Some(self.kept.region())])
    }

    fn scales(&self) -> *mut f64 {
        self.scales.as_ref().map_or(ptr::null_mut(), Array::as_ptr)
    }
}

/// # Safety
///
/// The contract of `wtacrs_select`.
pub(crate) unsafe fn select(
    plan: &Plan,
    linear: &LinearPlan,
    gpu: &Gpu,
    norms: [*const f32; 2],
    randomness: DeviceRandomness,
    item: u32,
    selection: &DeviceSelection,
    winners: *mut u64,
    scratch: &Array<u8>,
    stream: *mut c_void,
) -> Outcome {
    let [input_norms, guess] = norms;
    let input_norms = Array::new(input_norms, plan.tokens, "input_norms")?;
    let guess = norm_guess(plan, guess)?;
    let inputs = regions([Some(input_norms.region()), guess.as_ref().map(Array::region)]);
    let winners = Array::optional(winners, 1, "winners")?;
    let mut outputs = selection.regions();
    outputs.push(scratch.region());
    outputs.extend(winners.as_ref().map(Array::region));
    check_disjoint(&outputs, &inputs)?;
    let kept = selection.kept.as_ptr().cast::<u32>();
    let buffers = SelectBuffers {
        input_norms: input_norms.as_ptr(),
        guess: guess.map_or(ptr::null(), |guess| guess.as_ptr().cast_const()),
        indices: selection.indices.as_ptr(),
        scales: selection.scales(),
        count: kept,
        // The upper word, as GPUs count from the lowest byte.
        status: kept.wrapping_add(1),
        winners: winners.map_or(ptr::null_mut(), |winners| winners.as_ptr()),
        scratch: memory(scratch),
    };
    // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
    Ok(unsafe { linear.select(&mut gpu.on(stream)?, &buffers, randomness, item) }?)
}

/// # Safety
///
/// The contract of `wtacrs_weights`.
pub(crate) unsafe fn weights(
    plan: &Plan,
    linear: &LinearPlan,
    gpu: &Gpu,
    norms: [*const f32; 2],
    weights: &Array<f64>,
    stream: *mut c_void,
) -> Outcome {
    let [input_norms, guess] = norms;
    let input_norms = Array::new(input_norms, plan.tokens, "input_norms")?;
    let guess = norm_guess(plan, guess)?;
    let inputs = regions([Some(input_norms.region()), guess.as_ref().map(Array::region)]);
    check_disjoint(&[weights.region()], &inputs)?;
    let norms = [input_norms.as_ptr().cast_const(), guess.map_or(ptr::null(), |guess| guess.as_ptr().cast_const())];
    // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
    Ok(unsafe { linear.weights(&mut gpu.on(stream)?, norms, weights.as_ptr()) }?)
}

/// # Safety
///
/// The contract of `wtacrs_gather`.
pub(crate) unsafe fn gather(
    linear: &LinearPlan,
    gpu: &Gpu,
    h: Tensor<2>,
    selection: &DeviceSelection,
    rows: Tensor<2>,
    stream: *mut c_void,
) -> Outcome {
    let rows = rows.writable()?;
    let mut inputs = selection.regions();
    inputs.push(h.region());
    check_disjoint(&[rows.region()], &inputs)?;
    let linear = linear.with_strides([Some(strides(&h)?), None, None])?;
    let buffers = GatherBuffers {
        input: h.lowest(),
        indices: selection.indices.as_ptr(),
        count: selection.kept.as_ptr().cast(),
        rows: rows.lowest(),
        row_elements: strides(&rows)?.row,
    };
    // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
    Ok(unsafe { linear.gather(&mut gpu.on(stream)?, &buffers) }?)
}

/// # Safety
///
/// The contract of `wtacrs_weight_gradient`.
pub(crate) unsafe fn weight_gradient(
    plan: &Plan,
    linear: &LinearPlan,
    gpu: &Gpu,
    rows: Tensor<2>,
    selection: &DeviceSelection,
    [dz, dw]: [Tensor<2>; 2],
    accumulate: i32,
    (scratch, scratch_bytes): (*mut c_void, usize),
    stream: *mut c_void,
) -> Outcome {
    let dw = dw.writable()?;
    let update = update(accumulate)?;
    let scratch = device_block(scratch, scratch_bytes, plan.sizes.weight_gradient, "scratch")?;
    let mut inputs = selection.regions();
    inputs.extend([rows.region(), dz.region()]);
    check_disjoint(&[dw.region(), scratch.region()], &inputs)?;
    let linear = linear.with_strides([None, Some(strides(&dz)?), Some(strides(&dw)?)])?;
    let buffers = GradientBuffers {
        rows: rows.lowest(),
        row_elements: strides(&rows)?.row,
        indices: selection.indices.as_ptr(),
        scales: selection.scales(),
        count: selection.kept.as_ptr().cast(),
        gradient: dz.lowest(),
        weight_gradient: dw.lowest(),
        update,
        scratch: memory(&scratch),
    };
    // SAFETY: checked for NULL, size, alignment and overlap; the caller has the rest.
    Ok(unsafe { linear.gradient(&mut gpu.on(stream)?, &buffers) }?)
}
