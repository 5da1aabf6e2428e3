//! A clean root: a Debian of its own in namespaces of its own, which are gone when it goes.
//!
//! ```text
//!  test ── unshare ──▶ enter.sh, pid 1 of the namespaces, root of them ◀── its input ends with the Root
//!    ├── nsenter ──▶ root(…): as root, with fakeroot, by which one user looks like many
//!    └── nsenter ──▶ person(…): as user 1000 in a user namespace below, who may not write below /usr
//! ```

use cove_tests::harness::Cmd;
use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// Namespaces in which we are root and nobody else is there.
const NAMESPACES: [&str; 6] = ["--user", "--map-root-user", "--mount", "--pid", "--net", "--ipc"];

/// What `cargo xtask test` has made for the tests.
#[derive(Debug, Clone)]
pub(crate) struct Kit {
    /// The package's file.
    package: PathBuf,
    /// The directory that the clean root comes from.
    clean: PathBuf,
}

impl Kit {
    pub(crate) fn from_env() -> Option<Self> {
        Some(Self {
            package: env::var_os("COVE_TEST_PACKAGE")?.into(),
            clean: env::var_os("COVE_TEST_CLEAN_ROOT")?.into(),
        })
    }
}

/// A running clean root.
pub(crate) struct Root {
    keeper: Child,
    /// The package, as its path is within.
    package: String,
    // Goes last, when nothing uses it any more.
    directory: TempDir,
}

impl Root {
    /// Why no root can be made on this computer, if so.
    pub(crate) fn unfit() -> Option<String> {
        let tried = Command::new("unshare")
            .args(NAMESPACES)
            .args(["--fork", "true"])
            .output();
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Some(format!("users may make no namespaces here: {}", said.trim()))
            }
            Err(error) => Some(format!("there is no unshare: {error}")),
        }
    }

    pub(crate) fn new(kit: &Kit) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("package-")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a directory for the root");
        let place = kit.package.parent().expect("the package is in a directory");
        let mut keeper = Command::new("unshare")
            .args(NAMESPACES)
            .args(["--fork", "--kill-child", "--mount-proc", "bash"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package/enter.sh"))
            .args([directory.path(), &kit.clean, place])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare was tried");
        let mut line = String::new();
        let stdout = keeper.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "the clean root was not made");
        let name = kit.package.file_name().expect("the package is a file");
        Self {
            keeper,
            package: format!("/package/{}", name.to_string_lossy()),
            directory,
        }
    }

    /// The package's path within.
    pub(crate) fn package(&self) -> &str {
        &self.package
    }

    /// A path within, as it is outside.
    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// A shell's line, as root.
    pub(crate) fn root(&self, line: &str) -> Cmd {
        self.enter()
            // What is owned by others is so in fakeroot's memory alone; the system would refuse to make it true.
            .args([
                "HOME=/root",
                "FAKEROOTDONTTRYCHOWN=1",
                "DEBIAN_FRONTEND=noninteractive",
            ])
            .args(["fakeroot", "sh", "-e", "-c", line])
    }

    /// A shell's line, as a person who has just signed in.
    pub(crate) fn person(&self, line: &str) -> Cmd {
        // To the person everything would be their own; read-only stands for what belongs to root.
        const BECOME: &str = "mount --bind /usr /usr && mount -o remount,bind,ro /usr && cd /home/person && \
             exec unshare --user --map-user=1000 --map-group=1000 sh -e -c \"$1\"";
        self.enter()
            .args(["HOME=/home/person", "USER=person"])
            .args(["unshare", "--mount", "sh", "-c", BECOME, "sh", line])
    }

    /// Apt with the lists that were fetched for the root. There is no network to fetch anything else by.
    pub(crate) fn apt(&self, words: &str) -> Cmd {
        self.root(&format!(
            "apt-get -q -y -o Dir::State::Lists=/clean/lists -o Dir::Etc::SourceList=/clean/sources.list \
             -o Dir::Etc::SourceParts=/dev/null -o Dir::Cache::archives=/clean/archives -o APT::Sandbox::User= \
             -o Debug::NoLocking=1 {words}"
        ))
    }

    /// A command within, to which first variables and then a program are added.
    fn enter(&self) -> Cmd {
        // The namespaces are those of `unshare`, but for the one that only its child is in.
        let unshare = self.keeper.id();
        let pid = format!("--pid=/proc/{unshare}/ns/pid_for_children");
        Cmd::new("nsenter")
            .args(["--target", &unshare.to_string(), &pid])
            .args([
                "--user",
                "--preserve-credentials",
                "--mount",
                "--net",
                "--ipc",
                "--root",
            ])
            .args(["env", "--chdir=/", "--ignore-environment", "LANG=C.UTF-8"])
            .arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin")
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // Its input ends, so that it does, and with it whatever runs within.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
