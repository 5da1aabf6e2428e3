//! config get, set, edit, path.

use super::Session;
use crate::{args, exit::Exit, failure::Failure, output};
use anyhow::Context as _;
use cove_api::{Applied, ErrorCode, Settings, make_private};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use std::{
    env, fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

/// How long a signal may take from the system to whoever listens here.
const SETTLING: Duration = Duration::from_millis(10);

pub(super) async fn run(session: &Session, what: args::Config) -> anyhow::Result<ExitCode> {
    match what {
        args::Config::Get { key: Some(key) } => {
            let value = session.daemon().await?.setting(&key).await?;
            if session.json {
                output::json(&value)?;
            } else {
                output::line(plain(&value))?;
            }
        }
        args::Config::Get { key: None } => {
            let settings = session.daemon().await?.settings().await?;
            show_all(session, &settings)?;
        }
        args::Config::Set { key, value, .. } => {
            let client = session.daemon().await?;
            let change = async {
                match value {
                    Some(value) => client.set(&key, &read_value(&value)).await,
                    None => client.unset(&key).await,
                }
            };
            let applied = session.during("Changing the setting", change).await?;
            tell(session, &applied)?;
        }
        args::Config::Edit => edit(session).await?,
        args::Config::Path => {
            let path = session.dirs.settings().display().to_string();
            if session.json {
                output::json(&json!({ "path": path }))?;
            } else {
                output::line(path)?;
            }
        }
    }
    Ok(Exit::Done.into())
}

fn show_all(session: &Session, settings: &Settings) -> anyhow::Result<()> {
    if session.json {
        output::json(settings)?;
    } else {
        let rows: Vec<[String; 3]> = settings
            .values
            .iter()
            .map(|setting| {
                let origin = if setting.set { "set" } else { "default" };
                [setting.key.clone(), plain(&setting.value), origin.to_owned()]
            })
            .collect();
        output::table(["KEY", "VALUE", ""], &rows)?;
    }
    if let Some(problem) = &settings.problem {
        session.say(&format!("note: {}: {}", settings.file.display(), problem.message));
        session.say("hint: mend it with: cove config edit");
    }
    Ok(())
}

/// A string without its quotes, everything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// JSON where it is JSON that no shell user would type as plain text; text otherwise. The daemon reads text as the
/// setting's own type.
fn read_value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Array(_) | Value::Object(_) | Value::String(_))) => value,
        _ => Value::String(text.to_owned()),
    }
}

fn tell(session: &Session, applied: &Applied) -> anyhow::Result<()> {
    if session.json {
        output::json(applied)?;
    }
    for machine in &applied.restart_needed {
        session.say(&format!(
            "note: machine `{machine}` heeds it after a restart: cove restart --machine {machine}"
        ));
    }
    Ok(())
}

/// The file is edited as a copy, which replaces it once the daemon finds nothing wrong with it.
async fn edit(session: &Session) -> anyhow::Result<()> {
    let client = session.daemon().await?;
    let before = client.settings_file().await?;
    let kept = |copy: &Path| format!("your text is kept in {}", copy.display());
    let directory = session.dirs.settings();
    let directory = directory.parent().context("the settings file has no directory")?;
    make_private(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let copy = directory.join(format!("settings.edit-{}.toml", std::process::id()));
    write_private(&copy, &before.text).with_context(|| format!("cannot write {}", copy.display()))?;
    // While a person edits, Ctrl-C is the editor's: from now on it ends this command only where that is listened for.
    let _ = tokio::signal::ctrl_c().now_or_never();
    let outcome = loop {
        if let Err(error) = open_editor(&copy) {
            // It may have written before.
            if fs::read_to_string(&copy).is_ok_and(|text| text != before.text) {
                session.say(&format!("note: {}", kept(&copy)));
                return Err(error);
            }
            break Err(error);
        }
        let text = match fs::read_to_string(&copy) {
            Ok(text) => text,
            Err(error) => {
                let what =
                    format!("cannot read what the editor left ({error}); the settings were not changed");
                return Err(Failure::new(Exit::Usage, what, kept(&copy)).into());
            }
        };
        if text == before.text {
            session.say("nothing was changed");
            break Ok(());
        }
        // What was pressed in the editor has come in by then, and is none of ours.
        tokio::time::sleep(SETTLING).await;
        let replacing = client.replace_settings_file(&text, &before);
        let replaced = tokio::select! {
            replaced = session.during("Changing the settings", replacing) => replaced,
            _ = tokio::signal::ctrl_c() => {
                let what = "interrupted; the settings may have been changed";
                return Err(Failure::new(Exit::Interrupted, what, kept(&copy)).into());
            }
        };
        match replaced {
            Ok(applied) => break tell(session, &applied),
            Err(error) if error.code() == Some(ErrorCode::WrongState) => {
                return Err(Failure::new(Exit::NotRunning, error.to_string(), kept(&copy)).into());
            }
            Err(error) if error.code() == Some(ErrorCode::InvalidSetting) => {
                output::note(format_args!("error: {error}"));
                if !ask_to_edit_again().await? {
                    return Err(
                        Failure::new(Exit::Usage, "the settings were not changed", kept(&copy)).into(),
                    );
                }
            }
            Err(error) => break Err(error.into()),
        }
    };
    // Left behind when it cannot be removed, which harms nobody.
    let _ = fs::remove_file(&copy);
    outcome
}

/// A new file that nobody else may read: the settings may hold a proxy's password.
fn write_private(file: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // One of an earlier process with our number, which nobody has come back to.
    let _ = fs::remove_file(file);
    options.open(file)?.write_all(text.as_bytes())
}

fn open_editor(file: &Path) -> anyhow::Result<()> {
    let usual = if cfg!(windows) { "notepad" } else { "vi" };
    let chosen = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|name| env::var(name).ok().filter(|value| !value.trim().is_empty()));
    if chosen.is_none() && !io::stdin().is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            format!("there is no terminal for `{usual}` to edit in"),
            "set VISUAL or EDITOR to an editor that needs none, or use: cove config set KEY VALUE",
        )
        .into());
    }
    let editor = chosen.unwrap_or_else(|| usual.to_owned());
    let (program, arguments) = words_of(&editor);
    let status = Command::new(program).args(arguments).arg(file).status();
    let status = status.map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("cannot start the editor `{editor}`: {error}"),
            "set VISUAL or EDITOR to one that is there",
        )
    })?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        format!("the editor `{editor}` ended with {status}; the settings were not changed"),
        "",
    )
    .into())
}

/// The editor's program and its arguments. The variable may hold both, or a path with blanks in it.
fn words_of(editor: &str) -> (&str, Vec<&str>) {
    if Path::new(editor).is_file() {
        return (editor, Vec::new());
    }
    let mut words = editor.split_whitespace();
    (words.next().unwrap_or(editor), words.collect())
}

/// Asks the person at the terminal. Whoever is not there, or hangs up, or presses Ctrl-C, does not edit again.
async fn ask_to_edit_again() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("Edit again? [Y/n] ");
    io::stderr().flush()?;
    let asking = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).map(|_| answer)
    });
    tokio::select! {
        answer = asking => {
            let answer = answer.context("the question broke off")??;
            Ok(answer.ends_with('\n') && !answer.trim().eq_ignore_ascii_case("n"))
        }
        _ = tokio::signal::ctrl_c() => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_plain_text_stays_text_for_the_daemon_to_read() {
        assert_eq!(read_value("4"), json!("4"));
        assert_eq!(read_value("2 GiB"), json!("2 GiB"));
        assert_eq!(read_value("true"), json!("true"));
    }

    #[test]
    fn an_editor_has_arguments_or_a_path_with_blanks() {
        assert_eq!(words_of("code --wait"), ("code", vec!["--wait"]));
        let file = std::env::temp_dir().join(format!("an editor of {}", std::process::id()));
        fs::write(&file, "").unwrap();
        let path = file.to_str().unwrap();
        let words = words_of(path);
        fs::remove_file(&file).unwrap();
        assert_eq!(words, (path, Vec::new()));
    }

    #[test]
    #[cfg(unix)]
    fn a_copy_for_the_editor_is_its_users_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = std::env::temp_dir().join(format!("cove-copy-{}", std::process::id()));
        fs::write(&file, "of an earlier edit").unwrap();
        write_private(&file, "secret").unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!((mode & 0o777, text.as_str()), (0o600, "secret"));
    }

    #[test]
    fn structures_and_quoted_strings_are_json() {
        assert_eq!(read_value(r#"{"debug": true}"#), json!({ "debug": true }));
        assert_eq!(read_value(r#"["/a"]"#), json!(["/a"]));
        assert_eq!(read_value(r#""4""#), json!("4"));
    }
}
