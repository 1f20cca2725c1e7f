//! The rows that one task of a pass works on: their operands and their saved parts.

use super::layout::Layout;
use super::operands::InOut;
use super::operation::Operator;
use wtacrs_exact::random::Randomness;

/// Some rows of a forward pass.
pub(super) struct ForwardTask<'a, T> {
    pub(super) operator: &'a Operator,
    pub(super) columns: usize,
    /// The number of its first row.
    pub(super) first: usize,
    pub(super) x: InOut<'a, T>,
    pub(super) gate: Option<&'a [T]>,
    pub(super) weight: Option<&'a [f32]>,
    pub(super) bias: Option<&'a [f32]>,
    pub(super) randomness: Randomness,
    pub(super) saved: Sections<'a>,
}

/// Some rows of a backward pass.
pub(super) struct BackwardTask<'a, T> {
    pub(super) operator: &'a Operator,
    pub(super) columns: usize,
    /// The number of its first row.
    pub(super) first: usize,
    pub(super) dy: InOut<'a, T>,
    pub(super) dgate: Option<&'a mut [T]>,
    pub(super) x: Option<&'a [T]>,
    pub(super) gate: Option<&'a [T]>,
    pub(super) y: Option<&'a [T]>,
    pub(super) weight: Option<&'a [f32]>,
    /// Whether the gradients of weight and bias are asked for.
    pub(super) wants: [bool; 2],
    pub(super) randomness: Randomness,
    pub(super) saved: Saved<'a>,
}

/// Where a forward pass writes what it saves of some rows.
pub(super) struct Sections<'a> {
    layout: Layout,
    pub(super) codes: [&'a mut [u32]; 2],
    pub(super) grids: [&'a mut [u32]; 2],
    pub(super) statistics: &'a mut [u32],
}

impl<'a> Sections<'a> {
    pub(super) fn new(layout: Layout, saved: &'a mut [u32]) -> Self {
        let [codes, second_codes, grids, second_grids, _] = layout.sections();
        let (codes, rest) = saved.split_at_mut(codes);
        let (second_codes, rest) = rest.split_at_mut(second_codes);
        let (grids, rest) = rest.split_at_mut(grids);
        let (second_grids, statistics) = rest.split_at_mut(second_grids);
        Self { layout, codes: [codes, second_codes], grids: [grids, second_grids], statistics }
    }

    /// Splits off the first `rows` rows.
    pub(super) fn split(self, rows: usize) -> (Self, Self) {
        let layout = self.layout;
        let [codes, second_codes] = self.codes;
        let [grids, second_grids] = self.grids;
        let (codes, codes_rest) = codes.split_at_mut(rows * layout.codes[0]);
        let (second_codes, second_codes_rest) = second_codes.split_at_mut(rows * layout.codes[1]);
        let (grids, grids_rest) = grids.split_at_mut(rows * layout.grids[0]);
        let (second_grids, second_grids_rest) = second_grids.split_at_mut(rows * layout.grids[1]);
        let (statistics, statistics_rest) = self.statistics.split_at_mut(rows * layout.statistics);
        let first = Self { layout, codes: [codes, second_codes], grids: [grids, second_grids], statistics };
        let codes = [codes_rest, second_codes_rest];
        let grids = [grids_rest, second_grids_rest];
        (first, Self { layout, codes, grids, statistics: statistics_rest })
    }

    /// Codes and grids of array `field` for row `row` of these.
    pub(super) fn row(&mut self, field: usize, row: usize) -> (&mut [u32], &mut [u32]) {
        let (codes, grids) = (self.layout.codes[field], self.layout.grids[field]);
        (&mut self.codes[field][row * codes..][..codes], &mut self.grids[field][row * grids..][..grids])
    }

    /// The numbers of row `row` of these.
    pub(super) fn statistics(&mut self, row: usize) -> &mut [u32] {
        let count = self.layout.statistics;
        &mut self.statistics[row * count..][..count]
    }
}

pub(super) fn split_in_out<T>(data: InOut<'_, T>, length: usize) -> (InOut<'_, T>, InOut<'_, T>) {
    match data {
        InOut::Apart { from, to } => {
            let (from, from_rest) = from.split_at(length);
            let (to, to_rest) = to.split_at_mut(length);
            (InOut::Apart { from, to }, InOut::Apart { from: from_rest, to: to_rest })
        }
        InOut::InPlace(data) => {
            let (one, rest) = data.split_at_mut(length);
            (InOut::InPlace(one), InOut::InPlace(rest))
        }
        InOut::Read(data) => {
            let (one, rest) = data.split_at(length);
            (InOut::Read(one), InOut::Read(rest))
        }
    }
}

pub(super) fn split_option<T>(data: Option<&[T]>, length: usize) -> (Option<&[T]>, Option<&[T]>) {
    data.map_or((None, None), |data| {
        let (one, rest) = data.split_at(length);
        (Some(one), Some(rest))
    })
}

/// What a forward pass has saved, from some row on.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    layout: Layout,
    codes: [&'a [u32]; 2],
    grids: [&'a [u32]; 2],
    statistics: &'a [u32],
}

impl<'a> Saved<'a> {
    /// Of all that is saved, the rows from number `first` on.
    pub(super) fn new(layout: Layout, saved: &'a [u32], first: usize) -> Self {
        let [codes, second_codes, grids, second_grids, _] = layout.sections();
        let (codes, rest) = saved.split_at(codes);
        let (second_codes, rest) = rest.split_at(second_codes);
        let (grids, rest) = rest.split_at(grids);
        let (second_grids, statistics) = rest.split_at(second_grids);
        Self {
            layout,
            codes: [&codes[first * layout.codes[0]..], &second_codes[first * layout.codes[1]..]],
            grids: [&grids[first * layout.grids[0]..], &second_grids[first * layout.grids[1]..]],
            statistics: &statistics[first * layout.statistics..],
        }
    }

    /// Codes and grids of array `field` for row `row` of these.
    pub(super) fn row(&self, field: usize, row: usize) -> (&'a [u32], &'a [u32]) {
        let (codes, grids) = (self.layout.codes[field], self.layout.grids[field]);
        (&self.codes[field][row * codes..][..codes], &self.grids[field][row * grids..][..grids])
    }

    /// The numbers of row `row` of these.
    pub(super) fn statistics(&self, row: usize) -> &'a [u32] {
        let count = self.layout.statistics;
        &self.statistics[row * count..][..count]
    }
}
