//! What the tables, and the lines of CSV, of all subcommands have in common.

use crate::numbers::significant;
use comfy_table::{Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

/// A line under the header, and nothing else: columns stand apart by their padding.
const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─'))
    .content_lines(ContentLineStyle::none());

/// An empty table whose first columns hold words, and the others numbers.
pub(crate) fn table(header: impl IntoIterator<Item = impl Into<Cell>>, words: usize) -> Table {
    let mut table = Table::new();
    let header: Vec<Cell> = header.into_iter().map(Into::into).collect();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
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
