//! Alias tables, built in parallel, and independent draws from them: the sampler of the paper's eq. 5.
//!
//! The table is that of `AliasTable` in wtacrs-core, slot by slot.

use super::team;

/// The arguments of a launch that builds tables. One block, that is one grid.z, for each table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BuildArgs {
    /// tables × entries masses; each table's sum is positive and at most 2^62.
    pub masses: *const u64,
    /// Entries of each table: 1 to 2^31.
    pub entries: u32,
    /// tables × entries: the part of the sum that stays with the slot's own entry.
    pub own: *mut u64,
    /// tables × entries: the entry that the rest goes to.
    pub alias: *mut u32,
    /// For each table the sum of its masses.
    pub totals: *mut u64,
    /// [`scratch_bytes`] for each table, aligned to 16.
    pub scratch: *mut u8,
}

/// The arguments of a launch that draws from tables. One grid.z for each table, any grid.x.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SampleArgs {
    /// See [`BuildArgs`].
    pub own: *const u64,
    /// See [`BuildArgs`].
    pub alias: *const u32,
    /// See [`BuildArgs`].
    pub totals: *const u64,
    /// Entries of each table.
    pub entries: u32,
    /// Draws from each table.
    pub draws: u32,
    /// The generator's key.
    pub seed: u64,
    /// The first block of its counter: draw j uses the bits of offset + j.
    pub offset: u64,
    /// The stream of the first table; the others follow.
    pub first_stream: u32,
    /// tables × draws entries.
    pub picks: *mut u32,
}

/// Scratch that a table needs while it is built: two sums of 128 bits for each entry.
#[inline(always)]
pub const fn scratch_bytes(entries: u32) -> u64 {
    32 * entries as u64
}

/// Shared memory of a block that builds a table; draws need none.
pub const SHARED_BYTES: u32 = team::SHARED_BYTES;
