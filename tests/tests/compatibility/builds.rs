//! `docker build`, by the classic builder and by `BuildKit`.

use crate::{
    copy_program, docker,
    registries::{Trusted, login},
    registry::{Authority, HOST, Registry, WORD},
    which,
};
use cove_tests::harness::{Cmd, Cove, Finished, Running, eventually, free_port};
use sha2::{Digest as _, Sha256};
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

/// Waits for a server on this computer's loopback.
#[track_caller]
fn listens(port: u16) {
    eventually("the server", || {
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    });
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
    let dockerfile = "ARG FOUNDATION=scratch\nFROM $FOUNDATION AS base\nARG WHO=nobody\nRUN echo $WHO > /who\n\
                      FROM base AS wanted\nCMD cat /who\nFROM base AS broken\nRUN exit 1\n";
    let build = |target: &str| {
        build(cove, "staged", &[("Dockerfile", dockerfile)])
            .args(["--build-arg=FOUNDATION=alpine", "--build-arg=WHO=somebody"])
            .args(["--target", target])
    };
    built(build("wanted"));
    assert_eq!(output(cove, "staged"), "somebody");
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
    for builder in ["1", "0"] {
        built(build(cove, "ignored", &files).env("DOCKER_BUILDKIT", builder));
        assert_eq!(output(cove, "ignored"), "./code\n./keep.log", "builder {builder}");
    }
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
    let saved = docker(cove, "save secretive").run();
    assert_eq!(saved.code, Some(0), "{}", saved.stderr);
    let archive = saved.stdout;
    assert!(!archive.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(docker(cove, "run --rm secretive").run().text(), "7");
    docker(cove, "rmi secretive").ok();
}

/// A step asks the agent of this computer for its keys, by a client that this computer has.
pub(crate) fn the_hosts_ssh_agent_is_forwarded_into_a_step(cove: &Cove) {
    let place = folder(
        cove,
        "agented",
        &[(
            "Dockerfile",
            "FROM alpine\nCOPY root /\nRUN --mount=type=ssh ssh-add -L > /keys\nCMD cat /keys\n",
        )],
    );
    copy_program(cove, &which("ssh-add"), &place.join("root"), "/usr/bin/ssh-add");
    let (socket, key) = (cove.scratch().join("agent.sock"), cove.scratch().join("key"));
    let agent = cove.program("ssh-agent").arg("-D").arg("-a").arg(&socket).spawn();
    let _agent = Running(agent);
    eventually("the agent's socket", || socket.exists());
    let make = ["-q", "-t", "ed25519", "-N", "", "-C", "a-key-of-this-test", "-f"];
    cove.program("ssh-keygen").args(make).arg(&key).ok();
    cove.program("ssh-add")
        .arg("-q")
        .arg(&key)
        .env("SSH_AUTH_SOCK", &socket)
        .ok();
    built(
        docker(cove, "build -t agented --ssh default .")
            .directory(&place)
            .env("SSH_AUTH_SOCK", &socket)
            .limit(LIMIT),
    );
    let known = fs::read_to_string(key.with_extension("pub")).unwrap();
    assert_eq!(output(cove, "agented"), known.trim_end());
}

pub(crate) fn a_context_comes_from_standard_input_or_an_archive(cove: &Cove) {
    let files = [
        ("Dockerfile", "FROM alpine\nCOPY . /all/\nCMD cat /all/word\n"),
        ("word", "packed\n"),
    ];
    let place = folder(cove, "archive", &files);
    let tar = || {
        let tar = cove
            .program("tar")
            .args(["-c", "-z", "."])
            .directory(&place)
            .run();
        assert_eq!(tar.code, Some(0), "{}", tar.stderr);
        tar.stdout
    };
    let served = cove.scratch().join("builds/served");
    fs::create_dir_all(&served).unwrap();
    fs::write(served.join("context.tar.gz"), tar()).unwrap();
    let port = free_port();
    let server = cove
        .program("python3")
        .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
        .arg(&served)
        .arg(port.to_string())
        .spawn();
    let _server = Running(server);
    listens(port);
    // The classic client fetches the archive by itself, BuildKit from the machine.
    for (builder, host) in [("1", "host.docker.internal"), ("0", "127.0.0.1")] {
        let build = |context: &str, input: Vec<u8>| {
            let build = docker(cove, "build -q -t given").arg(context).input(input);
            built(build.env("DOCKER_BUILDKIT", builder).limit(LIMIT));
            output(cove, "given")
        };
        let alone = b"FROM alpine\nCMD echo no context\n".to_vec();
        assert_eq!(build("-", alone), "no context", "builder {builder}");
        assert_eq!(build("-", tar()), "packed", "builder {builder}");
        let address = format!("http://{host}:{port}/context.tar.gz");
        assert_eq!(
            build(&address, Vec::new()),
            "packed",
            "builder {builder}, by HTTP"
        );
    }
}

/// By the classic builder, whose client clones by itself, and by `BuildKit`, which clones in the machine, with what is
/// nested in the repository.
pub(crate) fn a_context_comes_from_a_git_repository(cove: &Cove) {
    let base = cove.scratch().join("builds/repositories");
    let commit = |name: &str, files: &[(&str, &str)]| {
        let place = folder(cove, &format!("repositories/{name}"), files);
        let git = move |line: &str| {
            cove.program("git")
                .args(["-c", "user.name=a", "-c", "user.email=a@example.org"])
                .args(["-c", "protocol.file.allow=always"])
                .args(line.split(' '))
                .directory(&place)
                .ok()
        };
        git("init -q -b trunk");
        git("add .");
        git("commit -q -m first");
        git
    };
    let part = commit("part", &[("word", "nested\n")]);
    let app = commit(
        "app",
        &[
            (
                "Dockerfile",
                "FROM alpine\nCOPY . /all\nCMD cat /all/word; cat /all/part/word\n",
            ),
            ("word", "committed\n"),
        ],
    );
    let program = format!("{}/git-daemon", part("--exec-path"));
    let port = free_port();
    let server = cove
        .program(&program)
        .args(["--listen=127.0.0.1", "--export-all", "--reuseaddr"])
        .arg(format!("--port={port}"))
        .arg(format!("--base-path={}", base.display()))
        .spawn();
    let _server = Running(server);
    listens(port);
    app("submodule --quiet add ../part part");
    // Relative to where it is cloned from, so that it is found by whichever name that is reached.
    app("config -f .gitmodules submodule.part.url ../part");
    app("add .");
    app("commit -q -m second");
    for (builder, host) in [("0", "127.0.0.1"), ("1", "host.docker.internal")] {
        let build = docker(cove, "build -q -t from-git")
            .arg(format!("git://{host}:{port}/app#trunk"))
            .env("DOCKER_BUILDKIT", builder);
        built(build.limit(LIMIT));
        assert_eq!(output(cove, "from-git"), "committed\nnested", "builder {builder}");
    }
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

/// A step that is done anew writes something else.
const UNREPEATABLE: &str = "FROM alpine\nRUN cat /proc/sys/kernel/random/uuid > /once\nCMD cat /once\n";

pub(crate) fn a_cache_travels_with_its_image(cove: &Cove) {
    let build = || {
        build(cove, "cache-source", &[("Dockerfile", UNREPEATABLE)])
            .arg("--build-arg=BUILDKIT_INLINE_CACHE=1")
    };
    built(build());
    let once = docker(cove, "run --rm cache-source").ok();
    let archive = docker(cove, "save cache-source").run().stdout;
    let forget = || {
        docker(cove, "rmi cache-source").ok();
        docker(cove, "builder prune -af").ok();
    };
    forget();
    docker(cove, "load").input(archive).ok();
    built(build().arg("--cache-from=cache-source"));
    assert_eq!(docker(cove, "run --rm cache-source").ok(), once);
    forget();
    built(build());
    assert_ne!(docker(cove, "run --rm cache-source").ok(), once);
    forget();
}

/// By a registry that wants a password. The builder asks it by itself, as the client who has logged in; no client pulls
/// or loads what it takes from there.
pub(crate) fn a_cache_comes_back_from_a_registry(cove: &Cove) {
    let authority = Authority::new("Larder");
    let registry = Registry::private(cove, &authority);
    let _trusted = Trusted::new(cove, &authority);
    login(cove, &registry, WORD).ok();
    let image = registry.image("team/cached:1");
    let place = folder(cove, "cached-far-away", &[("Dockerfile", UNREPEATABLE)]);
    let build = |options: &[&str]| {
        let build = docker(cove, "build --tag").args([&image, "."]).args(options);
        built(
            build
                .directory(&place)
                .env("BUILDKIT_PROGRESS", "plain")
                .limit(LIMIT),
        )
    };
    let once = || docker(cove, "run --rm").arg(&image).ok();
    let forget = || {
        docker(cove, "rmi").arg(&image).ok();
        docker(cove, "builder prune -af").ok();
        docker(cove, "image inspect").arg(&image).run().fails_with(1);
    };
    let pushed = build(&["--cache-to", "type=inline", "--push"]);
    assert!(!was_cached(&pushed), "{pushed}");
    let first = once();
    forget();
    let cached = build(&["--cache-from", &format!("type=registry,ref={image}")]);
    assert!(was_cached(&cached), "{cached}");
    assert_eq!(once(), first);
    forget();
    // The step is done anew where nobody names the registry.
    let anew = build(&[]);
    assert!(!was_cached(&anew), "{anew}");
    assert_ne!(once(), first);
    forget();
    docker(cove, "logout").arg(&registry.name).ok();
}

/// With the engine's usual store of images it is buildx that refuses, and the engine is asked to build nothing.
pub(crate) fn a_cache_apart_from_its_image_takes_containerds_store(cove: &Cove) {
    let registry = format!("type=registry,ref={HOST}:5000/team/cache:1,mode=max");
    for cache in [registry.as_str(), "type=local,dest=cache"] {
        build(cove, "cached-apart", &[("Dockerfile", UNREPEATABLE)])
            .args(["--cache-to", cache])
            .run()
            .fails_with(1)
            .says(&[
                "Cache export is not supported for the docker driver",
                "turn on the containerd image store",
            ]);
    }
}

/// Whether a build took the result of [`UNREPEATABLE`]'s step from a cache. `BuildKit` numbers the steps, and says by
/// its number what became of one.
fn was_cached(build: &Finished) -> bool {
    let step = |line: &str| {
        let (number, what) = line.split_once(' ')?;
        what.contains("RUN cat /proc/sys/kernel/random/uuid")
            .then(|| number.to_owned())
    };
    let Some(number) = build.stderr.lines().find_map(step) else {
        panic!("the step is not told of: {build}");
    };
    let cached = format!("{number} CACHED");
    build.stderr.lines().any(|line| line == cached)
}

pub(crate) fn a_context_of_a_gibibyte_is_sent(cove: &Cove) {
    let place = folder(
        cove,
        "large",
        &[
            (
                "mounting",
                "FROM alpine\nRUN --mount=target=/context sha256sum < /context/large > /sum\nCMD cat /sum\n",
            ),
            (
                "copying",
                "FROM alpine\nCOPY large /\nRUN sha256sum < /large > /sum\nCMD cat /sum\n",
            ),
        ],
    );
    let mut file = fs::File::create(place.join("large")).unwrap();
    let mut sum = Sha256::new();
    let mut block: Vec<u8> = (0..1 << 20)
        .map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    for number in 0..1024_u32 {
        // No two are the same.
        block[..4].copy_from_slice(&number.to_le_bytes());
        file.write_all(&block).unwrap();
        sum.update(&block);
    }
    let sum = sum
        .finalize()
        .iter()
        .fold(String::new(), |sum, byte| sum + &format!("{byte:02x}"));
    // The classic builder mounts nothing into a step, and so has to copy.
    for (builder, dockerfile) in [("1", "mounting"), ("0", "copying")] {
        docker(cove, "build -q -t large -f")
            .args([dockerfile, "."])
            .directory(&place)
            .env("DOCKER_BUILDKIT", builder)
            .limit(LIMIT * 2)
            .ok();
        assert_eq!(output(cove, "large"), format!("{sum}  -"), "builder {builder}");
        // Neither leaves its gibibyte to the other.
        docker(cove, "builder prune -af").ok();
    }
    fs::remove_dir_all(place).unwrap();
}
