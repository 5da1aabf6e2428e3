//! A file that was replaced under a guest that holds on to it, as it does to one that it mounted by itself.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cove_fs::Config;
use cove_fs::abi::{self, op};
use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::client::{Client, parse};

/// Neither the owner of a file nor of its group.
const SOMEBODY: u32 = 70_000;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// Without watches, so that whatever the server finds out it finds out by being asked.
fn client(path: &Path) -> Client {
    let config = Config {
        watch: false,
        ..Config::default()
    };
    Client::new(config, &[("share", path, false)])
}

/// As editors save: a new file over the old one.
fn replace(dir: &Path, name: &str, content: &str) {
    std::fs::write(dir.join(".new"), content).unwrap();
    std::fs::rename(dir.join(".new"), dir.join(name)).unwrap();
}

fn content(client: &Client, node: u64) -> Result<String, Errno> {
    let fh = client.open(node, 0)?;
    let content = client.read(node, fh, 0, 100)?;
    client.release(node, fh)?;
    Ok(String::from_utf8(content).unwrap())
}

#[test]
fn who_holds_a_file_that_was_replaced_reads_the_new_one() {
    let dir = folder();
    std::fs::write(dir.path().join("app.conf"), "one").unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let mounted = client.lookup(root, "app.conf").unwrap().node;
    assert_eq!(content(&client, mounted).unwrap(), "one");

    // By the host, at once, before the server hears of it when somebody looks the name up.
    replace(dir.path(), "app.conf", "two");
    assert_eq!(content(&client, mounted).unwrap(), "two");
    let second = client.lookup(root, "app.conf").unwrap().node;
    assert_ne!(second, mounted);
    assert_eq!(content(&client, mounted).unwrap(), "two");
    assert_eq!(client.attr(mounted).unwrap().size, 3);

    // By the guest.
    std::fs::write(dir.path().join("next"), "three").unwrap();
    client.lookup(root, "next").unwrap();
    let rename = abi::RenameIn { new_parent: root };
    let names = b"next\0app.conf\0";
    client.ask(op::RENAME, root, &[rename.as_bytes(), names]).unwrap();
    for node in [mounted, second] {
        assert_eq!(content(&client, node).unwrap(), "three");
    }

    // Removed and made again.
    client.ask(op::UNLINK, root, &[b"app.conf\0"]).unwrap();
    assert_eq!(content(&client, mounted), Err(Errno::STALE));
    std::fs::write(dir.path().join("app.conf"), "four").unwrap();
    assert_eq!(content(&client, mounted).unwrap(), "four");
    let fh = client.open(mounted, 2).unwrap();
    client.write(mounted, fh, 0, b"F").unwrap();
    assert_eq!(std::fs::read(dir.path().join("app.conf")).unwrap(), b"Four");
}

/// The guest's kernel looks a name up once more where it has led to another file, and then gives up.
#[test]
fn a_file_that_is_replaced_over_and_over_can_be_opened_by_its_name_at_any_time() {
    const ROUNDS: u32 = 300;
    let dir = folder();
    replace(dir.path(), "f", "0");
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    std::thread::scope(|scope| {
        let replacing = scope.spawn(|| {
            for version in 1..=ROUNDS {
                replace(dir.path(), "f", &version.to_string());
            }
        });
        let mut newest = 0;
        while !replacing.is_finished() {
            let node = client.lookup(root, "f").unwrap().node;
            let found: u32 = content(&client, node).unwrap().parse().unwrap();
            assert!(found >= newest, "{found} after {newest}");
            newest = found;
        }
    });
}

/// What was said of the new file must not stay with the old one, which has another name now.
#[test]
fn a_file_that_was_moved_aside_is_itself_again_once_it_is_found() {
    let dir = folder();
    std::fs::write(dir.path().join("f"), "old").unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let node = client.lookup(root, "f").unwrap().node;
    std::fs::rename(dir.path().join("f"), dir.path().join("f.bak")).unwrap();
    std::fs::write(dir.path().join("f"), "newer").unwrap();
    let fh = client.open(node, 0).unwrap();
    assert_eq!(client.read(node, fh, 0, 100).unwrap(), b"newer");
    let reply = client.ask(op::GETATTR, node, &[abi::GetattrIn::default().as_bytes()]);
    let told: abi::AttrOut = parse(&reply.unwrap());
    assert_eq!((told.attr.size, told.attr_valid, told.attr_valid_nsec), (5, 0, 0));
    assert_eq!(client.lookup(root, "f.bak").unwrap().node, node);
    assert_eq!(client.attr(node).unwrap().size, 3);
    assert_eq!(content(&client, node).unwrap(), "old");
    client.release(node, fh).unwrap();
}

#[test]
fn who_has_a_file_open_keeps_it_whatever_takes_its_name() {
    let dir = folder();
    std::fs::write(dir.path().join("f"), "one").unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let node = client.lookup(root, "f").unwrap().node;
    let first = client.open(node, 0).unwrap();
    for new in ["two", "three"] {
        replace(dir.path(), "f", new);
        client.lookup(root, "f").unwrap();
        assert_eq!(content(&client, node).unwrap(), "one");
    }
    client.release(node, first).unwrap();
    // What is open is read by all, so that the pages of one file never end up in another.
    let third = client.open(node, 0).unwrap();
    replace(dir.path(), "f", "four");
    client.lookup(root, "f").unwrap();
    assert_eq!(content(&client, node).unwrap(), "three");
    assert_eq!(client.attr(node).unwrap().size, 5);
    client.release(node, third).unwrap();
    assert_eq!(content(&client, node).unwrap(), "four");
}

#[test]
fn a_successor_is_not_opened_by_the_old_files_permissions() {
    let dir = folder();
    let path = dir.path().join("f");
    std::fs::write(&path, "public").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let node = client.lookup(root, "f").unwrap().node;
    replace(dir.path(), "f", "secret");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    client.lookup(root, "f").unwrap();
    let owner = client.uid.replace(SOMEBODY);
    assert_eq!(content(&client, node), Err(Errno::STALE));
    client.uid.set(owner);
    assert_eq!(content(&client, node).unwrap(), "secret", "to its owner");
    assert_eq!(
        client.attr(node).unwrap().mode,
        0o100_600,
        "the guest can judge now"
    );
    assert_eq!(content(&client, node).unwrap(), "secret");
}

#[test]
fn a_successor_of_another_mode_is_opened_for_what_everybody_may_do_with_it() {
    let dir = folder();
    let path = dir.path().join("f");
    std::fs::write(&path, "private").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let node = client.lookup(root, "f").unwrap().node;
    for (mode, expected) in [(0o604, Err(Errno::STALE)), (0o644, Ok("public".to_owned()))] {
        replace(dir.path(), "f", "public");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        client.lookup(root, "f").unwrap();
        let owner = client.uid.replace(SOMEBODY);
        assert_eq!(content(&client, node), expected, "{mode:o}");
        assert_eq!(
            client.open(node, 1).unwrap_err(),
            Errno::STALE,
            "to write, {mode:o}"
        );
        assert_eq!(
            client.open(node, 0x20).unwrap_err(),
            Errno::STALE,
            "to execute, {mode:o}"
        );
        client.uid.set(owner);
    }
}

#[test]
fn a_file_with_another_name_has_no_successor() {
    let dir = folder();
    std::fs::write(dir.path().join("a"), "linked").unwrap();
    std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let node = client.lookup(root, "a").unwrap().node;
    replace(dir.path(), "a", "other");
    client.lookup(root, "a").unwrap();
    assert_eq!(content(&client, node), Err(Errno::STALE));
    assert_eq!(client.lookup(root, "b").unwrap().node, node);
    assert_eq!(content(&client, node).unwrap(), "linked");
}

#[test]
fn only_a_regular_file_succeeds_another() {
    let dir = folder();
    let path = dir.path().join("f");
    std::fs::write(&path, "").unwrap();
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let node = client.lookup(root, "f").unwrap().node;
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    client.lookup(root, "f").unwrap();
    assert_eq!(content(&client, node), Err(Errno::STALE));
    assert_eq!(client.attr(node).unwrap_err(), Errno::STALE);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(content(&client, node), Err(Errno::STALE));
}

/// Its kernel would say the old size of the new file, and programs would read no more than that.
#[test]
fn a_replaced_file_whose_size_the_guest_believes_has_to_be_looked_up_again() {
    let dir = folder();
    replace(dir.path(), "f", "old");
    let client = client(dir.path());
    let root = client.walk("share").unwrap();
    let node = client.lookup(root, "f").unwrap().node;
    client.attr(node).unwrap();
    replace(dir.path(), "f", "longer");
    assert_eq!(content(&client, node), Err(Errno::STALE));
    let node = client.lookup(root, "f").unwrap().node;
    assert_eq!(content(&client, node).unwrap(), "longer");
}
