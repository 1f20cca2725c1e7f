//! Matrix units on random numbers of all magnitudes, against products in twice the precision.

use half::{bf16, f16};
use proptest::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use wtacrs_simt::emulator::{Launch, launch};
use wtacrs_simt::{index, matrix};

const SHAPE: Launch = Launch { grid: [1, 1, 1], block: 64, shared_bytes: 0, cooperative: false, seed: 0 };

/// A·B + C of one warp, by fragments that the test gathers from the matrices.
fn on_warp(seed: u64, of_lane: impl Fn(usize, usize) -> [f32; 4] + Sync) -> Vec<f32> {
    let sums: Vec<AtomicU32> = (0..128).map(|_| AtomicU32::new(0)).collect();
    let outcome = launch(Launch { seed, ..SHAPE }, &|| {
        // Both warps multiply, each for itself.
        let lane = index::lane() as usize;
        let (g, t) = (lane / 4, lane % 4);
        let [a, b, c, d] = of_lane(g, t);
        if index::warp() == 1 {
            for (row, column, x) in [(g, 2 * t, a), (g, 2 * t + 1, b), (g + 8, 2 * t, c), (g + 8, 2 * t + 1, d)] {
                sums[8 * row + column].store(x.to_bits(), Relaxed);
            }
        }
    });
    outcome.expect("a kernel without faults");
    sums.iter().map(|x| f32::from_bits(x.load(Relaxed))).collect()
}

/// Every entry is within the error of so many float additions of the exact one.
fn assert_product(found: &[f32], a: &[f32], b: &[f32], c: &[f32], depth: usize) {
    for (i, &found) in found.iter().enumerate() {
        let (row, column) = (i / 8, i % 8);
        let terms = (0..depth).map(|k| f64::from(a[row * depth + k]) * f64::from(b[k * 8 + column]));
        let terms: Vec<f64> = terms.chain([f64::from(c[i])]).collect();
        let exact: f64 = terms.iter().sum();
        let size: f64 = terms.iter().map(|x| x.abs()).sum();
        let bound = (depth + 1) as f64 * f64::from(f32::EPSILON) * size + f64::from(f32::MIN_POSITIVE);
        assert!((f64::from(found) - exact).abs() <= bound, "({row}, {column}): {found} is not {exact}");
    }
}

fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-1f32..1.0, -8i32..8).prop_map(|(x, exponent)| x * (exponent as f32).exp2()), count)
}

fn c_of(c: &[f32], g: usize, t: usize) -> [f32; 4] {
    [c[8 * g + 2 * t], c[8 * g + 2 * t + 1], c[8 * g + 64 + 2 * t], c[8 * g + 64 + 2 * t + 1]]
}

/// Fragments of 16-bit elements.
fn halves(a: &[u16], b: &[u16], g: usize, t: usize) -> ([u32; 4], [u32; 2]) {
    let pack = |low: u16, high: u16| u32::from(high) << 16 | u32::from(low);
    let of_a = |row: usize, column: usize| pack(a[16 * row + column], a[16 * row + column + 1]);
    let of_b = |row: usize| pack(b[8 * row + g], b[8 * row + 8 + g]);
    let a = [of_a(g, 2 * t), of_a(g + 8, 2 * t), of_a(g, 2 * t + 8), of_a(g + 8, 2 * t + 8)];
    (a, [of_b(2 * t), of_b(2 * t + 8)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bf16_products(a in numbers(256), b in numbers(128), c in numbers(128), seed in 0u64..20) {
        let a: Vec<bf16> = a.into_iter().map(bf16::from_f32).collect();
        let b: Vec<bf16> = b.into_iter().map(bf16::from_f32).collect();
        let bits = |x: &[bf16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let (a_bits, b_bits) = (bits(&a), bits(&b));
        let found = on_warp(seed, |g, t| {
            let (a, b) = halves(&a_bits, &b_bits, g, t);
            matrix::mma_bf16(a, b, c_of(&c, g, t))
        });
        let wide = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        assert_product(&found, &wide(&a), &wide(&b), &c, 16);
    }

    #[test]
    fn f16_products(a in numbers(256), b in numbers(128), c in numbers(128), seed in 0u64..20) {
        let a: Vec<f16> = a.into_iter().map(f16::from_f32).collect();
        let b: Vec<f16> = b.into_iter().map(f16::from_f32).collect();
        let bits = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let (a_bits, b_bits) = (bits(&a), bits(&b));
        let found = on_warp(seed, |g, t| {
            let (a, b) = halves(&a_bits, &b_bits, g, t);
            matrix::mma_f16(a, b, c_of(&c, g, t))
        });
        let wide = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        assert_product(&found, &wide(&a), &wide(&b), &c, 16);
    }

    #[test]
    fn tf32_products(a in numbers(128), b in numbers(64), c in numbers(128), seed in 0u64..20) {
        let found = on_warp(seed, |g, t| {
            let of_a = |row: usize, column: usize| a[8 * row + column].to_bits();
            let of_b = |row: usize| b[8 * row + g].to_bits();
            let a = [of_a(g, t), of_a(g + 8, t), of_a(g, t + 4), of_a(g + 8, t + 4)];
            matrix::mma_tf32(a, [of_b(t), of_b(t + 4)], c_of(&c, g, t))
        });
        let cut = |x: &[f32]| x.iter().map(|x| f32::from_bits(x.to_bits() & !0x1FFF)).collect::<Vec<_>>();
        assert_product(&found, &cut(&a), &cut(&b), &c, 8);
    }
}
