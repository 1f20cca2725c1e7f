//! The blocks of one problem: the pairs of each of their threads, and how they agree on a value.
//!
//! With n pairs and B blocks, block r has the pairs from r·R on, where R is the least power of two with B·R ≥ n. A
//! block's pairs are cut into one run for each warp, which goes through it in rows of 32 pairs, lane by lane. So loads are
//! coalesced, and runs are in the order of their indices.
//!
//! Blocks exchange values of a few words through device memory, in numbered rounds. A block publishes each word in two
//! slots, which hold half of it and the number of the round. A reader recognises by the number whether a slot is of this
//! round. So to publish is a store, and to read is a load that is repeated until the number is right. Neither needs a
//! fence, which would take longer than both. Nothing else becomes visible by an exchange; [`Team::synchronize`] is for
//! that, and costs the fences.
//!
//! The exchange is zero before a launch. An earlier launch clears it, as `row_norms` does beside its own work; blocks that
//! cleared it themselves would first have to agree that it is clear.

use super::block::scan::Prefix;
use super::block::words::Words;
use super::block::{reduce, scan};
use crate::kernel::team::{HALVES, MOST_WORDS, SLOTS, collective_words, range};
use wtacrs_simt::WARP;
use wtacrs_simt::atomic::{load_relaxed, store_relaxed};
use wtacrs_simt::index::{block, block_threads, block_warps, grid, lane, thread, warp};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::{barrier, device_fence, spin};

/// The part of a slot that holds half a word; the number of the round is above it.
const HALF: u64 = u32::MAX as u64;

/// A run of consecutive pairs, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    first: u32,
    end: u32,
    /// The same for all lanes of a warp; 0 if the run is empty.
    pub(crate) rows: u32,
}

impl Run {
    /// This lane's pair of a row; beyond the run if [`Self::holds`] is false.
    #[inline(always)]
    pub(crate) fn pair(self, row: u32) -> u32 {
        self.first + row * WARP + lane()
    }

    #[inline(always)]
    pub(crate) fn holds(self, pair: u32) -> bool {
        pair < self.end
    }

    /// The run's first pair.
    #[inline(always)]
    pub(crate) fn first(self) -> u32 {
        self.first
    }

    /// The pair, or the run's last one in place of a pair beyond it.
    #[inline(always)]
    pub(crate) fn at_most_last(self, pair: u32) -> u32 {
        pair.min(self.end.wrapping_sub(1))
    }

    /// Calls `look` for every row with this lane's pair, whether it is in the run, and the result of `load` for it. Four loads
    /// at a time are under way together. In place of pairs beyond the run, its last is loaded again.
    #[inline(always)]
    pub(crate) fn rows<T: Copy>(self, load: impl Fn(u32) -> T, mut look: impl FnMut(u32, bool, T)) {
        let load = |pair| load(self.at_most_last(pair));
        let mut row = 0;
        while row < self.rows {
            let [a, b, c, d] = [self.pair(row), self.pair(row + 1), self.pair(row + 2), self.pair(row + 3)];
            let loaded = [load(a), load(b), load(c), load(d)];
            look(a, self.holds(a), loaded[0]);
            look(b, self.holds(b), loaded[1]);
            // A short run's other half is empty.
            if row + 2 < self.rows {
                look(c, self.holds(c), loaded[2]);
                look(d, self.holds(d), loaded[3]);
            }
            row += 4;
        }
    }

    /// [`Self::rows`] for the pairs in the run alone.
    #[inline(always)]
    pub(crate) fn for_each<T: Copy>(self, load: impl Fn(u32) -> T, mut look: impl FnMut(u32, T)) {
        self.rows(load, |pair, held, loaded| {
            if held {
                look(pair, loaded);
            }
        });
    }
}

/// The blocks that work on one problem, as one of their threads sees them.
pub(crate) struct Team {
    /// This block's index among them.
    pub(crate) rank: u32,
    /// How many there are.
    pub(crate) blocks: u32,
    /// R: how many pairs each block has, except the last ones.
    pub(crate) range: u32,
    /// Pairs of the problem.
    pairs: u32,
    /// For each 32 blocks [`HALVES`] × [`SLOTS`] rows, with a slot for each of them.
    exchange: *mut u64,
    /// Rounds of the exchange so far; the next round has the number one higher.
    round: u32,
    /// The window of shared memory, 0 or 1, that the last collective used. Windows alternate, so that no thread overwrites words
    /// that a slower thread still reads.
    window: u32,
}

impl Team {
    /// The blocks with this one's y and z in the grid. The exchange has
    /// [`exchange_words`](crate::kernel::team::exchange_words).
    #[inline(always)]
    pub(crate) fn new(pairs: u32, exchange: *mut u64) -> Self {
        let blocks = grid()[0];
        Self { rank: block()[0], blocks, range: range(pairs, blocks), pairs, exchange, round: 0, window: 0 }
    }

    /// A single block, whatever the grid. It exchanges nothing.
    #[inline(always)]
    pub(crate) fn alone(pairs: u32) -> Self {
        Self { rank: 0, blocks: 1, range: range(pairs, 1), pairs, exchange: core::ptr::null_mut(), round: 0, window: 0 }
    }

    /// The block's pairs: first, and one after the last.
    #[inline(always)]
    pub(crate) fn bounds(&self) -> (u32, u32) {
        let first = (u64::from(self.rank) * u64::from(self.range)).min(u64::from(self.pairs)) as u32;
        (first, first + self.range.min(self.pairs - first))
    }

    /// The warp's part of the block's pairs.
    #[inline(always)]
    pub(crate) fn run(&self) -> Run {
        let (first, end) = self.bounds();
        let warps = block_warps();
        let pairs = ((end - first).div_ceil(WARP) + warps - 1).checked_div(warps).unwrap_or(0) * WARP;
        let first = (first + warp() * pairs).min(end);
        let end = end.min(first + pairs);
        Run { first, end, rows: (end - first).div_ceil(WARP) }
    }

    /// This thread's index in the team, and how many threads the team has.
    #[inline(always)]
    pub(crate) fn thread(&self) -> (u32, u32) {
        (self.rank * block_threads() + thread(), self.blocks * block_threads())
    }

    /// The sums of all threads' words over all blocks, wrapping.
    #[inline(always)]
    pub(crate) fn sum<V: Words>(&mut self, value: V) -> V {
        self.agree(value, |sum| sum, value.each(|_, _| 0), V::plus, reduce::warp_sum)
    }

    /// The combination of all blocks' values, each of which `of_block` makes of the sums of the block's threads' words.
    /// `combine` joins the values of two blocks, and `in_warp` those that the lanes of a warp hold.
    ///
    /// One warp does what follows the sums of warps, as the others would only take its turns to issue; with a single block,
    /// which exchanges nothing, all do.
    #[inline(always)]
    pub(crate) fn agree<V: Words, W: Words>(
        &mut self,
        value: V,
        of_block: impl Fn(V) -> W,
        identity: W,
        combine: impl Fn(W, W) -> W,
        in_warp: impl Fn(W) -> W,
    ) -> W {
        // SAFETY: as in `max_in_block`.
        let of_lane = unsafe { reduce::sums_of_warps(value, self.next_window()) };
        let is_alone = self.blocks == 1;
        let mut own = identity;
        if is_alone || warp() == 0 {
            own = of_block(reduce::warp_sum(of_lane));
        }
        if is_alone {
            return own;
        }
        self.publish(own);
        self.read_all(self.blocks, identity, combine, in_warp)
    }

    /// The largest of the block's threads' words.
    #[inline(always)]
    pub(crate) fn max_in_block<V: Words>(&mut self, value: V) -> V {
        // SAFETY: windows alternate. The collective before the last used this one, and all threads left it before the last
        // one's barrier.
        unsafe { reduce::max(value, self.next_window()) }
    }

    /// The sums of the block's threads' words, wrapping.
    #[inline(always)]
    pub(crate) fn sum_in_block<V: Words>(&mut self, value: V) -> V {
        // SAFETY: as in `max_in_block`.
        unsafe { reduce::sum(value, self.next_window()) }
    }

    /// The combination of the values of warps with lower runs, and of all warps. Values are the same in all lanes of a warp;
    /// `combine` is associative and commutative.
    #[inline(always)]
    pub(crate) fn scan<V: Words>(&mut self, value: V, identity: V, combine: impl Fn(V, V) -> V) -> Prefix<V> {
        let warps = self.scan_in_block(value, identity, &combine);
        if self.blocks == 1 {
            return warps;
        }
        self.publish(warps.total);
        let in_warp = |value| reduce::warp_reduce(value, &combine);
        let before = self.read_all(self.rank, identity, &combine, in_warp);
        let total = self.read_all(self.blocks, identity, &combine, in_warp);
        Prefix { before: combine(before, warps.before), total }
    }

    /// The same over the block's warps alone.
    #[inline(always)]
    pub(crate) fn scan_in_block<V: Words>(&mut self, value: V, identity: V, combine: impl Fn(V, V) -> V) -> Prefix<V> {
        // SAFETY: as in `max_in_block`.
        unsafe { scan::across_warps(value, identity, self.next_window(), combine) }
    }

    #[inline(always)]
    fn next_window(&mut self) -> Shared<u64> {
        self.window ^= 1;
        let words = collective_words(MOST_WORDS);
        Shared::new(self.window * words * 8, words)
    }

    /// The combination of the values that the blocks with ranks below `end` publish in this round. One warp reads them and
    /// leaves the result for the others. `in_warp` combines the values of a warp's lanes.
    #[inline(always)]
    fn read_all<V: Words>(
        &mut self,
        end: u32,
        identity: V,
        combine: impl Fn(V, V) -> V,
        in_warp: impl Fn(V) -> V,
    ) -> V {
        let window = self.next_window();
        if warp() == 0 {
            let mut found = identity;
            let mut rank = lane();
            while rank < end {
                found = combine(found, self.read(rank, identity));
                rank += WARP;
            }
            let all = in_warp(found);
            if lane() == 0 {
                all.each(|i, word| {
                    // SAFETY: a word for each of the value's; windows alternate, as in `max_in_block`.
                    unsafe { window.write(i, word) };
                    word
                });
            }
        }
        barrier();
        // SAFETY: written before the barrier.
        identity.each(|i, _| unsafe { window.read(i) })
    }

    /// Begins a round and publishes the value of the block's first thread. A barrier is between their last read of the round
    /// before and this call.
    #[inline(always)]
    pub(crate) fn publish<V: Words>(&mut self, value: V) {
        self.round += 1;
        if thread() == 0 {
            let number = u64::from(self.round) << 32;
            value.each(|i, word| {
                let [low, high] = self.slots(self.rank, i);
                // SAFETY: the block's own slots, last written two rounds ago. All blocks have read that value: each read it
                // before it published in the round between, and this block has read what they published there.
                unsafe {
                    store_relaxed(low, word & HALF | number);
                    store_relaxed(high, word >> 32 | number);
                }
                word
            });
        }
    }

    /// Waits for the value that a block publishes in this round.
    #[inline(always)]
    pub(crate) fn read<V: Words>(&self, rank: u32, like: V) -> V {
        loop {
            let mut is_published = true;
            let value = like.each(|i, _| {
                let [low, high] = self.slots(rank, i);
                // SAFETY: the block's slots, zero at first and then written by stores of the same width.
                let (low, high) = unsafe { (load_relaxed(low), load_relaxed(high)) };
                is_published &= ((low >> 32) as u32 == self.round) & ((high >> 32) as u32 == self.round);
                low & HALF | high << 32
            });
            if is_published {
                return value;
            }
            spin();
        }
    }

    /// A block's two slots for word i in this round. The same slots of 32 blocks lie side by side, as lanes read them.
    #[inline(always)]
    fn slots(&self, rank: u32, i: u32) -> [*mut u64; 2] {
        let (group, place) = (rank / WARP, rank % WARP);
        let first = (group * HALVES + self.round % HALVES) * SLOTS * WARP + place;
        let first = self.exchange.wrapping_add(first as usize);
        [2 * i, 2 * i + 1].map(|row| first.wrapping_add((row * WARP) as usize))
    }

    /// Waits for all threads of all blocks; everything that they wrote before is then visible to all of them.
    #[inline(always)]
    pub(crate) fn synchronize(&mut self) {
        barrier();
        if self.blocks > 1 {
            if thread() == 0 {
                device_fence();
            }
            self.publish(0_u64);
            if warp() == 0 {
                let mut rank = lane();
                while rank < self.blocks {
                    self.read(rank, 0_u64);
                    rank += WARP;
                }
                device_fence();
            }
            barrier();
        }
    }
}
