//! The output, cut into tiles.

use super::factor::Factor;
use super::options::Update;
use super::task::{BLOCK, Task};
use super::turn::{turn_columns_back, turn_rows_back};
use crate::element::Accumulator;
use crate::parallel;
use core::ops::Range;
use ndarray::{Array2, ArrayViewMut2, Axis, s};
use wtacrs_exact::packing::GROUP;

/// The longest edge of a tile: its panels of a block then fit the second cache.
const LONGEST: usize = 768;
/// Tiles' edges are multiples of this, where the output's are not shorter: of the width of panels.
const UNIT: usize = 48;
/// Products that take as long as packing one number.
const PACKING: usize = 32;
/// Products that are worth a task.
const WORTH: usize = 1 << 20;

/// Numbers of the accumulator's type for which a product over so many kept pairs takes memory at most, with an output of rows ×
/// columns, on so many threads: packed panels and rows, and tiles of a rotated product.
pub fn product_memory([rows, columns]: [usize; 2], pairs: usize, threads: usize) -> usize {
    let edge = |length: usize| length.min(LONGEST).next_multiple_of(GROUP);
    let (height, width) = (edge(rows), edge(columns));
    let panels = (height + width + 2 * UNIT) * BLOCK.min(pairs);
    let tiles = rows.div_ceil(LONGEST) * columns.div_ceil(LONGEST);
    let at_once = threads.min(tiles.max(2 * at_work([rows, columns], pairs, threads)));
    (height * width + panels + 3 * height.max(width)) * at_once
}

/// How many of so many threads have enough to do.
fn at_work([rows, columns]: [usize; 2], pairs: usize, threads: usize) -> usize {
    let worth = rows.saturating_mul(columns) / WORTH.div_ceil(pairs.max(1));
    threads.min(worth).max(1)
}

/// A part of the output, with the columns of each factor that it is made from.
pub(super) struct Tile<'a, A> {
    rows: Range<usize>,
    columns: Range<usize>,
    /// Less than rows × columns where a factor's rows were padded.
    output: ArrayViewMut2<'a, A>,
}

/// Cuts the output: into tiles that all threads end together, and that pack little twice. No sum depends on it.
pub(super) fn tiles<'a, A: Accumulator>(
    left: &dyn Factor<A>,
    right: &dyn Factor<A>,
    output: ArrayViewMut2<'a, A>,
) -> Vec<Tile<'a, A>> {
    let shape = [left, right].map(|factor| (factor.columns(), if factor.rotation().is_some() { GROUP } else { UNIT }));
    let (height, width) = edges(shape, left.rows(), parallel::threads());
    let mut tiles = Vec::new();
    let mut below = output;
    for first_row in (0..left.columns()).step_by(height) {
        let height_here = height.min(below.nrows());
        let (band, rest) = below.split_at(Axis(0), height_here);
        let rows = first_row..left.columns().min(first_row + height);
        let mut beside = band;
        for first in (0..right.columns()).step_by(width) {
            let width_here = width.min(beside.ncols());
            let (output, rest) = beside.split_at(Axis(1), width_here);
            tiles.push(Tile { rows: rows.clone(), columns: first..right.columns().min(first + width), output });
            beside = rest;
        }
        below = rest;
    }
    tiles
}

/// Height and width of a tile, from the length and the unit of each edge of the output.
fn edges(shape: [(usize, usize); 2], pairs: usize, threads: usize) -> (usize, usize) {
    let [(rows, _), (columns, _)] = shape;
    let threads = at_work([rows, columns], pairs, threads);
    let edge = |(length, unit): (usize, usize), parts: usize| length.div_ceil(unit).div_ceil(parts) * unit;
    let least = shape.map(|(length, _)| length.div_ceil(LONGEST));
    let candidates = (least[0]..=least[0] + threads)
        .flat_map(|across| [threads, 2 * threads].map(|tasks| (across, tasks.div_ceil(across).max(least[1]))));
    let time = |&(across, along): &(usize, usize)| {
        let (height, width) = (edge(shape[0], across), edge(shape[1], along));
        let tasks = rows.div_ceil(height) * columns.div_ceil(width);
        tasks.div_ceil(threads) * (height * width + PACKING * (height + width))
    };
    let (across, along) = candidates.min_by_key(time).unwrap_or((least[0], least[1]));
    (edge(shape[0], across), edge(shape[1], along))
}

impl<A: Accumulator> Tile<'_, A> {
    /// Makes the tile's sums, and turns a rotation back.
    pub(super) fn write(
        self,
        left: &dyn Factor<A>,
        right: &dyn Factor<A>,
        update: Update,
        run: &(dyn Fn(Task<'_, '_, A>) + Sync),
    ) {
        let Self { rows, columns, mut output } = self;
        let shape = (rows.len(), columns.len());
        let is_rotated = left.rotation().is_some() || right.rotation().is_some();
        let overwrite = update == Update::Overwrite;
        let make = |tile: &mut [&mut [A]], overwrite| {
            run(Task { left, right, rows, columns, tile, overwrite });
            if let Some(signs) = left.rotation() {
                turn_columns_back(tile, &signs);
            }
            if let Some(signs) = right.rotation() {
                turn_rows_back(tile, &signs);
            }
        };
        let lies_in_rows = shape.1 == 1 || output.strides()[1] == 1;
        if output.dim() == shape && lies_in_rows && (overwrite || !is_rotated) {
            return make(&mut slices(&mut output), overwrite);
        }
        // A rotated product is whole before it is added to anything; others add each block, here as in the output.
        let adds_blocks = !overwrite && !is_rotated;
        let mut own =
            if adds_blocks { output.as_standard_layout().into_owned() } else { Array2::from_elem(shape, A::ZERO) };
        make(&mut slices(&mut own.view_mut()), !adds_blocks);
        let found = own.slice(s![..output.nrows(), ..output.ncols()]);
        if overwrite || adds_blocks {
            output.assign(&found);
        } else {
            output += &found;
        }
    }
}

/// The rows of a matrix whose elements of a row lie side by side.
fn slices<'a, A>(matrix: &'a mut ArrayViewMut2<'_, A>) -> Vec<&'a mut [A]> {
    matrix.rows_mut().into_iter().map(|row| row.into_slice().expect("side by side")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_are_shared_out_evenly() {
        let edges = |rows, columns, threads| edges([(rows, UNIT), (columns, UNIT)], 1000, threads);
        assert_eq!(edges(1536, 384, 2), (768, 384));
        assert_eq!(edges(384, 1536, 2), (384, 768));
        assert_eq!(edges(768, 768, 2), (768, 384));
        assert_eq!(edges(768, 768, 4), (384, 384));
        assert_eq!(edges(4096, 4096, 1), (720, 720));
        // Too little for two threads.
        assert_eq!(edges(30, 40, 2), (48, 48));
        // Whole groups of a rotation.
        let rotated = super::edges([(384, GROUP), (1536, UNIT)], 1000, 2);
        assert_eq!(rotated, (384, 768));
    }
}
