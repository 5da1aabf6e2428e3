//! env: how Docker clients reach the machine. Worked out from the directories alone; starts nothing.

use super::Session;
use crate::{args::EnvShell, exit::Exit, output};
use cove_api::{DEFAULT_MACHINE, transport};
use serde_json::json;
use std::{env, process::ExitCode};

pub(super) fn run(
    session: &Session,
    socket_only: bool,
    unset: bool,
    shell: Option<EnvShell>,
) -> anyhow::Result<ExitCode> {
    let machine = &session.machine;
    session.known_machine()?;
    let docker_host = transport::docker_host(&session.dirs.docker_socket(&session.machine));
    let value = (!unset).then_some(docker_host.as_str());
    if session.json {
        output::json(&json!({ "DOCKER_HOST": value }))?;
    } else if socket_only {
        output::line(docker_host)?;
    } else {
        let shell = shell.unwrap_or_else(shell_of_the_user);
        output::line(assignment(shell, value))?;
        if !unset {
            let of = if machine == DEFAULT_MACHINE {
                String::new()
            } else {
                format!(" --machine {machine}")
            };
            output::line(format!("# in a shell: {}", usage(shell, &of)))?;
        }
    }
    Ok(Exit::Done.into())
}

fn assignment(shell: EnvShell, value: Option<&str>) -> String {
    match (shell, value) {
        (EnvShell::Sh, Some(value)) => format!("export DOCKER_HOST={}", quoted(value, "'\\''")),
        (EnvShell::Sh, None) => "unset DOCKER_HOST".into(),
        (EnvShell::Fish, Some(value)) => format!("set -gx DOCKER_HOST {}", quoted(value, "\\'")),
        (EnvShell::Fish, None) => "set -e DOCKER_HOST".into(),
        (EnvShell::Powershell, Some(value)) => format!("$env:DOCKER_HOST = {}", quoted(value, "''")),
        (EnvShell::Powershell, None) => "Remove-Item Env:DOCKER_HOST".into(),
    }
}

/// In single quotes, each single quote within replaced by what the shell wants in its place; as it is when nothing in
/// it means anything to a shell.
fn quoted(value: &str, quote: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:._-".contains(c);
    if value.chars().all(plain) && quote != "''" {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', quote))
    }
}

/// How the output is taken over, `of` being the option that names the machine, where one is needed.
fn usage(shell: EnvShell, of: &str) -> String {
    match shell {
        EnvShell::Sh => format!("eval \"$(cove env{of})\""),
        EnvShell::Fish => format!("cove env{of} | source"),
        EnvShell::Powershell => format!("cove env{of} | Out-String | Invoke-Expression"),
    }
}

fn shell_of_the_user() -> EnvShell {
    match env::var("SHELL") {
        Ok(shell) if shell.ends_with("/fish") => EnvShell::Fish,
        Err(_) if cfg!(windows) => EnvShell::Powershell,
        _ => EnvShell::Sh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_needs_no_quotes() {
        assert_eq!(
            assignment(
                EnvShell::Sh,
                Some("unix:///run/user/1000/cove/default/docker.sock")
            ),
            "export DOCKER_HOST=unix:///run/user/1000/cove/default/docker.sock"
        );
    }

    #[test]
    fn an_odd_path_is_one_word_in_every_shell() {
        let odd = "unix:///it's mine/$HOME";
        assert_eq!(
            assignment(EnvShell::Sh, Some(odd)),
            r"export DOCKER_HOST='unix:///it'\''s mine/$HOME'"
        );
        assert_eq!(
            assignment(EnvShell::Fish, Some(odd)),
            r"set -gx DOCKER_HOST 'unix:///it\'s mine/$HOME'"
        );
        assert_eq!(
            assignment(EnvShell::Powershell, Some(odd)),
            "$env:DOCKER_HOST = 'unix:///it''s mine/$HOME'"
        );
    }

    #[test]
    #[cfg(unix)]
    fn what_sh_evaluates_is_the_value_again() {
        for value in [
            "unix:///a b",
            "unix:///it's",
            "unix:///`x`$(y)\"z\\",
            "unix:///plain",
        ] {
            let script = format!(
                "{}; printf %s \"$DOCKER_HOST\"",
                assignment(EnvShell::Sh, Some(value))
            );
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
