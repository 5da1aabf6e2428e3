//! What people and tools do with folders by habit: the working directory, the engine's socket, the time zone; programs
//! that were made for a native file system.

use crate::{at_home, run};
use cove_tests::harness::Cove;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

/// Puts the test program where a container can run it: `/tools/posix` by the argument that is returned.
pub(crate) fn tools(cove: &Cove) -> String {
    let folder = at_home(cove, "tools");
    let program = folder.join("posix");
    let built = cove.kit().posix.as_ref().unwrap();
    fs::copy(built, &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/tools:ro", folder.display())
}

pub(crate) fn the_guests_client_works_in_our_directory_where_it_is_shared(cove: &Cove) {
    let folder = at_home(cove, "project");
    fs::create_dir_all(folder.join("inner")).unwrap();
    fs::write(folder.join("inner/file"), "relative").unwrap();
    let words = [
        "docker",
        "run",
        "--rm",
        "-v",
        "./inner:/src",
        "alpine",
        "cat",
        "/src/file",
    ];
    assert_eq!(cove.cove(words).directory(&folder).ok(), "relative");
    cove.cove(["docker", "run", "--rm", "-v", "/unshared:/x", "alpine", "true"])
        .run()
        .fails_with(125)
        .says(&[
            "`/unshared` is not shared with machine `default`",
            "cove share add /unshared",
        ]);
    cove.cove(["docker", "build", "."])
        .directory("/usr".as_ref())
        .run()
        .fails_with(125)
        .says(&["/usr is not shared", "cove share add"]);
}

pub(crate) fn the_engines_socket_works_in_a_container(cove: &Cove) {
    let tools = tools(cove);
    let socket = "/var/run/docker.sock:/var/run/docker.sock";
    let words = [
        "run",
        "--rm",
        "-v",
        &tools,
        "-v",
        socket,
        "alpine",
        "/tools/posix",
        "ask",
        "/var/run/docker.sock",
        "/_ping",
    ];
    let answer = cove.docker(words).ok();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("\r\n\r\nOK"),
        "{answer}"
    );
}

pub(crate) fn the_time_zone_that_compose_files_mount_is_there(cove: &Cove) {
    let words = [
        "run",
        "--rm",
        "-v",
        "/etc/localtime:/etc/localtime:ro",
        "-v",
        "/etc/timezone:/etc/timezone:ro",
        "alpine",
        "sh",
        "-c",
        "head -c 4 /etc/localtime; echo; cat /etc/timezone; date +%Z",
    ];
    assert_eq!(cove.docker(words).ok(), "TZif\nEtc/UTC\nUTC");
}

pub(crate) fn a_folder_that_the_guest_cannot_have_is_listed_with_the_reason(cove: &Cove) {
    let folder = at_home(cove, "real");
    let link = cove.scratch().join("link");
    symlink(&folder, &link).unwrap();
    let path = link.to_str().unwrap();
    let reason = "leads through a symbolic link";
    cove.cove(["share", "add", path]).run().says(&[reason]);
    cove.cove(["share", "list"]).run().says(&[path, reason]);
    cove.cove(["status"]).run().says(&[reason]);
    cove.cove(["share", "remove", path]).ok();
    let listed = cove.cove(["share", "list"]).run();
    assert!(!listed.stderr.contains(reason), "{listed}");
}

pub(crate) fn doctor_says_that_changes_are_told(cove: &Cove) {
    run(cove, &at_home(cove, "looked"), "ls /src").ok();
    let looked_at = cove.cove(["doctor"]).ok();
    let line = looked_at.lines().find(|line| line.contains("folders of default"));
    assert!(
        line.is_some_and(|line| line.starts_with("ok") && line.contains("are told to containers")),
        "{looked_at}"
    );
}

/// The same program in a volume, which is a native file system, and in a folder.
pub(crate) fn posix_holds_in_a_folder_as_it_does_on_a_native_file_system(cove: &Cove) {
    let tools = tools(cove);
    let folder = at_home(cove, "posix");
    let bind = format!("{}:/shared", folder.display());
    let words = [
        "run",
        "--rm",
        "--privileged",
        "-v",
        &tools,
        "-v",
        &bind,
        "-v",
        "posix:/native",
        "alpine",
        "/tools/posix",
        "compare",
        "/native",
        "/shared",
    ];
    let found = cove.docker(words).limit(std::time::Duration::from_mins(5)).ok();
    println!("{found}");
    cove.docker(["volume", "rm", "posix"]).ok();
}

pub(crate) fn an_archive_with_many_owners_unpacks_as_it_was_packed(cove: &Cove) {
    let folder = at_home(cove, "owners");
    let script = "set -e; cd /tmp; mkdir t; for n in 0 1 33 70 999 1000 65534; do
            echo $n > t/f$n; chown $n:$((n / 2)) t/f$n; chmod 6$((n % 8))44 t/f$n
            mkdir t/d$n; chown $((n / 2)):$n t/d$n; chmod 1700 t/d$n; ln -s f$n t/l$n; chown -h $n:$n t/l$n
        done
        ln t/f33 t/hard; touch -d '2001-02-03 04:05:06' t/f70; tar cf t.tar t; tar xpf t.tar -C /src
        list() { (cd $1 && find . ! -type l | sort | xargs stat -c '%n %u:%g %a %h %s' | sed 's/ [0-9]* [0-9]*$//'); }
        list t > a; list /src/t > b; cmp a b; stat -c %Y t/f70 /src/t/f70 | uniq | wc -l";
    assert_eq!(run(cove, &folder, script).ok(), "1");
    // Another container, which knows only what is kept with the files.
    let seen = run(cove, &folder, "stat -c '%u:%g %a' /src/t/f33 /src/t/d1000").ok();
    assert_eq!(seen, "33:16 6144\n500:1000 1700");
    all_of_one_owner(&folder, fs::metadata(&folder).unwrap().uid());
}

/// As database images do it: the entry point, root, gives the directory away; the server, somebody else, insists on
/// its mode and owner, and writes.
pub(crate) fn a_data_directory_that_is_given_away_is_accepted_by_its_new_owner(cove: &Cove) {
    let folder = at_home(cove, "database");
    let script = "set -e; mkdir -p /src/data; chown -R 70:70 /src/data; chmod 0700 /src/data
        adduser -D -u 70 keeper 2>/dev/null || true
        su -s /bin/sh $(awk -F: '$3 == 70 {print $1}' /etc/passwd) -c 'set -e; cd /src/data
            test $(stat -c %u:%a .) = 70:700
            mkdir base; echo 17 > PG_VERSION; chmod 600 PG_VERSION; dd if=/dev/zero of=base/1 bs=8k count=16 2>/dev/null; sync
            mv base/1 base/2; ln base/2 base/3; rm base/3'
        stat -c '%u:%g %a %n' /src/data /src/data/PG_VERSION /src/data/base/2";
    let expected = "70:70 700 /src/data\n70:70 600 /src/data/PG_VERSION\n70:70 644 /src/data/base/2";
    assert_eq!(run(cove, &folder, script).ok(), expected);
    all_of_one_owner(&folder, fs::metadata(&folder).unwrap().uid());
}

fn all_of_one_owner(dir: &Path, owner: u32) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!(metadata.uid(), owner, "{}", path.display());
        if metadata.is_dir() {
            all_of_one_owner(&path, owner);
        }
    }
}

/// A machine that dies leaves what it has written with this computer's kernel, synced or not: here that is asked what
/// it has yet to write.
pub(crate) fn what_a_container_syncs_is_written_to_the_disk(cove: &Cove) {
    let folder = at_home(cove, "flushed");
    let file = folder.join("file");
    let unwritten = || -> Option<u64> {
        let asked = cove
            .program(cove.kit().posix.as_ref().unwrap().to_str().unwrap())
            .args(["unwritten", file.to_str().unwrap()])
            .run();
        (asked.code == Some(0)).then(|| asked.text().parse().unwrap())
    };
    fs::write(&file, [1; 4096]).unwrap();
    let (before, ()) = (unwritten(), fs::File::open(&file).unwrap().sync_all().unwrap());
    if !matches!((before, unwritten()), (Some(1..), Some(0))) {
        eprintln!("SKIPPED: this kernel (before 6.5) or file system does not tell what is to be written");
        return;
    }
    let write = |how: &str| {
        let script = format!("dd if=/dev/urandom of=/src/file bs=64k count=16 conv=notrunc{how}");
        run(cove, &folder, &script).ok();
    };
    // Now and then the kernel writes by itself.
    cove_tests::harness::eventually("something to be left in memory", || {
        write("");
        unwritten() > Some(0)
    });
    for how in [",fsync", " && sync -f /src"] {
        write(how);
        assert_eq!(unwritten(), Some(0), "{how}");
    }
}

/// Records are written and synced, in a folder and in a volume, and only then counted on the host; then the machine
/// dies as if the power were cut.
pub(crate) fn what_was_synced_survives_the_machines_death(cove: &Cove) {
    let folder = at_home(cove, "synced");
    let bind = format!("{}:/src", folder.display());
    let script = "n=0; while :; do n=$((n + 1)); record=$(printf 'record %08d' $n)
        for f in /src/log /volume/log; do
            echo \"$record\" | dd of=$f oflag=append conv=notrunc,fsync 2>/dev/null || exit 1; done
        dd if=/dev/zero of=/src/noise bs=64k count=16 2>/dev/null
        mkdir /src/synced-$n; done";
    let words = [
        "run",
        "-d",
        "--name",
        "writer",
        "-v",
        &bind,
        "-v",
        "log:/volume",
        "alpine",
        "sh",
        "-c",
        script,
    ];
    cove.docker(words).ok();
    let counted = || {
        let entries = fs::read_dir(&folder).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names
            .filter_map(|name| name.strip_prefix("synced-")?.parse::<usize>().ok())
            .max()
            .unwrap_or(0)
    };
    cove_tests::harness::eventually("some records", || counted() >= 10);
    for pid in cove.processes_named("machine-process") {
        Cove::kill(pid);
    }
    cove_tests::harness::eventually("the machine to be known as failed", || cove.state() == "failed");
    let counted = counted();
    let check = |what: &str, log: &str| {
        let lines: Vec<_> = log.lines().collect();
        assert!(
            lines.len() >= counted,
            "{what}: {} of {counted} records",
            lines.len()
        );
        for (n, line) in (1..=counted).zip(&lines) {
            assert_eq!(*line, format!("record {n:08}"), "{what}");
        }
    };
    check("the folder", &fs::read_to_string(folder.join("log")).unwrap());
    cove.start();
    let volume = cove
        .docker(["run", "--rm", "-v", "log:/volume", "alpine", "cat", "/volume/log"])
        .ok();
    check("the volume", &volume);
    cove.docker(["rm", "-f", "writer"]).ok();
    cove.docker(["volume", "rm", "log"]).ok();
}
