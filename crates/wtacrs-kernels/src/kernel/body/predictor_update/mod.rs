//! The three launches of a predictor's step.

mod apply;
mod arguments;
mod features;
mod sums;

pub use self::apply::predictor_apply;
pub use self::features::{predictor_features, predictor_features_packed};
pub use self::sums::predictor_sums;
