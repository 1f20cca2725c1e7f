//! What the fuzz targets of the C interface share.

pub mod handles;
pub mod memory;
pub mod structs;
pub mod tensor;
pub mod world;
