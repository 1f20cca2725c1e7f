//! Why settings have no plan, and why a plan refuses to run.

use crate::kernel::matrix::DataType;
use crate::launch::dense::DenseError;
use wtacrs_core::operators::OperatorError;
use wtacrs_core::sampling::BudgetError;

/// Why settings have no plan.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A size of zero: there is nothing to multiply.
    #[error("{what} is 0: there is nothing to estimate")]
    Zero {
        /// The size.
        what: &'static str,
    },
    /// A size that is more than kernels count.
    #[error("{what} is {found}: at most {most} are possible")]
    TooLarge {
        /// The size.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The largest possible value.
        most: usize,
    },
    /// A size in bytes or elements that 64 bits do not hold.
    #[error("{what} would be larger than any memory")]
    Overflow {
        /// The memory.
        what: &'static str,
    },
    /// The budget does not fit the tokens.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The settings of an operator do not go together.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// Rows, or matrices of a batch, that would overlap.
    #[error("{what} are {found} elements apart, and have {needed}")]
    Overlap {
        /// The rows or matrices.
        what: &'static str,
        /// Their distance.
        found: usize,
        /// Their length, with any gaps between their elements.
        needed: usize,
    },
    /// No kernel takes these types together.
    #[error("no kernel multiplies {input} with {gradient} into {product}: {allowed}")]
    DataTypes {
        /// The saved rows' type.
        input: DataType,
        /// The type of the output's gradient.
        gradient: DataType,
        /// Their product's type.
        product: DataType,
        /// The possible types.
        allowed: &'static str,
    },
    /// A request that no kernel serves.
    #[error("there is no plan for {what}")]
    Unsupported {
        /// The request.
        what: &'static str,
    },
    /// The vendor's library, which is asked for, computes no such product.
    #[error(transparent)]
    Dense(#[from] DenseError),
    /// A number out of its range.
    #[error("{what} is {found}: it must be {allowed}")]
    OutOfRange {
        /// The number.
        what: &'static str,
        /// Its value.
        found: f64,
        /// The largest possible value.
        allowed: &'static str,
    },
}

/// Why a plan refuses to run. Nothing was launched, unless a launch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E> {
    /// A null pointer where memory is needed.
    #[error("the pointer to {what} is null")]
    Null {
        /// The memory that it should lead to.
        what: &'static str,
    },
    /// A pointer that is not aligned.
    #[error("the pointer to {what}, {address:#x}, is not aligned to {alignment} bytes")]
    Misaligned {
        /// The memory that it should lead to.
        what: &'static str,
        /// The address.
        address: usize,
        /// The number that must divide it.
        alignment: usize,
    },
    /// Too little memory.
    #[error("{what} has {found} bytes, and {needed} are needed")]
    TooSmall {
        /// The memory.
        what: &'static str,
        /// Bytes that the plan needs.
        needed: u64,
        /// Bytes that were passed.
        found: u64,
    },
    /// A result that the plan was not made for.
    #[error("{what}: the plan was made without it")]
    Unplanned {
        /// The result.
        what: &'static str,
    },
    /// A size that is more than kernels count.
    #[error("{what} is {found}: at most {most} are possible")]
    TooLarge {
        /// The size.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The largest possible value.
        most: usize,
    },
    /// The launcher failed.
    #[error("{0}")]
    Launch(E),
}
