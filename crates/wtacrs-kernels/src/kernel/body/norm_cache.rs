//! Fetches norms from the cache and stores them there, a block for each sample of a batch.
//!
//! In a batch without gaps a block adds up all lengths before its sample's. A block that stores looks for its sample among
//! all that follow. Both read count words for each sample, from cache: batches have hundreds of samples, not millions.

use super::block::reduce;
use crate::kernel::norm_cache::{Args, Fault};
use crate::kernel::team::collective_words;
use wtacrs_simt::atomic::{atomic_add, atomic_exchange, atomic_max};
use wtacrs_simt::index::{block, block_threads, grid, thread};
use wtacrs_simt::memory::{load, load_constant, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::device_fence;

/// In place of a norm that is not known.
const UNKNOWN: f32 = -1.0;

/// Fetches a batch's norms; every float of `norms` is written.
///
/// # Safety
///
/// Memory as [`Args`] says, with norms, and the launch of [`fetch_shape`](crate::kernel::norm_cache::fetch_shape).
#[inline(always)]
pub unsafe fn norm_cache_fetch(args: &Args) {
    let mut batch = Batch::new(args);
    let count = u64::from(args.count);
    let mut at = u64::from(block()[0]);
    while at <= count {
        let (begin, room, from, length) = if at == count {
            // SAFETY: all threads of the block are here.
            let begin = unsafe { batch.begin(count) };
            (begin, args.tokens.saturating_sub(begin), args.stored.cast_const(), 0)
        } else {
            // SAFETY: as above, and `at` < `count`.
            let entry = unsafe { batch.entry(at) };
            let mut fault = entry.fault;
            let mut known = 0;
            if fault.is_none() {
                // SAFETY: a sample without a fault is below N.
                known = unsafe { load(args.known.wrapping_add(entry.sample as usize)) };
                if known > 0 && u64::from(known - 1) != entry.length {
                    fault = Some(Fault::Changed);
                }
            }
            if let Some(fault) = fault {
                batch.note(at, fault);
            }
            let length = if fault.is_none() && known > 0 { entry.length } else { 0 };
            let first = if length > 0 { entry.sample * args.sample_tokens } else { 0 };
            (entry.begin, entry.room, args.stored.wrapping_add(first as usize).cast_const(), length)
        };
        let to = args.norms.wrapping_add(begin as usize);
        let mut token = u64::from(thread());
        while token < room {
            // SAFETY: `token` < `length` ≤ `sample_tokens`, of a known sample: initialised, by an earlier launch. `room`
            // floats from `begin` on lie within the norms, and no other block writes them.
            unsafe {
                let norm = if token < length { load(from.wrapping_add(token as usize)) } else { UNKNOWN };
                store(to.wrapping_add(token as usize), norm);
            }
            token += u64::from(block_threads());
        }
        at += u64::from(grid()[0]);
    }
    // SAFETY: launches on one cache run one after another.
    unsafe { batch.finish() };
}

/// A norm of a sample is negative or not finite.
const BAD: u64 = 1;
/// A sample comes again later in the batch.
const AGAIN: u64 = 2;

/// Stores a batch's norms in place of the older ones of its samples, or forgets the samples.
///
/// # Safety
///
/// Memory as [`Args`] says, and the launch of [`store_shape`](crate::kernel::norm_cache::store_shape).
#[inline(always)]
pub unsafe fn norm_cache_store(args: &Args) {
    let mut batch = Batch::new(args);
    let count = u64::from(args.count);
    let mut at = u64::from(block()[0]);
    while at < count {
        let entry = if args.norms.is_null() {
            // SAFETY: one id for each of `count` samples.
            let sample = unsafe { load_constant(args.samples.wrapping_add(at as usize)) };
            // A sample that cannot be known is already forgotten: this fault is not noted.
            let fault = if sample >= args.cache_samples { Some(Fault::Id) } else { None };
            Entry { sample, begin: 0, length: 0, room: 0, fault }
        } else {
            // SAFETY: all threads of the block are here, and `at` < `count`.
            let entry = unsafe { batch.entry(at) };
            if let Some(fault) = entry.fault {
                batch.note(at, fault);
            }
            entry
        };
        // The same in all threads of the block, so all of them come to the reduction.
        if entry.fault.is_none() {
            // SAFETY: the sample is below N, and its norms lie within the batch's.
            unsafe { store_sample(&mut batch, at, &entry) };
        }
        at += u64::from(grid()[0]);
    }
    // SAFETY: launches on one cache run one after another.
    unsafe { batch.finish() };
}

/// Stores a sample, if it is the batch's last of its id and all of its norms are valid.
///
/// # Safety
///
/// All threads of the block call it together, for a sample without a fault.
#[inline(always)]
unsafe fn store_sample(batch: &mut Batch, at: u64, entry: &Entry) {
    let args = batch.args;
    let step = u64::from(block_threads());
    let norms = args.norms.wrapping_add(entry.begin as usize).cast_const();
    let mut found = 0;
    let mut token = u64::from(thread());
    while token < entry.length {
        // SAFETY: `length` norms from `begin` on lie within the batch's.
        let norm = unsafe { load_constant(norms.wrapping_add(token as usize)) };
        // False for NaN as well.
        let is_norm = (0.0..f32::INFINITY).contains(&norm);
        found |= if is_norm { 0 } else { BAD };
        token += step;
    }
    let mut later = at + 1 + u64::from(thread());
    while later < u64::from(args.count) {
        // SAFETY: one id for each of `count` samples.
        let sample = unsafe { load_constant(args.samples.wrapping_add(later as usize)) };
        found |= if sample == entry.sample { AGAIN } else { 0 };
        later += step;
    }
    let found = batch.reduce(found, |a, b| a | b);
    if found & BAD != 0 {
        batch.note(at, Fault::Norm);
    }
    if found != 0 {
        return;
    }
    let to = args.stored.wrapping_add((entry.sample * args.sample_tokens) as usize);
    let mut token = u64::from(thread());
    while token < entry.length {
        // SAFETY: as above; and `length` is at most the tokens that the sample has room for. No other block writes this
        // sample, since it is the batch's last of its id.
        unsafe { store(to.wrapping_add(token as usize), load_constant(norms.wrapping_add(token as usize))) };
        token += step;
    }
    if thread() == 0 {
        let known = if args.norms.is_null() { 0 } else { entry.length as u32 + 1 };
        // SAFETY: as above: the sample is below N, and no other block writes it.
        unsafe { store(args.known.wrapping_add(entry.sample as usize), known) };
    }
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
    /// The fault found so far.
    fault: Option<Fault>,
}

/// The state that a thread keeps from sample to sample.
struct Batch<'a> {
    args: &'a Args,
    /// The window of shared memory, 0 or 1, that the last reduction used. Windows alternate, so that no thread overwrites words
    /// that a slower thread still reads.
    window: u32,
    /// The key of the block's first fault, or 0.
    key: u64,
}

impl<'a> Batch<'a> {
    #[inline(always)]
    fn new(args: &'a Args) -> Self {
        Self { args, window: 0, key: 0 }
    }

    /// The combination of all threads' words, in every thread. All threads call it together.
    #[inline(always)]
    fn reduce(&mut self, word: u64, combine: impl Fn(u64, u64) -> u64) -> u64 {
        self.window ^= 1;
        let words = collective_words(1);
        // SAFETY: windows alternate. The reduction before the last used this one, and all threads left it before the last
        // one's barrier.
        unsafe { reduce::reduce(word, 0, Shared::new(self.window * words * 8, words), combine) }
    }

    /// Where the norms of the sample at `at` begin, for `at` up to `count`; beyond the norms if lengths are absurd.
    ///
    /// # Safety
    ///
    /// All threads call it together, with arguments as [`Args`] says.
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
        // Saturating sums do not depend on their order.
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
        // Rows lie within the norms; without rows, the rest of the norms is there.
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

    /// Notes a fault of the sample at `at`; a block's samples come in ascending order.
    #[inline(always)]
    fn note(&mut self, at: u64, fault: Fault) {
        if self.key == 0 {
            // The first has the largest key, and none has 0: `at` < 2^32.
            self.key = u64::MAX - (at << 3 | u64::from(fault as u32));
        }
    }

    /// Ends a block. The last block to end has the keys of all, and writes the first fault to the status.
    ///
    /// # Safety
    ///
    /// No other launch uses the status.
    #[inline(always)]
    unsafe fn finish(self) {
        if thread() != 0 {
            return;
        }
        let Args { samples, status, .. } = *self.args;
        // SAFETY: `done` and `key` are accessed atomically only. The last block has the other two to itself, since every
        // other block's thread 0 has added to `done`, after which it accesses nothing.
        unsafe {
            if self.key > 0 {
                atomic_max(&raw mut (*status).key, self.key);
            }
            // A block that sees the count sees the keys that were written before it.
            device_fence();
            if atomic_add(&raw mut (*status).done, 1) == grid()[0] - 1 {
                device_fence();
                atomic_exchange(&raw mut (*status).done, 0);
                let key = atomic_exchange(&raw mut (*status).key, 0);
                if key > 0 && load(&raw const (*status).fault) == 0 {
                    let first = u64::MAX - key;
                    store(&raw mut (*status).sample, load_constant(samples.wrapping_add((first >> 3) as usize)));
                    store(&raw mut (*status).fault, (first & 7) as u32);
                }
            }
        }
    }
}
