//! The only place that writes to the terminal: results to standard output, progress to standard error.

use std::io::Write as _;

/// Prints a text as it is.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// Tells what happens. If standard error is gone there is nobody left to tell.
pub(crate) fn progress(sentence: &str) {
    let (Ok(()) | Err(_)) = writeln!(std::io::stderr().lock(), "bench: {sentence}");
}

/// Columns side by side, each as wide as its widest cell; the first is aligned left, the others right.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        assert_eq!(
            table(&[row(["", "a", "long"]), row(["name", "12 µs", "–"])]),
            "           a   long\nname   12 µs      –\n"
        );
    }
}
