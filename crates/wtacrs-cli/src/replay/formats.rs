//! The results for programs: JSON, as [`super::report`] documents it, and CSV, one line for each step.

use super::report::{RecordingReport, SourceReport};
use crate::columns::csv_field;
use std::fmt::Write;

const CSV_HEADER: &str = "file,tokens,in_features,source,fraction,features,step,error\n";

/// The array of all recordings, indented.
///
/// # Errors
///
/// None in practice: all keys are strings.
pub fn json(recordings: &[RecordingReport]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(recordings).map(|text| text + "\n")
}

/// A header, and a line for each step of each result; what is null in JSON is empty here.
pub fn csv(recordings: &[RecordingReport]) -> String {
    let mut text = CSV_HEADER.to_owned();
    for recording in recordings {
        let RecordingReport { file, tokens, in_features, .. } = recording;
        let file = csv_field(file);
        for result in &recording.results {
            let SourceReport { source, fraction, features, .. } = result;
            let features = features.map_or_else(String::new, |features| features.to_string());
            for (step, error) in result.errors.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{file},{tokens},{in_features},{source},{fraction},{features},{step},{error}");
            }
        }
    }
    text
}
