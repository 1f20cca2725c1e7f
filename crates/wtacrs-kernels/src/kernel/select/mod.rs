//! Weights → threshold, winners, draws from the tail → ascending indices and scales, in one launch.
//!
//! ```text
//! norms ── weights ── integers ── threshold ── counts (by design) ── indices, scales
//! ```
//!
//! Indices and scales are those of the designs of wtacrs-core on its CPU path, bit by bit, for every number of threads and
//! blocks: all that decides is arithmetic on integers whose order does not matter, or chance indexed by pair, stratum or
//! tree node. A problem has one block, or several that tell one another what they find (`kernel::team`).

mod emit;
mod independent;
mod layout;
mod pivotal;
mod problem;
mod stratified;
mod tell;
mod top_k;
mod uniform;
mod weights;

use self::emit::{Scaling, emit};
use self::problem::Problem;
#[cfg(not(target_arch = "nvptx64"))]
pub use self::tell::weights_shape;
pub use self::tell::{WeightsArgs, select_weights};
use crate::block::scan::Prefix;
#[cfg(not(target_arch = "nvptx64"))]
use crate::kernel::team;
#[cfg(not(target_arch = "nvptx64"))]
use crate::launch::{Kernel, Shape};
use wtacrs_exact::threshold::Threshold;
use wtacrs_simt::index::{block, thread};
use wtacrs_simt::memory::store;

/// Where weights come from: the value of [`Args::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Source {
    /// w = input_norms.
    Input = 0,
    /// w = input_norms · other, `other` being norms of dZ.
    Norms = 1,
    /// `other` are norms that a cache remembers, negative where it does not: see `Weights::from_cache` of wtacrs-core.
    Cached = 2,
    /// `other` are log-norms up to a constant, as `row_norms` makes them of a predictor's θ: w = input_norms · e^guess.
    Predicted = 3,
}

/// Which rule selects: the designs of wtacrs-core. Each has a kernel of its own, see [`kernel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Design {
    /// `Uniform`.
    Uniform = 0,
    /// `Crs`.
    Crs = 1,
    /// `TopK`.
    TopK = 2,
    /// `WtaIid`.
    WtaIid = 3,
    /// `WtaStratified`.
    WtaStratified = 4,
    /// `WtaPivotal`.
    WtaPivotal = 5,
}

/// What a launch is given. One grid.z for each problem of a batch, one grid.x for each of a problem's blocks.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// batch × pairs norms ‖X_i‖.
    pub input_norms: *const f32,
    /// batch × pairs, by `source`; null for [`Source::Input`].
    pub other: *const f32,
    /// A [`Source`].
    pub source: u32,
    /// Pairs of each problem: 1 to 2^31.
    pub pairs: u32,
    /// Pairs to keep: 1 ≤ budget ≤ pairs.
    pub budget: u32,
    /// λ of [`Source::Cached`].
    pub mix: f64,
    /// [`Source::Predicted`]: guesses stay within e^±clamp of their geometric mean.
    pub clamp: f64,
    /// The generator's key.
    pub seed: u64,
    /// The first block of its counter.
    pub offset: u64,
    /// A number in device memory that is added to `offset`, so that a captured graph can be replayed with new bits; or
    /// null.
    pub further_offset: *const u64,
    /// The stream of the batch's first problem.
    pub first_stream: u32,
    /// From one problem's stream to the next.
    pub stream_step: u32,
    /// batch × budget indices, ascending; entries from `count` on are not written.
    pub indices: *mut u32,
    /// batch × budget scales 1/π, as above.
    pub scales: *mut f64,
    /// For each problem, how many pairs were selected.
    pub count: *mut u32,
    /// For each problem, how many of them were certain; null if nobody wants to know.
    pub winners: *mut u64,
    /// For each problem, 0, or 1 + the index of the first pair whose norms are no weight (negative, infinite or NaN);
    /// nothing is selected then.
    pub status: *mut u32,
    /// [`scratch_bytes`] for each problem, aligned to 16; of any content.
    pub scratch: *mut u8,
    /// [`board_words`] for each problem, zero before the launch: what its blocks tell one another by.
    pub boards: *mut u64,
}

/// Selects. Collectives, each of one barrier (and of another and a round of telling if there are several blocks), for n pairs:
/// two for the weights, one for each pass of the threshold, and one for the output. The tree of wta-pivotal has a barrier
/// for each level of more than 32 duels and one at its end, twice if there are several blocks.
///
/// # Safety
///
/// A launch of a [`Shape`] of [`shape`] or [`shape_with`], and memory as [`Args`] says.
#[inline(always)]
pub unsafe fn select<const DESIGN: u32>(args: &Args) {
    // SAFETY: the caller's promise.
    let mut problem = unsafe { Problem::new(args, DESIGN) };
    let weighed = weights::weigh(&mut problem);
    if problem.team.rank == 0 && thread() == 0 {
        let at = block()[2] as usize;
        // SAFETY: the problem's own places.
        unsafe {
            store(args.status.wrapping_add(at), weighed.map_or_else(|invalid| invalid + 1, |_| 0));
            if weighed.is_err() {
                store(args.count.wrapping_add(at), 0);
            }
        }
        if weighed.is_err() {
            tell_winners(&problem, args, 0);
        }
    }
    if let Ok(total) = weighed {
        let (threshold, places) = choose(&mut problem, args, DESIGN, total);
        emit(&problem, args, &Scaling { design: DESIGN, threshold, total }, places);
    }
}

/// Writes how many winners there are, if anybody wants to know: as soon as it is known, since a number that waits for the
/// end takes a register from the draws.
#[inline(always)]
fn tell_winners(problem: &Problem, args: &Args, winners: u64) {
    if !args.winners.is_null() && problem.team.rank == 0 && thread() == 0 {
        // SAFETY: the problem's own place.
        unsafe { store(args.winners.wrapping_add(block()[2] as usize), winners) };
    }
}

/// Counts how often each pair is selected; tells the threshold, if the design has one, and where the warp's pairs are
/// written.
#[inline(always)]
fn choose(problem: &mut Problem, args: &Args, design: u32, total: u64) -> (Threshold, Prefix<u64>) {
    let none = Threshold { cut: u64::MAX, winners: 0, tail_mass: 0, tail_places: 0 };
    if design == Design::Uniform as u32 {
        tell_winners(problem, args, if problem.budget == problem.pairs { u64::from(problem.pairs) } else { 0 });
        uniform::select(problem);
        return (none, emit::place(problem));
    }
    if design == Design::TopK as u32 {
        top_k::select(problem);
        return (none, emit::place(problem));
    }
    let threshold = if design == Design::Crs as u32 { none } else { problem.threshold(total) };
    tell_winners(problem, args, threshold.winners as u64);
    if design == Design::WtaPivotal as u32 {
        return (threshold, pivotal::select(problem, &threshold));
    }
    if design == Design::WtaStratified as u32 {
        stratified::select(problem, &threshold);
    } else if design == Design::Crs as u32 {
        independent::select(problem, u64::from(problem.budget), total, |_| false);
    } else {
        let (draws, mass) = (threshold.tail_places as u64, threshold.tail_mass);
        independent::select(problem, draws, mass, |weight| threshold.is_winner(weight));
    }
    (threshold, emit::place(problem))
}

/// The kernel of a design.
#[cfg(not(target_arch = "nvptx64"))]
pub fn kernel(design: Design) -> &'static Kernel<Args> {
    match design {
        Design::Uniform => &super::SELECT_UNIFORM,
        Design::Crs => &super::SELECT_CRS,
        Design::TopK => &super::SELECT_TOP_K,
        Design::WtaIid => &super::SELECT_WTA_IID,
        Design::WtaStratified => &super::SELECT_WTA_STRATIFIED,
        Design::WtaPivotal => &super::SELECT_WTA_PIVOTAL,
    }
}

/// Bytes of scratch that each problem needs, a multiple of 16.
#[inline(always)]
pub const fn scratch_bytes(pairs: u32, budget: u32, design: Design) -> u64 {
    layout::bytes(pairs, budget, design as u32)
}

/// Words of [`Args::boards`] that each problem of a launch needs: none if it has one block.
#[cfg(not(target_arch = "nvptx64"))]
pub fn board_words(shape: Shape) -> u32 {
    team::board_words(shape.grid[0])
}

/// Pairs below which one block is done before several have told one another what they must.
#[cfg(not(target_arch = "nvptx64"))]
const SEVERAL_BLOCKS: u32 = 4096;

/// Blocks that serve a problem best. One warp hears 32 blocks as fast as two, so there are up to 32 with at least 512 pairs,
/// which keep a block busy between rounds; beyond, where each further block makes that warp slower, they have 1024.
#[cfg(not(target_arch = "nvptx64"))]
fn wanted_blocks(pairs: u32) -> u32 {
    if pairs < SEVERAL_BLOCKS { 1 } else { pairs.div_ceil(512).min(32).max(pairs.div_ceil(1024)) }
}

/// Threads of a block at most, so that each may have 128 registers.
#[cfg(not(target_arch = "nvptx64"))]
const MOST_THREADS: u32 = 512;

/// The launch for so many problems. `resident_blocks` is how many blocks of 512 threads the device holds at once, at
/// least 1; no more than that wait for one another.
#[cfg(not(target_arch = "nvptx64"))]
pub fn shape(pairs: u32, batch: u32, design: Design, resident_blocks: u32) -> Shape {
    let most = (resident_blocks / batch.max(1)).max(1);
    let range = team::range(pairs, wanted_blocks(pairs).min(most));
    let blocks = pairs.div_ceil(range);
    // Four pairs a thread keep most of them busy; many small problems share a multiprocessor, but blocks that wait for one
    // another have one each.
    let least = if blocks > 1 { MOST_THREADS / 2 } else { 32 };
    let threads = range.min(pairs).div_ceil(4).next_power_of_two().clamp(least, MOST_THREADS);
    shape_with(pairs, batch, design, blocks, threads)
}

/// The launch with so many blocks for each problem, of so many threads, a multiple of 32. More blocks than there is work
/// for, and more threads than 512, are brought down.
#[cfg(not(target_arch = "nvptx64"))]
pub fn shape_with(pairs: u32, batch: u32, design: Design, blocks: u32, threads: u32) -> Shape {
    let blocks = blocks.clamp(1, layout::most_blocks(pairs).max(1));
    let nodes = match design {
        Design::WtaPivotal => pivotal::shared_nodes(team::range(pairs, blocks), blocks),
        _ => 0,
    };
    Shape { grid: [blocks, 1, batch], block: threads, shared_bytes: team::ROOMS + 24 * nodes, cooperative: blocks > 1 }
}
