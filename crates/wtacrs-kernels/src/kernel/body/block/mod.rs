//! The pieces that kernels are built from. All threads of a block, or of a warp, call a piece together. Each piece states
//! its cost and its shared memory, and has tests of its own.

pub mod functions;
pub mod group;
pub mod output;
pub mod random;
pub mod reduce;
pub mod row_team;
pub mod scan;
pub mod tile;
pub mod values;
pub mod vector;
pub mod words;

/// `repeat!(I in 0 1 2 => { … })`: the block once for each number, as the constant I: u32.
///
/// LLVM gives up unrolling large bodies. An array that a loop's variable indexes then moves to local memory, and a
/// product's sums would leave the registers. So such loops are written out before the compiler sees them.
macro_rules! repeat {
    ($name:ident in $($value:literal)* => $body:block) => {
        $({
            #[allow(dead_code)]
            const $name: u32 = $value;
            $body
        })*
    };
}

pub(super) use repeat;
