//! A compose project's files, read and written in the machine: each by the place that was found behind its links, and
//! only while it is still there.

use super::compose::{Opened, cannot, find, folder_of, invalid, placed, run};
use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    guest,
};
use cove_view::{FileText, ProjectRow, Saved};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use tauri::State;

/// The largest file that is shown and edited, in bytes.
const LARGEST: usize = 1 << 20;
/// What a script ends with that found another content than it was told.
const CHANGED: i32 = 9;

/// Prints the first `$2` bytes of the file `$1`, if no link led to it.
const READ: &str = r#"
[ -f "$1" ] || { echo "it is no file" >&2; exit 1; }
exec < "$1"
[ "$(readlink /proc/self/fd/0)" = "$1" ] || { echo "its place has changed" >&2; exit 1; }
exec head -c "$2"
"#;

/// Replaces the file `$1` in one step by its standard input of `$2` bytes, with the file's mode and owner, if its content
/// has the SHA-256 `$3`, or whatever it has if that is empty.
///
/// Everything is named within the folder that was entered, so that no link leads elsewhere. The new file is only created
/// (`set -C`), and then reached by its descriptor.
const WRITE: &str = r#"
set -eu
umask 077
fail() { echo "$1" >&2; exit 1; }
folder=${1%/*} name=./${1##*/}
cd -P "$folder/"
[ "$(readlink /proc/self/cwd)" = "$folder" ] || fail "its place has changed"
beside=$(mktemp -u ./.cove-XXXXXXXXXX)
set -C
exec 3> "$beside"
set +C
trap 'rm -f "$beside"' EXIT
trap 'exit 1' HUP INT TERM
[ -f "$name" ] || fail "it is no file"
exec 4< "$name"
[ "$(readlink /proc/self/fd/4)" = "$1" ] || fail "its place has changed"
# Not every share keeps owners.
chown "$(stat -L -c %u:%g /proc/self/fd/4)" /proc/self/fd/3 2>/dev/null || :
chmod "$(stat -L -c %a /proc/self/fd/4)" /proc/self/fd/3
said=$(dd conv=fsync 2>&1 >&3) || fail "$said"
[ "$(stat -L -c %s /proc/self/fd/3)" = "$2" ] || fail "not all of it arrived"
held=$(sha256sum < "$name")
[ -z "$3" ] || [ "${held%% *}" = "$3" ] || exit 9
mv -f "$beside" "$name"
trap - EXIT
"#;

/// The text of one of a project's files.
#[tauri::command]
pub(crate) async fn read_project_file(
    cove: State<'_, Arc<Cove>>,
    opened: State<'_, Opened>,
    name: String,
    file: String,
) -> Answer<FileText> {
    let project = find(&cove, &opened, &name).await?;
    let place = place_of(&cove, &project, &file).await?;
    read(&cove, &file, &place).await
}

/// Writes one of a project's files anew, in one step and with its mode and owner, once compose finds the project valid
/// with it, and unless it changed since it was read at `revision`. Without one it is written whatever happened to it.
///
/// What somebody writes right after this is a conflict for the next one: this text was saved.
#[tauri::command]
pub(crate) async fn write_project_file(
    cove: State<'_, Arc<Cove>>,
    opened: State<'_, Opened>,
    name: String,
    file: String,
    text: String,
    revision: Option<String>,
) -> Answer<Saved> {
    let project = find(&cove, &opened, &name).await?;
    if text.len() > LARGEST {
        return Err(too_large(&file));
    }
    let place = place_of(&cove, &project, &file).await?;
    check(&cove, &project, &file, &text).await?;
    let length = text.len().to_string();
    let known = revision.unwrap_or_default();
    let command = ["/bin/sh", "-c", WRITE, "sh", &place, &length, &known];
    let said = guest::finished(&cove, &guest::program(&command), text.as_bytes()).await?;
    match said.code {
        0 => Ok(Saved::Done {
            revision: revision_of(text.as_bytes()),
        }),
        CHANGED => Ok(Saved::Conflict),
        _ => Err(cannot("write", &file, &said.complaint)),
    }
}

/// Where a file that the project really has is in the machine, behind all links.
async fn place_of(cove: &Cove, project: &ProjectRow, file: &str) -> Answer<String> {
    let folder = folder_of(project)?;
    let index = project.files.iter().position(|known| known == file);
    let no_file = || {
        Refusal::new(
            format!("{file} is no file of the project {}", project.name),
            "Open its folder again.",
        )
    };
    let index = index.ok_or_else(no_file)?;
    let places = placed(cove, folder, &project.files).await?;
    // The first is the folder's.
    places.into_iter().nth(index + 1).ok_or_else(no_file)
}

/// Has compose read the project with this text in place of a file.
async fn check(cove: &Cove, project: &ProjectRow, file: &str, text: &str) -> Answer<()> {
    let mut words = project.words(Some(file));
    words.extend(["config", "--quiet"].map(str::to_owned));
    let exec = guest::docker(words, project.folder.as_deref());
    let said = guest::finished(cove, &exec, text.as_bytes()).await?;
    if said.code == 0 {
        Ok(())
    } else {
        Err(invalid(file, &said.complaint))
    }
}

async fn read(cove: &Cove, file: &str, place: &str) -> Answer<FileText> {
    let most = (LARGEST + 1).to_string();
    let command = ["/bin/sh", "-c", READ, "sh", place, &most];
    let out = run(cove, &command, &[], "read", file).await?;
    if out.len() > LARGEST {
        return Err(too_large(file));
    }
    let revision = revision_of(&out);
    match String::from_utf8(out) {
        Ok(text) if !text.contains('\0') => Ok(FileText { text, revision }),
        _ => Err(Refusal::new(format!("{file} is no text"), "")),
    }
}

/// What a file's content is told by: its SHA-256, which the machine can compare by itself.
fn revision_of(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

fn too_large(file: &str) -> Refusal {
    Refusal::new(format!("{file} is larger than 1 MiB"), "Open it elsewhere.")
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::{
        fs,
        io::Write as _,
        os::unix::fs::{PermissionsExt as _, symlink},
        path::{Path, PathBuf},
        process::{Command, Output, Stdio},
    };

    fn sh(script: &str, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new("/bin/sh")
            .args(["-c", script, "sh"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A script that refuses its file reads no input.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().canonicalize().unwrap().join("a shop");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("compose.yaml"), "before").unwrap();
        (place, folder)
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_only_from_the_content_that_was_read() {
        let (_place, folder) = folder();
        let file = folder.join("compose.yaml");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let path = file.to_str().unwrap();
        let ended = sh(WRITE, &[path, "5", &revision_of(b"other")], "after");
        assert_eq!(ended.status.code(), Some(CHANGED));
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), names(&folder)),
            ("before", 1)
        );
        let ended = sh(WRITE, &[path, "6", ""], "after");
        assert_eq!(ended.status.code(), Some(1), "a text that is cut off is written");
        let ended = sh(WRITE, &[path, "5", &revision_of(b"before")], "after");
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(
            (fs::read_to_string(&file).unwrap().as_str(), names(&folder)),
            ("after", 1)
        );
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        let ended = sh(READ, &[path, "3"], "");
        assert_eq!(ended.stdout, b"aft");
    }

    #[test]
    fn a_link_in_place_of_a_file_or_its_folder_is_neither_read_nor_written_through() {
        let (place, folder) = folder();
        let secret = place.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        let file = folder.join("linked.yaml");
        symlink(&secret, &file).unwrap();
        let elsewhere = place.path().canonicalize().unwrap().join("elsewhere");
        symlink(&folder, &elsewhere).unwrap();
        for path in [file, elsewhere.join("compose.yaml")] {
            let path = path.to_str().unwrap();
            let read = sh(READ, &[path, "10"], "");
            assert_eq!((read.status.code(), read.stdout), (Some(1), Vec::new()));
            assert_eq!(sh(WRITE, &[path, "3", ""], "bad").status.code(), Some(1));
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(fs::read_to_string(folder.join("compose.yaml")).unwrap(), "before");
        assert_eq!(names(&folder), 2);
    }
}
