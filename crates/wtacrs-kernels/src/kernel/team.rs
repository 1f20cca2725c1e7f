//! The blocks of one problem: which pairs each of their threads looks at, and how they agree on a value.
//!
//! With n pairs and B blocks, block r has the pairs from r·R on, where R is the least power of two with B·R ≥ n. A
//! block's pairs are cut into one run for each warp, which goes through it in rows of 32 pairs, lane by lane, so that
//! loads are coalesced and runs are in the order of their indices.
//!
//! Blocks tell one another values of a few words through a board in memory. Rounds of telling are numbered, and each word
//! travels as two, which hold half of it and the round's number: whoever reads one knows at once whether the block has told
//! yet. So telling is a store and hearing is a load, repeated until the number is right, and neither waits for a fence,
//! which would take longer than both. Nothing else becomes visible by it; [`Team::meet`] is for that, and costs the fences.
//!
//! The boards are zero before a launch: an earlier one sees to it, as `row_norms` does on its way. Blocks that did it
//! themselves would first have to agree that it is done.

use crate::block::scan::Prefix;
use crate::block::words::Words;
use crate::block::{reduce, scan};
use wtacrs_simt::atomic::{load_relaxed, store_relaxed};
use wtacrs_simt::index::{WARP, block, block_threads, block_warps, grid, lane, thread, warp};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::{barrier, device_fence, spin};

/// Words that a block tells the others at once, at most.
const TOLD_WORDS: u32 = 4;

/// Places of a block on a board: two for each word.
const PLACES: u32 = 2 * TOLD_WORDS;

/// Two boards, used in turn.
const BOARDS: u32 = 2;

/// Words of memory that the boards of so many blocks take; none for one.
#[inline(always)]
pub(crate) const fn board_words(blocks: u32) -> u32 {
    if blocks > 1 { BOARDS * PLACES * blocks } else { 0 }
}

/// The part of a place that holds half a word; the round's number is above it.
const HALF: u64 = u32::MAX as u64;

/// Bytes of shared memory that a team's collectives need, from the first byte on.
pub(crate) const ROOMS: u32 = 2 * 8 * reduce::room(TOLD_WORDS);

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

    /// Calls `look` for every row with this lane's pair, whether it is in the run, and what `load` gave for it: four loads
    /// at a time, which are then under way together. In place of pairs beyond the run, its last is loaded again.
    #[inline(always)]
    pub(crate) fn rows<T: Copy>(self, load: impl Fn(u32) -> T, mut look: impl FnMut(u32, bool, T)) {
        let last = self.end.wrapping_sub(1);
        let mut row = 0;
        while row < self.rows {
            let [a, b, c, d] = [self.pair(row), self.pair(row + 1), self.pair(row + 2), self.pair(row + 3)];
            let loaded = [load(a.min(last)), load(b.min(last)), load(c.min(last)), load(d.min(last))];
            look(a, self.holds(a), loaded[0]);
            look(b, self.holds(b), loaded[1]);
            look(c, self.holds(c), loaded[2]);
            look(d, self.holds(d), loaded[3]);
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
    /// R: how many pairs a block has, but for the last ones.
    pub(crate) range: u32,
    /// Pairs of the problem.
    pairs: u32,
    /// Two boards of [`PLACES`] rows, with a place for each block.
    boards: *mut u64,
    /// Rounds of telling so far; the next has the number one higher.
    round: u32,
    /// Which of two rooms, 0 or 1, the last collective used: they alternate, so that nobody writes what a slower thread
    /// still reads.
    room: u32,
}

impl Team {
    /// The blocks with this one's y and z in the grid, whose boards have [`board_words`] words.
    #[inline(always)]
    pub(crate) fn new(pairs: u32, boards: *mut u64) -> Self {
        let blocks = grid()[0];
        Self { rank: block()[0], blocks, range: range(pairs, blocks), pairs, boards, round: 0, room: 0 }
    }

    /// A single block, whatever the grid: it tells nobody anything.
    #[inline(always)]
    pub(crate) fn alone(pairs: u32) -> Self {
        Self { rank: 0, blocks: 1, range: range(pairs, 1), pairs, boards: core::ptr::null_mut(), round: 0, room: 0 }
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
        let of_block = self.sum_in_block(value);
        self.of_blocks(of_block, value.each(|_, _| 0), V::plus, reduce::warp_sum)
    }

    /// The largest of all threads' words over all blocks.
    #[inline(always)]
    pub(crate) fn max<V: Words>(&mut self, value: V) -> V {
        // SAFETY: the room alternates, so the collective before the last is done with it.
        let of_block = unsafe { reduce::max(value, self.room()) };
        self.of_blocks(of_block, value.each(|_, _| 0), |a, b| a.with(b, Ord::max), reduce::warp_max)
    }

    /// The sums of the block's threads' words, wrapping.
    #[inline(always)]
    pub(crate) fn sum_in_block<V: Words>(&mut self, value: V) -> V {
        // SAFETY: as in `max`.
        unsafe { reduce::sum(value, self.room()) }
    }

    /// What the warps with lower runs have, and all of them; values are the same in all lanes of a warp. `combine` is
    /// associative and commutative.
    #[inline(always)]
    pub(crate) fn scan<V: Words>(&mut self, value: V, identity: V, combine: impl Fn(V, V) -> V) -> Prefix<V> {
        let warps = self.scan_in_block(value, identity, &combine);
        if self.blocks == 1 {
            return warps;
        }
        self.tell(warps.total);
        let in_warp = |value| reduce::warp_reduce(value, &combine);
        let before = self.hear_all(self.rank, identity, &combine, in_warp);
        let total = self.hear_all(self.blocks, identity, &combine, in_warp);
        Prefix { before: combine(before, warps.before), total }
    }

    /// The same over the block's warps alone.
    #[inline(always)]
    pub(crate) fn scan_in_block<V: Words>(&mut self, value: V, identity: V, combine: impl Fn(V, V) -> V) -> Prefix<V> {
        // SAFETY: as in `max`.
        unsafe { scan::across_warps(value, identity, self.room(), combine) }
    }

    #[inline(always)]
    fn room(&mut self) -> Shared<u64> {
        self.room ^= 1;
        let words = reduce::room(TOLD_WORDS);
        Shared::new(self.room * words * 8, words)
    }

    /// The combination over blocks of a value that a block's threads share.
    #[inline(always)]
    fn of_blocks<V: Words>(
        &mut self,
        value: V,
        identity: V,
        combine: impl Fn(V, V) -> V,
        in_warp: impl Fn(V) -> V,
    ) -> V {
        if self.blocks == 1 {
            return value;
        }
        self.tell(value);
        self.hear_all(self.blocks, identity, combine, in_warp)
    }

    /// The combination of what the blocks with ranks below `end` tell in this round: one warp hears, and lets the others
    /// know. `in_warp` combines the values of a warp's lanes.
    #[inline(always)]
    fn hear_all<V: Words>(
        &mut self,
        end: u32,
        identity: V,
        combine: impl Fn(V, V) -> V,
        in_warp: impl Fn(V) -> V,
    ) -> V {
        let room = self.room();
        if warp() == 0 {
            let mut heard = identity;
            let mut rank = lane();
            while rank < end {
                heard = combine(heard, self.hear(rank, identity));
                rank += WARP;
            }
            let all = in_warp(heard);
            if lane() == 0 {
                all.each(|i, word| {
                    // SAFETY: a word for each of the value's, in a room that the collective before the last is done with.
                    unsafe { room.write(i, word) };
                    word
                });
            }
        }
        barrier();
        // SAFETY: written before the barrier.
        identity.each(|i, _| unsafe { room.read(i) })
    }

    /// Begins a round, in which this block tells a value that its threads share. They have met since they heard in the
    /// round before.
    #[inline(always)]
    pub(crate) fn tell<V: Words>(&mut self, value: V) {
        self.round += 1;
        if thread() == 0 {
            let number = u64::from(self.round) << 32;
            value.each(|i, word| {
                let [low, high] = self.places(self.rank, i);
                // SAFETY: the block's own places. What they held, two rounds ago, all blocks have heard: each told in the
                // round between, which this block has heard, only after it had heard that.
                unsafe {
                    store_relaxed(low, word & HALF | number);
                    store_relaxed(high, word >> 32 | number);
                }
                word
            });
        }
    }

    /// What a block tells in this round, as soon as it does.
    #[inline(always)]
    pub(crate) fn hear<V: Words>(&self, rank: u32, like: V) -> V {
        loop {
            let mut told = true;
            let value = like.each(|i, _| {
                let [low, high] = self.places(rank, i);
                // SAFETY: places of the block's, zero at first and then written by stores as wide.
                let (low, high) = unsafe { (load_relaxed(low), load_relaxed(high)) };
                told &= ((low >> 32) as u32 == self.round) & ((high >> 32) as u32 == self.round);
                low & HALF | high << 32
            });
            if told {
                return value;
            }
            spin();
        }
    }

    /// A block's two places for word i on this round's board. Those of all blocks lie side by side, as lanes read them.
    #[inline(always)]
    fn places(&self, rank: u32, i: u32) -> [*mut u64; 2] {
        let row = self.round % BOARDS * PLACES + 2 * i;
        [row, row + 1].map(|row| self.boards.wrapping_add((row * self.blocks + rank) as usize))
    }

    /// Waits for all threads of all blocks; what they wrote before is then visible to all.
    #[inline(always)]
    pub(crate) fn meet(&mut self) {
        barrier();
        if self.blocks > 1 {
            if thread() == 0 {
                device_fence();
            }
            self.tell(0_u64);
            if warp() == 0 {
                let mut rank = lane();
                while rank < self.blocks {
                    self.hear(rank, 0_u64);
                    rank += WARP;
                }
                device_fence();
            }
            barrier();
        }
    }
}

/// R: the least power of two of at least 32 of which `blocks` cover all pairs.
#[inline(always)]
pub(crate) const fn range(pairs: u32, blocks: u32) -> u32 {
    // Without a division by a number that the compiler takes for zero.
    let mut range = WARP;
    while (range as u64 * blocks as u64) < pairs as u64 {
        range *= 2;
    }
    range
}
