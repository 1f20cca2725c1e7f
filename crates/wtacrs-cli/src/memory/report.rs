//! The report, in types that are also the JSON that the command writes; as a table and as CSV.

use crate::labels::BudgetReport;
use crate::text::{self, csv_field, csv_optional, significant};
use comfy_table::Table;
use serde::Serialize;
use std::fmt::Write;
use wtacrs_core::Keep;

const CSV_HEADER: &str = "name,input,layers,count,tokens,in_features,element_bytes,fraction,budget,budget_share,\
                          exact_bytes,saved_bytes,predictor_bytes,bits\n";

const LEGEND: &str = "\
×          how many such inputs the model has; bytes are of all of them
exact      every row, as training keeps them
keep …     the rows that a budget keeps, with an index and a scale each unless all rows are packed, in one block, as the C
           library saves it on the CPU
";

/// The memory of one model, or of one layer.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryReport {
    /// The model's name.
    pub name: String,
    /// Bytes of one element.
    pub element_bytes: usize,
    /// Bits of an element of a kept row: those of the type for exact copies; 8, 4 or 2 if rows are packed.
    pub bits: u32,
    /// Every input of linear layers.
    pub inputs: Vec<InputReport>,
    /// Σ of all inputs, kept whole.
    pub exact_bytes: u64,
    /// Σ of their kept rows, for each budget.
    pub saved_bytes: Vec<u64>,
    /// Σ of the states of one norm predictor for each input. They live as long as the model does.
    pub predictor_bytes: u64,
}

/// A matrix that linear layers read.
#[derive(Clone, Debug, Serialize)]
pub struct InputReport {
    /// Its block and its readers.
    pub name: String,
    /// Linear layers that read it, and share one selection.
    pub layers: usize,
    /// How many such matrices the model has; bytes are those of one.
    pub count: usize,
    /// Its rows.
    pub tokens: usize,
    /// Its columns.
    pub in_features: usize,
    /// All of its rows.
    pub exact_bytes: u64,
    /// The rows kept, for each budget.
    pub saved: Vec<SavedReport>,
    /// The state of a norm predictor with default settings.
    pub predictor_bytes: u64,
}

/// The rows of an input that one budget keeps.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SavedReport {
    /// How many rows.
    #[serde(flatten)]
    pub budget: BudgetReport,
    /// Bytes of rows, indices and scales in one block.
    pub bytes: u64,
}

/// A header, and a line for each input and budget.
pub fn csv(report: &MemoryReport) -> String {
    let mut text = CSV_HEADER.to_owned();
    let (name, element_bytes, bits) = (csv_field(&report.name), report.element_bytes, report.bits);
    for input in &report.inputs {
        let InputReport { layers, count, tokens, in_features, exact_bytes, predictor_bytes, .. } = input;
        let input_name = csv_field(&input.name);
        for SavedReport { budget: BudgetReport { fraction, count: budget, share }, bytes } in &input.saved {
            let fraction = csv_optional(*fraction);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{name},{input_name},{layers},{count},{tokens},{in_features},{element_bytes},{fraction},{budget},{share},\
                 {exact_bytes},{bytes},{predictor_bytes},{bits}"
            );
        }
    }
    text
}

/// The table, its sums and the legend.
pub fn table(report: &MemoryReport, keeps: &[Keep]) -> String {
    let mut text = format!("{}, elements of {} bytes", report.name, report.element_bytes);
    if report.bits as usize != 8 * report.element_bytes {
        let _ = write!(text, ", kept rows packed in {} bits an element", report.bits);
    }
    text += "\n\n";
    let _ = writeln!(text, "{}\n", rows(report, keeps).trim_fmt());
    let _ =
        writeln!(text, "norm predictors, if used: {} once, whatever the batch size\n", bytes(report.predictor_bytes));
    text + LEGEND
}

fn rows(report: &MemoryReport, keeps: &[Keep]) -> Table {
    let header = ["read by".to_owned(), "×".to_owned(), "tokens".to_owned(), "features".to_owned(), "exact".to_owned()];
    let header = header.into_iter().chain(keeps.iter().map(|keep| format!("keep {keep}")));
    let mut table = text::table(header, 1);
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

/// Bytes, and their share of `whole`.
fn share(part: u64, whole: u64) -> String {
    if whole == 0 { bytes(part) } else { format!("{} ({:.3})", bytes(part), part as f64 / whole as f64) }
}

/// Bytes in the largest binary unit of which there is at least one.
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
