//! Mounts of paths that are seldom what was meant, and of single files. The engine has words for each, as on a computer
//! that it runs on itself; here they have to be the same although the path is somebody else's.

use crate::{at_home, run};
use cove_tests::harness::{Cove, Finished, eventually};
use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt as _, fs::symlink},
    path::Path,
};

/// Bytes of a name that is as long as names may be.
const LONGEST_NAME: usize = 255;
/// So many of them make a path of more than half of what Linux takes.
const DEEP: usize = 9;

/// Expects a container with `folder` at `target` to fail, and to be told why.
#[track_caller]
fn fails(cove: &Cove, source: &Path, target: &str, why: &str) {
    let bind = format!("{}:{target}", source.display());
    let finished: Finished = cove.docker(["run", "--rm", "-v", &bind, "alpine", "true"]).run();
    assert_ne!(finished.code, Some(0), "{finished}");
    let said = finished.stderr.to_lowercase();
    assert!(said.contains(why), "nothing says `{why}`: {finished}");
}

pub(crate) fn odd_paths_are_mounted_or_refused_as_natively(cove: &Cove) {
    let folder = at_home(cove, "odd");
    let real = at_home(cove, "odd/real");
    fs::write(real.join("file"), "found").unwrap();

    symlink(&real, folder.join("link")).unwrap();
    assert_eq!(run(cove, &folder.join("link"), "cat /src/file").ok(), "found");
    symlink("nowhere", folder.join("dangling")).unwrap();
    fails(cove, &folder.join("dangling"), "/src", "file exists");
    assert!(!folder.join("nowhere").exists(), "the link's end was made");

    // A file where nothing is becomes one, and does not hide a directory.
    assert_eq!(run(cove, &real.join("file"), "cat /src").ok(), "found");
    fails(cove, &real.join("file"), "/etc", "directory");

    let name = "n".repeat(LONGEST_NAME);
    let deep = (0..DEEP).fold(folder.clone(), |path, _| path.join(&name));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    assert_eq!(run(cove, &deep, "cat /src/file").ok(), "deep");
    fails(cove, &folder.join(name + "n"), "/src", "file name too long");

    // Of what is not UTF-8, Docker's client makes replacement characters, and the engine a directory of that name.
    let mut bind = folder.clone().into_os_string().into_vec();
    bind.extend(b"/\xff:/src");
    cove.docker(["run", "--rm", "-v"])
        .arg(OsString::from_vec(bind))
        .args(["alpine", "touch", "/src/made"])
        .ok();
    assert!(folder.join("\u{fffd}/made").is_file());
}

/// As docs/folders.md says. Editors put a new file in the place of the old one.
pub(crate) fn a_file_mounted_by_itself_follows_its_name(cove: &Cove) {
    let folder = at_home(cove, "single");
    let file = folder.join("app.conf");
    fs::write(&file, "one").unwrap();
    let bind = format!("{}:/etc/app.conf", file.display());
    let words = [
        "run", "-d", "--init", "--name", "single", "-v", &bind, "alpine", "sleep", "1000",
    ];
    cove.docker(words).ok();
    let inside = |script: &str| cove.docker(["exec", "single", "sh", "-c", script]).run();
    assert_eq!(inside("cat /etc/app.conf").text(), "one");

    fs::write(folder.join(".app.conf.swp"), "two, which is longer").unwrap();
    fs::rename(folder.join(".app.conf.swp"), &file).unwrap();
    eventually("the new file to be read", || {
        inside("cat /etc/app.conf").text() == "two, which is longer"
    });
    let written = inside("echo three > /etc/app.conf");
    assert_eq!(written.code, Some(0), "{written}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "three\n");
    cove.docker(["rm", "-f", "single"]).ok();
}
