//! What a predictor has learned as numbers, in the order of [`numbers`]: how it moves to a GPU and back.

use super::{NormPredictor, PredictorError, blend, check_len};
use crate::predictor_rules::numbers;

impl NormPredictor {
    /// r: how many features it has, at most [`Settings::features`](super::Settings::features).
    pub fn features(&self) -> usize {
        self.projection.features()
    }

    /// θ, of which a row's guess is the component along h/‖h‖.
    pub fn theta(&self) -> &[f64] {
        &self.theta
    }

    /// The projection's signs, a bit for each input feature: set where it is −1.
    pub fn sign_words(&self) -> Vec<u32> {
        let word = |signs: &[f32]| signs.iter().rev().fold(0, |word, &sign| word << 1 | u32::from(sign < 0.0));
        self.projection.signs().chunks(32).map(word).collect()
    }

    /// All that it has learned.
    pub fn numbers(&self) -> Vec<f64> {
        self.learned().collect()
    }

    pub(super) fn learned(&self) -> impl Iterator<Item = f64> {
        // The others are finite, so a NaN is free to say "none".
        let scalars = [self.trace, self.intercept, self.level.unwrap_or(f64::NAN), self.offset];
        let vectors = self.blend.iter().chain(&self.coefficients).chain(&self.moment).chain(&self.covariance);
        scalars.into_iter().chain(vectors.copied())
    }

    /// Where guesses lie: how far b is above the level that they are bounded about, b itself, and how a guess moves
    /// towards a cached log-norm, the shift and the slope.
    pub fn placement(&self) -> [f64; 4] {
        let (shift, slope) = blend::solve(&self.blend);
        [self.offset, self.intercept, shift, slope]
    }

    /// Takes over what a predictor of the same settings has learned.
    ///
    /// # Errors
    ///
    /// Another number of numbers; one that is not finite, but for a level that is NaN.
    pub fn set_numbers(&mut self, learned: &[f64]) -> Result<(), PredictorError> {
        let r = self.features();
        check_len("the numbers", learned.len(), numbers::len(r))?;
        let is_none = |i: usize| i == numbers::LEVEL && learned[i].is_nan();
        if (0..learned.len()).any(|i| !learned[i].is_finite() && !is_none(i)) {
            return Err(PredictorError::Corrupted { what: "a number is not finite" });
        }
        let (scalars, vectors) = learned.split_at(numbers::SCALARS);
        self.trace = scalars[numbers::TRACE];
        self.intercept = scalars[numbers::INTERCEPT];
        self.level = Some(scalars[numbers::LEVEL]).filter(|level| !level.is_nan());
        self.offset = scalars[numbers::OFFSET];
        self.blend.copy_from_slice(&scalars[numbers::BLEND..]);
        self.coefficients.copy_from_slice(&vectors[..r]);
        self.moment.copy_from_slice(&vectors[r..2 * r]);
        self.covariance.copy_from_slice(&vectors[2 * r..]);
        self.theta = self.projection.combine(&self.coefficients);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm_predictor::Settings;
    use ndarray::Array2;

    #[test]
    fn moves_to_the_same_bits() {
        let settings = Settings { features: 24, seed: 9, ..Settings::default() };
        let mut learned = NormPredictor::new(40, settings).expect("valid settings");
        let rows = Array2::from_shape_fn((30, 40), |(i, j)| ((i * 7 + j * j) % 13) as f32 - 6.0);
        let norms: Vec<f32> = (0..30).map(|i| 1.0 + i as f32).collect();
        let mut moved = NormPredictor::new(40, settings).expect("valid settings");
        moved.set_numbers(&learned.numbers()).expect("nothing learned yet");
        assert_eq!(moved.to_bytes(), learned.to_bytes());
        learned.update(rows.view(), &norms, &[2.0; 30]).expect("valid rows");
        moved.set_numbers(&learned.numbers()).expect("its own numbers");
        assert_eq!(moved.to_bytes(), learned.to_bytes());
        assert_eq!(moved.theta(), learned.theta());

        assert!(moved.set_numbers(&learned.numbers()[1..]).is_err());
        let mut broken = learned.numbers();
        broken[numbers::SCALARS] = f64::NAN;
        assert!(moved.set_numbers(&broken).is_err());
        assert_eq!(moved.to_bytes(), learned.to_bytes());
    }

    #[test]
    fn signs_are_bits() {
        let predictor = NormPredictor::new(70, Settings::default()).expect("valid settings");
        let words = predictor.sign_words();
        assert_eq!(words.len(), 3);
        for (j, &sign) in predictor.projection.signs().iter().enumerate() {
            assert_eq!(words[j / 32] >> (j % 32) & 1 == 1, sign < 0.0);
        }
    }
}
