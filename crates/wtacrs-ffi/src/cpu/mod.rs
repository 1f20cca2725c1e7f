//! The CPU's side of every object: core's functions on typed views of the caller's memory.

mod expected_error;
mod header;
mod kept_block;
mod linear;
mod memory;
mod norm_cache;
mod norm_predictor;
mod operator;
mod operator_block;
mod tensor_mul;
mod threads;

use self::linear::CpuLinear;
use self::norm_cache::CpuNormCache;
use self::norm_predictor::CpuNormPredictor;
use self::operator::CpuOperator;
use self::tensor_mul::CpuTensorMul;
pub(crate) use self::threads::most as most_threads;
use crate::arguments::{Array, Axis, Place, Stream, Tensor, with_element};
use crate::boundary::Outcome;
use crate::device::{
    CacheBounds, Device, LinearDescription, LinearPlan, NormCacheObject, NormPredictorObject, OperatorDescription,
    OperatorPlan, TensorMulDescription, TensorMulPlan,
};
use std::sync::Arc;
use wtacrs_core::guesses::{NormCache, NormPredictor};
use wtacrs_core::parallel::Threads;
use wtacrs_core::product::row_norms_into;

/// The host's cores and memory.
#[derive(Debug)]
pub(crate) struct Cpu {
    threads: Arc<dyn Threads>,
}

impl Cpu {
    /// With so many threads; 0 for the default.
    pub(crate) fn new(threads: usize) -> Self {
        Self { threads: threads::shared(threads) }
    }
}

impl Device for Cpu {
    fn place(&self) -> Place {
        Place::Host
    }

    fn alignment(&self) -> usize {
        memory::ALIGNMENT
    }

    fn linear(&self, description: &LinearDescription) -> Outcome<Box<dyn LinearPlan>> {
        Ok(Box::new(CpuLinear::new(description, Arc::clone(&self.threads))?))
    }

    fn tensor_mul(&self, description: &TensorMulDescription) -> Outcome<Box<dyn TensorMulPlan>> {
        Ok(Box::new(CpuTensorMul::new(description, Arc::clone(&self.threads))?))
    }

    fn operator(&self, description: &OperatorDescription) -> Outcome<Box<dyn OperatorPlan>> {
        Ok(Box::new(CpuOperator::new(description, Arc::clone(&self.threads))?))
    }

    fn norm_predictor(&self, predictor: NormPredictor) -> Outcome<Arc<dyn NormPredictorObject>> {
        Ok(Arc::new(CpuNormPredictor::new(predictor, Arc::clone(&self.threads))))
    }

    fn norm_cache(&self, norms: NormCache, bounds: CacheBounds) -> Outcome<Box<dyn NormCacheObject>> {
        Ok(Box::new(CpuNormCache::new(norms, bounds)?))
    }

    unsafe fn norms(&self, axis: Axis, x: &Tensor<2>, norms: &Array<f32>, _stream: Stream) -> Outcome {
        let _entered = threads::enter(&self.threads);
        with_element!(x.dtype(), T => {
            // SAFETY: the caller has it.
            let (x, norms) = unsafe { (x.view::<T>(), norms.get_mut()) };
            let x = match axis {
                Axis::Rows => x,
                Axis::Columns => x.reversed_axes(),
            };
            Ok(row_norms_into(x, norms)?)
        })
    }
}
