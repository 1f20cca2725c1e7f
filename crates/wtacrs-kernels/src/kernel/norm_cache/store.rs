//! `stored[sample, t] = norms[begin + t]`, for samples all of whose norms are some.

use super::{Args, Batch, Entry, Fault};
use wtacrs_simt::index::{block, block_threads, grid, thread};
use wtacrs_simt::memory::{load_constant, store};

/// Some norm of a sample is none.
const BAD: u64 = 1;
/// A sample comes again later in the batch.
const AGAIN: u64 = 2;

/// Takes a batch's norms over in place of what was known of its samples, or forgets them.
///
/// # Safety
///
/// Memory as [`Args`] tells it, and the launch that `store_shape` tells.
#[inline(always)]
pub unsafe fn norm_cache_store(args: &Args) {
    let mut batch = Batch::new(args);
    let count = u64::from(args.count);
    let mut at = u64::from(block()[0]);
    while at < count {
        let entry = if args.norms.is_null() {
            // SAFETY: one id for each of `count` samples.
            let sample = unsafe { load_constant(args.samples.wrapping_add(at as usize)) };
            // To forget what cannot be known is no fault to tell.
            let fault = if sample >= args.cache_samples { Some(Fault::Id) } else { None };
            Entry { sample, begin: 0, length: 0, room: 0, fault }
        } else {
            // SAFETY: all threads of the block are here, and `at` < `count`.
            let entry = unsafe { batch.entry(at) };
            if let Some(fault) = entry.fault {
                batch.tell(at, fault);
            }
            entry
        };
        // The same for all threads of the block: they meet in the reduction together.
        if entry.fault.is_none() {
            // SAFETY: the sample is below N, and its norms lie within the batch's.
            unsafe { take(&mut batch, at, &entry) };
        }
        at += u64::from(grid()[0]);
    }
    // SAFETY: launches on one cache run one after another.
    unsafe { batch.leave() };
}

/// Takes a sample over, if it is the batch's last of its id and all of its norms are some.
///
/// # Safety
///
/// All threads of the block call it together, for a sample without a fault.
#[inline(always)]
unsafe fn take(batch: &mut Batch, at: u64, entry: &Entry) {
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
        batch.tell(at, Fault::Norm);
    }
    if found != 0 {
        return;
    }
    let to = args.stored.wrapping_add((entry.sample * args.sample_tokens) as usize);
    let mut token = u64::from(thread());
    while token < entry.length {
        // SAFETY: as above; and `length` is at most the tokens that the sample has room for. No other block writes this
        // sample, for it is the batch's last of its id.
        unsafe { store(to.wrapping_add(token as usize), load_constant(norms.wrapping_add(token as usize))) };
        token += step;
    }
    if thread() == 0 {
        let known = if args.norms.is_null() { 0 } else { entry.length as u32 + 1 };
        // SAFETY: as above: the sample is below N, and this block's alone.
        unsafe { store(args.known.wrapping_add(entry.sample as usize), known) };
    }
}
