//! Alias tables, built in parallel, and independent draws from them: the sampler of the paper's eq. 5.
//!
//! The table is that of `AliasTable` in wtacrs-core, slot by slot; `prefixes` tells how.

pub(crate) mod prefixes;

pub(crate) use self::prefixes::{Prefixes, Shares};

use crate::kernel::team::Team;
use wtacrs_exact::alias::{Slot, slot_of};
use wtacrs_exact::random::{Randomness, Stream};
use wtacrs_simt::index::{block, block_threads, grid, thread};
use wtacrs_simt::memory::{load_constant, store};

/// What a launch of [`alias_build`] is given. One block, that is one grid.z, for each table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BuildArgs {
    /// tables × entries masses; each table's sum is positive and at most 2^62.
    pub masses: *const u64,
    /// Entries of each table: 1 to 2^31.
    pub entries: u32,
    /// tables × entries: of the sum, what stays with the slot's own entry.
    pub own: *mut u64,
    /// tables × entries: the entry that the rest goes to.
    pub alias: *mut u32,
    /// For each table the sum of its masses.
    pub totals: *mut u64,
    /// [`scratch_bytes`] for each table, aligned to 16.
    pub scratch: *mut u8,
}

/// What a launch of [`alias_sample`] is given. One grid.z for each table, any grid.x.
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

/// Scratch that [`alias_build`] needs for each table.
#[inline(always)]
pub const fn scratch_bytes(entries: u32) -> u64 {
    prefixes::bytes(entries)
}

/// Shared memory that [`alias_build`] needs; [`alias_sample`] needs none.
pub const SHARED_BYTES: u32 = crate::kernel::team::ROOMS;

/// Builds tables.
///
/// # Safety
///
/// Memory as [`BuildArgs`] says, and [`SHARED_BYTES`] of shared memory.
#[inline(always)]
pub unsafe fn alias_build(args: &BuildArgs) {
    let table = block()[2] as usize;
    let first = table * args.entries as usize;
    // SAFETY: an entry of the table.
    let mass = |entry: u32| unsafe { load_constant(args.masses.wrapping_add(first + entry as usize)) };
    let mut team = Team::alone(args.entries);
    let run = team.run();
    let mut total = 0_u64;
    run.for_each(mass, |_, mass| total = total.wrapping_add(mass));
    total = team.sum(total);
    let scratch = args.scratch.wrapping_add(table * scratch_bytes(args.entries) as usize);
    let prefixes = Prefixes::new(scratch, Shares::new(total, args.entries));
    prefixes.fill(run, &mut team, mass);
    team.meet();
    run.for_each(mass, |entry, mass| {
        let Slot { own, alias } = prefixes.slot(entry, mass);
        // SAFETY: the slot's own places.
        unsafe {
            store(args.own.wrapping_add(first + entry as usize), own);
            store(args.alias.wrapping_add(first + entry as usize), alias);
        }
    });
    if thread() == 0 {
        // SAFETY: the table's own place.
        unsafe { store(args.totals.wrapping_add(table), total) };
    }
}

/// Draws from tables.
///
/// # Safety
///
/// Memory as [`SampleArgs`] says, with tables of [`alias_build`].
#[inline(always)]
pub unsafe fn alias_sample(args: &SampleArgs) {
    let [rank, _, table] = block();
    let first = table as usize * args.entries as usize;
    let stream = Stream::new(Randomness::new(args.seed, args.offset), args.first_stream.wrapping_add(table));
    // SAFETY: the table's sum.
    let total = unsafe { load_constant(args.totals.wrapping_add(table as usize)) };
    let mut draw = u64::from(rank) * u64::from(block_threads()) + u64::from(thread());
    while draw < u64::from(args.draws) {
        let bits = stream.bits(draw);
        let slot = slot_of(bits, u64::from(args.entries));
        let at = first + slot as usize;
        // SAFETY: a slot of the table, and the draw's own place.
        unsafe {
            let own = load_constant(args.own.wrapping_add(at));
            let alias = load_constant(args.alias.wrapping_add(at));
            let entry = Slot { own, alias }.pick(bits, slot as u32, total);
            store(args.picks.wrapping_add(table as usize * args.draws as usize + draw as usize), entry);
        }
        draw += u64::from(grid()[0]) * u64::from(block_threads());
    }
}
