//! What can go wrong with an image, in words for the person who must act on it.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::tools;

/// An image could not be built, or may not be used.
///
/// `Display` says what happened and why; [`ImageError::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The directory holds no image.
    #[error("there is no image in {}", dir.display())]
    Missing {
        /// The directory.
        dir: PathBuf,
    },
    /// The manifest could not be understood.
    #[error("the image manifest {} is not readable", path.display())]
    ManifestUnreadable {
        /// The manifest.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The manifest contradicts itself or names what it may not.
    #[error("the image manifest {} was altered: {reason}", path.display())]
    ManifestAltered {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest's format is another one.
    #[error("the image in {} has manifest format {found}, this Cove reads format {supported}", dir.display())]
    Format {
        /// The image.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The format read here.
        supported: u32,
    },
    /// The image's agent speaks another protocol version.
    #[error(
        "the image in {} speaks protocol {image}, this Cove speaks {cove}: the {} is older",
        dir.display(), if image < cove { "image" } else { "program" }
    )]
    Protocol {
        /// The image.
        dir: PathBuf,
        /// The image's protocol version.
        image: u32,
        /// The version spoken here.
        cove: u32,
    },
    /// The image is for another processor.
    #[error("the image in {} is for {image}, this machine is {host}", dir.display())]
    Architecture {
        /// The image.
        dir: PathBuf,
        /// What it is for.
        image: String,
        /// What is here.
        host: String,
    },
    /// A file that the manifest describes is not there.
    #[error("{} is missing from the image", file.display())]
    FileMissing {
        /// The file.
        file: PathBuf,
    },
    /// A file is not the one that the manifest describes.
    #[error("{} does not match its manifest: expected sha256 {expected}, found {actual}", file.display())]
    Altered {
        /// The file.
        file: PathBuf,
        /// Its digest in the manifest.
        expected: Digest,
        /// Its digest on the disk.
        actual: Digest,
    },
    /// A file is not as long as the manifest says.
    #[error("{} does not match its manifest: expected {expected} bytes, found {actual}", file.display())]
    Length {
        /// The file.
        file: PathBuf,
        /// Its length in the manifest.
        expected: u64,
        /// Its length on the disk.
        actual: u64,
    },
    /// A file could not be read or written.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The disk is full. Whatever image was there before is still there.
    #[error("the disk is full, could not {operation} {}", path.display())]
    DiskFull {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// Images are built on Linux.
    #[error("an image can be built on Linux only, this is {os}")]
    UnsupportedHost {
        /// The operating system here.
        os: &'static str,
    },
    /// The recipe has a mistake.
    #[error("the recipe {recipe} is wrong: {reason}")]
    Recipe {
        /// Which recipe.
        recipe: String,
        /// The mistake.
        reason: String,
    },
    /// A program that the builder runs is not installed.
    #[error("{program} is not installed; it is needed for {purpose}")]
    ToolMissing {
        /// The program.
        program: &'static str,
        /// What for.
        purpose: &'static str,
    },
    /// The keys that Debian's packages are authenticated with are not installed.
    #[error("{} is missing; Debian's packages are authenticated with it", path.display())]
    KeyringMissing {
        /// The keyring.
        path: PathBuf,
    },
    /// A program that the builder runs failed.
    #[error("{program} failed ({status}) while {purpose}:\n{output}")]
    ToolFailed {
        /// The program.
        program: &'static str,
        /// What it was doing.
        purpose: &'static str,
        /// How it ended.
        status: String,
        /// The last lines it wrote.
        output: String,
    },
    /// A download failed.
    #[error("could not download {what}:\n{output}")]
    Download {
        /// What was wanted.
        what: String,
        /// The last lines that the package client wrote.
        output: String,
    },
    /// Something must be downloaded, and downloads were forbidden.
    #[error("{what} is not in the cache and this build is offline")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// No configured package source offers Debian.
    #[error("this machine's apt has no Debian mirror to fetch from")]
    NoMirror,
    /// The package source does not offer a package.
    #[error("{origin} does not offer {missing}")]
    NotOffered {
        /// Which packages.
        missing: String,
        /// The source.
        origin: String,
    },
    /// A download is not what it should be.
    #[error("{what} from {origin} is not authentic: expected sha256 {expected}, found {actual}")]
    NotAuthentic {
        /// The file.
        what: String,
        /// Where it came from.
        origin: String,
        /// The digest that the recipe or the signed index names.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// An archive or disk image is malformed, or tries what it must not.
    #[error("{archive} is malformed: {reason}")]
    Archive {
        /// The archive.
        archive: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Files of the Alpine base are not those of its packages.
    #[error("the Alpine base was altered:\n  {}", findings.join("\n  "))]
    BaseAltered {
        /// One line for each file.
        findings: Vec<String>,
    },
    /// Two sources want the same path.
    #[error("cannot place /{path} in the root file system: {reason}")]
    Placement {
        /// The path.
        path: String,
        /// Why not.
        reason: String,
    },
    /// A pattern or name in the recipe found nothing.
    #[error("the recipe's {what} matched nothing")]
    Unmatched {
        /// What did not match.
        what: String,
    },
    /// Programs in the image would not start.
    #[error("programs in the image miss what they need:\n  {}", missing.join("\n  "))]
    Unlinked {
        /// One line for each missing library or interpreter.
        missing: Vec<String>,
    },
    /// The kernel is not one that a machine can start.
    #[error("the kernel is not usable: {reason}")]
    Kernel {
        /// Why.
        reason: String,
    },
    /// The agent is not one that a guest can start.
    #[error("{} cannot be the agent: {reason}", path.display())]
    Agent {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
}

impl ImageError {
    /// What to do next, where there is something to do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { .. } => "build one with `cove image build`".into(),
            Self::Protocol { dir, image, cove } if image > cove => {
                format!("update Cove, or {}", remedy(dir))
            }
            Self::DiskFull { .. } => {
                "free about 2 GB and build again; the image that was there is untouched".into()
            }
            Self::UnsupportedHost { .. } => "build it on a Linux machine and copy the directory".into(),
            Self::ToolMissing { program, .. } => installation(tools::package_of(program).unwrap_or(program)),
            Self::KeyringMissing { path } => match path.to_str().and_then(tools::package_of) {
                Some(package) => installation(package),
                None => "install the keyring, or name another one in the recipe".into(),
            },
            Self::Download { .. } => "check the network and the proxy settings, then build again".into(),
            Self::Offline { .. } => "build once without --offline".into(),
            Self::NoMirror => {
                "name a mirror with the option --debian-mirror, or in COVE_DEBIAN_MIRROR".into()
            }
            Self::NotOffered { .. } => {
                "refresh with `cove image build --refresh`, or change the recipe".into()
            }
            Self::NotAuthentic { .. } => {
                "nothing was used; try again, and if it stays so, distrust the network or the mirror".into()
            }
            Self::Unlinked { .. } => "add the packages that hold them to the recipe".into(),
            Self::Agent { .. } => {
                "build it with `cargo build -p cove-agent --target x86_64-unknown-linux-musl --profile agent`"
                    .into()
            }
            _ => return self.unfit_part().map(remedy),
        };
        Some(hint)
    }

    /// The command line that does what [`hint`](Self::hint) says, where one does.
    pub fn command(&self) -> Option<&'static str> {
        let builds = match self {
            Self::Missing { .. } => true,
            Self::Protocol { image, cove, .. } if image > cove => false,
            _ => self.unfit_part().is_some_and(|path| !is_of_the_package(path)),
        };
        builds.then_some("cove image build")
    }

    /// What of an image cannot be used, where that is what is wrong: a file, or all of it.
    fn unfit_part(&self) -> Option<&Path> {
        match self {
            Self::ManifestUnreadable { path, .. }
            | Self::ManifestAltered { path, .. }
            | Self::FileMissing { file: path }
            | Self::Altered { file: path, .. }
            | Self::Length { file: path, .. }
            | Self::Format { dir: path, .. }
            | Self::Protocol { dir: path, .. }
            | Self::Architecture { dir: path, .. } => Some(path),
            _ => None,
        }
    }
}

/// How `package` is installed, and with it whatever else a build would miss next.
fn installation(package: &str) -> String {
    let others = tools::missing_tools().into_iter().map(|tool| tool.package);
    let mut packages: Vec<&str> = others.filter(|other| *other != package).collect();
    packages.dedup();
    packages.push(package);
    format!(
        "install what is missing: sudo apt-get install {}",
        packages.join(" ")
    )
}

/// What makes the image good again that is at `path`, or that the file at `path` is of.
fn remedy(path: &Path) -> String {
    if is_of_the_package(path) {
        "install the package `cove` again, or build an image of your own with `cove image build`".into()
    } else {
        "rebuild it with `cove image build`".into()
    }
}

/// Whether `path` belongs to root and to the package that this program is of; what is built is a person's own.
fn is_of_the_package(path: &Path) -> bool {
    std::env::current_exe().is_ok_and(|program| is_installed_with(&program, path))
}

/// Whether `path` is of the installation that `program` is of: below `PREFIX/lib/cove` for one in `PREFIX/bin`.
fn is_installed_with(program: &Path, path: &Path) -> bool {
    let prefix = program
        .parent()
        .filter(|parent| parent.ends_with("bin"))
        .and_then(Path::parent);
    prefix.is_some_and(|prefix| path.starts_with(prefix.join("lib/cove")))
}

/// Attaches the operation and the path to an I/O error, and tells a full disk apart.
pub(crate) trait ResultExt<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T> ResultExt<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::DiskFull {
                operation,
                path: path.to_owned(),
            },
            _ => ImageError::Io {
                operation,
                path: path.to_owned(),
                source,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_installed_if_it_lies_below_the_prefix_of_the_program() {
        let installed = |program: &str, path: &str| is_installed_with(program.as_ref(), path.as_ref());
        assert!(installed("/usr/bin/cove", "/usr/lib/cove/image/kernel"));
        assert!(installed("/usr/bin/cove (deleted)", "/usr/lib/cove/image"));
        assert!(!installed("/usr/bin/cove", "/home/u/.local/share/cove/image"));
        assert!(!installed("/usr/local/bin/cove", "/usr/lib/cove/image"));
        assert!(!installed("/src/target/debug/cove", "/src/target/lib/cove/image"));
    }

    #[test]
    fn an_image_of_ones_own_is_rebuilt() {
        let file = PathBuf::from("/home/u/.local/share/cove/image/kernel");
        let error = ImageError::FileMissing { file };
        assert_eq!(error.hint().unwrap(), "rebuild it with `cove image build`");
        assert_eq!(error.command(), Some("cove image build"));
    }

    #[test]
    fn an_image_of_a_newer_cove_is_not_replaced_by_one_command() {
        let error = |image| ImageError::Protocol {
            dir: "/home/u/.local/share/cove/image".into(),
            image,
            cove: 2,
        };
        assert!(error(3).hint().unwrap().starts_with("update Cove, or "));
        assert_eq!(error(3).command(), None);
        assert_eq!(error(1).command(), Some("cove image build"));
    }
}
