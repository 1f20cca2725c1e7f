//! Layers by the names of their files, as reports and messages call them.

use super::Layer;
use super::error::InputError;
use super::source::{SourceError, is_standard_input};
use crate::labels::Dtype;
use std::path::Path;

/// Why there is no layer, with the file that is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// A file that cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Standard input in the place of two files.
    #[error("- stands for standard input, which can be read only once")]
    StandardInputTwice,
    /// A file whose content is refused.
    #[error("{file}: {source}")]
    Input {
        /// The file.
        file: String,
        /// The reason.
        source: InputError,
    },
    /// A layer whose values are beyond the range of a type.
    #[error("{file}: a value is beyond the range of {dtype}")]
    OutOfRange {
        /// The file.
        file: String,
        /// The type.
        dtype: Dtype,
    },
    /// Stale weights of a layer without previous norms.
    #[error("{file}: stale weights need {wanted}, which is missing")]
    NoPreviousNorms {
        /// The file.
        file: String,
        /// Where the norms were looked for.
        wanted: String,
    },
}

/// A file's name in reports.
pub(crate) fn file_name(path: &Path) -> String {
    if is_standard_input(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Refuses paths that name standard input more than once.
pub(crate) fn check_standard_input<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<(), LayerError> {
    let named = paths.into_iter().filter(|path| is_standard_input(path)).count();
    if named > 1 { Err(LayerError::StandardInputTwice) } else { Ok(()) }
}

/// What was read of a file, with H and dZ rounded to a type if there is one.
pub(crate) fn rounded_layer(
    file: &str,
    layer: Result<Layer, InputError>,
    dtype: Option<Dtype>,
) -> Result<Layer, LayerError> {
    let file = || file.to_owned();
    let layer = layer.map_err(|source| LayerError::Input { file: file(), source })?;
    match dtype {
        None => Ok(layer),
        Some(dtype) => layer.rounded(dtype).ok_or_else(|| LayerError::OutOfRange { file: file(), dtype }),
    }
}
