//! Aligned tables.

pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that are numbers: aligned to the right.
    right: Vec<usize>,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).into()], right: vec![] }
    }

    /// A table without a head.
    pub fn bare() -> Self {
        Self { rows: vec![], right: vec![] }
    }

    pub fn right<const N: usize>(mut self, columns: [usize; N]) -> Self {
        self.right = columns.into();
        self
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Lines with two spaces between columns and none at the end; `-` where a cell is empty.
    pub fn render(&self) -> String {
        let width = |s: &str| s.chars().count();
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().filter_map(|r| r.get(c)).map(|s| width(s).max(1)).max().unwrap_or(1))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (c, cell) in row.iter().enumerate() {
                let cell = if cell.is_empty() { "-" } else { cell };
                let pad = " ".repeat(widths[c] - width(cell));
                let (before, after) =
                    if self.right.contains(&c) { (pad.as_str(), "") } else { ("", pad.as_str()) };
                if c > 0 {
                    line.push_str("  ");
                }
                line.push_str(before);
                line.push_str(cell);
                line.push_str(after);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `1 host`, `2 hosts`
pub fn plural(n: usize, what: &str) -> String {
    if n == 1 { format!("{n} {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_numbers_to_the_right() {
        let mut table = Table::new(["TAG", "PACKETS", "STATE"]).right([1]);
        table.row(["ip-1".into(), "7".into(), "ISP".into()]);
        table.row(["ä".into(), "12345678".into(), String::new()]);
        assert_eq!(table.render(), "TAG    PACKETS  STATE\nip-1         7  ISP\nä     12345678  -\n");
    }

    #[test]
    fn an_empty_table_is_its_head() {
        assert_eq!(Table::new(["A", "B"]).render(), "A  B\n");
        assert_eq!(Table::bare().render(), "");
    }
}
