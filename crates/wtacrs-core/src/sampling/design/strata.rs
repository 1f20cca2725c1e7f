//! The tail cut into strata of equal mass, which the design draws from and its variance is computed over.

/// Masses laid end to end, cut into strata of equal size.
pub(crate) struct Strata {
    size: u64,
    index: u64,
    filled: u64,
    members: Vec<u32>,
    masses: Vec<u64>,
}

impl Strata {
    pub(crate) fn new(size: u64) -> Self {
        Self { size, index: 0, filled: 0, members: Vec::new(), masses: Vec::new() }
    }

    /// Adds a pair of mass less than the strata's size, and hands over the stratum that this fills, if it does: its
    /// index, its pairs and how much of each lies in it.
    #[inline]
    pub(crate) fn add(&mut self, pair: u32, mass: u64, full: impl FnOnce(u64, &[u32], &[u64])) {
        let room = self.size - self.filled;
        self.members.push(pair);
        self.masses.push(mass.min(room));
        if mass < room {
            self.filled += mass;
            return;
        }
        full(self.index, &self.members, &self.masses);
        self.index += 1;
        self.members.clear();
        self.masses.clear();
        self.filled = mass - room;
        if self.filled > 0 {
            self.members.push(pair);
            self.masses.push(self.filled);
        }
    }
}
