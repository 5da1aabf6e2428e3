//! A clean Debian for the package's tests to install it in: the smallest that has apt, as an archive, of this computer's
//! release and from its mirror.

use super::{MMDEBSTRAP, UIDMAP, apt::PrivateApt, clients::once, install_missing};
use crate::{
    layout::Layout,
    process::{self, capture},
    unprivileged::is_root,
};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the tests work with there, besides apt: a single user cannot give files to others, which fakeroot hides from
/// dpkg; mount makes the root one; the third looks at what was installed.
const INCLUDED: &str = "desktop-file-utils,fakeroot,mount";
/// What the tests of the whole look at the window with.
const DISPLAY: [&str; 2] = ["xvfb", "x11-utils"];

/// A directory with `base.tar`, the root; `lists` and `sources.list`, by which apt resolves; and, if `whole`, everything
/// that `package` and the programs that it recommends depend on, in `archives`.
pub(crate) fn clean_root(layout: &Layout, package: &Path, whole: bool) -> Result<PathBuf> {
    let place = layout.tools().join("clean-root");
    let apt = PrivateApt::of_this_release(layout)?;
    once(&place, &format!("Debian {}", apt.release()), || {
        let mut needs = vec![MMDEBSTRAP];
        if !is_root() {
            needs.push(UIDMAP);
        }
        install_missing(layout, &needs)?;
        apt.update()?;
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--variant=apt", "--format=tar", "--skip=output/dev"]);
        bootstrap.arg(format!("--include={INCLUDED}")).arg(apt.release());
        bootstrap.arg(place.join("base.tar")).arg(apt.sources());
        process::run_quietly(&mut bootstrap)?;
        keep_lists(&apt, &place)
    })?;
    if whole {
        let archives = place.join("archives");
        let depends = field(package, "Depends")?;
        let recommends = field(package, "Recommends")?;
        once(&archives, &format!("{depends}, {recommends}"), || {
            let mut wanted: Vec<&str> = recommends.split(", ").collect();
            wanted.extend(DISPLAY);
            let package = package.to_str().context("the package's path is no text")?;
            wanted.push(package);
            // By those that the root was made with, packages might be looked for that the mirror has no more.
            apt.update()?;
            keep_lists(&apt, &place)?;
            apt.download_all(&wanted, &archives).map(drop)
        })?;
    }
    Ok(place)
}

/// Copies apt's lists to beside the root: what was downloaded by these is found by these, whatever is fetched later.
fn keep_lists(apt: &PrivateApt, place: &Path) -> Result<()> {
    let lists = place.join("lists");
    // Those of other suites or of another day would be mixed with them.
    let _ = fs::remove_dir_all(&lists);
    let mut copy = Command::new("cp");
    copy.args(["--recursive", "--no-target-directory"]);
    process::run_quietly(copy.arg(apt.lists()).arg(&lists))?;
    let sources = place.join("sources.list");
    fs::copy(apt.sources(), &sources)
        .map(drop)
        .with_context(|| format!("cannot write {}", sources.display()))
}

fn field(package: &Path, name: &str) -> Result<String> {
    capture(Command::new("dpkg-deb").arg("--field").arg(package).arg(name))
}
