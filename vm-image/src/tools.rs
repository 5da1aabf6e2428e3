//! The programs that a build runs, and the Debian packages that hold them.

use std::path::Path;

/// A program (or a file) that a build needs on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The program's name, or the absolute path of a file.
    pub program: &'static str,
    /// The Debian package that holds it.
    pub package: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

pub(crate) const APT_GET: &str = "apt-get";
pub(crate) const APT_CACHE: &str = "apt-cache";
pub(crate) const PIP: &str = "pip";
pub(crate) const MKFS_EROFS: &str = "mkfs.erofs";

const TOOLS: [Tool; 5] = [
    Tool {
        program: PIP,
        package: "python3-pip",
        purpose: "fetching the Alpine base",
    },
    Tool {
        program: APT_GET,
        package: "apt",
        purpose: "fetching Docker Engine",
    },
    Tool {
        program: APT_CACHE,
        package: "apt",
        purpose: "resolving Docker Engine's packages",
    },
    Tool {
        program: MKFS_EROFS,
        package: "erofs-utils",
        purpose: "writing the root file system",
    },
    Tool {
        program: "/usr/share/keyrings/debian-archive-keyring.gpg",
        package: "debian-archive-keyring",
        purpose: "authenticating Debian's packages",
    },
];

/// Everything that [`build`](crate::build) needs on a Debian host.
pub const fn required_tools() -> &'static [Tool] {
    &TOOLS
}

/// Those of [`required_tools`] that are not installed.
pub fn missing_tools() -> Vec<Tool> {
    TOOLS
        .into_iter()
        .filter(|tool| !is_installed(tool.program))
        .collect()
}

fn is_installed(program: &str) -> bool {
    if program == PIP {
        // pip comes as a module of some Python as often as it comes as a program.
        return find(PIP).or_else(|| find("pip3")).is_some();
    }
    find(program).is_some()
}

/// Where `program` is, searched as a shell would, with the system directories that an ordinary user's
/// path lacks on Debian.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let program = Path::new(program);
    if program.is_absolute() {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(Into::into))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

pub(crate) fn package_of(program: &str) -> Option<&'static str> {
    TOOLS
        .iter()
        .find(|tool| tool.program == program)
        .map(|tool| tool.package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_names_the_package_that_holds_it() {
        for tool in required_tools() {
            assert_eq!(package_of(tool.program), Some(tool.package));
        }
        assert_eq!(package_of("mkfs.nonesuch"), None);
    }

    #[test]
    fn a_program_that_nobody_installed_is_not_found() {
        assert_eq!(find("cove-no-such-program"), None);
        assert_eq!(find("/nonexistent/keyring.gpg"), None);
    }
}
