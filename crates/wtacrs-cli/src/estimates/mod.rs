//! Estimates of a recorded layer's weight gradient, and the exact gradient that they are compared with.
//!
//! | item | is |
//! |---|---|
//! | `Norms` | the norms of a layer's rows, and the weights of each source from them |
//! | `Terms` | sums of the gradient's terms in f64 |
//! | `reference` | the exact gradient, if f32 has the digits for it |
//! | `KeptRows` | what an estimate keeps of H |
//! | [`MeasureError`] | why a layer cannot be measured on |

mod error;
mod exact;
mod kept_rows;
mod norms;
mod terms;

pub use self::error::MeasureError;
pub(crate) use self::exact::{MOST_ROUNDING, check_memory, reference};
pub(crate) use self::kept_rows::KeptRows;
pub(crate) use self::norms::Norms;
pub use self::norms::SOURCES;
pub(crate) use self::terms::Terms;
