//! Plain text tables with aligned columns.

pub use common::report::text::decimal;

use comfy_table::{CellAlignment, ContentLineStyle, LineStyle, TableStyle};
use common::report::text::one_line;

const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction(' '))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .content_lines(ContentLineStyle::none().junction(' '));

#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    /// A table with the columns `name|name>|…`; `>` aligns a column to the right.
    pub fn new(columns: &str) -> Self {
        Self::with_columns(&columns.split('|').collect::<Vec<_>>())
    }

    /// As [`Table::new`], with a name or `name>` for each column.
    pub fn with_columns(columns: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(STYLE);
        table.set_header(
            columns
                .iter()
                .map(|c| one_line(c.strip_suffix('>').unwrap_or(c)).into_owned()),
        );
        for (i, (column, name)) in table.column_iter_mut().zip(columns).enumerate() {
            let right = u16::from(i + 1 < columns.len());
            column.set_padding((0, right));
            if name.ends_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    /// Adds a row; control characters in cells, which may be names of files, are escaped.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter();
        let cells = cells.map(|cell| one_line(&cell).into_owned());
        self.0.add_row(cells);
    }

    /// The header, a rule, and the rows; each line ends with a newline.
    pub fn render(&self) -> String {
        self.0.trim_fmt() + "\n"
    }
}

/// The value, or a dash for `None`.
pub fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| v.to_string())
}

/// Formats as `1.23`, or as a dash for `None`.
pub fn number(value: Option<f64>) -> String {
    let finite = value.filter(|v| v.is_finite());
    or_dash(finite.map(|v| decimal(v, 2)))
}

/// A size in megabytes, as `1.2`.
#[expect(clippy::cast_precision_loss, reason = "a size for people")]
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("landmark|mm>");
        table.row(vec!["AC".into(), number(Some(12.346))]);
        table.row(vec!["PC µ".into(), number(Some(f64::NAN))]);
        table.row(vec!["前連合".into(), number(Some(1.0))]);
        let expected = [
            "landmark     mm",
            "───────────────",
            "AC        12.35",
            "PC µ          –",
            "前連合     1.00\n",
        ];
        assert_eq!(table.render(), expected.join("\n"));
    }

    #[test]
    fn cells_hold_no_control_characters_and_no_negative_zeros() {
        let mut table = Table::with_columns(&["a\tb", "mm>"]);
        table.row(vec!["x\ry\nz\u{1b}[2J".into(), number(Some(-0.001))]);
        let text = table.render();
        assert!(text.starts_with("a\\tb "), "{text}");
        assert!(text.ends_with("\nx\\ry\\nz\\u{1b}[2J  0.00\n"), "{text}");
    }
}
