//! Any slot of an alias table, from prefix sums alone.
//!
//! With L entries of masses q and T = Σq, a heavy entry has L·q − T more than its slot holds, and a light one T − L·q less.
//! Core's sweep walks both in order of index and lets each light slot be filled by the heavy entry that is giving. With
//! E_i the excess of all heavy entries up to i, and D_i what light ones up to i lack, both including i, that walk gives
//!
//! ```text
//! light l   own = L·q_l                                        alias = least h with E_h > D_l − (T − L·q_l)
//! heavy h   own = T + E_h − D_l for the least l with D_l ≥ E_h    alias = the next heavy entry, or h if it is the last
//! ```
//!
//! Both sums rise with the index, so each "least" is a binary search, and a slot needs no other slot. Sums are of 128
//! bits: L·T may exceed 64.
//!
//! Source: Hübschle-Schneider and Sanders, "Parallel weighted random sampling", ESA 2019.

use crate::block::reduce::warp_reduce;
use crate::block::scan::warp_scan;
use crate::kernel::team::{Run, Team};
use wtacrs_exact::alias::{Slot, most_light};
use wtacrs_simt::memory::{U32x4, load, store};

/// What a slot holds.
#[derive(Clone, Copy)]
pub(crate) struct Shares {
    total: u64,
    entries: u32,
    most_light: u64,
}

/// Excess and lack, in two words each.
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

/// Bytes of the prefix sums of so many entries.
#[inline(always)]
pub(crate) const fn bytes(entries: u32) -> u64 {
    32 * entries as u64
}

impl Prefixes {
    /// In scratch of [`bytes`], aligned to 16.
    #[inline(always)]
    pub(crate) fn new(scratch: *mut u8, shares: Shares) -> Self {
        let excess: *mut U32x4 = scratch.cast();
        Self { excess, lack: excess.wrapping_add(shares.entries as usize), shares }
    }

    /// Sums the masses of a team's entries. Others may read once the team has met.
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
            // Nobody gives to the last light slots if they lack nothing; no draw asks for their alias.
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
    // SAFETY: an entry's sum, written before the team met.
    let U32x4([a, b, c, d]) = unsafe { load(sums.wrapping_add(entry as usize)) };
    u128::from(a) | u128::from(b) << 32 | u128::from(c) << 64 | u128::from(d) << 96
}
