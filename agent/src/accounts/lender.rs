//! `cove-agent accounts`: a socket for the helpers of one Docker client, whose questions the host answers one by one
//! over this process's standard output and input.
//!
//! ```text
//!  start ─▶ Listening ─── a helper connects ───▶ its question to the host ─▶ the answer back ─┐
//!              ▲  └ the host hangs up: SIGHUP ends this process                               │
//!              └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! However it ends, its socket's file may stay. It is named by the process, so that the next one knows which of them
//! nobody listens to any more.

use super::read_body;
use cove_wire::{ACCOUNTS_ARGUMENT, HelperAnswer, HelperCall, Lending, WireError, decode, encode};
use std::{
    env,
    fs::{self, DirBuilder, Permissions},
    io::{self, Read, Write},
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{self, ExitCode},
    time::Duration,
};

/// Where the sockets are: in memory, and root's alone.
const DIRECTORY: &str = "/run/cove-accounts";
/// How long a helper may take to say what it wants. It has read that already when it connects.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this process was started to lend accounts.
pub(crate) fn is_lender() -> bool {
    env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == ACCOUNTS_ARGUMENT)
}

/// Lends accounts until the host hangs up.
pub(crate) fn lend() -> ExitCode {
    let lent = listen(Path::new(DIRECTORY)).map_err(WireError::from);
    let lent = lent.and_then(|(listener, path)| {
        serve(
            &listener,
            &path,
            &mut io::stdin().lock(),
            &mut io::stdout().lock(),
        )
    });
    match lent {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("accounts are not lent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A socket of this process's own, and its path.
fn listen(directory: &Path) -> io::Result<(UnixListener, PathBuf)> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let owner = path.file_name().map(|name| Path::new("/proc").join(name));
        if owner.is_none_or(|owner| !owner.exists()) {
            remove(&path)?;
        }
    }
    let path = directory.join(process::id().to_string());
    // Of an earlier process with the same number.
    remove(&path)?;
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok((listener, path))
}

/// Another lender may have been faster.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Passes questions and answers on until the host has hung up.
fn serve(
    listener: &UnixListener,
    path: &Path,
    answers: &mut impl Read,
    questions: &mut impl Write,
) -> Result<(), WireError> {
    tell(questions, &Lending::Listening(path.display().to_string()))?;
    loop {
        let (mut helper, _) = listener.accept()?;
        // One that says nothing, or what makes no sense, is let go of.
        let Ok(call) = question(&mut helper) else {
            continue;
        };
        tell(questions, &Lending::Asked(call))?;
        let body = match read_body(answers) {
            Err(WireError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            body => body?,
        };
        let answer: HelperAnswer = decode(&body)?;
        // The client may have been ended meanwhile.
        let _ = helper.write_all(&encode(&answer)?);
    }
}

fn question(helper: &mut UnixStream) -> Result<HelperCall, WireError> {
    helper.set_read_timeout(Some(TIMEOUT))?;
    decode(&read_body(helper)?)
}

fn tell(host: &mut impl Write, message: &Lending) -> Result<(), WireError> {
    host.write_all(&encode(message)?)?;
    Ok(host.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cove_wire::HelperVerb;
    use std::thread;

    fn call(input: &str) -> HelperCall {
        HelperCall {
            verb: HelperVerb::Get,
            input: input.to_owned(),
        }
    }

    fn answer(output: &str) -> HelperAnswer {
        HelperAnswer {
            done: true,
            output: output.to_owned(),
        }
    }

    #[test]
    fn questions_go_to_the_host_one_by_one_and_answers_to_who_asked() {
        let scratch = tempfile::tempdir().unwrap();
        let (listener, path) = listen(scratch.path()).unwrap();
        let (mut host, lender) = UnixStream::pair().unwrap();
        let mut lender_in = lender.try_clone().unwrap();
        let mut lender_out = lender;
        let told = path.clone();
        let serving = thread::spawn(move || serve(&listener, &told, &mut lender_in, &mut lender_out));
        let listening: Lending = decode(&read_body(&mut host).unwrap()).unwrap();
        assert_eq!(listening, Lending::Listening(path.display().to_string()));
        // What makes no sense is not passed on.
        UnixStream::connect(&path)
            .unwrap()
            .write_all(b"\0\0\0\x02{}")
            .unwrap();
        let helpers = ["r.example", "other.example"].map(|registry| {
            let path = path.clone();
            thread::spawn(move || {
                let mut helper = UnixStream::connect(path).unwrap();
                helper.write_all(&encode(&call(registry)).unwrap()).unwrap();
                decode::<HelperAnswer>(&read_body(&mut helper).unwrap()).unwrap()
            })
        });
        for _ in 0..2 {
            let asked: Lending = decode(&read_body(&mut host).unwrap()).unwrap();
            let Lending::Asked(HelperCall { input, .. }) = asked else {
                panic!("{asked:?}");
            };
            host.write_all(&encode(&answer(&format!("of {input}"))).unwrap())
                .unwrap();
        }
        let answers = helpers.map(|helper| helper.join().unwrap().output);
        assert_eq!(answers, ["of r.example", "of other.example"]);
        // A host that goes while somebody asks ends it.
        let mut last = UnixStream::connect(&path).unwrap();
        last.write_all(&encode(&call("r.example")).unwrap()).unwrap();
        drop(read_body(&mut host).unwrap());
        drop(host);
        assert!(serving.join().unwrap().is_ok());
        assert!(read_body(&mut last).is_err());
    }

    #[test]
    fn sockets_that_nobody_listens_to_any_more_go_with_the_next_one() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("accounts");
        let (_listener, path) = listen(&directory).unwrap();
        assert_eq!(
            fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // No process has this number: it is beyond the kernel's largest.
        let left = directory.join("4194305");
        drop(UnixListener::bind(&left).unwrap());
        // The first process has its number always.
        let used = directory.join("1");
        drop(UnixListener::bind(&used).unwrap());
        let (_listener, again) = listen(&directory).unwrap();
        assert_eq!(again, path);
        assert!(!left.exists() && used.exists());
    }
}
