//! The norm cache in device memory: wtacrs-core's `NormCache` for samples 0 to N − 1 of at most so many tokens each.
//!
//! | launch | blocks | does |
//! |---|---|---|
//! | [`norm_cache_fetch`] | one for each sample of the batch, one for the places behind the last | the norms that are known, −1 elsewhere |
//! | [`norm_cache_store`] | one for each sample of the batch | takes norms over, or forgets samples |
//!
//! A batch's norms lie in rows of equal length, or without gaps, sample after sample. Without gaps a block adds up all lengths
//! before its sample's; and a block that stores looks for its sample among all that follow, since of a sample that is
//! twice in a batch the last counts. Both read count words for each sample, from cache: batches have hundreds of
//! samples, not millions.
//!
//! Nobody on the host sees ids, lengths or norms before a launch. So each is checked here before it leads to
//! memory; what fails is left out, and the first of a launch is told in [`Status`], unless an earlier one stands there.

mod fetch;
#[cfg(not(target_arch = "nvptx64"))]
mod host;
mod store;

pub use self::fetch::norm_cache_fetch;
#[cfg(not(target_arch = "nvptx64"))]
pub use self::host::{fetch_shape, store_shape};
pub use self::store::norm_cache_store;

use crate::block::reduce;
use wtacrs_simt::atomic::{atomic_add, atomic_exchange, atomic_max};
use wtacrs_simt::index::{block_threads, grid, thread};
use wtacrs_simt::memory::{load, load_constant, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::device_fence;

/// What a launch is given.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// For each sample of the batch its id.
    pub samples: *const u64,
    /// For each its number of tokens; null: `row_tokens`.
    pub lengths: *const u64,
    /// Samples of the batch.
    pub count: u32,
    /// Floats from one sample's norms to the next one's; 0: each sample's begin where the last one's end.
    pub row_tokens: u64,
    /// The batch's norms. Null, for the store alone: its samples are forgotten, and no lengths are looked at.
    pub norms: *mut f32,
    /// How many floats: at least `count` · `row_tokens`.
    pub tokens: u64,
    /// N.
    pub cache_samples: u64,
    /// The most tokens of a sample.
    pub sample_tokens: u64,
    /// For each of the N samples 0, or 1 + the number of its tokens.
    pub known: *mut u32,
    /// N × `sample_tokens` norms, of which those of known tokens are initialised.
    pub stored: *mut f32,
    /// What was wrong.
    pub status: *mut Status,
}

/// What was wrong with a batch, in device memory; all zero at first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The id of the first sample that was left out.
    pub sample: u64,
    /// Why: 0, or a [`Fault`].
    pub fault: u32,
    /// How many blocks of a launch are done; 0 between launches.
    pub done: u32,
    /// Of the first fault of a launch, the key; 0 between launches.
    pub worst: u64,
}

/// Why a sample is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// Its id is N or more.
    Id = 1,
    /// It has more tokens than the cache, its row or the rest of the norms has room for.
    Length = 2,
    /// It is known with another number of tokens (fetch).
    Changed = 3,
    /// One of its norms is negative or not finite (store).
    Norm = 4,
}

/// A sample of the batch, as all threads of its block see it.
#[derive(Clone, Copy)]
struct Entry {
    sample: u64,
    /// Where its norms begin.
    begin: u64,
    /// How many of them are its tokens'.
    length: u64,
    /// How many floats from `begin` on are its own, all of them within the norms.
    room: u64,
    /// What is wrong with it so far.
    fault: Option<Fault>,
}

/// What a thread keeps from sample to sample.
struct Batch<'a> {
    args: &'a Args,
    /// Which of two rooms of shared memory the last reduction used: they alternate, so that nobody writes what a slower
    /// thread still reads.
    room: u32,
    /// The key of the block's first fault, or 0.
    worst: u64,
}

/// Bytes of shared memory of a block.
pub const SHARED_BYTES: u32 = 2 * 8 * reduce::room(1);

impl<'a> Batch<'a> {
    #[inline(always)]
    fn new(args: &'a Args) -> Self {
        Self { args, room: 0, worst: 0 }
    }

    /// The combination of all threads' words, in every thread. All threads call it together.
    #[inline(always)]
    fn reduce(&mut self, word: u64, combine: impl Fn(u64, u64) -> u64) -> u64 {
        self.room ^= 1;
        let words = reduce::room(1);
        // SAFETY: rooms alternate, so the reduction before the last, whose room this is, was left by all threads before
        // the last one's barrier.
        unsafe { reduce::reduce(word, 0, Shared::new(self.room * words * 8, words), combine) }
    }

    /// Where the norms of the sample at `at` begin, for `at` up to `count`: with lengths that are absurd, beyond the norms.
    ///
    /// # Safety
    ///
    /// All threads call it together, with arguments as [`Args`] tells them.
    #[inline(always)]
    unsafe fn begin(&mut self, at: u64) -> u64 {
        let args = self.args;
        if args.row_tokens > 0 {
            return at * args.row_tokens;
        }
        let mut sum = 0_u64;
        let mut before = u64::from(thread());
        while before < at {
            // SAFETY: one length for each of `count` samples, and `before` < `at` ≤ `count`.
            sum = sum.saturating_add(unsafe { load_constant(args.lengths.wrapping_add(before as usize)) });
            before += u64::from(block_threads());
        }
        // Sums that stop at the largest number have no order either.
        self.reduce(sum, u64::saturating_add)
    }

    /// The sample at `at`, checked.
    ///
    /// # Safety
    ///
    /// As for [`Self::begin`], and `at` < `count`.
    #[inline(always)]
    unsafe fn entry(&mut self, at: u64) -> Entry {
        let args = self.args;
        // SAFETY: one id for each of `count` samples.
        let sample = unsafe { load_constant(args.samples.wrapping_add(at as usize)) };
        // SAFETY: the caller's promise.
        let begin = unsafe { self.begin(at) };
        let length = if args.lengths.is_null() {
            args.row_tokens
        } else {
            // SAFETY: one length for each of `count` samples.
            unsafe { load_constant(args.lengths.wrapping_add(at as usize)) }
        };
        // Rows lie within the norms; without rows, what is left of them.
        let rest = if args.row_tokens > 0 { args.row_tokens } else { args.tokens.saturating_sub(begin) };
        let fault = if sample >= args.cache_samples {
            Some(Fault::Id)
        } else if length > args.sample_tokens || length > rest {
            Some(Fault::Length)
        } else {
            None
        };
        let room = if args.row_tokens > 0 || length > rest { rest } else { length };
        Entry { sample, begin, length, room, fault }
    }

    /// Remembers a fault of the sample at `at`; a block's samples come in ascending order.
    #[inline(always)]
    fn tell(&mut self, at: u64, fault: Fault) {
        if self.worst == 0 {
            // The first has the largest key, and none has 0: `at` < 2^32.
            self.worst = u64::MAX - (at << 3 | u64::from(fault as u32));
        }
    }

    /// After a block's last sample: the last block to come here has seen the faults of all, and tells the first.
    ///
    /// # Safety
    ///
    /// The status is of no other launch now.
    #[inline(always)]
    unsafe fn leave(self) {
        if thread() != 0 {
            return;
        }
        let Args { samples, status, .. } = *self.args;
        // SAFETY: `done` and `worst` are accessed atomically only. The last block is alone with the other two, since
        // every other block's thread 0 has added to `done`, after which it accesses nothing.
        unsafe {
            if self.worst > 0 {
                atomic_max(&raw mut (*status).worst, self.worst);
            }
            // Whoever sees the count sees what was told before it.
            device_fence();
            if atomic_add(&raw mut (*status).done, 1) == grid()[0] - 1 {
                device_fence();
                atomic_exchange(&raw mut (*status).done, 0);
                let worst = atomic_exchange(&raw mut (*status).worst, 0);
                if worst > 0 && load(&raw const (*status).fault) == 0 {
                    let first = u64::MAX - worst;
                    store(&raw mut (*status).sample, load_constant(samples.wrapping_add((first >> 3) as usize)));
                    store(&raw mut (*status).fault, (first & 7) as u32);
                }
            }
        }
    }
}
