//! A diagnostics bundle: one text that says how Cove is here, to be read and then given to whoever is to help.
//!
//! It is gathered through the control API, as any client could, and leaves this computer by nobody's hand but a
//! person's. What looks like a secret is masked ([`mask()`], [`mask_json`]). A part that cannot be had says
//! why: a daemon that does not start is when a bundle is wanted most.

mod mask;

pub use mask::{MASK, mask, mask_json};

use crate::{Check, CheckState, Client, ClientError, Dirs, LogQuery, LogSource, Settings};
use cove_wire::with_causes;
use serde::Serialize;
use serde_json::Value;
use std::{
    fs,
    future::Future,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::timeout;

/// So many of the last lines of each log.
const LINES: u32 = 300;
/// And no more of it than this, in bytes.
const MAX_LOG: usize = 128 << 10;
/// Of a settings file that no daemon has read, no more than this, in bytes.
const MAX_SETTINGS: usize = 1 << 20;
/// How long each part may take. The doctor verifies the image.
const TIMEOUT: Duration = Duration::from_mins(1);
/// How long a log may take, whose machine may not answer.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// The bundle of the Cove of these directories. `daemon` is a client of its daemon, or why there is none.
pub async fn gather(dirs: &Dirs, daemon: Result<&Client, String>) -> String {
    let mut bundle = Bundle::default();
    bundle.line(&format!("Cove diagnostics, {}", utc(SystemTime::now())));
    bundle.line(&format!(
        "What looks like a secret is masked as {MASK}. Names, addresses and paths are not: read it before you give it \
         away."
    ));
    bundle.part("versions");
    bundle.line(&format!(
        "cove      {}, protocol {}",
        env!("CARGO_PKG_VERSION"),
        cove_wire::PROTOCOL_VERSION
    ));
    bundle.line(&format!("computer  {}", computer()));
    match daemon {
        Ok(client) => ask(&mut bundle, client).await,
        Err(why) => {
            bundle.line(&format!("daemon    none: {why}"));
            bundle.part("settings file");
            bundle.found(end_of(&dirs.settings(), MAX_SETTINGS));
            bundle.part("log daemon");
            bundle.found(end_of(&dirs.logs().join("daemon.log"), MAX_LOG));
        }
    }
    bundle.0
}

/// What the daemon knows.
async fn ask(bundle: &mut Bundle, client: &Client) {
    match within(TIMEOUT, client.version()).await {
        Ok(daemon) => bundle.line(&format!(
            "daemon    {}, protocol {}, process {}",
            daemon.version, daemon.protocol, daemon.pid
        )),
        Err(why) => bundle.line(&format!("daemon    does not answer: {why}")),
    }
    bundle.part("doctor");
    match within(TIMEOUT, client.doctor()).await {
        Ok(checks) => {
            for check in &checks {
                bundle.check(check);
            }
        }
        Err(why) => bundle.missing(&why),
    }
    bundle.part("settings");
    match within(TIMEOUT, client.settings()).await {
        Ok(settings) => bundle.settings(settings),
        Err(why) => bundle.missing(&why),
    }
    bundle.part("shared folders");
    match within(TIMEOUT, client.shares()).await {
        Ok(shares) => bundle.json(&shares),
        Err(why) => bundle.missing(&why),
    }
    let machines = match within(TIMEOUT, client.machines()).await {
        Ok(machines) => machines,
        Err(why) => {
            bundle.part("machines");
            bundle.missing(&why);
            return;
        }
    };
    for (index, machine) in machines.iter().enumerate() {
        bundle.part(&format!("machine {}", machine.name));
        bundle.json(machine);
        for source in LogSource::ALL {
            // The daemon's own log is the same, whichever machine it is asked for.
            if source == LogSource::Daemon && index > 0 {
                continue;
            }
            bundle.part(&format!("log {} of machine {}", source.name(), machine.name));
            bundle.found(within(LOG_TIMEOUT, log(client, &machine.name, source)).await);
        }
    }
}

/// The last lines of a log. What wrote them may be the guest: it ends neither the text nor its reader's patience.
async fn log(client: &Client, machine: &str, source: LogSource) -> Result<String, ClientError> {
    let wanted = LogQuery {
        source,
        follow: false,
        tail: Some(LINES),
    };
    let mut bytes = client.logs(machine, wanted).await?;
    let mut text = Vec::new();
    let mut cut = false;
    while let Some(data) = bytes.next().await? {
        text.extend_from_slice(&data);
        if text.len() > 2 * MAX_LOG {
            text.drain(..text.len() - MAX_LOG);
            cut = true;
        }
    }
    Ok(last(&text, MAX_LOG, cut))
}

/// The last `most` bytes of a text, without the line that is cut off.
fn last(text: &[u8], most: usize, cut: bool) -> String {
    let from = text.len().saturating_sub(most);
    let mut kept = &text[from..];
    // Half a line may be a secret without the name that gives it away.
    if cut || from > 0 {
        let whole = kept.iter().position(|&byte| byte == b'\n');
        kept = whole.map_or(&[][..], |newline| &kept[newline + 1..]);
    }
    String::from_utf8_lossy(kept).into_owned()
}

/// The end of a file, of no more than `most` bytes.
fn end_of(path: &Path, most: usize) -> Result<String, String> {
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        let start = length.saturating_sub(most as u64);
        file.seek(SeekFrom::Start(start))?;
        let mut text = Vec::new();
        file.take(most as u64).read_to_end(&mut text)?;
        Ok(last(&text, most, start > 0))
    };
    read().map_err(|error| format!("cannot read {}: {error}", path.display()))
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, String> {
    match timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(with_causes(&error)),
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

/// Which system this is, as far as it says so.
fn computer() -> String {
    let mut parts = vec![std::env::consts::OS.to_owned(), std::env::consts::ARCH.to_owned()];
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_matches('"').to_owned())
    };
    parts.extend(first("/etc/os-release", "PRETTY_NAME="));
    parts.extend(first("/proc/sys/kernel/osrelease", ""));
    parts.join(", ")
}

/// `2026-03-01 12:00:00 UTC`
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years, so that a leap day ends a year (Howard Hinnant's algorithm).
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day_of_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day_of_month:02} {:02}:{:02}:{:02} UTC",
        era * 400 + year + carry,
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// The text as it grows. Everything in it has been masked, and holds nothing that a terminal would heed.
#[derive(Debug, Default)]
struct Bundle(String);

impl Bundle {
    fn part(&mut self, name: &str) {
        self.0.push('\n');
        self.line(&format!("== {name} =="));
    }

    /// Adds a line, or several; the last one is ended.
    fn line(&mut self, text: &str) {
        let text = mask(&printable(text));
        self.0.push_str(&text);
        if !text.is_empty() && !text.ends_with('\n') {
            self.0.push('\n');
        }
    }

    fn check(&mut self, check: &Check) {
        let mark = match check.state {
            CheckState::Ok => "ok     ",
            CheckState::Warning => "warning",
            CheckState::Failed => "FAILED ",
        };
        self.line(&format!("{mark}  {}: {}", check.name, check.evidence));
        if !check.fix.is_empty() {
            self.line(&format!("         hint: {}", check.fix));
        }
        if let Some(command) = check.unsaid_command() {
            self.line(&format!("         run: {command}"));
        }
    }

    fn settings(&mut self, settings: Settings) {
        self.line(&format!(
            "{}; in parentheses is what it does not set",
            settings.file.display()
        ));
        let values = settings.values.into_iter().map(|setting| {
            // What a person set is told apart from what would be so anyway.
            let key = if setting.set {
                setting.key
            } else {
                format!("({})", setting.key)
            };
            (key, setting.value)
        });
        self.json(&Value::Object(values.collect()));
        if let Some(problem) = settings.problem {
            self.line(&format!("the file is not heeded: {}", problem.message));
        }
    }

    fn json(&mut self, value: &impl Serialize) {
        let text = serde_json::to_value(value).and_then(|mut value| {
            mask_json(&mut value);
            serde_json::to_string_pretty(&value)
        });
        self.found(text.map_err(|error| error.to_string()));
    }

    fn found(&mut self, part: Result<String, String>) {
        match part {
            Ok(text) => self.line(&text),
            Err(why) => self.missing(&why),
        }
    }

    fn missing(&mut self, why: &str) {
        self.line(&format!("(not to be had: {why})"));
    }
}

/// Without colours and what else is not to be read. A secret cannot be told from what it is interrupted by.
fn printable(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => {
                // A control sequence ends with its first letter.
                if letters.next_if_eq(&'[').is_some() {
                    for letter in letters.by_ref() {
                        if matches!(letter, '@'..='~' | '\n') {
                            break;
                        }
                    }
                }
            }
            '\n' | '\t' => plain.push(letter),
            letter if letter.is_control() => {}
            letter => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::{
        io::Write as _,
        net::Shutdown,
        os::unix::net::{UnixListener, UnixStream},
        thread,
    };

    #[test]
    fn times_are_told_as_calendars_do() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_772_366_400, "2026-03-01 12:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn colours_do_not_hide_a_secret_and_nothing_reaches_a_terminal() {
        let mut bundle = Bundle::default();
        bundle.line("pass\u{1b}[1mword=\u{1b}[31mhunter2\u{1b}[0m\u{7}\u{9b}2J ends\r\n");
        assert_eq!(bundle.0, "password=******** ends\n");
    }

    #[test]
    fn a_line_that_is_cut_off_is_left_out() {
        assert_eq!(last(b"secret=hunter2\nnext\n", 12, false), "next\n");
        assert_eq!(last(b"whole\n", 12, false), "whole\n");
        assert_eq!(last(b"hunter2\nnext\n", 90, true), "next\n");
        assert_eq!(last(b"one line alone", 4, false), "");
    }

    #[tokio::test]
    async fn without_a_daemon_its_log_and_the_settings_are_there_with_secrets_masked() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(home.path());
        fs::create_dir_all(dirs.logs()).unwrap();
        fs::create_dir_all(dirs.settings().parent().unwrap()).unwrap();
        fs::write(
            dirs.logs().join("daemon.log"),
            "asked via http://mara:hunter2@proxy\n",
        )
        .unwrap();
        fs::write(
            dirs.settings(),
            "[proxy]\nhttp = \"http://mara:hunter2@proxy:3128\"\n",
        )
        .unwrap();
        let text = gather(&dirs, Err("it did not start".to_owned())).await;
        for part in [
            "none: it did not start",
            "asked via http://********@proxy",
            "http = \"http://********@proxy:3128\"",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    /// Answers a request by its path, as a daemon would.
    fn answer(mut stream: UnixStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let (status, body) = match path.split('?').next().unwrap() {
            "/v1/version" => ("200 OK", r#"{"version": "9.8.7", "protocol": 3, "pid": 42}"#),
            "/v1/doctor" => (
                "200 OK",
                r#"[{"name": "proxy", "state": "failed", "evidence": "http://u:hunter2@p", "fix": "mend it"}]"#,
            ),
            "/v1/settings" => (
                "200 OK",
                r#"{"file": "/s.toml", "values": [{"key": "proxy.http", "value": "http://u:hunter2@p:1",
                   "default": "", "set": true, "description": "", "accepts": ""}]}"#,
            ),
            "/v1/shares" | "/v1/machines" => ("200 OK", "[]"),
            _ => ("404 Not Found", "{}"),
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        // The client may have gone by now.
        let _ = stream.shutdown(Shutdown::Write);
    }

    #[tokio::test]
    async fn what_the_daemon_says_is_there_with_secrets_masked() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::below(home.path());
        let socket = home.path().join("d");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap());
            }
        });
        let text = gather(&dirs, Ok(&Client::new(socket))).await;
        for part in [
            "daemon    9.8.7, protocol 3, process 42",
            "FAILED   proxy: http://********@p",
            "hint: mend it",
            "\"proxy.http\": \"http://********@p:1\"",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(
            !text.contains("hunter2") && !text.contains("not to be had"),
            "{text}"
        );
    }
}
