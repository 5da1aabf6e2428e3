//! Building an image: what a caller asks for, and what comes of it. The work is in `assemble`.

use std::path::PathBuf;

use crate::error::ImageError;
use crate::manifest::Manifest;
use crate::progress::Progress;

/// What to build, from what, and where.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// The agent: a static program for the guest.
    pub agent: PathBuf,
    /// The image's directory. It is replaced as a whole, or left as it is.
    pub output: PathBuf,
    /// Where downloads are kept, and locks and stamps with them.
    pub cache: PathBuf,
    /// A recipe in place of the built-in one.
    pub recipe: Option<PathBuf>,
    /// Use what the cache has, and the network not at all.
    pub offline: bool,
    /// Ask the package archive for newer versions; without this, a build uses those it used before.
    pub refresh: bool,
    /// Take every source file from this directory instead: the wheel, the `.deb` files and `SHA256SUMS`.
    pub sources: Option<PathBuf>,
    /// A Debian mirror's address in place of the machine's own.
    pub debian_mirror: Option<String>,
}

impl BuildOptions {
    /// The usual build: built-in recipe, the machine's own sources.
    pub fn new(agent: impl Into<PathBuf>, output: impl Into<PathBuf>, cache: impl Into<PathBuf>) -> Self {
        Self {
            agent: agent.into(),
            output: output.into(),
            cache: cache.into(),
            recipe: None,
            offline: false,
            refresh: false,
            sources: None,
            debian_mirror: None,
        }
    }
}

/// What a build came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is a new image.
    Built(Manifest),
    /// The image that was there is what this build would have made.
    Unchanged(Manifest),
}

impl Outcome {
    /// The manifest of the image that is there now.
    pub fn manifest(&self) -> &Manifest {
        match self {
            Self::Built(manifest) | Self::Unchanged(manifest) => manifest,
        }
    }
}

/// Builds an image, telling `progress` how it goes. It blocks: for some milliseconds if nothing changed, else for
/// tens of seconds and, the first time, for as long as 200 MB take to download.
///
/// On an error the directory is as it was.
pub fn build(options: &BuildOptions, progress: &mut dyn FnMut(Progress)) -> Result<Outcome, ImageError> {
    #[cfg(target_os = "linux")]
    return crate::assemble::build(options, progress);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (options, progress);
        Err(ImageError::UnsupportedHost {
            os: std::env::consts::OS,
        })
    }
}
