//! Client and daemon: versions, pings, errors, events.

use crate::docker;
use cove_tests::harness::{Cove, Running, Wire};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    sync::mpsc,
    thread,
    time::Duration,
};

fn get(cove: &Cove, path: &str) -> (u16, Value) {
    let mut wire = Wire::connect(&cove.docker_socket());
    wire.send("GET", path, "", "");
    let answer = wire.response();
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

pub(crate) fn client_and_engine_agree_on_a_version(cove: &Cove) {
    let versions = cove
        .docker([
            "version",
            "--format",
            "{{.Client.DefaultAPIVersion}} {{.Client.APIVersion}} {{.Server.APIVersion}}",
        ])
        .ok();
    let [own, spoken, server] = versions.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{versions}")
    };
    let number =
        |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap()).collect() };
    assert_eq!(number(spoken), number(own).min(number(server)), "{versions}");
    // An old client speaks its own version, and one from the future is told what there is.
    let (status, old) = get(cove, "/v1.24/version");
    assert_eq!((status, old["ApiVersion"].as_str()), (200, Some(server)));
    // What version 1.44 did away with is there for clients that are older.
    for (version, has) in [("1.24", true), (server, false)] {
        let (status, images) = get(cove, &format!("/v{version}/images/json"));
        let size = images[0].get("VirtualSize");
        assert_eq!((status, size.is_some()), (200, has), "{version}: {images}");
    }
    let (status, refusal) = get(cove, "/v9.99/version");
    assert_eq!(status, 400);
    assert!(
        refusal["message"].as_str().unwrap().contains("is too new"),
        "{refusal}"
    );
}

pub(crate) fn ping_says_what_the_engine_is(cove: &Cove) {
    // GET, and HEAD, which has no body.
    for (method, body) in [("--include", "ok"), ("--head", "")] {
        let curl = cove.client("curl").args(["-sS", method, "--unix-socket"]);
        let answer = curl
            .arg(cove.docker_socket())
            .arg("http://docker/_ping")
            .ok()
            .to_ascii_lowercase();
        let lines: Vec<&str> = answer.lines().map(str::trim_end).collect();
        assert!(lines[0].starts_with("http/1.1 200"), "{answer}");
        for header in ["api-version: ", "builder-version: 2", "ostype: linux"] {
            assert!(lines.iter().any(|line| line.starts_with(header)), "{answer}");
        }
        assert_eq!(lines.last(), Some(&body), "{answer}");
    }
}

pub(crate) fn errors_of_the_engine_arrive_unchanged(cove: &Cove) {
    let (status, error) = get(cove, "/containers/nobody/json");
    assert_eq!(status, 404);
    assert_eq!(error["message"], "No such container: nobody");
    // Byte by byte what the engine answers to a container that has its socket.
    let context = cove.scratch().join("asker");
    fs::create_dir_all(&context).unwrap();
    fs::copy(cove.kit().posix.as_ref().unwrap(), context.join("posix")).unwrap();
    docker(cove, "build -q -t asker -f -")
        .arg(&context)
        .input("FROM alpine\nCOPY posix /\nCMD sleep 600\n")
        .ok();
    docker(cove, "run -d --name asker -v /var/run/docker.sock:/engine asker").ok();
    let undated = |answer: &str| -> Vec<String> {
        let lines = answer.split("\r\n").filter(|line| !line.starts_with("Date: "));
        lines.map(str::to_owned).collect()
    };
    let socket = cove.docker_socket();
    for path in [
        "/containers/nobody/json",
        "/v1.30/images/none/json",
        "/v9.99/info",
        "/no/such/thing",
        "/_ping",
    ] {
        let inside = docker(cove, "exec asker /posix ask /engine").arg(path).ok();
        let outside = cove
            .client("curl")
            .args(["-sS", "-i", "-H", "Connection: close", "--unix-socket"]);
        let outside = outside
            .arg(&socket)
            .arg(format!("http://docker{path}"))
            .run()
            .text();
        assert_eq!(undated(&outside), undated(&inside), "{path}");
    }
    docker(cove, "rm -f asker").ok();
    docker(cove, "rmi asker").ok();
    cove.docker(["inspect", "nobody"])
        .run()
        .fails_with(1)
        .says(&["No such object: nobody"]);
    cove.docker(["run", "--rm", "--memory", "1b", "alpine", "true"])
        .run()
        .fails_with(125)
        .says(&["Minimum memory limit allowed is"]);
}

pub(crate) fn info_describes_a_whole_engine(cove: &Cove) {
    let info: Value = serde_json::from_str(&cove.docker(["info", "--format", "json"]).ok()).unwrap();
    assert_eq!(info["Driver"], "overlay2");
    assert_eq!(info["CgroupVersion"], "2");
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["Warnings"], Value::Null, "the engine lacks something");
    for limit in [
        "MemoryLimit",
        "SwapLimit",
        "CpuCfsQuota",
        "CPUShares",
        "CPUSet",
        "PidsLimit",
        "OomKillDisable",
    ] {
        // With cgroup v2 the kernel has no switch for the OOM killer.
        assert_eq!(info[limit], limit != "OomKillDisable", "{limit}");
    }
}

/// The lines of `docker events` with these options, for as long as the client lives.
fn watch(cove: &Cove, options: &str) -> (Running, mpsc::Receiver<String>) {
    let mut watching = docker(cove, &format!("events --since 0 {options}")).spawn();
    let output = BufReader::new(watching.stdout.take().unwrap());
    let (sender, told) = mpsc::channel();
    // Ends with the client.
    thread::spawn(move || {
        output
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    (Running(watching), told)
}

pub(crate) fn events_are_told_as_they_happen(cove: &Cove) {
    let (_watching, told) = watch(cove, "--filter container=eventful --format {{.Action}}");
    let next = || told.recv_timeout(Duration::from_mins(1));
    // Each is told while the one that follows it has not happened yet.
    for (command, events) in [
        ("create --name eventful alpine sleep 600", &["create"][..]),
        ("start eventful", &["start"]),
        ("pause eventful", &["pause"]),
        ("unpause eventful", &["unpause"]),
        ("kill eventful", &["kill", "die"]),
        ("rm eventful", &["destroy"]),
    ] {
        docker(cove, command).ok();
        for event in events {
            assert_eq!(next().as_deref(), Ok(*event), "{command}");
        }
    }
    // What is no container has events, too.
    let (_watching, told) = watch(
        cove,
        "--filter type=image --filter type=network --filter type=volume \
         --format {{.Type}}/{{.Action}}/{{.Actor.ID}}/{{.Actor.Attributes.name}}",
    );
    for (command, event) in [
        ("volume create eventful", "volume/create/"),
        ("volume rm eventful", "volume/destroy/"),
        ("network create eventful", "network/create/"),
        ("network rm eventful", "network/destroy/"),
        ("tag alpine eventful:1", "image/tag/"),
    ] {
        docker(cove, command).ok();
        // Others have had volumes, networks and images before.
        let line = loop {
            let line = told.recv_timeout(Duration::from_mins(1)).unwrap();
            if line.contains("eventful") {
                break line;
            }
        };
        assert!(line.starts_with(event), "{command}: {line}");
    }
    docker(cove, "rmi eventful:1").ok();
}

/// The requests of a client that knows nothing of Docker: a stream that is read while it is written, a body in chunks.
pub(crate) fn curl_does_the_whole_round(cove: &Cove) {
    let socket = cove.docker_socket();
    let curl = |arguments: &[&str], path: &str| {
        let curl = cove
            .client("curl")
            .args(["-sS", "--fail-with-body", "--unix-socket"]);
        curl.arg(&socket)
            .args(arguments)
            .arg(format!("http://docker{path}"))
    };
    let json = "Content-Type: application/json";
    let wanted = r#"{"Image":"alpine","Cmd":["sh","-c","cat /srv/word; echo heard >&2"],"Tty":true}"#;
    curl(&["-H", json, "-d", wanted], "/containers/create?name=curled").ok();
    let place = cove.scratch().join("curl");
    fs::create_dir_all(&place).unwrap();
    fs::write(place.join("word"), "carried\n").unwrap();
    // Sent from a pipe, so that nobody knows its length before its end.
    let archive = cove
        .program("tar")
        .args(["-c", "word"])
        .directory(&place)
        .run()
        .stdout;
    curl(&["-X", "PUT", "-T", "-"], "/containers/curled/archive?path=/srv")
        .input(archive)
        .ok();
    curl(&["-X", "POST"], "/containers/curled/start").ok();
    let log = curl(&["-N"], "/containers/curled/logs?follow=1&stdout=1&stderr=1").ok();
    assert_eq!(log.trim_end(), "carried\r\nheard");
    let ended = curl(&["-X", "POST"], "/containers/curled/wait").ok();
    assert!(ended.contains("\"StatusCode\":0"), "{ended}");
    curl(&["-X", "DELETE"], "/containers/curled").ok();
    let saved = curl(&[], "/images/alpine/get").run().stdout;
    let loaded = curl(
        &["-X", "POST", "-H", "Content-Type: application/x-tar", "-T", "-"],
        "/images/load",
    )
    .input(saved)
    .ok();
    assert!(loaded.contains("Loaded image"), "{loaded}");
    curl(&[], "/containers/curled/json").run().fails_with(22);
}

pub(crate) fn a_websocket_attaches_to_a_container(cove: &Cove) {
    docker(cove, "create -i --name webbed alpine sh -c")
        .arg("read word; echo got $word")
        .ok();
    let mut wire = Wire::connect(&cove.docker_socket());
    wire.send(
        "GET",
        "/containers/webbed/attach/ws?stream=1&stdin=1&stdout=1",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://docker\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "",
    );
    let (status, headers) = wire.head();
    // The answer that RFC 6455 computes for this key.
    let accepted =
        |line: &String| line.eq_ignore_ascii_case("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(
        status == 101 && headers.iter().any(accepted),
        "{status} {headers:?}"
    );
    docker(cove, "start webbed").ok();
    // A text frame of ours is masked, here with zeros; one of theirs is not.
    wire.write(b"\x81\x85\0\0\0\0word\n");
    let mut heard = Vec::new();
    while !heard.ends_with(b"got word\n") {
        let head = wire.exactly(2);
        assert!(head[1] < 126, "a frame of another length, or masked: {head:?}");
        heard.extend(wire.exactly(head[1].into()));
    }
    docker(cove, "rm -f webbed").ok();
}

pub(crate) fn disk_use_is_told_and_reclaimed(cove: &Cove) {
    // What others have left is not counted.
    cove.docker(["system", "prune", "--force"]).ok();
    docker(cove, "run --name spent alpine sh -c")
        .arg("dd if=/dev/zero of=/waste bs=1M count=3 2>&1")
        .ok();
    let used = cove
        .docker(["system", "df", "--format", "{{.Type}} {{.Size}}"])
        .ok();
    assert!(used.contains("Containers 3.1"), "{used}");
    let pruned = cove.docker(["system", "prune", "--force"]).ok();
    assert!(pruned.contains("Total reclaimed space: 3.1"), "{pruned}");
    cove.docker(["inspect", "spent"]).run().fails_with(1);
}
