//! Reductions and scans of a block, on the emulator, beside loops over their inputs.

use wtacrs_kernels::kernel::body::block::scan::Prefix;
use wtacrs_kernels::kernel::body::block::{reduce, scan};
use wtacrs_kernels::kernel::team::collective_words;
use wtacrs_simt::emulator::{Launch, launch};
use wtacrs_simt::index::{block, block_threads, lane, thread, warp};
use wtacrs_simt::shared::Shared;

/// The memory that all threads write, each its own place.
#[derive(Clone, Copy)]
struct Out<T>(*mut T);

// SAFETY: every thread writes places of its own.
unsafe impl<T> Sync for Out<T> {}

impl<T> Out<T> {
    fn write(&self, value: T) {
        let place = block()[0] * block_threads() + thread();
        // SAFETY: one place for each thread.
        unsafe { self.0.add(place as usize).write(value) }
    }
}

/// The result of each thread of some blocks, computed from its indices alone.
fn by_threads<T: Clone + Default>(threads: u32, seed: u64, each: impl Fn() -> T + Sync) -> Vec<T> {
    const BLOCKS: u32 = 2;
    let mut out = vec![T::default(); (BLOCKS * threads) as usize];
    let to = Out(out.as_mut_ptr());
    let shape = Launch {
        grid: [BLOCKS, 1, 1],
        block: threads,
        shared_bytes: 2 * 8 * collective_words(4),
        cooperative: false,
        seed,
    };
    launch(shape, &|| to.write(each())).expect("no fault");
    out
}

fn value() -> u64 {
    u64::from(block()[0] * 10_000 + thread() + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn values(block: u32, threads: u32) -> Vec<u64> {
    (0..threads).map(|t| u64::from(block * 10_000 + t + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
}

fn room(of: u32) -> Shared<u64> {
    Shared::new(of * 8 * collective_words(4), collective_words(4))
}

/// Words of a permutation-like operation: associative, not commutative.
fn join([a, b]: [u64; 2], [c, d]: [u64; 2]) -> [u64; 2] {
    // x ↦ a·x + b, one after the other.
    [a.wrapping_mul(c), b.wrapping_mul(c).wrapping_add(d)]
}

const SIZES: [u32; 5] = [32, 64, 96, 480, 1024];

#[test]
fn sums_and_largest() {
    for (threads, seed) in SIZES.into_iter().zip(0..) {
        // SAFETY: two rooms, used in turn.
        let found = by_threads(threads, seed, || unsafe {
            let by_each = |a: [u64; 3], b: [u64; 3]| [a[0].wrapping_add(b[0]), a[1].max(b[1]), a[2].min(b[2])];
            let sum = reduce::sum(value(), room(0));
            let max = reduce::max(value(), room(1));
            let all = reduce::reduce([value(); 3], [0, 0, u64::MAX], room(0), by_each);
            vec![sum, max, all[0], all[1], all[2]]
        });
        for (block, found) in found.chunks(threads as usize).enumerate() {
            let values = values(block as u32, threads);
            let sum = values.iter().fold(0_u64, |sum, v| sum.wrapping_add(*v));
            let (max, min) = (values.iter().max().copied(), values.iter().min().copied());
            let expected = vec![sum, max.expect("some"), sum, max.expect("some"), min.expect("some")];
            assert!(found.iter().all(|found| *found == expected), "{threads}");
        }
    }
}

#[test]
fn scans_keep_the_order() {
    for (threads, seed) in SIZES.into_iter().zip(5..) {
        // SAFETY: a room of its own.
        let found = by_threads(threads, seed, || unsafe {
            let Prefix { before, total } = scan::scan([value(), value() >> 7], [1, 0], room(0), join);
            [before, total]
        });
        for (block, found) in found.chunks(threads as usize).enumerate() {
            let values = values(block as u32, threads).into_iter().map(|v| [v, v >> 7]);
            let mut before = vec![[1, 0]];
            values.for_each(|v| before.push(join(before[before.len() - 1], v)));
            for (t, found) in found.iter().enumerate() {
                assert_eq!(*found, [before[t], before[threads as usize]], "thread {t} of {threads}");
            }
        }
    }
}

#[test]
fn scans_over_warps() {
    for (threads, seed) in SIZES.into_iter().zip(10..) {
        // SAFETY: a room of its own.
        let found = by_threads(threads, seed, || unsafe {
            let Prefix { before, total } = scan::across_warps(u64::from(warp() + 1), 0, room(1), u64::wrapping_add);
            [before, total]
        });
        let warps = u64::from(threads / 32);
        for (t, found) in found.iter().enumerate() {
            let warp = t as u64 % u64::from(threads) / 32;
            assert_eq!(*found, [warp * (warp + 1) / 2, warps * (warps + 1) / 2]);
        }
    }
}

#[test]
fn warps_alone() {
    let found = by_threads(64, 3, || {
        let prefix = scan::warp_scan([u64::from(lane()) + 1, 5], [1, 0], join);
        (prefix.before, prefix.total, reduce::warp_reduce(u64::from(lane()), u64::wrapping_add))
    });
    let whole = by_threads(64, 4, || (reduce::warp_sum([value(), 7]), reduce::warp_max([value(), !value()])));
    for (warp, found) in whole.chunks(32).enumerate() {
        let values = &values(warp as u32 / 2, 64)[warp % 2 * 32..][..32];
        let sum = values.iter().fold(0_u64, |sum, v| sum.wrapping_add(*v));
        let [most, least] = [values.iter().max(), values.iter().min()].map(|v| *v.expect("some"));
        assert!(found.iter().all(|found| *found == ([sum, 7 * 32], [most, !least])));
    }
    let mut before = [1, 0];
    let elements: Vec<[u64; 2]> = (0..32).map(|lane| [lane + 1, 5]).collect();
    let total = elements.iter().fold([1, 0], |sum, &e| join(sum, e));
    for (lane, found) in found.into_iter().enumerate() {
        if lane % 32 == 0 {
            before = [1, 0];
        }
        assert_eq!(found, (before, total, 496));
        before = join(before, elements[lane % 32]);
    }
}
