//! Plain text tables with aligned columns.

pub use comfy_table::CellAlignment as Align;
use comfy_table::{ContentLineStyle, LineStyle, TableStyle};

const STYLE: TableStyle = TableStyle::new()
    .header_lines(ContentLineStyle::none().junction(' '))
    .header_separator(LineStyle::none().fill('─').junction('─'))
    .content_lines(ContentLineStyle::none().junction(' '));

#[derive(Debug)]
pub struct Table(comfy_table::Table);

impl Table {
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(STYLE);
        table.set_header(columns.iter().map(|(name, _)| *name));
        for (i, (column, (_, align))) in table.column_iter_mut().zip(columns).enumerate() {
            let right = u16::from(i + 1 < columns.len());
            column.set_padding((0, right)).set_cell_alignment(*align);
        }
        Self(table)
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.0.add_row(cells);
    }

    /// The header, a rule, and the rows; each line ends with a newline.
    pub fn render(&self) -> String {
        self.0.trim_fmt() + "\n"
    }
}

/// Formats as `1.23`, or as a dash for `None`.
pub fn number(value: Option<f64>) -> String {
    value
        .filter(|v| v.is_finite())
        .map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("landmark", Align::Left), ("mm", Align::Right)]);
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
}
