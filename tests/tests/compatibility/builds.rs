//! `docker build`, by the classic builder and by `BuildKit`.

use crate::docker;
use cove_tests::harness::{Cmd, Cove, Finished, eventually, free_port};
use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    time::Duration,
};

const LIMIT: Duration = Duration::from_mins(6);

/// A directory of these files, and a build of it that leaves an image of the same name.
fn build(cove: &Cove, name: &str, files: &[(&str, &str)]) -> Cmd {
    let directory = folder(cove, name, files);
    docker(cove, "build -t")
        .args([name, "."])
        .directory(&directory)
        // The classic client does not know the option.
        .env("BUILDKIT_PROGRESS", "plain")
        .limit(LIMIT)
}

fn folder(cove: &Cove, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = cove.scratch().join("builds").join(name);
    for (file, text) in files {
        let path = directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

#[track_caller]
fn built(build: Cmd) -> Finished {
    let finished = build.run();
    assert_eq!(finished.code, Some(0), "{finished}");
    finished
}

/// What the image prints; the image is removed.
fn output(cove: &Cove, image: &str) -> String {
    let output = docker(cove, "run --rm").arg(image).ok();
    docker(cove, "rmi").arg(image).ok();
    output
}

pub(crate) fn the_classic_builder_builds(cove: &Cove) {
    let files = [
        (
            "Dockerfile",
            "FROM alpine AS first\nCOPY word /\nRUN tr a-z A-Z < /word > /loud\nFROM alpine\nARG MARK\nENV MARK=$MARK\nCOPY --from=first /loud /\nCMD echo $(cat /loud)$MARK\n",
        ),
        ("word", "classic\n"),
    ];
    let finished = built(
        build(cove, "by-classic", &files)
            .arg("--build-arg=MARK=!")
            .env("DOCKER_BUILDKIT", "0"),
    );
    assert!(finished.text().contains("Step 1/8"), "{finished}");
    assert_eq!(output(cove, "by-classic"), "CLASSIC!");
}

pub(crate) fn only_the_stage_that_was_asked_for_is_built(cove: &Cove) {
    let dockerfile = "FROM alpine AS base\nRUN echo base > /who\nFROM base AS wanted\nCMD cat /who\nFROM base AS broken\nRUN exit 1\n";
    let build =
        |target: &str| build(cove, "staged", &[("Dockerfile", dockerfile)]).args(["--target", target]);
    built(build("wanted"));
    assert_eq!(output(cove, "staged"), "base");
    build("broken")
        .run()
        .fails_with(1)
        .says(&["did not complete successfully: exit code: 1"]);
}

pub(crate) fn what_dockerignore_names_is_not_sent(cove: &Cove) {
    let files = [
        (
            "Dockerfile",
            "FROM alpine\nCOPY . /all\nCMD cd /all && find . -type f | sort\n",
        ),
        (
            ".dockerignore",
            "*.log\n!keep.log\nsecrets/\nDockerfile\n.dockerignore\n",
        ),
        ("a.log", ""),
        ("keep.log", ""),
        ("code", ""),
        ("secrets/key", ""),
    ];
    built(build(cove, "ignored", &files));
    assert_eq!(output(cove, "ignored"), "./code\n./keep.log");
}

pub(crate) fn a_cache_mount_lasts_from_build_to_build(cove: &Cove) {
    let dockerfile = "FROM alpine\nARG RUN\nRUN --mount=type=cache,target=/cache echo $RUN >> /cache/runs && cp /cache/runs /\nCMD cat /runs\n";
    for run in ["first", "second"] {
        built(build(cove, "cached", &[("Dockerfile", dockerfile)]).arg(format!("--build-arg=RUN={run}")));
    }
    assert_eq!(output(cove, "cached"), "first\nsecond");
}

pub(crate) fn a_secret_is_seen_by_its_step_and_kept_in_no_layer(cove: &Cove) {
    let files = [
        (
            "Dockerfile",
            "FROM alpine\nRUN --mount=type=secret,id=token wc -c < /run/secrets/token > /length\nCMD cat /length; ls /run/secrets\n",
        ),
        ("token.txt", "hunter2"),
    ];
    built(build(cove, "secretive", &files).arg("--secret=id=token,src=token.txt"));
    let archive = docker(cove, "save secretive").run().stdout;
    assert!(!archive.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(docker(cove, "run --rm secretive").run().text(), "7");
    docker(cove, "rmi secretive").ok();
}

pub(crate) fn the_hosts_ssh_agent_is_forwarded_into_a_step(cove: &Cove) {
    let socket = cove.scratch().join("agent.sock");
    let mut agent = cove.program("ssh-agent").arg("-D").arg("-a").arg(&socket).spawn();
    eventually("the agent's socket", || socket.exists());
    let dockerfile = "FROM alpine\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo $SSH_AUTH_SOCK > /seen\nCMD cat /seen\n";
    let finished = build(cove, "agented", &[("Dockerfile", dockerfile)])
        .args(["--ssh", "default"])
        .env("SSH_AUTH_SOCK", &socket)
        .run();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(finished.code, Some(0), "{finished}");
    assert!(output(cove, "agented").starts_with("/run/buildkit/ssh_agent"));
}

pub(crate) fn a_context_comes_from_standard_input_or_an_archive(cove: &Cove) {
    docker(cove, "build -q -t from-stdin -")
        .input("FROM alpine\nCMD echo no context\n")
        .ok();
    assert_eq!(output(cove, "from-stdin"), "no context");
    let place = folder(
        cove,
        "archive",
        &[
            ("Dockerfile", "FROM alpine\nCOPY word /\nCMD cat /word\n"),
            ("word", "packed\n"),
        ],
    );
    let archive = cove
        .program("tar")
        .args(["-c", "-z", "."])
        .directory(&place)
        .run();
    docker(cove, "build -q -t from-archive -")
        .input(archive.stdout)
        .ok();
    assert_eq!(output(cove, "from-archive"), "packed");
}

pub(crate) fn a_context_comes_from_a_git_repository(cove: &Cove) {
    let place = folder(
        cove,
        "repository/app",
        &[
            ("Dockerfile", "FROM alpine\nCOPY word /\nCMD cat /word\n"),
            ("word", "committed\n"),
        ],
    );
    let git = |line: &str| {
        cove.program("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
            .args(line.split(' '))
            .directory(&place)
            .ok()
    };
    git("init -q -b trunk");
    git("add .");
    git("commit -q -m first");
    let port = free_port();
    let mut server = cove
        .program(&format!("{}/git-daemon", git("--exec-path")))
        .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", place.parent().unwrap().display()))
        .spawn();
    eventually("git's server", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
    // The classic client clones it by itself, so that the repository may be one that only this computer reaches.
    let finished = docker(cove, "build -q -t from-git")
        .arg(format!("git://127.0.0.1:{port}/app#trunk"))
        .env("DOCKER_BUILDKIT", "0")
        .limit(LIMIT)
        .run();
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(finished.code, Some(0), "{finished}");
    assert_eq!(output(cove, "from-git"), "committed");
}

pub(crate) fn the_result_may_be_files_on_this_computer(cove: &Cove) {
    let dockerfile = "FROM alpine AS make\nRUN echo made > /made\nFROM scratch\nCOPY --from=make /made /\n";
    let place = folder(cove, "exported", &[("Dockerfile", dockerfile)]);
    docker(cove, "build -q --output out .")
        .directory(&place)
        .limit(LIMIT)
        .ok();
    assert_eq!(fs::read_to_string(place.join("out/made")).unwrap(), "made\n");
}

pub(crate) fn a_cache_travels_with_its_image(cove: &Cove) {
    let files = [("Dockerfile", "FROM alpine\nRUN echo slow step > /slow\n")];
    let inline = || build(cove, "cache-source", &files).arg("--build-arg=BUILDKIT_INLINE_CACHE=1");
    built(inline());
    let archive = docker(cove, "save cache-source").run().stdout;
    docker(cove, "rmi cache-source").ok();
    docker(cove, "builder prune -af").ok();
    docker(cove, "load").input(archive).ok();
    let again = built(inline().arg("--cache-from=cache-source"));
    assert!(again.stderr.contains("CACHED"), "{again}");
    docker(cove, "rmi cache-source").ok();
}

pub(crate) fn a_context_of_a_gibibyte_is_sent(cove: &Cove) {
    let place = folder(
        cove,
        "large",
        &[(
            "Dockerfile",
            "FROM alpine\nRUN --mount=target=/context wc -c < /context/large > /length\nCMD cat /length\n",
        )],
    );
    let mut file = fs::File::create(place.join("large")).unwrap();
    let block: Vec<u8> = (0..1 << 20)
        .map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    for _ in 0..1024 {
        file.write_all(&block).unwrap();
    }
    docker(cove, "build -q -t large .")
        .directory(&place)
        .limit(LIMIT * 2)
        .ok();
    assert_eq!(output(cove, "large"), "1073741824");
    docker(cove, "builder prune -af").ok();
    fs::remove_dir_all(place).unwrap();
}
