//! This computer's terminal: whether there is one, its size, and raw mode that is undone however the command ends.

use cove_wire::Terminal;
use std::{
    env,
    io::{self, IsTerminal as _},
};

/// The size that a process gets whose terminal cannot be asked.
const USUAL_SIZE: (u16, u16) = (80, 24);

/// Whether a person sits at both standard input and output.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Columns and rows of our terminal.
pub(crate) fn size() -> (u16, u16) {
    crossterm::terminal::size()
        .ok()
        .filter(|&(columns, rows)| columns > 0 && rows > 0)
        .unwrap_or(USUAL_SIZE)
}

/// A terminal like ours, for a process in the guest.
pub(crate) fn like_ours() -> Terminal {
    let (columns, rows) = size();
    let kind = env::var("TERM").ok().filter(|kind| !kind.is_empty());
    Terminal {
        kind: kind.unwrap_or_else(|| "xterm-256color".into()),
        columns,
        rows,
    }
}

/// Raw mode for as long as it lives: keys go to the guest one by one, Ctrl-C included.
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Sets raw mode if standard input is a terminal.
    pub(crate) fn set() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        crossterm::terminal::enable_raw_mode()?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}
