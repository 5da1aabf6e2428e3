//! Keeps a NAT program beside the hypervisor.
//!
//! ```text
//!            the hypervisor connects          started
//!  Listening ──────────────────────▶ Looking ─────────▶ Serving
//!      ▲                              │   ▲                │ the program ended
//!      │                      missing │   │ pause          │
//!      │                              └───┘                │
//!      └───────────────────── pause, longer each time ◀────┘
//! ```
//!
//! The one task that runs [`keep`] owns the state. Whether the guest's cable is plugged in follows from it: it is
//! while a program serves.

#![expect(
    unsafe_code,
    reason = "tokio cannot know by type that a descriptor stays what it is"
)]
// UNSAFETY: the one unsafe call asks for a descriptor that stays open and the same; an `OwnedFd` is nothing else.

use super::{Nat, Passt};
use crate::process::{
    ansi,
    spawn::{self, Bond},
};
use cove_wire::with_causes;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::{
    future::pending,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, unix::AsyncFd},
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep},
};

/// How often a missing program is looked for where nothing was seen to come: in a directory that came itself, perhaps.
const LOOK: Duration = Duration::from_mins(1);
/// The pause after a program that ended soon, doubled each time up to the longest: a host without any network makes
/// some programs refuse to start.
const PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// A program that served for so long has worked.
const GOOD_WHILE: Duration = Duration::from_secs(10);
/// Bytes of its complaints that are kept.
const MAX_COMPLAINTS: usize = 2048;

/// Gives every connection to `listener` a program from `directories`, and tells `plugged` whether one serves. Runs
/// until it is dropped, and ends the program then. To be run on the main thread, with whose end the program ends, too.
pub(crate) async fn keep(listener: UnixListener, directories: Vec<PathBuf>, plugged: watch::Sender<bool>) {
    let mut pause = PAUSE;
    loop {
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!(%error, "cannot accept the hypervisor's network connection");
                sleep(LONGEST_PAUSE).await;
                continue;
            }
        };
        let program = look(&directories).await;
        let began = Instant::now();
        match start(&program, connection) {
            Ok(mut child) => {
                tracing::info!(program = program.name(), pid = child.id(), "the network is there");
                plugged.send_replace(true);
                let (status, complaints) = end(&mut child).await;
                plugged.send_replace(false);
                report(program.name(), &status, &complaints);
            }
            Err(error) => tracing::warn!(program = program.name(), %error, "cannot start the network"),
        }
        if began.elapsed() > GOOD_WHILE {
            pause = PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells of what comes into `directories`, as far as they are there, and of what changes in them.
fn arrivals(directories: &[PathBuf]) -> io::Result<AsyncFd<OwnedFd>> {
    let arrivals = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let wanted = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
    for directory in directories {
        if let Err(error) = inotify::add_watch(&arrivals, directory.as_path(), wanted) {
            tracing::debug!(directory = %directory.display(), %error, "what comes there is not seen");
        }
    }
    // SAFETY: an `OwnedFd` is open until it is dropped, and nothing here exchanges the one that is waited for.
    Ok(unsafe { AsyncFd::register(arrivals) }?)
}

/// Waits until there is a program.
async fn look(directories: &[PathBuf]) -> impl Nat {
    let mut said = false;
    loop {
        // Begun before the look, so that what comes between the two is noticed. What was told before is forgotten.
        let arrivals = arrivals(directories).ok();
        match Passt::find(directories) {
            Ok(program) => return program,
            Err(error) if !said => {
                tracing::warn!(why = with_causes(&error), "the machine cannot reach the network");
                said = true;
            }
            Err(_) => {}
        }
        let arrived = async {
            match &arrivals {
                Some(arrivals) => drop(arrivals.readable().await),
                None => pending().await,
            }
        };
        tokio::select! {
            // Many come together where a package is installed.
            () = arrived => sleep(PAUSE).await,
            () = sleep(LOOK) => {}
        }
    }
}

fn start(program: &impl Nat, connection: UnixStream) -> io::Result<Child> {
    let connection = connection.into_std()?;
    connection.set_nonblocking(false)?;
    let connection = OwnedFd::from(connection);
    let mut command = program.command(connection.as_fd());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    spawn::set_up(&mut command, Bond::DiesWithParent, vec![connection]);
    // Our copy of the connection goes with the command.
    Command::from(command).kill_on_drop(true).spawn()
}

/// Waits for the program's end, and takes what it complains about meanwhile.
async fn end(child: &mut Child) -> (io::Result<ExitStatus>, Vec<u8>) {
    let mut complaints = Vec::new();
    if let Some(mut stderr) = child.stderr.take() {
        let mut buffer = [0; 512];
        while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
            complaints.extend_from_slice(&buffer[..count]);
            let excess = complaints.len().saturating_sub(MAX_COMPLAINTS);
            complaints.drain(..excess);
        }
    }
    (child.wait().await, complaints)
}

fn report(name: &str, status: &io::Result<ExitStatus>, complaints: &[u8]) {
    let status = match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::info!(program = name, status, "the network ended");
    for line in complaints.split(|byte| *byte == b'\n').map(ansi::plain) {
        // It complains about a missing system log with each line.
        if !line.is_empty() && !line.contains("to syslog") {
            tracing::warn!("{name}: {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{sockets, test_script};
    use std::path::Path;
    use tokio::{io::AsyncWriteExt, time::timeout};

    const LIMIT: Duration = Duration::from_secs(20);

    /// A program that sends back what it gets on the descriptor after `--fd`. In bash, since a plain shell knows
    /// descriptors of one digit only.
    fn install_echo(directory: &Path) {
        let script =
            "#!/usr/bin/env bash\nwhile [ \"$1\" != --fd ]; do shift; done\nexec cat <&\"$2\" >&\"$2\"\n";
        let path = directory.join("passt");
        // In one step, as a package manager does it.
        let new = directory.join("new");
        test_script::install(&new, script);
        std::fs::rename(new, path).unwrap();
    }

    async fn echoes(path: &Path) -> UnixStream {
        let mut stream = sockets::open(path).await.unwrap();
        stream.write_all(b"frame").await.unwrap();
        let mut answer = [0; 5];
        timeout(LIMIT, stream.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"frame");
        stream
    }

    #[tokio::test]
    async fn every_connection_gets_a_program_of_its_own_and_the_cable_follows() {
        let directory = tempfile::tempdir().unwrap();
        install_echo(directory.path());
        let path = directory.path().join("net.sock");
        let (plugged, mut cable) = watch::channel(false);
        let keeper = tokio::spawn(keep(
            sockets::bind(&path).unwrap(),
            vec![directory.path().to_owned()],
            plugged,
        ));
        for _ in 0..2 {
            let stream = echoes(&path).await;
            timeout(LIMIT, cable.wait_for(|plugged| *plugged))
                .await
                .unwrap()
                .unwrap();
            drop(stream);
            timeout(LIMIT, cable.wait_for(|plugged| !*plugged))
                .await
                .unwrap()
                .unwrap();
        }
        keeper.abort();
    }

    #[tokio::test]
    async fn a_program_that_is_installed_later_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("net.sock");
        let (plugged, cable) = watch::channel(false);
        let keeper = tokio::spawn(keep(
            sockets::bind(&path).unwrap(),
            vec![directory.path().to_owned()],
            plugged,
        ));
        let mut stream = sockets::open(&path).await.unwrap();
        sleep(PAUSE).await;
        assert!(!*cable.borrow());
        install_echo(directory.path());
        // Sooner than at the next look that nothing brings about.
        stream.write_all(b"x").await.unwrap();
        assert_eq!(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap(), b'x');
        keeper.abort();
    }
}
