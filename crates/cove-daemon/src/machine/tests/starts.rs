//! Starts, and what refuses one.

use super::{outcome, start};
use crate::machine::{
    Command,
    fake::{Fixture, Script},
};
use cove_api::{ErrorCode, MachineState, Progress};

#[tokio::test]
async fn a_start_goes_through_its_stages_to_an_engine_that_answers() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let mut listening = handle.begin(Command::Start).await.unwrap();
    let (mut stages, mut fraction) = (Vec::new(), 0.0);
    let status = loop {
        match listening.next().await.unwrap() {
            Progress::Stage {
                message,
                fraction: now,
            } => {
                assert!(
                    now >= fraction || message == "Starting",
                    "{message} goes back to {now}"
                );
                fraction = now;
                stages.push(message);
            }
            Progress::Notice { .. } => {}
            Progress::Done { status } => break status,
            Progress::Failed { error } => panic!("{error:?}"),
        }
    };
    assert_eq!(status.state, MachineState::Running);
    assert!(stages.iter().any(|stage| stage.contains("image")), "{stages:?}");
    let names: Vec<_> = status.timings.iter().map(|stage| stage.name.as_str()).collect();
    for name in [
        "check-image",
        "prepare-disk",
        "start-process",
        "greet",
        "root",
        "starter-image",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert_eq!(status.engine_version.as_deref(), Some("26.1.5"));
    assert_eq!(status.notices, ["one virtual CPU only"]);
    assert_eq!(status.disk_size, 64 << 30);
    assert!(status.uptime_s.is_some());
    assert_eq!(status.endpoint.context, "cove");
    // The context is there, and the current one was not switched.
    let docker = fixture.context.docker.as_ref().unwrap();
    assert_eq!(docker.current().unwrap(), None);
    assert!(fixture.home.path().join("docker/contexts/meta").is_dir());
    // A start of a machine that runs is done at once.
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
    assert_eq!(fixture.host.guest().was_asked("boot"), 1);
}

#[tokio::test]
async fn certificates_reach_the_guest_before_its_boot_and_again_when_they_change() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    let order = || {
        let calls = guest.calls.lock().unwrap();
        let place = |name| calls.iter().position(|call| *call == name);
        (place("trust"), place("boot"))
    };
    assert!(order().0 < order().1, "{:?}", guest.calls.lock().unwrap());
    handle.reconsider().await;
    assert_eq!(guest.was_asked("trust"), 1, "nothing has changed");
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    fixture.context.trust.add(&own.pem()).unwrap();
    handle.reconsider().await;
    assert_eq!(guest.was_asked("trust"), 2);
}

#[tokio::test]
async fn a_second_start_joins_the_first() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let (first, second) = (
        handle.begin(Command::Start).await.unwrap(),
        handle.begin(Command::Start).await.unwrap(),
    );
    assert_eq!(outcome(first).await.unwrap().state, MachineState::Running);
    assert_eq!(outcome(second).await.unwrap().state, MachineState::Running);
    assert_eq!(fixture.host.guest().was_asked("boot"), 1);
}

#[tokio::test]
async fn a_damaged_image_and_a_bad_settings_file_refuse_the_start_and_say_what_to_do() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    let kernel = fixture.context.dirs.image().join("kernel");
    let good = std::fs::read(&kernel).unwrap();
    std::fs::write(&kernel, "another kernel").unwrap();
    let error = start(&handle).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::BadImage);
    assert!(error.hint.contains("cove image build"), "{error:?}");
    std::fs::write(&kernel, good).unwrap();

    let settings = fixture.context.dirs.settings();
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    std::fs::write(&settings, "\n[machine]\ncpus = 'many'\n").unwrap();
    let error = start(&handle).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidSetting);
    assert!(error.message.contains("settings.toml:3"), "{}", error.message);
    std::fs::remove_file(&settings).unwrap();
    assert_eq!(start(&handle).await.unwrap().state, MachineState::Running);
}
