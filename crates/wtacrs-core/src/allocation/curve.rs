//! A layer's error by the number of rows that it keeps.

use crate::sampling::Weights;

/// The squared error that a layer's weight gradient is to expect for numbers of kept rows, as Poisson sampling would have it:
///
/// e²(k) = Σ u_i² (1/π_i − 1) for native rows, and Σ u_i² ((1 + q)/π_i − 1) for rows packed with relative noise q
///
/// with u_i = ‖h_i‖ ‖dz_i‖, and π_i = min(1, w_i/τ) of the weights w that rows are drawn by, which may be guesses of u. Both are
/// (1 + q) A(k) + q Σ u_i² of one function A, the tail, of which a curve has points. Between two of them it is the line, which
/// lies above A where that is convex, as it is for exact weights.
///
/// Pairs of weight zero are never drawn; they count as if each erred by all of its u_i² apart from the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    points: Vec<Point>,
    squares: f64,
}

/// What the tail is for one number of kept rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// How many rows are kept, k.
    pub rows: usize,
    /// A(k) = Σ u_i² (1/π_i − 1).
    pub tail: f64,
}

/// Why a curve is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CurveError {
    /// The numbers of rows do not ascend from one at least, or there are none.
    #[error("the curve's numbers of rows must ascend, and begin with one at least")]
    NotAscending,
    /// A square is negative or not finite.
    #[error("{what} is {value}: it must be finite and not negative")]
    Invalid {
        /// Which of the numbers it is.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// There are not as many squares as weights.
    #[error("{squares} squares for {weights} weights")]
    LengthMismatch {
        /// How many squares there are.
        squares: usize,
        /// How many weights.
        weights: usize,
    },
}

impl Curve {
    /// From points that ascend in their rows, and Σ u_i². The last point is that of all rows.
    ///
    /// # Errors
    ///
    /// Rows that do not ascend; numbers that are negative or not finite.
    pub fn new(points: Vec<Point>, squares: f64) -> Result<Self, CurveError> {
        let ascend = points.windows(2).all(|pair| pair[0].rows < pair[1].rows);
        if !ascend || points.first().is_none_or(|first| first.rows == 0) {
            return Err(CurveError::NotAscending);
        }
        points.iter().try_for_each(|point| valid("a point's tail", point.tail))?;
        valid("the sum of squares", squares)?;
        Ok(Self { points, squares })
    }

    /// The curve of weights for the numbers of rows that are asked for and for all rows. `squares` are u_i². One sort serves
    /// all points.
    ///
    /// # Errors
    ///
    /// As many squares as weights are needed, finite and not negative; `rows` must ascend, from 1 up to the number of weights.
    pub fn of(weights: &Weights, squares: &[f64], rows: &[usize]) -> Result<Self, CurveError> {
        let pairs = weights.len();
        if squares.len() != pairs {
            return Err(CurveError::LengthMismatch { squares: squares.len(), weights: pairs });
        }
        squares.iter().try_for_each(|&square| valid("a square", square))?;
        let mut tails = Tails::new(weights.fixed(), squares);
        let below = rows.iter().copied().filter(|&rows| rows < pairs);
        let mut points: Vec<Point> = below.map(|rows| Point { rows, tail: tails.of(rows) }).collect();
        points.push(Point { rows: pairs, tail: 0.0 });
        Self::new(points, squares.iter().sum())
    }

    /// The points, in ascending order of their rows.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Σ u_i².
    pub fn squares(&self) -> f64 {
        self.squares
    }

    /// How few rows the curve knows of.
    pub fn least_rows(&self) -> usize {
        self.points[0].rows
    }

    /// How many rows there are.
    pub fn pairs(&self) -> usize {
        self.points[self.points.len() - 1].rows
    }

    /// (1 + q) A(rows) + q Σ u_i².
    ///
    /// # Panics
    ///
    /// If the curve knows of no such number of rows.
    pub fn squared_error(&self, rows: usize, noise: f64) -> f64 {
        (1.0 + noise) * self.tail(rows) + noise * self.squares
    }

    fn tail(&self, rows: usize) -> f64 {
        let after = self.points.partition_point(|point| point.rows < rows);
        assert!(after < self.points.len() && rows >= self.least_rows(), "{rows} rows are not on the curve");
        let to = self.points[after];
        if to.rows == rows {
            return to.tail;
        }
        let from = self.points[after - 1];
        let part = (rows - from.rows) as f64 / (to.rows - from.rows) as f64;
        from.tail + (to.tail - from.tail) * part
    }
}

pub(super) fn valid(what: &'static str, value: f64) -> Result<(), CurveError> {
    if value >= 0.0 && value.is_finite() { Ok(()) } else { Err(CurveError::Invalid { what, value }) }
}

/// The tail for ascending numbers of rows, from sums over the lightest pairs.
struct Tails {
    /// Positive weights, the heaviest first.
    weights: Vec<u64>,
    /// Behind the c heaviest: Σ w, Σ u²/w and Σ u², each with one entry more than there are weights.
    sums: Vec<(u64, f64, f64)>,
    /// Σ u² of the pairs that are never drawn.
    left_out: f64,
    winners: usize,
}

impl Tails {
    fn new(weights: &[u64], squares: &[f64]) -> Self {
        let mut order: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0).collect();
        order.sort_by_key(|&i| core::cmp::Reverse(weights[i]));
        let mut sums = vec![(0, 0.0, 0.0); order.len() + 1];
        for (at, &i) in order.iter().enumerate().rev() {
            let (mass, ratios, behind) = sums[at + 1];
            sums[at] = (mass + weights[i], ratios + squares[i] / weights[i] as f64, behind + squares[i]);
        }
        let never = squares.iter().zip(weights).filter(|&(_, &weight)| weight == 0);
        let left_out = never.map(|(square, _)| square).sum();
        Self { weights: order.into_iter().map(|i| weights[i]).collect(), sums, left_out, winners: 0 }
    }

    /// The numbers of rows must not fall from call to call: winners stay winners then.
    fn of(&mut self, rows: usize) -> f64 {
        let saturates = |winners: usize| {
            let places = rows.saturating_sub(winners) as u128;
            winners < self.weights.len()
                && places * u128::from(self.weights[winners]) >= u128::from(self.sums[winners].0)
        };
        let mut winners = self.winners;
        while saturates(winners) {
            winners += 1;
        }
        self.winners = winners;
        let (mass, ratios, squares) = self.sums[winners];
        if mass == 0 {
            return self.left_out;
        }
        let threshold = mass as f64 / (rows - winners) as f64;
        // A difference of sums may come out a rounding below zero.
        (threshold * ratios - squares).max(0.0) + self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Keep;
    use crate::theory;
    use proptest::prelude::*;

    fn curve(weights: &[f64], squares: &[f64]) -> (Weights, Curve) {
        let weights = Weights::new(weights).expect("valid");
        let all: Vec<usize> = (1..=weights.len()).collect();
        let curve = Curve::of(&weights, squares, &all).expect("valid");
        (weights, curve)
    }

    fn are_close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 1e-9 * (1.0 + expected)
    }

    proptest! {
        #[test]
        fn every_point_is_the_closed_form(
            pairs in proptest::collection::vec((prop_oneof![Just(0.0), Just(2.0), 0.0..5.0], 0.0..4.0), 1..40),
            noise in 0.0..0.3,
        ) {
            let (given, squares): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
            let (weights, curve) = curve(&given, &squares);
            for rows in 1..given.len() {
                let budget = weights.budget(Keep::Rows(rows)).expect("fits");
                let drawn = |i: usize| if weights.fixed()[i] > 0 { squares[i] } else { 0.0 };
                let never: f64 = squares.iter().sum::<f64>() - (0..given.len()).map(drawn).sum::<f64>();
                let native = theory::poisson_variance(&weights, budget, |i| squares[i]);
                prop_assert!(are_close(curve.squared_error(rows, 0.0), native + never));
                let packed = native + theory::packing_variance(&weights, budget, |i| noise * squares[i]);
                let bound = packed + (1.0 + 2.0 * noise) * never;
                prop_assert!(are_close(curve.squared_error(rows, noise), bound));
            }
            let all: f64 = squares.iter().sum();
            prop_assert_eq!(curve.squared_error(given.len(), 0.0), 0.0);
            prop_assert_eq!(curve.squared_error(given.len(), noise), noise * all);
        }

        #[test]
        fn the_tail_is_convex_for_exact_weights(given in proptest::collection::vec(0.01..5.0, 3..60)) {
            let squares: Vec<f64> = given.iter().map(|w| w * w).collect();
            let (_, curve) = curve(&given, &squares);
            for three in curve.points().windows(3) {
                let middle = (three[0].tail + three[2].tail) / 2.0;
                prop_assert!(three[1].tail <= middle * (1.0 + 1e-7) + 1e-9 * curve.squares());
            }
        }
    }

    #[test]
    fn lines_lie_between_points() {
        let point = |rows, tail| Point { rows, tail };
        let curve = Curve::new(vec![point(2, 8.0), point(6, 2.0), point(10, 0.0)], 3.0).expect("valid");
        assert_eq!((curve.least_rows(), curve.pairs(), curve.squares()), (2, 10, 3.0));
        assert_eq!([2, 3, 6, 8].map(|rows| curve.squared_error(rows, 0.0)), [8.0, 6.5, 2.0, 1.0]);
        assert_eq!(curve.squared_error(6, 0.5), 1.5 * 2.0 + 0.5 * 3.0);
    }

    #[test]
    fn what_is_no_curve() {
        let point = |rows, tail| Point { rows, tail };
        for points in
            [vec![], vec![point(0, 1.0)], vec![point(2, 1.0), point(2, 0.0)], vec![point(3, 1.0), point(2, 0.0)]]
        {
            assert_eq!(Curve::new(points, 1.0), Err(CurveError::NotAscending));
        }
        assert!(matches!(
            Curve::new(vec![point(1, -1.0)], 1.0),
            Err(CurveError::Invalid { what: "a point's tail", .. })
        ));
        assert!(matches!(Curve::new(vec![point(1, 0.0)], f64::NAN), Err(CurveError::Invalid { .. })));
        let weights = Weights::new(&[1.0, 2.0]).expect("valid");
        assert_eq!(Curve::of(&weights, &[1.0], &[1]), Err(CurveError::LengthMismatch { squares: 1, weights: 2 }));
        assert!(matches!(Curve::of(&weights, &[1.0, -1.0], &[1]), Err(CurveError::Invalid { what: "a square", .. })));
        let none = Weights::new::<f64>(&[]).expect("valid");
        assert_eq!(Curve::of(&none, &[], &[]), Err(CurveError::NotAscending));
    }
}
