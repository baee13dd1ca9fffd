//! What virtc prints: data on stdout, everything else on stderr.

use std::io::{self, IsTerminal, Write};

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
    let print = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let padding = width - cell.chars().count() + 2;
            text.push_str(cell);
            text.push_str(&" ".repeat(padding));
        }
        line(text.trim_end())
    };
    print(headings)?;
    for row in rows {
        print(row.each_ref().map(String::as_str))?;
    }
    Ok(())
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
