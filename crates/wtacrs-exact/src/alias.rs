//! One slot of an alias table, and how random bits pick from it. Callers build the table, which needs memory.

/// One slot of the table: with `total` the sum of all masses, `own / total` of the slot's probability stays with the
/// entry of the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Of `total`, the mass that stays with the slot's own entry.
    pub own: u64,
    /// The entry that the rest goes to.
    pub alias: u32,
}

impl Slot {
    /// The entry that 128 random bits pick, of which the high half has chosen this slot, the one of index `slot`.
    #[inline]
    pub const fn pick(self, bits: u128, slot: u32, total: u64) -> u32 {
        let point = ((bits as u64 as u128 * total as u128) >> 64) as u64;
        if point < self.own { slot } else { self.alias }
    }
}

/// The slot that the high half of the bits chooses.
#[inline]
pub const fn slot_of(bits: u128, entries: u64) -> u64 {
    (((bits >> 64) * entries as u128) >> 64) as u64
}

/// The largest mass that is light: no more than its slot holds, entries · mass ≤ total. `entries` is positive.
#[inline]
pub const fn most_light(total: u64, entries: u64) -> u64 {
    match total.checked_div(entries) {
        Some(quotient) => quotient,
        None => 0,
    }
}
