//! An operator's passes on a GPU. Nothing of saved memory is checked, which only kernels read.

use super::gpu::Gpu;
use super::matrices::{bytes, data_type, memory};
use crate::arguments::{Array, Stream};
use crate::boundary::Outcome;
use crate::device::{
    FurtherOffset, OperatorBackward, OperatorDescription, OperatorForward, OperatorPlan, OperatorSizes,
};
use core::ptr;
use std::sync::Arc;
use wtacrs_kernels::plan::{self, DeviceRandomness, OperatorSettings};

#[derive(Debug)]
pub(super) struct CudaOperator {
    gpu: Arc<Gpu>,
    plan: plan::OperatorPlan,
    further_offset: FurtherOffset,
    sizes: OperatorSizes,
}

impl CudaOperator {
    pub(super) fn new(gpu: &Arc<Gpu>, description: &OperatorDescription) -> Outcome<Self> {
        let &OperatorDescription { operator, shape: [rows, columns], dtype, further_offset } = description;
        let mut settings = OperatorSettings::new(operator, rows, columns);
        settings.data_type = data_type(dtype)?;
        let plan = plan::OperatorPlan::new(settings)?;
        let sizes =
            OperatorSizes { saved: bytes(plan.saved().bytes)?, backward: bytes(plan.backward_scratch_bytes())? };
        Ok(Self { gpu: Arc::clone(gpu), plan, further_offset, sizes })
    }
}

impl OperatorPlan for CudaOperator {
    fn sizes(&self) -> OperatorSizes {
        self.sizes
    }

    unsafe fn forward(&self, call: OperatorForward) -> Outcome {
        let OperatorForward { x, gate, weight, bias, y, randomness, saved, stream } = call;
        let buffers = plan::OperatorForward {
            x: x.as_ptr(),
            gate: at(gate),
            weight: at(weight),
            bias: at(bias),
            y: at(y),
            saved: memory(&saved),
        };
        let randomness = DeviceRandomness { start: randomness, further_offset: self.further_offset.as_ptr() };
        let mut launcher = self.gpu.on(stream)?;
        // SAFETY: the caller has it.
        Ok(unsafe { self.plan.forward(&mut launcher, &buffers, randomness) }?)
    }

    unsafe fn backward(&self, call: OperatorBackward) -> Outcome {
        let OperatorBackward { x, gate, y, weight, dy, dx, dgate, dweight, dbias, saved, scratch, stream } = call;
        let buffers = plan::OperatorBackward {
            x: at(x),
            gate: at(gate),
            y: at(y),
            weight: at(weight),
            dy: dy.as_ptr(),
            dx: dx.as_ptr(),
            dgate: at(dgate),
            dweight: at(dweight),
            dbias: at(dbias),
            saved: memory(&saved),
            scratch: memory(&scratch),
        };
        let mut launcher = self.gpu.on(stream)?;
        // SAFETY: the caller has it.
        Ok(unsafe { self.plan.backward(&mut launcher, &buffers) }?)
    }

    unsafe fn restore(&self, saved: Array<u8>, y: Array<u8>, stream: Stream) -> Outcome {
        let mut launcher = self.gpu.on(stream)?;
        // SAFETY: the caller has it.
        Ok(unsafe { self.plan.restore(&mut launcher, memory(&saved), y.as_ptr()) }?)
    }
}

/// Where an operand lies, or null.
fn at<T: Copy>(operand: Option<Array<T>>) -> *mut T {
    operand.map_or(ptr::null_mut(), |operand| operand.as_ptr())
}
