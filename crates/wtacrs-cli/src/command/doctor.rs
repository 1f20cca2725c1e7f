//! `wtacrs doctor` from its arguments to its output.

use super::{CommandError, print};
use crate::args::{DoctorArgs, DoctorFormat};
use crate::doctor::{Findings, text};

/// Runs `wtacrs doctor`: looks at the machine and prints what it finds. A machine without a GPU is a finding, not a
/// failure.
///
/// # Errors
///
/// Only if the findings cannot be printed.
pub fn doctor(args: &DoctorArgs) -> Result<(), CommandError> {
    let findings = Findings::of_this_machine();
    match args.format {
        DoctorFormat::Text => print(&text::render(&findings)),
        DoctorFormat::Json => print(&(serde_json::to_string_pretty(&findings)? + "\n")),
    }
}
