//! With everything that it depends on and recommends: a machine, and the window.

use crate::{root::Root, usual::daemon};
use cove_tests::harness::{eventually, within};
use std::{process::Child, time::Duration};

/// Some hundreds of packages, on a busy computer.
const INSTALL_LIMIT: Duration = Duration::from_mins(15);
const BOOT_LIMIT: Duration = Duration::from_mins(6);

pub(crate) fn apt_installs_it_with_everything(root: &Root) {
    let package = root.package();
    let recommended = root
        .root(&format!("dpkg-deb --field {package} Recommends"))
        .ok()
        .replace(',', "");
    root.apt(&format!(
        "--no-install-recommends install xvfb x11-utils {recommended} {package}"
    ))
    .limit(INSTALL_LIMIT)
    .ok();
    let state = root.root("dpkg-query --show --showformat '${Status}' cove").ok();
    assert_eq!(state, "install ok installed");
    let missing = root
        .root("ldd /usr/bin/cove /usr/bin/cove-desktop /usr/bin/docker-credential-cove | grep 'not found' || true")
        .ok();
    assert_eq!(missing, "", "libraries are missing");
    // Without a session there is no keyring, which the helper says where the Docker client reads it.
    let list = "unset DBUS_SESSION_BUS_ADDRESS DISPLAY XDG_RUNTIME_DIR; \
                if docker-credential-cove list >said; then exit 9; fi; cat said; rm said";
    let said = root.person(list).ok();
    assert!(said.contains("there is no session bus"), "{said}");
}

pub(crate) fn a_person_runs_a_container(root: &Root) {
    root.person("cove start").limit(BOOT_LIMIT).ok();
    let said = root.person("cove docker run --rm alpine echo from a container");
    assert_eq!(said.limit(BOOT_LIMIT).ok(), "from a container");
}

pub(crate) fn an_upgrade_leaves_the_machine_running(root: &Root) {
    let first = daemon(root);
    root.root(&format!("dpkg --install {}", root.package())).ok();
    assert_eq!(daemon(root), first, "another daemon runs");
    let said = root.person("cove docker run --rm alpine echo still there");
    assert_eq!(said.limit(BOOT_LIMIT).ok(), "still there");
    // The next daemon, of the program that was installed just now, takes the machine over.
    root.root(&format!("kill {first}")).ok();
    eventually("the daemon to end", || {
        root.root(&format!("test ! -e /proc/{first}")).run().code == Some(0)
    });
    // It starts with the first command, and finds the machine a moment later.
    eventually("the machine to be taken over", || {
        root.person("cove status").run().code == Some(0)
    });
    assert_ne!(daemon(root), first);
}

pub(crate) fn the_window_opens(root: &Root) {
    let display = Running::start(root, "display", "Xvfb :9 -screen 0 1280x820x24 -nolisten tcp");
    within(Duration::from_mins(1), "the display", || {
        let asked = root.person("DISPLAY=:9 xdpyinfo >/dev/null").run();
        (asked.code == Some(0)).then_some(())
    });
    let mut window = Running::start(
        root,
        "window",
        "env DISPLAY=:9 GDK_BACKEND=x11 LIBGL_ALWAYS_SOFTWARE=1 WEBKIT_DISABLE_DMABUF_RENDERER=1 cove-desktop",
    );
    // By the name and the class that the menu entry knows it by.
    within(Duration::from_mins(2), "the window", || {
        let tree = root.person("DISPLAY=:9 xwininfo -root -tree").ok();
        tree.lines()
            .any(|line| line.contains("\"Cove\": (\"cove-desktop\"") && line.contains("1180x760"))
            .then_some(())
    });
    let ended = window.child.try_wait().expect("it is ours");
    assert!(ended.is_none(), "the application has ended: {ended:?}");
    drop(window);
    drop(display);
}

/// A program of the person's that goes on. What we have started only waits for it, so that it is ended from within.
struct Running<'a> {
    root: &'a Root,
    name: &'static str,
    child: Child,
}

impl<'a> Running<'a> {
    fn start(root: &'a Root, name: &'static str, line: &str) -> Self {
        let line = format!("echo $$ >~/{name}.pid; exec {line}");
        let child = root.person(&line).spawn();
        Self { root, name, child }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let end = format!("kill $(cat ~/{name}.pid); rm ~/{name}.pid", name = self.name);
        // It may have ended already.
        let _ = self.root.person(&end).run();
        let _ = self.child.wait();
    }
}

pub(crate) fn removal_stops_a_machine_without_a_daemon_and_keeps_its_disk(root: &Root) {
    // It goes on without its daemon, and after the removal there would be no program left to stop it.
    let daemon = daemon(root);
    root.root(&format!("kill -9 {daemon}")).ok();
    // In brackets, so that no process of this line itself is meant.
    let machines = "grep -lzx 'machine-proces[s]' /proc/[0-9]*/cmdline | wc -l";
    assert_ne!(root.root(machines).ok(), "0", "the machine went with its daemon");
    root.root("apt-get -q -y purge cove").limit(BOOT_LIMIT).ok();
    let running = "readlink /proc/[0-9]*/exe | grep -c '/usr/bin/\\(cove\\|qemu\\|passt\\)' || true";
    eventually("everything to end", || root.root(running).ok() == "0");
    root.person("test -s ~/.local/share/cove/machines/default/data.img")
        .ok();
    // By its own power-off, and not by its processes' end: the daemon that was brought up for it has asked for it.
    let log = root.person("cat ~/.local/share/cove/logs/daemon.log").ok();
    assert!(!log.contains("was killed"), "{log}");
}
