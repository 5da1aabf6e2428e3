//! Pseudo terminals.

use cove_wire::Terminal;
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

/// The two ends of a terminal: the one that the agent holds, and the one that the program gets.
pub(super) struct Pty {
    pub(super) controller: OwnedFd,
    pub(super) user: OwnedFd,
}

impl Pty {
    /// A new terminal of the size that is asked for.
    pub(super) fn open(terminal: &Terminal) -> io::Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        let name = ptsname(&controller, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let user = open(name, flags, Mode::empty())?;
        resize(&controller, terminal.columns, terminal.rows)?;
        rustix::io::ioctl_fionbio(&controller, true)?;
        Ok(Self { controller, user })
    }
}

/// Gives a terminal another size; its programs are told.
pub(super) fn resize(controller: impl AsFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(tcsetwinsize(controller, size)?)
}
