//! How a failure reaches a person or a script: `error:` with its causes and a `hint:` on standard error, the same as
//! JSON on standard output under `--json`, and an exit code.

use crate::exit::Exit;
use clap::error::ErrorKind;
use cove_api::{ApiError, ClientError, ErrorCode, LaunchError, hint_for};
use cove_daemon::DaemonError;
use cove_image::ImageError;
use serde_json::{Value, json};
use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// A failure that the command itself found.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: String,
}

impl Failure {
    /// What happened and why; what to do next, where there is something sensible to say.
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// Tells it to a person alone, where a script has been told by the data.
    pub(crate) fn tell(self, machine: &str) -> ExitCode {
        report(&self.into(), machine, false, false)
    }
}

/// What is told of an error, gathered from its chain of sources.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    exit: Exit,
    code: Option<ErrorCode>,
    message: String,
    causes: Vec<String>,
    hint: String,
}

impl Account {
    /// Of what a command about `machine` met.
    fn about(machine: &str, error: &anyhow::Error) -> Self {
        let mut account = Self::of(error);
        account.hint = hint_for(machine, &account.hint);
        account
    }

    fn of(error: &anyhow::Error) -> Self {
        let mut account = Self {
            exit: Exit::Failed,
            code: None,
            message: String::new(),
            causes: Vec::new(),
            hint: String::new(),
        };
        for (depth, cause) in error.chain().enumerate() {
            let text = cause.to_string();
            if depth == 0 {
                account.message = text;
            } else if text != account.message && account.causes.last() != Some(&text) {
                // A transparent wrapper says what its source says; once is enough.
                account.causes.push(text);
            }
            if let Some(api) =
                cause
                    .downcast_ref::<ApiError>()
                    .or_else(|| match cause.downcast_ref::<ClientError>() {
                        Some(ClientError::Api(api)) => Some(api),
                        _ => None,
                    })
            {
                account.exit = api.code.into();
                account.code = Some(api.code);
                account.hint.clone_from(&api.hint);
            } else if let Some(failure) = cause.downcast_ref::<Failure>() {
                account.exit = failure.exit;
                account.hint.clone_from(&failure.hint);
            } else if let Some(launch) = cause.downcast_ref::<LaunchError>() {
                match launch {
                    LaunchError::Silent => account.exit = Exit::Timeout,
                    LaunchError::Ended { code: Some(code), .. } => account.exit = Exit::of_code(*code),
                    _ => {}
                }
                launch.hint().clone_into(&mut account.hint);
            } else if let Some(image) = cause.downcast_ref::<ImageError>() {
                account.exit = exit_of(image);
                account.hint = image.hint().unwrap_or_default();
            } else if let Some(ClientError::NotRunning { .. }) = cause.downcast_ref() {
                account.exit = Exit::NotRunning;
            } else if let Some(ClientError::Silent { .. }) = cause.downcast_ref() {
                account.exit = Exit::Timeout;
                "`cove logs daemon` may tell why; it can be ended with kill -9, and machines go on"
                    .clone_into(&mut account.hint);
            } else if matches!(cause.downcast_ref(), Some(ClientError::SocketPathTooLong { .. }))
                || matches!(cause.downcast_ref(), Some(DaemonError::SocketPathTooLong { .. }))
            {
                account.exit = Exit::Usage;
            } else if let Some(DaemonError::NotPrivate { .. }) = cause.downcast_ref() {
                "mend that, or set XDG_RUNTIME_DIR or COVE_HOME to another directory"
                    .clone_into(&mut account.hint);
            } else if let Some(DaemonError::Io { source, .. }) = cause.downcast_ref()
                && source.kind() != io::ErrorKind::StorageFull
            {
                hint_of(source).clone_into(&mut account.hint);
            } else if let Some(error) = cause.downcast_ref::<io::Error>()
                && error.kind() == io::ErrorKind::StorageFull
            {
                account.exit = Exit::DiskFull;
                "free some space on the disk, then try again".clone_into(&mut account.hint);
            }
        }
        account
    }

    fn json(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.message,
            "causes": self.causes,
            "hint": self.hint,
        })
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            text.push_str("  caused by: ");
            text.push_str(cause);
            text.push('\n');
        }
        if !self.hint.is_empty() {
            text.push_str("hint: ");
            text.push_str(&self.hint);
            text.push('\n');
        }
        text
    }
}

/// What a person can do about what failed the daemon; empty for what they can hardly have caused.
fn hint_of(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "see that you may write there, or set XDG_RUNTIME_DIR or COVE_HOME to a directory of your own"
        }
        _ => "",
    }
}

fn exit_of(error: &ImageError) -> Exit {
    match error {
        ImageError::Missing { .. }
        | ImageError::ManifestUnreadable { .. }
        | ImageError::ManifestAltered { .. }
        | ImageError::Format { .. }
        | ImageError::Protocol { .. }
        | ImageError::Architecture { .. }
        | ImageError::FileMissing { .. }
        | ImageError::Altered { .. }
        | ImageError::Length { .. } => Exit::BadImage,
        ImageError::DiskFull { .. } => Exit::DiskFull,
        ImageError::UnsupportedHost { .. } => Exit::Unsupported,
        ImageError::ToolMissing { .. } | ImageError::KeyringMissing { .. } => Exit::MissingDependency,
        ImageError::Recipe { .. } => Exit::Usage,
        // An agent, a recipe or a directory of sources that was named.
        ImageError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Exit::NotFound,
        _ => Exit::Failed,
    }
}

/// `error`, which a command about `machine` met, as scripts get it: for a command whose data have a place for it.
pub(crate) fn as_json(error: &anyhow::Error, machine: &str) -> Value {
    Account::about(machine, error).json()
}

/// What is wrong with a command line, as scripts get it.
pub(crate) fn of_line(error: &clap::Error) -> Value {
    let message = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "a command is missing".to_owned()
    } else {
        let text = error.render().to_string();
        // Usage and tips follow.
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        let text = lines.join(" ");
        text.strip_prefix("error: ").unwrap_or(&text).to_owned()
    };
    let account = Account {
        exit: Exit::Usage,
        code: Some(ErrorCode::InvalidRequest),
        message,
        causes: Vec::new(),
        hint: "`cove help` lists the commands, and `--help` behind one what it takes".to_owned(),
    };
    json!({ "error": account.json() })
}

/// Tells `error`, which a command about `machine` met, and returns the exit code that goes with it.
pub(crate) fn report(error: &anyhow::Error, machine: &str, as_json: bool, passes_code: bool) -> ExitCode {
    if is_broken_pipe(error) {
        // The reader of our output has seen enough; there is nobody left to tell.
        if passes_code {
            // The program's own code will never be known, and this is what shells say of one that wrote to nobody.
            return Exit::OutputGone.into();
        }
        return Exit::Done.into();
    }
    let account = Account::about(machine, error);
    if as_json {
        let object = json!({ "error": account.json() });
        // When standard output is gone, standard error below still tells.
        let _ = crate::output::json(&object);
    }
    // When standard error is gone too, the exit code has to do.
    let _ = io::stderr().write_all(account.text().as_bytes());
    if passes_code {
        return Exit::CoveFailed.into();
    }
    account.exit.into()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use clap::Parser as _;

    #[test]
    fn an_api_error_brings_its_hint_and_its_exit_code() {
        let api = ApiError::new(
            ErrorCode::DiskFull,
            "cannot create the data disk",
            "free 2 GiB on /home",
        );
        let account = Account::of(&ClientError::from(api).into());
        assert_eq!(account.exit, Exit::DiskFull);
        assert_eq!(account.message, "cannot create the data disk");
        assert_eq!(account.hint, "free 2 GiB on /home");
        assert!(account.causes.is_empty(), "said twice: {:?}", account.causes);
    }

    #[test]
    fn an_image_that_lacks_a_file_is_a_bad_image_with_a_hint() {
        let file = "/image/kernel".into();
        let account = Account::of(&ImageError::FileMissing { file }.into());
        assert_eq!(account.exit, Exit::BadImage);
        assert!(account.hint.contains("cove image build"), "{}", account.hint);
    }

    #[test]
    fn a_directory_of_the_daemons_that_takes_no_files_has_a_way_around() {
        let hint = |kind: io::ErrorKind| {
            let error = DaemonError::Io {
                operation: "open the lock",
                path: "/run/user/7/cove/daemon.lock".into(),
                source: kind.into(),
            };
            Account::of(&error.into()).hint
        };
        assert!(hint(io::ErrorKind::ReadOnlyFilesystem).contains("XDG_RUNTIME_DIR"));
        assert!(hint(io::ErrorKind::StorageFull).contains("space"));
        assert_eq!(hint(io::ErrorKind::Other), "");
    }

    #[test]
    fn a_bad_line_is_told_in_one_line_without_its_usage() {
        let told = |line: &str| {
            let error = crate::args::Args::try_parse_from(line.split(' ')).unwrap_err();
            let told = of_line(&error)["error"].clone();
            assert_eq!(told["code"], "invalid_request");
            assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("--help")));
            told["message"].as_str().unwrap().to_owned()
        };
        assert_eq!(told("cove start --nope"), "unexpected argument '--nope' found");
        let missing = told("cove forward");
        assert!(
            missing.contains("required") && missing.contains("<ROUTE>") && !missing.contains('\n'),
            "{missing}"
        );
        assert_eq!(told("cove"), "a command is missing");
    }

    #[test]
    fn causes_are_told_in_order() {
        let error = Err::<(), _>(io::Error::other("no luck"))
            .context("cannot read the settings")
            .unwrap_err();
        let account = Account::of(&error);
        assert_eq!(account.message, "cannot read the settings");
        assert_eq!(account.causes, ["no luck"]);
        assert_eq!(account.exit, Exit::Failed);
    }

    #[test]
    fn a_daemon_that_did_not_start_brings_its_own_hint() {
        let error = LaunchError::Ended {
            why: "the socket's path is too long".into(),
            code: Some(2),
            hint: "set COVE_HOME".into(),
        };
        let text = Account::of(&error.into()).text();
        assert!(text.starts_with("error: the daemon did not start: the socket's path is too long\n"));
        assert!(text.ends_with("hint: set COVE_HOME\n"), "{text}");
    }

    #[test]
    fn a_socket_path_that_is_too_long_is_a_fault_of_what_was_asked_for() {
        let socket = "/x".repeat(100).into();
        let error = anyhow::Error::from(ClientError::SocketPathTooLong { socket });
        assert_eq!(Account::of(&error).exit, Exit::Usage);
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&error));
    }
}
