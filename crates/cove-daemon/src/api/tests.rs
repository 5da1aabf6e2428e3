//! The API over a real socket, asked by the real client.

use super::{Server, serve};
use crate::{
    instance::Instance,
    machine::{
        Context,
        fake::{Fixture, Script},
    },
    machines::Machines,
};
use cove_api::{
    Client, ClientError, ContextState, ErrorCode, Event, LogQuery, LogSource, MachineState, NewMachine,
    Progress, transport,
};
use cove_machine::ExitCause;
use serde_json::json;
use std::{fs, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(20);

/// A daemon without its process.
struct Daemon {
    fixture: Fixture,
    machines: Arc<Machines>,
    client: Client,
    end: CancellationToken,
}

impl Daemon {
    fn begin() -> Self {
        Self::over(Fixture::new(Script::default()))
    }

    fn over(fixture: Fixture) -> Self {
        let context: Arc<Context> = Arc::clone(&fixture.context);
        let instance = Instance::claim(&context.dirs).unwrap();
        let machines = Arc::new(Machines::open(Arc::clone(&context), instance).unwrap());
        let listener = machines.listen_for_clients().unwrap();
        let end = CancellationToken::new();
        let server = Arc::new(Server {
            context: Arc::clone(&context),
            machines: Arc::clone(&machines),
            web_port: tokio::sync::watch::channel(None).1,
            end: end.clone(),
        });
        tokio::spawn(serve(listener, server, end.clone()));
        Self {
            client: Client::of(&context.dirs),
            fixture,
            machines,
            end,
        }
    }

    async fn start(&self) {
        let progress = self.client.start("default").await.unwrap();
        let status = timeout(LONG, progress.finish(|_| {})).await.unwrap().unwrap();
        assert_eq!(status.state, MachineState::Running);
    }

    fn settings_path(&self) -> std::path::PathBuf {
        self.fixture.context.dirs.settings()
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ErrorCode {
    let error = result.unwrap_err();
    error.code().unwrap_or_else(|| panic!("{error:?}"))
}

#[tokio::test]
async fn a_machine_is_started_watched_and_stopped() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    assert_eq!(client.version().await.unwrap().pid, std::process::id());
    let mut events = client.events().await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert!(matches!(first, Event::Machine { status } if status.name == "default"));

    let mut steps = 0;
    let progress = client.start("default").await.unwrap();
    let status = progress
        .finish(|step| steps += usize::from(matches!(step, Progress::Stage { .. })))
        .await
        .unwrap();
    assert_eq!(status.state, MachineState::Running);
    assert!(steps > 3, "{steps}");
    loop {
        let event = timeout(LONG, events.next()).await.unwrap().unwrap().unwrap();
        if matches!(event, Event::Machine { status } if status.state == MachineState::Running) {
            break;
        }
    }
    assert_eq!(client.pause("default").await.unwrap().state, MachineState::Paused);
    assert_eq!(
        client.resume("default").await.unwrap().state,
        MachineState::Running
    );
    let status = client
        .stop("default")
        .await
        .unwrap()
        .finish(|_| {})
        .await
        .unwrap();
    assert_eq!(status.state, MachineState::Stopped);
    assert_eq!(client.kill("default").await.unwrap().state, MachineState::Stopped);
}

#[tokio::test]
async fn a_disk_gives_back_what_the_guest_does_not_use_while_it_runs() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    daemon.start().await;
    let path = daemon.fixture.context.dirs.machine("default").join("data.img");
    let mut disk = fs::File::options().write(true).open(path).unwrap();
    std::io::Write::write_all(&mut disk, &vec![7; 4 << 20]).unwrap();
    disk.sync_all().unwrap();
    let present = client.disk_use("default").await.unwrap();
    assert_eq!(present.used, 4096);
    assert!(present.on_host >= 4 << 20, "{present:?}");
    let mut events = client.events().await.unwrap();
    assert!(matches!(
        events.next().await.unwrap().unwrap(),
        Event::Machine { .. }
    ));
    let reclaimed = client.reclaim("default").await.unwrap();
    assert_eq!(reclaimed.before, present.on_host);
    assert!(reclaimed.after < 1 << 20, "{reclaimed:?}");
    assert_eq!(daemon.fixture.host.guest().was_asked("trim"), 1);
    // Whoever follows the machine hears what its disk takes now.
    let told = async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            if matches!(event, Event::Machine { status } if status.disk_on_host == reclaimed.after) {
                break;
            }
        }
    };
    timeout(LONG, told).await.unwrap();

    client.pause("default").await.unwrap();
    assert_eq!(code(client.reclaim("default").await), ErrorCode::WrongState);
    assert_eq!(code(client.disk_use("default").await), ErrorCode::WrongState);
    assert_eq!(code(client.reclaim("nobody").await), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_failed_start_ends_its_stream_with_the_error() {
    let daemon = Daemon::begin();
    fs::remove_dir_all(daemon.fixture.context.dirs.image()).unwrap();
    let progress = daemon.client.start("default").await.unwrap();
    let error = progress.finish(|_| {}).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::BadImage));
    match error {
        ClientError::Api(error) => assert!(error.hint.contains("cove image build"), "{error:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_machine_that_cannot_be_made_leaves_nothing_and_what_was_said_of_it_before_stays() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    let dirs = &daemon.fixture.context.dirs;
    let before = "[machines.big]\ncpus = 3\n";
    daemon.fixture.write_settings(before);
    let mut wanted = NewMachine {
        name: "big".into(),
        cpus: Some(1),
        memory_mib: Some(1),
        disk_gib: None,
    };
    assert_eq!(
        code(client.create_machine(&wanted).await),
        ErrorCode::InvalidSetting
    );
    assert_eq!(fs::read_to_string(daemon.settings_path()).unwrap(), before);
    assert!(!dirs.machine("big").exists() && !dirs.machine_runtime("big").exists());

    // Its directories cannot be made where a file is in the way.
    wanted.memory_mib = Some(512);
    fs::write(dirs.machine_runtime("big"), "").unwrap();
    assert_eq!(code(client.create_machine(&wanted).await), ErrorCode::Internal);
    assert_eq!(fs::read_to_string(daemon.settings_path()).unwrap(), before);
    assert!(!dirs.machine("big").exists());
    fs::remove_file(dirs.machine_runtime("big")).unwrap();
    client.create_machine(&wanted).await.unwrap();
    assert_eq!(client.machines().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_machine_whose_sockets_would_have_too_long_a_path_is_refused_as_that() {
    let mut fixture = Fixture::new(Script::default());
    let longest = cove_machine::longest_socket(&fixture.context.dirs.machine_runtime("default"));
    let room = transport::MAX_SOCKET_PATH - longest.as_os_str().len();
    // The default machine's sockets just fit, and those of one with a longer name do not.
    let long = fixture.home.path().join("x".repeat(room - 1));
    fs::create_dir(&long).unwrap();
    fixture = fixture.at(&long);
    let daemon = Daemon::over(fixture);
    let wanted = NewMachine {
        name: "a-name-that-is-as-long-as-it-can".into(),
        ..NewMachine::default()
    };
    let error = daemon.client.create_machine(&wanted).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidRequest), "{error}");
    assert!(error.to_string().contains("bytes long"), "{error}");
    assert!(!daemon.fixture.context.dirs.machine(&wanted.name).exists());
}

#[tokio::test]
async fn a_client_that_goes_ends_its_program_though_that_has_not_read_its_input() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let exec = cove_wire::Exec {
        command: vec!["deaf".into()],
        environment: std::collections::BTreeMap::new(),
        directory: None,
        terminal: None,
    };
    let mut stream = daemon.client.exec("default", &exec).await.unwrap();
    let flood = async {
        let chunk = vec![0; 64 << 10];
        while stream.write_all(&chunk).await.is_ok() {}
    };
    // Everything on the way is full.
    assert!(timeout(Duration::from_millis(300), flood).await.is_err());
    drop(stream);
    let guest = daemon.fixture.host.guest();
    let hung_up = async {
        while guest.was_asked("hung-up") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, hung_up).await.expect("the guest is not told");
}

#[tokio::test]
async fn a_program_with_more_words_than_a_request_holds_is_refused_as_that() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let exec = cove_wire::Exec {
        command: vec!["echo".into(), "x".repeat(cove_wire::MAX_FRAME)],
        environment: std::collections::BTreeMap::new(),
        directory: None,
        terminal: None,
    };
    let error = daemon.client.exec("default", &exec).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::InvalidRequest), "{error}");
    assert!(error.to_string().contains("too long"), "{error}");
}

#[tokio::test]
async fn machines_are_created_with_their_own_settings_and_deleted_only_by_name() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    let wanted = NewMachine {
        name: "dev".into(),
        cpus: Some(1),
        memory_mib: Some(512),
        disk_gib: Some(8),
    };
    let status = client.create_machine(&wanted).await.unwrap();
    assert_eq!(
        (status.cpus, status.memory_mib, status.disk_size),
        (1, 512, 8 << 30)
    );
    assert_eq!(status.endpoint.context, "cove-dev");
    assert_eq!(client.machines().await.unwrap().len(), 2);
    assert_eq!(code(client.create_machine(&wanted).await), ErrorCode::WrongState);
    for name in ["../x", "", "Dev"] {
        let wanted = NewMachine {
            name: name.into(),
            ..NewMachine::default()
        };
        assert_eq!(
            code(client.create_machine(&wanted).await),
            ErrorCode::InvalidRequest
        );
    }
    let wanted = NewMachine {
        name: "big".into(),
        cpus: Some(1),
        memory_mib: Some(1),
        disk_gib: None,
    };
    assert_eq!(
        code(client.create_machine(&wanted).await),
        ErrorCode::InvalidSetting
    );
    assert_eq!(client.machines().await.unwrap().len(), 2);
    let settings = fs::read_to_string(daemon.settings_path()).unwrap();
    assert!(!settings.contains("\n[machines.big]"), "{settings}");
    assert_eq!(
        code(client.delete_machine("dev", "default").await),
        ErrorCode::NotConfirmed
    );
    client.delete_machine("dev", "dev").await.unwrap();
    assert_eq!(code(client.machine("dev").await), ErrorCode::NotFound);
    let settings = fs::read_to_string(daemon.settings_path()).unwrap();
    assert!(!settings.contains("\n[machines.dev]"), "{settings}");

    // The default machine is there again, without its data.
    daemon.start().await;
    assert_eq!(
        code(client.delete_machine("default", "default").await),
        ErrorCode::WrongState
    );
    client
        .stop("default")
        .await
        .unwrap()
        .finish(|_| {})
        .await
        .unwrap();
    let disk = daemon.fixture.context.dirs.machine("default").join("data.img");
    assert!(disk.exists());
    client.delete_machine("default", "default").await.unwrap();
    assert!(!disk.exists());
    daemon.start().await;
}

#[tokio::test]
async fn settings_are_changed_checked_and_say_who_has_to_restart() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    daemon.start().await;
    let applied = client.set("machine.memory", &json!("3 GiB")).await.unwrap();
    assert_eq!(applied.restart_needed, ["default"]);
    assert_eq!(client.setting("machine.memory").await.unwrap(), json!("3 GiB"));
    let applied = client.unset("machine.memory").await.unwrap();
    assert!(applied.restart_needed.is_empty());
    assert_eq!(
        code(client.set("machine.cpus", &json!(0)).await),
        ErrorCode::InvalidSetting
    );
    assert_eq!(
        code(client.set("machine.cpu", &json!(1)).await),
        ErrorCode::NotFound
    );

    let file = client.settings_file().await.unwrap();
    let error = client
        .replace_settings_file(&format!("{}\n[nonsense]\n", file.text), &file)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nonsense"), "{error}");
    assert_eq!(client.settings_file().await.unwrap().text, file.text);
    client
        .replace_settings_file("machine.cpus = 2\n", &file)
        .await
        .unwrap();
    // What was read before that change is not the file any more, and would take it back.
    let outdated = client.replace_settings_file("machine.cpus = 3\n", &file).await;
    assert_eq!(code(outdated), ErrorCode::WrongState);
    let list = client.settings().await.unwrap();
    assert!(
        list.values
            .iter()
            .any(|setting| setting.key == "machine.cpus" && setting.value == json!(2))
    );

    // A file that somebody has broken does not take the API down.
    fs::write(daemon.settings_path(), "[machine").unwrap();
    let problem = client.settings().await.unwrap().problem.unwrap();
    assert_eq!(problem.code, ErrorCode::InvalidSetting);
    assert_eq!(
        client.machine("default").await.unwrap().state,
        MachineState::Running
    );
}

#[tokio::test]
async fn several_settings_change_together_or_not_at_all_and_can_be_tried_first() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    daemon.start().await;
    let change = |pairs: &[(&str, serde_json::Value)], apply| cove_api::SettingsChange {
        values: pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (!value.is_null()).then(|| value.clone())))
            .collect(),
        apply,
        instead_of: None,
    };
    let wanted = [
        ("machine.memory", json!("3 GiB")),
        ("proxy.no", json!("localhost")),
    ];
    let text = client.settings_file().await.unwrap().text;
    let tried = client.change_settings(&change(&wanted, false)).await.unwrap();
    assert_eq!(tried.restart_needed, ["default"]);
    assert_eq!(tried.before, text);
    assert!(
        tried.after.contains("\"3 GiB\"") && tried.after.contains("localhost"),
        "{}",
        tried.after
    );
    assert_eq!(
        client.settings_file().await.unwrap().text,
        text,
        "a trial was written"
    );

    let bad = [wanted[0].clone(), ("web.port", json!("none"))];
    assert_eq!(
        code(client.change_settings(&change(&bad, true)).await),
        ErrorCode::InvalidSetting
    );
    assert_eq!(
        client.settings_file().await.unwrap().text,
        text,
        "half of a change was written"
    );

    // Somebody changes the file after a person has seen what the change comes to.
    let shown = cove_api::SettingsChange {
        instead_of: Some(tried.mark.clone()),
        ..change(&wanted, true)
    };
    client.set("machine.cpus", &json!(1)).await.unwrap();
    let meanwhile = client.settings_file().await.unwrap().text;
    assert_eq!(code(client.change_settings(&shown).await), ErrorCode::WrongState);
    assert_eq!(client.settings_file().await.unwrap().text, meanwhile);
    client.unset("machine.cpus").await.unwrap();
    let tried = client.change_settings(&change(&wanted, false)).await.unwrap();
    let shown = cove_api::SettingsChange {
        instead_of: Some(tried.mark),
        ..shown
    };
    let done = client.change_settings(&shown).await.unwrap();
    assert_eq!(done.after, tried.after);
    assert_eq!(done.after, client.settings_file().await.unwrap().text);
    assert_eq!(client.setting("machine.memory").await.unwrap(), json!("3 GiB"));
    let back = [("machine.memory", serde_json::Value::Null)];
    let done = client.change_settings(&change(&back, true)).await.unwrap();
    assert!(done.restart_needed.is_empty());
}

#[tokio::test]
async fn exec_and_dial_turn_the_connection_into_a_stream_with_half_close() {
    let daemon = Daemon::begin();
    let exec = cove_wire::Exec {
        command: vec!["cat".into()],
        environment: std::collections::BTreeMap::new(),
        directory: None,
        terminal: None,
    };
    let dial = cove_wire::Dial {
        address: "127.0.0.1:80".parse().unwrap(),
        namespace: None,
    };
    assert_eq!(
        code(daemon.client.exec("default", &exec).await),
        ErrorCode::WrongState
    );
    daemon.start().await;
    // The scripted guest sends everything back and ends when it has seen the end.
    for mut stream in [
        daemon.client.exec("default", &exec).await.unwrap(),
        daemon.client.dial("default", &dial).await.unwrap(),
    ] {
        let sent = vec![7; 300_000];
        let mut received = Vec::new();
        let (mut read, mut write) = tokio::io::split(&mut stream);
        let writing = async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let both = async { tokio::join!(writing, read.read_to_end(&mut received)) };
        timeout(LONG, both).await.unwrap().1.unwrap();
        assert_eq!(received, sent);
    }
    daemon.client.pause("default").await.unwrap();
    assert_eq!(
        code(daemon.client.dial("default", &dial).await),
        ErrorCode::WrongState
    );
}

#[tokio::test]
async fn logs_of_the_host_are_read_and_those_that_are_not_there_yet_are_said_to_be_so() {
    let daemon = Daemon::begin();
    let query = |source, tail| LogQuery {
        source,
        follow: false,
        tail,
    };
    let absent = daemon
        .client
        .logs("default", query(LogSource::Console, None))
        .await;
    assert_eq!(code(absent), ErrorCode::NotFound);
    let console = daemon.fixture.context.dirs.machine("default").join("console.log");
    fs::write(console, "one\ntwo\nthree\n").unwrap();
    let mut log = daemon
        .client
        .logs("default", query(LogSource::Console, Some(2)))
        .await
        .unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = log.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(text, b"two\nthree\n");
    let of_guest = daemon
        .client
        .logs("default", query(LogSource::Engine, None))
        .await;
    assert_eq!(code(of_guest), ErrorCode::WrongState);
}

#[tokio::test]
async fn the_docker_context_is_made_used_and_removed_on_request_only() {
    let daemon = Daemon::begin();
    let docker = daemon.fixture.context.docker.as_ref().unwrap();
    let seen = async || daemon.client.context("default").await.unwrap();
    assert_eq!(seen().await.state, ContextState::Absent);
    daemon.client.create_context("default", false).await.unwrap();
    assert_eq!(docker.current().unwrap(), None);
    assert_eq!(seen().await.state, ContextState::Good);
    daemon.client.create_context("default", true).await.unwrap();
    assert_eq!(docker.current().unwrap().as_deref(), Some("cove"));
    assert!(seen().await.current);
    daemon.client.remove_context("default").await.unwrap();
    assert_eq!(docker.current().unwrap(), None);
    assert_eq!(seen().await.state, ContextState::Absent);
}

#[tokio::test]
async fn the_doctor_looks_at_everything() {
    let daemon = Daemon::begin();
    let checks = daemon.client.doctor().await.unwrap();
    for name in [
        "settings",
        "machines",
        "image",
        "disk space",
        "sockets",
        "docker client",
        "docker context",
    ] {
        assert!(
            checks.iter().any(|check| check.name == name),
            "{name} is not in {checks:?}"
        );
    }
}

#[tokio::test]
async fn a_shutdown_stops_the_machines_answers_and_ends_the_daemon() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let mut events = daemon.client.events().await.unwrap();
    timeout(LONG, daemon.client.shutdown()).await.unwrap().unwrap();
    assert!(daemon.end.is_cancelled());
    assert_eq!(daemon.fixture.host.guest().was_asked("shutdown"), 1);
    timeout(LONG, daemon.machines.close()).await.unwrap();
    assert!(!daemon.fixture.context.dirs.daemon_socket().exists());
    assert!(!daemon.fixture.context.dirs.docker_socket("default").exists());
    while let Ok(Some(_)) = timeout(LONG, events.next()).await.unwrap() {}
}

#[tokio::test]
async fn a_daemon_that_ends_by_a_signal_leaves_its_machines_to_the_next() {
    let daemon = Daemon::begin();
    daemon.start().await;
    let guest = daemon.fixture.host.guest();
    daemon.end.cancel();
    daemon.machines.close().await;
    let Daemon {
        fixture, machines, ..
    } = daemon;
    drop(machines);
    assert_eq!(guest.was_asked("shutdown"), 0);

    // Whoever asks at once is answered, has the machine, and sees it running in the end.
    let daemon = Daemon::over(released(fixture).await);
    let dial = cove_wire::Dial {
        address: "127.0.0.1:80".parse().unwrap(),
        namespace: None,
    };
    let dialled = timeout(LONG, daemon.client.dial("default", &dial)).await;
    assert!(dialled.unwrap().is_ok(), "the machine is not there at once");
    let running = async {
        while daemon.client.machine("default").await.unwrap().state != MachineState::Running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, running).await.expect("the machine is not adopted");
    guest.end(ExitCause::Vanished);
}

/// Waits until the earlier daemon's lock is free: its server's tasks hold it until they have ended.
async fn released(fixture: Fixture) -> Fixture {
    let free = async {
        while Instance::claim(&fixture.context.dirs).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, free).await.expect("the lock is not released");
    fixture
}

#[tokio::test]
async fn a_deletion_whose_client_hangs_up_is_done_to_its_end() {
    let daemon = Daemon::begin();
    let client = &daemon.client;
    let wanted = NewMachine {
        name: "dev".into(),
        ..NewMachine::default()
    };
    client.create_machine(&wanted).await.unwrap();
    // Removing all this takes longer than hanging up.
    let directory = daemon.fixture.context.dirs.machine("dev");
    for file in 0..3000 {
        fs::write(directory.join(file.to_string()), "").unwrap();
    }
    let mut stream = transport::connect(client.socket()).await.unwrap();
    let request = b"DELETE /v1/machines/dev?confirm=dev HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    drop(stream);
    let deleted = async {
        while client.machines().await.unwrap().len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, deleted).await.expect("half of the machine is left");
    client.create_machine(&wanted).await.unwrap();
}

#[tokio::test]
async fn what_is_no_request_of_this_api_is_refused_and_nothing_panics() {
    let daemon = Daemon::begin();
    let socket = daemon.client.socket().to_owned();
    for (request, status) in [
        ("GET / HTTP/1.1", 404),
        ("GET /v2/version HTTP/1.1", 404),
        ("PATCH /v1/machines HTTP/1.1", 404),
        ("GET /v1/machines/%ff HTTP/1.1", 400),
        ("GET /v1/machines/%2e%2e%2f HTTP/1.1", 404),
        ("POST /v1/machines HTTP/1.1", 400),
        ("POST /v1/machines/default/exec HTTP/1.1", 400),
        ("POST /v1/machines/default/context?current=maybe HTTP/1.1", 400),
        ("GET /v1/machines/default/logs?source=x HTTP/1.1", 400),
        ("nonsense", 400),
    ] {
        let answer = raw(
            &socket,
            &format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n"),
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {answer}"
        );
    }
    let huge = "x".repeat(4 << 20);
    let file = daemon.client.settings_file().await.unwrap();
    let error = daemon
        .client
        .replace_settings_file(&huge, &file)
        .await
        .unwrap_err();
    assert!(
        matches!(error.code(), Some(ErrorCode::InvalidRequest) | None),
        "{error:?}"
    );
    daemon.client.version().await.unwrap();
}

async fn raw(socket: &Path, request: &str) -> String {
    let mut stream = transport::connect(socket).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn a_client_without_a_daemon_is_told_so() {
    let home = tempfile::tempdir().unwrap();
    let client = Client::new(home.path().join("daemon.sock"));
    assert!(matches!(
        client.version().await,
        Err(ClientError::NotRunning { .. })
    ));
    drop(std::os::unix::net::UnixListener::bind(client.socket()).unwrap());
    assert!(matches!(
        client.version().await,
        Err(ClientError::NotRunning { .. })
    ));
    let client = Client::new(home.path().join("x".repeat(120)));
    let error = client.version().await.unwrap_err().to_string();
    assert!(error.contains("COVE_HOME"), "{error}");
}
