//! C = A·B for every (batch, head), with both gradients estimated: attention's two products.
//!
//! With G the gradient of C, dA = G·Bᵀ sums over the columns of C, and dB = Aᵀ·G over its rows. Each of the two sums is
//! a weight gradient of its own, with its own pairs, threshold and draws for every (batch, head).
//!
//! | product | A | B | dA sums over | dB sums over |
//! |---|---|---|---|---|
//! | scores = Q·Kᵀ | Q, queries × channels | Kᵀ, channels × keys | keys: sampled | queries: sampled |
//! | context = P·V | P, queries × keys | V, keys × channels | channels: exact, V is small | queries: sampled |
//!
//! Sums over tokens are sampled; a sum over channels is exact unless the caller asks otherwise ([`TensorMul::new`]).

use super::error::ForwardError;
use crate::element::Element;
use crate::parallel;
use crate::product::{self, Packing, Precision, Saved, ShapeError, Update, check_size};
use crate::sampling::{
    BudgetError, BuiltIn, DEFAULT_MIX, Design, Keep, PhiloxChance, Randomness, Selection, Weights, WeightsError,
};
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayView3, ArrayView4, Axis, s};
use rayon::prelude::*;
use wtacrs_exact::packing::PackingBits;

/// How one of the two gradients sums over its pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Contraction {
    /// Over all of them; the other operand is saved whole.
    Exact,
    /// Over the pairs that a design keeps; of the other operand only those are saved.
    Sampled(Keep),
}

/// One of the two gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// dA, whose pairs are the columns of B.
    Left,
    /// dB, whose pairs are the rows of A.
    Right,
}

/// How the gradients of a batched product are estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TensorMul<D = BuiltIn> {
    /// The sampling design.
    pub design: D,
    /// dA, which sums over the columns of B.
    pub left: Contraction,
    /// dB, which sums over the rows of A.
    pub right: Contraction,
    /// The share λ of the operand's own norms in the weights, see [`Weights::from_cache`]:
    /// guesses are those of an earlier step as a rule, and a pair guessed zero must stay possible. 0 for true norms.
    pub mix: f64,
    /// How the pairs of a sampled sum are saved; those of an exact one are saved as they are.
    #[cfg_attr(feature = "serde", serde(default))]
    pub packing: Packing,
}

/// Guesses of the norms of G = dC for each (batch, head), if there are any.
#[derive(Clone, Copy, Debug, Default)]
pub struct TensorGuess<'a> {
    /// `‖G[i,:]‖`, batch × heads × rows: the pairs of dB.
    pub rows: Option<ArrayView3<'a, f32>>,
    /// `‖G[:,j]‖`, batch × heads × columns: the pairs of dA.
    pub columns: Option<ArrayView3<'a, f32>>,
}

/// What lives from the forward to the backward pass, for each (batch, head).
#[derive(Clone, Debug, PartialEq)]
pub struct SavedTensors<T> {
    items: Vec<SavedItem<T>>,
    batch: usize,
    heads: usize,
    rows: usize,
    inner: usize,
    columns: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct SavedItem<T> {
    /// Kept columns of B, as rows: kept × inner, for dA.
    left: Saved<T>,
    /// Kept rows of A: kept × inner, for dB.
    right: Saved<T>,
}

/// Both gradients, and the norms of G that refresh the guesses.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorGradients<A> {
    /// dA, batch × heads × rows × inner.
    pub left: Array4<A>,
    /// dB, batch × heads × inner × columns.
    pub right: Array4<A>,
    /// `‖G[i,:]‖`, batch × heads × rows.
    pub row_norms: Array3<f32>,
    /// `‖G[:,j]‖`, batch × heads × columns.
    pub column_norms: Array3<f32>,
}

impl TensorMul {
    /// The default design, with a contraction for each gradient.
    pub fn new(left: Contraction, right: Contraction) -> Self {
        Self { design: BuiltIn::default(), left, right, mix: DEFAULT_MIX, packing: Packing::Native }
    }

    /// scores = Q·Kᵀ: dQ sampled over keys, dK over queries.
    pub fn scores(keep: Keep) -> Self {
        Self::new(Contraction::Sampled(keep), Contraction::Sampled(keep))
    }

    /// context = P·V: dV sampled over queries, so that few rows of P are saved; dP exact, from the whole of V.
    pub fn context(keep: Keep) -> Self {
        Self::new(Contraction::Exact, Contraction::Sampled(keep))
    }
}

impl<D: Design + Sync> TensorMul<D> {
    /// The same product with another design.
    pub fn with_design<E: Design>(self, design: E) -> TensorMul<E> {
        TensorMul { design, left: self.left, right: self.right, mix: self.mix, packing: self.packing }
    }

    /// The same product with another share of the operand's own norms in the weights.
    #[must_use]
    pub fn with_mix(self, mix: f64) -> Self {
        Self { mix, ..self }
    }

    /// The same product with the pairs of sampled sums saved otherwise.
    #[must_use]
    pub fn with_packing(self, packing: Packing) -> Self {
        Self { packing, ..self }
    }

    /// How the pairs of one of the sums are saved.
    pub fn packing_of(&self, side: Side) -> Packing {
        match self.contraction(side) {
            Contraction::Exact => Packing::Native,
            Contraction::Sampled(_) => self.packing,
        }
    }

    /// Whether a sum over `pairs` packs all of them: then it takes no norms and chooses nothing.
    ///
    /// # Errors
    ///
    /// If a budget does not fit.
    pub fn keeps_all(&self, side: Side, pairs: usize) -> Result<bool, BudgetError> {
        match self.contraction(side) {
            Contraction::Exact => Ok(false),
            Contraction::Sampled(keep) => Ok(self.packing.keeps_all(keep.budget(pairs)?.get(), pairs)),
        }
    }

    /// How far a forward pass over rows × columns advances the offset of its randomness; every (batch, head) has a
    /// stream of its own at the same offset.
    ///
    /// # Errors
    ///
    /// If a budget does not fit.
    pub fn draws(&self, rows: usize, columns: usize) -> Result<u64, BudgetError> {
        let draws = |contraction, pairs| match contraction {
            Contraction::Exact => Ok(0),
            Contraction::Sampled(keep) => {
                let draws = self.design.draws(keep.budget(pairs)?);
                Ok(if self.packing.is_packed() { draws.max(pairs as u64) } else { draws })
            }
        };
        Ok(draws(self.left, columns)?.max(draws(self.right, rows)?))
    }

    /// Chooses and copies what both gradients need of A (batch × heads × rows × inner) and B (batch × heads × inner ×
    /// columns). Without a guess the weights are the operand's own norms.
    ///
    /// # Errors
    ///
    /// If shapes differ, a budget does not fit, a norm is not finite, or there are 2^31 or more matrices.
    pub fn forward<T: Element>(
        &self,
        a: ArrayView4<'_, T>,
        b: ArrayView4<'_, T>,
        guess: TensorGuess<'_>,
        randomness: Randomness,
    ) -> Result<SavedTensors<T>, ForwardError> {
        let (batch, heads, rows, inner) = a.dim();
        let columns = b.dim().3;
        check_size("batch of B", b.dim().0, batch)?;
        check_size("heads of B", b.dim().1, heads)?;
        check_size("rows of B (inner)", b.dim().2, inner)?;
        check_guess("guessed row norms", guess.rows, (batch, heads, rows))?;
        check_guess("guessed column norms", guess.columns, (batch, heads, columns))?;

        let too_many = |_| ForwardError::TooManyItems { items: batch.saturating_mul(heads) };
        let count = u32::try_from(batch.saturating_mul(heads)).map_err(too_many)?;
        let keep = |side, pairs: ArrayView2<'_, T>, guess: Option<ArrayView3<'_, f32>>, item: u32| {
            let at = (item as usize / heads, item as usize % heads);
            let guess = guess.map(|guess| guess.slice_move(s![at.0, at.1, ..]).mapv(Some).to_vec());
            let select = || self.select(side, pairs, guess.as_deref(), randomness, item);
            let Some(bits) = self.packing_of(side).bits() else { return Ok(Saved::gather(pairs, select()?)?) };
            let selection = if self.keeps_all(side, pairs.nrows())? { None } else { Some(select()?) };
            let random = PackingBits::new(randomness, stream(side, item)?);
            Ok::<_, ForwardError>(Saved::pack(pairs, selection, bits, random)?)
        };
        let items = parallel::map((0..count).into_par_iter(), |item| {
            let at = (item as usize / heads, item as usize % heads);
            let columns_of_b = b.slice(s![at.0, at.1, .., ..]).reversed_axes();
            let rows_of_a = a.slice(s![at.0, at.1, .., ..]);
            Ok(SavedItem {
                left: keep(Side::Left, columns_of_b, guess.columns, item)?,
                right: keep(Side::Right, rows_of_a, guess.rows, item)?,
            })
        });
        let items = items.into_iter().collect::<Result<_, ForwardError>>()?;
        Ok(SavedTensors { items, batch, heads, rows, inner, columns })
    }

    /// Chooses what one gradient of one item needs: [`Self::forward`] for one (batch, head) and side, without its copies.
    /// `pairs` are the rows to choose from, the columns of B for [`Side::Left`] and the rows of A for [`Side::Right`];
    /// `guess` may know the norms of some pairs of G and not of others; `item` is the batch item times the heads, plus the
    /// head, and below 2^31: each has two streams of randomness of its own.
    ///
    /// # Errors
    ///
    /// As for [`Self::forward`].
    pub fn select<T: Element>(
        &self,
        side: Side,
        pairs: ArrayView2<'_, T>,
        guess: Option<&[Option<f32>]>,
        randomness: Randomness,
        item: u32,
    ) -> Result<Selection, ForwardError> {
        let stream = stream(side, item)?;
        let Contraction::Sampled(keep) = self.contraction(side) else {
            let count =
                u32::try_from(pairs.nrows()).map_err(|_| WeightsError::TooManyPairs { pairs: pairs.nrows() })?;
            return Ok(Selection::everything(count));
        };
        let norms = product::row_norms(pairs);
        let weights = match guess {
            Some(guess) => Weights::from_cache(&norms, guess, self.mix)?,
            None => Weights::from_input(&norms)?,
        };
        let budget = weights.budget(keep)?;
        Ok(self.design.select(&weights, budget, &mut PhiloxChance::with_stream(randomness, stream)))
    }

    /// How one of the gradients sums over its pairs.
    pub fn contraction(&self, side: Side) -> Contraction {
        match side {
            Side::Left => self.left,
            Side::Right => self.right,
        }
    }
}

/// The stream of randomness of one side of an item.
fn stream(side: Side, item: u32) -> Result<u32, ForwardError> {
    let stream = item.checked_mul(2).ok_or(ForwardError::TooManyItems { items: item as usize + 1 })?;
    Ok(stream + u32::from(side == Side::Right))
}

impl<T: Element> SavedTensors<T> {
    /// Both gradients from G = dC (batch × heads × rows × columns).
    ///
    /// # Errors
    ///
    /// If the shape of G differs from that of C.
    pub fn backward<U>(&self, g: ArrayView4<'_, U>) -> Result<TensorGradients<T::Accumulator>, ShapeError>
    where
        U: Element<Accumulator = T::Accumulator>,
    {
        self.backward_with(g, Precision::default())
    }

    /// [`Self::backward`] at a precision.
    ///
    /// # Errors
    ///
    /// As for [`Self::backward`].
    pub fn backward_with<U>(
        &self,
        g: ArrayView4<'_, U>,
        precision: Precision,
    ) -> Result<TensorGradients<T::Accumulator>, ShapeError>
    where
        U: Element<Accumulator = T::Accumulator>,
    {
        let &Self { batch, heads, rows, inner, columns, .. } = self;
        check_size("batch of G", g.dim().0, batch)?;
        check_size("heads of G", g.dim().1, heads)?;
        check_size("rows of G", g.dim().2, rows)?;
        check_size("columns of G", g.dim().3, columns)?;

        let zero = T::Accumulator::ZERO;
        let items = self.items.len();
        let mut left = Array3::from_elem((items, rows, inner), zero);
        let mut right = Array3::from_elem((items, inner, columns), zero);
        let mut row_norms = Array2::zeros((items, rows));
        let mut column_norms = Array2::zeros((items, columns));
        let outputs = left
            .axis_iter_mut(Axis(0))
            .zip(right.axis_iter_mut(Axis(0)))
            .zip(row_norms.axis_iter_mut(Axis(0)))
            .zip(column_norms.axis_iter_mut(Axis(0)));
        let tasks: Vec<_> = self.items.iter().zip(outputs).enumerate().collect();
        parallel::try_for_each(tasks.into_par_iter(), |(item, (saved, (((da, db), mut by_row), mut by_column)))| {
            let g = g.slice(s![item / heads, item % heads, .., ..]);
            saved.left.product(g.t(), da.reversed_axes(), Update::Overwrite, precision)?;
            saved.right.product(g, db, Update::Overwrite, precision)?;
            by_row.assign(&ndarray::aview1(&product::row_norms(g)));
            by_column.assign(&ndarray::aview1(&product::column_norms(g)));
            Ok(())
        })?;
        Ok(TensorGradients {
            left: by_head(left, batch, heads),
            right: by_head(right, batch, heads),
            row_norms: by_head(row_norms.insert_axis(Axis(2)), batch, heads).remove_axis(Axis(3)),
            column_norms: by_head(column_norms.insert_axis(Axis(2)), batch, heads).remove_axis(Axis(3)),
        })
    }
}

impl<T> SavedTensors<T> {
    /// The selection of columns behind dA for one (batch, head); none if all were packed without one.
    ///
    /// # Panics
    ///
    /// If there is no such item.
    pub fn left_selection(&self, batch: usize, head: usize) -> Option<&Selection> {
        self.item(batch, head).left.selection()
    }

    /// The selection of rows behind dB for one (batch, head); none if all were packed without one.
    ///
    /// # Panics
    ///
    /// If there is no such item.
    pub fn right_selection(&self, batch: usize, head: usize) -> Option<&Selection> {
        self.item(batch, head).right.selection()
    }

    /// Bytes that live until the backward pass: what is kept of the operands, indices and scales.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.left.bytes() + item.right.bytes()).sum()
    }

    fn item(&self, batch: usize, head: usize) -> &SavedItem<T> {
        assert!(batch < self.batch && head < self.heads, "there is no head {head} of batch item {batch}");
        &self.items[batch * self.heads + head]
    }
}

fn check_guess(
    what: &'static str,
    guess: Option<ArrayView3<'_, f32>>,
    (batch, heads, tokens): (usize, usize, usize),
) -> Result<(), ShapeError> {
    let Some(guess) = guess else { return Ok(()) };
    for (found, expected) in [(guess.dim().0, batch), (guess.dim().1, heads), (guess.dim().2, tokens)] {
        check_size(what, found, expected)?;
    }
    Ok(())
}

/// Splits the leading axis into batch × heads.
fn by_head<A: Clone>(items: Array3<A>, batch: usize, heads: usize) -> Array4<A> {
    let (_, rows, columns) = items.dim();
    items.into_shape_with_order((batch, heads, rows, columns)).expect("as many items as batch times heads")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(shape: (usize, usize, usize, usize), seed: usize) -> Array4<f64> {
        Array4::from_shape_fn(shape, |(b, h, i, j)| ((b * 7 + h * 5 + i * 31 + j * 17 + seed) % 29) as f64 / 14.0 - 1.0)
    }

    fn exact(a: &Array4<f64>, b: &Array4<f64>, g: &Array4<f64>, at: (usize, usize)) -> (Array2<f64>, Array2<f64>) {
        let (a, b, g) =
            (a.slice(s![at.0, at.1, .., ..]), b.slice(s![at.0, at.1, .., ..]), g.slice(s![at.0, at.1, .., ..]));
        (g.dot(&b.t()), a.t().dot(&g))
    }

    #[test]
    fn a_whole_budget_is_exact_for_every_head_and_stride() {
        let (a, b, g) = (values((2, 3, 10, 4), 1), values((2, 3, 4, 12), 2), values((2, 3, 10, 12), 3));
        // Heads within tokens, as attention layers store them.
        let strided = a.view().permuted_axes([0, 2, 1, 3]).as_standard_layout().into_owned();
        let product = TensorMul::new(Contraction::Sampled(Keep::Fraction(1.0)), Contraction::Exact);
        let saved = product
            .forward(
                strided.view().permuted_axes([0, 2, 1, 3]),
                b.view(),
                TensorGuess::default(),
                Randomness::new(0, 0),
            )
            .expect("fits");
        let gradients = saved.backward(g.view()).expect("fits");
        for at in [(0, 0), (0, 2), (1, 1)] {
            let (da, db) = exact(&a, &b, &g, at);
            let found = (gradients.left.slice(s![at.0, at.1, .., ..]), gradients.right.slice(s![at.0, at.1, .., ..]));
            assert!((&found.0 - &da).iter().chain((&found.1 - &db).iter()).all(|d| d.abs() < 1e-12));
            let g = g.slice(s![at.0, at.1, .., ..]);
            assert_eq!(gradients.row_norms.slice(s![at.0, at.1, ..]).to_vec(), product::row_norms(g));
            assert_eq!(gradients.column_norms.slice(s![at.0, at.1, ..]).to_vec(), product::column_norms(g));
        }
    }

    #[test]
    fn only_what_is_asked_for_is_sampled() {
        let (p, v) = (values((1, 2, 16, 16), 1), values((1, 2, 16, 4), 2));
        let context = TensorMul::context(Keep::Rows(5));
        let saved = context.forward(p.view(), v.view(), TensorGuess::default(), Randomness::new(1, 0)).expect("fits");
        assert_eq!(saved.left_selection(0, 1), Some(&Selection::everything(4)));
        assert_eq!(saved.right_selection(0, 1).map(Selection::len), Some(5));
        assert_ne!(saved.right_selection(0, 0), saved.right_selection(0, 1));
        assert_eq!(saved.bytes(), 2 * ((4 * 16 + 5 * 16) * 8 + (4 + 5) * 12));
        assert_eq!(context.draws(16, 4), Ok(16));

        let scores = TensorMul::scores(Keep::Rows(3));
        let kt = values((1, 2, 4, 16), 3);
        let saved = scores.forward(v.view(), kt.view(), TensorGuess::default(), Randomness::new(1, 0)).expect("fits");
        let kept = |selection: Option<&Selection>| selection.map(Selection::len);
        assert_eq!((kept(saved.left_selection(0, 0)), kept(saved.right_selection(0, 0))), (Some(3), Some(3)));
    }

    #[test]
    fn both_gradients_have_draws_of_their_own_whatever_the_threads() {
        // Symmetric: the same weights on both sides, so that equal draws would choose the same pairs.
        let a = values((1, 1, 64, 3), 1);
        let b = a.clone().permuted_axes([0, 1, 3, 2]);
        let product = TensorMul::scores(Keep::Rows(16));
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| {
                let saved =
                    product.forward(a.view(), b.view(), TensorGuess::default(), Randomness::new(3, 0)).expect("fits");
                let gradients = saved.backward(values((1, 1, 64, 64), 2).view()).expect("fits");
                (saved, gradients)
            })
        };
        let (saved, gradients) = run(1);
        assert_ne!(saved.left_selection(0, 0), saved.right_selection(0, 0));
        assert!(run(2) == (saved.clone(), gradients.clone()) && run(5) == (saved, gradients));
    }

    /// Rows that were masked at the last visit, and so are guessed zero, still take part.
    #[test]
    fn a_guess_of_zero_costs_variance_and_no_bias() {
        let (a, b, g) = (values((1, 1, 8, 2), 1), values((1, 1, 2, 2), 2), values((1, 1, 8, 2), 3));
        let mut norms = Array3::ones((1, 1, 8));
        norms.slice_mut(s![.., .., 6..]).fill(0.0);
        let guess = TensorGuess { rows: Some(norms.view()), columns: None };
        let product = TensorMul::new(Contraction::Exact, Contraction::Sampled(Keep::Rows(4))).with_mix(0.2);
        let draws = 40_000;
        let mut mean = Array2::<f64>::zeros((2, 2));
        for draw in 0..draws {
            let saved = product.forward(a.view(), b.view(), guess, Randomness::new(1, 8 * draw)).expect("fits");
            let right = saved.backward(g.view()).expect("fits").right;
            mean.scaled_add(1.0 / draws as f64, &right.slice(s![0, 0, .., ..]));
        }
        let (_, exact) = exact(&a, &b, &g, (0, 0));
        assert!((&mean - &exact).iter().all(|d| d.abs() < 0.05), "{mean} {exact}");
    }

    #[test]
    #[should_panic(expected = "no head 2")]
    fn items_are_told_apart() {
        let (a, b) = (values((2, 2, 6, 4), 1), values((2, 2, 4, 5), 2));
        let saved =
            TensorMul::scores(Keep::Rows(3)).forward(a.view(), b.view(), TensorGuess::default(), Randomness::new(0, 0));
        saved.expect("fits").left_selection(0, 2);
    }

    #[test]
    fn an_item_without_draws_of_its_own_is_refused() {
        let (scores, pairs) = (TensorMul::scores(Keep::Rows(3)), Array2::<f32>::ones((6, 4)));
        let select = |item| scores.select(Side::Right, pairs.view(), None, Randomness::new(0, 0), item);
        assert!(select(u32::MAX / 2).is_ok());
        let error = select(u32::MAX / 2 + 1).expect_err("must be refused");
        assert!(
            error.to_string().starts_with("2147483649 matrices in a batch are more than the 2147483648"),
            "{error}"
        );
    }

    #[test]
    fn shapes_are_checked() {
        let (a, b) = (values((1, 2, 6, 4), 1), values((1, 2, 4, 5), 2));
        let product = TensorMul::scores(Keep::Rows(3));
        let refused = |b: &Array4<f64>, guess| {
            product.forward(a.view(), b.view(), guess, Randomness::new(0, 0)).expect_err("must be refused").to_string()
        };
        assert_eq!(refused(&values((1, 1, 4, 5), 0), TensorGuess::default()), "heads of B: expected 2, found 1");
        assert_eq!(refused(&values((1, 2, 3, 5), 0), TensorGuess::default()), "rows of B (inner): expected 4, found 3");
        let norms = Array3::ones((1, 2, 4));
        let guess = TensorGuess { rows: Some(norms.view()), columns: None };
        assert_eq!(refused(&b, guess), "guessed row norms: expected 6, found 4");
        let saved = product.forward(a.view(), b.view(), TensorGuess::default(), Randomness::new(0, 0)).expect("fits");
        assert!(saved.backward(values((1, 2, 6, 4), 0).view()).is_err());
    }

    #[test]
    fn packed_pairs_are_unbiased_and_small() {
        let (a, b, g) = (values((1, 2, 40, 24), 1), values((1, 2, 24, 30), 2), values((1, 2, 40, 30), 3));
        let (a32, b32, g32) = (a.mapv(|v| v as f32), b.mapv(|v| v as f32), g.mapv(|v| v as f32));
        let half = Contraction::Sampled(Keep::Fraction(0.5));
        let all = Contraction::Sampled(Keep::Fraction(1.0));
        for (left, right) in [(half, all), (Contraction::Exact, half)] {
            let product = TensorMul::new(left, right).with_packing(Packing::Bits4);
            let step = product.draws(40, 30).expect("fits");
            assert!(step >= 40);
            let draws = 1500;
            let mut mean = [Array2::<f64>::zeros((40, 24)), Array2::zeros((24, 30))];
            let mut spread = [0.0; 2];
            let expected = exact(&a, &b, &g, (0, 1));
            for draw in 0..draws {
                let saved = product
                    .forward(a32.view(), b32.view(), TensorGuess::default(), Randomness::new(1, step * draw))
                    .expect("fits");
                assert_eq!(saved.right_selection(0, 0).is_none(), right == all);
                let native = TensorMul::new(left, right)
                    .forward(a32.view(), b32.view(), TensorGuess::default(), Randomness::new(1, step * draw))
                    .expect("fits");
                assert!(saved.bytes() < native.bytes());
                let found = saved.backward(g32.view()).expect("fits");
                let found = [
                    found.left.slice(s![0, 1, .., ..]).mapv(f64::from),
                    found.right.slice(s![0, 1, .., ..]).mapv(f64::from),
                ];
                for (i, (found, expected)) in found.iter().zip([&expected.0, &expected.1]).enumerate() {
                    spread[i] += (found - expected).mapv(|v| v * v).sum() / draws as f64;
                    mean[i] += &(found / draws as f64);
                }
            }
            for (i, expected) in [&expected.0, &expected.1].into_iter().enumerate() {
                let bias = (&mean[i] - expected).mapv(|v| v * v).sum();
                // Exact sums have f32's roundings alone.
                let ratio = bias * draws as f64 / spread[i].max(1e-6);
                assert!(ratio < 2.0, "{ratio} {}", spread[i]);
            }
        }
    }
}
