//! What the tables, and the lines of CSV, of all subcommands have in common.

use crate::numbers::significant;
use comfy_table::{CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

/// A line under the header, and nothing else: columns stand apart by their padding.
const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─'))
    .content_lines(ContentLineStyle::none());

/// An empty table whose first columns hold words, and the others numbers.
pub(crate) fn table<const COLUMNS: usize>(header: [&str; COLUMNS], words: usize) -> Table {
    let mut table = table_of(header.map(str::to_owned));
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// An empty table with a header of any length, all columns to the left.
pub(crate) fn table_of(header: impl IntoIterator<Item = String>) -> Table {
    let mut table = Table::new();
    let header: Vec<String> = header.into_iter().collect();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table
}

/// A budget k as a share k/n, with k itself.
pub(crate) fn budget_label(fraction: f64, budget: usize) -> String {
    format!("{} ({budget})", significant(fraction, 2))
}

/// A field of CSV as RFC 4180 has it.
pub(crate) fn csv_field(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(csv_field("plain name.npy"), "plain name.npy");
        assert_eq!(csv_field("a,\"b\".npy"), "\"a,\"\"b\"\".npy\"");
    }
}
