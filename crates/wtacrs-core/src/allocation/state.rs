//! A planner as bytes, for a checkpoint.

use super::planner::{Planner, PlannerError, State, Sums};
use crate::envelope::{self, EnvelopeError};

const MAGIC: &[u8; 8] = b"wtacrsPL";
const VERSION: u32 = 1;
/// Of a layer: three sizes, and two lists of sums.
const LAYER_BYTES: usize = 8 * (3 + 2 * Sums::COUNT);

impl Planner {
    /// Its layers, what it has taken in, and what is pending. [`Self::from_bytes`] makes a planner of them that goes on to the
    /// same bits.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = envelope::begin(MAGIC, VERSION, LAYER_BYTES * self.layers() + envelope::FRAME);
        for State { columns, element_bytes, first, known, pending } in &self.layers {
            bytes.extend([*columns, *element_bytes, *first].into_iter().flat_map(|size| (size as u64).to_le_bytes()));
            bytes.extend(known.numbers().into_iter().chain(pending.numbers()).flat_map(f64::to_le_bytes));
        }
        envelope::close(bytes)
    }

    /// The planner that [`Self::to_bytes`] saved.
    ///
    /// # Errors
    ///
    /// Another version; bytes missing, added or changed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PlannerError> {
        let mut reader = envelope::open(bytes, MAGIC, VERSION)?;
        let corrupted = |what| Err(PlannerError::Corrupted { what });
        if !reader.len().is_multiple_of(LAYER_BYTES) {
            return corrupted("its length fits no number of layers");
        }
        let mut planner = Self::new();
        while reader.len() > 0 {
            let (columns, element_bytes, first) = (reader.size()?, reader.size()?, reader.size()?);
            let numbers = reader.numbers(2 * Sums::COUNT)?;
            if numbers.iter().any(|number| !number.is_finite()) {
                return corrupted("a number is not finite");
            }
            let layer = planner.add_layer(columns, element_bytes);
            if first > layer || planner.layers[first].first != first {
                return corrupted("a layer shares the input of none");
            }
            let (known, pending) = numbers.split_at(Sums::COUNT);
            planner.layers[layer] =
                State { columns, element_bytes, first, known: Sums::of(known), pending: Sums::of(pending) };
        }
        Ok(planner)
    }
}

impl From<EnvelopeError> for PlannerError {
    fn from(error: EnvelopeError) -> Self {
        match error {
            EnvelopeError::Version { expected, found } => Self::Version { expected, found },
            EnvelopeError::Corrupted { what } => Self::Corrupted { what },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::{LayerBudget, Observation, Target};
    use crate::product::Packing;
    use crate::sampling::Weights;

    fn planner() -> Planner {
        let mut planner = Planner::new();
        for (columns, element_bytes) in [(64, 4), (32, 2), (64, 4)] {
            planner.add_layer(columns, element_bytes);
        }
        planner.share_input(2, 0).expect("alike");
        planner
    }

    fn see(planner: &mut Planner, number: usize) {
        let squares: Vec<f64> = (0..20).map(|i| (1 + (i * 7 + number) % 5) as f64 / 3.0).collect();
        let weights = Weights::new(&squares).expect("valid");
        for layer in 0..3 {
            let budget = LayerBudget { rows: 5 + layer, packing: Packing::Bits4 };
            let seen = Observation {
                weights: &weights,
                squares: &squares,
                budget,
                squared_norm: 9.0 + number as f64,
                squared_change: Some(40.0),
            };
            planner.observe(layer, seen).expect("valid");
        }
    }

    #[test]
    fn a_planner_goes_on_from_its_bytes() {
        let mut planner = planner();
        see(&mut planner, 0);
        planner.apply(&planner.pending()).expect("its own");
        see(&mut planner, 1);
        let mut restored = Planner::from_bytes(&planner.to_bytes()).expect("its own");
        for planner in [&mut planner, &mut restored] {
            see(planner, 2);
            planner.apply(&planner.pending()).expect("its own");
        }
        assert_eq!(planner.to_bytes(), restored.to_bytes());
        for target in [Target::Memory(0.2), Target::Noise(0.1)] {
            assert_eq!(planner.solve(target), restored.solve(target));
        }
        assert_eq!(Planner::from_bytes(&Planner::new().to_bytes()).expect("nothing").layers(), 0);
    }

    #[test]
    fn other_bytes_are_refused() {
        let mut planner = planner();
        see(&mut planner, 0);
        let bytes = planner.to_bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 16;
            assert!(Planner::from_bytes(&changed).is_err(), "byte {at}");
            assert!(Planner::from_bytes(&bytes[..at]).is_err(), "{at} bytes");
        }
        // Well sealed, and wrong all the same.
        let mut broken = planner.clone();
        broken.layers[1].known = Sums::of(&[f64::INFINITY]);
        assert_eq!(
            Planner::from_bytes(&broken.to_bytes()).map(|_| ()),
            Err(PlannerError::Corrupted { what: "a number is not finite" })
        );
        for (layer, first) in [(0, 1), (1, 9)] {
            let mut broken = planner.clone();
            broken.layers[layer].first = first;
            assert!(Planner::from_bytes(&broken.to_bytes()).is_err(), "{layer} of {first}");
        }
    }
}
