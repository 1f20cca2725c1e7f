//! What a norm predictor must settle alike on CPUs and GPUs: which rows it learns from and what they count, how their
//! targets are classed, how the regression is solved, and where a step's sums and a predictor's state lie.

pub mod blend;
pub mod grid;
mod layout;
mod rows;
pub mod solver;

pub use self::layout::{state, sums};
pub use self::rows::{
    LARGEST_SCALE, LARGEST_SUM, LARGEST_VALID_SCALE, Target, are_sums_of_rows, chosen_row, squared_weight,
};
