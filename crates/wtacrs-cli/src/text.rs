//! Text that all subcommands write: tables, numbers, fields of CSV, and names that come from files.

use comfy_table::{Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, Table, TableStyle};

/// A line under the header; columns are separated by their padding alone.
const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none())
    .header_separator(LineStyle::none().fill('─'))
    .content_lines(ContentLineStyle::none());

/// An empty table with words in the first columns and numbers in the others.
pub(crate) fn table(header: impl IntoIterator<Item = impl Into<Cell>>, words: usize) -> Table {
    let mut table = Table::new();
    let header: Vec<Cell> = header.into_iter().map(Into::into).collect();
    table.load_style(STYLE).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The value with `digits` significant digits, without an exponent.
pub(crate) fn to_digits(value: f64, digits: i32) -> String {
    let magnitude = if value > 0.0 { value.log10().floor() as i32 } else { 0 };
    let decimals = (digits - 1 - magnitude).max(0) as usize;
    format!("{value:.decimals$}")
}

/// The value with at most `digits` significant digits, without an exponent and without trailing zeros.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    let text = to_digits(value, digits);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// "1 step", "2 steps".
pub(crate) fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A field of CSV that is empty where JSON has null.
pub(crate) fn csv_optional(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// A field of CSV, quoted as RFC 4180 asks for.
pub(crate) fn csv_field(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// Text from a file or the command line with control characters escaped, so that a message stays one line and a file
/// cannot control the terminal.
pub fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(csv_field("plain name.npy"), "plain name.npy");
        assert_eq!(csv_field("a,\"b\".npy"), "\"a,\"\"b\"\".npy\"");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(one_line("a\nb\u{1b}c"), "a\\nb\\u{1b}c");
    }

    #[test]
    fn digits() {
        let three =
            [0.299_804, 0.099_609, 0.2512, 12.345, 12345.0, 1.0, 0.0, 0.0001].map(|value| significant(value, 3));
        assert_eq!(three, ["0.3", "0.0996", "0.251", "12.3", "12345", "1", "0", "0.0001"]);
        assert_eq!(significant(0.0996, 2), "0.1");
        assert_eq!(to_digits(0.2, 3), "0.200");
    }
}
