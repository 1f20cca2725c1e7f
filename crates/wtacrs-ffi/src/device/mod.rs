//! What differs by device, behind traits with two bodies: `cpu` and `cuda`.
//!
//! Entry points check a call's arguments and hand them over; a body only computes, or launches kernels. Its functions are
//! unsafe, since the arguments are a caller's memory: they require the contract of the entry point (see the crate's own
//! documentation), with pointers, sizes, alignment, shapes and overlaps already checked.

mod description;
mod linear;
mod norm_cache;
mod norm_predictor;
mod operator;
mod tensor_mul;

pub(crate) use self::description::*;
pub(crate) use self::linear::*;
pub(crate) use self::norm_cache::*;
pub(crate) use self::norm_predictor::*;
pub(crate) use self::operator::*;
pub(crate) use self::tensor_mul::*;

use crate::arguments::{Array, Axis, Place, Stream, Tensor};
use crate::boundary::Outcome;
use core::fmt::Debug;
use std::sync::Arc;
use wtacrs_core::guesses::{NormCache, NormPredictor};

/// A place where work is done, and a factory of the objects that work there.
pub(crate) trait Device: Debug + Send + Sync {
    /// Whose memory calls take.
    fn place(&self) -> Place;

    /// Alignment of saved memory, scratch memory and sums.
    fn alignment(&self) -> usize;

    fn linear(&self, description: &LinearDescription) -> Outcome<Box<dyn LinearPlan>>;

    fn tensor_mul(&self, description: &TensorMulDescription) -> Outcome<Box<dyn TensorMulPlan>>;

    fn operator(&self, description: &OperatorDescription) -> Outcome<Box<dyn OperatorPlan>>;

    fn norm_predictor(&self, predictor: NormPredictor) -> Outcome<Arc<dyn NormPredictorObject>>;

    fn norm_cache(&self, norms: NormCache, bounds: CacheBounds) -> Outcome<Box<dyn NormCacheObject>>;

    /// Writes the norms of a matrix's rows or columns.
    ///
    /// # Safety
    ///
    /// See the module.
    unsafe fn norms(&self, axis: Axis, x: &Tensor<2>, norms: &Array<f32>, stream: Stream) -> Outcome;
}
