//! The GPU's side of every object: the launch plans of wtacrs-kernels, on memory that is checked and never followed.

mod failures;
mod gpu;
mod linear;
mod matrices;
mod memory;
mod norm_cache;
mod norm_predictor;
mod operator;
#[cfg(feature = "emulator")]
pub mod stand_in;
mod tensor_mul;

use self::gpu::Gpu;
use self::linear::CudaLinear;
use self::matrices::matrix;
use self::norm_cache::CudaNormCache;
use self::norm_predictor::CudaNormPredictor;
use self::operator::CudaOperator;
use self::tensor_mul::CudaTensorMul;
use crate::arguments::{Array, Axis, Place, Stream, Tensor};
use crate::boundary::Outcome;
use crate::device::{
    CacheBounds, Device, LinearDescription, LinearPlan, NormCacheObject, NormPredictorObject, OperatorDescription,
    OperatorPlan, TensorMulDescription, TensorMulPlan,
};
use std::sync::Arc;
use wtacrs_core::guesses::{NormCache, NormPredictor};
use wtacrs_kernels::launch::driver::Installation;
use wtacrs_kernels::plan::{ALIGNMENT, launch_column_norms, launch_row_norms};

/// A GPU in one of its CUDA contexts.
#[derive(Debug)]
pub(crate) struct Cuda {
    gpu: Arc<Gpu>,
}

impl Cuda {
    /// The GPU of a number, or the one of the calling thread's current context for -1.
    pub(crate) fn open(ordinal: i32) -> Outcome<Self> {
        #[cfg(feature = "emulator")]
        if let Some(opened) = stand_in::stand_in(ordinal) {
            return Ok(Self { gpu: Arc::new(opened?) });
        }
        Ok(Self { gpu: Arc::new(Gpu::open(Installation::find()?, ordinal)?) })
    }
}

impl Device for Cuda {
    fn place(&self) -> Place {
        Place::Cuda(self.gpu.ordinal())
    }

    fn alignment(&self) -> usize {
        ALIGNMENT as usize
    }

    fn linear(&self, description: &LinearDescription) -> Outcome<Box<dyn LinearPlan>> {
        Ok(Box::new(CudaLinear::new(&self.gpu, description)?))
    }

    fn tensor_mul(&self, description: &TensorMulDescription) -> Outcome<Box<dyn TensorMulPlan>> {
        Ok(Box::new(CudaTensorMul::new(&self.gpu, description)?))
    }

    fn operator(&self, description: &OperatorDescription) -> Outcome<Box<dyn OperatorPlan>> {
        Ok(Box::new(CudaOperator::new(&self.gpu, description)?))
    }

    fn norm_predictor(&self, predictor: NormPredictor) -> Outcome<Arc<dyn NormPredictorObject>> {
        Ok(Arc::new(CudaNormPredictor::new(&self.gpu, predictor)?))
    }

    fn norm_cache(&self, norms: NormCache, bounds: CacheBounds) -> Outcome<Box<dyn NormCacheObject>> {
        Ok(Box::new(CudaNormCache::new(&self.gpu, &norms, bounds)?))
    }

    unsafe fn norms(&self, axis: Axis, x: &Tensor<2>, norms: &Array<f32>, stream: Stream) -> Outcome {
        let (matrix, mut launcher) = (matrix(x)?, self.gpu.on(stream)?);
        // SAFETY: the caller has it.
        unsafe {
            match axis {
                Axis::Rows => launch_row_norms(&mut launcher, &matrix, norms.as_ptr())?,
                Axis::Columns => launch_column_norms(&mut launcher, &matrix, norms.as_ptr())?,
            }
        }
        Ok(())
    }
}
