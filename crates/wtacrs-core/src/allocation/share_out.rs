//! Sharing memory out among layers, so that the sum of their errors is least.
//!
//! **Idea.** Each layer can keep any number of rows, native or packed. Of the pairs of bytes and error that it can so have,
//! those on the lower convex hull count. From the least bytes of all layers on, the next step along a hull is always the one
//! that takes most error away for a byte. That is the least error at the bytes where such a step ends (for a multiplier λ each
//! layer has its least error + λ · bytes); what is left of the bytes buys the best single changes.

use super::curve::Curve;
use crate::element::Element;
use crate::product::{PackError, Packing, row_norms};
use crate::sampling::Selection;
use crate::theory;
use core::cmp::Ordering;
use ndarray::ArrayView2;
use wtacrs_exact::packing::{Bits, PackingBits};
use wtacrs_exact::random::Randomness;

/// What rows take beside their elements, where not all rows of a layer are kept.
const SELECTED_BYTES: u64 = Selection::BYTES_PER_PAIR as u64;

/// A layer that memory is shared out to, or several that read one H and keep one selection of it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Elements of a row, in_features.
    pub columns: usize,
    /// Bytes of an element of a native row.
    pub element_bytes: usize,
    /// The noise of a row in 4 bits, relative to its square ([`row_noise`]).
    pub noise: f64,
    /// The squared error relative to ‖dW‖², which sums over layers are of.
    pub curve: Curve,
}

/// The noise of rows in 4 bits, relative to their squares: what [`theory::packing_noise`] adds up to, over Σ ‖h_i‖². A few dozen
/// rows of H (rows × in_features) tell it, if they are from all places of the sequences.
///
/// # Errors
///
/// If a row has an element that is not finite.
pub fn row_noise<T: Element>(h: ArrayView2<'_, T>) -> Result<f64, PackError> {
    let noise: f64 = theory::packing_noise(h, Bits::Bits4, PackingBits::new(Randomness::default(), 0))?.iter().sum();
    let squares: f64 = row_norms(h).into_iter().map(|norm| f64::from(norm).powi(2)).sum();
    Ok(if squares > 0.0 { noise / squares } else { 0.0 })
}

/// How many rows a layer keeps, and how. All rows and [`Packing::Native`] are a layer that is left exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerBudget {
    /// Kept rows, k.
    pub rows: usize,
    /// How they are saved.
    pub packing: Packing,
}

/// Why memory cannot be shared out.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocationError {
    /// The layers' least budgets take more.
    #[error("{bytes} bytes for layers that take {least} at least")]
    TooFewBytes {
        /// What was given.
        bytes: u64,
        /// What the least budgets of all layers take.
        least: u64,
    },
    /// An error that is negative or not a number.
    #[error("a squared error of {error}: it must not be negative")]
    InvalidError {
        /// The offending number.
        error: f64,
    },
}

impl Layer {
    /// Bytes of the rows that a budget keeps, with their indices and scales.
    pub fn bytes(&self, budget: LayerBudget) -> u64 {
        let selected = if budget.rows == self.curve.pairs() { 0 } else { SELECTED_BYTES };
        budget.rows as u64 * (budget.packing.row_bytes(self.columns, self.element_bytes) + selected)
    }

    /// The relative squared error with a budget.
    ///
    /// # Panics
    ///
    /// If the curve knows of no such number of rows.
    pub fn squared_error(&self, budget: LayerBudget) -> f64 {
        self.curve.squared_error(budget.rows, self.relative_noise(budget.packing))
    }

    /// A row's noise relative to its square. A step of the grid is a (2ᵇ − 1)th of the row's range.
    fn relative_noise(&self, packing: Packing) -> f64 {
        packing
            .bits()
            .map_or(0.0, |bits| self.noise * (f64::from(Bits::Bits4.steps()) / f64::from(bits.steps())).powi(2))
    }

    fn choice(&self, budget: LayerBudget) -> Choice {
        Choice { budget, bytes: self.bytes(budget), error: self.squared_error(budget) }
    }

    /// The choices on the lower convex hull of all that the curve's points offer: bytes rise, errors fall, and each step saves
    /// less error for a byte than the one before.
    fn hull(&self) -> Vec<Choice> {
        let points = self.curve.points();
        let budgets =
            Packing::ALL.into_iter().flat_map(|packing| points.iter().map(move |point| (packing, point.rows)));
        let mut choices: Vec<Choice> =
            budgets.map(|(packing, rows)| self.choice(LayerBudget { rows, packing })).collect();
        choices.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.error.total_cmp(&b.error)));
        let mut hull: Vec<Choice> = Vec::new();
        for choice in choices {
            if hull.last().is_some_and(|last| choice.error >= last.error) {
                continue;
            }
            while let [.., before, last] = hull[..] {
                if before.gain(&last) > last.gain(&choice) {
                    break;
                }
                hull.pop();
            }
            hull.push(choice);
        }
        hull
    }

    /// The least error within so many bytes; of equal ones that of the most bits.
    fn within(&self, bytes: u64) -> Option<Choice> {
        let affordable = |packing: Packing| {
            let row = packing.row_bytes(self.columns, self.element_bytes);
            let pairs = self.curve.pairs() as u64;
            let some = (bytes / (row + SELECTED_BYTES)).min(pairs - 1);
            let rows = if row * pairs <= bytes { pairs } else { some } as usize;
            (rows >= self.curve.least_rows()).then(|| self.choice(LayerBudget { rows, packing }))
        };
        Packing::ALL.into_iter().filter_map(affordable).min_by(|a, b| a.error.total_cmp(&b.error))
    }

    /// The fewest bytes with at most this error; of equal ones those of the most bits.
    fn cheapest(&self, error: f64) -> Option<Choice> {
        let enough = |packing: Packing| {
            let choice = |rows| self.choice(LayerBudget { rows, packing });
            let (mut few, mut rows) = (self.curve.least_rows() - 1, self.curve.pairs());
            if choice(rows).error > error {
                return None;
            }
            while rows - few > 1 {
                let middle = usize::midpoint(few, rows);
                if choice(middle).error <= error { rows = middle } else { few = middle }
            }
            // All rows have no indices.
            [choice(rows), choice(self.curve.pairs())].into_iter().min_by_key(|choice| choice.bytes)
        };
        Packing::ALL.into_iter().filter_map(enough).min_by_key(|choice| choice.bytes)
    }
}

#[derive(Clone, Copy, Debug)]
struct Choice {
    budget: LayerBudget,
    bytes: u64,
    error: f64,
}

impl Choice {
    /// By how much the error falls for a byte, from here to a choice of more bytes.
    fn gain(&self, to: &Self) -> f64 {
        (self.error - to.error) / (to.bytes - self.bytes) as f64
    }
}

/// A step along a layer's hull, to the choice at `to`.
#[derive(Clone, Copy)]
struct Step {
    layer: usize,
    to: usize,
    gain: f64,
}

/// The steps of all layers, those that take most error away for a byte first.
fn steps(hulls: &[Vec<Choice>]) -> Vec<Step> {
    let of_layer = |(layer, hull): (usize, &Vec<Choice>)| {
        let steps = hull.windows(2).enumerate();
        steps.map(|(at, pair)| Step { layer, to: at + 1, gain: pair[0].gain(&pair[1]) }).collect::<Vec<_>>()
    };
    let mut steps: Vec<Step> = hulls.iter().enumerate().flat_map(of_layer).collect();
    // A stable sort: equal steps stay in the order of layers and of their hulls.
    steps.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    steps
}

/// A budget for each layer, so that together they take at most `bytes` and the sum of their relative squared errors is least,
/// up to what less than a step of one hull can buy.
///
/// Equal layers and bytes give equal budgets, everywhere.
///
/// # Errors
///
/// [`AllocationError::TooFewBytes`] if the curves' least rows take more in the fewest bits.
pub fn within_bytes(layers: &[Layer], bytes: u64) -> Result<Vec<LayerBudget>, AllocationError> {
    let hulls: Vec<Vec<Choice>> = layers.iter().map(Layer::hull).collect();
    let mut chosen: Vec<Choice> = hulls.iter().map(|hull| hull[0]).collect();
    let least = chosen.iter().map(|choice| choice.bytes).sum();
    let mut left = bytes.checked_sub(least).ok_or(AllocationError::TooFewBytes { bytes, least })?;
    let mut reached = vec![0; layers.len()];
    for Step { layer, to, .. } in steps(&hulls) {
        let next = hulls[layer][to];
        let cost = next.bytes - chosen[layer].bytes;
        if reached[layer] + 1 == to && cost <= left {
            left -= cost;
            (reached[layer], chosen[layer]) = (to, next);
        }
    }
    while let Some((layer, better)) = best_change(layers, &chosen, left) {
        left = left + chosen[layer].bytes - better.bytes;
        chosen[layer] = better;
    }
    Ok(chosen.into_iter().map(|choice| choice.budget).collect())
}

/// The change of one layer within `left` more bytes that takes most error away; of equal ones that of the first layer.
fn best_change(layers: &[Layer], chosen: &[Choice], left: u64) -> Option<(usize, Choice)> {
    let change = |(at, (layer, now)): (usize, (&Layer, &Choice))| {
        let better = layer.within(now.bytes + left)?;
        (better.error < now.error).then_some((at, better, now.error - better.error))
    };
    let changes = layers.iter().zip(chosen).enumerate().filter_map(change);
    let best = changes.reduce(|best, other| if other.2.total_cmp(&best.2) == Ordering::Greater { other } else { best });
    best.map(|(at, better, _)| (at, better))
}

/// A budget for each layer, so that the sum of their relative squared errors is at most `squared_error` and they take the least
/// memory together, up to what less than a step of one hull can save.
///
/// # Errors
///
/// [`AllocationError::InvalidError`] for an error that is negative or not a number.
pub fn within_error(layers: &[Layer], squared_error: f64) -> Result<Vec<LayerBudget>, AllocationError> {
    if squared_error.is_nan() || squared_error < 0.0 {
        return Err(AllocationError::InvalidError { error: squared_error });
    }
    let hulls: Vec<Vec<Choice>> = layers.iter().map(Layer::hull).collect();
    let mut chosen: Vec<Choice> = hulls.iter().map(|hull| hull[0]).collect();
    let sum_of = |chosen: &[Choice]| chosen.iter().map(|choice| choice.error).sum::<f64>();
    for Step { layer, to, .. } in steps(&hulls) {
        if sum_of(&chosen) <= squared_error {
            break;
        }
        chosen[layer] = hulls[layer][to];
    }
    while let Some((layer, cheaper)) = best_saving(layers, &chosen, squared_error - sum_of(&chosen)) {
        chosen[layer] = cheaper;
    }
    Ok(chosen.into_iter().map(|choice| choice.budget).collect())
}

/// The change of one layer that adds at most so much error and saves most bytes; of equal ones that of the first layer.
fn best_saving(layers: &[Layer], chosen: &[Choice], error: f64) -> Option<(usize, Choice)> {
    let change = |(at, (layer, now)): (usize, (&Layer, &Choice))| {
        let cheaper = layer.cheapest(now.error + error)?;
        (cheaper.bytes < now.bytes).then(|| (at, cheaper, now.bytes - cheaper.bytes))
    };
    let changes = layers.iter().zip(chosen).enumerate().filter_map(change);
    let best = changes.reduce(|best, other| if other.2 > best.2 { other } else { best });
    best.map(|(at, cheaper, _)| (at, cheaper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::Point;
    use crate::sampling::Weights;
    use proptest::prelude::*;

    fn layer(columns: usize, norms: &[f64], length: f64) -> Layer {
        let squares: Vec<f64> = norms.iter().map(|norm| (norm / length).powi(2)).collect();
        let rows: Vec<usize> = (1..=norms.len()).collect();
        let curve = Curve::of(&Weights::new(norms).expect("valid"), &squares, &rows).expect("valid");
        Layer { columns, element_bytes: 2, noise: 0.01, curve }
    }

    fn layers() -> impl Strategy<Value = Vec<Layer>> {
        let norms = proptest::collection::vec(0.05..4.0, 1..6);
        let layer = (proptest::sample::select(vec![128_usize, 256, 384]), norms, 0.5..8.0)
            .prop_map(|(columns, norms, length)| layer(columns, &norms, length));
        proptest::collection::vec(layer, 1..4)
    }

    fn sums(layers: &[Layer], budgets: &[LayerBudget]) -> (u64, f64) {
        let both = || layers.iter().zip(budgets);
        (both().map(|(l, &b)| l.bytes(b)).sum(), both().map(|(l, &b)| l.squared_error(b)).sum())
    }

    /// Bytes and error of all ways to choose budgets.
    fn all_ways(layers: &[Layer]) -> Vec<(u64, f64)> {
        layers.iter().fold(vec![(0, 0.0)], |ways, layer| {
            let rows = layer.curve.least_rows()..=layer.curve.pairs();
            let budgets = rows.flat_map(|rows| Packing::ALL.map(|packing| LayerBudget { rows, packing }));
            let own: Vec<(u64, f64)> = budgets.map(|b| (layer.bytes(b), layer.squared_error(b))).collect();
            let add = |&(bytes, error): &(u64, f64)| own.iter().map(move |way| (bytes + way.0, error + way.1));
            ways.iter().flat_map(add).collect()
        })
    }

    /// The most bytes of one step of a hull: often a row, at times other bits for all of a layer's rows.
    fn step(layers: &[Layer]) -> u64 {
        let hulls = layers.iter().map(Layer::hull);
        let longest = |hull: Vec<Choice>| hull.windows(2).map(|pair| pair[1].bytes - pair[0].bytes).max();
        hulls.filter_map(longest).max().unwrap_or_default()
    }

    proptest! {
        #[test]
        fn no_way_errs_less_within_a_step_less(layers in layers(), share in 0.0..1.0) {
            let ways = all_ways(&layers);
            let least = ways.iter().map(|way| way.0).min().expect("some");
            let most = sums(&layers, &layers.iter().map(exact).collect::<Vec<_>>()).0;
            let bytes = least + (share * most.saturating_sub(least) as f64) as u64;
            let found = within_bytes(&layers, bytes).expect("fits");
            let (taken, error) = sums(&layers, &found);
            prop_assert!(taken <= bytes);
            let best = |bytes: u64| ways.iter().filter(|way| way.0 <= bytes).map(|way| way.1).fold(f64::INFINITY, f64::min);
            prop_assert!(error >= best(bytes) - 1e-12);
            prop_assert!(error <= best(bytes.saturating_sub(step(&layers))) + 1e-12, "{error}, {found:?}");
            prop_assert_eq!(within_bytes(&layers, bytes), Ok(found));
        }

        #[test]
        fn no_way_takes_a_step_less_for_the_error(layers in layers(), share in 0.0..1.0) {
            let ways = all_ways(&layers);
            let most = ways.iter().map(|way| way.1).fold(0.0, f64::max);
            let target = share * most;
            let found = within_error(&layers, target).expect("valid");
            let (bytes, error) = sums(&layers, &found);
            prop_assert!(error <= target);
            let least = ways.iter().filter(|way| way.1 <= target).map(|way| way.0).min().expect("exact layers");
            prop_assert!(bytes <= least + step(&layers), "{bytes} {least}, {found:?}");
        }

        #[test]
        fn more_memory_never_hurts(layers in layers(), bytes in 0_u64..4000, more in 0_u64..4000) {
            if let (Ok(few), Ok(many)) = (within_bytes(&layers, bytes), within_bytes(&layers, bytes + more + step(&layers))) {
                prop_assert!(sums(&layers, &many).1 <= sums(&layers, &few).1 + 1e-12);
            }
        }
    }

    fn exact(layer: &Layer) -> LayerBudget {
        LayerBudget { rows: layer.curve.pairs(), packing: Packing::Native }
    }

    #[test]
    fn all_the_memory_leaves_layers_exact() {
        let layers = [layer(128, &[1.0, 2.0, 3.0], 2.0), layer(256, &[1.0; 5], 1.0)];
        let (bytes, _) = sums(&layers, &layers.each_ref().map(exact));
        assert_eq!(within_bytes(&layers, bytes), Ok(layers.iter().map(exact).collect()));
        assert_eq!(within_error(&layers, 0.0), Ok(layers.iter().map(exact).collect()));
        assert_eq!(within_bytes(&[], 0), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_met_is_said() {
        let layers = [layer(128, &[1.0, 2.0], 1.0), layer(128, &[1.0, 2.0], 1.0)];
        // One row each, in 2 bits: 32 bytes of codes, 4 of a grid, 12 of index and scale.
        let refused = within_bytes(&layers, 95).expect_err("too few");
        assert_eq!(refused, AllocationError::TooFewBytes { bytes: 95, least: 96 });
        assert_eq!(refused.to_string(), "95 bytes for layers that take 96 at least");
        let least = LayerBudget { rows: 1, packing: Packing::Bits2 };
        assert_eq!(within_bytes(&layers, 96), Ok(vec![least; 2]));
        assert!(within_error(&layers, -1.0).is_err() && within_error(&layers, f64::NAN).is_err());
        assert_eq!(within_error(&layers, f64::INFINITY), Ok(vec![least; 2]));
    }

    #[test]
    fn curves_that_begin_with_more_rows_keep_them() {
        let points = vec![Point { rows: 3, tail: 1.0 }, Point { rows: 9, tail: 0.0 }];
        let curve = Curve::new(points, 2.0).expect("valid");
        let layer = Layer { columns: 128, element_bytes: 4, noise: 0.01, curve };
        let budgets = within_bytes(core::slice::from_ref(&layer), 200).expect("fits");
        assert_eq!(budgets, [LayerBudget { rows: 4, packing: Packing::Bits2 }]);
        assert!(within_bytes(&[layer], 3 * 48 - 1).is_err());
    }
}
