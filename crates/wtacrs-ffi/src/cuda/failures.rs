//! What the driver and the launch plans refuse, as failures of a call.

use crate::boundary::Failure;
use crate::boundary::status::*;
use wtacrs_kernels::launch::dense::DenseError;
use wtacrs_kernels::launch::driver::DriverError;
use wtacrs_kernels::plan::{CacheMisfit, ExecuteError, PlanError};

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        let status = match error {
            DriverError::NoLibrary
            | DriverError::MissingCall { .. }
            | DriverError::TooOld { .. }
            | DriverError::NoDevice
            | DriverError::NoSuchDevice { .. }
            | DriverError::DeviceTooOld { .. }
            | DriverError::NoContext => WTACRS_STATUS_NO_DEVICE,
            DriverError::Dense(error) => return error.into(),
            _ => WTACRS_STATUS_CUDA_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<DenseError> for Failure {
    fn from(error: DenseError) -> Self {
        let status = match error {
            DenseError::NoLibrary | DenseError::MissingCall { .. } | DenseError::NoAlgorithm(_) => {
                WTACRS_STATUS_UNSUPPORTED
            }
            _ => WTACRS_STATUS_CUDA_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let status = match error {
            PlanError::Dense(error) => return error.into(),
            PlanError::Zero { .. } | PlanError::Unsupported { .. } | PlanError::DataTypes { .. } => {
                WTACRS_STATUS_UNSUPPORTED
            }
            PlanError::TooLarge { .. } | PlanError::Overflow { .. } => WTACRS_STATUS_SIZE_OVERFLOW,
            PlanError::Budget(_) => WTACRS_STATUS_INVALID_BUDGET,
            _ => WTACRS_STATUS_INVALID_ARGUMENT,
        };
        Self::new(status, format!("on a GPU: {error}"))
    }
}

impl From<CacheMisfit> for Failure {
    fn from(error: CacheMisfit) -> Self {
        Self::new(WTACRS_STATUS_SHAPE_MISMATCH, error.to_string())
    }
}

impl From<ExecuteError<Failure>> for Failure {
    fn from(error: ExecuteError<Failure>) -> Self {
        let status = match error {
            ExecuteError::Launch(failure) => return failure,
            ExecuteError::Null { .. } => WTACRS_STATUS_NULL_POINTER,
            ExecuteError::Misaligned { .. } => WTACRS_STATUS_MISALIGNED,
            ExecuteError::TooSmall { .. } => WTACRS_STATUS_BUFFER_TOO_SMALL,
            ExecuteError::TooLarge { .. } => WTACRS_STATUS_SIZE_OVERFLOW,
            _ => WTACRS_STATUS_INVALID_ARGUMENT,
        };
        Self::new(status, error.to_string())
    }
}
