//! Debian packages: the control format, and taking files out of a `.deb`.
//!
//! A `.deb` is an `ar` archive of three members: `debian-binary`, `control.tar.*` and `data.tar.*`. It is read
//! as a stream, only the files that the recipe keeps are taken, and they go into a [`Tree`](crate::tree)'s
//! nodes: an archive says where its files lie in the image, and has no say in where they lie on the host.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;

use crate::error::{ImageError, ResultExt as _};
use crate::pattern::Pattern;
use crate::tree::{Content, Node, TreePath};

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const AR_HEADER: usize = 60;
/// What one package may unpack to: the largest of ours has 120 MB.
const MAX_UNPACKED: u64 = 2 << 30;
/// Contents from this length on wait on the disk.
const SPILL: u64 = 256 << 10;
/// The dictionary that an `.xz` may ask for: `xz -9` takes 64 MB.
const MAX_XZ_MEMORY_KB: u32 = 256 << 10;
/// A control file longer than this is not read.
const MAX_CONTROL: u64 = 1 << 20;

/// One paragraph of a control file: its fields, of which the simple, one-line ones matter here.
pub(crate) type Paragraph = BTreeMap<String, String>;

/// Reads a control file (`deb822`): paragraphs of `Field: value` lines, continued by lines that start with a
/// space. Lines that are neither are passed over, as apt does.
pub(crate) fn parse_control(text: &str) -> Vec<Paragraph> {
    let mut paragraphs = Vec::new();
    let mut paragraph = Paragraph::new();
    let mut last: Option<String> = None;
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if !paragraph.is_empty() {
                paragraphs.push(std::mem::take(&mut paragraph));
            }
            last = None;
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = last.as_ref().and_then(|field| paragraph.get_mut(field)) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            paragraph.insert(field.to_owned(), value.trim().to_owned());
            last = Some(field.to_owned());
        }
    }
    paragraphs
}

/// An open package file.
pub(crate) struct Deb {
    path: PathBuf,
    file: File,
    members: Vec<Member>,
}

struct Member {
    name: String,
    offset: u64,
    length: u64,
}

impl Deb {
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let mut file = File::open(path).at("open", path)?;
        let members = read_members(&mut file).map_err(|reason| malformed(path, reason))?;
        if members
            .first()
            .is_none_or(|member| member.name != "debian-binary")
        {
            return Err(malformed(path, "it does not start with debian-binary"));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            members,
        })
    }

    /// The package's control paragraph.
    pub(crate) fn control(&mut self) -> Result<Paragraph, ImageError> {
        let path = self.path.clone();
        let mut archive = tar::Archive::new(self.member("control.tar")?.take(MAX_CONTROL * 4));
        let fault = |error: io::Error| malformed(&path, format!("control: {error}"));
        for entry in archive.entries().map_err(fault)? {
            let entry = entry.map_err(fault)?;
            if entry
                .path_bytes()
                .strip_prefix(b"./")
                .unwrap_or(&entry.path_bytes())
                == b"control"
            {
                let mut text = String::new();
                entry.take(MAX_CONTROL).read_to_string(&mut text).map_err(fault)?;
                let paragraph = parse_control(&text).into_iter().next();
                return paragraph.ok_or_else(|| malformed(&path, "its control file is empty"));
            }
        }
        Err(malformed(&path, "it has no control file"))
    }

    /// Takes the files that `keep` or `always` match. Each pattern of `keep` must match something. Large
    /// contents are written to new files in `spill`, whose names start with `label`.
    pub(crate) fn take(
        &mut self,
        keep: &[Pattern],
        always: &[Pattern],
        spill: &Path,
        label: &str,
    ) -> Result<Vec<(TreePath, Node)>, ImageError> {
        let path = self.path.clone();
        let fault = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => ImageError::DiskFull {
                operation: "write to",
                path: spill.to_owned(),
            },
            _ => malformed(&path, error.to_string()),
        };
        let mut used = vec![false; keep.len()];
        let mut taken = Vec::new();
        let mut archive = tar::Archive::new(self.member("data.tar")?.take(MAX_UNPACKED));
        for entry in archive.entries().map_err(fault)? {
            let mut entry = entry.map_err(fault)?;
            let name = String::from_utf8(entry.path_bytes().into_owned())
                .map_err(|_| malformed(&path, "a file name is not UTF-8"))?;
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                continue;
            }
            let at = TreePath::parse(&name)
                .ok_or_else(|| malformed(&path, format!("{name:?} is not a plain path")))?;
            let mut wanted = always.iter().any(|pattern| pattern.matches(at.as_str()));
            for (pattern, used) in keep.iter().zip(&mut used) {
                if pattern.matches(at.as_str()) {
                    (wanted, *used) = (true, true);
                }
            }
            if !wanted {
                continue;
            }
            let link = || -> Result<String, ImageError> {
                let target = entry
                    .link_name_bytes()
                    .ok_or_else(|| malformed(&path, format!("/{at} has no target")))?;
                String::from_utf8(target.into_owned())
                    .map_err(|_| malformed(&path, "a link target is not UTF-8"))
            };
            let node = if kind.is_symlink() {
                Node::Symlink { target: link()? }
            } else if kind.is_hard_link() {
                let target = link()?;
                let target = TreePath::parse(&target)
                    .ok_or_else(|| malformed(&path, format!("{target:?} is not a plain path")))?;
                Node::Symlink {
                    target: format!("/{target}"),
                }
            } else if kind.is_file() {
                // Only the permission bits: the type is the entry's.
                let mode = entry.header().mode().map_err(fault)? & 0o7777;
                let content = read_content(&mut entry, &spill.join(format!("{label}-{}", taken.len())))?;
                Node::File { mode, content }
            } else {
                return Err(malformed(
                    &path,
                    format!("/{at} is neither a file, a directory nor a link"),
                ));
            };
            taken.push((at, node));
        }
        match keep.iter().zip(used).find(|(_, used)| !used) {
            Some((pattern, _)) => Err(ImageError::Unmatched {
                what: format!("pattern {:?} for package {label}", pattern.as_str()),
            }),
            None => Ok(taken),
        }
    }

    fn member(&mut self, stem: &str) -> Result<Box<dyn Read + '_>, ImageError> {
        let found = self.members.iter().find(|member| {
            member
                .name
                .strip_prefix(stem)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let Some(member) = found else {
            return Err(malformed(&self.path, format!("it has no {stem}")));
        };
        self.file
            .seek(SeekFrom::Start(member.offset))
            .at("read", &self.path)?;
        let reader = BufReader::with_capacity(1 << 16, (&self.file).take(member.length));
        match &member.name[stem.len()..] {
            "" => Ok(Box::new(reader)),
            ".xz" => Ok(Box::new(XzReader::new_mem_limit(reader, true, MAX_XZ_MEMORY_KB))),
            ".gz" => Ok(Box::new(flate2::bufread::GzDecoder::new(reader))),
            other => Err(malformed(
                &self.path,
                format!("{stem}{other} is compressed in an unknown way"),
            )),
        }
    }
}

fn read_content(entry: &mut impl Read, spill: &Path) -> Result<Content, ImageError> {
    let mut bytes = Vec::new();
    entry.take(SPILL).read_to_end(&mut bytes).at("unpack to", spill)?;
    if (bytes.len() as u64) < SPILL {
        return Ok(Content::Bytes(bytes));
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(spill)
        .at("create", spill)?;
    io::copy(&mut bytes.as_slice().chain(entry), &mut file).at("unpack to", spill)?;
    Ok(Content::Spilled(spill.to_owned()))
}

fn read_members(file: &mut File) -> Result<Vec<Member>, String> {
    let fault = |error: io::Error| error.to_string();
    let end = file.seek(SeekFrom::End(0)).map_err(fault)?;
    file.rewind().map_err(fault)?;
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(fault)?;
    if &magic != AR_MAGIC {
        return Err("it is not an ar archive".into());
    }
    let mut members = Vec::new();
    let mut at = AR_MAGIC.len() as u64;
    // A header's padding is one line feed, so that less than a header is the end.
    while end - at >= AR_HEADER as u64 {
        let mut header = [0; AR_HEADER];
        file.seek(SeekFrom::Start(at)).map_err(fault)?;
        file.read_exact(&mut header).map_err(fault)?;
        let (name, length) =
            parse_header(&header).ok_or_else(|| format!("the ar header at {at} is malformed"))?;
        let offset = at + AR_HEADER as u64;
        let next = offset.checked_add(length).filter(|next| *next <= end);
        let Some(next) = next else {
            return Err(format!("member {name} reaches past the end"));
        };
        members.push(Member { name, offset, length });
        at = (next + (length & 1)).min(end);
    }
    Ok(members)
}

fn parse_header(header: &[u8; AR_HEADER]) -> Option<(String, u64)> {
    if header[58..] != *b"`\n" {
        return None;
    }
    let text = |range: std::ops::Range<usize>| str::from_utf8(&header[range]).ok().map(str::trim_end);
    // Debian writes short names, some tools with a closing slash.
    let name = text(0..16)?.trim_end_matches('/').to_owned();
    let length = text(48..58)?;
    // `parse` would take a sign.
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    Some((name, length.parse().ok().filter(|_| digits)?))
}

fn malformed(path: &Path, reason: impl Into<String>) -> ImageError {
    let archive = path
        .file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned();
    ImageError::Archive {
        archive,
        reason: reason.into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A `.deb` with these `ar` members.
    fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = AR_MAGIC.to_vec();
        for (name, data) in members {
            bytes.extend(
                format!(
                    "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n",
                    0,
                    0,
                    0,
                    100_644,
                    data.len()
                )
                .bytes(),
            );
            bytes.extend(*data);
            if data.len() % 2 == 1 {
                bytes.push(b'\n');
            }
        }
        bytes
    }

    /// A raw tar entry: the crate's own builder refuses the paths that an attacker would use.
    fn tar_entry(name: &str, kind: u8, link: &str, data: &[u8]) -> Vec<u8> {
        let mut header = [0u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000755");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].fill(b' ');
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = header.to_vec();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    /// A package file with this control text and these entries.
    pub(crate) fn deb(control: &str, entries: &[Vec<u8>]) -> Vec<u8> {
        let mut data = entries.concat();
        data.resize(data.len() + 1024, 0);
        let mut control = tar_entry("./control", b'0', "", control.as_bytes());
        control.resize(control.len() + 1024, 0);
        ar(&[
            ("debian-binary", b"2.0\n"),
            ("control.tar", &control),
            ("data.tar", &data),
        ])
    }

    fn take(entries: &[Vec<u8>], keep: &[&str]) -> Result<Vec<(TreePath, Node)>, ImageError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.deb");
        fs::write(&path, deb("Package: x\n", entries)).unwrap();
        let keep: Vec<Pattern> = keep
            .iter()
            .map(|text| Pattern::from((*text).to_owned()))
            .collect();
        Deb::open(&path)?.take(&keep, &[], dir.path(), "x")
    }

    #[test]
    fn only_the_kept_files_are_taken() {
        let entries = [
            tar_entry("./usr/bin/", b'5', "", b""),
            tar_entry("./usr/bin/tool", b'0', "", b"program"),
            tar_entry("./usr/bin/alias", b'1', "./usr/bin/tool", b""),
            tar_entry("./usr/share/doc/x", b'0', "", b"text"),
        ];
        let taken = take(&entries, &["usr/bin/*"]).unwrap();
        assert_eq!(taken.len(), 2);
        assert_eq!(taken[0].0.as_str(), "usr/bin/tool");
        assert_eq!(taken[0].1, Node::file(0o755, b"program".to_vec()));
        assert_eq!(
            taken[1].1,
            Node::Symlink {
                target: "/usr/bin/tool".into()
            }
        );
    }

    #[test]
    fn a_path_that_leaves_the_root_is_refused_even_if_nobody_wants_the_file() {
        for name in ["../../etc/cron.d/evil", "./usr/../../evil", "usr/./x", ".."] {
            let error = take(&[tar_entry(name, b'0', "", b"evil")], &[]).unwrap_err();
            assert!(error.to_string().contains("not a plain path"), "{name}: {error}");
        }
    }

    #[test]
    fn an_absolute_path_lands_inside_the_image() {
        let taken = take(&[tar_entry("/etc/passwd", b'0', "", b"x")], &["**"]).unwrap();
        assert_eq!(taken[0].0.as_str(), "etc/passwd");
    }

    #[test]
    fn a_hard_link_out_of_the_root_is_refused() {
        let error = take(&[tar_entry("./x", b'1', "../../../etc/shadow", b"")], &["**"]).unwrap_err();
        assert!(error.to_string().contains("not a plain path"), "{error}");
    }

    #[test]
    fn a_device_is_refused() {
        assert!(take(&[tar_entry("./dev/sda", b'4', "", b"")], &["**"]).is_err());
    }

    #[test]
    fn a_kept_pattern_that_matches_nothing_is_an_error() {
        let error = take(&[tar_entry("./usr/bin/tool", b'0', "", b"")], &["usr/bin/absent"]).unwrap_err();
        assert!(error.to_string().contains("usr/bin/absent"), "{error}");
    }

    #[test]
    fn a_large_file_waits_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let data = vec![7; usize::try_from(SPILL).unwrap() + 3];
        let content = read_content(&mut data.as_slice(), &dir.path().join("s")).unwrap();
        assert_eq!(content, Content::Spilled(dir.path().join("s")));
        assert_eq!(*content.read().unwrap(), data);
    }

    #[test]
    fn control_paragraphs_are_read_with_their_continuations() {
        let paragraphs = parse_control(
            "Package: a\nVersion: 1:2-3\nDescription: x\n more\n .\n\n\nPackage: b\nnonsense\n",
        );
        assert_eq!(paragraphs.len(), 2);
        assert_eq!(paragraphs[0]["Version"], "1:2-3");
        assert_eq!(paragraphs[0]["Description"], "x\nmore\n.");
        assert_eq!(paragraphs[1]["Package"], "b");
    }

    #[test]
    fn a_package_tells_its_control_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.deb");
        fs::write(&path, deb("Package: x\nVersion: 2\n", &[])).unwrap();
        assert_eq!(Deb::open(&path).unwrap().control().unwrap()["Version"], "2");
    }

    #[test]
    fn a_member_longer_than_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.deb");
        let mut bytes = ar(&[("debian-binary", b"2.0\n")]);
        bytes[8 + 48..8 + 58].copy_from_slice(b"9999999999");
        fs::write(&path, bytes).unwrap();
        assert!(Deb::open(&path).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_control_parser_panic(text in any::<String>()) {
            parse_control(&text);
        }

        #[test]
        fn no_damage_makes_the_archive_reader_panic(
            damage in proptest::collection::vec((0usize..3000, any::<u8>()), 1..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.deb");
            let mut bytes = deb("Package: x\n", &[tar_entry("./usr/bin/tool", b'0', "", b"program")]);
            for (at, byte) in damage {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            fs::write(&path, bytes).unwrap();
            if let Ok(mut deb) = Deb::open(&path) {
                let _ = deb.control();
                let _ = deb.take(&[], &[Pattern::from("**".to_owned())], dir.path(), "x");
            }
        }
    }
}
