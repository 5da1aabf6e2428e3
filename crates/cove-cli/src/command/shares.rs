//! share add, list, remove.

use super::Session;
use crate::{args, exit::Exit, failure::Failure, output};
use anyhow::Context as _;
use cove_api::{MissingShare, NewShare, Share};
use std::{
    env,
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

pub(super) async fn run(session: &Session, what: args::Share) -> anyhow::Result<ExitCode> {
    match what {
        args::Share::Add { path, read_only } => {
            let path = absolute(&path)?;
            let wanted = NewShare { path, read_only };
            let client = session.daemon().await?;
            let share = session
                .during("Sharing the folder", client.add_share(&wanted))
                .await?;
            if session.json {
                output::json(&share)?;
            }
            tell(session, &share);
        }
        args::Share::List => list(session).await?,
        args::Share::Remove { path, force } => {
            let path = absolute(&path)?;
            let text = path.to_str().unwrap_or_default();
            let client = session.daemon().await?;
            session
                .during("Taking the folder away", client.remove_share(text, force))
                .await?;
            session.say(&format!("`{text}` is not shared any more"));
        }
    }
    Ok(Exit::Done.into())
}

fn tell(session: &Session, share: &Share) {
    let access = if share.read_only { " for reading" } else { "" };
    session.say(&format!("`{}` is shared{access}", share.path.display()));
    for missing in &share.missing {
        session.say(&missed(share, missing));
    }
}

fn missed(share: &Share, MissingShare { machine, why }: &MissingShare) -> String {
    format!(
        "warning: machine `{machine}` does not have `{}`: {why}",
        share.path.display()
    )
}

async fn list(session: &Session) -> anyhow::Result<()> {
    let shares = session.daemon().await?.shares().await?;
    if session.json {
        return Ok(output::json(&shares)?);
    }
    let rows: Vec<[String; 3]> = shares
        .iter()
        .map(|share| {
            let access = if share.read_only { "read" } else { "read, write" };
            [
                share.path.display().to_string(),
                access.to_owned(),
                share.machines.join(", "),
            ]
        })
        .collect();
    output::table(["FOLDER", "ACCESS", "RUNNING MACHINES"], &rows)?;
    for share in &shares {
        for missing in &share.missing {
            session.say(&missed(share, missing));
        }
    }
    Ok(())
}

/// The path as Docker clients say it: absolute and without `.` and `..`, links left as they are.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let here = working_directory().context("the working directory is not known")?;
    let clean = clean(&here.join(path));
    if clean.to_str().is_none() {
        return Err(Failure::new(
            Exit::Usage,
            format!("`{}` cannot be shared, because it is not UTF-8", clean.display()),
            "rename the folder, or share one above it",
        )
        .into());
    }
    Ok(clean)
}

/// As the shell says it: `docker -v "$PWD:…"` names the links that led here.
pub(super) fn working_directory() -> std::io::Result<PathBuf> {
    let here = env::current_dir()?;
    let said = env::var_os("PWD").map(PathBuf::from);
    let same = |said: &PathBuf| {
        said.is_absolute() && said.canonicalize().ok().as_deref() == here.canonicalize().ok().as_deref()
    };
    Ok(said.filter(same).unwrap_or(here))
}

fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            // At the root there is nothing to pop, and its parent is itself.
            Component::ParentDir => drop(clean.pop()),
            part => clean.push(part),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_path_is_absolute_and_has_no_detours() {
        for (path, expected) in [
            ("/a/./b/../c/", "/a/c"),
            ("/../a", "/a"),
            ("/a b/ü", "/a b/ü"),
            ("/", "/"),
        ] {
            assert_eq!(absolute(Path::new(path)).unwrap(), Path::new(expected));
        }
        assert!(absolute(Path::new("x")).unwrap().is_absolute());
    }

    #[test]
    #[cfg(unix)]
    fn a_path_that_is_not_text_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/\xff"));
        assert!(absolute(path).is_err());
    }
}
