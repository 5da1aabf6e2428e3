//! Opening with the session: an entry among those that the desktop starts when a person logs in (freedesktop.org's
//! Desktop Application Autostart Specification).
//!
//! The entry is all that remembers it, so that what other programs make of it, such as the desktop's own settings, is
//! seen here. It starts the program without a window where there is a tray to open it from.

use crate::failure::{Answer, Refusal};
use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

/// The argument of a start that shows no window.
pub(crate) const HIDDEN: &str = "--hidden";
/// The entry's name.
const NAME: &str = "cove-desktop.desktop";
/// The group of an entry that counts.
const GROUP: &str = "[Desktop Entry]";
/// More of an entry is not read, in bytes.
const LARGEST: u64 = 64 << 10;
/// What says which Cove a window is of.
const VARIABLES: [&str; 2] = ["COVE_HOME", "COVE_MACHINE"];

/// The entry of this window's Cove.
#[derive(Debug, Clone)]
pub(crate) struct Autostart {
    file: PathBuf,
    /// The value of its key `Exec`.
    exec: String,
    /// The value of its key `TryExec`, without which the desktop would start a program that is installed no more.
    program: String,
}

impl Autostart {
    /// Of this program; nothing where the desktop has no such entries.
    pub(crate) fn of_environment() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        // A relative one is to be passed over, by the Base Directory Specification.
        let config = config
            .filter(|path| path.is_absolute())
            .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))?;
        let variables = VARIABLES.map(|name| (name, variable(name)));
        Self::of(&config, &installed(env::current_exe().ok()?), &variables)
    }

    fn of(config: &Path, program: &Path, variables: &[(&str, Option<OsString>)]) -> Option<Self> {
        let mut exec = String::new();
        for (name, value) in variables {
            if let Some(value) = value {
                exec.push_str(if exec.is_empty() { "env " } else { "" });
                exec.push_str(&word(&format!("{name}={}", value.to_str()?))?);
                exec.push(' ');
            }
        }
        let program = program.to_str()?;
        exec.push_str(&word(program)?);
        exec.push(' ');
        exec.push_str(HIDDEN);
        Some(Self {
            file: config.join("autostart").join(NAME),
            exec,
            // It is no command line, so that it has no quotation, but escaped it is.
            program: program.replace('\\', r"\\"),
        })
    }

    /// Whether the desktop starts this program, as the entry says now.
    pub(crate) fn is_on(&self) -> Answer<bool> {
        let mut text = Vec::new();
        match File::open(&self.file).and_then(|file| file.take(LARGEST).read_to_end(&mut text)) {
            Ok(_) => Ok(is_on(&String::from_utf8_lossy(&text), &self.exec)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.cannot("read", &error)),
        }
    }

    /// Writes the entry, or removes it.
    pub(crate) fn set(&self, on: bool) -> Answer<()> {
        if on {
            return self.write().map_err(|error| self.cannot("write", &error));
        }
        match fs::remove_file(&self.file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.cannot("remove", &error)),
            _ => Ok(()),
        }
    }

    /// In one step, so that nobody reads half of it.
    fn write(&self) -> io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut made = crate::local::new_file_beside(&self.file)?;
        let (exec, program) = (&self.exec, &self.program);
        write!(
            made,
            "{GROUP}\nType=Application\nName=Cove\nExec={exec}\nTryExec={program}\nIcon=cove\nTerminal=false\n"
        )?;
        made.persist(&self.file).map_err(|error| error.error)?;
        Ok(())
    }

    fn cannot(&self, what: &str, error: &io::Error) -> Refusal {
        Refusal::new(
            format!("cannot {what} {}: {error}", self.file.display()),
            "Check the file's owner and permissions.",
        )
    }
}

/// Where the program is, also once an upgrade has put another in its place.
fn installed(program: PathBuf) -> PathBuf {
    let text = program.to_str().and_then(|path| path.strip_suffix(" (deleted)"));
    let replaced = text.map(PathBuf::from).filter(|path| path.is_file());
    replaced.unwrap_or(program)
}

/// A word of `Exec`: quoted as the Desktop Entry Specification has it, then escaped as every value of an entry. Nothing
/// for what cannot stand there.
fn word(text: &str) -> Option<String> {
    if text.contains(char::is_control) {
        return None;
    }
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            // The quotation's backslash is itself escaped.
            '"' | '`' | '$' => quoted.push_str(r"\\"),
            '\\' => quoted.push_str(r"\\\"),
            // A single one would be a field's code.
            '%' => quoted.push('%'),
            _ => {}
        }
        quoted.push(letter);
    }
    quoted.push('"');
    Some(quoted)
}

/// Whether an entry starts `exec`, and neither it nor a desktop's own key says that it is off.
fn is_on(entry: &str, exec: &str) -> bool {
    let lines = entry.lines().map(str::trim);
    let group = lines.skip_while(|line| *line != GROUP).skip(1);
    let mut starts = false;
    for line in group.take_while(|line| !line.starts_with('[')) {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        match (key.trim_end(), value.trim_start()) {
            ("Hidden", "true") | ("X-GNOME-Autostart-enabled", "false") => return false,
            ("Exec", value) => starts = value == exec,
            _ => {}
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(config: &Path) -> Autostart {
        Autostart::of(config, Path::new("/usr/bin/cove-desktop"), &[("COVE_HOME", None)]).unwrap()
    }

    #[test]
    fn it_is_off_until_it_is_asked_for_and_what_is_written_is_what_is_read() {
        let config = tempfile::tempdir().unwrap();
        let autostart = entry(config.path());
        assert!(!autostart.is_on().unwrap());
        autostart.set(false).unwrap();
        autostart.set(true).unwrap();
        assert!(autostart.is_on().unwrap());
        let text = fs::read_to_string(config.path().join("autostart/cove-desktop.desktop")).unwrap();
        assert!(
            text.contains("\nExec=\"/usr/bin/cove-desktop\" --hidden\nTryExec=/usr/bin/cove-desktop\n"),
            "{text}"
        );
        autostart.set(true).unwrap();
        autostart.set(false).unwrap();
        assert!(!autostart.is_on().unwrap());
        // Nothing half-written stays beside it.
        assert_eq!(fs::read_dir(config.path().join("autostart")).unwrap().count(), 0);
    }

    #[test]
    fn what_the_desktop_makes_of_the_entry_is_seen() {
        let config = tempfile::tempdir().unwrap();
        let autostart = entry(config.path());
        autostart.set(true).unwrap();
        let written = fs::read_to_string(&autostart.file).unwrap();
        for (text, on) in [
            (format!("{written}Hidden=true\n"), false),
            (format!("{written}X-GNOME-Autostart-enabled=false\n"), false),
            (format!("{written}X-GNOME-Autostart-enabled = false\n"), false),
            (format!("{written}X-GNOME-Autostart-enabled=true\n"), true),
            (
                format!("{written}\n[Desktop Action x]\nHidden=true\nExec=other\n"),
                true,
            ),
            (format!("[Other]\nHidden=true\n{written}"), true),
            (written.replace("/usr/bin", "/opt"), false),
            (String::new(), false),
        ] {
            fs::write(&autostart.file, &text).unwrap();
            assert_eq!(autostart.is_on().unwrap(), on, "{text}");
        }
        // Whatever it was, turning it on makes it good.
        autostart.set(true).unwrap();
        assert!(autostart.is_on().unwrap());
    }

    #[test]
    fn an_entry_that_cannot_be_written_says_so() {
        let config = tempfile::tempdir().unwrap();
        fs::write(config.path().join("autostart"), "").unwrap();
        let refusal = entry(config.path()).set(true).unwrap_err();
        assert!(refusal.0.message.contains("cove-desktop.desktop"), "{refusal:?}");
    }

    #[test]
    fn no_path_and_no_variable_means_anything_else_in_the_entry() {
        assert_eq!(word("/opt/my cove").unwrap(), r#""/opt/my cove""#);
        assert_eq!(word(r#"/a"b`c$d\e%f"#).unwrap(), r#""/a\\"b\\`c\\$d\\\\e%%f""#);
        assert_eq!(word("/a\nHidden=true"), None);
        let home = [
            ("COVE_HOME", Some(OsString::from("/srv/second cove"))),
            ("COVE_MACHINE", Some(OsString::from("dev"))),
        ];
        let other = Autostart::of(Path::new("/c"), Path::new("/bin/cove-desktop"), &home).unwrap();
        assert_eq!(
            other.exec,
            r#"env "COVE_HOME=/srv/second cove" "COVE_MACHINE=dev" "/bin/cove-desktop" --hidden"#
        );
        let odd = Autostart::of(Path::new("/c"), Path::new(r"/my \cove"), &[]).unwrap();
        assert_eq!(odd.program, r"/my \\cove");
    }

    #[test]
    fn a_program_that_was_upgraded_while_it_runs_is_found_where_it_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("cove-desktop");
        let gone = folder.path().join("cove-desktop (deleted)");
        assert_eq!(installed(gone.clone()), gone);
        fs::write(&program, "").unwrap();
        assert_eq!(installed(gone), program);
        assert_eq!(installed(program.clone()), program);
    }
}
