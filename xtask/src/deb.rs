//! `cargo xtask deb`: the Debian package.
//!
//! ```text
//!  cove, cove-desktop, helper, image, agent ────┐
//!  what cove writes: completions, manual pages ─┼─▶ a tree below target/deb ── dpkg-deb ──▶ cove_VERSION_amd64.deb
//!  xtask/deb: desktop file, prerm, copyright … ─┘
//! ```
//!
//! dpkg-deb is on every Debian, so that nothing else has to be fetched or compiled. The same inputs make the same
//! bytes: names are sorted and owners are root by dpkg-deb, modes are set here, and no time is later than
//! `SOURCE_DATE_EPOCH`, which is the last commit's unless it is given.

mod control;
mod tree;

use crate::{
    build, front_end,
    layout::{Layout, Profile},
    process::{self, step, try_capture},
    setup,
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::UNIX_EPOCH,
};
use tree::{Mode, Tree};

/// The release of all of Cove's packages, this one among them.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the guest image and its agent are built for.
const ARCHITECTURE: &str = "amd64";
/// Where `cove` looks for the image: beside its own `bin`.
const IMAGE: &str = "usr/lib/cove/image";
/// Where `cove image build` looks for the guest agent.
const AGENT: &str = "usr/lib/cove/cove-agent";
const TEXTS: &str = "usr/share/doc/cove";
const MANUAL: &str = "usr/share/man/man1";
/// By the name of the shell, where Debian has each look for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions/cove"),
    ("zsh", "usr/share/zsh/vendor-completions/_cove"),
    ("fish", "usr/share/fish/vendor_completions.d/cove.fish"),
];
/// Belongs to the unit that systemd makes of the window's entry in `~/.config/autostart`, `cove-desktop.desktop`
/// (systemd-xdg-autostart-generator(8)).
const AUTOSTART: &str = r"usr/lib/systemd/user/app-cove\x2ddesktop@autostart.service.d/cove.conf";
/// Icons of `src-tauri/icons`, and the sizes that they are.
const ICONS: [(&str, &str); 3] = [
    ("32x32.png", "32x32"),
    ("128x128.png", "128x128"),
    ("icon.png", "256x256"),
];

/// Builds everything that goes into the package, then the package.
pub(crate) fn run(layout: &Layout, profile: Profile) -> Result<ExitCode> {
    step("Looking for what is needed");
    ensure!(
        front_end::is_possible(),
        "the package, which holds the window, is made with {}",
        front_end::NEEDS
    );
    setup::image_tools(layout)?;
    if !(setup::package_tools(layout)? && setup::desktop_tools(layout, false)?) {
        bail!("the package cannot be made on this computer");
    }
    let programs = build::programs(layout, profile, true)?;
    build::image(layout, &programs, false)?;
    println!("{}", pack(layout, profile)?.display());
    Ok(ExitCode::SUCCESS)
}

/// Packs the programs of a profile, the image and its agent, which have been built.
pub(crate) fn pack(layout: &Layout, profile: Profile) -> Result<PathBuf> {
    step("Packing");
    if std::env::consts::ARCH != "x86_64" {
        bail!("the package is for x86-64, which this computer is not");
    }
    let place = layout.packages(profile);
    let tree = Tree::new(place.join("tree"))?;
    lay(layout, profile, &tree)?;
    let programs = [
        layout.cove(profile),
        layout.desktop(profile),
        layout.credential_helper(profile),
    ];
    let control = control::Control {
        version: VERSION,
        architecture: ARCHITECTURE,
        depends: control::libraries(&place.join("libraries"), &programs)?,
        installed_kib: tree.kib()?,
    };
    tree.write("DEBIAN/control", Mode::File, control.to_string().as_bytes())?;
    tree.copy("DEBIAN/prerm", Mode::Program, &ours(layout, "prerm"))?;
    let package = place.join(format!("cove_{VERSION}_{ARCHITECTURE}.deb"));
    // The image is packed already, and tests wait for this.
    let compression: &[&str] = match profile {
        Profile::Dev => &["-Zzstd", "-z1"],
        Profile::Release => &["-Zxz"],
    };
    tree.pack(&package, compression, epoch(layout)?)?;
    Ok(package)
}

fn lay(layout: &Layout, profile: Profile, tree: &Tree) -> Result<()> {
    let cove = layout.cove(profile);
    tree.copy("usr/bin/cove", Mode::Program, &cove)?;
    tree.copy("usr/bin/cove-desktop", Mode::Program, &layout.desktop(profile))?;
    tree.copy(
        "usr/bin/docker-credential-cove",
        Mode::Program,
        &layout.credential_helper(profile),
    )?;
    tree.copy_all(IMAGE, &layout.image())?;
    tree.copy(AGENT, Mode::Program, &layout.agent())?;
    for (shell, place) in COMPLETIONS {
        let script = process::capture(Command::new(&cove).args(["completion", shell]))?;
        tree.write(place, Mode::File, format!("{script}\n").as_bytes())?;
    }
    let pages = layout.packages(profile).join("pages");
    emptied(&pages)?;
    process::run_quietly(Command::new(&cove).arg("manual").arg(&pages))?;
    tree.copy_all(MANUAL, &pages)?;
    for page in ["cove-desktop.1", "docker-credential-cove.1"] {
        tree.copy(&format!("{MANUAL}/{page}"), Mode::File, &ours(layout, page))?;
    }
    tree.compress_all(MANUAL)?;
    let changes = format!("{TEXTS}/changelog");
    tree.copy(&changes, Mode::File, &layout.root().join("CHANGELOG.md"))?;
    tree.compress(&changes)?;
    tree.copy(
        &format!("{TEXTS}/copyright"),
        Mode::File,
        &ours(layout, "copyright"),
    )?;
    tree.copy(
        "usr/share/applications/cove-desktop.desktop",
        Mode::File,
        &ours(layout, "cove-desktop.desktop"),
    )?;
    tree.copy(AUTOSTART, Mode::File, &ours(layout, "autostart.conf"))?;
    for (file, size) in ICONS {
        let icon = layout.root().join("src-tauri/icons").join(file);
        tree.copy(
            &format!("usr/share/icons/hicolor/{size}/apps/cove.png"),
            Mode::File,
            &icon,
        )?;
    }
    Ok(())
}

/// A file that is made for the package.
fn ours(layout: &Layout, name: &str) -> PathBuf {
    layout.root().join("xtask/deb").join(name)
}

/// Seconds since 1970 that no file in the package is younger than.
fn epoch(layout: &Layout) -> Result<u64> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return given.parse().context("SOURCE_DATE_EPOCH is no number of seconds");
    }
    let mut log = Command::new("git");
    log.arg("-C")
        .arg(layout.root())
        .args(["log", "-1", "--format=%ct"]);
    if let Some(seconds) = try_capture(&mut log).and_then(|seconds| seconds.parse().ok()) {
        return Ok(seconds);
    }
    // Outside of a repository, the sources' own date.
    let changes = layout.root().join("CHANGELOG.md");
    let modified = fs::metadata(&changes).and_then(|file| file.modified());
    let modified = modified.with_context(|| format!("cannot read {}", changes.display()))?;
    Ok(modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// Makes `directory`, with nothing in it.
fn emptied(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
}
