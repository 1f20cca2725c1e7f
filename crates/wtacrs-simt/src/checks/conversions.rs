//! Rounding: conversions, fused products, roots.

use super::buffers::{Args, global_thread, put, put_wide, take};
use crate::math::{
    bf16_to_f32, f16_to_f32, f32_pair_to_bf16, f32_pair_to_f16, f32_to_bf16, f32_to_f16, f32_to_tf32, fma_f32, fma_f64,
    multiply_wide, sqrt_f32, sqrt_f64,
};

/// Finite floats of all magnitudes, ties of every conversion, and numbers that overflow or vanish in 16 bits.
#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn rounding_input() -> Vec<u32> {
    let mut words: Vec<u32> = super::buffers::random(3 * 256, 9)
        .into_iter()
        // Half of them near 1, so that sums do not swallow products.
        .map(|word| if word & 1 == 0 { word & 0x80FF_FFFF | 0x3F00_0000 } else { word })
        .map(|word| if word & 0x7F80_0000 == 0x7F80_0000 { word ^ 0x0080_0000 } else { word })
        .collect();
    let edges = [
        0x0000_0000,
        0x8000_0000,
        0x0000_0001,
        0x3F80_8000,
        0x3F81_8000,
        0x3F80_1000,
        0x3F80_2000,
        0x3F80_3000,
        0x477F_E000,
        0x477F_EFFF,
        0x477F_F000,
        0x3300_0000,
        0x3300_0001,
        0x3380_0000,
        0x3880_0000,
        0x387F_C000,
        0x7F7F_FFFF,
        0x7F7F_8000,
        0xFF7F_7FFF,
        0x7F7F_EFFF,
        0x7F80_0000,
        0xFF80_0000,
        0x0080_0000,
        0x007F_FFFF,
    ];
    words[..edges.len()].copy_from_slice(&edges);
    words
}

/// Words i, 256 + i and 512 + i of thread i, through everything.
#[inline(always)]
pub(super) unsafe fn rounding(args: &Args) {
    let thread = global_thread();
    // SAFETY: three words in and sixteen out for every thread.
    unsafe {
        let bits = take(args, thread);
        let x = f32::from_bits(bits);
        let y = f32::from_bits(take(args, 256 + thread));
        let z = f32::from_bits(take(args, 512 + thread));
        let row = 16 * thread;
        put(args, row, u32::from(f32_to_bf16(x)));
        put(args, row + 1, u32::from(f32_to_f16(x)));
        put(args, row + 2, f32_to_tf32(x));
        put(args, row + 3, bf16_to_f32(bits as u16 & 0xFF7F).to_bits());
        put(args, row + 4, f16_to_f32(bits as u16 & 0xFBFF).to_bits());
        put(args, row + 5, fma_f32(x, y, z).to_bits());
        put(args, row + 6, sqrt_f32(f32::from_bits(bits & 0x7FFF_FFFF)).to_bits());
        let wide = |x: f32, y: f32| f64::from(x) * 1.000_000_000_000_1 + f64::from(y) * 1e-9;
        put_wide(args, row + 7, fma_f64(wide(y, z), wide(z, y), wide(x, x)).to_bits());
        let magnitude = f32::from_bits(bits & 0x7FFF_FFFF);
        put_wide(args, row + 9, sqrt_f64(f64::from(magnitude) * 1.000_000_1).to_bits());
        put(args, row + 11, bits);
        put_wide(args, row + 12, multiply_wide(bits, y.to_bits()));
        put(args, row + 14, f32_pair_to_bf16(x, y));
        put(args, row + 15, f32_pair_to_f16(y, x));
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn rounding_expected(input: &[u32]) -> Vec<u32> {
    let pair = |low: f32, high: f32, to: fn(f32) -> u16| u32::from(to(low)) | u32::from(to(high)) << 16;
    let row = |i: usize| {
        let bits = input[i];
        let [x, y, z] = [bits, input[256 + i], input[512 + i]].map(f32::from_bits);
        let wide = |x: f32, y: f32| f64::from(x) * 1.000_000_000_000_1 + f64::from(y) * 1e-9;
        let fused = wide(y, z).mul_add(wide(z, y), wide(x, x)).to_bits();
        let product = u64::from(bits) * u64::from(input[256 + i]);
        let root = (f64::from(x.abs()) * 1.000_000_1).sqrt().to_bits();
        [
            u32::from(half::bf16::from_f32(x).to_bits()),
            u32::from(half::f16::from_f32(x).to_bits()),
            nearest_tf32(x),
            half::bf16::from_bits(bits as u16 & 0xFF7F).to_f32().to_bits(),
            half::f16::from_bits(bits as u16 & 0xFBFF).to_f32().to_bits(),
            x.mul_add(y, z).to_bits(),
            x.abs().sqrt().to_bits(),
            fused as u32,
            (fused >> 32) as u32,
            root as u32,
            (root >> 32) as u32,
            bits,
            product as u32,
            (product >> 32) as u32,
            pair(x, y, |x| half::bf16::from_f32(x).to_bits()),
            pair(y, x, |x| half::f16::from_f32(x).to_bits()),
        ]
    };
    (0..256).flat_map(row).collect()
}

/// The nearer of the two neighbours with 10 bits after the point; away from zero if both are as near.
#[cfg(not(target_arch = "nvptx64"))]
fn nearest_tf32(x: f32) -> u32 {
    let below = x.to_bits() & !0x1FFF;
    let above = below.wrapping_add(0x2000);
    if x.is_infinite() {
        return x.to_bits();
    }
    // The neighbour beyond the largest number is the next power of two.
    let wide = |bits: u32| {
        let x = f64::from(f32::from_bits(bits));
        if x.is_infinite() { 2f64.powi(128).copysign(x) } else { x }
    };
    let x = f64::from(x);
    if (x - wide(below)).abs() < (wide(above) - x).abs() { below } else { above }
}
