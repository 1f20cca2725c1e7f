//! A linear layer Z = H·W as a pair of calls: what the forward pass saves, and dW from it in the backward pass.
//!
//! forward: H → norms, times a guess of ‖dZ_i‖ → weights → selection → the kept rows of H are **saved**.
//! backward: dZ → its norms, refreshed for the next guess; saved rows and selection → dW.
//!
//! dH = dZ·Wᵀ needs no activation and stays the framework's own.

use crate::design::{BuiltIn, Design};
use crate::element::Element;
use crate::norm_predictor::{NormPredictor, PredictorError};
use crate::product::{self, Scratch, ShapeError, Update, check_size};
use crate::weights::DEFAULT_MIX;
use crate::{BudgetError, Keep, Selection, Weights, WeightsError};
use ndarray::{Array2, ArrayView2, ArrayViewMut2};

/// How a layer's weight gradient is estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linear<D = BuiltIn> {
    /// The sampling design.
    pub design: D,
    /// How many tokens to keep.
    pub keep: Keep,
    /// The share λ of the input's own norms in weights from a cache, see [`Weights::from_cache`].
    pub mix: f64,
}

/// What a forward pass knows of ‖dZ_i‖.
#[derive(Clone, Copy, Debug)]
pub enum NormGuess<'a> {
    /// A guess for every token, taken as it is; with true norms the weights are exact. For layers that share H, the
    /// [joint norms](product::joint_norms).
    Norms(&'a [f32]),
    /// What a norm predictor makes of H, in the same pass as H's norms: the guess to use unless there is a better one.
    /// [`Saved::teach`] lets it learn from the step.
    Predicted(&'a NormPredictor),
    /// What a [`NormCache`](crate::norm_cache::NormCache) remembers.
    Cached(&'a [Option<f32>]),
    /// Nothing: weights are ‖H_i‖.
    Unknown,
}

/// What lives from the forward to the backward pass: kept rows of H, unscaled, and their selection.
///
/// Rows are exact copies in H's own type. The scales are applied to dZ, in the accumulator's type, so that no scale
/// rounds a bf16 row twice or overflows an f16 one, and a norm predictor can learn from the rows as they were.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved<T> {
    rows: Array2<T>,
    selection: Selection,
}

/// Why a forward pass is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// H or the guess has a row whose norm is no weight, or their lengths differ.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The budget does not fit the number of tokens.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A shape does not fit.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The predictor is another layer's.
    #[error(transparent)]
    Predictor(#[from] PredictorError),
}

impl Linear {
    /// The default design at a budget.
    pub fn new(keep: Keep) -> Self {
        Self { design: BuiltIn::default(), keep, mix: DEFAULT_MIX }
    }
}

impl<D: Design> Linear<D> {
    /// How far a forward pass over `tokens` tokens advances the offset of its randomness.
    ///
    /// # Errors
    ///
    /// If the budget does not fit.
    pub fn draws(&self, tokens: usize) -> Result<u64, BudgetError> {
        Ok(self.design.draws(self.keep.of(tokens)?))
    }

    /// Bytes that live from the forward to the backward pass over tokens × in_features elements of `element_bytes`: the
    /// rows of the budget, with an index and a scale each. [`Saved::bytes`] tells those of a selection, which may have
    /// fewer rows.
    ///
    /// # Errors
    ///
    /// If the budget does not fit.
    pub fn saved_bytes(&self, tokens: usize, in_features: usize, element_bytes: usize) -> Result<u64, BudgetError> {
        let row = in_features as u64 * element_bytes as u64 + Selection::BYTES_PER_PAIR as u64;
        Ok(self.keep.of(tokens)?.get() as u64 * row)
    }

    /// Chooses the tokens of H (tokens × in_features) to keep, and copies them.
    ///
    /// # Errors
    ///
    /// A row of H or a guess that is not finite is named by its index; the budget must fit.
    pub fn forward<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        guess: NormGuess<'_>,
        seed: u64,
        offset: u64,
    ) -> Result<Saved<T>, ForwardError> {
        let mut saved = Saved { rows: Array2::from_elem((0, 0), T::ZERO), selection: Selection::default() };
        self.forward_into(h, guess, seed, offset, &mut saved)?;
        Ok(saved)
    }

    /// [`Self::forward`] into the memory of an earlier step.
    ///
    /// # Errors
    ///
    /// As for [`Self::forward`]; `saved` is then unchanged.
    pub fn forward_into<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        guess: NormGuess<'_>,
        seed: u64,
        offset: u64,
        saved: &mut Saved<T>,
    ) -> Result<(), ForwardError> {
        let selection = self.select(h, guess, seed, offset)?;
        if saved.rows.dim() != (selection.len(), h.ncols()) {
            saved.rows = Array2::from_elem((selection.len(), h.ncols()), T::ZERO);
        }
        product::gather_into(h, &selection, saved.rows.view_mut())?;
        saved.selection = selection;
        Ok(())
    }

    /// Chooses the tokens of H (tokens × in_features) to keep: [`Self::forward`] without its copies.
    ///
    /// # Errors
    ///
    /// As for [`Self::forward`].
    pub fn select<T: Element>(
        &self,
        h: ArrayView2<'_, T>,
        guess: NormGuess<'_>,
        seed: u64,
        offset: u64,
    ) -> Result<Selection, ForwardError> {
        let budget = self.keep.of(h.nrows())?;
        let weights = match guess {
            NormGuess::Predicted(predictor) => {
                let guess = predictor.guess(h)?;
                Weights::from_norms(&guess.input_norms, &guess.dz_norms)?
            }
            NormGuess::Norms(norms) => Weights::from_norms(&product::row_norms(h), norms)?,
            NormGuess::Cached(cached) => Weights::from_cache(&product::row_norms(h), cached, self.mix)?,
            NormGuess::Unknown => Weights::from_input(&product::row_norms(h))?,
        };
        let selection = self.design.select_seeded(&weights, budget, seed, offset);
        check_size("pairs of the design's selection", selection.pairs(), h.nrows())?;
        Ok(selection)
    }

    /// Writes or adds the estimate of dW = Hᵀ dZ (in_features × out_features), and gives ‖dZ_i‖ of all tokens, which
    /// refresh a cache. Several layers that share H call this with the same `saved`.
    ///
    /// # Errors
    ///
    /// If a shape does not fit; `dw` is then untouched.
    pub fn backward<T, U>(
        &self,
        saved: &Saved<T>,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, T::Accumulator>,
        update: Update,
    ) -> Result<Vec<f32>, ShapeError>
    where
        T: Element,
        U: Element<Accumulator = T::Accumulator>,
    {
        self.backward_with(saved, dz, dw, update, &mut Scratch::new())
    }

    /// [`Self::backward`] with scratch memory that lives from step to step.
    ///
    /// # Errors
    ///
    /// As for [`Self::backward`].
    pub fn backward_with<T, U>(
        &self,
        saved: &Saved<T>,
        dz: ArrayView2<'_, U>,
        dw: ArrayViewMut2<'_, T::Accumulator>,
        update: Update,
        scratch: &mut Scratch<T::Accumulator>,
    ) -> Result<Vec<f32>, ShapeError>
    where
        T: Element,
        U: Element<Accumulator = T::Accumulator>,
    {
        // The product waits for the cores, the norms for memory: side by side they take less time than in turn.
        let (written, norms) = rayon::join(
            || product::weight_gradient_into(saved.rows.view(), dz, &saved.selection, dw, update, scratch),
            || product::row_norms(dz),
        );
        written.map(|()| norms)
    }
}

impl<T: Element> Saved<T> {
    /// Lets a predictor learn from the kept rows, once the backward pass knows ‖dZ_i‖ of all tokens; for layers that
    /// share H, their [joint norms](product::joint_norms).
    ///
    /// # Errors
    ///
    /// Not one norm for each token; a norm that is negative or not finite; another layer's predictor, which then has
    /// learnt nothing.
    pub fn teach(&self, predictor: &mut NormPredictor, dz_norms: &[f32]) -> Result<(), PredictorError> {
        let (expected, found) = (self.selection.pairs(), dz_norms.len());
        if found != expected {
            return Err(PredictorError::LengthMismatch { what: "the norms of dZ", expected, found });
        }
        let kept: Vec<f32> = self.selection.indices().iter().map(|&i| dz_norms[i as usize]).collect();
        predictor.update(self.rows.view(), &kept, self.selection.scales())
    }
}

impl<T> Saved<T> {
    /// The kept rows of H, kept × in_features.
    pub fn rows(&self) -> ArrayView2<'_, T> {
        self.rows.view()
    }

    /// Which tokens they are, and their scales.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Bytes that live until the backward pass: rows, indices and scales.
    pub fn bytes(&self) -> usize {
        self.rows.len() * size_of::<T>() + self.selection.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norm_predictor::Settings;
    use half::bf16;

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
        let saved = layer.forward(h.view(), NormGuess::Unknown, 0, 0).expect("fits");
        let mut dw = Array2::zeros((20, 12));
        let norms = layer.backward(&saved, dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
        assert!((&dw - &h.t().dot(&dz)).iter().all(|d| d.abs() < 1e-4));
        assert_eq!(norms, product::row_norms(dz.view()));
        assert_eq!(saved.selection().winners(), 64);
    }

    #[test]
    fn the_steps_done_one_by_one_give_the_same() {
        let (h, dz) = layer();
        let (h, dz) = (h.mapv(bf16::from_f32), dz.mapv(bf16::from_f32));
        let layer = Linear::new(Keep::Rows(16));
        let guess = product::row_norms(dz.view());
        let saved = layer.forward(h.view(), NormGuess::Norms(&guess), 3, 100).expect("fits");
        let mut dw = Array2::ones((20, 12));
        layer.backward(&saved, dz.view(), dw.view_mut(), Update::Accumulate).expect("fits");

        let weights = Weights::from_norms(&product::row_norms(h.view()), &guess).expect("valid");
        let budget = weights.budget(Keep::Rows(16)).expect("fits");
        let selection = BuiltIn::WtaPivotal.select_seeded(&weights, budget, 3, 100);
        assert_eq!(saved.selection(), &selection);
        assert_eq!(saved.rows(), product::gather(h.view(), &selection).expect("fits"));
        let alone = product::weight_gradient(saved.rows(), dz.view(), &selection).expect("fits");
        assert!((&dw - &alone).iter().all(|d| (d - 1.0).abs() < 1e-4));
        assert_eq!(layer.draws(64), Ok(64));
        assert_eq!(saved.bytes(), 16 * (20 * 2 + 12));
        assert_eq!(layer.saved_bytes(64, 20, 2), Ok(16 * (20 * 2 + 12)));
    }

    #[test]
    fn a_predictor_guesses_and_learns() {
        let (h, dz) = layer();
        let linear = Linear::new(Keep::Rows(24));
        let mut predictor = NormPredictor::new(20, Settings::default()).expect("valid");
        let cold = linear.forward(h.view(), NormGuess::Predicted(&predictor), 5, 0).expect("fits");
        assert_eq!(cold, linear.forward(h.view(), NormGuess::Unknown, 5, 0).expect("fits"), "it knows nothing yet");
        let mut dw = Array2::zeros((20, 12));
        let norms = linear.backward(&cold, dz.view(), dw.view_mut(), Update::Overwrite).expect("fits");
        cold.teach(&mut predictor, &norms).expect("fits");

        let guess = predictor.guess(h.view()).expect("fits");
        let warm = linear.forward(h.view(), NormGuess::Predicted(&predictor), 5, 64).expect("fits");
        let weights = Weights::from_norms(&guess.input_norms, &guess.dz_norms).expect("positive");
        let budget = weights.budget(linear.keep).expect("fits");
        assert_eq!(warm.selection(), &linear.design.select_seeded(&weights, budget, 5, 64));
        assert_ne!(guess.dz_norms[0], guess.dz_norms[1], "it has learnt");

        assert!(warm.teach(&mut predictor, &norms[1..]).is_err());
        let other = NormPredictor::new(7, Settings::default()).expect("valid");
        let error = linear.forward(h.view(), NormGuess::Predicted(&other), 5, 0).expect_err("refused");
        assert_eq!(error.to_string(), "20 columns, but the layer has 7 input features");
    }

    #[test]
    fn earlier_memory_is_used_again() {
        let (h, _) = layer();
        let layer = Linear::new(Keep::Rows(16));
        let mut saved = layer.forward(h.view(), NormGuess::Unknown, 0, 0).expect("fits");
        let address = saved.rows.as_ptr();
        layer.forward_into(h.view(), NormGuess::Unknown, 1, 0, &mut saved).expect("fits");
        assert_eq!(saved.rows.as_ptr(), address);
        assert_eq!(saved, layer.forward(h.view(), NormGuess::Unknown, 1, 0).expect("fits"));

        let before = saved.clone();
        assert!(layer.forward_into(h.view(), NormGuess::Norms(&[1.0]), 1, 0, &mut saved).is_err());
        assert_eq!(saved, before);
    }

    #[test]
    fn bad_input_is_named() {
        let (mut h, dz) = layer();
        h[[5, 3]] = f32::NAN;
        let layer = Linear::new(Keep::Rows(16));
        let error = layer.forward(h.view(), NormGuess::Unknown, 0, 0).expect_err("refused");
        assert!(error.to_string().starts_with("input norm 5 is NaN"), "{error}");
        let empty = Array2::<f32>::zeros((0, 20));
        assert!(matches!(
            layer.forward(empty.view(), NormGuess::Unknown, 0, 0),
            Err(ForwardError::Budget(BudgetError::TooLarge { budget: 16, pairs: 0 }))
        ));
        let none = Linear::new(Keep::Fraction(0.3)).forward(empty.view(), NormGuess::Unknown, 0, 0).expect("fits");
        let mut dw = Array2::ones((20, 12));
        let dz = dz.slice(ndarray::s![..0, ..]);
        let norms = layer.backward(&none, dz, dw.view_mut(), Update::Overwrite).expect("fits");
        assert!(norms.is_empty() && dw.iter().all(|&v| v == 0.0));
    }
}
