//! The entry points, a file for each object or group of calls, in the order of the header.

mod library;

mod context;
mod layer;
mod plan;

mod passes;
mod selection;

mod checkpoint;
mod norm_predictor;

mod norm_cache;

mod planner;

mod tensor_mul;
mod tensor_mul_plan;

mod operator;
mod operator_plan;

mod norms;
mod steps;
mod theory;

pub use self::context::*;
pub use self::layer::*;
pub use self::library::*;
pub use self::norm_cache::*;
pub use self::norm_predictor::*;
pub use self::norms::*;
pub use self::operator::*;
pub use self::operator_plan::*;
pub use self::passes::*;
pub use self::plan::*;
pub use self::planner::*;
pub use self::selection::wtacrs_selection;
pub use self::steps::*;
pub use self::tensor_mul::*;
pub use self::tensor_mul_plan::*;
pub use self::theory::*;
