//! What takes no machine and no window.

use crate::root::Root;
use cove_tests::harness::eventually;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Child,
};

/// Where the package puts the image.
const IMAGE: &str = "/usr/lib/cove/image";
/// Where it puts what people build images of their own with.
const AGENT: &str = "/usr/lib/cove/cove-agent";
/// What a package leaves behind by Debian's own ways: dpkg's records, and what programs of others cache.
const RECORDS: [&str; 4] = ["/var/lib/dpkg", "/var/log", "/var/cache", "/etc/ld.so.cache"];

pub(crate) fn apt_finds_everything_that_it_needs(root: &Root) {
    let package = root.package();
    let planned = root
        .apt(&format!("--simulate --install-recommends install {package}"))
        .ok();
    for wanted in [
        "cove",
        "libwebkit2gtk-4.1-0",
        "libgtk-3-0",
        "qemu-system-x86",
        "passt",
    ] {
        let line = format!("Inst {wanted} ");
        assert!(planned.contains(&line), "{wanted} is not installed:\n{planned}");
    }
}

pub(crate) fn it_installs_files_of_root_alone(root: &Root) {
    let before = files(root);
    fs::write(
        root.outside("/before"),
        before.into_iter().collect::<Vec<_>>().join("\n"),
    )
    .expect("a list");
    let package = root.package();
    root.root(&format!("dpkg --force-depends --install {package}"))
        .ok();
    let changed = root.root("dpkg --verify cove").ok();
    assert_eq!(changed, "", "dpkg finds other files than it has installed");
    let list = format!("dpkg-deb --contents {package}");
    let others = root.root(&format!("{list} | grep -v ' root/root ' || true")).ok();
    assert_eq!(others, "", "not of root");
    let writable = root
        .root(&format!("{list} | grep '^.....w\\|^........w' || true"))
        .ok();
    assert_eq!(writable, "", "others may write them");
}

pub(crate) fn menu_shells_and_manual_know_it(root: &Root) {
    let entry = "/usr/share/applications/cove-desktop.desktop";
    root.root(&format!("desktop-file-validate {entry}")).ok();
    let sizes = root.root("cd /usr/share/icons/hicolor; ls */apps/cove.png").ok();
    assert_eq!(
        sizes,
        "128x128/apps/cove.png\n256x256/apps/cove.png\n32x32/apps/cove.png"
    );
    let completed = root.person(
        "bash -c '. /usr/share/bash-completion/completions/cove; COMP_WORDS=(cove sta); COMP_CWORD=1; _cove cove sta cove; echo ${COMPREPLY[*]}'",
    );
    assert_eq!(completed.ok(), "start status");
    root.root("head -1 /usr/share/zsh/vendor-completions/_cove | grep -x '#compdef cove'")
        .ok();
    root.root("grep -c 'complete -c cove' /usr/share/fish/vendor_completions.d/cove.fish")
        .ok();
    for page in ["cove", "cove-start", "cove-desktop", "docker-credential-cove"] {
        let text = root.root(&format!("zcat /usr/share/man/man1/{page}.1.gz")).ok();
        assert!(text.contains(".SH NAME"), "{page}: {text}");
    }
    root.root("zcat /usr/share/doc/cove/changelog.gz | grep -x '# Changelog'; test -s /usr/share/doc/cove/copyright").ok();
}

/// The name is the one that systemd 252 gives the unit that it makes of the window's entry.
pub(crate) fn a_session_that_ends_leaves_machines_the_time_to_stop(root: &Root) {
    let unit = r"/usr/lib/systemd/user/app-cove\x2ddesktop@autostart.service";
    root.root(&format!("grep -x TimeoutStopSec=90s '{unit}.d/cove.conf'"))
        .ok();
}

pub(crate) fn a_person_has_the_installed_image(root: &Root) {
    let version = json(&root.person("cove version --json").ok());
    assert!(version["image"]["engine"].is_string(), "{version}");
    let verified = root.person("cove image verify 2>&1").ok();
    assert!(verified.contains(&format!("in {IMAGE}")), "{verified}");
    root.person(&format!("test -f {AGENT}")).ok();
    // What it takes to build one is not here, and nothing may be fetched; the agent is not what is missing.
    let built = root.person("cove image build --offline 2>&1").run();
    assert_ne!(built.code, Some(0), "built of nothing");
    assert!(!built.text().contains("no guest agent"), "{}", built.text());
    let written = root.person(&format!("touch {IMAGE}/kernel")).run();
    assert_ne!(written.code, Some(0), "the person may write to the image");
    // QEMU is missing here, so that something is broken.
    let looked = root.person("cove doctor --json").run();
    looked.fails_with(1);
    let checks = json(&looked.text());
    let found = checks
        .as_array()
        .or_else(|| checks["checks"].as_array())
        .expect("a list");
    let image = found
        .iter()
        .find(|check| check["name"] == "image")
        .expect("a check of the image");
    assert_eq!(image["state"], "ok", "{image}");
    // An own image goes before the installed one, even if nothing can be made of it.
    let own = "mkdir -p ~/.local/share/cove/image";
    root.person(&format!("{own}; cove image verify"))
        .run()
        .fails_with(5);
    root.person("rmdir ~/.local/share/cove/image; cove image verify")
        .ok();
}

pub(crate) fn an_upgrade_leaves_the_daemon_alone(root: &Root) {
    root.person("cove config set machine.memory 2GiB").ok();
    let first = daemon(root);
    root.root(&format!("dpkg --force-depends --install {}", root.package()))
        .ok();
    assert_eq!(daemon(root), first, "another daemon runs");
    // It finds its own program and image where they are now.
    let memory = root.person("cove config get machine.memory").ok();
    assert!(memory.contains("2 GiB") || memory.contains("2GiB"), "{memory}");
}

pub(crate) fn removal_ends_the_daemon_and_leaves_only_the_persons_files(root: &Root) {
    root.person("cove daemon stop; WORD=swordfish cove config get machine.memory")
        .ok();
    daemon(root);
    root.person("cove context use; grep -q '\"currentContext\": *\"cove\"' ~/.docker/config.json")
        .ok();
    let elsewhere = Elsewhere::start(root);
    assert_eq!(
        root.root(PURGE_AND_LOOK).ok(),
        "",
        "a person's variable stood on a command line"
    );
    root.root("test ! -e /trap").ok();
    drop(elsewhere);
    // Plain `docker` is not led to where nothing is any more.
    let led = "grep -rl cove ~/.docker/config.json ~/.docker/contexts || true";
    assert_eq!(root.person(led).ok(), "");
    let running = "readlink /proc/[0-9]*/exe | grep -c /usr/bin/cove || true";
    eventually("the daemon to end", || root.root(running).ok() == "0");
    let before: BTreeSet<String> = fs::read_to_string(root.outside("/before"))
        .expect("the list of before")
        .lines()
        .map(str::to_owned)
        .collect();
    let after = files(root);
    let gone: Vec<_> = before.difference(&after).collect();
    assert!(gone.is_empty(), "gone: {gone:?}");
    let left: Vec<_> = after
        .difference(&before)
        .filter(|path| !path.starts_with("/home/person/") && *path != "/before")
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let settings = root.person("cat ~/.config/cove/settings.toml").ok();
    assert!(
        settings.contains("2GiB") || settings.contains("2 GiB"),
        "{settings}"
    );
}

/// Removes the package, and lists the command lines that a person's variable was on meanwhile. In brackets, so that no
/// process of this line itself is meant. Who looks does without fakeroot, whose lock is kept by whoever is killed with
/// it.
const PURGE_AND_LOOK: &str = "touch /tmp/looking; trap 'rm -f /tmp/looking' EXIT; \
     while [ -e /tmp/looking ]; do LD_PRELOAD= grep -ls 'swo[r]dfish' /proc/[0-9]*/cmdline || true; done >/tmp/shown & \
     dpkg --purge cove >&2; rm /tmp/looking; wait; cat /tmp/shown; rm /tmp/shown";

/// A process as a container has them: with another root directory, where another program is called `/usr/bin/cove`, and
/// with variables that would have a Cove of ours leave `/trap` behind.
struct Elsewhere(Child);

impl Elsewhere {
    fn start(root: &Root) -> Self {
        const BECOME: &str = "mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir -p usr/bin usr/lib usr/lib64 old; \
             mount --rbind /usr/lib usr/lib; mount --rbind /usr/lib64 usr/lib64; \
             ln -s usr/lib usr/lib64 .; cp /usr/bin/dash usr/bin/cove; \
             pivot_root . old; export COVE_HOME=/trap; \
             exec /usr/bin/cove -c 'echo ready; read -r _' cove daemon";
        let mut child = root
            .root(&format!("exec unshare --mount sh -e -c \"{BECOME}\""))
            .spawn();
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "it does not run");
        Self(child)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Its input ends, so that it does.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// All files and directories, but for those that dpkg keeps for itself, and for what the test brings along.
fn files(root: &Root) -> BTreeSet<String> {
    let brought = "-path /clean -o -path /package -o -path '/tmp/fakeroot*'";
    let listed = root
        .root(&format!("find / -xdev \\( {brought} \\) -prune -o -print"))
        .ok();
    listed
        .lines()
        .filter(|path| !RECORDS.iter().any(|record| Path::new(path).starts_with(record)))
        .map(str::to_owned)
        .collect()
}

/// The daemon's process, which must run.
pub(crate) fn daemon(root: &Root) -> u64 {
    let version = json(&root.person("cove version --json").ok());
    version["daemon"]["pid"]
        .as_u64()
        .unwrap_or_else(|| panic!("no daemon runs: {version}"))
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
