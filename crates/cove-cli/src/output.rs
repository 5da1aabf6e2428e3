//! Standard output, for data, and standard error, for people. Unlike `println!` and `eprintln!` nothing here panics
//! when the reader has gone away.

use serde::Serialize;
use std::io::{self, Write};

/// Data as it is.
pub(crate) fn bytes(data: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(data)?;
    out.flush()
}

/// One line of data.
pub(crate) fn line(text: impl Into<String>) -> io::Result<()> {
    let mut text = text.into();
    text.push('\n');
    bytes(text.as_bytes())
}

/// One line for a person. If nobody can read it, there is nobody to tell.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// A value as JSON, over several lines.
pub(crate) fn json(value: &impl Serialize) -> io::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Rows under their headings, columns padded to the widest cell.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: [&str; N]| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            text.push_str(cell);
            let pad = width - cell.chars().count() + 2;
            text.extend(std::iter::repeat_n(' ', pad));
        }
        text.truncate(text.trim_end().len());
        text
    };
    line(render(headings))?;
    for row in rows {
        line(render(std::array::from_fn(|column| row[column].as_str())))?;
    }
    Ok(())
}
