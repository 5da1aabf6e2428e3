//! `cargo xtask run`: from nothing to a web page out of a container.

use crate::{
    build,
    layout::{Layout, Profile},
    process::{self, capture, note, step, try_capture},
    setup::{self, DockerClient},
};
use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The container that serves the window's welcome page; a test of the front end keeps the file.
const WELCOME: &str = include_str!("../../ui/src/lib/state/welcome.json");
/// How long the server may take to answer, in an emulated machine.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// A page that is longer is not ours, and is not read to its end.
const LONGEST_PAGE: u64 = 1 << 20;
/// How much of it is shown.
const SHOWN_LINES: usize = 12;

/// Opens no window.
const ONCE: &str = "--once";
/// Installs and builds nothing.
const BUILT: &str = "--built";

/// What the command may be told.
pub(crate) const OPTIONS: [&str; 2] = [ONCE, BUILT];

/// What is there to be run.
struct Built {
    cove: PathBuf,
    /// An unmodified Docker client.
    docker: PathBuf,
    /// The desktop application, if it is to be opened.
    window: Option<PathBuf>,
}

/// A Cove that is set up, with its clients.
struct Demo {
    cove: PathBuf,
    home: PathBuf,
    docker: PathBuf,
    docker_host: String,
}

pub(crate) fn run(layout: &Layout, options: &[&str]) -> Result<ExitCode> {
    let with_window = has_display() && !options.contains(&ONCE);
    let built = if options.contains(&BUILT) {
        built_before(layout, with_window)?
    } else {
        build_all(layout, with_window)?
    };
    let home = layout.home()?;
    use_image(&home, &layout.image())?;
    let variables = write_variables(layout, &home, &built)?;

    step("Starting the machine");
    let mut demo = Demo {
        cove: built.cove,
        home,
        docker: built.docker,
        docker_host: String::new(),
    };
    if let Some(pid) = demo.older_daemon() {
        note(&format!(
            "the daemon that runs (process {pid}) was built before this: `cove daemon stop` stops its machines and ends \
             it, and the next command starts the new one"
        ));
    }
    process::run(demo.cove().arg("start"))?;
    demo.docker_host = capture(demo.cove().args(["env", "--socket"]))?;

    step("Running a container through the forwarded socket");
    let address = demo.serve(&Page::of_the_window()?)?;
    step("Fetching its page from this computer");
    for line in excerpt(&fetch(address, PAGE_TIMEOUT)?) {
        note(&line);
    }
    println!();
    println!("The page:        http://{address}/");
    println!("Docker clients:  DOCKER_HOST={}", demo.docker_host);
    println!("In your shell:   . {}", quoted(&variables));
    println!("then:            cove status · docker run --rm alpine cat /etc/os-release · cove stop");
    if let Some(program) = built.window {
        demo.open_window(&program)?;
    } else if !options.contains(&ONCE) && !has_display() {
        println!("No window:       neither DISPLAY nor WAYLAND_DISPLAY is set, so that nobody could see it");
    }
    Ok(ExitCode::SUCCESS)
}

fn build_all(layout: &Layout, with_window: bool) -> Result<Built> {
    step("Looking for what is needed");
    setup::machine_tools(layout)?;
    let docker = DockerClient::plain(layout)?.program;
    let with_window = with_window && setup::desktop_tools(layout, false)?;
    let programs = build::programs(layout, Profile::Dev, with_window)?;
    build::image(layout, &programs, false)?;
    Ok(Built {
        cove: programs.cove,
        docker,
        window: with_window.then(|| layout.desktop(Profile::Dev)),
    })
}

/// What an earlier run or test has built.
fn built_before(layout: &Layout, with_window: bool) -> Result<Built> {
    let cove = layout.cove(Profile::Dev);
    for place in [&cove, &layout.image()] {
        ensure!(
            place.exists(),
            "there is no {} yet; without {BUILT} it is built",
            place.display()
        );
    }
    let window = layout.desktop(Profile::Dev);
    Ok(Built {
        cove,
        docker: DockerClient::plain(layout)?.program,
        window: (with_window && window.exists()).then_some(window),
    })
}

/// Whether a window could be seen.
fn has_display() -> bool {
    ["WAYLAND_DISPLAY", "DISPLAY"]
        .iter()
        .any(|variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty()))
}

/// Has the home's machines take the image that was built.
fn use_image(home: &Path, image: &Path) -> Result<()> {
    let data = home.join("data");
    fs::create_dir_all(&data).with_context(|| format!("cannot create {}", data.display()))?;
    let link = data.join("image");
    if fs::read_link(&link).is_ok_and(|existing| existing == image) {
        return Ok(());
    }
    if link.is_symlink() {
        fs::remove_file(&link).with_context(|| format!("cannot replace {}", link.display()))?;
    } else if link.exists() {
        note(&format!(
            "{} has an image of its own, which stays",
            home.display()
        ));
        return Ok(());
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(image, &link).with_context(|| format!("cannot create {}", link.display()))?;
    Ok(())
}

/// A file for the shell's `.`, so that `cove` and Docker clients find this machine.
fn write_variables(layout: &Layout, home: &Path, built: &Built) -> Result<PathBuf> {
    let file = layout.variables();
    let text = variables(layout, home, &built.cove, &built.docker)?;
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

fn variables(layout: &Layout, home: &Path, cove: &Path, docker: &Path) -> Result<String> {
    let programs = cove.parent().context("the program has no directory")?;
    // Last, so that a client that is installed later goes before the one that was fetched.
    let client = match docker.parent() {
        Some(place) if docker.starts_with(layout.target()) => format!(":{}", quoted(place)),
        _ => String::new(),
    };
    Ok(format!(
        "# For a shell: makes `cove` and Docker clients use the machine of `cargo xtask run`.\n\
         export COVE_HOME={}\n\
         export PATH={}:\"$PATH\"{client}\n\
         eval \"$(cove env --shell sh)\"\n",
        quoted(home),
        quoted(programs)
    ))
}

/// A path as a word of the shell's that means nothing else.
fn quoted(path: &Path) -> String {
    process::quoted(&path.display().to_string())
}

impl Demo {
    fn cove(&self) -> Command {
        let mut command = Command::new(&self.cove);
        command.env("COVE_HOME", &self.home).env_remove("COVE_MACHINE");
        command
    }

    fn docker(&self) -> Command {
        let mut command = Command::new(&self.docker);
        command
            .env("DOCKER_HOST", &self.docker_host)
            .env_remove("DOCKER_CONTEXT");
        command
    }

    /// The process of a daemon that runs a program which has been built anew since.
    fn older_daemon(&self) -> Option<u64> {
        let versions: Value =
            serde_json::from_str(&try_capture(self.cove().args(["version", "--json"]))?).ok()?;
        let pid = versions["daemon"]["pid"].as_u64()?;
        let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        // So Linux shows a file that another one has replaced (proc_pid_exe(5)).
        program.to_string_lossy().ends_with(" (deleted)").then_some(pid)
    }

    /// Opens the window, which goes on when this command has ended.
    fn open_window(&self, program: &Path) -> Result<()> {
        step("Opening the window");
        Command::new(program)
            .env("COVE_HOME", &self.home)
            .env_remove("COVE_MACHINE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(drop)
            .with_context(|| format!("cannot start {}", program.display()))
    }

    /// Runs the container, and returns where this computer has its page.
    fn serve(&self, page: &Page) -> Result<SocketAddr> {
        // What an earlier run left.
        process::run_quietly(self.docker().args(["rm", "--force", &page.container]))?;
        note(&format!("docker {} …", page.options.join(" ")));
        process::run_quietly(self.docker().args(&page.options).args(&page.command))?;
        let published = capture(self.docker().args(["port", &page.container, &page.port]));
        if let Some(address) = address_in(&published.unwrap_or_default()) {
            return Ok(address);
        }
        let logs = capture(self.docker().args(["logs", &page.container])).unwrap_or_default();
        bail!(
            "the container `{}` publishes no port; it said: {logs}",
            page.container
        )
    }
}

/// A container that serves a page.
struct Page {
    container: String,
    /// The port that it listens at, as the Docker client names one.
    port: String,
    /// How the Docker client is told to run it, up to the image.
    options: Vec<String>,
    /// What it runs.
    command: Vec<String>,
}

impl Page {
    fn of_the_window() -> Result<Self> {
        let spec: Value = serde_json::from_str(WELCOME).context("the welcome page's file is no JSON")?;
        let word = |value: &Value| value.as_str().map(str::to_owned);
        let read = || {
            let container = word(&spec["name"])?;
            let published = &spec["ports"][0];
            let port = published["container"].as_u64()?;
            let publish = format!("{}::{port}", published["address"].as_str()?);
            let options = ["run", "--detach", "--name", &container, "--publish", &publish];
            let mut options = Vec::from(options.map(str::to_owned));
            options.push(word(&spec["image"])?);
            let command = spec["command"].as_array()?.iter().map(word);
            Some(Self {
                port: format!("{port}/tcp"),
                options,
                command: command.collect::<Option<_>>()?,
                container,
            })
        };
        read().context("the welcome page's file does not say what to run")
    }
}

/// The first address that `docker port` names, an address a line.
fn address_in(published: &str) -> Option<SocketAddr> {
    published.lines().find_map(|line| line.parse().ok())
}

/// The beginning of a page, an element a line.
fn excerpt(page: &str) -> Vec<String> {
    let lines = page.replace("><", ">\n<");
    lines.lines().take(SHOWN_LINES).map(str::to_owned).collect()
}

/// The page at an address, once its server answers, which may take as long as `limit`.
fn fetch(address: SocketAddr, limit: Duration) -> Result<String> {
    let began = Instant::now();
    loop {
        match get(address) {
            Ok(page) if page.contains("<html") => return Ok(page),
            _ if began.elapsed() < limit => thread::sleep(Duration::from_millis(200)),
            Ok(page) => bail!("http://{address}/ answered something else:\n{page}"),
            Err(error) => return Err(error).with_context(|| format!("http://{address}/ does not answer")),
        }
    }
}

/// The body of `GET /`.
fn get(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST_PAGE).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200"),
        "the server says `{status}`"
    );
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{BufRead as _, BufReader},
        net::{Ipv4Addr, TcpListener},
    };

    const PAGE: &str = "<!doctype html><html lang=en><title>A page</title><p>Some words.</p>";

    /// A server on this computer's loopback that gives one of these answers to each connection, and what it was asked.
    fn server(answers: &[&str]) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        let serve = move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
                asked.push(lines.next().unwrap());
                // What is not read is lost with the answer when the connection is closed.
                assert!(lines.any(|line| line.is_empty()));
                (&stream).write_all(answer.as_bytes()).unwrap();
            }
            asked
        };
        (address, thread::spawn(serve))
    }

    #[test]
    fn the_clients_words_hold_an_address_or_none() {
        let address = |text: &str| address_in(text).map(|address| address.to_string());
        assert_eq!(
            address("127.0.0.1:32768\n[::1]:32769").as_deref(),
            Some("127.0.0.1:32768")
        );
        assert_eq!(address("[::1]:32769").as_deref(), Some("[::1]:32769"));
        assert_eq!(address(""), None);
        assert_eq!(address("no public port '80/tcp' published"), None);
    }

    #[test]
    fn a_page_is_fetched_as_soon_as_its_server_answers() {
        let found = format!("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n{PAGE}");
        // A container that is just starting closes connections unanswered.
        let (address, asked) = server(&["", "HTTP/1.0 503 Not Yet\r\n\r\n<html>", &found]);
        assert_eq!(fetch(address, PAGE_TIMEOUT).unwrap(), PAGE);
        assert_eq!(asked.join().unwrap(), ["GET / HTTP/1.0"; 3]);
    }

    #[test]
    fn what_answers_without_a_page_is_quoted() {
        let fetch_once = |answer: &str| {
            let (address, _) = server(&[answer]);
            format!("{:#}", fetch(address, Duration::ZERO).unwrap_err())
        };
        let told = fetch_once("HTTP/1.0 404 Not Found\r\n\r\n<html>");
        assert!(
            told.contains("does not answer: the server says `HTTP/1.0 404 Not Found`"),
            "{told}"
        );
        let told = fetch_once("HTTP/1.0 200 OK\r\n\r\nhello");
        assert!(told.ends_with("answered something else:\nhello"), "{told}");
        let told = fetch_once("220 mail.example ESMTP\r\n");
        assert!(told.ends_with("does not answer: no HTTP answer"), "{told}");
    }

    #[test]
    fn an_address_at_which_nobody_listens_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let told = fetch(address, Duration::ZERO).unwrap_err().to_string();
        assert_eq!(told, format!("http://{address}/ does not answer"));
    }

    #[test]
    fn a_page_is_shown_an_element_a_line_and_not_to_its_end() {
        let lines = [
            "<!doctype html>",
            "<html lang=en>",
            "<title>A page</title>",
            "<p>Some words.</p>",
        ];
        assert_eq!(excerpt(PAGE), lines);
        assert_eq!(excerpt(&"<br>".repeat(100)).len(), SHOWN_LINES);
    }

    #[test]
    fn the_windows_page_is_published_on_this_computer_alone() {
        let page = Page::of_the_window().unwrap();
        assert_eq!(
            page.options.join(" "),
            "run --detach --name cove-welcome-page --publish 127.0.0.1::80 alpine"
        );
        assert_eq!(page.port, "80/tcp");
        assert_eq!(page.command.first().map(String::as_str), Some("sh"));
    }

    #[test]
    fn a_path_is_one_word_for_the_shell() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn a_client_that_was_fetched_is_found_by_a_shell_and_an_installed_one_is_left_where_it_is() {
        let layout = Layout::find().unwrap();
        let (home, cove) = (layout.target().join("cove"), layout.cove(Profile::Dev));
        let path_with = |docker: &Path| {
            let text = variables(&layout, &home, &cove, docker).unwrap();
            let line = text
                .lines()
                .find(|line| line.starts_with("export PATH="))
                .unwrap();
            line.to_owned()
        };
        let tools = layout.tools();
        let fetched = path_with(&tools.join("docker-cli/docker"));
        let expected = format!(":\"$PATH\":'{}'", tools.join("docker-cli").display());
        assert!(fetched.ends_with(&expected), "{fetched}");
        assert!(path_with(Path::new("/usr/bin/docker")).ends_with(":\"$PATH\""));
    }
}
