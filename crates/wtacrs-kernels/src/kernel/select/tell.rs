//! The weights themselves, for looking at: what the selection's integers stand for, as `Weights::value` of wtacrs-core.
//!
//! It needs no scratch: the integers lie where the weights go. So a problem has one block, however many pairs.

use super::problem::Problem;
use super::weights::weigh;
use super::{Args, Design};
#[cfg(not(target_arch = "nvptx64"))]
use super::{MOST_THREADS, team};
#[cfg(not(target_arch = "nvptx64"))]
use crate::launch::Shape;
use core::ptr;
use wtacrs_simt::index::block;
use wtacrs_simt::memory::store;

/// What a launch is given. One grid.z for each problem of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WeightsArgs {
    /// batch × pairs norms ‖X_i‖.
    pub input_norms: *const f32,
    /// batch × pairs, by `source`; null for [`Source::Input`](super::Source::Input).
    pub other: *const f32,
    /// A [`Source`](super::Source).
    pub source: u32,
    /// Pairs of each problem: 1 to 2^31.
    pub pairs: u32,
    /// λ of [`Source::Cached`](super::Source::Cached).
    pub mix: f64,
    /// As for [`Args::clamp`].
    pub clamp: f64,
    /// batch × pairs weights; NaN for all pairs of a problem with norms that are no weight.
    pub weights: *mut f64,
}

/// Writes the weights.
///
/// # Safety
///
/// A launch of [`weights_shape`], and memory as [`WeightsArgs`] says.
#[inline(always)]
pub unsafe fn select_weights(args: &WeightsArgs) {
    let of = Args {
        input_norms: args.input_norms,
        other: args.other,
        source: args.source,
        pairs: args.pairs,
        budget: args.pairs,
        mix: args.mix,
        clamp: args.clamp,
        seed: 0,
        offset: 0,
        further_offset: ptr::null(),
        first_stream: 0,
        stream_step: 0,
        indices: ptr::null_mut(),
        scales: ptr::null_mut(),
        count: ptr::null_mut(),
        winners: ptr::null_mut(),
        status: ptr::null_mut(),
        scratch: ptr::null_mut(),
        boards: ptr::null_mut(),
    };
    // SAFETY: one block uses no board, and weighing no scratch but the place of the integers.
    let mut problem = unsafe { Problem::new(&of, Design::TopK as u32) };
    let weights = args.weights.wrapping_add(block()[2] as usize * args.pairs as usize);
    problem.layout.weights = weights.cast();
    let weighed = weigh(&mut problem);
    let (layout, scale) = (problem.layout, problem.scale);
    problem.run.for_each(
        // A pair's integer is where its own thread has left it.
        |pair| if weighed.is_ok() { layout.weight(pair) } else { 0 },
        |pair, integer| {
            let weight = if weighed.is_ok() { scale.value(integer) } else { f64::NAN };
            // SAFETY: the pair's own place.
            unsafe { store(weights.wrapping_add(pair as usize), weight) };
        },
    );
}

/// The launch for so many problems.
#[cfg(not(target_arch = "nvptx64"))]
pub fn weights_shape(pairs: u32, batch: u32) -> Shape {
    let threads = pairs.div_ceil(4).next_power_of_two().clamp(32, MOST_THREADS);
    Shape { grid: [1, 1, batch], block: threads, shared_bytes: team::ROOMS, cooperative: false }
}
