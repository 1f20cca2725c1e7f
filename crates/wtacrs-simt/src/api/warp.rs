//! What a warp's lanes do together: shuffles, votes, reductions.
//!
//! Every call names the lanes that take part as a bit mask. All of them must call it, with the same mask, and each must be
//! in it.

use crate::body;

pub use crate::types::FULL;

/// A type that lanes can exchange: u32, i32, u64, f32, f64.
pub trait Exchange: Copy + body::warp::Shuffle {}

impl Exchange for u32 {}
impl Exchange for i32 {}
impl Exchange for u64 {}
impl Exchange for f32 {}
impl Exchange for f64 {}

/// The value of lane `source` % 32, which is in the mask.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn shuffle<T: Exchange>(mask: u32, value: T, source: u32) -> T {
    body::warp::shuffle(mask, value, source)
}

/// The value of the lane whose index differs by the bits of `flip` (< 32).
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn shuffle_xor<T: Exchange>(mask: u32, value: T, flip: u32) -> T {
    body::warp::shuffle_xor(mask, value, flip)
}

/// The value of the lane `distance` (< 32) below; the caller's own value in the lowest `distance` lanes.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn shuffle_up<T: Exchange>(mask: u32, value: T, distance: u32) -> T {
    body::warp::shuffle_up(mask, value, distance)
}

/// The value of the lane `distance` (< 32) above; the caller's own value in the highest `distance` lanes.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn shuffle_down<T: Exchange>(mask: u32, value: T, distance: u32) -> T {
    body::warp::shuffle_down(mask, value, distance)
}

/// The lanes of the mask whose predicate holds.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn ballot(mask: u32, predicate: bool) -> u32 {
    body::warp::ballot(mask, predicate)
}

/// Whether the predicate holds in any lane of the mask.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn any(mask: u32, predicate: bool) -> bool {
    ballot(mask, predicate) != 0
}

/// Whether the predicate holds in all lanes of the mask.
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn all(mask: u32, predicate: bool) -> bool {
    ballot(mask, predicate) == mask
}

/// The wrapping sum over the lanes of the mask (redux.sync).
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn reduce_add(mask: u32, value: u32) -> u32 {
    body::warp::reduce_add(mask, value)
}

/// The least value over the lanes of the mask (redux.sync).
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn reduce_min(mask: u32, value: u32) -> u32 {
    body::warp::reduce_min(mask, value)
}

/// The largest value over the lanes of the mask (redux.sync).
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn reduce_max(mask: u32, value: u32) -> u32 {
    body::warp::reduce_max(mask, value)
}

/// The bits set in any lane of the mask (redux.sync).
#[cfg_attr(not(target_arch = "nvptx64"), track_caller)]
#[inline(always)]
pub fn reduce_or(mask: u32, value: u32) -> u32 {
    body::warp::reduce_or(mask, value)
}
