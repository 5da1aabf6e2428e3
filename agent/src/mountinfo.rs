//! The kernel's lists of mounts, as `/proc/PID/mountinfo` shows them (proc(5)).

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// One line of such a list.
#[derive(Debug)]
pub(crate) struct Mount<'a> {
    /// The number of the file system's device, as the kernel writes it.
    pub(crate) device: &'a [u8],
    /// What of the file system is mounted: a path in it.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    /// The type of the file system.
    pub(crate) kind: &'a [u8],
}

/// The mounts of such a list, in its order. Lines that are too short are none.
pub(crate) fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount<'_>> {
    let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
    mountinfo.split(|&byte| byte == b'\n').filter_map(move |line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let device = fields.nth(2)?;
        let (root, point) = (path(fields.next()?), path(fields.next()?));
        // Options, and then any number of fields up to a hyphen.
        fields.find(|field| *field == b"-")?;
        let kind = fields.next()?;
        Some(Mount {
            device,
            root,
            point,
            kind,
        })
    })
}

/// The mount points of such a list, in its order. Lines that are too short have none.
pub(crate) fn mount_points(mountinfo: &[u8]) -> impl DoubleEndedIterator<Item = PathBuf> {
    mountinfo
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind
            .first_chunk::<3>()
            .filter(|digits| first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let Some(digits) = digits {
            let value = digits
                .iter()
                .fold(0_u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            plain.push(value.to_le_bytes()[0]);
            rest = behind.get(3..).unwrap_or_default();
        } else {
            plain.push(first);
            rest = behind;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    #[test]
    fn a_name_that_is_no_text_keeps_no_other_from_being_read() {
        let list = b"21 20 0:5 / / rw - overlay overlay rw\n\
            22 21 0:6 / /srv/\xff\\040x rw - ext4 /dev/vdb rw\n\
            cut off\n\
            23 21 0:7 / /srv/b rw - ext4 /dev/vdb rw\n";
        let points: Vec<PathBuf> = mount_points(list).collect();
        let no_text = PathBuf::from(OsString::from_vec(b"/srv/\xff x".to_vec()));
        assert_eq!(points, [Path::new("/"), no_text.as_path(), Path::new("/srv/b")]);
    }

    #[test]
    fn a_mount_is_read_with_and_without_the_fields_that_there_may_be_any_number_of() {
        let list = b"31 22 254:16 /a\\040b /v rw,noatime shared:1 master:2 - ext4 /dev/vdb rw\n\
            32 22 0:41 / /run rw - tmpfs tmpfs rw\n\
            33 22 0:42 / /cut rw\n";
        let read: Vec<Mount<'_>> = mounts(list).collect();
        assert_eq!(read.len(), 2);
        assert_eq!(
            (read[0].device, &*read[0].root, &*read[0].point, read[0].kind),
            (&b"254:16"[..], Path::new("/a b"), Path::new("/v"), &b"ext4"[..])
        );
        assert_eq!(
            (&*read[1].point, read[1].kind),
            (Path::new("/run"), &b"tmpfs"[..])
        );
    }

    proptest! {
        #[test]
        fn escaped_names_read_back(name in "[ a-zA-Z0-9\\\\\t\n/ü]{0,40}") {
            let escape = |c: char| match c {
                ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(c)),
                other => other.to_string(),
            };
            let escaped: String = name.chars().map(escape).collect();
            prop_assert_eq!(unescape(escaped.as_bytes()), name.into_bytes());
        }

        #[test]
        fn arbitrary_lists_never_panic(list in proptest::collection::vec(any::<u8>(), 0..200)) {
            mount_points(&list).for_each(drop);
            mounts(&list).for_each(drop);
        }
    }
}
