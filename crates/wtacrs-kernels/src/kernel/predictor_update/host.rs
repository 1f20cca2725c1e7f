//! The predictor's launches and memory, from the host's side.

use super::features::SCRATCH_BYTES;
use super::{MOST_FEATURES, Projection, Scratch, State, apply, sums};
use crate::block::row_team;
use crate::launch::Shape;
use wtacrs_core::guesses::{NormPredictor, Placement, PredictorError};
use wtacrs_exact::predictor::{state as layout, sums as order};

/// The launch of `predictor_features`, for the arguments' `budget`, `rows_per_update`, `in_features` and `features`.
pub fn features_shape(budget: u32, rows_per_update: u32, in_features: u32, features: u32) -> Shape {
    let width = Projection::new(in_features, features).width;
    let shared_bytes = SCRATCH_BYTES + 4 * width;
    Shape {
        grid: [budget.min(rows_per_update).max(1), 1, 1],
        block: row_team::THREADS,
        shared_bytes,
        cooperative: false,
    }
}

/// The launch of `predictor_sums`.
pub fn sums_shape(in_features: u32, features: u32) -> Shape {
    let tiles = Projection::new(in_features, features).features.div_ceil(sums::TILE);
    let grid = [tiles, tiles + 1, 1];
    Shape { grid, block: sums::THREADS, shared_bytes: sums::SHARED_BYTES, cooperative: false }
}

/// The launch of `predictor_apply`.
pub fn apply_shape() -> Shape {
    Shape { grid: [1, 1, 1], block: apply::THREADS, shared_bytes: apply::SHARED_BYTES, cooperative: false }
}

/// Bytes of `Args::scratch`.
pub fn scratch_bytes(budget: u32, rows_per_update: u32, in_features: u32, features: u32) -> u64 {
    let blocks = budget.min(rows_per_update).max(1);
    Scratch::new(blocks, Projection::new(in_features, features).features).invalid + 4 * u64::from(blocks)
}

/// How many numbers `Args::sums` has: as many as `StepStatistics::sums` of wtacrs-core.
pub fn sums_len(in_features: u32, features: u32) -> usize {
    order::len(Projection::new(in_features, features).features as usize)
}

/// Bytes of `Args::sums`.
pub fn sums_bytes(in_features: u32, features: u32) -> u64 {
    8 * sums_len(in_features, features) as u64
}

/// A predictor's state, to be copied to a device; none if it has more than [`MOST_FEATURES`].
pub fn state_bytes(predictor: &NormPredictor) -> Option<Vec<u8>> {
    let state = state_of(predictor)?;
    let mut bytes = vec![0; state.bytes as usize];
    write(&mut bytes, 0, predictor.state().iter().flat_map(|number| number.to_le_bytes()));
    write(&mut bytes, state.theta, predictor.theta().iter().flat_map(|&theta| (theta as f32).to_le_bytes()));
    write(&mut bytes, state.signs, predictor.sign_words().iter().flat_map(|word| word.to_le_bytes()));
    let Placement { excess, intercept, shift, slope } = predictor.placement();
    let placement = [excess, intercept, shift, slope];
    write(&mut bytes, state.placement, placement.into_iter().flat_map(|number| number.to_le_bytes()));
    Some(bytes)
}

/// A predictor takes over what its copy on a device has learned.
///
/// # Errors
///
/// Bytes of another length than [`State::bytes`]; numbers that are not finite.
pub fn load_state(predictor: &mut NormPredictor, bytes: &[u8]) -> Result<(), PredictorError> {
    let (expected, found) = (state_of(predictor).map_or(0, |state| state.bytes as usize), bytes.len());
    if expected != found {
        return Err(PredictorError::LengthMismatch { what: "the state", expected, found });
    }
    let count = layout::len(predictor.features());
    let (words, _) = bytes[..8 * count].as_chunks::<8>();
    let learned: Vec<f64> = words.iter().map(|word| f64::from_le_bytes(*word)).collect();
    predictor.restore(&learned)
}

fn state_of(predictor: &NormPredictor) -> Option<State> {
    let in_features = u32::try_from(predictor.in_features()).ok()?;
    let features = u32::try_from(predictor.features()).ok().filter(|r| *r <= MOST_FEATURES)?;
    Some(State::new(in_features, features))
}

fn write(bytes: &mut [u8], first: u64, values: impl Iterator<Item = u8>) {
    bytes[first as usize..].iter_mut().zip(values).for_each(|(to, from)| *to = from);
}
