//! `cargo xtask run`: from nothing to a web page out of a container.

use crate::{
    build,
    layout::{Layout, Profile},
    process::{self, capture, note, step},
    setup::{self, DockerClient},
};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The container that serves the window's welcome page; a test of the front end keeps the file.
const WELCOME: &str = include_str!("../../ui/src/lib/state/welcome.json");
/// How long the server may take to answer, in an emulated machine.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A Cove that is set up, with its clients.
struct Demo {
    cove: PathBuf,
    home: PathBuf,
    docker: PathBuf,
    docker_host: String,
}

pub(crate) fn run(layout: &Layout, once: bool) -> Result<ExitCode> {
    step("Looking for what is needed");
    setup::machine_tools(layout)?;
    let docker = DockerClient::plain(layout)?;
    let window = has_display() && !once && setup::desktop_tools(layout, false)?;
    let programs = build::programs(layout, Profile::Dev, window)?;
    build::image(layout, &programs, false)?;
    let home = layout.home()?;
    use_image(&home, &layout.image())?;
    let variables = write_variables(layout, &home, &programs.cove, &docker.program)?;

    step("Starting the machine");
    let mut demo = Demo {
        cove: programs.cove,
        home,
        docker: docker.program,
        docker_host: String::new(),
    };
    process::run(demo.cove().arg("start"))?;
    demo.docker_host = capture(demo.cove().args(["env", "--socket"]))?;

    step("Running a container through the forwarded socket");
    let address = demo.serve(&Page::of_the_window()?)?;
    step("Fetching its page from this computer");
    // An element a line.
    let page = fetch(&address)?.replace("><", ">\n<");
    for line in page.lines().take(12) {
        note(line);
    }
    println!();
    println!("The page:        http://{address}/");
    println!("Docker clients:  DOCKER_HOST={}", demo.docker_host);
    println!("In your shell:   . {}", quoted(&variables));
    println!("then:            cove status · docker run --rm alpine cat /etc/os-release · cove stop");
    if window {
        demo.open_window(&layout.desktop(Profile::Dev))?;
    }
    Ok(ExitCode::SUCCESS)
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
fn write_variables(layout: &Layout, home: &Path, cove: &Path, docker: &Path) -> Result<PathBuf> {
    let file = layout.target().join("cove.sh");
    let text = variables(layout, home, cove, docker)?;
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
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
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
    fn serve(&self, page: &Page) -> Result<String> {
        // What an earlier run left.
        process::run_quietly(self.docker().args(["rm", "--force", &page.container]))?;
        note(&format!("docker {} …", page.options.join(" ")));
        process::run_quietly(self.docker().args(&page.options).args(&page.command))?;
        let published = capture(self.docker().args(["port", &page.container, &page.port]));
        if let Some(address) = published.unwrap_or_default().lines().next() {
            return Ok(address.to_owned());
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

/// The page at an address, once its server answers.
fn fetch(address: &str) -> Result<String> {
    let began = Instant::now();
    loop {
        match get(address) {
            Ok(page) if page.contains("<html") => return Ok(page),
            _ if began.elapsed() < PAGE_TIMEOUT => thread::sleep(Duration::from_millis(200)),
            Ok(page) => bail!("http://{address}/ answered something else:\n{page}"),
            Err(error) => return Err(error).with_context(|| format!("http://{address}/ does not answer")),
        }
    }
}

/// The body of `GET /`.
fn get(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
