//! A linear layer Z = H·W: what the forward pass saves, and dW from it in the backward pass.
//!
//! forward: H → norms, times a guess of ‖dZ_i‖ → weights → selection → the kept rows of H are **saved**.
//! backward: dZ → its norms, refreshed for the next guess; saved rows and selection → dW ([`Saved::backward`]).
//!
//! dH = dZ·Wᵀ needs no activation and stays the framework's own.

use super::error::ForwardError;
use crate::element::Element;
use crate::guesses::{NormGuess, NormPredictor};
use crate::product::{Packing, Saved, check_size, row_norms};
use crate::sampling::{BudgetError, BuiltIn, DEFAULT_MIX, Design, Keep, Randomness, Selection, Weights};
use ndarray::ArrayView2;
use wtacrs_exact::packing::PackingBits;

/// How a layer's weight gradient is estimated.
///
/// # Example
///
/// ```
/// use ndarray::Array2;
/// use wtacrs_core::guesses::{NormGuess, NormPredictor, PredictorSettings};
/// use wtacrs_core::layers::{Linear, Update};
/// use wtacrs_core::sampling::{Keep, Randomness};
///
/// let layer = Linear::new(Keep::Fraction(0.3));
/// let mut predictor = NormPredictor::new(64, PredictorSettings::default())?;
/// let (h, dz) = (Array2::<f32>::ones((1000, 64)), Array2::<f32>::ones((1000, 32)));
/// let mut randomness = Randomness::new(42, 0);
/// let mut dw = Array2::zeros((64, 32));
/// for _step in 0..2 {
///     let saved = layer.forward(h.view(), NormGuess::Predicted(&predictor), randomness)?;
///     randomness = randomness.next(layer.draws(h.nrows())?);
///     let dz_norms = saved.backward(dz.view(), dw.view_mut(), Update::Overwrite)?;
///     predictor.learn(&saved, &dz_norms, None)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Linear<D = BuiltIn> {
    /// The sampling design.
    pub design: D,
    /// How many tokens to keep.
    pub keep: Keep,
    /// The share λ of the input's own norms in weights from a cache, see [`Weights::from_cache`].
    pub mix: f64,
    /// How kept rows are saved.
    #[cfg_attr(feature = "serde", serde(default))]
    pub packing: Packing,
}

impl Linear {
    /// The default design at a budget, with native rows.
    pub fn new(keep: Keep) -> Self {
        Self { design: BuiltIn::default(), keep, mix: DEFAULT_MIX, packing: Packing::Native }
    }
}

impl<D: Design> Linear<D> {
    /// The same layer with another design.
    pub fn with_design<E: Design>(self, design: E) -> Linear<E> {
        Linear { design, keep: self.keep, mix: self.mix, packing: self.packing }
    }

    /// The same layer with another share of the input's own norms in weights from a cache.
    #[must_use]
    pub fn with_mix(self, mix: f64) -> Self {
        Self { mix, ..self }
    }

    /// The same layer with its kept rows saved otherwise.
    #[must_use]
    pub fn with_packing(self, packing: Packing) -> Self {
        Self { packing, ..self }
    }

    /// Whether a forward pass over `tokens` tokens packs all of them: then it takes no norms and chooses nothing, and no
    /// index or scale is saved.
    ///
    /// # Errors
    ///
    /// If the budget does not fit.
    pub fn keeps_all(&self, tokens: usize) -> Result<bool, BudgetError> {
        Ok(self.packing.keeps_all(self.keep.budget(tokens)?.get(), tokens))
    }

    /// How far a forward pass over `tokens` tokens advances the offset of its randomness: by what the design draws, and
    /// for packed rows by at least one for each token.
    ///
    /// # Errors
    ///
    /// If the budget does not fit.
    pub fn draws(&self, tokens: usize) -> Result<u64, BudgetError> {
        let draws = self.design.draws(self.keep.budget(tokens)?);
        Ok(if self.packing.is_packed() { draws.max(tokens as u64) } else { draws })
    }

    /// Bytes that live from the forward to the backward pass over tokens × in_features elements of `element_bytes`: the
    /// rows of the budget, with an index and a scale each unless all are packed. [`Saved::bytes`] is the count for one
    /// selection, which may have fewer rows; [`SavedLayout`](crate::product::SavedLayout) adds the header and the rounding of one block.
    ///
    /// # Errors
    ///
    /// If the budget does not fit.
    pub fn saved_bytes(&self, tokens: usize, in_features: usize, element_bytes: usize) -> Result<u64, BudgetError> {
        let kept = self.keep.budget(tokens)?.get();
        let pair = if self.packing.keeps_all(kept, tokens) { 0 } else { Selection::BYTES_PER_PAIR as u64 };
        Ok(kept as u64 * (self.packing.row_bytes(in_features, element_bytes) + pair))
    }

    /// Chooses the tokens of H (tokens × in_features) to keep, and copies or packs them.
    ///
    /// # Errors
    ///
    /// A row of H or a guess that is not finite is named by its index; the budget must fit. To be packed, a row of f64 must
    /// be in f32's range.
    pub fn forward<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        guess: NormGuess<'_>,
        randomness: Randomness,
    ) -> Result<Saved<T>, ForwardError> {
        let mut saved = Saved::default();
        self.forward_into(h, guess, randomness, &mut saved)?;
        Ok(saved)
    }

    /// [`Self::forward`] into the memory of an earlier step.
    ///
    /// # Errors
    ///
    /// As for [`Self::forward`]; `saved` is then unchanged, or empty if a row could not be packed.
    pub fn forward_into<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        guess: NormGuess<'_>,
        randomness: Randomness,
        saved: &mut Saved<T>,
    ) -> Result<(), ForwardError> {
        let Some(bits) = self.packing.bits() else { return Ok(saved.refill(h, self.select(h, guess, randomness)?)?) };
        let selection = if self.keeps_all(h.nrows())? { None } else { Some(self.select(h, guess, randomness)?) };
        Ok(saved.repack(h, selection, bits, PackingBits::new(randomness, 0))?)
    }

    /// Chooses the tokens of H (tokens × in_features) to keep: [`Self::forward`] without its copies. Where all rows are
    /// packed, these are all tokens of positive weight.
    ///
    /// # Errors
    ///
    /// As for [`Self::forward`].
    pub fn select<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        guess: NormGuess<'_>,
        randomness: Randomness,
    ) -> Result<Selection, ForwardError> {
        let budget = self.keep.budget(h.nrows())?;
        let weights = self.weigh(h, guess)?;
        let selection = self.design.select_seeded(&weights, budget, randomness);
        check_size("pairs of the design's selection", selection.pairs(), h.nrows())?;
        Ok(selection)
    }

    /// The weights by which [`Self::select`] chooses.
    ///
    /// # Errors
    ///
    /// A row of H or a guess that is not finite is named by its index.
    pub fn weigh<T: Element>(&self, h: ArrayView2<'_, T>, guess: NormGuess<'_>) -> Result<Weights, ForwardError> {
        let predicted = |predictor: &NormPredictor, cached| -> Result<Weights, ForwardError> {
            let guess = predictor.guess(h, cached)?;
            Ok(Weights::from_norms(&guess.input_norms, &guess.dz_norms)?)
        };
        Ok(match guess {
            NormGuess::Predicted(predictor) => predicted(predictor, None)?,
            NormGuess::PredictedAndCached(predictor, cached) => predicted(predictor, Some(cached))?,
            NormGuess::Norms(norms) => Weights::from_norms(&row_norms(h), norms)?,
            NormGuess::Cached(cached) => Weights::from_cache(&row_norms(h), cached, self.mix)?,
            NormGuess::Unknown => Weights::from_input(&row_norms(h))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guesses::PredictorSettings;
    use crate::product::{self, Update};
    use half::bf16;
    use ndarray::Array2;

    fn layer() -> (Array2<f32>, Array2<f32>) {
        let value = |i: usize, j: usize| ((i * 37 + j * 11) % 19) as f32 / 9.0 - 1.0;
        let h = Array2::from_shape_fn((64, 20), |(i, j)| value(i, j) * (1 + i % 5) as f32);
        let dz = Array2::from_shape_fn((64, 12), |(i, j)| value(j, i) / (1 + i % 7) as f32);
        (h, dz)
    }

    #[test]
    fn a_whole_budget_is_exact() {
        let (h, dz) = layer();
        let layer = Linear::new(Keep::Fraction(1.0));
        let saved = layer.forward(h.view(), NormGuess::Unknown, Randomness::new(0, 0)).expect("fits");
        let mut dw = Array2::zeros((20, 12));
        let norms = saved.backward(dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
        assert!((&dw - &h.t().dot(&dz)).iter().all(|d| d.abs() < 1e-4));
        assert_eq!(norms, product::row_norms(dz.view()));
        assert_eq!(saved.selection().map(Selection::winners), Some(64));
    }

    #[test]
    fn the_steps_done_one_by_one_give_the_same() {
        let (h, dz) = layer();
        let (h, dz) = (h.mapv(bf16::from_f32), dz.mapv(bf16::from_f32));
        let layer = Linear::new(Keep::Rows(16));
        let guess = product::row_norms(dz.view());
        let saved = layer.forward(h.view(), NormGuess::Norms(&guess), Randomness::new(3, 100)).expect("fits");
        let mut dw = Array2::ones((20, 12));
        saved.backward(dz.view(), dw.view_mut(), Update::Accumulate).expect("fits");

        let weights = Weights::from_norms(&product::row_norms(h.view()), &guess).expect("valid");
        let budget = weights.budget(Keep::Rows(16)).expect("fits");
        let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, Randomness::new(3, 100));
        assert_eq!(saved.selection(), Some(&selection));
        let rows = saved.rows().native().expect("native");
        assert_eq!(rows, product::gather(h.view(), &selection).expect("fits"));
        let alone = product::weight_gradient(rows, dz.view(), &selection).expect("fits");
        assert!((&dw - &alone).iter().all(|d| (d - 1.0).abs() < 1e-4));
        assert_eq!(layer.draws(64), Ok(64));
        assert_eq!(saved.bytes(), 16 * (20 * 2 + 12));
        assert_eq!(layer.saved_bytes(64, 20, 2), Ok(16 * (20 * 2 + 12)));
    }

    #[test]
    fn a_predictor_guesses_and_learns() {
        let (h, dz) = layer();
        let linear = Linear::new(Keep::Rows(24));
        let mut predictor = NormPredictor::new(20, PredictorSettings::default()).expect("valid");
        let cold = linear.forward(h.view(), NormGuess::Predicted(&predictor), Randomness::new(5, 0)).expect("fits");
        assert_eq!(
            cold,
            linear.forward(h.view(), NormGuess::Unknown, Randomness::new(5, 0)).expect("fits"),
            "it knows nothing yet"
        );
        let mut dw = Array2::zeros((20, 12));
        let norms = cold.backward(dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
        predictor.learn(&cold, &norms, None).expect("fits");

        let guess = predictor.guess(h.view(), None).expect("fits");
        let warm = linear.forward(h.view(), NormGuess::Predicted(&predictor), Randomness::new(5, 64)).expect("fits");
        let weights = Weights::from_norms(&guess.input_norms, &guess.dz_norms).expect("positive");
        let budget = weights.budget(linear.keep).expect("fits");
        let expected = linear.design.select_seeded(&weights, budget, Randomness::new(5, 64));
        assert_eq!(warm.selection(), Some(&expected));
        assert_ne!(guess.dz_norms[0], guess.dz_norms[1], "it has learnt");

        assert!(predictor.learn(&warm, &norms[1..], None).is_err());
        let other = NormPredictor::new(7, PredictorSettings::default()).expect("valid");
        let error = linear.forward(h.view(), NormGuess::Predicted(&other), Randomness::new(5, 0)).expect_err("refused");
        assert_eq!(error.to_string(), "20 columns, but the layer has 7 input features");
    }

    #[test]
    fn predictor_and_cache_work_together() {
        let (h, dz) = layer();
        let linear = Linear::new(Keep::Rows(24));
        let mut predictor = NormPredictor::new(20, PredictorSettings::default()).expect("valid");
        let true_norms = product::row_norms(dz.view());
        // Remembered norms of every second token: the true ones, in another unit.
        let cached: Vec<Option<f32>> =
            true_norms.iter().enumerate().map(|(i, norm)| (i % 2 == 0).then_some(8.0 * norm)).collect();
        let mut dw = Array2::zeros((20, 12));
        for step in 0..4 {
            let guess = NormGuess::PredictedAndCached(&predictor, &cached);
            let saved = linear.forward(h.view(), guess, Randomness::new(5, 64 * step)).expect("fits");
            let norms = saved.backward(dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
            predictor.learn(&saved, &norms, Some(&cached)).expect("fits");
        }
        let error = |guess: &[f32]| -> f32 {
            let known = (0..64).step_by(2);
            known.map(|i| (guess[i] / true_norms[i]).ln().abs()).sum()
        };
        let alone = predictor.guess(h.view(), None).expect("fits");
        let both = predictor.guess(h.view(), Some(&cached)).expect("fits");
        assert!(error(&both.dz_norms) < 0.8 * error(&alone.dz_norms));
        assert_eq!(both.dz_norms[1], alone.dz_norms[1], "a token that the cache does not know");
        assert!(
            linear
                .forward(h.view(), NormGuess::PredictedAndCached(&predictor, &cached[1..]), Randomness::default())
                .is_err()
        );
    }

    #[test]
    fn earlier_memory_is_used_again() {
        let (h, _) = layer();
        let layer = Linear::new(Keep::Rows(16));
        let mut saved = layer.forward(h.view(), NormGuess::Unknown, Randomness::new(0, 0)).expect("fits");
        let address = |saved: &Saved<f32>| saved.rows().native().expect("native").as_ptr();
        let before = address(&saved);
        layer.forward_into(h.view(), NormGuess::Unknown, Randomness::new(1, 0), &mut saved).expect("fits");
        assert_eq!(address(&saved), before);
        assert_eq!(saved, layer.forward(h.view(), NormGuess::Unknown, Randomness::new(1, 0)).expect("fits"));

        let before = saved.clone();
        assert!(layer.forward_into(h.view(), NormGuess::Norms(&[1.0]), Randomness::new(1, 0), &mut saved).is_err());
        assert_eq!(saved, before);
    }

    #[test]
    fn bad_input_is_named() {
        let (mut h, dz) = layer();
        h[[5, 3]] = f32::NAN;
        let layer = Linear::new(Keep::Rows(16));
        let error = layer.forward(h.view(), NormGuess::Unknown, Randomness::new(0, 0)).expect_err("refused");
        assert!(error.to_string().starts_with("input norm 5 is NaN"), "{error}");
        let empty = Array2::<f32>::zeros((0, 20));
        assert!(matches!(
            layer.forward(empty.view(), NormGuess::Unknown, Randomness::new(0, 0)),
            Err(ForwardError::Budget(BudgetError::TooLarge { budget: 16, pairs: 0 }))
        ));
        let none = Linear::new(Keep::Fraction(0.3))
            .forward(empty.view(), NormGuess::Unknown, Randomness::new(0, 0))
            .expect("fits");
        let mut dw = Array2::ones((20, 12));
        let dz = dz.slice(ndarray::s![..0, ..]);
        let norms = none.backward(dz, dw.view_mut(), Update::Overwrite).expect("fits");
        assert!(norms.is_empty() && dw.iter().all(|&v| v == 0.0));
    }
}
