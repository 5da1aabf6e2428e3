//! Settings.

use super::{Daemon, code};
use cove_api::{ErrorCode, MachineState};
use serde_json::json;
use std::fs;

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
