//! Matrix loads and products. Elements are small integers, so every product and sum is exact, in any order.

use super::buffers::{Args, put, take};
use crate::matrix::{self, load_x2, load_x2_transposed, load_x4, load_x4_transposed};
use crate::shared::Shared;
use crate::{index, sync};

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn matrix_loads_input() -> Vec<u32> {
    super::buffers::random(128, 5)
}

/// Which row of shared memory is row `i` of the matrices, in no simple order.
const fn row_of(i: u32) -> u32 {
    (5 * i + 3) % 32
}

/// Four matrices of 8 × 8 halves, their rows scattered, loaded in every way.
#[inline(always)]
pub(super) unsafe fn matrix_loads(args: &Args) {
    let lane = index::lane();
    let words = Shared::<u32>::new(0, 128);
    // SAFETY: 16 bytes for every lane, written before the barrier; twelve words of output.
    unsafe {
        let mut i = 0;
        while i < 4 {
            words.write(4 * lane + i, take(args, 4 * lane + i));
            i += 1;
        }
        sync::barrier();
        let [a, b, c, d] = load_x4(words.address(4 * row_of(lane)));
        let row = 12 * lane;
        put(args, row, a);
        put(args, row + 1, b);
        put(args, row + 2, c);
        put(args, row + 3, d);
        let [a, b, c, d] = load_x4_transposed(words.address(4 * row_of(lane)));
        put(args, row + 4, a);
        put(args, row + 5, b);
        put(args, row + 6, c);
        put(args, row + 7, d);
        // The addresses of the upper lanes are not used.
        let [a, b] = load_x2(words.address(4 * row_of(lane % 16)));
        put(args, row + 8, a);
        put(args, row + 9, b);
        let [a, b] = load_x2_transposed(words.address(4 * row_of(lane % 16)));
        put(args, row + 10, a);
        put(args, row + 11, b);
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn matrix_loads_expected(input: &[u32]) -> Vec<u32> {
    let element = |matrix: usize, row: usize, column: usize| {
        let row = row_of((8 * matrix + row) as u32) as usize;
        input[4 * row + column / 2] >> (16 * (column % 2)) & 0xFFFF
    };
    let row = |lane: usize| {
        let (g, t) = (lane / 4, lane % 4);
        let plain = |m| element(m, g, 2 * t + 1) << 16 | element(m, g, 2 * t);
        let transposed = |m| element(m, 2 * t + 1, g) << 16 | element(m, 2 * t, g);
        let four = (0..4).map(plain).chain((0..4).map(transposed));
        four.chain((0..2).map(plain)).chain((0..2).map(transposed)).collect::<Vec<_>>()
    };
    (0..32).flat_map(row).collect()
}

/// How elements become bits.
#[cfg(not(target_arch = "nvptx64"))]
type Encode = fn(f32) -> u32;

/// A (16 × depth), B (depth × 8) and C (16 × 8) of small integers, row after row, one element a word.
#[cfg(not(target_arch = "nvptx64"))]
fn operands(depth: usize, seed: u64, encode: Encode) -> Vec<u32> {
    let integers = super::buffers::random(24 * depth + 128, seed).into_iter().map(|word| (word % 17) as f32 - 8.0);
    let encode = |(i, x): (usize, f32)| if i < 24 * depth { encode(x) } else { x.to_bits() };
    integers.enumerate().map(encode).collect()
}

/// C + A·B by the definition.
#[cfg(not(target_arch = "nvptx64"))]
fn product(input: &[u32], depth: usize, decode: fn(u32) -> f32) -> Vec<u32> {
    let (a, rest) = input.split_at(16 * depth);
    let (b, c) = rest.split_at(8 * depth);
    let entry = |i: usize| {
        let (row, column) = (i / 8, i % 8);
        let products = (0..depth).map(|k| decode(a[row * depth + k]) * decode(b[k * 8 + column]));
        (f32::from_bits(c[i]) + products.sum::<f32>()).to_bits()
    };
    (0..128).map(entry).collect()
}

/// Words `i` and `j` of the input as halves, the first one low.
#[inline(always)]
unsafe fn packed(args: &Args, i: u32, j: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { take(args, i) & 0xFFFF | take(args, j) << 16 }
}

/// The product of 16-bit elements by `multiply`, on fragments gathered element by element.
#[inline(always)]
unsafe fn halves(args: &Args, multiply: fn([u32; 4], [u32; 2], [f32; 4]) -> [f32; 4]) {
    let lane = index::lane();
    let (g, t) = (lane / 4, lane % 4);
    // SAFETY: the input holds 16 · 16 + 16 · 8 + 16 · 8 words, the output 16 · 8.
    unsafe {
        let a = |row: u32, column: u32| packed(args, 16 * row + column, 16 * row + column + 1);
        let b = |row: u32| packed(args, 256 + 8 * row + g, 256 + 8 * row + 8 + g);
        let c = |row: u32, column: u32| f32::from_bits(take(args, 384 + 8 * row + column));
        let sums = multiply(
            [a(g, 2 * t), a(g + 8, 2 * t), a(g, 2 * t + 8), a(g + 8, 2 * t + 8)],
            [b(2 * t), b(2 * t + 8)],
            [c(g, 2 * t), c(g, 2 * t + 1), c(g + 8, 2 * t), c(g + 8, 2 * t + 1)],
        );
        put_sums(args, sums);
    }
}

#[inline(always)]
unsafe fn put_sums(args: &Args, [a, b, c, d]: [f32; 4]) {
    let lane = index::lane();
    let at = lane / 4 * 8 + lane % 4 * 2;
    // SAFETY: the output holds 16 · 8 words.
    unsafe {
        put(args, at, a.to_bits());
        put(args, at + 1, b.to_bits());
        put(args, at + 64, c.to_bits());
        put(args, at + 65, d.to_bits());
    }
}

#[inline(always)]
pub(super) unsafe fn mma_bf16(args: &Args) {
    // SAFETY: the caller's promise.
    unsafe { halves(args, matrix::mma_bf16) }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn mma_bf16_input() -> Vec<u32> {
    operands(16, 6, |x| u32::from(half::bf16::from_f32(x).to_bits()))
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn mma_bf16_expected(input: &[u32]) -> Vec<u32> {
    product(input, 16, |bits| half::bf16::from_bits(bits as u16).to_f32())
}

#[inline(always)]
pub(super) unsafe fn mma_f16(args: &Args) {
    // SAFETY: the caller's promise.
    unsafe { halves(args, matrix::mma_f16) }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn mma_f16_input() -> Vec<u32> {
    operands(16, 7, |x| u32::from(half::f16::from_f32(x).to_bits()))
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn mma_f16_expected(input: &[u32]) -> Vec<u32> {
    product(input, 16, |bits| half::f16::from_bits(bits as u16).to_f32())
}

/// The low 13 bits of A and B hold what must be ignored.
#[inline(always)]
pub(super) unsafe fn mma_tf32(args: &Args) {
    let lane = index::lane();
    let (g, t) = (lane / 4, lane % 4);
    // SAFETY: the input holds 16 · 8 + 8 · 8 + 16 · 8 words.
    unsafe {
        let a = |row: u32, column: u32| take(args, 8 * row + column);
        let b = |row: u32| take(args, 128 + 8 * row + g);
        let c = |row: u32, column: u32| f32::from_bits(take(args, 192 + 8 * row + column));
        let sums = matrix::mma_tf32(
            [a(g, t), a(g + 8, t), a(g, t + 4), a(g + 8, t + 4)],
            [b(t), b(t + 4)],
            [c(g, 2 * t), c(g, 2 * t + 1), c(g + 8, 2 * t), c(g + 8, 2 * t + 1)],
        );
        put_sums(args, sums);
    }
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn mma_tf32_input() -> Vec<u32> {
    operands(8, 8, |x| x.to_bits() | 0x1ABC)
}

#[cfg(not(target_arch = "nvptx64"))]
pub(super) fn mma_tf32_expected(input: &[u32]) -> Vec<u32> {
    product(input, 8, |bits| f32::from_bits(bits & !0x1FFF))
}
