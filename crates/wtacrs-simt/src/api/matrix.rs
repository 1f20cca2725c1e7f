//! The matrix units, by warps: ldmatrix and mma.sync.
//!
//! All 32 lanes call these together. Fragments are laid out over lanes as the PTX ISA's tables say (section "Matrix
//! Fragments for mma.m16n8k16"): with g = lane / 4 and t = lane % 4, elements packed low half first,
//!
//! ```text
//! A (16 × 16, row major)   a0 = A[g][2t..]    a1 = A[g+8][2t..]    a2 = A[g][2t+8..]    a3 = A[g+8][2t+8..]
//! B (16 × 8)               b0 = B[2t..][g]    b1 = B[2t+8..][g]
//! C, D (16 × 8)            c0, c1 = C[g][2t..]                     c2, c3 = C[g+8][2t..]
//! ```
//!
//! and for tf32 m16n8k8: a0 = `A[g][t]`, a1 = `A[g+8][t]`, a2 = `A[g][t+4]`, a3 = `A[g+8][t+4]`; b0 = `B[t][g]`, b1 = `B[t+4][g]`.

use crate::body;
use crate::types::Address;

/// Four 8 × 8 matrices of 16-bit elements. Lanes 8i to 8i+7 pass the addresses of the rows of matrix i, of 16 bytes each.
/// Register i of a lane receives the elements 2t, 2t+1 of row g of matrix i.
///
/// # Safety
///
/// All addresses are aligned to 16 and lie in the launch's shared memory, written and landed before.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load_x4(row: Address) -> [u32; 4] {
    // SAFETY: the caller's promise.
    unsafe { body::matrix::load_x4(row) }
}

/// [`load_x4`] of the transposed matrices: register i holds the elements g of rows 2t, 2t+1 of matrix i.
///
/// # Safety
///
/// As for [`load_x4`].
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load_x4_transposed(row: Address) -> [u32; 4] {
    // SAFETY: the caller's promise.
    unsafe { body::matrix::load_x4_transposed(row) }
}

/// [`load_x4`] for two matrices, of which lanes 0 to 15 pass the addresses.
///
/// # Safety
///
/// As for [`load_x4`], for lanes 0 to 15.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load_x2(row: Address) -> [u32; 2] {
    // SAFETY: the caller's promise.
    unsafe { body::matrix::load_x2(row) }
}

/// [`load_x2`] of the transposed matrices.
///
/// # Safety
///
/// As for [`load_x2`].
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub unsafe fn load_x2_transposed(row: Address) -> [u32; 2] {
    // SAFETY: the caller's promise.
    unsafe { body::matrix::load_x2_transposed(row) }
}

/// C + A·B for bf16 A (16 × 16) and B (16 × 8), in f32.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn mma_bf16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    body::matrix::mma_bf16(a, b, c)
}

/// C + A·B for f16 A (16 × 16) and B (16 × 8), in f32.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn mma_f16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    body::matrix::mma_f16(a, b, c)
}

/// C + A·B for tf32 A (16 × 8) and B (8 × 8), in f32. Operands are f32 bits whose low 13 bits are ignored.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn mma_tf32(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    body::matrix::mma_tf32(a, b, c)
}
