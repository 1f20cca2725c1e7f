//! One duel of pivotal sampling: two pairs' probability masses become one, and one pair is decided for.
//!
//! With unit u for probability one and masses 0 < a, b < u:
//! a + b < u: one pair stays in with mass a + b (the first with odds a : b), the other is left out;
//! a + b ≥ u: one pair is selected, the first with probability (u − b)/(2u − a − b), and the other stays in with the
//! mass a + b − u that is over. Either way each pair's probability of being selected in the end stays a/u and b/u.
//!
//! Source: Deville and Tillé, "Unequal probability sampling without replacement through a splitting method",
//! Biometrika 85 (1998); the order of duels makes it Chauvet's (arXiv 1609.02688).

/// What a duel asks of chance, and what it leaves. Without branches on the masses, which no predictor could follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duel {
    /// Whether the pair that leaves is selected (a + b ≥ u) or left out.
    pub selects: bool,
    /// The mass of the pair that stays in.
    pub mass: u64,
    /// The first pair hits with probability `first / whole`: it then stays, or, if the duel selects, is selected.
    pub first: u64,
    /// See `first`.
    pub whole: u64,
}

impl Duel {
    /// The duel of masses `a` and `b`, both less than `unit` ≤ 2^62. Where one is 0, the other side stays as it is: `first` is then 0
    /// or `whole`. Where both are, so is `whole`.
    #[inline]
    pub const fn new(a: u64, b: u64, unit: u64) -> Self {
        let sum = a + b;
        if sum < unit {
            Self { selects: false, mass: sum, first: a, whole: sum }
        } else {
            Self { selects: true, mass: sum - unit, first: unit - b, whole: 2 * unit - sum }
        }
    }

    /// Whether the first pair is the one that stays in.
    #[inline]
    pub const fn first_stays(&self, first_hits: bool) -> bool {
        first_hits != self.selects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_mass_is_kept() {
        let unit = 12;
        for a in 1..unit {
            for b in 1..unit {
                let duel = Duel::new(a, b, unit);
                // The first pair's mass after the duel, if it hits and if it does not.
                let after = |hits: bool| match (duel.first_stays(hits), duel.selects) {
                    (true, _) => duel.mass,
                    (false, true) => unit,
                    (false, false) => 0,
                };
                let expected = duel.first * after(true) + (duel.whole - duel.first) * after(false);
                assert_eq!(expected, a * duel.whole, "{a} {b}");
                assert!(duel.first > 0 && duel.first < duel.whole && duel.mass < unit);
            }
        }
    }
}
