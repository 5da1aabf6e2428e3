//! Alpine's package database, `lib/apk/db/installed`: which package owns which file, with what checksum.
//!
//! It is text: records separated by empty lines, each line a letter, a colon and a value. Of the letters we
//! need `P` name, `V` version, `A` architecture, `L` licence; then, for each directory `F` (with `M` for an
//! unusual owner and mode), its files `R`, each with `a` (unusual owner and mode) and `Z` (checksum).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::Digest as _;

use crate::tree::TreePath;

/// Owner, group and permission bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// The checksum of a file's bytes, or of a symbolic link's target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checksum {
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

impl Checksum {
    fn parse(text: &str) -> Option<Self> {
        let (kind, text) = text.split_at_checked(2)?;
        let bytes = BASE64.decode(text).ok()?;
        match kind {
            "Q1" => bytes.try_into().ok().map(Self::Sha1),
            "Q2" => bytes.try_into().ok().map(Self::Sha256),
            _ => None,
        }
    }

    pub(crate) fn matches(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Sha1(expected) => <[u8; 20]>::from(sha1::Sha1::digest(bytes)) == *expected,
            Self::Sha256(expected) => <[u8; 32]>::from(sha2::Sha256::digest(bytes)) == *expected,
        }
    }
}

/// A file or symbolic link that a package owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnedFile {
    pub(crate) path: TreePath,
    pub(crate) ownership: Ownership,
    pub(crate) checksum: Checksum,
}

/// A directory that a package owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnedDirectory {
    pub(crate) path: TreePath,
    pub(crate) ownership: Ownership,
}

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApkPackage {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) licence: Option<String>,
    pub(crate) directories: Vec<OwnedDirectory>,
    pub(crate) files: Vec<OwnedFile>,
    /// The record as it stands in the database, with its closing line feed.
    pub(crate) record: String,
}

/// Reads the whole database. The error names the line.
pub(crate) fn parse(text: &str) -> Result<Vec<ApkPackage>, String> {
    let mut packages = Vec::new();
    let mut record: Option<Record> = None;
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() {
            if let Some(record) = record.take() {
                packages.push(
                    record
                        .finish()
                        .map_err(|reason| format!("before line {}: {reason}", number + 1))?,
                );
            }
            continue;
        }
        let fault = |reason: &str| format!("line {}: {reason}", number + 1);
        let (letter, value) = line.split_once(':').ok_or_else(|| fault("it has no colon"))?;
        record
            .get_or_insert_default()
            .line(letter, value)
            .map_err(fault)?;
    }
    if let Some(record) = record {
        packages.push(
            record
                .finish()
                .map_err(|reason| format!("at the end: {reason}"))?,
        );
    }
    Ok(packages)
}

/// A record while its lines come in.
#[derive(Default)]
struct Record {
    name: Option<String>,
    version: Option<String>,
    arch: Option<String>,
    licence: Option<String>,
    directory: Option<String>,
    directories: Vec<OwnedDirectory>,
    files: Vec<OwnedFile>,
    /// A file whose checksum has not come yet.
    open: Option<(TreePath, Ownership)>,
    text: String,
}

impl Record {
    fn line(&mut self, letter: &str, value: &str) -> Result<(), &'static str> {
        self.text.extend([letter, ":", value, "\n"]);
        match letter {
            "P" => self.name = Some(value.into()),
            "V" => self.version = Some(value.into()),
            "A" => self.arch = Some(value.into()),
            "L" => self.licence = Some(value.into()),
            "F" => {
                self.close()?;
                self.directory = Some(value.into());
                // The empty name is the root, which needs no entry.
                if !value.is_empty() {
                    let path = TreePath::parse(value).ok_or("the directory is not a plain path")?;
                    let ownership = Ownership {
                        uid: 0,
                        gid: 0,
                        mode: 0o755,
                    };
                    self.directories.push(OwnedDirectory { path, ownership });
                }
            }
            "M" => {
                let ownership = ownership(value).ok_or("M is not owner:group:mode")?;
                // For the root, which has no entry, there is nothing to set.
                if self.directory.as_deref() != Some("") {
                    self.directories
                        .last_mut()
                        .ok_or("M comes before any directory")?
                        .ownership = ownership;
                }
            }
            "R" => {
                self.close()?;
                let directory = self
                    .directory
                    .as_ref()
                    .ok_or("a file comes before any directory")?;
                // A name of no or several components would parse, and be another file than it seems.
                let path = Some(value)
                    .filter(|name| !name.is_empty() && !name.contains('/'))
                    .and_then(|name| TreePath::parse(&format!("{directory}/{name}")))
                    .ok_or("the file is not a plain path")?;
                self.open = Some((
                    path,
                    Ownership {
                        uid: 0,
                        gid: 0,
                        mode: 0o644,
                    },
                ));
            }
            "a" => {
                let ownership = ownership(value).ok_or("a is not owner:group:mode")?;
                self.open.as_mut().ok_or("a comes before any file")?.1 = ownership;
            }
            "Z" => {
                let (path, ownership) = self.open.take().ok_or("a checksum comes before any file")?;
                let checksum = Checksum::parse(value).ok_or("the checksum is of no known kind")?;
                self.files.push(OwnedFile {
                    path,
                    ownership,
                    checksum,
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// A file without a checksum could be anything, so there must be none.
    fn close(&self) -> Result<(), &'static str> {
        if self.open.is_some() {
            Err("the file before this has no checksum")
        } else {
            Ok(())
        }
    }

    fn finish(self) -> Result<ApkPackage, &'static str> {
        self.close()?;
        Ok(ApkPackage {
            name: self.name.ok_or("the record has no name")?,
            version: self.version.ok_or("the record has no version")?,
            arch: self.arch.ok_or("the record has no architecture")?,
            licence: self.licence,
            directories: self.directories,
            files: self.files,
            record: self.text,
        })
    }
}

fn ownership(text: &str) -> Option<Ownership> {
    let mut parts = text.split(':');
    let uid = parts.next()?.parse().ok()?;
    let gid = parts.next()?.parse().ok()?;
    let mode = u32::from_str_radix(parts.next()?, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)?;
    Some(Ownership { uid, gid, mode })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // The checksums are those of "hello\n" and of the link target "busybox".
    const TEXT: &str = "\
C:Q1VFqm8pEgmviZMrdh2eQiwneFlsw=
P:sample
V:1.0-r0
A:x86_64
L:MIT
F:
M:0:0:755
F:etc
F:etc/secret
M:0:42:750
R:key
a:0:42:640
Z:Q19XLTlvrpIGYocU+yzgD3LpTyJY8=
R:plain
Z:Q19XLTlvrpIGYocU+yzgD3LpTyJY8=

P:other
V:2
A:noarch
";

    #[test]
    fn a_database_gives_packages_with_their_files_modes_and_checksums() {
        let packages = parse(TEXT).unwrap();
        assert_eq!(packages.len(), 2);
        let sample = &packages[0];
        assert_eq!(
            (sample.name.as_str(), sample.version.as_str()),
            ("sample", "1.0-r0")
        );
        assert_eq!(sample.licence.as_deref(), Some("MIT"));
        assert_eq!(sample.directories.len(), 2);
        assert_eq!(
            sample.directories[1].ownership,
            Ownership {
                uid: 0,
                gid: 42,
                mode: 0o750
            }
        );
        assert_eq!(sample.files[0].path.as_str(), "etc/secret/key");
        assert_eq!(sample.files[0].ownership.mode, 0o640);
        assert_eq!(sample.files[1].ownership.mode, 0o644);
        assert!(sample.files[1].checksum.matches(b"hello\n"));
        assert!(!sample.files[1].checksum.matches(b"hellO\n"));
        assert_eq!(format!("{}\n{}", sample.record, packages[1].record), TEXT);
    }

    #[test]
    fn a_file_without_a_checksum_is_refused() {
        let text = "P:x\nV:1\nA:a\nF:etc\nR:one\nR:two\nZ:Q19XLTlvrpIGYocU+yzgD3LpTyJY8=\n";
        assert!(parse(text).unwrap_err().contains("line 6"));
        assert!(
            parse("P:x\nV:1\nA:a\nF:etc\nR:one\n")
                .unwrap_err()
                .contains("no checksum")
        );
    }

    #[test]
    fn a_path_that_leaves_the_root_is_refused() {
        for name in ["../x", "a/../../x", ""] {
            let text = format!("P:x\nV:1\nA:a\nF:etc\nR:{name}\nZ:Q19XLTlvrpIGYocU+yzgD3LpTyJY8=\n");
            assert!(parse(&text).is_err(), "{name}");
        }
    }

    #[test]
    fn an_unknown_kind_of_checksum_is_refused() {
        assert!(
            parse("P:x\nV:1\nA:a\nF:etc\nR:one\nZ:Q9AAAA\n")
                .unwrap_err()
                .contains("no known kind")
        );
        assert!(Checksum::parse("é").is_none());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "([PVAFRaMZ]:[a-z0-9:/.=Qé]{0,12}\n|\n){0,30}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
