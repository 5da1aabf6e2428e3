//! The window under a virtual display, and what a person would do in it, by `WebDriver`.

#![expect(
    clippy::expect_used,
    reason = "what the harness itself cannot do without fails the test"
)]

use super::{Cove, Running};
use serde_json::{Value, json};
use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// How long something may take to appear, where the machine has no part in it.
pub const SOON: Duration = Duration::from_mins(1);
/// How long a machine may take to start on a busy computer.
pub const BOOT: Duration = Duration::from_mins(6);
/// What the system's dialogs for files and folders are called.
const DIALOGS: &str = "File|Save|Open|Folder";
/// What has a window under test leave the session of whoever runs the test alone, and not complain that it has none. An
/// address that says nothing begins no bus, where none at all would have each library look for one and start it.
pub const QUIET: [(&str, &str); 3] = [
    ("DBUS_SESSION_BUS_ADDRESS", "disabled:"),
    ("GSETTINGS_BACKEND", "memory"),
    ("NO_AT_BRIDGE", "1"),
];
/// What the driver says of an element that was drawn anew since it was found.
const STALE: &str = "stale element reference";
/// What it says of one that cannot be reached now: all that lies behind a dialog, for one, until that is gone.
const COVERED: [&str; 2] = ["element not interactable", "element click intercepted"];
/// The key of an element's reference in `WebDriver`'s JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The application under test, where it could be built.
pub fn program() -> Option<PathBuf> {
    env::var_os("COVE_TEST_DESKTOP")
        .map(PathBuf::from)
        .filter(|program| program.is_file())
}

/// A display that nobody looks at.
#[derive(Debug)]
pub struct Display {
    name: String,
    _server: Running,
}

impl Display {
    /// Starts it.
    #[track_caller]
    pub fn open() -> Self {
        let mut server = Running(
            Command::new("Xvfb")
                .args([
                    "-displayfd",
                    "1",
                    "-screen",
                    "0",
                    "1280x820x24",
                    "-nolisten",
                    "tcp",
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("cannot start Xvfb"),
        );
        let mut number = String::new();
        let stdout = server.0.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout)
            .read_line(&mut number)
            .expect("Xvfb names its display");
        Self {
            name: format!(":{}", number.trim()),
            _server: server,
        }
    }

    /// Its name, such as `:1`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program that finds this display and this Cove, and nothing of the session that the tests run in.
    pub fn command(&self, cove: &Cove, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("DISPLAY", &self.name)
            .env("COVE_HOME", cove.home())
            .env("HOME", cove.scratch())
            .env("LANG", "C.UTF-8")
            .env("GDK_BACKEND", "x11")
            // There is no graphics hardware here.
            .env("WEBKIT_DISABLE_DMABUF_RENDERER", "1")
            .env("LIBGL_ALWAYS_SOFTWARE", "1")
            .envs(QUIET)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("WAYLAND_DISPLAY");
        command
    }
}

/// An open window. Dropping it closes it; the machine goes on.
#[derive(Debug)]
pub struct Window {
    address: String,
    session: String,
    pictures: PathBuf,
    // In this order: the driver goes before the display.
    _driver: Running,
    display: Display,
}

impl Window {
    /// Opens the application of this Cove on a display of its own.
    #[track_caller]
    pub fn open(cove: &Cove) -> Self {
        Self::open_with(cove, &[])
    }

    /// The same with more variables in its environment.
    #[track_caller]
    pub fn open_with(cove: &Cove, variables: &[(&str, &OsStr)]) -> Self {
        let program = program().expect("whoever opens a window looked for it");
        let options = json!({"webkitgtk:browserOptions": {"binary": program, "args": []}});
        Self::drive(cove, &options, variables)
    }

    /// Opens the small browser that comes with `WebKit` at an address: for what the application's page does in the
    /// application's engine, without the application.
    #[track_caller]
    pub fn browse(cove: &Cove, address: &str) -> Self {
        let window = Self::drive(cove, &json!({}), &[]);
        if let Err(why) = window.session("POST", "/url", Some(&json!({"url": address}))) {
            panic!("cannot open {address}: {why}");
        }
        window
    }

    #[track_caller]
    fn drive(cove: &Cove, options: &Value, variables: &[(&str, &OsStr)]) -> Self {
        let display = Display::open();
        // Free a moment ago; nobody else on this computer looks for ports between here and there.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let driver = Running(
            display
                .command(cove, "WebKitWebDriver")
                .args([format!("--port={port}"), "--host=127.0.0.1".to_owned()])
                .env("TAURI_AUTOMATION", "true")
                .env("TAURI_WEBVIEW_AUTOMATION", "true")
                .envs(variables.iter().copied())
                .stdout(Stdio::null())
                .spawn()
                .expect("cannot start WebKitWebDriver"),
        );
        let mut window = Self {
            address: format!("127.0.0.1:{port}"),
            session: String::new(),
            pictures: cove.kit().logs.join("desktop"),
            _driver: driver,
            display,
        };
        let wanted = json!({"capabilities": {"alwaysMatch": options}});
        let began = Instant::now();
        let session = loop {
            match window.ask("POST", "/session", Some(&wanted)) {
                Ok(session) => break session,
                Err(why) if began.elapsed() > SOON => panic!("the application does not open: {why}"),
                Err(_) => sleep(Duration::from_millis(250)),
            }
        };
        session["sessionId"]
            .as_str()
            .unwrap_or_default()
            .clone_into(&mut window.session);
        window
    }

    /// The display that it is on, such as `:1`.
    pub fn display(&self) -> &str {
        &self.display.name
    }

    /// Gives it a place and a size on the display, in pixels.
    #[track_caller]
    pub fn place(&self, (x, y): (u16, u16), (width, height): (u16, u16)) {
        let rectangle = json!({"x": x, "y": y, "width": width, "height": height});
        if let Err(why) = self.session("POST", "/window/rect", Some(&rectangle)) {
            panic!("cannot place the window: {why}");
        }
    }

    /// Waits for what an `XPath` names.
    #[track_caller]
    pub fn find_within(&self, limit: Duration, xpath: &str) -> String {
        let began = Instant::now();
        loop {
            let found = self.session(
                "POST",
                "/element",
                Some(&json!({"using": "xpath", "value": xpath})),
            );
            match found {
                Ok(found) => return found[ELEMENT].as_str().unwrap_or_default().to_owned(),
                Err(why) if began.elapsed() > limit => {
                    let picture = self.picture("missing");
                    panic!(
                        "no {xpath} after {limit:?}: {why}\n{}\npicture: {picture}",
                        self.text()
                    );
                }
                Err(_) => sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The same with the usual limit.
    #[track_caller]
    pub fn find(&self, xpath: &str) -> String {
        self.find_within(SOON, xpath)
    }

    /// Waits until a text stands somewhere.
    #[track_caller]
    pub fn reads(&self, text: &str) {
        self.reads_within(SOON, text);
    }

    /// The same with another limit.
    #[track_caller]
    pub fn reads_within(&self, limit: Duration, text: &str) {
        let began = Instant::now();
        while !self.text().contains(text) {
            if began.elapsed() > limit {
                let picture = self.picture("unread");
                panic!(
                    "`{text}` does not appear within {limit:?}:\n{}\npicture: {picture}",
                    self.text()
                );
            }
            sleep(Duration::from_millis(100));
        }
    }

    /// Everything that can be read in the window.
    pub fn text(&self) -> String {
        let text = self.script("return document.body.innerText", &[]);
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Clicks the button or link of that name; once more where it was drawn anew between the look and the click.
    #[track_caller]
    pub fn press(&self, name: &str) {
        let xpath = format!(
            "//*[(self::button or self::a) and not(@disabled) and (normalize-space()='{name}' or @aria-label='{name}')]"
        );
        self.click_soon(
            name,
            || self.find(&xpath),
            |why| why.contains(STALE) || is_covered(why),
        );
    }

    /// Clicks what was found, as soon as nothing covers it.
    #[track_caller]
    pub fn click(&self, element: &str) {
        self.click_soon("what was found", || element.to_owned(), is_covered);
    }

    /// Clicks what `find` finds, and again while what the driver says against it passes by itself.
    #[track_caller]
    fn click_soon(&self, name: &str, find: impl Fn() -> String, passes: impl Fn(&str) -> bool) {
        let began = Instant::now();
        while let Err(why) = self.try_click(&find()) {
            assert!(
                passes(&why) && began.elapsed() < SOON,
                "cannot click {name}: {why}; picture: {}",
                self.picture("click")
            );
            sleep(Duration::from_millis(100));
        }
    }

    fn try_click(&self, element: &str) -> Result<Value, String> {
        self.session("POST", &format!("/element/{element}/click"), Some(&json!({})))
    }

    /// Types into what was found.
    #[track_caller]
    pub fn type_into(&self, element: &str, text: &str) {
        let keys = json!({"text": text});
        if let Err(why) = self.session("POST", &format!("/element/{element}/value"), Some(&keys)) {
            panic!("cannot type: {why}");
        }
    }

    /// Types over what a field holds, which `WebDriver` adds to by itself: as a person would, who selects it first.
    #[track_caller]
    pub fn type_over(&self, element: &str, text: &str) {
        // Control and A, as WebDriver writes keys.
        self.type_into(element, "\u{e009}a\u{e000}");
        self.type_into(element, text);
    }

    /// Chooses a path in the system's dialog for files, which is no part of the page: by its keyboard.
    #[track_caller]
    pub fn choose(&self, path: &Path) {
        let began = Instant::now();
        let dialog = loop {
            // The window itself is called after its screen.
            let seen = self.xdotool(&["search", "--onlyvisible", "--name", DIALOGS]);
            if let Some(dialog) = seen.lines().next() {
                break dialog.to_owned();
            }
            assert!(
                began.elapsed() < SOON,
                "no dialog appears; picture: {}",
                self.picture("dialog")
            );
            sleep(Duration::from_millis(200));
        };
        self.xdotool(&["windowfocus", "--sync", &dialog]);
        // Both kinds of dialog have a field for a path; the one for opening shows it at the first slash.
        self.xdotool(&["key", "--window", "0", "ctrl+a"]);
        self.xdotool(&["type", "/"]);
        // What is typed while the field appears is lost.
        sleep(Duration::from_secs(1));
        let rest = path.display().to_string();
        self.xdotool(&["type", "--delay", "20", rest.trim_start_matches('/')]);
        self.xdotool(&["key", "Return"]);
        while self
            .xdotool(&["search", "--onlyvisible", "--name", DIALOGS])
            .contains(&dialog)
        {
            assert!(
                began.elapsed() < SOON,
                "the dialog stays; picture: {}",
                self.picture("dialog")
            );
            sleep(Duration::from_millis(200));
        }
    }

    /// Does something with the display's pointer, keyboard or windows, as a person would; what xdotool says of it.
    pub fn xdotool(&self, words: &[&str]) -> String {
        let output = Command::new("xdotool")
            .args(words)
            .env("DISPLAY", &self.display.name)
            .output()
            .expect("cannot start xdotool");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a script in the page and returns what it returns.
    #[track_caller]
    pub fn script(&self, script: &str, arguments: &[Value]) -> Value {
        match self.try_script(script, arguments) {
            Ok(value) => value,
            Err(why) => panic!("the script failed: {why}"),
        }
    }

    /// The same where there may be no page yet.
    pub fn try_script(&self, script: &str, arguments: &[Value]) -> Result<Value, String> {
        let call = json!({"script": script, "args": arguments});
        self.session("POST", "/execute/sync", Some(&call))
    }

    /// Runs a script whose last argument is called with its result.
    #[track_caller]
    pub fn script_async(&self, script: &str) -> Value {
        let call = json!({"script": script, "args": []});
        match self.session("POST", "/execute/async", Some(&call)) {
            Ok(value) => value,
            Err(why) => panic!("the script failed: {why}"),
        }
    }

    /// Keeps a picture of the display beside the logs, where `import` is, and says where. `WebDriver`'s own pictures
    /// need a display with compositing, and wait for ever on one without.
    pub fn picture(&self, name: &str) -> String {
        let place = self.pictures.join(format!("{name}.png"));
        if let Err(error) = fs::create_dir_all(&self.pictures) {
            return error.to_string();
        }
        let taken = Command::new("import")
            .args(["-display", &self.display.name, "-window", "root"])
            .arg(&place)
            .status();
        match taken {
            Ok(status) if status.success() => place.display().to_string(),
            _ => "none".to_owned(),
        }
    }

    fn session(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        self.ask(method, &format!("/session/{}{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = exchange(&self.address, method, path, &body).map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        let answer: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Ends the application in order; the driver's end would do it by force.
            let _ = self.session("DELETE", "", None);
        }
    }
}

fn is_covered(why: &str) -> bool {
    COVERED.iter().any(|covered| why.contains(covered))
}

fn exchange(address: &str, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    let mut reader = BufReader::new(stream);
    let mut wanted = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            wanted = length.trim().parse::<u64>().ok();
        }
        answer.extend_from_slice(line.as_bytes());
        if line == "\r\n" {
            break;
        }
    }
    // The driver keeps connections open whatever it is told.
    match wanted {
        Some(length) => reader.take(length).read_to_end(&mut answer)?,
        None => reader.read_to_end(&mut answer)?,
    };
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
