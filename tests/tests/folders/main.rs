//! Host folders in containers, through an unmodified Docker client: one machine, which everything changes in turn.

#![expect(clippy::unwrap_used, reason = "how a test fails")]

use cove_tests::{
    harness::{self, Cove},
    tests,
};
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

fn main() -> ExitCode {
    let usual: &[harness::Test] = &tests![
        promises::the_home_folder_is_there_at_its_own_path_whatever_its_name,
        promises::what_a_container_writes_is_a_file_of_the_user,
        promises::an_owner_that_a_container_sets_sticks_and_stays_off_the_host,
        promises::a_folder_is_shared_and_taken_away_while_the_machine_runs,
        promises::a_stopped_container_does_not_start_without_its_folder,
        promises::a_folder_shared_for_reading_cannot_be_written,
        promises::folders_that_cannot_be_shared_are_refused_with_the_reason,
        events::each_change_on_the_host_is_seen_by_inotify_in_a_container_once,
        events::what_is_read_after_an_event_is_never_what_was_before,
        events::what_containers_do_themselves_is_not_told_twice,
        habits::the_engines_socket_works_in_a_container,
        habits::the_time_zone_that_compose_files_mount_is_there,
        habits::a_folder_that_the_guest_cannot_have_is_listed_with_the_reason,
        habits::doctor_says_that_changes_are_told,
        habits::what_a_container_syncs_is_written_to_the_disk,
        habits::posix_holds_in_a_folder_as_it_does_on_a_native_file_system,
        habits::the_guests_client_works_in_our_directory_where_it_is_shared,
        paths::odd_paths_are_mounted_or_refused_as_natively,
        paths::a_file_mounted_by_itself_follows_its_name,
        habits::a_data_directory_that_is_given_away_is_accepted_by_its_new_owner,
    ];
    let slow: &[harness::Test] = &tests![
        habits::an_archive_with_many_owners_unpacks_as_it_was_packed,
        together::containers_and_the_host_see_no_torn_or_stale_content_and_the_same_in_the_end,
        together::locks_hold_between_containers_and_the_host,
        together::who_waits_for_a_lock_takes_signals_as_natively_and_can_be_paused,
        promises::an_inner_share_stays_on_top_of_an_outer_one,
        programs::mariadb_keeps_what_it_committed_in_a_folder_when_its_container_is_killed,
        programs::postgres_keeps_what_it_committed_in_a_folder_through_restart_and_crash,
        events::where_watches_run_out_changes_are_seen_within_moments_and_doctor_says_so,
        programs::vite_rebuilds_when_files_are_edited_created_renamed_or_deleted_on_the_host,
        habits::what_was_synced_survives_the_machines_death,
        promises::shares_and_what_containers_mount_survive_a_restart,
        promises::a_container_that_is_always_restarted_does_not_run_without_its_folder,
    ];
    harness::run(
        "folders",
        harness::Pace::InTurn,
        Cove::start,
        &[usual, harness::if_all(slow)].concat(),
    )
}

mod events;
mod habits;
mod paths;
mod programs;
mod together;

/// A folder in the user's home, which is shared by default.
fn at_home(cove: &Cove, name: &str) -> PathBuf {
    folder(cove.scratch().join(name))
}

fn folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).unwrap();
    path
}

/// `docker run` with `folder` at `/src`, and a script.
fn run(cove: &Cove, folder: &Path, script: &str) -> harness::Cmd {
    let bind = format!("{}:/src", folder.display());
    cove.docker(["run", "--rm", "-v", &bind, "alpine", "sh", "-c", script])
}

mod promises {
    use super::{Cove, MetadataExt, Path, at_home, folder, fs, harness, run};
    use harness::eventually;

    /// A folder that is not below the user's home.
    fn elsewhere(name: &str) -> tempfile::TempDir {
        let prefix = format!("cove-{name}-");
        tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in("/tmp")
            .unwrap()
    }

    pub(crate) fn the_home_folder_is_there_at_its_own_path_whatever_its_name(cove: &Cove) {
        let folder = at_home(cove, "with spaces, ünïcode and 'quotes'");
        fs::write(folder.join("file"), "from the host").unwrap();
        assert_eq!(run(cove, &folder, "cat /src/file").ok(), "from the host");
        let inside = folder.to_str().unwrap();
        assert_eq!(cove.cove(["exec", "--", "ls", inside]).ok(), "file");
    }

    pub(crate) fn what_a_container_writes_is_a_file_of_the_user(cove: &Cove) {
        let folder = at_home(cove, "written");
        let script = "mkdir /src/dir && echo from a container > /src/dir/file && mv /src/dir/file /src/moved";
        run(cove, &folder, script).ok();
        let file = folder.join("moved");
        assert_eq!(fs::read_to_string(&file).unwrap(), "from a container\n");
        assert_eq!(
            fs::metadata(&file).unwrap().uid(),
            fs::metadata(&folder).unwrap().uid()
        );
        fs::remove_dir(folder.join("dir")).unwrap();
    }

    pub(crate) fn an_owner_that_a_container_sets_sticks_and_stays_off_the_host(cove: &Cove) {
        let folder = at_home(cove, "owned");
        run(
            cove,
            &folder,
            "touch /src/file && chown 70:71 /src/file && chmod 4640 /src/file",
        )
        .ok();
        // Another container, which knows of it only what is kept with the file.
        let seen = run(cove, &folder, "stat -c '%u:%g %a' /src/file").ok();
        assert_eq!(seen, "70:71 4640");
        let file = fs::metadata(folder.join("file")).unwrap();
        assert_eq!(file.uid(), fs::metadata(&folder).unwrap().uid());
        assert_eq!(
            file.mode() & 0o6000,
            0,
            "no program of the host's user becomes setuid"
        );
    }

    pub(crate) fn a_folder_is_shared_and_taken_away_while_the_machine_runs(cove: &Cove) {
        let folder = elsewhere("live");
        fs::write(folder.path().join("file"), "live").unwrap();
        let path = folder.path().to_str().unwrap();
        run(cove, folder.path(), "true")
            .run()
            .fails_with(125)
            .says(&[path, "not shared", "cove share add"]);
        cove.cove(["share", "add", path]).ok();
        assert_eq!(run(cove, folder.path(), "cat /src/file").ok(), "live");
        let listed: serde_json::Value =
            serde_json::from_str(&cove.cove(["share", "list", "--json"]).ok()).unwrap();
        let of_path = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|share| share["path"] == path);
        assert_eq!(of_path.unwrap()["machines"][0], "default");

        let bind = format!("{path}:/src");
        cove.docker([
            "run", "-d", "--name", "holder", "-v", &bind, "alpine", "sleep", "1000",
        ])
        .ok();
        // To share it in another way is to take it away first.
        for words in [&["share", "remove"][..], &["share", "add", "--read-only"][..]] {
            let refused = cove.cove(words).arg(path).run();
            assert_ne!(refused.code, Some(0), "{refused}");
            refused.says(&["holder", "--force"]);
        }
        assert_eq!(cove.docker(["exec", "holder", "cat", "/src/file"]).ok(), "live");
        cove.cove(["share", "remove", "--force", path]).ok();
        let reading = cove.docker(["exec", "holder", "cat", "/src/file"]).run();
        assert_ne!(reading.code, Some(0), "a container goes on reading: {reading}");
        cove.docker(["rm", "-f", "holder"]).ok();
        run(cove, folder.path(), "true")
            .run()
            .fails_with(125)
            .says(&["not shared"]);
    }

    /// It started with an empty folder in the machine's memory, and what it wrote there was gone with the machine.
    pub(crate) fn a_stopped_container_does_not_start_without_its_folder(cove: &Cove) {
        let shared = elsewhere("stopped");
        let path = shared.path().to_str().unwrap();
        cove.cove(["share", "add", path]).ok();
        let bind = format!("{path}/pg:/data");
        keep(cove, "db", &["-v", &bind]);
        let log = shared.path().join("pg/log");
        eventually("the first life", || lives(&log) == 1);
        cove.docker(["stop", "-t", "0", "db"]).ok();

        // The engine lists a container as running for a moment after it has stopped it.
        eventually("the container to be named as stopped", || {
            let refused = cove.cove(["share", "remove", path]).run();
            assert_ne!(refused.code, Some(0), "{refused}");
            refused.says(&["`db`", "--force"]);
            refused.stderr.contains("`db` (stopped)")
        });
        cove.cove(["share", "remove", "--force", path]).ok();
        for word in ["start", "restart"] {
            cove.docker([word, "db"]).run().fails_with(1).says(&[
                &bind[..path.len() + 3],
                "is not shared",
                "cove share add",
            ]);
        }
        // As when the engine starts a container by itself: nothing of it comes by the gateway.
        for runtime in ["crun", "runc"] {
            let mount = ["run", "--rm", "--runtime", runtime, "-v", &bind, "alpine", "true"];
            let inside = cove.cove(["exec", "--", "docker"]).args(mount).run();
            assert_ne!(inside.code, Some(0), "{inside}");
            inside.says(&["is not shared with this machine"]);
        }

        cove.cove(["share", "add", path]).ok();
        cove.docker(["start", "db"]).ok();
        eventually("the second life", || lives(&log) == 2);
        cove.docker(["rm", "-f", "db"]).ok();
        cove.cove(["share", "remove", path]).ok();
    }

    /// A container that notes each of its lives in `/data`, and stays.
    fn keep(cove: &Cove, name: &str, options: &[&str]) {
        let script = "echo begun >> /data/log; exec sleep 1000";
        cove.docker(["run", "-d", "--init", "--name", name])
            .args(options)
            .args(["alpine", "sh", "-c", script])
            .ok();
    }

    fn lives(log: &Path) -> usize {
        fs::read_to_string(log).unwrap_or_default().lines().count()
    }

    pub(crate) fn a_container_that_is_always_restarted_does_not_run_without_its_folder(cove: &Cove) {
        let around = elsewhere("gone");
        let shared = folder(around.path().join("shared"));
        let path = shared.to_str().unwrap();
        cove.cove(["share", "add", path]).ok();
        let bind = format!("{path}:/data");
        keep(cove, "faithful", &["--restart", "always", "-v", &bind]);
        let log = shared.join("log");
        eventually("the first life", || lives(&log) == 1);

        let away = around.path().join("away");
        fs::rename(&shared, &away).unwrap();
        cove.cove(["restart"])
            .limit(std::time::Duration::from_mins(5))
            .ok();
        let format = "{{.State.Running}} {{.State.Error}}";
        let state = || cove.docker(["inspect", "--format", format, "faithful"]).ok();
        eventually("the engine to say why it does not run", || {
            state().contains("is not shared with this machine")
        });
        let seen = state();
        assert!(seen.starts_with("false"), "{seen}");

        fs::rename(&away, &shared).unwrap();
        cove.cove(["share", "remove", "--force", path]).ok();
        cove.cove(["share", "add", path]).ok();
        cove.docker(["start", "faithful"]).ok();
        eventually("the second life", || lives(&log) == 2);
        cove.docker(["rm", "-f", "faithful"]).ok();
        cove.cove(["share", "remove", path]).ok();
    }

    pub(crate) fn a_folder_shared_for_reading_cannot_be_written(cove: &Cove) {
        let folder = elsewhere("read");
        fs::write(folder.path().join("file"), "old").unwrap();
        let path = folder.path().to_str().unwrap();
        cove.cove(["share", "add", "--read-only", path]).ok();
        let script = "(echo new > /src/file) || touch /src/other || rm /src/file || chmod 777 /src/file";
        let finished = run(cove, folder.path(), script).run();
        assert_ne!(finished.code, Some(0), "{finished}");
        let refusals = finished.stderr.matches("Read-only file system").count();
        assert_eq!(refusals, 4, "{finished}");
        assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "old");
        // Shared anew, it can.
        cove.cove(["share", "add", path]).ok();
        run(cove, folder.path(), "echo new > /src/file").ok();
        assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "new\n");
        cove.cove(["share", "remove", path]).ok();
    }

    pub(crate) fn an_inner_share_stays_on_top_of_an_outer_one(cove: &Cove) {
        let outer = elsewhere("outer");
        let inner = folder(outer.path().join("inner"));
        let write = "echo x > /src/inner/file";
        cove.cove(["share", "add", "--read-only", inner.to_str().unwrap()])
            .ok();
        cove.cove(["share", "add", outer.path().to_str().unwrap()]).ok();
        let through_inner = run(cove, &inner, "touch /src/file").run();
        assert!(through_inner.stderr.contains("Read-only"), "{through_inner}");
        let through_outer = run(cove, outer.path(), write).run();
        assert!(through_outer.stderr.contains("Read-only"), "{through_outer}");
        cove.cove(["share", "remove", inner.to_str().unwrap()]).ok();
        run(cove, outer.path(), write).ok();
        cove.cove(["share", "remove", outer.path().to_str().unwrap()])
            .ok();
    }

    pub(crate) fn folders_that_cannot_be_shared_are_refused_with_the_reason(cove: &Cove) {
        let before = cove.cove(["share", "list"]).ok();
        for (path, code, reason) in [
            ("/", 2, "as a whole"),
            ("/etc", 2, "the guest has its own /etc"),
            ("/usr/lib", 2, "the guest has its own /usr"),
            ("/var", 2, "the guest has its own /var"),
            ("/nowhere/at/all", 4, "cannot be looked at"),
        ] {
            let finished = cove.cove(["share", "add", path]).run();
            finished.fails_with(code).says(&[reason]);
        }
        let file = cove.scratch().join("no-folder");
        fs::write(&file, "").unwrap();
        let finished = cove.cove(["share", "add", file.to_str().unwrap()]).run();
        finished.says(&["is no folder"]);
        cove.cove(["share", "remove", "/nowhere"])
            .run()
            .fails_with(4)
            .says(&["is not shared", "cove share list"]);
        assert_eq!(cove.cove(["share", "list"]).ok(), before);
    }

    pub(crate) fn shares_and_what_containers_mount_survive_a_restart(cove: &Cove) {
        let folder = at_home(cove, "restarted");
        fs::write(folder.join("file"), "still here").unwrap();
        run(cove, &folder, "chown 70:71 /src/file && chmod 640 /src/file").ok();
        let bind = format!("{}:/src", folder.display());
        let serve = "sleep 10000";
        let words = [
            "run",
            "-d",
            "--restart",
            "always",
            "--name",
            "returning",
            "-v",
            &bind,
            "alpine",
            "sh",
            "-c",
            serve,
        ];
        cove.docker(words).ok();
        cove.cove(["restart"])
            .limit(std::time::Duration::from_mins(5))
            .ok();
        harness::eventually("the container to run again", || {
            let read = cove.docker(["exec", "returning", "cat", "/src/file"]).run();
            read.text() == "still here"
        });
        let owner = cove.docker(["exec", "returning", "stat", "-c", "%u:%g %a", "/src/file"]);
        assert_eq!(owner.ok(), "70:71 640");
        cove.docker(["rm", "-f", "returning"]).ok();
    }
}
