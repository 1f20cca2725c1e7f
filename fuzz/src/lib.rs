//! What the fuzz targets of the C interface share.

pub mod handles;
pub mod memory;
pub mod tensor;
