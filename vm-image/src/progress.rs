//! What a build tells its caller while it runs.

use std::fmt;

/// The stages of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Fetching and authenticating the Alpine base.
    FetchBase,
    /// Fetching and authenticating the Debian packages.
    FetchPackages,
    /// Checking every file of the Alpine base against its package database.
    CheckBase,
    /// Unpacking the Debian packages.
    Unpack,
    /// Unpacking the kernel and writing the initramfs.
    Kernel,
    /// Assembling the root file system and checking that every program finds its libraries.
    Assemble,
    /// Writing the root file system.
    RootFileSystem,
    /// Writing the starter image.
    Starter,
    /// Hashing everything, writing the manifest and putting the new image in place.
    Finish,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 9] = [
        Self::FetchBase,
        Self::FetchPackages,
        Self::CheckBase,
        Self::Unpack,
        Self::Kernel,
        Self::Assemble,
        Self::RootFileSystem,
        Self::Starter,
        Self::Finish,
    ];
}

impl fmt::Display for Stage {
    /// Words for a progress line, such as "Unpacking packages".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FetchBase => "Fetching the Alpine base",
            Self::FetchPackages => "Fetching Docker Engine",
            Self::CheckBase => "Checking the Alpine base",
            Self::Unpack => "Unpacking packages",
            Self::Kernel => "Preparing the kernel",
            Self::Assemble => "Assembling the root file system",
            Self::RootFileSystem => "Writing the root file system",
            Self::Starter => "Writing the starter image",
            Self::Finish => "Sealing the image",
        })
    }
}

/// One piece of news from a build. Stages come in order, each `Started` and `Finished` once; notes come after the stage
/// that they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A stage began.
    Started(Stage),
    /// A stage got on. `done` never exceeds `total`; the unit is the stage's own (bytes, files, packages).
    Step {
        /// The stage.
        stage: Stage,
        /// How much is done.
        done: u64,
        /// How much there is to do, zero when unknown.
        total: u64,
    },
    /// A stage ended well.
    Finished(Stage),
    /// Something that a person should know although nothing failed, in one line.
    Note(String),
}

/// The caller's callback, under the name that the builder uses for it.
#[cfg(target_os = "linux")]
pub(crate) type Report<'a> = dyn FnMut(Progress) + 'a;

/// Runs `work` as `stage`, announcing its start and, when it succeeds, its end.
#[cfg(target_os = "linux")]
pub(crate) fn stage<T, E>(
    stage: Stage,
    report: &mut Report<'_>,
    work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> Result<T, E>,
) -> Result<T, E> {
    report(Progress::Started(stage));
    let value = work(&mut |done, total| report(Progress::Step { stage, done, total }))?;
    report(Progress::Finished(stage));
    Ok(value)
}
