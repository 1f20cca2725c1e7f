//! The planner: rows and bits for each layer of a model from one budget of memory, or of noise, for all of them.

use super::checkpoint::Checkpoint;
use crate::arguments::enums::{self, wtacrs_dtype, wtacrs_packing, wtacrs_target};
use crate::arguments::heap::{self, PER_PACKING_THREAD, PER_TOKEN};
use crate::arguments::options::{self, SizedStruct};
use crate::arguments::{Array, Tensor, check_disjoint, with_element};
use crate::boundary::status::*;
use crate::boundary::{Failure, Outcome, Registry, guard, poisoned};
use core::ffi::c_void;
use core::ptr;
use std::sync::{Arc, Mutex};
use wtacrs_core::Weights;
use wtacrs_core::allocation::{LayerBudget, Observation, Planned, Planner, Target, row_noise};

/// What training steps have shown of a model's layers, and a budget for each of them. A lock guards it, so threads may share
/// it. All of its memory, and all arrays that it is given, are the host's.
pub struct wtacrs_planner {
    _opaque: (),
}

#[derive(Default)]
struct State {
    planner: Planner,
    solved: Vec<Option<Planned>>,
}

static PLANNERS: Registry<Mutex<State>> = Registry::new("planner");

fn planner(handle: *const wtacrs_planner) -> Outcome<Arc<Mutex<State>>> {
    PLANNERS.get(handle)
}

/// What a training step has shown of one layer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct wtacrs_observation {
    /// sizeof(wtacrs_observation)
    pub size: usize,
    /// How many rows H had.
    pub tokens: usize,
    /// [in, optional] What the rows were chosen by, one number for each token (`weights` of wtacrs_forward_options). Without
    /// them the products of the norms below, which are the best that there could be.
    pub weights: *const f64,
    /// [in] Norms of the rows of H, one for each token.
    pub input_norms: *const f32,
    /// [in] Norms of the rows of this layer's dZ, one for each token (`dz_norms` of wtacrs_backward_options).
    pub dz_norms: *const f32,
    /// How many rows the estimate of dW was made of.
    pub budget_rows: usize,
    /// How they were saved.
    pub packing: wtacrs_packing,
    /// The squared Frobenius norm of the estimate of dW.
    pub squared_norm: f64,
    /// The squared Frobenius norm of its difference from the estimate in the observation before, or a number below 0 if that is
    /// not known. WTACRS_TARGET_NOISE requires some.
    pub squared_change: f64,
}

impl Default for wtacrs_observation {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            tokens: 0,
            weights: ptr::null(),
            input_norms: ptr::null(),
            dz_norms: ptr::null(),
            budget_rows: 0,
            packing: 0,
            squared_norm: 0.0,
            squared_change: -1.0,
        }
    }
}

// SAFETY: repr(C), begins with its size, and has pointers and numbers alone.
unsafe impl SizedStruct for wtacrs_observation {}

/// The budget of one layer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct wtacrs_planned {
    /// [in] sizeof(wtacrs_planned). The other fields are outputs.
    pub size: usize,
    /// The share of the rows to keep, for WTACRS_BUDGET_FRACTION.
    pub share: f64,
    /// How many rows the share was taken of: the mean of those that were observed.
    pub tokens: usize,
    /// The sum of expected |dW' - dW|^2 / |dW|^2 of the estimates dW' of this layer and of those that share its input.
    pub squared_error: f64,
    /// How to save the rows. WTACRS_PACKING_NATIVE with a share of 1 is a layer that is better left exact.
    pub packing: wtacrs_packing,
    /// 1; or 0, as all other fields, for a layer that was not observed before the planner was solved.
    pub is_planned: i32,
}

// SAFETY: repr(C), begins with its size, and has numbers alone.
unsafe impl SizedStruct for wtacrs_planned {}

/// A planner without layers.
///
/// planner   [out]
///
/// Errors: WTACRS_STATUS_NULL_POINTER, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_create(planner: *mut *mut wtacrs_planner) -> wtacrs_status {
    guard("wtacrs_planner_create", || {
        let output = Array::new(planner.cast_const(), 1, "planner")?;
        // SAFETY: checked for NULL and alignment; as documented for the rest.
        unsafe { output.set(PLANNERS.insert(Mutex::new(State::default()))) };
        Ok(())
    })
}

/// Destroys a planner; NULL is allowed.
///
/// Errors: WTACRS_STATUS_INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_destroy(planner: *mut wtacrs_planner) -> wtacrs_status {
    guard("wtacrs_planner_destroy", || PLANNERS.remove(planner))
}

/// Adds a layer whose H has rows of `in_features` elements of a dtype.
///
/// layer     [out] its number: 0 for the first, and one more for each
///
/// Errors: WTACRS_STATUS_INVALID_ENUM, _INVALID_ARGUMENT for no features, _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE,
/// _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_add_layer(
    planner: *mut wtacrs_planner,
    in_features: usize,
    dtype: wtacrs_dtype,
    layer: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_planner_add_layer", || {
        let (state, output) = (self::planner(planner)?, Array::new(layer.cast_const(), 1, "layer")?);
        let dtype = enums::dtype(dtype)?;
        if in_features == 0 {
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, "a layer of no features"));
        }
        if in_features > 1 << 32 {
            return Err(Failure::new(WTACRS_STATUS_SIZE_OVERFLOW, format!("a layer of {in_features} features")));
        }
        let number = state.lock().map_err(poisoned)?.planner.add_layer(in_features, dtype.bytes());
        // SAFETY: checked for NULL and alignment; as documented for the rest.
        unsafe { output.set(number) };
        Ok(())
    })
}

/// A layer reads the same H as an earlier one: both keep one selection of its rows, and get one budget.
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT for a layer that there is not, or that does not come later; _SHAPE_MISMATCH for other
/// rows; _NULL_POINTER, _INVALID_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_share_input(
    planner: *mut wtacrs_planner,
    layer: usize,
    first: usize,
) -> wtacrs_status {
    guard("wtacrs_planner_share_input", || {
        let state = self::planner(planner)?;
        Ok(state.lock().map_err(poisoned)?.planner.share_input(layer, first)?)
    })
}

/// Notes what a step has shown of a layer. It costs a sort of the tokens' weights: some layers in some steps are enough.
///
/// seen      [in]
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS names the first weight or norm that is negative or not finite; _INVALID_BUDGET for
/// `budget_rows`; _INVALID_ARGUMENT for a layer that there is not, no tokens, or another number that cannot be; _INVALID_ENUM,
/// _UNSUPPORTED, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. Nothing is then noted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_observe(
    planner: *mut wtacrs_planner,
    layer: usize,
    seen: *const wtacrs_observation,
) -> wtacrs_status {
    guard("wtacrs_planner_observe", || {
        let state = self::planner(planner)?;
        if seen.is_null() {
            return Err(Failure::new(WTACRS_STATUS_NULL_POINTER, "the observation is NULL"));
        }
        // SAFETY: as documented.
        let seen = unsafe { options::read(seen, "the observation") }?;
        let wtacrs_observation { tokens, budget_rows, squared_norm, squared_change, .. } = seen;
        let packing = enums::packing(seen.packing)?;
        if tokens == 0 {
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, "an observation of no tokens"));
        }
        if budget_rows == 0 || budget_rows > tokens {
            let message = format!("{budget_rows} rows of {tokens}: they must be from 1 to as many as there are tokens");
            return Err(Failure::new(WTACRS_STATUS_INVALID_BUDGET, message));
        }
        let weights = Array::optional(seen.weights, tokens, "weights")?;
        let norms =
            (Array::new(seen.input_norms, tokens, "input_norms")?, Array::new(seen.dz_norms, tokens, "dz_norms")?);
        heap::check("weights of all tokens", &[(tokens, 2 * PER_TOKEN)])?;
        // SAFETY: checked for NULL and alignment; as documented they hold one number for each token.
        let (weights, input, dz) = unsafe { (weights.map(|weights| weights.get()), norms.0.get(), norms.1.get()) };
        // Made in any case: this is what names a norm that is not finite.
        let exact = Weights::from_norms(input, dz)?;
        let weights = match weights {
            None => exact,
            Some(weights) => Weights::new(weights)?,
        };
        let squares: Vec<f64> = input.iter().zip(dz).map(|(&h, &dz)| (f64::from(h) * f64::from(dz)).powi(2)).collect();
        let seen = Observation {
            weights: &weights,
            squares: &squares,
            budget: LayerBudget { rows: budget_rows, packing },
            squared_norm,
            // Not a number is below nothing, and is refused.
            squared_change: if squared_change < 0.0 { None } else { Some(squared_change) },
        };
        Ok(state.lock().map_err(poisoned)?.planner.observe(layer, seen)?)
    })
}

/// Measures by some rows of a layer's H how much noise packing makes. A few dozen rows of one step are enough if they are from all
/// places of the sequences: first tokens alone may have less noise than the others. Without it, the noise is supposed that
/// activations of transformers have.
///
/// rows      how many there are
/// h         [in] rows x the layer's in_features, of the layer's dtype or another, in the host's memory, `h_leading` >=
///           in_features elements from row to row
///
/// Errors: WTACRS_STATUS_INVALID_WEIGHTS names a row with an element that is not finite; _INVALID_ARGUMENT for a layer that there
/// is not, or no rows; _INVALID_ENUM, _SIZE_OVERFLOW, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED. Nothing is then noted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_observe_rows(
    planner: *mut wtacrs_planner,
    layer: usize,
    dtype: wtacrs_dtype,
    rows: usize,
    h: *const c_void,
    h_leading: usize,
) -> wtacrs_status {
    guard("wtacrs_planner_observe_rows", || {
        let state = self::planner(planner)?;
        let dtype = enums::dtype(dtype)?;
        let columns = state.lock().map_err(poisoned)?.planner.columns(layer)?;
        if rows == 0 {
            return Err(Failure::new(WTACRS_STATUS_INVALID_ARGUMENT, "no rows to measure"));
        }
        let h = Tensor::rows(h, dtype, [rows, columns], h_leading, "h")?;
        heap::check("rows that are packed", &[(rows, columns), (2, PER_PACKING_THREAD), (columns, size_of::<f32>())])?;
        let noise = with_element!(dtype, T => {
            // SAFETY: checked; the caller has the rest.
            row_noise(unsafe { h.view::<T>() })?
        });
        Ok(state.lock().map_err(poisoned)?.planner.observe_noise(layer, noise)?)
    })
}

/// How many numbers the statistics of all layers are.
///
/// count     [out]
///
/// Errors: WTACRS_STATUS_NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_statistics_count(
    planner: *const wtacrs_planner,
    count: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_planner_statistics_count", || {
        let (state, output) = (self::planner(planner)?, Array::new(count.cast_const(), 1, "count")?);
        let count = state.lock().map_err(poisoned)?.planner.statistics_len();
        // SAFETY: an output of one number, checked for NULL and alignment.
        unsafe { output.set(count) };
        Ok(())
    })
}

/// What was observed since statistics were last applied, as plain sums: add them over the ranks, and give the same total to
/// every rank's wtacrs_planner_apply; then equal planners stay equal. The planner does not change.
///
/// sums      [out] room for `capacity` numbers
///
/// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_statistics(
    planner: *const wtacrs_planner,
    sums: *mut f64,
    capacity: usize,
) -> wtacrs_status {
    guard("wtacrs_planner_statistics", || {
        let state = self::planner(planner)?;
        let found = state.lock().map_err(poisoned)?.planner.pending();
        if capacity < found.len() {
            let message = format!("room for {capacity} sums where there are {}", found.len());
            return Err(Failure::new(WTACRS_STATUS_BUFFER_TOO_SMALL, message));
        }
        let output = Array::new(sums.cast_const(), found.len(), "sums")?;
        // SAFETY: checked for NULL and alignment; as documented for the rest.
        unsafe { output.get_mut() }.copy_from_slice(&found);
        Ok(())
    })
}

/// Takes statistics in, and forgets those that were not applied: they are among them. Without ranks, what
/// wtacrs_planner_statistics wrote.
///
/// sums      [in] `count` sums over all ranks
///
/// Errors: WTACRS_STATUS_SHAPE_MISMATCH for another count; _INVALID_ARGUMENT for a sum that is not finite; _NULL_POINTER,
/// _INVALID_HANDLE, _MISALIGNED. The planner is then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_apply(
    planner: *mut wtacrs_planner,
    sums: *const f64,
    count: usize,
) -> wtacrs_status {
    guard("wtacrs_planner_apply", || {
        let (state, sums) = (self::planner(planner)?, Array::new(sums, count, "sums")?);
        // SAFETY: checked for NULL and alignment; as documented for the rest.
        Ok(state.lock().map_err(poisoned)?.planner.apply(unsafe { sums.get() })?)
    })
}

/// Shares memory out among the layers by all that was applied, so that the sum of their relative squared errors is least.
/// wtacrs_planner_get_budget then has each layer's budget. Equal statistics and targets give equal budgets on every machine.
///
/// target    WTACRS_TARGET_MEMORY or WTACRS_TARGET_NOISE
/// share     of all bytes of the layers' inputs, in (0, 1]; or of the variance among batches, above 0
///
/// Errors: WTACRS_STATUS_INVALID_BUDGET if even the fewest rows and bits take more than `share`; _INVALID_ARGUMENT if nothing was
/// applied, for WTACRS_TARGET_NOISE also if no change was observed, and for a share out of its range; _INVALID_ENUM,
/// _NULL_POINTER, _INVALID_HANDLE. The budgets are then those from before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_solve(
    planner: *mut wtacrs_planner,
    target: wtacrs_target,
    share: f64,
) -> wtacrs_status {
    guard("wtacrs_planner_solve", || {
        let state = self::planner(planner)?;
        let targets: [fn(f64) -> Target; 2] = [Target::Memory, Target::Noise];
        let target = enums::one_of("target", target, &targets)?(share);
        let mut state = state.lock().map_err(poisoned)?;
        state.solved = state.planner.solve(target)?;
        Ok(())
    })
}

/// The whole planner as bytes, for a checkpoint, but for the budgets of its last solution.
///
/// buffer    [out] room for `capacity` bytes; NULL with `capacity` 0 to ask for their number alone
/// needed    [out] how many bytes there are, also with WTACRS_STATUS_BUFFER_TOO_SMALL
///
/// Errors: WTACRS_STATUS_BUFFER_TOO_SMALL, _OVERLAP, _NULL_POINTER, _INVALID_HANDLE, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_save(
    planner: *const wtacrs_planner,
    buffer: *mut c_void,
    capacity: usize,
    needed: *mut usize,
) -> wtacrs_status {
    guard("wtacrs_planner_save", || {
        let (state, output) = (self::planner(planner)?, Checkpoint::new(buffer, capacity, needed)?);
        let bytes = state.lock().map_err(poisoned)?.planner.to_bytes();
        // SAFETY: as documented.
        unsafe { output.write(&bytes) }
    })
}

/// A planner from the bytes that wtacrs_planner_save wrote, which goes on to the same bits.
///
/// bytes     [in] `length` of them
/// planner   [out]
///
/// Errors: WTACRS_STATUS_CORRUPTED, _VERSION_MISMATCH, _OVERLAP, _NULL_POINTER, _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_load(
    bytes: *const c_void,
    length: usize,
    planner: *mut *mut wtacrs_planner,
) -> wtacrs_status {
    guard("wtacrs_planner_load", || {
        let given = Array::new(bytes.cast::<u8>(), length, "bytes")?;
        let output = Array::new(planner.cast_const(), 1, "planner")?;
        check_disjoint(&[output.region()], &[given.region()])?;
        heap::check("a planner", &[(length, 2)])?;
        // SAFETY: checked for NULL; as documented there are `length` bytes.
        let planner = Planner::from_bytes(unsafe { given.get() })?;
        // SAFETY: checked for NULL and alignment; as documented for the rest.
        unsafe { output.set(PLANNERS.insert(Mutex::new(State { planner, solved: Vec::new() }))) };
        Ok(())
    })
}

/// A layer's budget, as the last wtacrs_planner_solve has found it.
///
/// planned   [in, out] with `size` set
///
/// Errors: WTACRS_STATUS_INVALID_ARGUMENT for a layer that there is not, or for the size; _NULL_POINTER, _INVALID_HANDLE,
/// _MISALIGNED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wtacrs_planner_get_budget(
    planner: *const wtacrs_planner,
    layer: usize,
    planned: *mut wtacrs_planned,
) -> wtacrs_status {
    guard("wtacrs_planner_get_budget", || {
        let state = self::planner(planner)?;
        let state = state.lock().map_err(poisoned)?;
        state.planner.columns(layer)?;
        let found = state.solved.get(layer).copied().flatten();
        let budget = found.map_or_else(wtacrs_planned::default, |found| wtacrs_planned {
            size: size_of::<wtacrs_planned>(),
            share: found.share(),
            tokens: found.pairs,
            squared_error: found.squared_error,
            packing: enums::number_of(found.budget.packing),
            is_planned: 1,
        });
        // SAFETY: as documented.
        unsafe { options::write(planned, "the budget", budget) }
    })
}
