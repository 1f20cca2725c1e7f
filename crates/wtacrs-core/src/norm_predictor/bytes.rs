//! A predictor as bytes, and back: a magic word, a version, everything that is learned, a checksum. Little-endian.

use super::{NormPredictor, PredictorError, Settings};

const MAGIC: &[u8; 8] = b"wtacrsNP";
const VERSION: u32 = 2;

impl NormPredictor {
    /// Its whole state. [`Self::from_bytes`] gives a predictor that continues to the same bits.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        let Settings { features, forgetting, ridge, clamp, rows_per_update, seed } = self.settings;
        for word in [self.in_features() as u64, features as u64, rows_per_update as u64, seed] {
            bytes.extend(word.to_le_bytes());
        }
        // Sums are finite, so a NaN is free to say "none".
        let scalars = [forgetting, ridge, clamp, self.trace, self.intercept, self.level.unwrap_or(f64::NAN)];
        let numbers =
            scalars.iter().chain(&self.blend).chain(&self.coefficients).chain(&self.moment).chain(&self.covariance);
        bytes.extend(numbers.flat_map(|number| number.to_le_bytes()));
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes
    }

    /// The predictor that [`Self::to_bytes`] saved.
    ///
    /// # Errors
    ///
    /// Another version; bytes missing, added or changed; settings out of range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PredictorError> {
        let mut reader = Reader { bytes };
        if &reader.array::<8>()? != MAGIC {
            return Err(PredictorError::Corrupted { what: "it does not begin as one" });
        }
        let found = u32::from_le_bytes(reader.array()?);
        if found != VERSION {
            return Err(PredictorError::Version { expected: VERSION, found });
        }
        let Some((body, sum)) = bytes.split_last_chunk::<8>() else {
            return Err(PredictorError::Corrupted { what: "it ends early" });
        };
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err(PredictorError::Corrupted { what: "the checksum differs" });
        }
        let in_features = reader.size()?;
        let (features, rows_per_update) = (reader.size()?, reader.size()?);
        let seed = u64::from_le_bytes(reader.array()?);
        let (forgetting, ridge, clamp) = (reader.number()?, reader.number()?, reader.number()?);
        let settings = Settings { features, forgetting, ridge, clamp, rows_per_update, seed };
        settings.check(in_features)?;
        // Before anything is allocated: what is left must be what these sizes say.
        let r = features.min(features.min(in_features).next_power_of_two());
        let expected = 8 * (3 + super::SUMS + 2 * r + r * r + 1);
        if reader.bytes.len() != expected {
            return Err(PredictorError::Corrupted { what: "its length does not fit its sizes" });
        }

        let mut predictor = Self::new(in_features, settings)?;
        predictor.trace = reader.number()?;
        predictor.intercept = reader.number()?;
        predictor.level = Some(reader.number()?).filter(|level| !level.is_nan());
        for value in &mut predictor.blend {
            *value = reader.number()?;
        }
        predictor.coefficients = reader.numbers(r)?;
        predictor.moment = reader.numbers(r)?;
        predictor.covariance = reader.numbers(r * r)?;
        let scalars = [predictor.trace, predictor.intercept, predictor.level.unwrap_or(0.0)];
        let sums = predictor.blend.iter().chain(&predictor.coefficients).chain(&predictor.moment);
        if !scalars.iter().chain(sums).chain(&predictor.covariance).all(|number| number.is_finite()) {
            return Err(PredictorError::Corrupted { what: "a number is not finite" });
        }
        predictor.theta = predictor.projection.combine(&predictor.coefficients);
        Ok(predictor)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PredictorError> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(PredictorError::Corrupted { what: "it ends early" })?;
        self.bytes = rest;
        Ok(*head)
    }

    fn size(&mut self) -> Result<usize, PredictorError> {
        let size = u64::from_le_bytes(self.array()?);
        // So that no product of two sizes overflows.
        u32::try_from(size)
            .map(|size| size as usize)
            .map_err(|_| PredictorError::Corrupted { what: "a size is absurd" })
    }

    fn number(&mut self) -> Result<f64, PredictorError> {
        self.array().map(f64::from_le_bytes)
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<f64>, PredictorError> {
        (0..count).map(|_| self.number()).collect()
    }
}

/// FNV-1a over words of eight bytes: finds what a disk or a copy does to a file, not an adversary.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0100_0000_01b3)
    })
}
