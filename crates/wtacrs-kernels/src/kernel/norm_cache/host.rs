//! The cache's launches, from the host's side.

use super::SHARED_BYTES;
use crate::launch::Shape;

/// Blocks at most: beyond, a block takes several samples.
const MOST_BLOCKS: u32 = 1 << 16;

/// The launch of `norm_cache_fetch` for `Args::count` and `Args::sample_tokens`.
pub fn fetch_shape(count: u32, sample_tokens: u64) -> Shape {
    shape(count.saturating_add(1), sample_tokens)
}

/// The launch of `norm_cache_store`, likewise.
pub fn store_shape(count: u32, sample_tokens: u64) -> Shape {
    shape(count, sample_tokens)
}

fn shape(blocks: u32, sample_tokens: u64) -> Shape {
    // A token for each thread, up to what keeps a block small.
    let block = sample_tokens.clamp(32, 256).next_power_of_two() as u32;
    Shape { grid: [blocks.clamp(1, MOST_BLOCKS), 1, 1], block, shared_bytes: SHARED_BYTES, cooperative: false }
}
