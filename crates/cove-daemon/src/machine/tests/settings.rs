//! Settings that change while a machine runs.

use super::{start, stop};
use crate::machine::fake::{Fixture, Script};

#[tokio::test]
async fn settings_that_differ_from_those_of_the_start_need_a_restart() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let settings = &fixture.context.settings;
    assert!(!handle.needs_restart(&settings.current().unwrap()));
    settings.set("machine.stop-grace", Some(&"3 s".into())).unwrap();
    assert!(!handle.needs_restart(&settings.current().unwrap()));
    settings.set("machine.memory", Some(&"3 GiB".into())).unwrap();
    assert!(handle.needs_restart(&settings.current().unwrap()));
    settings.set("machine.memory", None).unwrap();
    settings.set("engine.debug", Some(&true.into())).unwrap();
    assert!(handle.needs_restart(&settings.current().unwrap()));
    stop(&handle).await.unwrap();
    assert!(!handle.needs_restart(&settings.current().unwrap()));
}

#[tokio::test]
async fn a_larger_disk_is_given_to_a_machine_that_runs_and_a_smaller_one_is_not() {
    let fixture = Fixture::new(Script::default());
    let (handle, _owner) = fixture.own();
    start(&handle).await.unwrap();
    let settings = &fixture.context.settings;
    for (size, expected) in [("96 GiB", 96), ("32 GiB", 96)] {
        settings.set("machine.disk", Some(&size.into())).unwrap();
        handle.reconsider().await;
        assert_eq!(handle.status().disk_size, expected << 30);
        assert!(!handle.needs_restart(&settings.current().unwrap()));
    }
    assert_eq!(fixture.host.guest().was_asked("grow-data"), 1);
}
