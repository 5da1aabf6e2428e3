//! Connections that are more than a question and an answer.

use cove_tests::harness::{Cove, Wire};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    thread,
    time::Duration,
};

pub(crate) fn run_passes_input_on_and_ends_with_it(cove: &Cove) {
    let output = cove
        .docker([
            "run",
            "-i",
            "--rm",
            "alpine",
            "sh",
            "-c",
            "wc -c; echo after the end",
        ])
        .input(vec![b'x'; 300_000])
        .ok();
    assert_eq!(output, "300000\nafter the end");
}

/// Creates a container over the API and returns its id.
fn create(cove: &Cove, body: &Value) -> String {
    let mut wire = Wire::connect(&cove.docker_socket());
    wire.send("POST", "/v1.43/containers/create", "", &body.to_string());
    let answer = wire.response();
    assert_eq!(answer.status, 201, "{}", answer.body);
    let created: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    created["Id"].as_str().unwrap_or_default().to_owned()
}

fn post(cove: &Cove, path: &str, expected: u16) {
    let mut wire = Wire::connect(&cove.docker_socket());
    wire.send("POST", path, "", "");
    let answer = wire.response();
    assert_eq!(answer.status, expected, "{path}: {}", answer.body);
}

/// The payload of a stream of Docker's frames: a byte for the stream, three zeroes, a 32-bit length.
fn payload(mut frames: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    while let Some((head, rest)) = frames.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (body, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        payload.extend_from_slice(body);
        frames = rest;
    }
    payload
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

pub(crate) fn attach_delivers_output_after_the_input_was_half_closed(cove: &Cove) {
    let script = "cat; sleep 1; echo; echo and then some";
    let id = create(
        cove,
        &serde_json::json!({
            "Image": "alpine", "Cmd": ["sh", "-c", script], "OpenStdin": true, "StdinOnce": true,
            "AttachStdin": true, "AttachStdout": true, "HostConfig": { "AutoRemove": true },
        }),
    );
    let mut wire = Wire::connect(&cove.docker_socket());
    let path = format!("/v1.43/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
    wire.send("POST", &path, UPGRADE, "");
    assert_eq!(wire.head().0, 101);
    post(cove, &format!("/v1.43/containers/{id}/start"), 204);
    wire.write(b"first ");
    wire.write(b"second");
    wire.half_close();
    let output = payload(&wire.rest());
    assert_eq!(String::from_utf8_lossy(&output), "first second\nand then some\n");
}

pub(crate) fn exec_over_an_upgraded_connection_keeps_half_close(cove: &Cove) {
    cove.docker(["run", "-d", "--rm", "--name", "busy", "alpine", "sleep", "600"])
        .ok();
    let mut wire = Wire::connect(&cove.docker_socket());
    let wanted = serde_json::json!({
        "AttachStdin": true, "AttachStdout": true, "Cmd": ["sh", "-c", "sort; echo done"],
    });
    wire.send("POST", "/v1.43/containers/busy/exec", "", &wanted.to_string());
    let answer = wire.response();
    assert_eq!(answer.status, 201, "{}", answer.body);
    let exec: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let id = exec["Id"].as_str().unwrap_or_default();
    // The same connection goes on: keep-alive, and then it stops being HTTP.
    let path = format!("/v1.43/exec/{id}/start");
    wire.send("POST", &path, UPGRADE, r#"{"Detach":false,"Tty":false}"#);
    assert_eq!(wire.head().0, 101);
    wire.write(b"b\na\nc\n");
    wire.half_close();
    assert_eq!(String::from_utf8_lossy(&payload(&wire.rest())), "a\nb\nc\ndone\n");
    cove.docker(["rm", "-f", "busy"]).ok();
}

pub(crate) fn logs_follow_line_by_line_and_end_with_the_container(cove: &Cove) {
    // Each line waits until the one before was read: were lines held back until there are more, none would come.
    let script = "for i in 1 2 3; do
            patience=600
            until [ -e /go$i ]; do patience=$((patience - 1)); [ $patience -gt 0 ] || exit; sleep 0.1; done
            echo line $i
        done";
    cove.docker(["run", "-d", "--name", "talker", "alpine", "sh", "-c", script])
        .ok();
    let ask_for = |number: usize| {
        let go = format!("/go{number}");
        cove.docker(["exec", "talker", "touch", &go]).ok();
    };
    let mut logs = cove.docker(["logs", "--follow", "talker"]).spawn();
    ask_for(1);
    let mut lines = Vec::new();
    if let Some(stdout) = logs.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            lines.push(line);
            if lines.len() < 3 {
                ask_for(lines.len() + 1);
            }
        }
    }
    assert!(logs.wait().is_ok_and(|status| status.success()));
    assert_eq!(lines, ["line 1", "line 2", "line 3"]);
    cove.docker(["rm", "-f", "talker"]).ok();
}

pub(crate) fn two_hundred_connections_are_served_at_once(cove: &Cove) {
    let socket = cove.docker_socket();
    let mut wires: Vec<Wire> = (0..200).map(|_| Wire::connect(&socket)).collect();
    // Twice over the same connections, all asked before any is read.
    for path in ["/_ping", "/version"] {
        for wire in &mut wires {
            wire.send("GET", path, "", "");
        }
        for (number, wire) in wires.iter_mut().enumerate() {
            let answer = wire.response();
            assert_eq!(answer.status, 200, "connection {number}, {path}: {}", answer.body);
        }
    }
}

pub(crate) fn a_client_that_goes_away_leaves_the_others_alone(cove: &Cove) {
    let socket = cove.docker_socket();
    let mut witness = Wire::connect(&socket);
    for _ in 0..50 {
        let mut rude = Wire::connect(&socket);
        rude.send("GET", "/events", "", "");
        drop(rude);
        let mut cut = Wire::connect(&socket);
        cut.write(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
        drop(cut);
    }
    thread::sleep(Duration::from_millis(200));
    witness.send("GET", "/_ping", "", "");
    assert_eq!(witness.response().body, "OK");
}
