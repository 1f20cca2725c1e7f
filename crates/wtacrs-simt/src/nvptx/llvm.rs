//! LLVM's names for the instructions that lanes execute together.

/// Four registers of a fragment.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Four<T>(pub(super) T, pub(super) T, pub(super) T, pub(super) T);

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    pub(super) fn bar_warp_sync(mask: u32);

    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    pub(super) fn shuffle(mask: u32, value: u32, source: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    pub(super) fn shuffle_xor(mask: u32, value: u32, flip: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.up.i32"]
    pub(super) fn shuffle_up(mask: u32, value: u32, distance: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.down.i32"]
    pub(super) fn shuffle_down(mask: u32, value: u32, distance: u32, clamp: u32) -> u32;

    #[link_name = "llvm.nvvm.vote.ballot.sync"]
    pub(super) fn ballot(mask: u32, predicate: bool) -> u32;

    #[link_name = "llvm.nvvm.redux.sync.add"]
    pub(super) fn reduce_add(value: u32, mask: u32) -> u32;
    #[link_name = "llvm.nvvm.redux.sync.umin"]
    pub(super) fn reduce_min(value: u32, mask: u32) -> u32;
    #[link_name = "llvm.nvvm.redux.sync.umax"]
    pub(super) fn reduce_max(value: u32, mask: u32) -> u32;
    #[link_name = "llvm.nvvm.redux.sync.or"]
    pub(super) fn reduce_or(value: u32, mask: u32) -> u32;

    #[link_name = "llvm.nvvm.mma.m16n8k16.row.col.bf16"]
    pub(super) fn mma_bf16(
        a0: u32,
        a1: u32,
        a2: u32,
        a3: u32,
        b0: u32,
        b1: u32,
        c0: f32,
        c1: f32,
        c2: f32,
        c3: f32,
    ) -> Four<f32>;
    #[link_name = "llvm.nvvm.mma.m16n8k8.row.col.tf32"]
    pub(super) fn mma_tf32(
        a0: u32,
        a1: u32,
        a2: u32,
        a3: u32,
        b0: u32,
        b1: u32,
        c0: f32,
        c1: f32,
        c2: f32,
        c3: f32,
    ) -> Four<f32>;
}
