//! The report as a table that fits a terminal.

use super::report::{InputReport, MemoryReport};
use crate::columns;
use crate::numbers::significant;
use comfy_table::Table;
use std::fmt::Write;
use wtacrs_core::Keep;

const LEGEND: &str = "\
×          how often the model has such an input; bytes are of all of them
exact      every row, as training keeps them
keep …     the rows that a budget keeps, with an index and a scale each
";

/// The table, its sums and the legend.
pub fn render(report: &MemoryReport, keeps: &[Keep]) -> String {
    let mut text = format!("{}, elements of {} bytes\n\n", report.name, report.element_bytes);
    let _ = writeln!(text, "{}\n", table(report, keeps).trim_fmt());
    let _ = writeln!(text, "norm predictors, if used: {} once, whatever the batch\n", bytes(report.predictor_bytes));
    text + LEGEND
}

fn table(report: &MemoryReport, keeps: &[Keep]) -> Table {
    let header = ["read by".to_owned(), "×".to_owned(), "tokens".to_owned(), "features".to_owned(), "exact".to_owned()];
    let header = header.into_iter().chain(keeps.iter().map(|keep| format!("keep {keep}")));
    let mut table = columns::table(header, 1);
    for input in &report.inputs {
        table.add_row(row(input));
    }
    if report.inputs.len() > 1 {
        let sum = ["all".to_owned(), String::new(), String::new(), String::new(), bytes(report.exact_bytes)];
        table.add_row([""]);
        table.add_row(sum.into_iter().chain(report.saved_bytes.iter().map(|&saved| share(saved, report.exact_bytes))));
    }
    table
}

fn row(input: &InputReport) -> Vec<String> {
    let InputReport { name, count, tokens, in_features, exact_bytes, saved, .. } = input;
    let times = |one: u64| one * *count as u64;
    let words =
        [name.clone(), count.to_string(), tokens.to_string(), in_features.to_string(), bytes(times(*exact_bytes))];
    words.into_iter().chain(saved.iter().map(|saved| share(times(saved.bytes), times(*exact_bytes)))).collect()
}

/// Bytes, and what share of `whole` they are.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { bytes(part) } else { format!("{} ({:.3})", bytes(part), part as f64 / whole as f64) }
}

/// In the largest binary unit that leaves at least one.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = UNITS.len().min(1 + (count.max(1).ilog2() / 10) as usize) - 1;
    format!("{} {}", significant(count as f64 / (1_u64 << (10 * unit)) as f64, 4), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn units() {
        let counts = [0, 1, 1023, 1024, 1536, 10 << 20, 3 << 40, u64::MAX];
        let expected = ["0 B", "1 B", "1023 B", "1 KiB", "1.5 KiB", "10 MiB", "3 TiB", "16777216 TiB"];
        assert_eq!(counts.map(bytes), expected);
    }
}
