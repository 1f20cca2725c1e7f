//! `norms[begin + t] = stored[sample, t]`, or −1 where that is not known.

use super::{Args, Batch, Fault};
use wtacrs_simt::index::{block, block_threads, grid, thread};
use wtacrs_simt::memory::{load, store};

/// What stands for a norm that is not known.
const UNKNOWN: f32 = -1.0;

/// Fetches a batch's norms; every float of `norms` is written.
///
/// # Safety
///
/// Memory as [`Args`] tells it, with norms, and the launch that `fetch_shape` tells.
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
                batch.tell(at, fault);
            }
            let length = if fault.is_none() && known > 0 { entry.length } else { 0 };
            let first = if length > 0 { entry.sample * args.sample_tokens } else { 0 };
            (entry.begin, entry.room, args.stored.wrapping_add(first as usize).cast_const(), length)
        };
        let to = args.norms.wrapping_add(begin as usize);
        let mut token = u64::from(thread());
        while token < room {
            // SAFETY: `token` < `length` ≤ `sample_tokens`, of a known sample: initialised, by an earlier launch. `room`
            // floats from `begin` on lie within the norms, and no other block has them.
            unsafe {
                let norm = if token < length { load(from.wrapping_add(token as usize)) } else { UNKNOWN };
                store(to.wrapping_add(token as usize), norm);
            }
            token += u64::from(block_threads());
        }
        at += u64::from(grid()[0]);
    }
    // SAFETY: launches on one cache run one after another.
    unsafe { batch.leave() };
}
