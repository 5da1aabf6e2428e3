//! What developers use besides `docker`: its Python client, testcontainers, a job that has Docker inside its container,
//! dev containers.

use crate::{Shared, copy_program, docker, docker_host};
use bollard::{
    Docker,
    exec::{CreateExecOptions, StartExecResults},
    models::ContainerCreateBody,
    query_parameters::{AttachContainerOptionsBuilder, EventsOptionsBuilder},
};
use cove_tests::harness::{Cmd, Cove, Running, within};
use futures_util::{StreamExt as _, TryStreamExt as _};
use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::io::AsyncWriteExt as _;

const LIMIT: Duration = Duration::from_mins(3);

/// Building a dev container takes several images and containers, one after the other.
const DEV_CONTAINER: Duration = Duration::from_mins(10);

/// Python with the clients, pointed at the machine's socket and nothing else.
fn python(cove: &Cove, script: &str) -> Cmd {
    told_of_the_machine(cove, cove.client("python3")).args(["-c", script])
}

fn told_of_the_machine(cove: &Cove, python: Cmd) -> Cmd {
    let packages = cove.kit().python.as_ref().unwrap();
    python
        .env("PYTHONPATH", packages)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("DOCKER_HOST", docker_host(cove))
}

/// The root directory without the mark of a container, by bind mounts in a namespace, and Python there.
const WITHOUT_MARK: &str = r#"
root=$1; shift
mount -t tmpfs tmpfs "$root"
for place in /* /.[!.]*; do
  if test -L "$place"; then cp -P "$place" "$root$place"
  elif test -d "$place"; then mkdir "$root$place"; mount --rbind "$place" "$root$place"
  fi
done
exec chroot "$root" "$@"
"#;

/// The same where nothing says that this is a container. Where the tests run in one, testcontainers would take the
/// engine for the one that runs it, and look for ports at that engine's gateway.
fn as_on_a_computer(cove: &Cove, script: &str) -> Cmd {
    const MARK: &str = "/.dockerenv";
    if !Path::new(MARK).exists() {
        return python(cove, script);
    }
    let root = cove.scratch().join("unmarked");
    fs::create_dir_all(&root).unwrap();
    told_of_the_machine(cove, cove.client("unshare"))
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-ec",
            WITHOUT_MARK,
            "sh",
        ])
        .arg(root)
        .args(["python3", "-c", script])
}

/// What docker-py's own documentation begins with, and what hijacks a connection or streams.
const DOCKER_PY: &str = r#"
import docker, io, tarfile
client = docker.from_env()
assert client.ping()
out = client.containers.run("alpine", ["echo", "hello"], remove=True)
assert out == b"hello\n", out
try:
    client.containers.run("alpine", "false", remove=True)
    raise SystemExit("a failure passed for a success")
except docker.errors.ContainerError as error:
    assert error.exit_status == 1
box = client.containers.run("alpine", ["sh", "-c", "while read line; do echo got $line; done"],
                            stdin_open=True, detach=True, labels={"from": "docker-py"})
attached = box.attach_socket(params={"stdin": 1, "stream": 1})
attached._sock.sendall(b"one\ntwo\n")
lines = box.logs(stream=True, follow=True)
assert b"".join(next(lines) for _ in range(2)) == b"got one\ngot two\n"
code, (out, err) = box.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True)
assert (code, out, err) == (3, b"out\n", b"err\n"), (code, out, err)
archive = io.BytesIO()
with tarfile.open(fileobj=archive, mode="w") as tar:
    entry = tarfile.TarInfo("carried")
    entry.size = 5
    tar.addfile(entry, io.BytesIO(b"12345"))
assert box.put_archive("/tmp", archive.getvalue())
chunks, stat = box.get_archive("/tmp/carried")
with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
    assert tar.extractfile("carried").read() == b"12345"
assert stat["size"] == 5
assert box.stats(stream=False)["pids_stats"]["current"] >= 1
assert [found.id for found in client.containers.list(filters={"label": "from=docker-py"})] == [box.id]
network = client.networks.create("from-py")
network.connect(box, aliases=["box"])
network.disconnect(box)
network.remove()
volume = client.volumes.create("from-py")
volume.remove()
image, steps = client.images.build(fileobj=io.BytesIO(b"FROM alpine\nRUN echo built > /how\n"), tag="from-py")
assert client.containers.run("from-py", "cat /how", remove=True) == b"built\n"
saved = b"".join(image.save())
client.images.remove("from-py")
assert client.images.load(saved)[0].id == image.id
client.images.remove(image.id, force=True)
box.kill()
assert box.wait()["StatusCode"] == 137
box.remove()
try:
    client.containers.get(box.id)
    raise SystemExit("it is still there")
except docker.errors.NotFound:
    pass
print("all well")
"#;

pub(crate) fn docker_py_does_what_its_users_do(cove: &Cove) {
    let ran = python(cove, DOCKER_PY).run();
    assert_eq!((ran.code, ran.text().as_str()), (Some(0), "all well"), "{ran}");
}

const TESTCONTAINERS: &str = r#"
import socket, time
from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs
box = DockerContainer("alpine").with_exposed_ports(8000).with_env("WORD", "hello")
box.with_command(["sh", "-c", "echo ready; exec nc -lk -p 8000 -e sh -c 'echo $WORD'"]).start()
wait_for_logs(box, "ready")
client = socket.create_connection((box.get_container_host_ip(), int(box.get_exposed_port(8000))))
print(client.makefile().readline().strip(), box.get_wrapped_container().id, flush=True)
time.sleep(600)
"#;

/// The same from Rust.
pub(crate) fn bollard_does_what_its_users_do(cove: &Cove) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let all = async { tokio::time::timeout(LIMIT, use_bollard(cove.docker_socket())).await };
    runtime.block_on(all).unwrap().unwrap();
}

async fn use_bollard(socket: PathBuf) -> Result<(), bollard::errors::Error> {
    let socket = socket.display().to_string();
    let docker = Docker::connect_with_unix(&socket, 120, bollard::API_DEFAULT_VERSION)?
        .negotiate_version()
        .await?;
    assert_eq!(docker.ping().await?, "OK");
    let body = ContainerCreateBody {
        image: Some("alpine".into()),
        cmd: Some(
            ["sh", "-c", "while read line; do echo got $line; done"]
                .map(str::to_owned)
                .into(),
        ),
        open_stdin: Some(true),
        ..Default::default()
    };
    let id = docker.create_container(None, body).await?.id;
    let options = AttachContainerOptionsBuilder::new()
        .stdin(true)
        .stdout(true)
        .stream(true)
        .build();
    let mut attached = docker.attach_container(&id, Some(options)).await?;
    docker.start_container(&id, None).await?;
    attached.input.write_all(b"one\ntwo\n").await?;
    let mut heard = String::new();
    while heard.len() < "got one\ngot two\n".len() {
        let some = attached.output.next().await.unwrap()?;
        heard += &String::from_utf8_lossy(&some.into_bytes());
    }
    assert_eq!(heard, "got one\ngot two\n");
    let exec = CreateExecOptions {
        cmd: Some(vec!["sh", "-c", "echo out; exit 3"]),
        attach_stdout: Some(true),
        ..Default::default()
    };
    let exec = docker.create_exec(&id, exec).await?.id;
    let StartExecResults::Attached { output, .. } = docker.start_exec(&exec, None).await? else {
        panic!("it is not attached")
    };
    let output: Vec<_> = output.try_collect().await?;
    assert_eq!(output.len(), 1);
    assert_eq!(docker.inspect_exec(&exec).await?.exit_code, Some(3));
    docker.kill_container(&id, None).await?;
    // An end that is no success is an error of this client.
    match docker.wait_container(&id, None).next().await {
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code: 137, .. })) => {}
        other => panic!("{other:?}"),
    }
    docker.remove_container(&id, None).await?;
    let gone = docker.inspect_container(&id, None).await;
    let Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) = gone else {
        panic!("{gone:?}")
    };
    let ours = HashMap::from([("container", vec![id.as_str()])]);
    let options = EventsOptionsBuilder::new().since("0").filters(&ours).build();
    let mut events = std::pin::pin!(docker.events(Some(options)));
    let mut life: Vec<String> = Vec::new();
    while life.last().is_none_or(|action| action != "destroy") {
        life.extend(events.next().await.unwrap()?.action);
    }
    // What is done to a container that runs has events of its own.
    life.retain(|action| !action.starts_with("attach") && !action.starts_with("exec"));
    assert_eq!(life, ["create", "start", "kill", "die", "destroy"]);
    Ok(())
}

/// The reaper is the suite's own, under the name by which testcontainers asks for Ryuk, whose image has to come from a
/// registry. What is shown of it is the way: the socket mounted by its path on this computer, the port, the protocol.
pub(crate) fn testcontainers_start_wait_and_are_reaped(cove: &Cove) {
    let context = cove.scratch().join("reaper");
    fs::create_dir_all(&context).unwrap();
    fs::copy(cove.kit().reaper.as_ref().unwrap(), context.join("reaper")).unwrap();
    docker(cove, "build -q -t testcontainers/ryuk:0.8.1 -f -")
        .arg(&context)
        .input("FROM scratch\nCOPY reaper /reaper\nCMD [\"/reaper\"]\n")
        .ok();
    let mut session = as_on_a_computer(cove, TESTCONTAINERS).spawn();
    let (output, mut errors) = (session.stdout.take().unwrap(), session.stderr.take().unwrap());
    let session = Running(session);
    let mut said = String::new();
    BufReader::new(output).read_line(&mut said).unwrap();
    let words: Vec<&str> = said.split_whitespace().collect();
    // It ends without a chance to tidy up.
    drop(session);
    let mut complaints = String::new();
    errors.read_to_string(&mut complaints).unwrap();
    assert!(
        words.len() == 2 && words[0] == "hello",
        "said {said:?}, complained {complaints}"
    );
    let id = words[1];
    within(
        Duration::from_mins(1),
        "the reaper to remove what was left",
        || {
            let left = docker(cove, "ps -a --no-trunc --format {{.ID}}{{.Image}}").ok();
            (!left.contains(id) && !left.contains("ryuk")).then_some(())
        },
    );
    docker(cove, "rmi testcontainers/ryuk:0.8.1").ok();
}

pub(crate) fn a_job_in_a_container_uses_docker_through_the_socket(cove: &Cove) {
    let context = cove.scratch().join("job");
    copy_program(cove, &cove.kit().docker, &context.join("root"), "/usr/bin/docker");
    docker(cove, "build -q -t job -f -")
        .arg(&context)
        .input("FROM alpine\nCOPY root /\n")
        .ok();
    let job = "set -e\n\
               printf 'FROM alpine\\nRUN echo made by a job > /made\\n' | docker build -q -t made-by-job - >/dev/null 2>&1\n\
               docker run --rm made-by-job cat /made\n\
               docker run -d --name sibling alpine sleep 600 >/dev/null\n\
               docker exec sibling hostname >/dev/null\n\
               docker ps --format '{{.Names}}' --filter name=sibling\n";
    // By the path that every guide names, and by the one that this computer has.
    let ours = cove.docker_socket().display().to_string();
    for socket in ["/var/run/docker.sock", &ours] {
        let ran = docker(cove, "run --rm -v")
            .arg(format!("{socket}:/var/run/docker.sock"))
            .args(["job", "sh", "-c", job])
            .run();
        assert_eq!(ran.text(), "made by a job\nsibling", "{ran}");
        // What a job starts is beside it, and outlives it.
        docker(cove, "rm -f sibling").ok();
        docker(cove, "rmi made-by-job").ok();
    }
    docker(cove, "rmi job").ok();
}

const DEV_CONTAINER_JSON: &str = r#"{
    "name": "burrow",
    "build": { "dockerfile": "Dockerfile" },
    "features": { "./greeting": { "word": "well met" } },
    "remoteUser": "dev",
    "containerEnv": { "WHERE": "container" },
    "mounts": ["type=volume,source=burrow-cache,target=/cache"],
    "postCreateCommand": "echo created by $(id -un) > created"
}"#;

const FEATURE_JSON: &str = r#"{
    "id": "greeting", "version": "1.0.0", "name": "A greeting",
    "options": { "word": { "type": "string", "default": "hello" } },
    "containerEnv": { "GREETED": "yes" }
}"#;

pub(crate) fn a_dev_container_is_built_with_its_feature_and_entered(cove: &Cove) {
    let folder = Shared::new(cove, cove.scratch().join("burrow"));
    let own = folder.join(".devcontainer");
    fs::create_dir_all(own.join("greeting")).unwrap();
    fs::write(own.join("devcontainer.json"), DEV_CONTAINER_JSON).unwrap();
    fs::write(
        own.join("Dockerfile"),
        "FROM alpine\nRUN adduser -D -u 4321 dev\n",
    )
    .unwrap();
    fs::write(own.join("greeting/devcontainer-feature.json"), FEATURE_JSON).unwrap();
    fs::write(
        own.join("greeting/install.sh"),
        "#!/bin/sh\nset -e\nprintf '#!/bin/sh\\necho \"%s\"\\n' \"$WORD\" > /usr/local/bin/greet\nchmod +x /usr/local/bin/greet\n",
    )
    .unwrap();
    fs::write(folder.join("source"), "print('hi')\n").unwrap();
    let program = cove.kit().devcontainer.as_ref().unwrap();
    let devcontainer = |verb: &str| {
        cove.client("node")
            .env("DOCKER_HOST", docker_host(cove))
            .arg(program)
            .args([verb, "--docker-path"])
            .arg(&cove.kit().docker)
            .arg("--workspace-folder")
            .arg(&*folder)
            .limit(DEV_CONTAINER)
    };
    // The Dockerfile's front end is the builder's own: another one would have to come from a registry.
    let up = devcontainer("up").arg("--omit-syntax-directive").run();
    assert!(up.text().contains("\"outcome\":\"success\""), "{up}");
    let inside = devcontainer("exec")
        .args(["sh", "-c"])
        .arg("id -un; greet; echo $WHERE $GREETED; cat source created; touch written; stat -f -c %T /cache")
        .run();
    assert_eq!(
        inside.text(),
        "dev\nwell met\ncontainer yes\nprint('hi')\ncreated by dev\next2/ext3",
        "{inside}"
    );
    assert!(folder.join("written").exists());
    docker(cove, "rm -f -v")
        .args(
            docker(cove, "ps -aq --filter label=devcontainer.local_folder")
                .ok()
                .lines(),
        )
        .ok();
    docker(cove, "volume rm burrow-cache").ok();
}
