//! Logarithmic axes: what they span, and which values are marked on them.

use plotters::coord::combinators::{BindKeyPoints, WithKeyPoints};
use plotters::prelude::{IntoLogRange, LogCoord};
use std::ops::Range;

/// Free space at both ends, as a factor.
const MARGIN: f64 = 1.25;
/// The smallest span of an axis, as a factor: enough for a round number to be on it.
const LEAST_SPAN: f64 = 4.0;
/// From this span on only powers of ten are labelled.
const WIDE_SPAN: f64 = 2000.0;

/// A logarithmic axis with labelled ticks, and grid lines without a label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogAxis {
    pub(super) range: Range<f64>,
    pub(super) ticks: Vec<f64>,
    pub(super) grid: Vec<f64>,
}

impl LogAxis {
    /// An axis for these positive values, with round numbers as ticks.
    pub(super) fn with_round_ticks(values: &[f64]) -> Self {
        let range = span(values);
        let digits: &[f64] = if range.end / range.start < WIDE_SPAN { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every_digit = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        Self { ticks: round_numbers(&range, digits), grid: round_numbers(&range, &every_digit), range }
    }

    /// An axis for these positive values, with the values themselves as ticks, as far as there is room:
    /// `label_share` is the width of a label as a share of the axis.
    pub(super) fn with_ticks_at(values: &[f64], label_share: f64) -> Self {
        let range = span(values);
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let apart = (range.end / range.start).powf(label_share);
        let mut ticks: Vec<f64> = Vec::new();
        for value in sorted {
            if ticks.last().is_none_or(|last| value / last >= apart) {
                ticks.push(value);
            }
        }
        Self { grid: ticks.clone(), ticks, range }
    }

    pub(super) fn coordinates(&self) -> WithKeyPoints<LogCoord<f64>> {
        let range = self.range.clone().log_scale();
        range.with_key_points(self.ticks.clone()).with_light_points(self.grid.iter().copied())
    }
}

fn span(values: &[f64]) -> Range<f64> {
    let (least, most) = values.iter().fold((f64::INFINITY, 0.0_f64), |(least, most), v| (v.min(least), v.max(most)));
    if most == 0.0 {
        return 0.1..1.0;
    }
    let stretch = (LEAST_SPAN / (most / least)).max(1.0).sqrt().max(MARGIN);
    least / stretch..most * stretch
}

/// digit · 10ⁱ for all i, within the range.
fn round_numbers(range: &Range<f64>, digits: &[f64]) -> Vec<f64> {
    let (first, last) = (range.start.log10().floor() as i32, range.end.log10().floor() as i32);
    let all = (first..=last).flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
    all.filter(|number| range.contains(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_ticks() {
        let axis = LogAxis::with_round_ticks(&[0.11, 0.9]);
        assert_eq!(axis.ticks, [0.1, 0.2, 0.5, 1.0]);
        assert!(axis.range.start < 0.1 && axis.range.end > 1.1);
        let narrow = LogAxis::with_round_ticks(&[0.31, 0.32]);
        assert_eq!(narrow.ticks, [0.2, 0.5]);
        let wide = LogAxis::with_round_ticks(&[0.0006, 0.9]);
        assert_eq!(wide.ticks, [0.001, 0.01, 0.1, 1.0]);
        assert_eq!(LogAxis::with_round_ticks(&[]).range, 0.1..1.0);
    }

    #[test]
    fn ticks_keep_their_distance() {
        let axis = LogAxis::with_ticks_at(&[1.0, 0.1, 0.11, 0.3], 0.1);
        assert_eq!(axis.ticks, [0.1, 0.3, 1.0]);
    }
}
