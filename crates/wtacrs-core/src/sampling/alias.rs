//! Walker's alias table over integer masses: independent draws in constant time each.
//!
//! With L entries of masses q_i and T = Σ q_i, slot i holds probability 1/L, of which `own`/T stays with entry i and
//! the rest goes to one other entry. The table is built in integers, so its law is exactly q_i/T: L · q_i is shared
//! out, nothing is rounded, and no entry is left over at the end.
//!
//! The sweep that builds it walks the light entries (L · q ≤ T) and the heavy ones (L · q > T) once each, in order of
//! index, and hands what lacks in a light slot over from the current heavy entry until that is light itself. The split
//! points of that walk are prefix sums, so the same table can be built in parallel.
//!
//! Sources: Vose, IEEE TSE 17 (1991); Hübschle-Schneider and Sanders, "Parallel weighted random sampling", ESA 2019.

use wtacrs_exact::alias::{Slot, most_light, slot_of};
use wtacrs_exact::fixed_point::SUM_BITS;

/// Masses prepared for independent draws.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasTable {
    slots: Vec<Slot>,
    total: u64,
}

/// Why masses make no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AliasError {
    /// There is nothing to draw.
    #[error("an alias table needs a positive mass")]
    NoMass,
    /// Draws are exact up to 2^62.
    #[error("the masses of an alias table add up to more than 2^62")]
    TooMuchMass,
    /// Indices are 32-bit.
    #[error("{entries} entries are more than the {} that can be indexed", u32::MAX)]
    TooManyEntries {
        /// How many there are.
        entries: usize,
    },
}

impl AliasTable {
    /// The table of these masses. Entries of mass zero are never drawn.
    ///
    /// Cost: one pass of O(n), 16 bytes for each entry.
    ///
    /// # Errors
    ///
    /// [`AliasError::NoMass`] if there are no masses or all are zero; [`AliasError::TooMuchMass`] if they add up to more
    /// than 2^62; [`AliasError::TooManyEntries`] if their indices do not fit 32 bits.
    pub fn new(masses: &[u64]) -> Result<Self, AliasError> {
        let total = masses.iter().try_fold(0_u64, |sum, &mass| sum.checked_add(mass));
        let total = total.filter(|&total| total <= 1 << SUM_BITS).ok_or(AliasError::TooMuchMass)?;
        if total == 0 {
            return Err(AliasError::NoMass);
        }
        u32::try_from(masses.len()).map_err(|_| AliasError::TooManyEntries { entries: masses.len() })?;
        let entries = masses.len() as u64;
        let most_light = most_light(total, entries);
        let mut slots: Vec<Slot> = vec![Slot { own: total, alias: 0 }; masses.len()];

        let (lights, heavies) = partition(masses, most_light);
        let mut lights = lights.into_iter();
        let mut heavies = heavies.into_iter().peekable();
        // What the current heavy entry has still to place. Signed: the next one starts by filling this one's slot.
        let mut rest = 0_i128;
        while let Some(giver) = heavies.next() {
            rest += i128::from(masses[giver as usize]) * i128::from(entries);
            while rest > i128::from(total) {
                let taker = lights.next().expect("what is more than the heavy slots hold has room in light ones");
                let own = masses[taker as usize] * entries;
                slots[taker as usize] = Slot { own, alias: giver };
                rest -= i128::from(total - own);
            }
            slots[giver as usize] = Slot { own: rest as u64, alias: heavies.peek().copied().unwrap_or(giver) };
            rest -= i128::from(total);
        }
        Ok(Self { slots, total })
    }

    /// The slots, one for each entry.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// How many entries the table has.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Never true: a table has at least one entry.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The entry that 128 random bits pick: the high half chooses the slot, the low half whether its own entry stays.
    #[inline]
    pub fn pick(&self, bits: u128) -> usize {
        let slot = slot_of(bits, self.slots.len() as u64);
        self.slots[slot as usize].pick(bits, slot as u32, self.total) as usize
    }

    /// The exact law of a draw: entry i has probability `law[i] / (len · total)`, computed from the slots.
    pub fn law(&self) -> Vec<u128> {
        let mut law = vec![0; self.slots.len()];
        for (entry, slot) in self.slots.iter().enumerate() {
            law[entry] += u128::from(slot.own);
            law[slot.alias as usize] += u128::from(self.total - slot.own);
        }
        law
    }
}

/// The entries up to `most_light`, and the others, both in order. Without branches, which no predictor could follow.
fn partition(masses: &[u64], most_light: u64) -> (Vec<u32>, Vec<u32>) {
    let (mut lights, mut heavies) = (vec![0; masses.len()], vec![0; masses.len()]);
    let (mut light, mut heavy) = (0, 0);
    for (entry, &mass) in masses.iter().enumerate() {
        let is_light = mass <= most_light;
        lights[light] = entry as u32;
        heavies[heavy] = entry as u32;
        light += usize::from(is_light);
        heavy += usize::from(!is_light);
    }
    lights.truncate(light);
    heavies.truncate(heavy);
    (lights, heavies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::Rng;

    #[test]
    fn the_law_is_the_masses_exactly() {
        let mut rng = wtacrs_exact::philox::Philox4x32_10::new(5, 0);
        for round in 0..3000 {
            let n = 1 + rng.next_u32() as usize % 30;
            let shift = 8 + round % 50;
            let mut masses: Vec<u64> = (0..n).map(|_| rng.next_u64() >> shift >> 6).collect();
            masses[rng.next_u32() as usize % n] += 1;
            let table = AliasTable::new(&masses).expect("positive");
            let law: Vec<u128> = masses.iter().map(|&q| u128::from(q) * n as u128).collect();
            assert_eq!(table.law(), law, "{masses:?}");
        }
    }

    #[test]
    fn zero_masses_are_never_drawn_even_at_the_boundaries() {
        let table = AliasTable::new(&[0, 5, 0, 1, 0]).expect("positive");
        for high in [0, 1, u64::MAX / 5, u64::MAX / 5 + 1, u64::MAX / 2, u64::MAX] {
            for low in [0, 1, u64::MAX / 6, u64::MAX] {
                let entry = table.pick(u128::from(high) << 64 | u128::from(low));
                assert!(entry == 1 || entry == 3);
            }
        }
    }

    #[test]
    fn masses_that_make_no_table_are_refused() {
        assert_eq!(AliasTable::new(&[]), Err(AliasError::NoMass));
        assert_eq!(AliasTable::new(&[0, 0]), Err(AliasError::NoMass));
        assert_eq!(AliasTable::new(&[1 << 62, 1]), Err(AliasError::TooMuchMass));
        assert_eq!(AliasTable::new(&[u64::MAX, 1]), Err(AliasError::TooMuchMass));
        assert!(AliasTable::new(&[1 << 62]).is_ok());
    }
}
