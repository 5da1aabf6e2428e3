//! trust add, list, remove.

use super::Session;
use crate::{args, exit::Exit, failure::Failure, output};
use anyhow::Context as _;
use cove_api::{NewCertificates, Trusted};
use std::{
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

/// Largest file that is sent to the daemon, in bytes. Its own limits are narrower.
const MAX_FILE: u64 = 1 << 20;
/// Digits of a fingerprint in the list: more than enough to tell them apart.
const SHOWN: usize = 16;

pub(super) async fn run(session: &Session, what: args::Trust) -> anyhow::Result<ExitCode> {
    match what {
        args::Trust::Add { file } => {
            let pem = read(&file)?;
            let client = session.daemon().await?;
            let new = NewCertificates { pem };
            let trusted = session
                .during("Having the engines trust it", client.trust(&new))
                .await?;
            tell(session, &trusted, "is trusted")?;
        }
        args::Trust::List => {
            let trusted = session.daemon().await?.trusted().await?;
            if session.json {
                output::json(&trusted)?;
                return Ok(Exit::Done.into());
            }
            let rows: Vec<[String; 3]> = trusted
                .certificates
                .iter()
                .map(|one| {
                    let shown = one.fingerprint.chars().take(SHOWN).collect();
                    [shown, one.expires.clone(), one.subject.clone()]
                })
                .collect();
            output::table(["FINGERPRINT", "EXPIRES", "SUBJECT"], &rows)?;
            warn(session, &trusted);
        }
        args::Trust::Remove { fingerprint } => {
            let client = session.daemon().await?;
            let trusted = session
                .during("Having the engines forget it", client.distrust(&fingerprint))
                .await?;
            tell(session, &trusted, "is not trusted any more")?;
        }
    }
    Ok(Exit::Done.into())
}

fn tell(session: &Session, trusted: &Trusted, what: &str) -> anyhow::Result<()> {
    if session.json {
        output::json(trusted)?;
    }
    for certificate in &trusted.certificates {
        session.say(&format!("`{}` {what}", certificate.subject));
    }
    warn(session, trusted);
    Ok(())
}

fn warn(session: &Session, trusted: &Trusted) {
    for missing in &trusted.missing {
        session.say(&format!(
            "warning: machine `{}` has not taken this up: {}",
            missing.machine, missing.why
        ));
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(MAX_FILE).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
    };
    if let Err(error) = &read
        && error.kind() == io::ErrorKind::NotFound
    {
        return Err(Failure::new(
            Exit::NotFound,
            format!("there is no file `{}`", file.display()),
            "name a file that holds the authority's certificate, or `-` for standard input",
        )
        .into());
    }
    read.with_context(|| format!("cannot read `{}`", file.display()))?;
    // What is not text holds no PEM, and the daemon says what to do about that.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_is_named_as_such() {
        let error = read(Path::new("/nonexistent/authority.pem")).unwrap_err();
        assert!(error.downcast_ref::<Failure>().is_some(), "{error:?}");
        assert!(error.to_string().contains("authority.pem"), "{error}");
    }
}
