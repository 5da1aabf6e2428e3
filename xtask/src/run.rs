//! `cargo xtask run`: from nothing to a web page out of a container.

use crate::{
    build,
    layout::{Layout, Profile},
    process::{self, capture, note, step},
    setup::{self, DockerClient},
};
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The container that serves the page.
const CONTAINER: &str = "cove-welcome";
/// Where the page and its little server are copied to in the container.
const PLACE: &str = "/srv/welcome";
/// How long the server may take to answer, in an emulated machine.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
const PORT: u16 = 8080;

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
    let address = demo.start_server(layout)?;
    step("Fetching its page from this computer");
    let mut forward = demo.forward(&address)?;
    let page = forward.fetch()?;
    for line in page.lines().take(12) {
        note(line);
    }
    // Whoever has the output passed on, as to `tee`, sits at a terminal all the same.
    let serves = !once && (io::stdout().is_terminal() || io::stdin().is_terminal());
    println!();
    if serves {
        println!("The page:        http://{}/", forward.listen);
    } else {
        // The forwarded port ends with this command.
        println!("The page:        cove forward {PORT}:{address}:80");
    }
    println!("Docker clients:  DOCKER_HOST={}", demo.docker_host);
    println!("In your shell:   . {}", variables.display());
    println!("then:            cove status · docker run --rm alpine cat /etc/os-release · cove stop");
    if window {
        demo.open_window(&layout.desktop(Profile::Dev))?;
    }
    if !serves {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nServing until Ctrl-C; the machine goes on after that");
    forward
        .child
        .wait()
        .context("cannot wait for the forwarded port")?;
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
        Some(place) if docker.starts_with(layout.target()) => format!(":'{}'", place.display()),
        _ => String::new(),
    };
    Ok(format!(
        "# For a shell: makes `cove` and Docker clients use the machine of `cargo xtask run`.\n\
         export COVE_HOME='{}'\n\
         export PATH='{}':\"$PATH\"{client}\n\
         eval \"$(cove env --shell sh)\"\n",
        home.display(),
        programs.display()
    ))
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

    /// Starts the container, with a page that it says a few facts in, and returns its address.
    fn start_server(&self, layout: &Layout) -> Result<String> {
        // What an earlier run left.
        process::run_quietly(self.docker().args(["rm", "--force", CONTAINER]))?;
        let serve = format!("{PLACE}/serve");
        let create = ["create", "--name", CONTAINER, "alpine", "sh", &serve];
        note(&format!("docker {}", create.join(" ")));
        process::run_quietly(self.docker().args(create))?;
        let files = layout.root().join("xtask/welcome/.");
        process::run_quietly(
            self.docker()
                .arg("cp")
                .arg(files)
                .arg(format!("{CONTAINER}:{PLACE}")),
        )?;
        process::run_quietly(self.docker().args(["start", CONTAINER]))?;
        let address = capture(self.docker().args([
            "inspect",
            "--format",
            "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
            CONTAINER,
        ]))?;
        if address.is_empty() {
            let logs = capture(self.docker().args(["logs", CONTAINER])).unwrap_or_default();
            bail!("the container `{CONTAINER}` has no address; it said: {logs}");
        }
        Ok(address)
    }

    /// Makes the container's port reachable here, on the usual port or on a free one.
    fn forward(&self, address: &str) -> Result<Forward> {
        for port in [PORT, 0] {
            let mut child = self
                .cove()
                .arg("forward")
                .arg(format!("{port}:{address}:80"))
                .stdout(Stdio::piped())
                .stderr(if port == 0 {
                    Stdio::inherit()
                } else {
                    Stdio::null()
                })
                .spawn()
                .context("cannot start `cove forward`")?;
            let mut line = String::new();
            let stdout = child.stdout.take().context("`cove forward` has no output")?;
            BufReader::new(stdout).read_line(&mut line)?;
            if let Some((listen, _)) = line.split_once(" -> ") {
                return Ok(Forward {
                    child,
                    listen: listen.to_owned(),
                });
            }
            child.wait()?;
        }
        bail!("`cove forward` did not listen")
    }
}

/// A forwarded port; it ends when this does.
struct Forward {
    child: Child,
    listen: String,
}

impl Forward {
    /// The page, once the server answers.
    fn fetch(&self) -> Result<String> {
        let began = Instant::now();
        loop {
            let result = get(&self.listen);
            match result {
                Ok(page) if page.contains("<html") => return Ok(page),
                _ if began.elapsed() < PAGE_TIMEOUT => thread::sleep(Duration::from_millis(200)),
                Ok(page) => bail!("http://{}/ answered something else:\n{page}", self.listen),
                Err(error) => {
                    return Err(error).with_context(|| format!("http://{}/ does not answer", self.listen));
                }
            }
        }
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        // It may have ended by Ctrl-C already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
