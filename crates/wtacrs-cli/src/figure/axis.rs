//! Axes: their range, scale and ticks.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use std::ops::Range;

/// Free space at both ends, as a factor.
const MARGIN: f64 = 1.25;
/// The smallest span of an axis, as a factor: enough for a round number to be on it.
const LEAST_SPAN: f64 = 4.0;
/// On axes of at least this span only powers of ten are labelled.
const WIDE_SPAN: f64 = 2000.0;

/// About how many labels a linear axis has.
const LINEAR_TICKS: f64 = 6.0;
/// Free space at both ends of a linear axis, as a share of it.
const LINEAR_MARGIN: f64 = 0.03;

/// A position this little short of a whole pixel counts as that pixel.
const HAIR: f64 = 1e-3;

/// An axis with labelled ticks, and grid lines without a label.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    scale: Scale,
    pub(super) range: Range<f64>,
    ticks: Vec<f64>,
    grid: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Linear,
    Logarithmic,
}

impl Axis {
    /// A logarithmic axis for these positive values, with round numbers as ticks.
    pub(crate) fn with_round_ticks(values: &[f64]) -> Self {
        let range = span(values);
        let digits: &[f64] = if range.end / range.start < WIDE_SPAN { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let every_digit = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        Self {
            scale: Scale::Logarithmic,
            ticks: round_numbers(&range, digits),
            grid: round_numbers(&range, &every_digit),
            range,
        }
    }

    /// A logarithmic axis for these positive values and ticks; ticks without room for a label are left out. `label_share` is
    /// the width of a label as a share of the axis.
    pub(crate) fn with_ticks_at(ticks: &[f64], values: &[f64], label_share: f64) -> Self {
        let range = span(&[ticks, values].concat());
        let mut sorted = ticks.to_vec();
        sorted.sort_by(f64::total_cmp);
        let apart = (range.end / range.start).powf(label_share);
        let mut ticks: Vec<f64> = Vec::new();
        for value in sorted {
            if ticks.last().is_none_or(|last| value / last >= apart) {
                ticks.push(value);
            }
        }
        Self { scale: Scale::Logarithmic, grid: ticks.clone(), ticks, range }
    }

    /// A linear axis from 0 to `things` − 1, with round numbers as ticks.
    pub(crate) fn counting(things: usize) -> Self {
        let last = things.saturating_sub(1).max(1) as f64;
        let rough = last / LINEAR_TICKS;
        let power = 10_f64.powf(rough.log10().floor());
        let apart = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&apart| apart >= rough);
        let apart = apart.unwrap_or(rough).max(1.0);
        let ticks: Vec<f64> = (0..=(last / apart) as u32).map(|tick| f64::from(tick) * apart).collect();
        let margin = last * LINEAR_MARGIN;
        Self { scale: Scale::Linear, range: -margin..last + margin, grid: ticks.clone(), ticks }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let Range { start, end } = self.range;
        let share = match self.scale {
            Scale::Linear => (value - start) / (end - start),
            Scale::Logarithmic => (value / start).ln() / (end / start).ln(),
        };
        // Cut off towards `from`, as the axes that come with plotters do.
        let pixels = f64::from(to - from) * share;
        from + (pixels + HAIR.copysign(pixels)).trunc() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { self.grid.clone() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
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
        let axis = Axis::with_round_ticks(&[0.11, 0.9]);
        assert_eq!(axis.ticks, [0.1, 0.2, 0.5, 1.0]);
        assert!(axis.range.start < 0.1 && axis.range.end > 1.1);
        let narrow = Axis::with_round_ticks(&[0.31, 0.32]);
        assert_eq!(narrow.ticks, [0.2, 0.5]);
        let wide = Axis::with_round_ticks(&[0.0006, 0.9]);
        assert_eq!(wide.ticks, [0.001, 0.01, 0.1, 1.0]);
        assert_eq!(Axis::with_round_ticks(&[]).range, 0.1..1.0);
    }

    #[test]
    fn counted_things() {
        assert_eq!(Axis::counting(48).ticks, [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(Axis::counting(24).ticks, [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(Axis::counting(3).ticks, [0.0, 1.0, 2.0]);
        assert_eq!(Axis::counting(1).ticks, [0.0, 1.0]);
        assert!(Axis::counting(usize::MAX).ticks.len() < 10);
    }

    #[test]
    fn both_scales_end_where_their_range_does() {
        for axis in [Axis::counting(10), Axis::with_round_ticks(&[0.1, 3.0])] {
            let Range { start, end } = axis.range;
            assert_eq!((axis.map(&start, (100, 20)), axis.map(&end, (100, 20))), (100, 20));
        }
    }

    #[test]
    fn ticks_keep_their_distance() {
        let axis = Axis::with_ticks_at(&[1.0, 0.1, 0.11, 0.3], &[0.05, 0.2], 0.1);
        assert_eq!(axis.ticks, [0.1, 0.3, 1.0]);
        assert!(axis.range.start < 0.05 && axis.range.end > 1.0);
    }
}
