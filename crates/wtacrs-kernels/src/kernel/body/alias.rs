//! Builds alias tables and draws from them. Any slot follows from prefix sums alone, without any other slot.
//!
//! With L entries of masses q and T = Σq, a heavy entry has an excess of L·q − T over its slot, and a light one lacks
//! T − L·q. Core's sweep walks both in order of index, and the current heavy entry fills each light slot. Let E_i be the sum
//! of the excesses, and D_i the sum of the lacks, of entries 0 to i. Then that walk gives
//!
//! ```text
//! light l   own = L·q_l                                        alias = least h with E_h > D_l − (T − L·q_l)
//! heavy h   own = T + E_h − D_l for the least l with D_l ≥ E_h    alias = the next heavy entry, or h if it is the last
//! ```
//!
//! Both sums rise with the index, so each "least" is a binary search. Sums have 128 bits, since L·T may exceed 64.
//!
//! Source: Hübschle-Schneider and Sanders, "Parallel weighted random sampling", ESA 2019.

use super::block::reduce::warp_reduce;
use super::block::scan::warp_scan;
use super::team::{Run, Team};
use crate::kernel::alias::{BuildArgs, SampleArgs, scratch_bytes};
use wtacrs_exact::alias::{Slot, most_light, slot_of};
use wtacrs_exact::random::{Randomness, Stream};
use wtacrs_simt::index::{block, block_threads, grid, thread};
use wtacrs_simt::memory::{U32x4, load, load_constant, store};

/// Builds tables.
///
/// # Safety
///
/// Memory as [`BuildArgs`] says, and [`SHARED_BYTES`](crate::kernel::alias::SHARED_BYTES) of shared memory.
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
    team.synchronize();
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

/// How the masses of a table divide among its slots.
#[derive(Clone, Copy)]
pub(crate) struct Shares {
    total: u64,
    entries: u32,
    most_light: u64,
}

/// An excess and a lack, in two words each.
type Sums = [u64; 4];

impl Shares {
    #[inline(always)]
    pub(crate) fn new(total: u64, entries: u32) -> Self {
        Self { total, entries, most_light: most_light(total, u64::from(entries)) }
    }

    #[inline(always)]
    fn is_light(&self, mass: u64) -> bool {
        mass <= self.most_light
    }

    #[inline(always)]
    fn sums(&self, mass: u64) -> Sums {
        let demand = u128::from(mass) * u128::from(self.entries);
        if self.is_light(mass) {
            [0, 0, self.total - demand as u64, 0]
        } else {
            let excess = demand - u128::from(self.total);
            [excess as u64, (excess >> 64) as u64, 0, 0]
        }
    }
}

#[inline(always)]
fn add(a: Sums, b: Sums) -> Sums {
    let excess = join(a[0], a[1]).wrapping_add(join(b[0], b[1]));
    let lack = join(a[2], a[3]).wrapping_add(join(b[2], b[3]));
    [excess as u64, (excess >> 64) as u64, lack as u64, (lack >> 64) as u64]
}

#[inline(always)]
fn join(low: u64, high: u64) -> u128 {
    u128::from(low) | u128::from(high) << 64
}

/// E and D of every entry, in global memory.
#[derive(Clone, Copy)]
pub(crate) struct Prefixes {
    excess: *mut U32x4,
    lack: *mut U32x4,
    shares: Shares,
}

impl Prefixes {
    /// In scratch of [`scratch_bytes`], aligned to 16.
    #[inline(always)]
    pub(crate) fn new(scratch: *mut u8, shares: Shares) -> Self {
        let excess: *mut U32x4 = scratch.cast();
        Self { excess, lack: excess.wrapping_add(shares.entries as usize), shares }
    }

    /// Sums the masses of a team's entries. Others may read the sums once the team has synchronized.
    #[inline(always)]
    pub(crate) fn fill(&self, run: Run, team: &mut Team, mass: impl Fn(u32) -> u64) {
        let mut own = [0; 4];
        run.for_each(&mass, |_, mass| own = add(own, self.shares.sums(mass)));
        let mut before = team.scan(warp_reduce(own, add), [0; 4], add).before;
        let mut row = 0;
        while row < run.rows {
            let entry = run.pair(row);
            let sums = if run.holds(entry) { self.shares.sums(mass(entry)) } else { [0; 4] };
            let found = warp_scan(sums, [0; 4], add);
            if run.holds(entry) {
                let through = add(before, add(found.before, sums));
                // SAFETY: the entry's own places.
                unsafe {
                    store(self.excess.wrapping_add(entry as usize), split(through[0], through[1]));
                    store(self.lack.wrapping_add(entry as usize), split(through[2], through[3]));
                }
            }
            before = add(before, found.total);
            row += 1;
        }
    }

    /// The slot of an entry of this mass.
    #[inline(always)]
    pub(crate) fn slot(&self, entry: u32, mass: u64) -> Slot {
        let Shares { total, entries, .. } = self.shares;
        if self.shares.is_light(mass) {
            let own = mass * u64::from(entries);
            let given = at(self.lack, entry) - u128::from(total - own);
            // The last light slots have no giver if they lack nothing; no draw picks their alias.
            let giver = self.least(self.excess, |excess| excess > given);
            Slot { own, alias: if giver < entries { giver } else { 0 } }
        } else {
            let excess = at(self.excess, entry);
            let taker = self.least(self.lack, |lack| lack >= excess);
            let next = self.least(self.excess, |further| further > excess);
            let over = at(self.lack, taker) - excess;
            Slot { own: total - over as u64, alias: if next < entries { next } else { entry } }
        }
    }

    /// The least entry whose sum is large enough; the number of entries if none is. Sums rise with the index.
    #[inline(always)]
    fn least(&self, sums: *const U32x4, enough: impl Fn(u128) -> bool) -> u32 {
        let (mut low, mut high) = (0, self.shares.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            if enough(at(sums, middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

#[inline(always)]
fn split(low: u64, high: u64) -> U32x4 {
    U32x4([low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32])
}

#[inline(always)]
fn at(sums: *const U32x4, entry: u32) -> u128 {
    // SAFETY: an entry's sum, written before the team synchronized.
    let U32x4([a, b, c, d]) = unsafe { load(sums.wrapping_add(entry as usize)) };
    u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64 | u128::from(d) << 96
}
