//! The blocks of one problem: which pairs each of their threads looks at, and how they agree on a value.
//!
//! With n pairs and B blocks, block r has the pairs from r·R on, where R is the least power of two with B·R ≥ n. A
//! block's pairs are cut into one run for each warp, which goes through it in rows of 32 pairs, lane by lane, so that
//! loads are coalesced and runs are in the order of their indices.
//!
//! Blocks meet by a counter that all of them add to. Its words are zero before a launch and again after it.

use crate::block::scan::Prefix;
use crate::block::words::Words;
use crate::block::{reduce, scan};
use wtacrs_simt::atomic::{atomic_add, atomic_exchange, load_acquire};
use wtacrs_simt::index::{WARP, block, block_threads, block_warps, grid, lane, thread, warp};
use wtacrs_simt::memory::{load, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::{barrier, device_fence, spin};

/// Words that a block tells the others at once, at most.
pub(crate) const EXCHANGE_WORDS: u32 = 4;

/// Bytes of shared memory that a team's collectives need, from the first byte on.
pub(crate) const ROOMS: u32 = 2 * 8 * reduce::room(EXCHANGE_WORDS);

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
    /// Two boards, used in turn, of [`EXCHANGE_WORDS`] words for each block.
    exchange: *mut u64,
    /// How often blocks have arrived at meetings, and how many have left for good.
    meeting: *mut u32,
    /// How often all blocks together will have arrived at the last meeting.
    arrivals: u32,
    /// Which of two rooms, 0 or 1, the last collective used: they alternate, so that nobody writes what a slower thread
    /// still reads.
    room: u32,
    /// Likewise of two boards.
    board: u32,
}

impl Team {
    /// The blocks with this one's y and z in the grid. `exchange` has 2 · [`EXCHANGE_WORDS`] words for each block, and
    /// `meeting` two words that are zero; a single block needs neither.
    #[inline(always)]
    pub(crate) fn new(pairs: u32, exchange: *mut u64, meeting: *mut u32) -> Self {
        let blocks = grid()[0];
        let range = range(pairs, blocks);
        Self { rank: block()[0], blocks, range, pairs, exchange, meeting, arrivals: 0, room: 0, board: 0 }
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

    /// The combination of all threads' values over all blocks. `combine` is associative and commutative.
    #[inline(always)]
    pub(crate) fn reduce<V: Words>(&mut self, value: V, identity: V, combine: impl Fn(V, V) -> V) -> V {
        // SAFETY: the room alternates, so the collective before the last is done with it.
        let of_block = unsafe { reduce::reduce(value, identity, self.room(), &combine) };
        self.across_blocks(of_block, identity, &combine).total
    }

    /// What the warps with lower runs have, and all of them; values are the same in all lanes of a warp. `combine` is
    /// associative and commutative.
    #[inline(always)]
    pub(crate) fn scan<V: Words>(&mut self, value: V, identity: V, combine: impl Fn(V, V) -> V) -> Prefix<V> {
        // SAFETY: as in `reduce`.
        let warps = unsafe { scan::across_warps(value, identity, self.room(), &combine) };
        let blocks = self.across_blocks(warps.total, identity, &combine);
        Prefix { before: combine(blocks.before, warps.before), total: blocks.total }
    }

    #[inline(always)]
    fn room(&mut self) -> Shared<u64> {
        self.room ^= 1;
        let words = reduce::room(EXCHANGE_WORDS);
        Shared::new(self.room * words * 8, words)
    }

    /// The scan over blocks of a value that a block's threads share.
    #[inline(always)]
    pub(crate) fn across_blocks<V: Words>(&mut self, value: V, identity: V, combine: impl Fn(V, V) -> V) -> Prefix<V> {
        if self.blocks == 1 {
            return Prefix { before: identity, total: value };
        }
        self.tell(value);
        let mut sums = Prefix { before: identity, total: identity };
        let mut rank = lane();
        while rank < self.blocks {
            let told = self.told(rank, identity);
            sums.total = combine(sums.total, told);
            if rank < self.rank {
                sums.before = combine(sums.before, told);
            }
            rank += WARP;
        }
        Prefix { before: reduce::warp_reduce(sums.before, &combine), total: reduce::warp_reduce(sums.total, &combine) }
    }

    /// Shows a value that the block's threads share to all blocks, which meet.
    #[inline(always)]
    pub(crate) fn tell<V: Words>(&mut self, value: V) {
        self.board ^= 1;
        let board = self.board();
        let own = self.rank * EXCHANGE_WORDS;
        if thread() == 0 {
            value.each(|i, word| {
                // SAFETY: the block's own place; the board's last readers have met since.
                unsafe { store(board.wrapping_add((own + i) as usize), word) };
                word
            });
        }
        self.meet();
    }

    /// What a block told last.
    #[inline(always)]
    pub(crate) fn told<V: Words>(&self, rank: u32, like: V) -> V {
        let from = self.board().wrapping_add((rank * EXCHANGE_WORDS) as usize);
        // SAFETY: a place that its block wrote before the last meeting.
        like.each(|i, _| unsafe { load(from.wrapping_add(i as usize)) })
    }

    #[inline(always)]
    fn board(&self) -> *mut u64 {
        self.exchange.wrapping_add((self.board * self.blocks * EXCHANGE_WORDS) as usize)
    }

    /// Waits for all threads of all blocks; what they wrote before is then visible to all.
    #[inline(always)]
    pub(crate) fn meet(&mut self) {
        barrier();
        if self.blocks > 1 {
            self.arrivals += self.blocks;
            if thread() == 0 {
                device_fence();
                // SAFETY: the problem's two words, which only meetings access.
                unsafe {
                    atomic_add(self.meeting, 1);
                    while load_acquire(self.meeting) < self.arrivals {
                        spin();
                    }
                }
                device_fence();
            }
            barrier();
        }
    }

    /// After a block's last meeting: whoever is the last to leave makes the words zero again.
    #[inline(always)]
    pub(crate) fn leave(self) {
        if self.blocks > 1 && thread() == 0 {
            let left = self.meeting.wrapping_add(1);
            // SAFETY: the problem's two words; the last block to leave is alone with them.
            unsafe {
                if atomic_add(left, 1) == self.blocks - 1 {
                    atomic_exchange(self.meeting, 0);
                    atomic_exchange(left, 0);
                }
            }
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
