//! Folders of a machine that runs, when the settings or the guest are not as they should be.

use super::{LONG, eventually, outcome, start, until};
use crate::machine::{
    Command, Handle,
    agent::{AgentLink, CallError},
    fake::{Fixture, Script},
    shares,
};
use cove_api::MachineState;
use std::time::Duration;
use tokio::{task::JoinHandle, time::timeout};

/// What the settings say where these folders are shared.
fn shared(paths: &[&str]) -> String {
    let paths = paths.iter().map(|path| format!("{{ path = {path:?} }}"));
    format!("shares = [{}]\n", paths.collect::<Vec<_>>().join(", "))
}

/// Has the owner look at the settings once more, while the test goes on.
fn reconsidering(handle: &Handle) -> JoinHandle<()> {
    let handle = handle.clone();
    tokio::spawn(async move { handle.reconsider().await })
}

#[tokio::test]
async fn settings_that_were_never_readable_take_nothing_from_a_machine_that_is_adopted() {
    let fixture = Fixture::new(Script::default());
    fixture.write_settings(&format!(
        "{}[machine]\ndisk = \"16 GiB\"\n",
        shared(&["/srv/data"])
    ));
    let (handle, owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    assert_eq!(guest.folders(), ["/srv/data".as_ref() as &std::path::Path]);
    owner.abort();
    let _ = owner.await;

    fixture.write_settings(&format!("{}[machine\n", shared(&["/srv/data"])));
    let fixture = fixture.next_daemon();
    let (handle, _owner) = fixture.own();
    until(&handle, "running", |state| *state == MachineState::Running).await;
    handle.reconsider().await;
    assert_eq!(guest.folders(), ["/srv/data".as_ref() as &std::path::Path]);
    assert_eq!(handle.snapshot().shares.len(), 1);
    assert_eq!(handle.status().disk_size, 16 << 30);

    fixture.write_settings(&shared(&["/srv/data", "/srv/more"]));
    handle.reconsider().await;
    assert_eq!(guest.folders().len(), 2, "the file is good again");
    assert_eq!(handle.status().disk_size, 64 << 30);
}

#[tokio::test]
async fn an_agent_that_does_not_answer_about_folders_holds_up_neither_a_stop_nor_what_is_shared() {
    let fixture = Fixture::new(Script::default());
    fixture.write_settings(&shared(&["/srv/data"]));
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    let mounts = guest.was_asked("mount");
    guest.mute(true);
    fixture.write_settings(&shared(&["/srv/data", "/srv/more"]));
    let asking = reconsidering(&handle);
    eventually("asked the guest", || guest.was_asked("mount") > mounts).await;
    // The owner answers while the guest does not.
    timeout(Duration::from_secs(5), handle.perform(Command::Pause))
        .await
        .expect("the owner waits for the guest")
        .unwrap();
    assert_eq!(
        handle.snapshot().shares.len(),
        1,
        "what is mounted is still shared"
    );
    assert!(!asking.is_finished());
    let killed = timeout(Duration::from_secs(5), async {
        outcome(handle.begin(Command::Kill).await.unwrap()).await
    });
    killed.await.expect("the owner waits for the guest").unwrap();
    timeout(LONG, asking)
        .await
        .expect("whoever asked is never answered")
        .unwrap();
}

#[tokio::test]
async fn folders_that_change_while_the_guest_is_told_of_earlier_ones_come_after_those() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    guest.mute(true);
    fixture.write_settings(&shared(&["/srv/data"]));
    let first = reconsidering(&handle);
    eventually("asked the guest", || guest.was_asked("mount") == 1).await;
    fixture.write_settings(&shared(&["/srv/data", "/srv/more"]));
    let second = reconsidering(&handle);
    // It answers from the next conversation on; the call that it owes was lost with the first.
    tokio::time::sleep(Duration::from_millis(50)).await;
    guest.mute(false);
    guest.cut();
    let both = async { tokio::join!(first, second) };
    let (first, second) = timeout(LONG, both).await.expect("nobody is answered");
    first.unwrap();
    second.unwrap();
    assert_eq!(handle.snapshot().shares.len(), 2);
}

#[tokio::test]
async fn a_call_that_times_out_says_nothing_about_a_folder() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let (link, _queue) = AgentLink::to_nobody();
    let wanted = [crate::settings::Share {
        path: "/srv/data".into(),
        read_only: false,
    }];
    let machine = fixture.host.machine();
    let outcome = shares::apply(&machine, &link, &wanted, Duration::from_millis(10)).await;
    assert!(matches!(outcome, Err(CallError::Timeout(_))), "{outcome:?}");
}

/// It was left with the machine for good, since the settings were what they had been.
#[tokio::test]
async fn a_folder_that_nobody_answered_for_is_taken_back_when_it_is_not_wanted_any_more() {
    let fixture = Fixture::new(Script::default());
    fixture.write_settings(&shared(&["/srv/data"]));
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let guest = fixture.host.guest();
    let mounts = guest.was_asked("mount");
    guest.mute(true);
    fixture.write_settings(&shared(&["/srv/data", "/srv/more"]));
    let adding = reconsidering(&handle);
    eventually("asked the guest", || guest.was_asked("mount") > mounts).await;
    fixture.write_settings(&shared(&["/srv/data"]));
    guest.mute(false);
    guest.cut();
    timeout(LONG, adding).await.expect("nobody is answered").unwrap();
    handle.reconsider().await;
    eventually("taken back", || {
        guest.folders() == [std::path::Path::new("/srv/data")]
    })
    .await;
}
