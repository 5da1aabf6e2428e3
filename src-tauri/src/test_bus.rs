//! A message bus of a test's own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "how a test fails")]

use dbus::blocking::Connection;
use std::{
    fs,
    io::{BufRead as _, BufReader, ErrorKind},
    process::{Child, Command, Stdio},
};

/// A message bus. Dropping it ends it.
pub(crate) struct Bus {
    daemon: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Bus {
    /// Starts one that starts no programs; none where this computer has no such daemon.
    pub(crate) fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("bus.conf");
        let text = format!(
            "<busconfig><type>session</type><listen>unix:dir={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             <allow own=\"*\"/></policy></busconfig>",
            directory.path().display()
        );
        fs::write(&config, text).unwrap();
        let daemon = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", config.display()))
            .args(["--nofork", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut daemon = match daemon {
            Ok(daemon) => daemon,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("skipped: there is no dbus-daemon");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let mut address = String::new();
        let said = daemon.stdout.take().unwrap();
        BufReader::new(said).read_line(&mut address).unwrap();
        Some(Self {
            daemon,
            address: address.trim().to_owned(),
            _directory: directory,
        })
    }

    /// One more connection to it.
    pub(crate) fn connection(&self) -> Connection {
        Connection::new_address(&self.address).unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
