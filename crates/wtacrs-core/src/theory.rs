//! What error to expect: closed forms for the designs' variances, and theorem 2.
//!
//! Variance here is E‖ĝ − g‖²_F of an estimate ĝ of g = Σ_i C_i, where C_i = `X[:,i] Y[i,:]` is pair i's contribution.
//! With p_i = w_i/Σw, tail T, m = k − |C| and p'_i = w_i/Σ_T w:
//!
//! | design | variance |
//! |---|---|
//! | uniform | n²/k · (1 − k/n) · (Σ‖C_i‖² − ‖g‖²/n)/(n − 1) |
//! | crs | (Σ‖C_i‖²/p_i − ‖g‖²)/k |
//! | wta-iid | (Σ_T ‖C_i‖²/p'_i − ‖Σ_T C_i‖²)/m |
//! | wta-stratified | Σ_j (Σ_i f_ij ‖Z_i‖² − ‖Σ_i f_ij Z_i‖²), Z_i = C_i/(m p'_i), f_ij the share of i in stratum j |
//! | Poisson | Σ_T (1/π_i − 1) ‖C_i‖² |
//!
//! Packed rows add Σ v_i ‖dZ_i‖²/π_i, with v_i the variance of row i as it is read back ([`packing_variance`]).
//!
//! Pivotal sampling has no closed form; it lies below wta-iid. Poisson sampling (each pair on its own with
//! probability π_i) is the yardstick that needs no sums of contributions, only norms.

use crate::element::Element;
use crate::product::{PackError, Rows, Saved, Update, multiply_views};
use crate::sampling::design::Strata;
use crate::sampling::{Budget, Weights};
use ndarray::{Array2, ArrayView2, Axis};
use wtacrs_exact::packing::{Bits, PackingBits};

/// The pairs' contributions C_i to the product, as far as variances need them.
pub trait Contributions {
    /// ‖C_i‖².
    fn squared_norm(&self, pair: usize) -> f64;

    /// ‖Σ c_i C_i‖² over (i, c_i).
    fn squared_norm_of_sum(&self, terms: &[(usize, f64)]) -> f64;
}

/// Contributions written out, one row for each pair: the flattened C_i, or the values of linear functionals of it.
impl Contributions for ArrayView2<'_, f64> {
    fn squared_norm(&self, pair: usize) -> f64 {
        let row = self.row(pair);
        row.dot(&row)
    }

    fn squared_norm_of_sum(&self, terms: &[(usize, f64)]) -> f64 {
        let mut sum = ndarray::Array1::zeros(self.ncols());
        for &(pair, factor) in terms {
            sum.scaled_add(factor, &self.row(pair));
        }
        sum.dot(&sum)
    }
}

/// C_i = `x[i,:]ᵀ y[i,:]`, never written out: x is pairs × in_features, y is pairs × out_features.
#[derive(Clone, Copy, Debug)]
pub struct OuterProducts<'a> {
    /// H, for a weight gradient.
    pub x: ArrayView2<'a, f64>,
    /// dZ, for a weight gradient.
    pub y: ArrayView2<'a, f64>,
}

impl Contributions for OuterProducts<'_> {
    fn squared_norm(&self, pair: usize) -> f64 {
        self.x.squared_norm(pair) * self.y.squared_norm(pair)
    }

    fn squared_norm_of_sum(&self, terms: &[(usize, f64)]) -> f64 {
        let pairs: Vec<usize> = terms.iter().map(|&(pair, _)| pair).collect();
        let x = self.x.select(Axis(0), &pairs);
        let mut y = self.y.select(Axis(0), &pairs);
        for (mut row, &(_, factor)) in y.rows_mut().into_iter().zip(terms) {
            row *= factor;
        }
        if terms.len() < x.ncols().min(y.ncols()) {
            // ‖XᵀY‖² = Σ (XXᵀ) ∘ (YYᵀ), the cheaper side for few pairs.
            return (&x.dot(&x.t()) * &y.dot(&y.t())).sum();
        }
        let mut sum = Array2::zeros((x.ncols(), y.ncols()));
        multiply_views(x.view(), y.view(), sum.view_mut(), Update::Overwrite);
        sum.iter().map(|v| v * v).sum()
    }
}

/// The variance of [`Uniform`](crate::sampling::design::Uniform).
pub fn uniform_variance(budget: Budget, contributions: &impl Contributions) -> f64 {
    let (n, k) = (budget.pairs() as f64, budget.get() as f64);
    if k == n {
        return 0.0;
    }
    let all: Vec<(usize, f64)> = (0..budget.pairs()).map(|i| (i, 1.0)).collect();
    let squares: f64 = all.iter().map(|&(i, _)| contributions.squared_norm(i)).sum();
    let spread = (squares - contributions.squared_norm_of_sum(&all) / n) / (n - 1.0);
    n * n / k * (1.0 - k / n) * spread
}

/// The variance of [`Crs`](crate::sampling::design::Crs); pairs of weight zero are left out, as it leaves them out.
pub fn crs_variance(weights: &Weights, budget: Budget, contributions: &impl Contributions) -> f64 {
    independent_variance(weights.fixed().iter().copied().enumerate(), budget.get(), contributions)
}

/// The variance of [`WtaIid`](crate::sampling::design::WtaIid).
pub fn wta_iid_variance(weights: &Weights, budget: Budget, contributions: &impl Contributions) -> f64 {
    let threshold = weights.threshold(budget);
    independent_variance(tail(weights, budget), threshold.tail_places, contributions)
}

/// The variance of eq. 5 with any number of winners below the budget: the `winners` heaviest, of equal ones the first.
/// [`WtaIid`](crate::sampling::design::WtaIid) takes the number that minimises (1 − P_C)/(k − |C|).
///
/// # Panics
///
/// If `winners` leaves no place to the tail.
pub fn wta_iid_variance_with_winners(
    weights: &Weights,
    budget: Budget,
    winners: usize,
    contributions: &impl Contributions,
) -> f64 {
    assert!(winners < budget.get(), "the tail needs a place");
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|&i| core::cmp::Reverse(weights.fixed()[i]));
    let tail = order[winners..].iter().map(|&i| (i, weights.fixed()[i]));
    independent_variance(tail, budget.get() - winners, contributions)
}

/// The variance of [`WtaStratified`](crate::sampling::design::WtaStratified).
pub fn wta_stratified_variance(weights: &Weights, budget: Budget, contributions: &impl Contributions) -> f64 {
    let threshold = weights.threshold(budget);
    let mut strata = Strata::new(threshold.tail_mass);
    let mut variance = 0.0;
    for (pair, weight) in tail(weights, budget) {
        strata.add(pair as u32, threshold.mass(weight), |_, members, masses| {
            let mut square_mean = 0.0;
            let mean: Vec<(usize, f64)> = members
                .iter()
                .zip(masses)
                .map(|(&member, &mass)| {
                    let member = member as usize;
                    let share = mass as f64 / threshold.tail_mass as f64;
                    let scale = threshold.scale(weights.fixed()[member]);
                    square_mean += share * scale * scale * contributions.squared_norm(member);
                    (member, share * scale)
                })
                .collect();
            variance += square_mean - contributions.squared_norm_of_sum(&mean);
        });
    }
    variance
}

/// The variance of Poisson sampling with the inclusion probabilities of the winner-take-all designs:
/// Σ (1/π_i − 1) ‖C_i‖². It needs no sum of contributions, so norms are enough: with `squared_norm` given by
/// ‖h_i‖² ‖dz_i‖² its root over ‖dW‖_F is the tail error by which sources of weights are compared.
pub fn poisson_variance(weights: &Weights, budget: Budget, squared_norm: impl Fn(usize) -> f64) -> f64 {
    let threshold = weights.threshold(budget);
    tail(weights, budget).map(|(pair, weight)| (threshold.scale(weight) - 1.0) * squared_norm(pair)).sum()
}

/// v_i = E‖ĥ_i − h_i‖² for every row h_i of H (tokens × in_features) that is packed and read back as ĥ_i, in the
/// elements' unit squared; an upper bound if zeros fill up the rows' last groups. It depends a little on the random signs,
/// which come from `random`.
///
/// # Errors
///
/// If a row has an element that is not finite.
pub fn packing_noise<T: Element>(h: ArrayView2<'_, T>, bits: Bits, random: PackingBits) -> Result<Vec<f64>, PackError> {
    let saved = Saved::pack(h, None, bits, random)?;
    let Rows::Packed(rows) = saved.rows() else { return Ok(Vec::new()) };
    Ok((0..h.nrows()).map(|i| rows.row_variance(i)).collect())
}

/// What packing adds to the variance of an estimate: Σ v_i ‖dZ_i‖²/π_i, over the pairs that can be kept, where `noise` gives
/// v_i ‖dZ_i‖² ([`packing_noise`] times the square of dZ's norm). It is exact for designs that keep pair i once, with
/// probability π_i: rows have dithers of their own, so their errors are independent of one another and of the draws. Draws
/// with replacement add up to Σ v_i ‖dZ_i‖² to it.
pub fn packing_variance(weights: &Weights, budget: Budget, noise: impl Fn(usize) -> f64) -> f64 {
    let threshold = weights.threshold(budget);
    let of_pair = |(pair, &weight): (usize, &u64)| match weight {
        0 => 0.0,
        weight if threshold.is_winner(weight) => noise(pair),
        weight => threshold.scale(weight) * noise(pair),
    };
    weights.fixed().iter().enumerate().map(of_pair).sum()
}

/// (Σ ‖C_i‖²/p_i − ‖Σ C_i‖²)/draws over pairs drawn independently in proportion to their weights.
fn independent_variance(
    pairs: impl Iterator<Item = (usize, u64)>,
    draws: usize,
    contributions: &impl Contributions,
) -> f64 {
    let pairs: Vec<(usize, u64)> = pairs.filter(|&(_, weight)| weight > 0).collect();
    if pairs.is_empty() {
        return 0.0;
    }
    let total = pairs.iter().map(|&(_, weight)| weight).sum::<u64>() as f64;
    let second_moment: f64 =
        pairs.iter().map(|&(pair, weight)| contributions.squared_norm(pair) * total / weight as f64).sum();
    let sum: Vec<(usize, f64)> = pairs.iter().map(|&(pair, _)| (pair, 1.0)).collect();
    (second_moment - contributions.squared_norm_of_sum(&sum)) / draws as f64
}

/// Tail pairs of positive weight, with their weights.
fn tail(weights: &Weights, budget: Budget) -> impl Iterator<Item = (usize, u64)> + '_ {
    let threshold = weights.threshold(budget);
    let in_tail = move |&(_, weight): &(usize, u64)| weight > 0 && !threshold.is_winner(weight);
    weights.fixed().iter().copied().enumerate().filter(in_tail)
}

/// How many distinct pairs [`Crs`](crate::sampling::design::Crs) keeps on average: Σ 1 − (1 − p_i)^k.
pub fn crs_expected_distinct(weights: &Weights, budget: Budget) -> f64 {
    weights.probabilities().iter().map(|&p| hit_probability(p, budget.get())).sum()
}

/// How many distinct pairs [`WtaIid`](crate::sampling::design::WtaIid) keeps on average: |C| + Σ_T 1 − (1 − p'_i)^m.
pub fn wta_iid_expected_distinct(weights: &Weights, budget: Budget) -> f64 {
    let threshold = weights.threshold(budget);
    let hit = |(_, weight)| hit_probability(weight as f64 / threshold.tail_mass as f64, threshold.tail_places);
    threshold.winners as f64 + tail(weights, budget).map(hit).sum::<f64>()
}

/// How many distinct pairs [`WtaStratified`](crate::sampling::design::WtaStratified) keeps on average: k less the probabilities
/// that a pair on a cut is picked from both sides.
pub fn wta_stratified_expected_distinct(weights: &Weights, budget: Budget) -> f64 {
    let threshold = weights.threshold(budget);
    let mut strata = Strata::new(threshold.tail_mass);
    let mut distinct = (threshold.winners + threshold.tail_places) as f64;
    let mut before: Option<(u32, f64)> = None;
    for (pair, weight) in tail(weights, budget) {
        strata.add(pair as u32, threshold.mass(weight), |_, members, masses| {
            let share = |at: usize| (members[at], masses[at] as f64 / threshold.tail_mass as f64);
            let (first, last) = (share(0), share(members.len() - 1));
            if let Some((_, shared)) = before.filter(|&(pair, _)| pair == first.0) {
                distinct -= shared * first.1;
            }
            before = Some(last);
        });
    }
    distinct
}

/// 1 − (1 − p)^draws, without cancellation for small p.
fn hit_probability(p: f64, draws: usize) -> f64 {
    -(draws as f64 * (-p).ln_1p()).exp_m1()
}

/// Theorem 2's condition for the c heaviest pairs as winners: P_C > c/k, under which eq. 5's variance is not above
/// plain column-row sampling's (for exact weights).
pub fn theorem_2_holds(weights: &Weights, budget: Budget, winners: usize) -> bool {
    let heaviest: u128 = descending(weights).iter().take(winners).map(|&w| u128::from(w)).sum();
    heaviest * budget.get() as u128 > winners as u128 * u128::from(weights.total())
}

/// The |C| < k that minimises (1 − P_C)/(k − |C|), by trying them all; the largest of several. The threshold finds the
/// same without a sort, but counts |C| = k where no more than k weights are positive.
pub fn best_winner_count(weights: &Weights, budget: Budget) -> usize {
    let sorted = descending(weights);
    let mut tail = u128::from(weights.total());
    let mut best = (tail, budget.get() as u128, 0);
    for winners in 1..budget.get() {
        tail -= u128::from(sorted[winners - 1]);
        let places = (budget.get() - winners) as u128;
        if tail * best.1 <= best.0 * places {
            best = (tail, places, winners);
        }
    }
    best.2
}

fn descending(weights: &Weights) -> Vec<u64> {
    let mut sorted = weights.fixed().to_vec();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted
}
