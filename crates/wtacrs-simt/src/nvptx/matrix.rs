//! ldmatrix and mma.sync.

use super::llvm::{self, Four, Two};
use super::shared::generic;
use crate::shared::Address;
use core::arch::asm;

#[inline(always)]
pub(crate) unsafe fn load_x4(row: Address) -> [u32; 4] {
    // SAFETY: the caller's promise.
    let Four(a, b, c, d) = unsafe { llvm::ldmatrix_x4(generic(row)) };
    [a, b, c, d]
}

#[inline(always)]
pub(crate) unsafe fn load_x4_transposed(row: Address) -> [u32; 4] {
    // SAFETY: the caller's promise.
    let Four(a, b, c, d) = unsafe { llvm::ldmatrix_x4_trans(generic(row)) };
    [a, b, c, d]
}

#[inline(always)]
pub(crate) unsafe fn load_x2(row: Address) -> [u32; 2] {
    // SAFETY: the caller's promise.
    let Two(a, b) = unsafe { llvm::ldmatrix_x2(generic(row)) };
    [a, b]
}

#[inline(always)]
pub(crate) unsafe fn load_x2_transposed(row: Address) -> [u32; 2] {
    // SAFETY: the caller's promise.
    let Two(a, b) = unsafe { llvm::ldmatrix_x2_trans(generic(row)) };
    [a, b]
}

#[inline(always)]
pub(crate) fn mma_bf16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    // SAFETY: all lanes come here, as the API demands.
    let Four(d0, d1, d2, d3) = unsafe { llvm::mma_bf16(a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], c[2], c[3]) };
    [d0, d1, d2, d3]
}

#[inline(always)]
pub(crate) fn mma_tf32(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    // SAFETY: all lanes come here, as the API demands.
    let Four(d0, d1, d2, d3) = unsafe { llvm::mma_tf32(a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], c[2], c[3]) };
    [d0, d1, d2, d3]
}

#[inline(always)]
pub(crate) fn mma_f16(a: [u32; 4], b: [u32; 2], c: [f32; 4]) -> [f32; 4] {
    let (d0, d1, d2, d3): (u32, u32, u32, u32);
    // Not `pure`: then it could be moved into a branch. `nomem`: it works on registers only.
    // SAFETY: all lanes come here, as the API demands.
    unsafe {
        asm!(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {{{d0}, {d1}, {d2}, {d3}}}, {{{a0}, {a1}, {a2}, {a3}}}, \
             {{{b0}, {b1}}}, {{{c0}, {c1}, {c2}, {c3}}};",
            d0 = lateout(reg32) d0,
            d1 = lateout(reg32) d1,
            d2 = lateout(reg32) d2,
            d3 = lateout(reg32) d3,
            a0 = in(reg32) a[0],
            a1 = in(reg32) a[1],
            a2 = in(reg32) a[2],
            a3 = in(reg32) a[3],
            b0 = in(reg32) b[0],
            b1 = in(reg32) b[1],
            c0 = in(reg32) c[0].to_bits(),
            c1 = in(reg32) c[1].to_bits(),
            c2 = in(reg32) c[2].to_bits(),
            c3 = in(reg32) c[3].to_bits(),
            options(nomem, nostack, preserves_flags),
        );
    }
    [f32::from_bits(d0), f32::from_bits(d1), f32::from_bits(d2), f32::from_bits(d3)]
}
