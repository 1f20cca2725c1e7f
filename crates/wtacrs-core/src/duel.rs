//! One duel of pivotal sampling: two pairs' probability masses become one, and at most one pair is decided for.
//!
//! With unit u for probability one and masses 0 ≤ a, b < u:
//! a + b < u: one pair stays in with mass a + b (the first with odds a : b), the other is left out;
//! a + b ≥ u: one pair is selected, the first with probability (u − b)/(2u − a − b), and the other stays in with the
//! mass a + b − u that is over. Either way each pair's probability of being selected in the end stays a/u and b/u.
//!
//! Source: Deville and Tillé, "Unequal probability sampling without replacement through a splitting method",
//! Biometrika 85 (1998); the order of duels makes it Chauvet's (arXiv 1609.02688).

/// What a duel asks of chance, and what it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duel {
    /// One of the two masses is zero: no chance needed, the pair with mass stays in.
    Walkover {
        /// Whether the first pair stays in.
        first: bool,
    },
    /// One survivor with mass `part_first + part_second`; the other pair is left out.
    Survive {
        /// The first survives with probability `first / whole`.
        first: u64,
        /// a + b.
        whole: u64,
    },
    /// One pair is selected; the other stays in with mass `rest`.
    Select {
        /// The first is selected with probability `first / whole`.
        first: u64,
        /// 2u − a − b.
        whole: u64,
        /// a + b − u.
        rest: u64,
    },
}

impl Duel {
    /// The duel of masses `a` and `b`, both less than `unit` ≤ 2^62.
    #[inline]
    pub const fn new(a: u64, b: u64, unit: u64) -> Self {
        if a == 0 || b == 0 {
            Self::Walkover { first: b == 0 }
        } else if a + b < unit {
            Self::Survive { first: a, whole: a + b }
        } else {
            Self::Select { first: unit - b, whole: 2 * unit - a - b, rest: a + b - unit }
        }
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
                // P(first in the end) · unit, if the mass left over is realised with its own probability.
                let expected = match Duel::new(a, b, unit) {
                    Duel::Walkover { .. } => unreachable!(),
                    Duel::Survive { first, whole } => whole as f64 * first as f64 / whole as f64,
                    Duel::Select { first, whole, rest } => {
                        let selected = first as f64 / whole as f64;
                        unit as f64 * selected + rest as f64 * (1.0 - selected)
                    }
                };
                assert!((expected - a as f64).abs() < 1e-12, "{a} {b}");
            }
        }
        assert_eq!(Duel::new(0, 5, unit), Duel::Walkover { first: false });
        assert_eq!(Duel::new(5, 0, unit), Duel::Walkover { first: true });
        assert_eq!(Duel::new(6, 6, unit), Duel::Select { first: 6, whole: 12, rest: 0 });
    }
}
