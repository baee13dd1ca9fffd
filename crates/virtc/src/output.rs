//! What virtc prints: data on stdout, everything else on stderr.

use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use crate::error::Failure;

/// A line of data.
///
/// # Errors
///
/// When stdout takes no more.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
}

/// Lines of data, written together.
///
/// # Errors
///
/// When stdout takes no more.
pub(crate) fn lines(texts: impl IntoIterator<Item = impl AsRef<str>>) -> io::Result<()> {
    let mut stdout = BufWriter::new(io::stdout().lock());
    for text in texts {
        writeln!(stdout, "{}", text.as_ref())?;
    }
    stdout.flush()
}

/// One document for machines.
///
/// # Errors
///
/// When stdout takes no more.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    Ok(line(&text)?)
}

/// Rows under headings, aligned, without borders.
///
/// # Errors
///
/// When stdout takes no more.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let aligned = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let padding = width - cell.chars().count() + 2;
            text.push_str(cell);
            text.push_str(&" ".repeat(padding));
        }
        text.truncate(text.trim_end().len());
        text
    };
    let cells = rows.iter().map(|row| row.each_ref().map(String::as_str));
    lines([headings].into_iter().chain(cells).map(aligned))
}

/// A line on stderr. Nothing can be done when it takes no more.
pub(crate) fn stderr_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// An error on stderr.
pub(crate) fn error(message: &str) {
    stderr_line(&format!("virtc: {message}"));
}

/// Something that the user should know.
pub(crate) fn notice(message: &str) {
    stderr_line(&format!("virtc: {message}"));
}

/// Whether progress may be drawn on stderr.
pub(crate) fn progress_is_wanted(quiet: bool) -> bool {
    !quiet && io::stderr().is_terminal()
}
