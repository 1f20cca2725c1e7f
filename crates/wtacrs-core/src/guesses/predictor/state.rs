//! A predictor's state: as numbers, which is how it moves to a GPU and back, and as bytes for a checkpoint.

use super::norm_predictor::NormPredictor;
use super::settings::{PredictorError, PredictorSettings, check_len};
use crate::envelope::{self, EnvelopeError};
use wtacrs_exact::predictor::state;

const MAGIC: &[u8; 8] = b"wtacrsNP";
const VERSION: u32 = 4;

impl NormPredictor {
    /// Everything that it has learned, in the order of [`wtacrs_exact::predictor::state`].
    pub fn state(&self) -> Vec<f64> {
        // The others are finite, so a NaN is free to stand for "none".
        let scalars = [self.trace, self.intercept, self.level.unwrap_or(f64::NAN), self.excess];
        let vectors = self.blend.iter().chain(&self.coefficients).chain(&self.moment).chain(&self.covariance);
        scalars.into_iter().chain(vectors.copied()).collect()
    }

    /// Takes over what a predictor of the same settings has learned.
    ///
    /// # Errors
    ///
    /// Another number of numbers; one that is not finite, except for a level that is NaN.
    pub fn restore(&mut self, learned: &[f64]) -> Result<(), PredictorError> {
        let r = self.features();
        check_len("the state", learned.len(), state::len(r))?;
        let is_none = |i: usize| i == state::LEVEL && learned[i].is_nan();
        if (0..learned.len()).any(|i| !learned[i].is_finite() && !is_none(i)) {
            return Err(PredictorError::Corrupted { what: "a number is not finite" });
        }
        let (scalars, vectors) = learned.split_at(state::SCALARS);
        self.trace = scalars[state::TRACE];
        self.intercept = scalars[state::INTERCEPT];
        self.level = Some(scalars[state::LEVEL]).filter(|level| !level.is_nan());
        self.excess = scalars[state::EXCESS];
        self.blend.copy_from_slice(&scalars[state::BLEND..]);
        self.coefficients.copy_from_slice(&vectors[..r]);
        self.moment.copy_from_slice(&vectors[r..2 * r]);
        self.covariance.copy_from_slice(&vectors[2 * r..]);
        self.theta = self.projection.combine(&self.coefficients);
        Ok(())
    }

    /// Settings and state. [`Self::from_bytes`] makes a predictor of them that continues to the same bits.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = envelope::begin(MAGIC, VERSION, self.bytes());
        let PredictorSettings { features, forgetting, ridge, clamp, rows_per_update, seed } = self.settings;
        for word in [self.in_features() as u64, features as u64, rows_per_update as u64, seed] {
            bytes.extend(word.to_le_bytes());
        }
        let numbers = [forgetting, ridge, clamp].into_iter().chain(self.state());
        bytes.extend(numbers.flat_map(f64::to_le_bytes));
        envelope::close(bytes)
    }

    /// The predictor that [`Self::to_bytes`] saved.
    ///
    /// # Errors
    ///
    /// Another version; bytes missing, added or changed; settings out of range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PredictorError> {
        let mut reader = envelope::open(bytes, MAGIC, VERSION)?;
        let in_features = reader.size()?;
        let features = reader.size()?;
        // It sizes no memory: any number is valid, and the largest of them mean no limit.
        let rows_per_update = usize::try_from(reader.word()?).unwrap_or(usize::MAX);
        let seed = reader.word()?;
        let (forgetting, ridge, clamp) = (reader.number()?, reader.number()?, reader.number()?);
        let settings = PredictorSettings { features, forgetting, ridge, clamp, rows_per_update, seed };
        settings.check(in_features)?;
        // Before anything is allocated: what is left must be what these sizes say.
        let r = features.min(features.min(in_features).next_power_of_two());
        let expected = 8 * state::len(r);
        if reader.len() != expected {
            return Err(PredictorError::Corrupted { what: "its length does not fit its sizes" });
        }

        let mut predictor = Self::new(in_features, settings)?;
        predictor.restore(&reader.numbers(state::len(r))?)?;
        Ok(predictor)
    }
}

impl From<EnvelopeError> for PredictorError {
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
    use ndarray::Array2;

    #[test]
    fn moves_to_the_same_bits() {
        let settings = PredictorSettings::default().with_features(24).with_seed(9);
        let mut learned = NormPredictor::new(40, settings).expect("valid settings");
        let rows = Array2::from_shape_fn((30, 40), |(i, j)| ((i * 7 + j * j) % 13) as f32 - 6.0);
        let norms: Vec<f32> = (0..30).map(|i| 1.0 + i as f32).collect();
        let mut moved = NormPredictor::new(40, settings).expect("valid settings");
        moved.restore(&learned.state()).expect("nothing learned yet");
        assert_eq!(moved.to_bytes(), learned.to_bytes());
        learned.update(rows.view(), &norms, &[2.0; 30], None).expect("valid rows");
        moved.restore(&learned.state()).expect("its own numbers");
        assert_eq!(moved.to_bytes(), learned.to_bytes());
        assert_eq!(moved.theta(), learned.theta());

        assert!(moved.restore(&learned.state()[1..]).is_err());
        let mut broken = learned.state();
        broken[state::SCALARS] = f64::NAN;
        assert!(moved.restore(&broken).is_err());
        assert_eq!(moved.to_bytes(), learned.to_bytes());
    }
}
