//! Where the parts of a problem's scratch lie, and of a block's shared memory.
//!
//! | part | bytes | of designs |
//! |---|---|---|
//! | integer weights | 8 n | all but uniform |
//! | counts: how often each pair is selected | 4 n | all |
//! | nodes of the tree's first two levels | 12 · 3n/4 | wta-pivotal |
//! | points, one in each stratum | 8 k | wta-stratified |
//! | prefix sums for the alias slots | 32 n | wta-iid, crs |
//! | points, one for each pair | 4 n | uniform |

use super::Design;
use wtacrs_simt::memory::{load, store};

/// Nodes of a level of the tree that lie in shared memory, at most.
pub(super) const SHARED_NODES: u32 = 1024;

/// A problem's scratch.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) weights: *mut u64,
    pub(super) counts: *mut u32,
    /// What only one design needs.
    pub(super) own: *mut u8,
}

impl Layout {
    #[inline(always)]
    pub(super) fn new(scratch: *mut u8, pairs: u32, problem: u32, bytes: u64) -> Self {
        let at = |offset: u64| scratch.wrapping_add((u64::from(problem) * bytes + offset) as usize);
        Self { weights: at(0).cast(), counts: at(counts_at(pairs)).cast(), own: at(own_at(pairs)) }
    }

    /// A pair's integer weight, once weighed.
    #[inline(always)]
    pub(super) fn weight(&self, pair: u32) -> u64 {
        // SAFETY: a pair, written by the block's own threads before a barrier, or before the team met.
        unsafe { load(self.weights.wrapping_add(pair as usize)) }
    }

    /// How often a pair is selected.
    #[inline(always)]
    pub(super) fn count(&self, pair: u32) -> u32 {
        // SAFETY: a pair, counted by the block's own threads before a barrier, or before the team met.
        unsafe { load(self.counts.wrapping_add(pair as usize)) }
    }

    #[inline(always)]
    pub(super) fn set_count(&self, pair: u32, count: u32) {
        // SAFETY: a pair that no other thread counts at the same time.
        unsafe { store(self.counts.wrapping_add(pair as usize), count) }
    }
}

/// The most blocks that a problem may have: none of them has less than a warp's pairs, and the tree above them lies in
/// shared memory.
#[cfg(not(target_arch = "nvptx64"))]
pub(super) const fn most_blocks(pairs: u32) -> u32 {
    let blocks = pairs.div_ceil(32);
    if blocks < 2 * SHARED_NODES { blocks } else { 2 * SHARED_NODES }
}

#[inline(always)]
const fn counts_at(pairs: u32) -> u64 {
    align(8 * pairs as u64)
}

#[inline(always)]
const fn own_at(pairs: u32) -> u64 {
    counts_at(pairs) + align(4 * pairs as u64)
}

/// All of a problem's scratch, a multiple of 16.
#[inline(always)]
pub(super) const fn bytes(pairs: u32, budget: u32, design: u32) -> u64 {
    let pairs_64 = pairs as u64;
    let own = if design == Design::WtaPivotal as u32 {
        12 * (pairs_64.div_ceil(2) + pairs_64.div_ceil(4)) + 16
    } else if design == Design::WtaStratified as u32 {
        8 * budget as u64
    } else if design == Design::WtaIid as u32 || design == Design::Crs as u32 {
        32 * pairs_64
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
