//! Weights → threshold, winners, draws from the tail → ascending indices and scales, in one launch.
//!
//! ```text
//! norms ── weights ── integers ── threshold ── counts (by design) ── indices, scales
//! ```
//!
//! Indices and scales are those of wtacrs-core's designs, bit by bit, for every number of threads and blocks: every decision
//! is arithmetic on integers whose order does not matter, or chance indexed by pair, stratum or tree node. A problem has one
//! block, or several that exchange values (`kernel::team`).
//!
//! A problem's scratch, for n pairs and budget k:
//!
//! | part | bytes | of designs |
//! |---|---|---|
//! | integer weights | 8 n | all but uniform |
//! | counts: how often each pair is selected | 4 n | all |
//! | nodes of the tree's first two levels | 12 · 3n/4 | wta-pivotal |
//! | points, one in each stratum | 8 k | wta-stratified |
//! | prefix sums for the alias slots | 32 n | wta-iid, crs |
//! | points, one for each pair | 4 n | uniform |

use super::{alias, team};
use crate::launch::Shape;

/// A [`WeightSource`](crate::plan::WeightSource) without its numbers: the value of [`Args::source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum SourceKind {
    /// w = input_norms.
    Input = 0,
    /// w = input_norms · other, where `other` are norms of dZ.
    Norms = 1,
    /// `other` are norms from a cache, negative where it has none: see `Weights::from_cache` of wtacrs-core.
    Cached = 2,
    /// `other` are log-norms up to a constant, as `row_norms` makes them of a predictor's θ: w = input_norms · e^guess.
    Predicted = 3,
}

/// The rule that selects: a design of wtacrs-core. Each has a kernel of its own, see
/// [`select_kernel`](super::select_kernel).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
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

/// The arguments of a launch. One grid.z for each problem of a batch, one grid.x for each of a problem's blocks.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// batch × pairs norms ‖X_i‖.
    pub input_norms: *const f32,
    /// batch × pairs, by `source`; null for [`SourceKind::Input`].
    pub other: *const f32,
    /// A [`SourceKind`].
    pub source: u32,
    /// Pairs of each problem: 1 to 2^31.
    pub pairs: u32,
    /// Pairs to keep: 1 ≤ budget ≤ pairs.
    pub budget: u32,
    /// λ of [`SourceKind::Cached`].
    pub mix: f64,
    /// For [`SourceKind::Predicted`]: guesses stay within e^±clamp of their geometric mean.
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
    /// For each problem, how many of them were certain; null if that is not wanted.
    pub winners: *mut u64,
    /// For each problem, 0, or 1 + the index of the first pair with an invalid norm (negative, infinite or NaN); nothing is
    /// selected then.
    pub status: *mut u32,
    /// [`scratch_bytes`] for each problem, aligned to 16, of any content.
    pub scratch: *mut u8,
    /// [`exchange_words`] for each problem, zero before the launch: memory by which its blocks exchange values.
    pub exchange: *mut u64,
}

/// The arguments of a launch that writes the weights alone. One grid.z for each problem of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WeightsArgs {
    /// batch × pairs norms ‖X_i‖.
    pub input_norms: *const f32,
    /// batch × pairs, by `source`; null for [`SourceKind::Input`].
    pub other: *const f32,
    /// A [`SourceKind`].
    pub source: u32,
    /// Pairs of each problem: 1 to 2^31.
    pub pairs: u32,
    /// λ of [`SourceKind::Cached`].
    pub mix: f64,
    /// As for [`Args::clamp`].
    pub clamp: f64,
    /// batch × pairs weights; NaN for all pairs of a problem with an invalid norm.
    pub weights: *mut f64,
}

/// Bytes of scratch that each problem needs, a multiple of 16.
#[inline(always)]
pub const fn scratch_bytes(pairs: u32, budget: u32, design: Design) -> u64 {
    scratch_bytes_of(pairs, budget, design as u32)
}

/// Words of [`Args::exchange`] that each problem of a launch needs: none if it has one block.
pub fn exchange_words(shape: Shape) -> u32 {
    team::exchange_words(shape.grid[0])
}

/// Below so many pairs, one block is faster than several that exchange values.
const SEVERAL_BLOCKS: u32 = 4096;

/// The number of blocks that serves a problem best. One warp reads the values of 32 blocks as fast as those of two, so up to
/// 32 blocks have at least 512 pairs each, which keep them busy between rounds. Each further block makes that warp slower,
/// so blocks then have 1024 pairs.
fn wanted_blocks(pairs: u32) -> u32 {
    if pairs < SEVERAL_BLOCKS { 1 } else { pairs.div_ceil(512).min(32).max(pairs.div_ceil(1024)) }
}

/// The most threads of a block: each may have 128 registers.
const MOST_THREADS: u32 = 512;

/// The launch for so many problems. `resident_blocks` is how many blocks of 512 threads the device holds at once, at least
/// 1; at most so many wait for one another.
pub fn shape(pairs: u32, batch: u32, design: Design, resident_blocks: u32) -> Shape {
    let most = (resident_blocks / batch.max(1)).max(1);
    let range = team::range(pairs, wanted_blocks(pairs).min(most));
    let blocks = pairs.div_ceil(range);
    // Four pairs a thread keep most threads busy. Many small problems share a multiprocessor, but blocks that wait for one
    // another have one each.
    let least = if blocks > 1 { MOST_THREADS / 2 } else { 32 };
    let threads = range.min(pairs).div_ceil(4).next_power_of_two().clamp(least, MOST_THREADS);
    shape_with(pairs, batch, design, blocks, threads)
}

/// The launch with so many blocks for each problem, of so many threads, a multiple of 32. Blocks are limited to those with
/// pairs.
pub fn shape_with(pairs: u32, batch: u32, design: Design, blocks: u32, threads: u32) -> Shape {
    let blocks = blocks.clamp(1, most_blocks(pairs).max(1));
    let nodes = match design {
        Design::WtaPivotal => shared_nodes(team::range(pairs, blocks), blocks),
        _ => 0,
    };
    Shape {
        grid: [blocks, 1, batch],
        block: threads,
        shared_bytes: team::SHARED_BYTES + 24 * nodes,
        cooperative: blocks > 1,
    }
}

/// The launch that writes the weights of so many problems: one block for each.
pub fn weights_shape(pairs: u32, batch: u32) -> Shape {
    let threads = pairs.div_ceil(4).next_power_of_two().clamp(32, MOST_THREADS);
    Shape { grid: [1, 1, batch], block: threads, shared_bytes: team::SHARED_BYTES, cooperative: false }
}

/// The most nodes of a level of the tree that lie in shared memory.
const SHARED_NODES: u32 = 1024;

/// Nodes of each of two levels that a block keeps in shared memory: all above the roots of the blocks, and as many of
/// its own as fit.
#[inline(always)]
pub(super) const fn shared_nodes(range: u32, blocks: u32) -> u32 {
    let nodes = if range > blocks { range / 2 } else { blocks.div_ceil(2) };
    if nodes < SHARED_NODES { nodes } else { SHARED_NODES }
}

/// The most blocks that a problem may have: each has at least a warp's pairs, and the tree above them fits shared memory.
const fn most_blocks(pairs: u32) -> u32 {
    let blocks = pairs.div_ceil(32);
    if blocks < 2 * SHARED_NODES { blocks } else { 2 * SHARED_NODES }
}

/// Where the counts lie in a problem's scratch; the weights come first.
#[inline(always)]
pub(super) const fn counts_at(pairs: u32) -> u64 {
    align(8 * pairs as u64)
}

/// Where the part lies that only one design needs.
#[inline(always)]
pub(super) const fn own_at(pairs: u32) -> u64 {
    counts_at(pairs) + align(4 * pairs as u64)
}

/// [`scratch_bytes`] for a [`Design`] as a number.
#[inline(always)]
pub(super) const fn scratch_bytes_of(pairs: u32, budget: u32, design: u32) -> u64 {
    let pairs_64 = pairs as u64;
    let own = if design == Design::WtaPivotal as u32 {
        12 * (pairs_64.div_ceil(2) + pairs_64.div_ceil(4)) + 16
    } else if design == Design::WtaStratified as u32 {
        8 * budget as u64
    } else if design == Design::WtaIid as u32 || design == Design::Crs as u32 {
        alias::scratch_bytes(pairs)
    } else if design == Design::Uniform as u32 {
        4 * pairs_64
    } else {
        0
    };
    own_at(pairs) + align(own)
}

#[inline(always)]
const fn align(bytes: u64) -> u64 {
    bytes.next_multiple_of(16)
}
