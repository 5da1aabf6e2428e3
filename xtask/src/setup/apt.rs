//! apt with package lists of its own, so that the computer's sources stay as they are.
//!
//! The mirror and the keys are those of the computer's own configuration; only the suites differ. Lists and downloads
//! live below the target directory, and `install` writes to the system as always.

use crate::{
    layout::Layout,
    process::{self, capture, find},
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const OS_RELEASE: &str = "/etc/os-release";

/// An apt whose lists are private.
#[derive(Debug)]
pub(super) struct PrivateApt {
    directory: PathBuf,
    release: String,
    /// Whose packages, where not this computer's own.
    architecture: Option<&'static str>,
}

impl PrivateApt {
    /// With the suites of this computer's Debian release, its backports among them.
    pub(super) fn of_this_release(layout: &Layout) -> Result<Self> {
        let release = codename()?;
        let mirrors = Mirrors::of_this_computer()?;
        let mut sources = [
            release.clone(),
            format!("{release}-updates"),
            format!("{release}-backports"),
        ]
        .map(|suite| source(&mirrors.main, &suite))
        .to_vec();
        // A library that came from there has its headers there, too, and nowhere else.
        sources.extend(
            mirrors
                .security
                .map(|mirror| source(&mirror, &format!("{release}-security"))),
        );
        Self::new(layout, &release, &sources, None)
    }

    /// With one suite, to download from.
    pub(super) fn of_suite(layout: &Layout, suite: &str) -> Result<Self> {
        let sources = [source(&Mirrors::of_this_computer()?.main, suite)];
        Self::new(layout, suite, &sources, None)
    }

    /// With one suite of another processor's packages, to download from.
    pub(super) fn of_processor(layout: &Layout, suite: &str, architecture: &'static str) -> Result<Self> {
        let sources = [source(&Mirrors::of_this_computer()?.main, suite)];
        Self::new(layout, suite, &sources, Some(architecture))
    }

    fn new(
        layout: &Layout,
        release: &str,
        sources: &[String],
        architecture: Option<&'static str>,
    ) -> Result<Self> {
        let place = architecture.map_or_else(|| release.to_owned(), |other| format!("{release}-{other}"));
        let directory = layout.tools().join("apt").join(place);
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot create {}", part.display()))?;
        }
        let list = directory.join("sources.list");
        fs::write(&list, sources.concat()).with_context(|| format!("cannot write {}", list.display()))?;
        Ok(Self {
            directory,
            release: release.to_owned(),
            architecture,
        })
    }

    /// The first of its suites, or the release that they belong to.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// The file that names its suites.
    pub(super) fn sources(&self) -> PathBuf {
        self.directory.join("sources.list")
    }

    /// The directory of its lists.
    pub(super) fn lists(&self) -> PathBuf {
        self.directory.join("lists")
    }

    /// The suite to take newer packages from, where this release has one.
    pub(super) fn backports(&self) -> Option<String> {
        // From Debian 13 on the release itself has what is wanted.
        (self.release == "bookworm").then(|| format!("{}-backports", self.release))
    }

    /// Fetches the lists.
    pub(super) fn update(&self) -> Result<()> {
        let mut command = self.configured(Command::new("apt-get"));
        process::run_quietly(command.args(["-q", "update"])).context("cannot fetch Debian's package lists")
    }

    /// What installs packages on this computer, if there are any, when root runs it.
    pub(super) fn installation(&self, packages: &[&str], suite: Option<&str>) -> Option<Command> {
        if packages.is_empty() {
            return None;
        }
        let mut command = self.configured(Command::new("apt-get"));
        command.args(["-q", "-y", "install", "--no-install-recommends"]);
        if let Some(suite) = suite {
            command.args(["-t", suite]);
        }
        command.args(packages);
        Some(command)
    }

    /// Downloads a package into `directory`, without installing it, and returns its file.
    pub(super) fn download(&self, package: &str, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let mut command = self.configured(Command::new("apt-get"));
        command.current_dir(directory).args(["-q", "download", package]);
        process::run_quietly(&mut command).with_context(|| format!("cannot download {package}"))?;
        let prefix = format!("{package}_");
        fs::read_dir(directory)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            })
            .with_context(|| format!("apt-get downloaded no {package}"))
    }

    /// Downloads packages with everything that they depend on into `directory`, and returns the files. A package may be
    /// a file.
    pub(super) fn download_all(&self, packages: &[&str], directory: &Path) -> Result<Vec<PathBuf>> {
        let partial = directory.join("partial");
        fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        // Of a computer on which nothing is installed, everything is missing.
        let nothing = directory.join("status");
        fs::write(&nothing, "").with_context(|| format!("cannot write {}", nothing.display()))?;
        let mut command = self.configured(Command::new("apt-get"));
        for (option, path) in [
            ("Dir::State::status", &nothing),
            ("Dir::Cache::archives", &directory.into()),
        ] {
            command.arg("-o").arg(format!("{option}={}", path.display()));
        }
        // Nothing of the system's is touched, so its locks need not be held.
        command.args(["-o", "Debug::NoLocking=1", "-q", "-y", "install"]);
        command
            .args(["--download-only", "--no-install-recommends"])
            .args(packages);
        let names = packages.join(", ");
        process::run_quietly(&mut command)
            .with_context(|| format!("cannot download {names} with all libraries"))?;
        let files = fs::read_dir(directory)?
            .filter_map(Result::ok)
            .map(|entry| entry.path());
        let archives: Vec<_> = files
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        anyhow::ensure!(!archives.is_empty(), "apt-get downloaded nothing for {names}");
        Ok(archives)
    }

    fn configured(&self, mut command: Command) -> Command {
        let mut set = |option: &str, path: &Path| {
            command.arg("-o").arg(format!("{option}={}", path.display()));
        };
        set("Dir::State::Lists", &self.lists());
        set("Dir::Cache", &self.directory.join("cache"));
        set("Dir::Etc::SourceList", &self.sources());
        set("Dir::Etc::SourceParts", Path::new("/dev/null"));
        if let Some(architecture) = self.architecture {
            command.args(["-o", &format!("APT::Architecture={architecture}")]);
            command.args(["-o", &format!("APT::Architectures={architecture}")]);
        }
        // The user that apt downloads as may not reach into a home directory.
        command.args(["-o", "APT::Sandbox::User="]);
        command
    }
}

#[cfg(test)]
impl PrivateApt {
    /// One of a release, without lists.
    pub(super) fn for_tests(release: &str) -> Self {
        Self {
            directory: "/there".into(),
            release: release.into(),
            architecture: None,
        }
    }
}

/// One suite of a mirror, as a line of apt's list of sources.
fn source(mirror: &str, suite: &str) -> String {
    format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")
}

/// The Debian mirrors that this computer is configured for.
struct Mirrors {
    main: String,
    /// That of security updates, which is often another one.
    security: Option<String>,
}

impl Mirrors {
    fn of_this_computer() -> Result<Self> {
        let targets = index_targets()?;
        let release = codename()?;
        let main = mirror_among(&targets, &release).with_context(|| {
            format!("apt is not configured for Debian {release}: no mirror to install packages from")
        })?;
        let security = mirror_among(&targets, &format!("{release}-security"));
        Ok(Self { main, security })
    }
}

/// What apt is configured for: an address and a suite on each line.
fn index_targets() -> Result<String> {
    capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE)",
        "Created-By: Packages",
    ]))
    .context("cannot read apt's configuration")
}

fn mirror_among(targets: &str, wanted: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let (uri, suite) = line.split_once(' ')?;
        (suite == wanted).then(|| uri.trim_end_matches('/').to_owned())
    })
}

/// Whether this computer runs Debian itself, with apt.
pub(super) fn is_debian() -> bool {
    let release = fs::read_to_string(OS_RELEASE).unwrap_or_default();
    find("apt-get").is_some() && word_of("ID", &release).as_deref() == Some("debian")
}

fn codename() -> Result<String> {
    let text = fs::read_to_string(OS_RELEASE).with_context(|| format!("cannot read {OS_RELEASE}"))?;
    match word_of("VERSION_CODENAME", &text) {
        Some(codename) => Ok(codename),
        None => bail!("this is no Debian release: {OS_RELEASE} has no VERSION_CODENAME"),
    }
}

/// What os-release(5) has by that name.
fn word_of(name: &str, os_release: &str) -> Option<String> {
    os_release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|word| word.trim_matches('"').to_owned())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_the_release_itself() {
        let targets =
            "http://a/debian-security/ bookworm-security\nhttp://a/debian/ bookworm\nhttp://b/x/ nodistro";
        assert_eq!(
            mirror_among(targets, "bookworm").as_deref(),
            Some("http://a/debian")
        );
        assert_eq!(
            mirror_among(targets, "bookworm-security").as_deref(),
            Some("http://a/debian-security")
        );
        assert_eq!(mirror_among(targets, "trixie"), None);
    }

    #[test]
    fn an_installation_is_of_packages_by_private_lists() {
        let apt = PrivateApt::for_tests("bookworm");
        assert!(apt.installation(&[], None).is_none());
        let installation = apt.installation(&["passt", "xvfb"], Some("bookworm-backports"));
        let words = process::words(&installation.unwrap());
        assert!(
            words.starts_with("apt-get -o Dir::State::Lists=/there/lists "),
            "{words}"
        );
        assert!(words.ends_with(" -t bookworm-backports passt xvfb"), "{words}");
    }

    #[test]
    fn the_release_and_its_name_stand_in_os_release() {
        let bookworm = "VERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(word_of("VERSION_CODENAME", bookworm).as_deref(), Some("bookworm"));
        assert_eq!(word_of("ID", bookworm).as_deref(), Some("debian"));
        let mint = "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=\n";
        assert_eq!(word_of("ID", mint).as_deref(), Some("linuxmint"));
        assert_eq!(word_of("VERSION_CODENAME", mint), None);
    }
}
