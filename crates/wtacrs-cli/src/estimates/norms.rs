//! The norms of a layer's rows, and the weights that each source makes of them.

use super::error::MeasureError;
use crate::labels::WeightSource;
use wtacrs_core::sampling::{DEFAULT_MIX, Weights};

/// The sources of weights that one recorded step allows, in the order of tables: first what training has, then what no
/// forward pass knows.
pub const SOURCES: [WeightSource; 3] = [WeightSource::Stale, WeightSource::Exact, WeightSource::Input];

/// Norms of H's and dZ's rows.
pub(crate) struct Norms {
    h: Vec<f32>,
    dz: Vec<f32>,
    previous_dz: Option<Vec<Option<f32>>>,
}

impl Norms {
    /// Of one layer; `previous_dz` are those of an earlier step, as a cache remembers them.
    pub(crate) fn new(h: Vec<f32>, dz: Vec<f32>, previous_dz: Option<&[f32]>) -> Self {
        let previous_dz = previous_dz.map(|norms| norms.iter().copied().map(Some).collect());
        Self { h, dz, previous_dz }
    }

    /// The weights of a source.
    ///
    /// # Errors
    ///
    /// Norms that cannot be weights; a source of which one step knows nothing.
    pub(crate) fn weights(&self, source: WeightSource) -> Result<Weights, MeasureError> {
        Ok(match source {
            WeightSource::Exact => Weights::from_norms(&self.h, &self.dz)?,
            WeightSource::Stale => {
                let previous = self.previous_dz.as_ref().ok_or(MeasureError::NoPreviousNorms)?;
                Weights::from_cache(&self.h, previous, DEFAULT_MIX)?
            }
            WeightSource::Predictor => return Err(MeasureError::NeedsSteps),
            WeightSource::Input => Weights::from_input(&self.h)?,
        })
    }
}
