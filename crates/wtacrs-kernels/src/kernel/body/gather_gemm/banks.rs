//! Tests that no access to shared memory has a bank conflict: they compute the bank of every lane's address by the functions
//! that the kernel uses.
//!
//! Shared memory has 32 banks of 4 bytes. A warp's accesses of 16 bytes run in 4 phases of 8 lanes, of 8 bytes in 2 phases
//! of 16, and ldmatrix in one phase for each 8 × 8 matrix. A phase takes as many cycles as the most different words that it
//! reads or writes in one bank.

use super::full::Full;
use super::half::Half;
use super::tf32::Tf32;
use super::warp_product::WarpProduct;
use crate::kernel::body::block::tile::Layout;
use crate::kernel::body::element::Bf16;
use std::collections::BTreeSet;

/// The most words that one bank is asked for in a phase, over all warps of `threads` and all their phases.
fn cycles(threads: u32, width: u32, address: impl Fn(u32) -> u32) -> usize {
    let lanes = 128 / width;
    let mut worst = 0;
    for phase in 0..threads / lanes {
        let mut banks = vec![BTreeSet::new(); 32];
        for lane in 0..lanes {
            let at = address(phase * lanes + lane);
            assert_eq!(at % width, 0, "aligned");
            for word in at / 4..(at + width) / 4 {
                banks[word as usize % 32].insert(word);
            }
        }
        worst = worst.max(banks.iter().map(BTreeSet::len).max().expect("32 banks"));
    }
    worst
}

fn loads<L: Layout>() {
    for pass in 0..L::PASSES {
        let to = |thread| {
            let (row, chunk) = L::share(thread);
            let to = L::offset(row, chunk) + pass * L::ROWS_PER_PASS * L::ROW_BYTES;
            assert_eq!(to, L::offset(row + pass * L::ROWS_PER_PASS, chunk), "flipped alike in every pass");
            to
        };
        assert_eq!(cycles(L::THREADS, 16, to), 1);
    }
    let all: BTreeSet<u32> = (0..L::ROWS).flat_map(|r| (0..L::CHUNKS).map(move |c| L::offset(r, c))).collect();
    assert_eq!(all.len() as u32 * 16, L::BYTES, "every chunk has a place of its own");
    assert!(all.last().is_some_and(|&last| last + 16 == L::BYTES));
}

fn rows<E: WarpProduct>() {
    loads::<E::Left>();
    loads::<E::Right>();
    let mut seen: Vec<u32> =
        (0..4).flat_map(|part| (0..E::SIZES.part_rows()).map(move |row| E::row(part, row))).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..E::SIZES.rows).collect::<Vec<_>>(), "every row leaves once");
    // Read back by 16 bytes, neighbouring threads neighbouring columns.
    let quads = E::SIZES.columns / 4;
    assert_eq!(cycles(E::SIZES.threads, 16, |thread| thread / quads * E::SIZES.pitch * 4 + thread % quads * 16), 1);
}

fn half<const M: u32, const N: u32, const THREADS: u32>() {
    type Of<const M: u32, const N: u32, const THREADS: u32> = Half<Bf16, M, N, THREADS>;
    rows::<Of<M, N, THREADS>>();
    for step in 0..<Of<M, N, THREADS>>::STEPS {
        let left = step * 16 * <Of<M, N, THREADS> as WarpProduct>::Left::ROW_BYTES;
        let right = step * 16 * <Of<M, N, THREADS> as WarpProduct>::Right::ROW_BYTES;
        for i in 0..4 {
            assert_eq!(cycles(THREADS, 16, |thread| left + Of::<M, N, THREADS>::left_offset(thread, i)), 1);
        }
        for i in 0..M * N / 32 / THREADS {
            assert_eq!(cycles(THREADS, 16, |thread| right + Of::<M, N, THREADS>::right_offset(thread, i)), 1);
        }
    }
    for column in 0..M * N / 16 / THREADS {
        for row in [0, 8] {
            let further = 8 * column + row * <Of<M, N, THREADS>>::SIZES.pitch;
            assert_eq!(cycles(THREADS, 8, |thread| 4 * (Of::<M, N, THREADS>::staged(thread) + further)), 1);
        }
    }
}

#[test]
fn half_meets_none() {
    half::<128, 256, 256>();
    half::<128, 128, 128>();
    half::<128, 64, 128>();
    half::<64, 128, 128>();
    half::<128, 128, 256>();
}

#[test]
fn full_meets_none() {
    rows::<Full>();
    for further in [0, 16] {
        assert_eq!(cycles(256, 16, |thread| 16 * (Full::chunks(thread).0 + further)), 1);
        assert_eq!(cycles(256, 16, |thread| 16 * (Full::chunks(thread).1 + further)), 1);
        assert_eq!(cycles(256, 16, |thread| 16 * (Full::staged(thread) + further)), 1);
    }
}

#[test]
fn tf32_meets_none() {
    rows::<Tf32>();
    for row in [0, 4, 8, 12] {
        let further = row * <Tf32 as WarpProduct>::Left::ROW_BYTES;
        assert_eq!(cycles(256, 16, |thread| further + Tf32::offsets(thread).0[0]), 1);
        assert_eq!(cycles(256, 16, |thread| further + Tf32::offsets(thread).0[1]), 1);
        assert_eq!(cycles(256, 16, |thread| further + Tf32::offsets(thread).1), 1);
    }
    for further in [0, 1, 8 * Tf32::SIZES.pitch / 4, 8 * Tf32::SIZES.pitch / 4 + 1] {
        assert_eq!(cycles(256, 16, |thread| 16 * (Tf32::staged(thread) + further)), 1);
    }
}

#[test]
fn the_count_sees_conflicts() {
    assert_eq!(cycles(32, 16, |thread| thread * 256), 8, "unflipped columns");
    assert_eq!(cycles(32, 4, |thread| thread * 128), 32);
    assert_eq!(cycles(32, 4, |_| 4), 1, "one word for all");
}
