//! What has to be on this computer: looked for first, and installed where that can be done.
//!
//! On Debian missing packages are installed with apt, by root or through sudo, after saying which. Elsewhere the
//! commands say what is needed and end.

mod apt;
mod clean_root;
mod clients;
mod docker;
mod programs;

pub(crate) use clean_root::clean_root;
pub(crate) use clients::{devcontainer, python_clients};
pub(crate) use docker::{DockerClient, credential_helper, foreign_programs, registry, ssh_server};
pub(crate) use programs::{mariadb, nginx, postgres, redis, vite};

use crate::{
    layout::Layout,
    process::{self, find, note, step, try_capture},
};
use anyhow::{Context as _, Result, bail};
use std::{path::PathBuf, process::Command};

/// The guest agent's target.
const AGENT_TARGET: &str = "x86_64-unknown-linux-musl";
/// QEMU before this one crashes guests with two emulated CPUs: they get one.
const QEMU_MAJOR: u32 = 10;
/// Where it is not installed from here, one this old will do.
const QEMU_MAJOR_BY_HAND: u32 = 7;

/// Something that is looked for, and the Debian package that brings it.
struct Need {
    package: &'static str,
    what: &'static str,
    is_there: fn() -> bool,
    from_backports: bool,
}

const QEMU: Need = Need {
    package: "qemu-system-x86",
    what: "QEMU 10 or newer, which runs the machine where hardware virtualisation is missing",
    is_there: || {
        let wanted = if apt::is_debian() {
            QEMU_MAJOR
        } else {
            QEMU_MAJOR_BY_HAND
        };
        qemu_major().is_some_and(|major| major >= wanted)
    },
    from_backports: true,
};

const PASST: Need = Need {
    package: "passt",
    what: "passt, which connects machines to the network",
    is_there: || find("passt").is_some(),
    from_backports: false,
};

/// What the tests of machines take on this computer's side, besides Docker's clients.
const SUITE_TOOLS: [Need; 2] = [
    Need {
        package: "iproute2",
        what: "ip, by which a test has networks of its own",
        is_there: || find("ip").is_some(),
        from_backports: false,
    },
    Need {
        package: "curl",
        what: "curl, a client that knows nothing of Docker",
        is_there: || find("curl").is_some(),
        from_backports: false,
    },
];

/// A key, an agent that holds it, and what goes through an ssh tunnel.
const SSH: Need = Need {
    package: "openssh-client",
    what: "ssh, whose agent a build is lent, and whose tunnel published ports are compared with",
    is_there: || {
        let programs = ["ssh", "ssh-add", "ssh-agent", "ssh-keygen"];
        programs.iter().all(|program| find(program).is_some())
    },
    from_backports: false,
};

/// What those that take long take besides.
const LONG_SUITE_TOOLS: [Need; 3] = [
    SSH,
    Need {
        package: "git",
        what: "git, whose repositories are built from",
        is_there: || find("git").is_some(),
        from_backports: false,
    },
    Need {
        package: "pass",
        what: "pass, which keeps passwords for a credential helper, with GnuPG",
        is_there: || {
            let programs = ["pass", "tree", "gpg", "gpgconf", "gpg-agent"];
            programs.iter().all(|program| find(program).is_some())
        },
        from_backports: false,
    },
];

const IMAGE_TOOLS: [Need; 3] = [
    Need {
        package: "erofs-utils",
        what: "mkfs.erofs, which writes the guest's root file system",
        is_there: || find("mkfs.erofs").is_some(),
        from_backports: false,
    },
    Need {
        package: "python3-pip",
        what: "pip, which fetches the guest's Alpine base",
        is_there: || find("pip").or_else(|| find("pip3")).is_some(),
        from_backports: false,
    },
    Need {
        package: "debian-archive-keyring",
        what: "the keys that the guest's Debian packages are checked with",
        is_there: || std::path::Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists(),
        from_backports: false,
    },
];

/// What the desktop application takes to be built, besides Node for its front end.
const DESKTOP_TOOLS: [Need; 2] = [
    Need {
        package: "libwebkit2gtk-4.1-dev",
        what: "WebKit, which draws the window",
        is_there: || try_capture(Command::new("pkg-config").args(["--exists", "webkit2gtk-4.1"])).is_some(),
        from_backports: false,
    },
    Need {
        package: "libayatana-appindicator3-1",
        what: "the library that puts an icon into the tray",
        is_there: || {
            let place = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
            ["/usr/lib", "/usr/lib64", &place].iter().any(|place| {
                std::path::Path::new(place)
                    .join("libayatana-appindicator3.so.1")
                    .exists()
            })
        },
        from_backports: false,
    },
];

/// What a Debian package is made with, besides `dpkg-deb`, which is on every Debian.
const PACKAGE_TOOLS: [Need; 1] = [Need {
    package: "dpkg-dev",
    what: "dpkg-shlibdeps, which says what packages a program's libraries are in",
    is_there: || find("dpkg-shlibdeps").is_some(),
    from_backports: false,
}];

/// What the package's tests make a clean root with.
const MMDEBSTRAP: Need = Need {
    package: "mmdebstrap",
    what: "mmdebstrap, which makes the clean Debian that the package is tried in",
    is_there: || find("mmdebstrap").is_some(),
    from_backports: false,
};

/// The same where it is not root who makes it.
const UIDMAP: Need = Need {
    package: "uidmap",
    what: "newuidmap, by which an ordinary user unpacks files of several users",
    is_there: || find("newuidmap").is_some(),
    from_backports: false,
};

/// What driving its window takes, in tests.
const WINDOW_TOOLS: [Need; 3] = [
    Need {
        package: "webkit2gtk-driver",
        what: "WebKitWebDriver, which does in the window what a person would",
        is_there: || find("WebKitWebDriver").is_some(),
        from_backports: false,
    },
    Need {
        package: "xvfb",
        what: "Xvfb, a display for a window that nobody looks at",
        is_there: || find("Xvfb").is_some(),
        from_backports: false,
    },
    Need {
        package: "xdotool",
        what: "xdotool, which types into dialogs that are no part of a page",
        is_there: || find("xdotool").is_some(),
        from_backports: false,
    },
];

/// What every screen of the front end is tried in. Playwright's own browsers are downloads of hundreds of megabytes.
const CHROMIUM: Need = Need {
    package: "chromium",
    what: "Chromium, a browser that the window's screens are tried in",
    is_there: || find("chromium").is_some(),
    from_backports: false,
};

/// What building virtiofsd takes, which `bench fs` compares with.
const VIRTIOFSD_LIBRARIES: [Need; 2] = [
    Need {
        package: "libcap-ng-dev",
        what: "a library that virtiofsd is built with",
        is_there: || std::path::Path::new("/usr/include/cap-ng.h").exists(),
        from_backports: false,
    },
    Need {
        package: "libseccomp-dev",
        what: "another one",
        is_there: || std::path::Path::new("/usr/include/seccomp.h").exists(),
        from_backports: false,
    },
];

/// Whether the desktop application can be built, with what is there or what can be installed; says why where not. It
/// is the one part that this may be said of: everything else is needed by everybody.
pub(crate) fn desktop_tools(layout: &Layout, with_window: bool) -> Result<bool> {
    if cfg!(not(target_os = "linux")) {
        note("skipped the desktop application: this release builds it on Linux");
        return Ok(false);
    }
    if !crate::front_end::is_possible() {
        note(&format!(
            "skipped the desktop application: it needs {}",
            crate::front_end::NEEDS
        ));
        return Ok(false);
    }
    let mut needs = Vec::from(DESKTOP_TOOLS);
    if with_window {
        needs.extend(WINDOW_TOOLS);
    }
    let missing: Vec<&str> = missing(&needs).iter().map(|need| need.package).collect();
    let may_install = apt::is_debian() && may_be_root();
    if !missing.is_empty() && !may_install {
        note(&format!(
            "skipped the desktop application: it needs {} (the names are Debian's)",
            missing.join(", ")
        ));
        return Ok(false);
    }
    install_missing(layout, &needs)?;
    Ok(true)
}

/// The browser that the front end is tried in: the one that `COVE_CHROMIUM` names, as for `ui/playwright.config.ts`, or
/// the system's.
pub(crate) fn chromium(layout: &Layout) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("COVE_CHROMIUM").filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    install_missing(layout, &[CHROMIUM])?;
    find("chromium").context("chromium has gone away")
}

/// Everything that building an image takes.
pub(crate) fn image_tools(layout: &Layout) -> Result<()> {
    install_missing(layout, &IMAGE_TOOLS)?;
    rust_targets(&[AGENT_TARGET])
}

/// Whether a Debian package can be made, with what is there or what was installed for it; says why where not.
pub(crate) fn package_tools(layout: &Layout) -> Result<bool> {
    if find("dpkg-deb").is_none() || find("apt-get").is_none() {
        note("skipped the Debian package: it is made where dpkg and apt are");
        return Ok(false);
    }
    install_missing(layout, &PACKAGE_TOOLS)?;
    Ok(true)
}

/// What the peer of `bench fs` is built with.
pub(crate) fn virtiofsd_libraries(layout: &Layout) -> Result<()> {
    install_missing(layout, &VIRTIOFSD_LIBRARIES)
}

/// Everything that running a machine takes, the image included.
pub(crate) fn machine_tools(layout: &Layout) -> Result<()> {
    install_missing(layout, &needs_of_machines())?;
    rust_targets(&[AGENT_TARGET])
}

fn needs_of_machines() -> [Need; 5] {
    let [erofs, pip, keyring] = IMAGE_TOOLS;
    [QEMU, PASST, erofs, pip, keyring]
}

/// What the tests of machines take besides; with those that take long if `long`.
pub(crate) fn suite_tools(layout: &Layout, long: bool) -> Result<()> {
    let mut needs = Vec::from(SUITE_TOOLS);
    if long {
        needs.extend(LONG_SUITE_TOOLS);
    }
    install_missing(layout, &needs)
}

/// What `bench net` makes a tunnel with.
pub(crate) fn ssh_client(layout: &Layout) -> Result<()> {
    install_missing(layout, &[SSH])
}

/// Rust's standard library for other targets.
pub(crate) fn rust_targets(targets: &[&str]) -> Result<()> {
    let Some(installed) = try_capture(Command::new("rustup").args(["target", "list", "--installed"])) else {
        // Without rustup the toolchain is somebody else's care, and cargo says what it lacks.
        return Ok(());
    };
    let missing: Vec<&str> = targets
        .iter()
        .copied()
        .filter(|target| !installed.lines().any(|line| line == *target))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    step(&format!("Adding Rust targets: {}", missing.join(", ")));
    process::run(Command::new("rustup").args(["target", "add"]).args(&missing))
}

/// Those that are not there.
fn missing(needs: &[Need]) -> Vec<&Need> {
    needs.iter().filter(|need| !(need.is_there)()).collect()
}

/// The packages that bring `needs`: those of this release, or those of its backports.
fn packages(needs: &[&Need], from_backports: bool) -> Vec<&'static str> {
    needs
        .iter()
        .filter(|need| need.from_backports == from_backports)
        .map(|need| need.package)
        .collect()
}

/// What installs them, in this order.
fn installations(apt: &apt::PrivateApt, missing: &[&Need]) -> Vec<Command> {
    let installations = [
        apt.installation(&packages(missing, false), None),
        apt.installation(&packages(missing, true), apt.backports().as_deref()),
    ];
    installations.into_iter().flatten().collect()
}

fn install_missing(layout: &Layout, needs: &[Need]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    // Those that derive from Debian have mirrors and keys of their own, and other versions.
    if !apt::is_debian() {
        bail!(by_hand(&missing));
    }
    step("Installing Debian packages");
    for need in &missing {
        note(&format!("{}: {}", need.package, need.what));
    }
    let apt = apt::PrivateApt::of_this_release(layout)?;
    apt.update()?;
    install(installations(&apt, &missing))?;
    for need in missing {
        if !(need.is_there)() {
            bail!(
                "{} was installed, but {} is still not found; look at `apt-get` output above",
                need.package,
                need.what
            );
        }
    }
    Ok(())
}

/// What a person is told where this is no Debian.
fn by_hand(missing: &[&Need]) -> String {
    let list: Vec<String> = missing
        .iter()
        .map(|need| format!("  {} ({})", need.package, need.what))
        .collect();
    format!(
        "this computer lacks the following, which is installed by itself on Debian alone (the names are Debian's):\n{}",
        list.join("\n")
    )
}

fn qemu_major() -> Option<u32> {
    let version = try_capture(Command::new("qemu-system-x86_64").arg("--version"))?;
    major_of(&version)
}

/// `QEMU emulator version 10.0.2 (Debian …)` is 10.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(3)?;
    number.split('.').next()?.parse().ok()
}

/// Runs what installs packages, or has a person do it who can become root in another way.
fn install(installations: Vec<Command>) -> Result<()> {
    if !may_be_root() {
        bail!(by_root(&installations));
    }
    for installation in installations {
        let mut command = as_root(installation);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        note(&process::words(&command));
        process::run_quietly(&mut command)?;
    }
    Ok(())
}

/// What a person is told where nobody here can become root.
fn by_root(installations: &[Command]) -> String {
    let lines: Vec<String> = installations
        .iter()
        .map(|command| format!("  {}", process::words(command)))
        .collect();
    format!(
        "packages are installed by root, and there is no sudo; as root run the following, and then this again as \
         yourself:\n{}",
        lines.join("\n")
    )
}

/// Whether [`as_root`] can make root run something.
fn may_be_root() -> bool {
    crate::unprivileged::is_root() || find("sudo").is_some()
}

/// What runs `command` as root: itself for root, sudo for everybody else.
fn as_root(command: Command) -> Command {
    if crate::unprivileged::is_root() {
        return command;
    }
    let mut sudo = Command::new("sudo");
    sudo.arg(command.get_program()).args(command.get_args());
    sudo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemus_major_version_is_read_from_what_it_says() {
        assert_eq!(
            major_of("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)"),
            Some(10)
        );
        assert_eq!(major_of("QEMU emulator version 7.2.17"), Some(7));
        assert_eq!(major_of("not qemu"), None);
    }

    const THERE: Need = Need {
        package: "there",
        what: "what is there",
        is_there: || true,
        from_backports: false,
    };
    const OLD: Need = Need {
        package: "old",
        what: "what has to be newer",
        is_there: || false,
        from_backports: true,
    };
    const GONE: Need = Need {
        package: "gone",
        what: "what is not there",
        is_there: || false,
        from_backports: false,
    };

    #[test]
    fn what_is_missing_is_installed_from_where_it_is_new_enough() {
        let needs = [THERE, OLD, GONE];
        let missing = missing(&needs);
        assert_eq!(packages(&missing, false), ["gone"]);
        assert_eq!(packages(&missing, true), ["old"]);
        assert!(super::missing(&[THERE]).is_empty());
    }

    #[test]
    fn a_fresh_debian_gets_all_that_a_machine_takes_and_a_qemu_that_is_new_enough() {
        let needs = needs_of_machines();
        let missing: Vec<&Need> = needs.iter().collect();
        for (release, qemu) in [
            ("bookworm", "-t bookworm-backports qemu-system-x86"),
            ("trixie", "qemu-system-x86"),
        ] {
            let apt = apt::PrivateApt::for_tests(release);
            let commands = installations(&apt, &missing);
            let words: Vec<String> = commands.iter().map(process::words).collect();
            let [usual, newer] = &words[..] else {
                panic!("{words:?}");
            };
            let others = "passt erofs-utils python3-pip debian-archive-keyring";
            for (said, wanted) in [(usual, others), (newer, qemu)] {
                let wanted = format!(" install --no-install-recommends {wanted}");
                assert!(said.ends_with(&wanted), "{release}: {said}");
            }
        }
    }

    #[test]
    fn the_readme_names_every_package_before_it_is_installed() {
        let readme = include_str!("../../README.md");
        let mut sections = readme.split("\n## ");
        let section = sections
            .find(|section| section.starts_with("From a checkout"))
            .unwrap();
        let section = section.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(section.contains(&format!("QEMU {QEMU_MAJOR} from backports")));
        let others = IMAGE_TOOLS
            .into_iter()
            .chain(DESKTOP_TOOLS)
            .chain(SUITE_TOOLS)
            .chain(LONG_SUITE_TOOLS)
            .chain(WINDOW_TOOLS)
            .chain(PACKAGE_TOOLS)
            .chain([PASST, MMDEBSTRAP, UIDMAP, CHROMIUM]);
        for Need { package, .. } in others {
            assert!(section.contains(&format!("`{package}`")), "{package} is missing");
        }
    }

    #[test]
    fn elsewhere_each_missing_package_is_named_with_what_it_is_for() {
        let told = by_hand(&[&OLD, &GONE]);
        assert!(
            told.ends_with(":\n  old (what has to be newer)\n  gone (what is not there)"),
            "{told}"
        );
    }

    #[test]
    fn without_sudo_the_lines_for_root_can_be_given_to_a_shell() {
        let mut installation = Command::new("apt-get");
        installation.args(["-o", "Dir::Cache=/my checkout/cache", "install", "passt"]);
        let told = by_root(&[installation]);
        assert!(
            told.ends_with(":\n  apt-get -o 'Dir::Cache=/my checkout/cache' install passt"),
            "{told}"
        );
    }
}
