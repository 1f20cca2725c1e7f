//! Why there is no plan for some settings, and why a plan is not executed.

use crate::kernel::matrix::DataType;
use wtacrs_core::sampling::BudgetError;

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Nothing to multiply.
    #[error("{what} is 0: there is nothing to estimate")]
    Zero {
        /// Which size.
        what: &'static str,
    },
    /// More than a kernel can count.
    #[error("{what} is {found}: at most {most} are possible")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it may be.
        most: usize,
    },
    /// A size in bytes or elements that 64 bits do not hold.
    #[error("{what} would be larger than any memory")]
    Overflow {
        /// What would be.
        what: &'static str,
    },
    /// The budget does not fit the tokens.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// Rows, or matrices of a batch, that would overlap.
    #[error("{what} are {found} elements apart, and have {needed}")]
    Overlap {
        /// Which rows or matrices.
        what: &'static str,
        /// How far apart they are.
        found: usize,
        /// How long they are, with what lies between their elements.
        needed: usize,
    },
    /// No kernel for these types together.
    #[error("no kernel multiplies {input} with {gradient} into {product}: {allowed}")]
    DataTypes {
        /// Of what is saved.
        input: DataType,
        /// Of the output's gradient.
        gradient: DataType,
        /// Of their product.
        product: DataType,
        /// What would be possible.
        allowed: &'static str,
    },
    /// What no kernel does.
    #[error("there is no plan for {what}")]
    Unsupported {
        /// What is asked for.
        what: &'static str,
    },
    /// A number out of its range.
    #[error("{what} is {found}: it must be {allowed}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What it is.
        found: f64,
        /// What it may be.
        allowed: &'static str,
    },
}

/// Why a plan is not executed. Nothing was launched, unless it is a launch that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E> {
    /// A pointer that is needed.
    #[error("the pointer to {what} is null")]
    Null {
        /// To what.
        what: &'static str,
    },
    /// A pointer that kernels cannot use.
    #[error("the pointer to {what}, {address:#x}, is not aligned to {alignment} bytes")]
    Misaligned {
        /// To what.
        what: &'static str,
        /// Where it points.
        address: usize,
        /// What it must be a multiple of.
        alignment: usize,
    },
    /// Too little memory.
    #[error("{what} has {found} bytes, and {needed} are needed")]
    TooSmall {
        /// Which memory.
        what: &'static str,
        /// What the plan asks for.
        needed: u64,
        /// What there is.
        found: u64,
    },
    /// A result that the plan was not made for.
    #[error("{what}: the plan was made without it")]
    Unplanned {
        /// Which result.
        what: &'static str,
    },
    /// More than a kernel can count.
    #[error("{what} is {found}: at most {most} are possible")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it may be.
        most: usize,
    },
    /// The launcher failed.
    #[error("{0}")]
    Launch(E),
}
