//! Budgets for the layers of a model in training, from what its steps have shown.
//!
//! A step shows a layer's curve: the weights that its rows were drawn by, and the exact norms of H and dZ. Curves, norms of
//! gradients and their changes from step to step are kept as sums that forget. Processes that add up their pending sums have
//! equal planners.

use super::curve::{Curve, CurveError, Point, valid};
use super::share_out::{AllocationError, Layer, LayerBudget, within_bytes, within_error};
use crate::product::Packing;
use crate::sampling::Weights;

/// How many shares of the rows a planner knows the tail of: four for each doubling, up to all.
const SHARES: usize = 32;
/// What a sum keeps of what it was when a new one is added.
const FORGETTING: f64 = 0.8;
/// Noise of rows in 4 bits where it was not measured: that of activations of transformers.
const TYPICAL_NOISE: f64 = 0.01;
/// The least that ‖dW‖² is taken for, as a share of the estimate's square: its own noise may make it up nearly whole.
const LEAST_SIGNAL: f64 = 1.0 / 16.0;

/// What a training step has shown of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// What the rows were drawn by, or would have been.
    pub weights: &'a Weights,
    /// ‖h_i‖² ‖dz_i‖² of every token.
    pub squares: &'a [f64],
    /// What was kept.
    pub budget: LayerBudget,
    /// ‖ĝ‖² of the estimate ĝ of dW.
    pub squared_norm: f64,
    /// ‖ĝ − ĝ'‖², ĝ' being the estimate in the observation before; none if that is not known.
    pub squared_change: Option<f64>,
}

/// The budget of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Of the rows of a step, as many as they were on average.
    pub budget: LayerBudget,
    /// How many rows that is of.
    pub pairs: usize,
    /// What the gradients of this layer and of those that share its input are expected to err by: Σ V_l/‖dW_l‖².
    pub squared_error: f64,
}

impl Planned {
    /// The share of the rows that is kept.
    pub fn share(&self) -> f64 {
        self.budget.rows as f64 / self.pairs as f64
    }
}

/// What budgets are to achieve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// All layers together take at most this share of the bytes of their inputs, in (0, 1].
    Memory(f64),
    /// What sampling and packing add to the variance of the gradients is at most this share, above 0, of what different batches
    /// make: Σ V_l/‖dW_l‖² ≤ share · Σ σ_l²/‖dW_l‖².
    Noise(f64),
}

/// Why a planner refuses.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlannerError {
    /// No layer has been observed, or, for a target of noise, none twice.
    #[error("no layer has been observed {}", if *.twice { "twice: what batches differ by is not known" } else { "yet" })]
    NothingObserved {
        /// Whether it takes two observations.
        twice: bool,
    },
    /// There is no such layer.
    #[error("no layer {layer}: there are {layers}")]
    NoSuchLayer {
        /// The layer's number.
        layer: usize,
        /// How many layers there are.
        layers: usize,
    },
    /// A layer shares the input of an earlier one.
    #[error("layer {layer} comes before layer {first}, whose input it is to share")]
    NotEarlier {
        /// The layer's number.
        layer: usize,
        /// That of the layer whose input it is to share.
        first: usize,
    },
    /// Layers that share an input have rows of one size.
    #[error("layer {layer} has other rows than layer {first}, whose input it is to share")]
    OtherRows {
        /// The layer's number.
        layer: usize,
        /// That of the layer whose input it is to share.
        first: usize,
    },
    /// A number that cannot be.
    #[error("{what} is {value}: it must be {allowed}")]
    Invalid {
        /// Which of the numbers it is.
        what: &'static str,
        /// Its value.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// Bytes of another version of their form.
    #[error("a planner saved in version {found}, and this is version {expected}")]
    Version {
        /// The version of this library.
        expected: u32,
        /// That of the bytes.
        found: u32,
    },
    /// Bytes that were changed since they were saved, or that no planner has saved.
    #[error("the planner cannot be read: {what}")]
    Corrupted {
        /// What is wrong.
        what: &'static str,
    },
    /// Sums of another planner.
    #[error("{found} sums where this planner has {expected}")]
    OtherSums {
        /// How many were given.
        found: usize,
        /// How many there are.
        expected: usize,
    },
    /// A number of an observation, or what its curve is made of.
    #[error(transparent)]
    Curve(#[from] CurveError),
    /// The target cannot be met.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
}

/// Learns the curves of a model's layers, and shares memory out among them. Layers are numbered as they were added.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    pub(super) layers: Vec<State>,
}

#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) columns: usize,
    pub(super) element_bytes: usize,
    /// The layer that reads the same H first: itself, mostly.
    pub(super) first: usize,
    pub(super) known: Sums,
    pub(super) pending: Sums,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    noise: f64,
    noises: f64,
    observed: f64,
    pairs: f64,
    squares: f64,
    squared_norm: f64,
    variance: f64,
    /// Changes from one estimate to the next, and how many.
    squared_change: f64,
    changes: f64,
    tails: [f64; SHARES],
}

impl Planner {
    /// A planner without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer that reads rows of `columns` elements of `element_bytes`. Returns its number.
    pub fn add_layer(&mut self, columns: usize, element_bytes: usize) -> usize {
        let (first, none) = (self.layers.len(), Sums::default());
        self.layers.push(State { columns, element_bytes, first, known: none, pending: none });
        first
    }

    /// How many layers there are.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Elements of the rows that a layer reads.
    ///
    /// # Errors
    ///
    /// A layer that there is not.
    pub fn columns(&self, layer: usize) -> Result<usize, PlannerError> {
        Ok(self.layer(layer)?.columns)
    }

    /// How many sums there are.
    pub fn statistics_len(&self) -> usize {
        self.layers.len() * Sums::COUNT
    }

    /// A layer reads the same H as an earlier one: both keep one selection, and have one budget.
    ///
    /// # Errors
    ///
    /// A layer that there is not; one that is not earlier, or has rows of another size.
    pub fn share_input(&mut self, layer: usize, first: usize) -> Result<(), PlannerError> {
        let (own, other) = (self.layer(layer)?, self.layer(first)?);
        if layer <= first {
            return Err(PlannerError::NotEarlier { layer, first });
        }
        if (own.columns, own.element_bytes) != (other.columns, other.element_bytes) {
            return Err(PlannerError::OtherRows { layer, first });
        }
        let first = other.first;
        self.layers.iter_mut().filter(|other| other.first == layer).for_each(|other| other.first = first);
        Ok(())
    }

    /// Notes the noise of the rows that a layer reads in 4 bits, relative to their squares; 0.01 is supposed where it was never
    /// noted.
    ///
    /// # Errors
    ///
    /// A layer that there is not; a number that is negative or not finite.
    pub fn observe_noise(&mut self, layer: usize, noise: f64) -> Result<(), PlannerError> {
        self.layer(layer)?;
        valid("the noise", noise)?;
        self.layers[layer].pending.add(&Sums { noise, noises: 1.0, ..Sums::default() });
        Ok(())
    }

    /// Notes what a step has shown of a layer.
    ///
    /// # Errors
    ///
    /// A layer that there is not; squares that are not one for each weight; a budget that does not fit; numbers that are
    /// negative or not finite. Then nothing is noted.
    pub fn observe(&mut self, layer: usize, seen: Observation<'_>) -> Result<(), PlannerError> {
        let state = self.layer(layer)?;
        let (pairs, LayerBudget { rows, .. }) = (seen.weights.len(), seen.budget);
        valid("the square of the estimate", seen.squared_norm)?;
        seen.squared_change.map_or(Ok(()), |change| valid("the square of the change", change))?;
        if rows == 0 || rows > pairs {
            let allowed = "from 1 to the number of tokens";
            return Err(PlannerError::Invalid { what: "the budget", value: rows as f64, allowed });
        }
        let grid = grid(pairs);
        let mut all = grid.to_vec();
        all.push(rows);
        all.sort_unstable();
        all.dedup();
        let curve = Curve::of(seen.weights, seen.squares, &all)?;
        let tails = grid.map(|rows| curve.squared_error(rows, 0.0));
        let squares = curve.squares();
        let variance = state.with(curve).squared_error(seen.budget);
        self.layers[layer].pending.add(&Sums {
            observed: 1.0,
            pairs: pairs as f64,
            squares,
            squared_norm: seen.squared_norm,
            variance,
            squared_change: seen.squared_change.unwrap_or(0.0),
            changes: if seen.squared_change.is_some() { 1.0 } else { 0.0 },
            tails,
            ..Sums::default()
        });
        Ok(())
    }

    /// The sums of what was observed since sums were last taken in. Processes add theirs up, and all take in the total.
    pub fn pending(&self) -> Vec<f64> {
        self.layers.iter().flat_map(|layer| layer.pending.numbers()).collect()
    }

    /// Takes in sums, and forgets the pending ones, which are among them.
    ///
    /// # Errors
    ///
    /// Sums of another number, or one that is not finite; then nothing changes.
    pub fn apply(&mut self, sums: &[f64]) -> Result<(), PlannerError> {
        let expected = self.statistics_len();
        if sums.len() != expected {
            return Err(PlannerError::OtherSums { found: sums.len(), expected });
        }
        if let Some(&value) = sums.iter().find(|sum| !sum.is_finite()) {
            return Err(PlannerError::Invalid { what: "a sum", value, allowed: "finite" });
        }
        for (state, sums) in self.layers.iter_mut().zip(sums.chunks_exact(Sums::COUNT)) {
            state.known.take_in(sums);
            state.pending = Sums::default();
        }
        Ok(())
    }

    /// A budget for every layer by the sums that were taken in; none for a layer whose input was never observed.
    ///
    /// # Errors
    ///
    /// [`PlannerError::NothingObserved`]; a target that is out of its range, or cannot be met.
    pub fn solve(&self, target: Target) -> Result<Vec<Option<Planned>>, PlannerError> {
        let (firsts, layers): (Vec<usize>, Vec<Layer>) =
            (0..self.layers.len()).filter_map(|first| Some((first, self.input(first)?))).unzip();
        if layers.is_empty() {
            return Err(PlannerError::NothingObserved { twice: false });
        }
        let refused = |what, value, allowed| Err(PlannerError::Invalid { what, value, allowed });
        let budgets = match target {
            Target::Memory(share) if share > 0.0 && share <= 1.0 => {
                let exact = |layer: &Layer| LayerBudget { rows: layer.curve.pairs(), packing: Packing::Native };
                let whole: u64 = layers.iter().map(|layer| layer.bytes(exact(layer))).sum();
                within_bytes(&layers, (share * whole as f64) as u64)?
            }
            Target::Memory(share) => return refused("the share of memory", share, "above 0 and at most 1"),
            Target::Noise(share) if share > 0.0 && share.is_finite() => {
                if self.layers.iter().all(|layer| layer.known.changes == 0.0) {
                    return Err(PlannerError::NothingObserved { twice: true });
                }
                let between: f64 = self.layers.iter().map(|layer| layer.known.relative_between()).sum();
                within_error(&layers, share * between)?
            }
            Target::Noise(share) => return refused("the share of noise", share, "above 0 and finite"),
        };
        let mut planned = vec![None; self.layers.len()];
        for ((first, layer), budget) in firsts.into_iter().zip(&layers).zip(budgets) {
            let found = Planned { budget, pairs: layer.curve.pairs(), squared_error: layer.squared_error(budget) };
            self.readers(first).for_each(|reader| planned[reader] = Some(found));
        }
        Ok(planned)
    }

    fn layer(&self, layer: usize) -> Result<&State, PlannerError> {
        self.layers.get(layer).ok_or(PlannerError::NoSuchLayer { layer, layers: self.layers.len() })
    }

    /// The layers that read the H that this one reads first.
    fn readers(&self, first: usize) -> impl Iterator<Item = usize> + '_ {
        (first..self.layers.len()).filter(move |&layer| self.layers[layer].first == first)
    }

    /// An H that was observed: the sum of its readers' relative curves, for as many rows as there were on average.
    fn input(&self, first: usize) -> Option<Layer> {
        let seen = || self.readers(first).map(|reader| &self.layers[reader].known).filter(|sums| sums.observed > 0.0);
        let (mut pairs, mut observed, mut squares, mut tails) = (0.0, 0.0, 0.0, [0.0; SHARES]);
        for reader in seen() {
            pairs += reader.pairs;
            observed += reader.observed;
            squares += reader.relative(reader.squares);
            tails.iter_mut().zip(reader.tails).for_each(|(sum, tail)| *sum += reader.relative(tail));
        }
        if observed == 0.0 {
            return None;
        }
        let pairs = ((pairs / observed).round() as usize).max(1);
        let mut points: Vec<Point> = Vec::with_capacity(SHARES);
        for (rows, tail) in grid(pairs).into_iter().zip(tails) {
            // Of shares that are the same number of rows, the last.
            if points.last().is_some_and(|last| last.rows == rows) {
                points.pop();
            }
            points.push(Point { rows, tail });
        }
        Some(self.layers[first].with(Curve::new(points, squares).ok()?))
    }
}

impl State {
    fn with(&self, curve: Curve) -> Layer {
        let measured = [&self.known, &self.pending].into_iter().find(|sums| sums.noises > 0.0);
        let noise = measured.map_or(TYPICAL_NOISE, |sums| sums.noise / sums.noises);
        Layer { columns: self.columns, element_bytes: self.element_bytes, noise, curve }
    }
}

impl Sums {
    pub(super) const COUNT: usize = 9 + SHARES;

    fn numbers_mut(&mut self) -> [&mut f64; Self::COUNT] {
        let Self { noise, noises, observed, pairs, squares, squared_norm, variance, squared_change, changes, tails } =
            self;
        let mut named =
            [noise, noises, observed, pairs, squares, squared_norm, variance, squared_change, changes].into_iter();
        let mut tails = tails.iter_mut();
        core::array::from_fn(|_| named.next().or_else(|| tails.next()).expect("as many as are counted"))
    }

    pub(super) fn numbers(mut self) -> [f64; Self::COUNT] {
        self.numbers_mut().map(|number| *number)
    }

    pub(super) fn of(numbers: &[f64]) -> Self {
        let mut sums = Self::default();
        sums.numbers_mut().into_iter().zip(numbers).for_each(|(to, &number)| *to = number);
        sums
    }

    fn add(&mut self, other: &Self) {
        self.numbers_mut().into_iter().zip(other.numbers()).for_each(|(sum, number)| *sum += number);
    }

    /// What nobody has observed stays as it was.
    fn take_in(&mut self, numbers: &[f64]) {
        let (new, before) = (Self::of(numbers), *self);
        self.numbers_mut().into_iter().for_each(|sum| *sum *= FORGETTING);
        self.add(&new);
        if new.noises == 0.0 {
            (self.noise, self.noises) = (before.noise, before.noises);
        }
        if new.observed == 0.0 {
            *self = Self { noise: self.noise, noises: self.noises, ..before };
        }
    }

    /// A sum of squares relative to that of ‖dW‖². Without a gradient nothing errs.
    fn relative(&self, sum: f64) -> f64 {
        let signal = (self.squared_norm - self.variance).max(LEAST_SIGNAL * self.squared_norm);
        if signal > 0.0 { sum / signal } else { 0.0 }
    }

    /// σ²/‖dW‖² of what batches differ by.
    fn relative_between(&self) -> f64 {
        if self.changes == 0.0 {
            return 0.0;
        }
        // E‖ĝ − ĝ'‖² = 2σ² + V + V'. The sum is as if every observation had shown a change.
        let half = self.squared_change / 2.0 * (self.observed / self.changes);
        self.relative((half - self.variance).max(0.0))
    }
}

/// The numbers of rows that tails are kept of, for so many pairs.
fn grid(pairs: usize) -> [usize; SHARES] {
    core::array::from_fn(|at| {
        let share = ((at + 1) as f64 - SHARES as f64) / 4.0;
        ((share.exp2() * pairs as f64).round() as usize).clamp(1.min(pairs), pairs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: usize = 64;

    /// Norms of which a few are large, or none.
    fn norms(heavy: usize) -> Vec<f64> {
        (0..PAIRS).map(|i| if i < heavy { 4.0 } else { 0.1 + 0.01 * (i % 7) as f64 }).collect()
    }

    fn budget(rows: usize) -> LayerBudget {
        LayerBudget { rows, packing: Packing::Native }
    }

    fn see(planner: &mut Planner, layer: usize, norms: &[f64], squared_norm: f64, change: Option<f64>) {
        let squares: Vec<f64> = norms.iter().map(|norm| norm * norm).collect();
        let weights = Weights::new(norms).expect("valid");
        let (squares, budget) = (&squares[..], budget(PAIRS));
        let seen = Observation { weights: &weights, squares, budget, squared_norm, squared_change: change };
        planner.observe(layer, seen).expect("valid");
    }

    fn settle(planner: &mut Planner) {
        planner.apply(&planner.pending()).expect("its own");
    }

    fn two_layers() -> Planner {
        let mut planner = Planner::new();
        assert_eq!((planner.add_layer(256, 4), planner.add_layer(256, 4)), (0, 1));
        see(&mut planner, 0, &norms(6), 100.0, None);
        see(&mut planner, 1, &norms(0), 0.5, None);
        planner
    }

    #[test]
    fn memory_is_shared_out_and_not_exceeded() {
        let mut planner = two_layers();
        let nothing = PlannerError::NothingObserved { twice: false };
        assert_eq!(planner.solve(Target::Memory(0.1)), Err(nothing), "not taken in yet");
        settle(&mut planner);
        let whole = 2 * PAIRS as u64 * 1024;
        let mut before = f64::INFINITY;
        for share in [0.01, 0.03, 0.1, 0.3, 1.0] {
            let planned: Vec<Planned> =
                planner.solve(Target::Memory(share)).expect("fits").into_iter().flatten().collect();
            let layer = |planned: &Planned| {
                let curve = Curve::new(vec![Point { rows: planned.pairs, tail: 0.0 }], 0.0).expect("valid");
                Layer { columns: 256, element_bytes: 4, noise: 0.0, curve }
            };
            let bytes: u64 = planned.iter().map(|planned| layer(planned).bytes(planned.budget)).sum();
            assert!(bytes as f64 <= share * whole as f64, "{share}: {bytes}");
            let error = planned.iter().map(|planned| planned.squared_error).sum::<f64>();
            assert!(error < before, "{share}: {error}");
            before = error;
        }
        assert_eq!(before, 0.0);
    }

    #[test]
    fn noise_is_a_share_of_what_batches_differ_by() {
        let mut planner = two_layers();
        settle(&mut planner);
        let nothing = PlannerError::NothingObserved { twice: true };
        assert_eq!(planner.solve(Target::Noise(0.1)), Err(nothing));
        // All rows were kept, so the changes are those of batches alone: σ²/‖dW‖² = 0.2 and 0.4.
        see(&mut planner, 0, &norms(6), 100.0, Some(40.0));
        see(&mut planner, 1, &norms(0), 0.5, Some(0.4));
        settle(&mut planner);
        for share in [1e-4, 0.01, 0.1, 1.0] {
            let planned = planner.solve(Target::Noise(share)).expect("valid");
            let error: f64 = planned.iter().flatten().map(|planned| planned.squared_error).sum();
            assert!(error <= share * 0.6 && error > share * 0.6 / 2.0, "{share}: {error}");
        }
    }

    #[test]
    fn an_estimate_s_own_noise_is_no_gradient() {
        let norms = norms(0);
        let weights = Weights::new(&norms).expect("valid");
        let squares: Vec<f64> = norms.iter().map(|norm| norm * norm).collect();
        let curve = Curve::of(&weights, &squares, &[8]).expect("valid");
        let variance = curve.squared_error(8, 0.0);
        let mut planner = Planner::new();
        planner.add_layer(256, 4);
        let seen = Observation {
            weights: &weights,
            squares: &squares,
            budget: budget(8),
            squared_norm: 2.0 + variance,
            squared_change: None,
        };
        planner.observe(0, seen).expect("valid");
        settle(&mut planner);
        let planned = planner.solve(Target::Noise(1.0));
        assert_eq!(planned, Err(PlannerError::NothingObserved { twice: true }));
        let least = planner.solve(Target::Memory(0.004)).expect("fits")[0].expect("observed");
        let Planned { budget, squared_error, .. } = least;
        let expected = Curve::of(&weights, &squares, &[budget.rows]).expect("valid");
        let noise = TYPICAL_NOISE * 25.0;
        assert_eq!(budget.packing, Packing::Bits2);
        let expected = expected.squared_error(budget.rows, noise) / 2.0;
        assert!((squared_error / expected - 1.0).abs() < 1e-9, "{squared_error} {expected}");
    }

    #[test]
    fn layers_that_share_an_input_count_each_by_its_own_length() {
        let (mut shared, mut alone) = (Planner::new(), Planner::new());
        for _ in 0..2 {
            shared.add_layer(256, 4);
        }
        shared.share_input(1, 0).expect("alike");
        alone.add_layer(256, 4);
        see(&mut shared, 0, &norms(3), 5.0, None);
        see(&mut shared, 1, &norms(3), 20.0, None);
        // 1/5 + 1/20 = 1/4.
        see(&mut alone, 0, &norms(3), 4.0, None);
        for planner in [&mut shared, &mut alone] {
            settle(planner);
        }
        let [shared, alone] = [shared, alone].map(|planner| planner.solve(Target::Memory(0.05)).expect("fits"));
        assert_eq!(shared[0], shared[1]);
        let (shared, alone) = (shared[0].expect("observed"), alone[0].expect("observed"));
        assert_eq!(shared.budget, alone.budget);
        assert!((shared.squared_error / alone.squared_error - 1.0).abs() < 1e-12);
    }

    #[test]
    fn ranks_that_add_up_their_sums_agree() {
        let make = || {
            let mut planner = Planner::new();
            planner.add_layer(256, 4);
            planner
        };
        let (mut first, mut second) = (make(), make());
        see(&mut first, 0, &norms(2), 5.0, None);
        see(&mut second, 0, &norms(9), 9.0, None);
        second.observe_noise(0, 0.02).expect("valid");
        let total: Vec<f64> = first.pending().iter().zip(second.pending()).map(|(a, b)| a + b).collect();
        for planner in [&mut first, &mut second] {
            planner.apply(&total).expect("as many");
            assert!(planner.pending().iter().all(|&sum| sum == 0.0));
        }
        assert_eq!(first.solve(Target::Memory(0.1)), second.solve(Target::Memory(0.1)));
    }

    #[test]
    fn a_layer_that_was_never_seen_has_no_budget() {
        let mut planner = two_layers();
        planner.add_layer(128, 2);
        settle(&mut planner);
        let planned = planner.solve(Target::Memory(0.2)).expect("fits");
        assert!(planned[0].is_some() && planned[1].is_some() && planned[2].is_none());
        let kept = planner.to_bytes();
        settle(&mut planner);
        assert_eq!(planner.to_bytes(), kept, "nothing new, nothing forgotten");
    }

    #[test]
    fn bad_input_is_named() {
        let mut planner = two_layers();
        let weights = Weights::new(&[1.0, 2.0]).expect("valid");
        let seen = Observation {
            weights: &weights,
            squares: &[1.0, 2.0],
            budget: budget(1),
            squared_norm: 1.0,
            squared_change: None,
        };
        let before = planner.pending();
        assert_eq!(planner.observe(2, seen), Err(PlannerError::NoSuchLayer { layer: 2, layers: 2 }));
        for layer in [0, 1] {
            assert_eq!(planner.share_input(layer, 1), Err(PlannerError::NotEarlier { layer, first: 1 }));
        }
        let mut other = Planner::new();
        for element_bytes in [4, 2] {
            other.add_layer(256, element_bytes);
        }
        assert_eq!(other.share_input(1, 0), Err(PlannerError::OtherRows { layer: 1, first: 0 }));
        for rows in [0, 3] {
            let refused = planner.observe(0, Observation { budget: budget(rows), ..seen });
            assert!(matches!(refused, Err(PlannerError::Invalid { what: "the budget", .. })));
        }
        for squared_norm in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(planner.observe(0, Observation { squared_norm, ..seen }).is_err());
            assert!(planner.observe(0, Observation { squared_change: Some(squared_norm), ..seen }).is_err());
            assert!(planner.observe_noise(0, squared_norm).is_err());
        }
        assert!(matches!(planner.observe(0, Observation { squares: &[1.0], ..seen }), Err(PlannerError::Curve(_))));
        assert!(planner.observe_noise(2, 0.1).is_err());
        assert_eq!(planner.pending(), before);
        let found = planner.apply(&[0.0]).expect_err("too few");
        assert_eq!(found, PlannerError::OtherSums { found: 1, expected: before.len() });
        assert!(planner.apply(&vec![f64::NAN; before.len()]).is_err());
        settle(&mut planner);
        for share in [0.0, -1.0, f64::NAN] {
            assert!(planner.solve(Target::Memory(share)).is_err() && planner.solve(Target::Noise(share)).is_err());
        }
        assert!(planner.solve(Target::Memory(1.1)).is_err());
    }
}
