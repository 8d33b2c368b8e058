//! Plain columns, and JSON.

use std::io::{self, Write};

use serde_json::Value;

/// Longest cell; what is longer is cut and ends in an ellipsis. JSON is never cut.
const CELL_CHARACTERS_MAX: usize = 80;

/// Prints columns that are as wide as their widest cell, under their headings.
pub fn print<const N: usize>(headings: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    let heading_row = headings.map(str::to_owned);
    let rows: Vec<[String; N]> = std::iter::once(heading_row)
        .chain(rows.map(|row| row.map(|cell| one_line(&cell))))
        .collect();
    write(&render(&rows));
}

/// Prints `name  value` lines.
pub fn print_fields(fields: &[(&str, String)]) {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let text: String = fields
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}\n"))
        .collect();
    write(&text);
}

/// Prints indented JSON.
pub fn print_json(value: &Value) {
    write(&format!("{value:#}\n"));
}

/// Prints one line.
pub fn print_line(text: &str) {
    write(&format!("{text}\n"));
}

/// A reader that went away, such as `head`, is no error.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

fn render<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn one_line(text: &str) -> String {
    let flat: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if flat.chars().count() <= CELL_CHARACTERS_MAX {
        return flat;
    }
    let mut cut: String = flat.chars().take(CELL_CHARACTERS_MAX - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_end_without_blanks() {
        let rows = [
            ["ID".to_owned(), "NAME".to_owned()],
            ["order-17".to_owned(), "ä".to_owned()],
        ];
        assert_eq!(render(&rows), "ID        NAME\norder-17  ä\n");
    }

    #[test]
    fn cells_are_one_line_and_bounded() {
        assert_eq!(one_line("a\nb"), "a b");
        let cut = one_line(&"ü".repeat(100));
        assert_eq!(cut.chars().count(), CELL_CHARACTERS_MAX);
        assert!(cut.ends_with('…'));
    }
}
