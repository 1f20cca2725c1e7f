//! ldmatrix and mma.sync.

use super::llvm::{self, Four};
use crate::types::Address;
use core::arch::asm;

/// One ldmatrix of four or two matrices. Inline PTX, since LLVM's intrinsics take generic addresses, which cost moves.
///
/// Not `pure`: then it could be moved into a branch.
macro_rules! ldmatrix {
    ($instruction:literal, $row:expr, x4) => {{
        let (a, b, c, d): (u32, u32, u32, u32);
        // SAFETY: the caller of the function around this promises aligned rows in shared memory, and that all lanes come.
        unsafe {
            asm!(
                concat!($instruction, ".shared.b16 {{{0}, {1}, {2}, {3}}}, [{4}];"),
                out(reg32) a,
                out(reg32) b,
                out(reg32) c,
                out(reg32) d,
                in(reg32) $row.0,
                options(readonly, nostack, preserves_flags),
            );
        }
        [a, b, c, d]
    }};
    ($instruction:literal, $row:expr, x2) => {{
        let (a, b): (u32, u32);
        // SAFETY: as above.
        unsafe {
            asm!(
                concat!($instruction, ".shared.b16 {{{0}, {1}}}, [{2}];"),
                out(reg32) a,
                out(reg32) b,
                in(reg32) $row.0,
                options(readonly, nostack, preserves_flags),
            );
        }
        [a, b]
    }};
}

#[inline(always)]
pub(crate) unsafe fn load_x4(row: Address) -> [u32; 4] {
    ldmatrix!("ldmatrix.sync.aligned.m8n8.x4", row, x4)
}

#[inline(always)]
pub(crate) unsafe fn load_x4_transposed(row: Address) -> [u32; 4] {
    ldmatrix!("ldmatrix.sync.aligned.m8n8.x4.trans", row, x4)
}

#[inline(always)]
pub(crate) unsafe fn load_x2(row: Address) -> [u32; 2] {
    ldmatrix!("ldmatrix.sync.aligned.m8n8.x2", row, x2)
}

#[inline(always)]
pub(crate) unsafe fn load_x2_transposed(row: Address) -> [u32; 2] {
    ldmatrix!("ldmatrix.sync.aligned.m8n8.x2.trans", row, x2)
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
