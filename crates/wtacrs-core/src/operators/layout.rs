//! The layout of what an operator saves.

use super::operation::{Operation, Operator};
use crate::product::Packing;
use wtacrs_exact::packing::Groups;

/// The words of 32 bits that an operator saves, in sections: codes of one or two arrays, then the words of their grids, then numbers of
/// each row. A section has the same number of words for every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    rows: usize,
    /// Words of a row's codes, for each array; ReLU has one bit an element.
    pub codes: [usize; 2],
    /// Words of a row's grids, for each array; 0 for slopes, whose grid is fixed.
    pub grids: [usize; 2],
    /// f32 numbers of a row: a norm has 1/σ, and a native layer norm the mean before it.
    pub statistics: usize,
}

impl Layout {
    const fn new(operator: &Operator, [rows, columns]: [usize; 2]) -> Self {
        let (operation, packing) = (operator.operation(), operator.packing());
        let groups = Groups::new(columns);
        let statistics = match (operation, packing) {
            (Operation::LayerNorm, Packing::Native) => 2,
            (Operation::LayerNorm | Operation::RmsNorm, _) => 1,
            _ => 0,
        };
        let none = Self { rows, codes: [0; 2], grids: [0; 2], statistics };
        if operator.saves_signs() {
            return Self { codes: [columns.div_ceil(32), 0], ..none };
        }
        let Some(bits) = packing.bits() else { return none };
        let (codes, grids) = (groups.words(bits), groups.count());
        if operator.is_gated() {
            Self { codes: [codes; 2], grids: [grids; 2], ..none }
        } else if operation.is_activation() {
            Self { codes: [codes, 0], ..none }
        } else {
            Self { codes: [codes, 0], grids: [grids, 0], ..none }
        }
    }

    /// Words of all sections.
    pub const fn words(&self) -> usize {
        let [first, second] = self.codes;
        let [first_grids, second_grids] = self.grids;
        self.rows * (first + second + first_grids + second_grids + self.statistics)
    }

    /// Words of each section: codes, codes of the second array, grids, grids of the second array, numbers of the rows.
    pub const fn sections(&self) -> [usize; 5] {
        [
            self.rows * self.codes[0],
            self.rows * self.codes[1],
            self.rows * self.grids[0],
            self.rows * self.grids[1],
            self.rows * self.statistics,
        ]
    }
}

impl Operator {
    /// The layout of what is saved of an array of rows × columns.
    #[inline]
    pub const fn layout(&self, shape: [usize; 2]) -> Layout {
        Layout::new(self, shape)
    }

    /// How many words are saved of an array of rows × columns.
    #[inline]
    pub const fn saved_words(&self, shape: [usize; 2]) -> usize {
        self.layout(shape).words()
    }
}
