//! Archives against the crate that also reads them, and against noise.

use super::*;
use proptest::prelude::*;
use std::fs;

fn head() -> Head {
    Head {
        mode: 0o4750,
        uid: 999,
        gid: 1000,
        modified_s: 1_700_000_000,
        size: 5,
        attributes: vec![("security.capability".to_owned(), b"\x01\0\n=\x02".to_vec())],
    }
}

#[test]
fn a_file_comes_back_with_all_that_was_kept_of_it() {
    let archive = of_file("passwd", &head(), b"hello").unwrap();
    let (found, content) = read_file(&archive[..], 5).unwrap();
    assert_eq!((found, content.as_slice()), (head(), b"hello".as_slice()));
}

#[test]
fn a_name_that_does_not_fit_into_a_header_is_whole_all_the_same() {
    let name = "n".repeat(255);
    let archive = of_file(&name, &head(), b"hello").unwrap();
    let mut archive = Archive::new(&archive[..]);
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some(name.as_str()));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let archive = of_file("big", &head(), b"hello").unwrap();
    // The content is not even there.
    let begun = &archive[..archive.len() - 1536];
    assert!(matches!(
        read_file(begun, 4),
        Err(ArchiveError::TooLarge { size: 5 })
    ));
    assert!(matches!(read_file(begun, 5), Err(ArchiveError::Broken(_))));
}

#[test]
fn a_folder_is_no_file_and_a_path_no_name() {
    let archive = of_folder("new", &new_folder(0)).unwrap();
    assert!(matches!(read_file(&archive[..], 9), Err(ArchiveError::NoFile)));
    assert!(matches!(read_file(io::empty(), 9), Err(ArchiveError::Empty)));
    for name in ["", ".", "..", "a/b", "/a", "a\0b"] {
        assert!(
            matches!(of_folder(name, &new_folder(0)), Err(ArchiveError::Name(_))),
            "{name:?}"
        );
    }
}

#[test]
fn a_folders_own_owner_and_mode_are_read_and_told_again() {
    let content = |name: &str| {
        let mut archive = Builder::new(Vec::new());
        let value: &[u8] = b"a\nb";
        archive
            .append_pax_extensions([("SCHILY.xattr.user.note", value)])
            .unwrap();
        let mut header = header(EntryType::Directory, 0o2750, 0, 7);
        header.set_uid(70);
        header.set_gid(71);
        header.set_path(name).unwrap();
        header.set_cksum();
        archive.append(&header, io::empty()).unwrap();
        archive.append_dir("inner", ".").unwrap();
        archive.into_inner().unwrap()
    };
    let root = read_root(&content("./")[..]).unwrap().unwrap();
    assert_eq!((root.mode, root.uid, root.gid), (0o2750, 70, 71));
    assert_eq!(root.attributes, [("user.note".to_owned(), b"a\nb".to_vec())]);
    let told = of_folder("volume", &root).unwrap();
    let mut told = Archive::new(&told[..]);
    let entry = told.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.path().unwrap().to_str(), Some("volume"));
    assert_eq!(entry.header().uid().unwrap(), 70);
    assert_eq!(entry.header().mode().unwrap(), 0o2750);
    assert!(entry.header().entry_type().is_dir());
    // What begins with something else says nothing of the folder.
    assert_eq!(read_root(&content("inner/")[..]).unwrap(), None);
    assert_eq!(read_root(io::empty()).unwrap(), None);
    assert!(read_root(&b"this is no archive".repeat(99)[..]).is_err());
}

/// The header of something that stands in front of an entry, and says that it has so many bytes.
fn ahead(kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = header(kind, 0, size, 0);
    header.set_path("ahead").unwrap();
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn what_stands_in_front_of_a_file_is_bounded_however_it_is_divided() {
    let too_much = |archive: &mut dyn Read| {
        let found = read_file(archive, 9);
        assert!(
            matches!(found, Err(ArchiveError::TooMuchAhead { .. })),
            "{found:?}"
        );
    };
    for kind in [
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::GNULongName,
        EntryType::GNULongLink,
    ] {
        for size in [attributes::MAX_AHEAD + 1, u64::MAX >> 1] {
            too_much(&mut ahead(kind, size).chain(io::repeat(b'a')));
        }
    }
    // Each of them is small, and there is no end of them.
    let mut one = ahead(EntryType::GNULongName, 1);
    one.resize(1024, b'a');
    too_much(&mut &one.repeat(1000)[..]);
    // So are the blocks that tell of holes.
    let sparse = ahead(EntryType::GNUSparse, 0);
    assert!(matches!(read_file(&sparse[..], 9), Err(ArchiveError::NoFile)));
}

#[cfg(unix)]
#[test]
fn a_folder_is_sent_with_its_links_as_links_and_without_its_sockets() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("site");
    fs::create_dir_all(folder.join("inner")).unwrap();
    fs::write(folder.join("inner/page"), "text").unwrap();
    std::os::unix::fs::symlink("/etc/shadow", folder.join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap();
    let mut archive = Vec::new();
    let sent = send(&[folder], &mut archive).unwrap();
    assert_eq!(
        sent,
        Sent {
            entries: 4,
            bytes: 4,
            left_out: 1,
            left_out_names: vec!["site/socket".to_owned()],
        }
    );
    let mut seen = Vec::new();
    for entry in Archive::new(&archive[..]).entries().unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            (entry.header().uid().unwrap(), entry.header().gid().unwrap()),
            (0, 0)
        );
        seen.push((
            entry.path().unwrap().display().to_string(),
            entry.header().entry_type(),
        ));
    }
    seen.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(
        seen,
        [
            ("site".to_owned(), EntryType::Directory),
            ("site/inner".to_owned(), EntryType::Directory),
            ("site/inner/page".to_owned(), EntryType::Regular),
            ("site/link".to_owned(), EntryType::Symlink),
        ]
    );
}

proptest! {
    #[test]
    fn noise_is_refused_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let _ = read_file(&bytes[..], 1024);
    }

    #[test]
    fn a_damaged_archive_gives_no_more_than_was_asked_for(at in 0_usize..2048, value in any::<u8>()) {
        let mut archive = of_file("file", &head(), b"hello").unwrap();
        let at = at % archive.len();
        archive[at] = value;
        if let Ok((_, content)) = read_file(&archive[..], 16) {
            prop_assert!(content.len() <= 16);
        }
    }
}
