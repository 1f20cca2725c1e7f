//! A predictor as bytes, and back: a magic word, a version, everything that is learned, a checksum. Little-endian.

use super::{NormPredictor, PredictorError, Settings};
use crate::envelope::{self, EnvelopeError};
use crate::predictor_rules::numbers;

const MAGIC: &[u8; 8] = b"wtacrsNP";
const VERSION: u32 = 3;

impl NormPredictor {
    /// Its whole state. [`Self::from_bytes`] gives a predictor that continues to the same bits.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = envelope::begin(MAGIC, VERSION, self.bytes());
        let Settings { features, forgetting, ridge, clamp, rows_per_update, seed } = self.settings;
        for word in [self.in_features() as u64, features as u64, rows_per_update as u64, seed] {
            bytes.extend(word.to_le_bytes());
        }
        let numbers = [forgetting, ridge, clamp].into_iter().chain(self.learned());
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
        // No size of memory: any number is a setting, and the largest of them mean no limit.
        let rows_per_update = usize::try_from(reader.word()?).unwrap_or(usize::MAX);
        let seed = reader.word()?;
        let (forgetting, ridge, clamp) = (reader.number()?, reader.number()?, reader.number()?);
        let settings = Settings { features, forgetting, ridge, clamp, rows_per_update, seed };
        settings.check(in_features)?;
        // Before anything is allocated: what is left must be what these sizes say.
        let r = features.min(features.min(in_features).next_power_of_two());
        let expected = 8 * numbers::len(r);
        if reader.len() != expected {
            return Err(PredictorError::Corrupted { what: "its length does not fit its sizes" });
        }

        let mut predictor = Self::new(in_features, settings)?;
        predictor.set_numbers(&reader.numbers(numbers::len(r))?)?;
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
