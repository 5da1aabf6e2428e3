//! `docker build` with `BuildKit`, and `docker compose`.

use cove_tests::harness::Cove;
use std::{fs, path::PathBuf, time::Duration};

const BUILD_LIMIT: Duration = Duration::from_mins(6);

fn project(cove: &Cove, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = cove.scratch().join(name);
    let written = fs::create_dir_all(&directory).and_then(|()| {
        files
            .iter()
            .try_for_each(|(file, text)| fs::write(directory.join(file), text))
    });
    assert!(written.is_ok(), "{written:?}");
    directory
}

pub(crate) fn a_multi_stage_dockerfile_builds_with_buildkit(cove: &Cove) {
    let dockerfile = "\
FROM alpine AS compile
WORKDIR /src
COPY source.txt .
RUN tr a-z A-Z < source.txt > program && echo compiled

FROM alpine
ARG GREETING=hello
COPY --from=compile /src/program /program
RUN --mount=type=cache,target=/cache echo $GREETING > /greeting && touch /cache/used
CMD [\"cat\", \"/program\", \"/greeting\"]
";
    let directory = project(
        cove,
        "multi-stage",
        &[
            ("Dockerfile", dockerfile),
            ("source.txt", "loud words\n"),
            (".dockerignore", "unwanted\n"),
            ("unwanted", "not sent\n"),
        ],
    );
    let build = |extra: &[&str]| {
        cove.docker([
            "build",
            "--progress",
            "plain",
            "--tag",
            "built",
            "--build-arg",
            "GREETING=good day",
        ])
        .args(extra)
        .arg(".")
        .directory(&directory)
        .env("DOCKER_BUILDKIT", "1")
        .limit(BUILD_LIMIT)
        .run()
    };
    let first = build(&[]);
    assert_eq!(first.code, Some(0), "{first}");
    let output = cove.docker(["run", "--rm", "built"]).ok();
    assert_eq!(output, "LOUD WORDS\ngood day");
    let second = build(&[]);
    assert_eq!(second.code, Some(0), "{second}");
    assert!(
        second.stderr.contains("CACHED"),
        "the second build used no cache: {second}"
    );
    cove.docker(["rmi", "built"]).ok();
}

pub(crate) fn compose_brings_services_up_and_down(cove: &Cove) {
    let compose = r#"
name: pair
services:
  web:
    image: alpine
    command: sh -c 'while :; do printf "HTTP/1.0 200 OK\r\n\r\nserved by web\n" | nc -l -p 80; done'
    volumes: ["state:/state"]
  client:
    image: alpine
    depends_on: [web]
    command: sh -c 'for i in $$(seq 100); do wget -qO- http://web/ && exit; sleep 0.2; done; exit 1'
volumes:
  state: {}
"#;
    let directory = project(cove, "compose", &[("compose.yaml", compose)]);
    let run = |arguments: &[&str]| {
        cove.docker(["compose"])
            .args(arguments)
            .directory(&directory)
            .limit(BUILD_LIMIT)
    };
    run(&["up", "--detach"]).ok();
    let code = cove.docker(["wait", "pair-client-1"]).ok();
    let logs = run(&["logs"]).ok();
    assert_eq!(code, "0", "{logs}");
    assert!(logs.contains("served by web"), "{logs}");
    let running = run(&["ps", "--services", "--status", "running"]).ok();
    assert_eq!(running, "web");
    run(&["down", "--volumes", "--timeout", "1"]).ok();
    let left = cove
        .docker(["ps", "-aq", "--filter", "label=com.docker.compose.project=pair"])
        .ok();
    assert_eq!(left, "");
}
