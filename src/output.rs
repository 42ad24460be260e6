//! The only place that writes to the terminal.

use std::io::Write as _;

/// Prints a text as it is.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

/// Prints a line.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout().lock(), "{line}")?)
}

/// Prints a table with its columns aligned.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn print_table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    print_line(&line(&mut header.iter().copied()))?;
    rows.iter().try_for_each(|row| print_line(&line(&mut row.iter().map(String::as_str))))
}

/// Tells trouble on standard error. If that is gone too there is nobody left to tell.
pub(crate) fn complain(sentence: &str) {
    let (Ok(()) | Err(_)) = writeln!(std::io::stderr().lock(), "codex-lb: {sentence}");
}
