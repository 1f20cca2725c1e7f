//! The norm cache in device memory: wtacrs-core's `NormCache` for samples 0 to N − 1 of at most so many tokens each.
//!
//! | launch | blocks | does |
//! |---|---|---|
//! | `norm_cache_fetch` | one for each sample of the batch, one for the places behind the last | `norms[begin + t] = stored[sample, t]`, or −1 where that is not known |
//! | `norm_cache_store` | one for each sample of the batch | `stored[sample, t] = norms[begin + t]`, or forgets samples |
//!
//! A batch's norms lie in rows of equal length, or without gaps, sample after sample. If a sample occurs twice in a batch,
//! the last occurrence counts.
//!
//! No host code sees ids, lengths or norms before a launch, so each is checked on the device before it leads to memory.
//! Samples that fail are left out, and [`Status`] receives the first fault of a launch, unless it still holds an earlier one.

use super::team::collective_words;
use crate::launch::Shape;

/// The arguments of a launch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// For each sample of the batch its id.
    pub samples: *const u64,
    /// For each its number of tokens; null: `row_tokens`.
    pub lengths: *const u64,
    /// Samples of the batch.
    pub count: u32,
    /// Floats from one sample's norms to the next one's; 0: without gaps.
    pub row_tokens: u64,
    /// The batch's norms. Null, for the store alone: its samples are forgotten, and no lengths are read.
    pub norms: *mut f32,
    /// How many floats: at least `count` · `row_tokens`.
    pub tokens: u64,
    /// N.
    pub cache_samples: u64,
    /// The most tokens of a sample.
    pub sample_tokens: u64,
    /// For each of the N samples 0, or 1 + the number of its tokens.
    pub known: *mut u32,
    /// N × `sample_tokens` norms, of which those of known samples are initialised.
    pub stored: *mut f32,
    /// The first fault, if there is one.
    pub status: *mut Status,
}

/// The first fault of a batch, in device memory; all zero at first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The id of the first sample that was left out.
    pub sample: u64,
    /// Why: 0, or a [`Fault`].
    pub fault: u32,
    /// How many blocks of a launch have finished; 0 between launches.
    pub done: u32,
    /// The key of the first fault of a launch; 0 between launches.
    pub key: u64,
}

/// Why a sample is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Fault {
    /// Its id is N or more.
    Id = 1,
    /// It has more tokens than the cache, its row or the rest of the norms has room for.
    Length = 2,
    /// The cache has another number of tokens for it (fetch).
    Changed = 3,
    /// One of its norms is negative or not finite (store).
    Norm = 4,
}

/// Bytes of shared memory of a block: two windows, used in turn.
pub const SHARED_BYTES: u32 = 2 * 8 * collective_words(1);

/// The most blocks. A block then takes several samples.
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
    // A token for each thread, in small blocks.
    let block = sample_tokens.clamp(32, 256).next_power_of_two() as u32;
    Shape { grid: [blocks.clamp(1, MOST_BLOCKS), 1, 1], block, shared_bytes: SHARED_BYTES, cooperative: false }
}
