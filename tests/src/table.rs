//! Tables for people.

/// Columns as wide as their widest cell; the first one to the left, the others to the right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(headers: &[&str]) -> Self {
        Self { rows: vec![headers.iter().map(ToString::to_string).collect()] }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let rule = |left: &str, cross: &str, right: &str| {
            let parts: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
            format!("{left}{}{right}", parts.join(cross))
        };
        writeln!(f, "  {}", rule("┌", "┬", "┐"))?;
        for (number, row) in self.rows.iter().enumerate() {
            write!(f, "  ")?;
            for (column, width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let pad = " ".repeat(width - cell.chars().count());
                if column == 0 {
                    write!(f, "│ {cell}{pad} ")?;
                } else {
                    write!(f, "│ {pad}{cell} ")?;
                }
            }
            writeln!(f, "│")?;
            if number == 0 {
                writeln!(f, "  {}", rule("├", "┼", "┤"))?;
            }
        }
        write!(f, "  {}", rule("└", "┴", "┘"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["case", "ms"]);
        table.row(["ours".into(), "7".into()]);
        table.row(["the other".into(), "12345".into()]);
        let text = table.to_string();
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]), "{text}");
        assert!(text.contains("│ ours      │     7 │"), "{text}");
    }
}
