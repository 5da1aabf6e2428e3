use super::*;
use serde_json::json;
use std::time::Duration;

fn settings(dir: &Path) -> SettingsFile {
    let host = HostSize {
        cpus: 8,
        memory: Some(16 << 30),
    };
    SettingsFile::new(dir.join("config/settings.toml"), None, host)
}

/// Gives the file another modification time, as a later edit would have.
fn touch(path: &Path, seconds: u64) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        .unwrap();
}

#[test]
fn the_first_change_writes_the_documented_template() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    settings.set("machine.cpus", Some(&json!(2))).unwrap();
    let text = fs::read_to_string(dir.path().join("config/settings.toml")).unwrap();
    assert!(text.contains("\ncpus = 2\n"), "{text}");
    assert!(text.contains("#memory = "), "{text}");
    assert_eq!(settings.get("machine.cpus").unwrap(), json!(2));
    settings.set("machine.cpus", None).unwrap();
    assert_eq!(settings.get("machine.cpus").unwrap(), json!(4));
}

#[test]
fn a_folder_that_is_not_shared_is_not_found_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let error = settings.remove_share(Path::new("/nowhere")).unwrap_err();
    assert_eq!(ApiError::from(error).code, ErrorCode::NotFound);
    assert!(!dir.path().join("config/settings.toml").exists());
}

#[test]
fn a_change_by_an_editor_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    settings.set("machine.cpus", Some(&json!(2))).unwrap();
    let path = dir.path().join("config/settings.toml");
    fs::write(&path, "machine.cpus = 3\n").unwrap();
    touch(&path, 7);
    assert_eq!(settings.current().unwrap().machine.cpus, Some(3));
    fs::remove_file(&path).unwrap();
    assert_eq!(settings.current().unwrap().machine.cpus, None);
}

#[test]
#[cfg(unix)]
fn a_change_that_keeps_the_files_length_and_time_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    settings.set("machine.cpus", Some(&json!(2))).unwrap();
    let path = dir.path().join("config/settings.toml");
    let write = |path: &Path, cpus: u32| {
        fs::write(path, format!("machine.cpus = {cpus}\n")).unwrap();
        touch(path, 7);
    };
    write(&path, 3);
    assert_eq!(settings.current().unwrap().machine.cpus, Some(3));
    // By another file in its place, as editors do.
    let other = dir.path().join("other.toml");
    write(&other, 4);
    fs::rename(&other, &path).unwrap();
    assert_eq!(settings.current().unwrap().machine.cpus, Some(4));
    // In place, though not in the same moment: the system's clock for files goes in steps of milliseconds.
    std::thread::sleep(Duration::from_millis(50));
    write(&path, 5);
    assert_eq!(settings.current().unwrap().machine.cpus, Some(5));
}

#[test]
fn a_broken_file_leaves_the_last_good_values_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    settings.set("machine.cpus", Some(&json!(2))).unwrap();
    assert!(settings.current().is_ok());
    let path = dir.path().join("config/settings.toml");
    fs::write(&path, "[machine]\ncpus = 'two'\n").unwrap();
    touch(&path, 7);
    let (values, problem) = settings.in_force();
    assert_eq!(values.machine.cpus, Some(2));
    let error = ApiError::from(problem.unwrap());
    assert_eq!(error.code, ErrorCode::InvalidSetting);
    assert!(
        error
            .message
            .contains("settings.toml:2: `machine.cpus` is \"two\""),
        "{}",
        error.message
    );
    assert_eq!(settings.list().problem, Some(error));

    // A change that mends the mistake goes through, one that does not is refused and writes nothing.
    assert!(settings.set("machine.disk", Some(&json!("8 GiB"))).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "[machine]\ncpus = 'two'\n");
    settings.set("machine.cpus", Some(&json!(5))).unwrap();
    assert_eq!(settings.current().unwrap().machine.cpus, Some(5));
}

#[test]
fn an_invalid_replacement_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    settings.replace("machine.cpus = 2\n", None).unwrap();
    let error = settings
        .replace("machine.cpus = 2\nmachine.cpu = 3\n", None)
        .unwrap_err();
    assert!(
        error.to_string().contains(":2: there is no `machine.cpu`"),
        "{error}"
    );
    assert_eq!(settings.text().unwrap(), "machine.cpus = 2\n");
}

#[test]
#[cfg(unix)]
fn permissions_and_a_symbolic_link_survive_a_change() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let real = dir.path().join("dotfiles.toml");
    fs::write(&real, "machine.cpus = 2\n").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(dir.path().join("config")).unwrap();
    let link = dir.path().join("config/settings.toml");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    settings.set("machine.cpus", Some(&json!(3))).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&real).unwrap(), "machine.cpus = 3\n");
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn forgetting_a_machine_leaves_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    settings
        .replace("[machines.a]\ncpus = 1\n[machines.b]\ncpus = 2\n", None)
        .unwrap();
    settings.forget_machine(&"a".parse().unwrap()).unwrap();
    assert_eq!(settings.text().unwrap(), "[machines.b]\ncpus = 2\n");
}

#[test]
fn an_unknown_key_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let error = settings(dir.path())
        .set("machine.cpu", Some(&json!(1)))
        .unwrap_err();
    assert_eq!(ApiError::from(error).code, ErrorCode::NotFound);
}

#[test]
fn the_list_has_every_key_with_its_default_and_the_overrides_that_are_set() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    settings
        .replace("[machine]\nmemory = \"1 GiB\"\n[machines.dev]\ncpus = 1\n", None)
        .unwrap();
    let list = settings.list();
    let of = |key: &str| list.values.iter().find(|setting| setting.key == key).unwrap();
    assert_eq!(of("machine.memory").value, json!("1 GiB"));
    assert_eq!(of("machine.memory").default, json!("4 GiB"));
    assert!(of("machine.memory").set && !of("machine.disk").set);
    assert_eq!(of("machines.dev.cpus").value, json!(1));
    assert_eq!(of("shares").value, json!([]));
    assert!(list.values.iter().all(|setting| !setting.accepts.is_empty()));
    assert_eq!(of("machine.backend").choices, ["auto", "kvm", "emulated"]);
    assert!(of("machine.cpus").choices.is_empty());
}

#[test]
fn changes_made_at_the_same_time_all_come_through() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let changes = [
        ("machine.cpus", json!(2)),
        ("machine.memory", json!("2 GiB")),
        ("machine.disk", json!("80 GiB")),
        ("web.port", json!(2683)),
    ];
    for _ in 0..20 {
        for (key, _) in &changes {
            settings.set(key, None).unwrap();
        }
        std::thread::scope(|scope| {
            for (key, value) in &changes {
                scope.spawn(|| settings.set(key, Some(value)).unwrap());
            }
        });
        for (key, value) in &changes {
            assert_eq!(settings.get(key).unwrap(), *value, "the change of {key} was lost");
        }
    }
}

#[test]
fn what_is_to_be_shared_is_not_known_before_a_good_file_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let host = HostSize {
        cpus: 8,
        memory: Some(16 << 30),
    };
    let (path, home) = (dir.path().join("settings.toml"), dir.path().join("home"));
    let settings = SettingsFile::new(path.clone(), Some(home.clone()), host);
    fs::write(&path, "shares = [\n").unwrap();
    assert_eq!(settings.shares(), None);
    fs::write(&path, "shares = []\n").unwrap();
    touch(&path, 7);
    assert_eq!(settings.shares(), Some(Vec::new()));
    fs::write(&path, "shares = [\n").unwrap();
    touch(&path, 8);
    assert_eq!(settings.shares(), Some(Vec::new()));
    fs::remove_file(&path).unwrap();
    assert_eq!(settings.shares().unwrap()[0].path, home);
}

#[test]
fn a_text_that_was_changed_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path());
    let before = mark(&settings.text().unwrap());
    settings.set("machine.cpus", Some(&json!(2))).unwrap();
    let error = settings.replace("machine.cpus = 3\n", Some(&before)).unwrap_err();
    assert_eq!(ApiError::from(error).code, ErrorCode::WrongState);
    assert_eq!(settings.get("machine.cpus").unwrap(), json!(2));
    let now = mark(&settings.text().unwrap());
    settings.replace("machine.cpus = 3\n", Some(&now)).unwrap();
    assert_eq!(settings.get("machine.cpus").unwrap(), json!(3));
}
