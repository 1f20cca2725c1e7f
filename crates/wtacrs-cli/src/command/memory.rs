//! `wtacrs memory` from its arguments to its output.

use super::{CommandError, print};
use crate::args::{Format, MemoryArgs};
use crate::memory::{formats, of_layer, of_model, table};

/// Runs `wtacrs memory`: prints what is saved from the forward to the backward pass.
///
/// # Errors
///
/// See [`CommandError`].
pub fn memory(args: &MemoryArgs) -> Result<(), CommandError> {
    let (element_bytes, keeps) = (args.dtype.bytes(), args.budget.as_slice());
    let report = match (&args.model, args.tokens.zip(args.in_features)) {
        (None, Some((tokens, in_features))) => of_layer(tokens, in_features, element_bytes, keeps)?,
        (Some(model), _) => of_model(model, args.batch(), element_bytes, keeps)?,
        (None, None) => unreachable!("clap requires one of them"),
    };
    print(&match args.format {
        Format::Table => table::render(&report, keeps),
        Format::Json => formats::json(&report)?,
        Format::Csv => formats::csv(&report),
    })
}
