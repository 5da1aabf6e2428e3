//! fanotify's events as the kernel writes them.

use std::ffi::{CStr, CString};

use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::sys::FileHandle;

/// What the kernel calls a directory: file system and handle.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct DirectoryKey {
    pub(super) filesystem: u64,
    pub(super) handle: FileHandle,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Metadata {
    len: u32,
    version: u8,
    reserved: u8,
    info_offset: u16,
    mask: u64,
    fd: i32,
    pid: i32,
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct InfoHeader {
    kind: u8,
    padding: u8,
    len: u16,
    filesystem: [u32; 2],
    handle_len: u32,
    handle_kind: i32,
}

/// One event, by the places that it names.
#[derive(Debug, Default)]
pub(super) struct RawEvent {
    pub(super) mask: u64,
    pub(super) at: Option<(DirectoryKey, CString)>,
    pub(super) old: Option<(DirectoryKey, CString)>,
    pub(super) new: Option<(DirectoryKey, CString)>,
}

impl RawEvent {
    pub(super) fn is_rename(&self) -> bool {
        self.mask & libc::FAN_RENAME != 0
    }
}

/// Cuts what was read into events, each with the process that caused it. The kernel wrote it, and it is checked all
/// the same.
pub(super) struct Events<'a>(pub(super) &'a [u8]);

/// An event not yet looked into.
pub(super) struct Unparsed<'a> {
    mask: u64,
    info: &'a [u8],
}

impl<'a> Iterator for Events<'a> {
    type Item = (i32, Unparsed<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (metadata, _) = Metadata::read_from_prefix(self.0).ok()?;
        let (event, rest) = self.0.split_at_checked(metadata.len as usize)?;
        if event.len() < size_of::<Metadata>() {
            return None;
        }
        self.0 = rest;
        let info = event.get(usize::from(metadata.info_offset)..).unwrap_or_default();
        Some((
            metadata.pid,
            Unparsed {
                mask: metadata.mask,
                info,
            },
        ))
    }
}

impl Unparsed<'_> {
    pub(super) fn parse(self) -> RawEvent {
        let mut raw = RawEvent {
            mask: self.mask,
            ..RawEvent::default()
        };
        let mut info = self.info;
        while let Ok((header, after)) = InfoHeader::read_from_prefix(info) {
            let Some((record, rest)) = info.split_at_checked(usize::from(header.len)) else {
                break;
            };
            if record.len() < size_of::<InfoHeader>() {
                break;
            }
            info = rest;
            let Some((handle, name)) = after.split_at_checked(header.handle_len as usize) else {
                break;
            };
            let Ok(name) = CStr::from_bytes_until_nul(name) else {
                continue;
            };
            let key = DirectoryKey {
                filesystem: u64::from(header.filesystem[0]) | u64::from(header.filesystem[1]) << 32,
                handle: FileHandle {
                    kind: header.handle_kind,
                    bytes: handle.into(),
                },
            };
            let place = Some((key, name.to_owned()));
            match header.kind {
                libc::FAN_EVENT_INFO_TYPE_DFID_NAME => raw.at = place,
                libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => raw.old = place,
                libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => raw.new = place,
                _ => {}
            }
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_cut_into_events_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            len in 0_u32..300,
        ) {
            let mut bytes = bytes;
            if bytes.len() >= 24 {
                bytes[..4].copy_from_slice(&len.to_ne_bytes());
                bytes[6..8].copy_from_slice(&24_u16.to_ne_bytes());
            }
            let mut count = 0;
            for (_, event) in Events(&bytes) {
                event.parse();
                count += 1;
            }
            prop_assert!(count <= bytes.len() / 24 + 1);
        }
    }
}
