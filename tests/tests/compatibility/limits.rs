//! What a container may use and may do: each limit is run against, not only read back.

use crate::{docker, output_of};
use cove_tests::harness::{Cove, eventually};
use std::fs;

/// Bits of the kernel's set of capabilities.
const CHOWN: u64 = 1;
const NET_ADMIN: u64 = 1 << 12;

pub(crate) fn memory_beyond_the_limit_is_not_had(cove: &Cove) {
    // Its first process goes on, so that the engine hears of the kill before it hears of an end.
    docker(
        cove,
        "run -d --name greedy --memory 32m --memory-swap 32m alpine sh -c",
    )
    .arg("tail /dev/zero; echo $? > /code; sleep 600")
    .ok();
    eventually("the kill", || {
        docker(cove, "inspect --format {{.State.OOMKilled}} greedy").ok() == "true"
    });
    eventually("the code of what was killed", || {
        docker(cove, "exec greedy cat /code").run().text() == "137"
    });
    docker(cove, "rm -f greedy").ok();
}

pub(crate) fn processor_time_is_rationed(cove: &Cove) {
    // Half a processor, where a loop would take a whole one: how much of it the loop had, in microseconds, and how long
    // it ran, in hundredths of a second.
    let script = "had() { sed -n 's/^usage_usec //p' /sys/fs/cgroup/cpu.stat; }\n\
                  now() { cut -d' ' -f1 /proc/uptime | tr -d .; }\n\
                  a=$(had) b=$(now); timeout 3 sh -c 'while :; do :; done'; echo $(($(had) - a)) $(($(now) - b))";
    let told = output_of(cove, "--cpus 0.5", script);
    let (had, ran) = told.split_once(' ').unwrap();
    let (had, ran): (u64, u64) = (had.parse().unwrap(), ran.parse().unwrap());
    assert!(ran >= 250, "it ran for {ran} hundredths of a second only");
    // The kernel hands it out in pieces, so that a little more may be had.
    assert!(
        had * 100 <= ran * 10_000 * 65,
        "{had} µs of {ran} hundredths of a second"
    );
    // By these weights the kernel divides a processor that several want. Loops that compete for it would show no more,
    // and that only on a computer that has nothing else to do.
    for (shares, weight) in [(512, 20), (1024, 39)] {
        let settings = output_of(
            cove,
            &format!("--cpu-shares {shares} --cpuset-cpus 0"),
            "cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpuset.cpus; grep Cpus_allowed_list /proc/self/status",
        );
        assert_eq!(settings, format!("{weight}\n0\nCpus_allowed_list:\t0"));
    }
}

pub(crate) fn processes_beyond_the_limit_do_not_start(cove: &Cove) {
    // The shell ends with the first child that it cannot have.
    let output = docker(cove, "run --rm --pids-limit 8 alpine sh -c")
        .arg("for i in 1 2 3 4 5 6 7 8 9 10; do sleep 5 & done 2>&1")
        .run()
        .fails_with(2)
        .text();
    assert!(
        output.contains("can't fork") || output.contains("Resource temporarily unavailable"),
        "{output}"
    );
}

pub(crate) fn block_io_is_limited_at_the_device(cove: &Cove) {
    // What has the engine's data.
    let disk = cove.cove(["exec", "df", "/var/lib/docker"]).ok();
    let disk = disk
        .lines()
        .last()
        .and_then(|line| line.split(' ').next())
        .unwrap();
    // Past every cache, while the kernel counts: how many hundredths of a second writing took, and how many reading.
    let took = |option: &str, size: &str| -> [u32; 2] {
        let script = format!(
            "set -e\n\
             now() {{ cut -d' ' -f1 /proc/uptime | tr -d .; }}\n\
             a=$(now); dd if=/dev/zero of=/f {size} oflag=direct; echo $(($(now) - a))\n\
             a=$(now); dd if=/f of=/dev/null {size} iflag=direct; echo $(($(now) - a))"
        );
        let told = output_of(cove, option, &script);
        let (written, read) = told.split_once('\n').unwrap();
        [written, read].map(|took| took.parse().unwrap())
    };
    // With the limit each takes six seconds, less what is handed out at once: much longer than without one, however slow
    // the computer is.
    for (kind, limit, size) in [
        ("bps", "512kb", "bs=1M count=3"),
        ("iops", "10", "bs=4k count=60"),
    ] {
        let unlimited = took("", size);
        for (at, way) in ["write", "read"].into_iter().enumerate() {
            let option = format!("--device-{way}-{kind} {disk}:{limit}");
            let limited = took(&option, size);
            assert!(
                limited[at] >= 300 && limited[at] >= unlimited[at] + 100,
                "{option}: {limited:?}, without it {unlimited:?}"
            );
        }
    }
}

pub(crate) fn capabilities_are_what_was_asked_for(cove: &Cove) {
    let effective = |options: &str| {
        let line = output_of(cove, options, "grep CapEff /proc/self/status");
        u64::from_str_radix(line.trim_start_matches("CapEff:\t"), 16).unwrap()
    };
    assert_eq!(effective("") & NET_ADMIN, 0);
    assert_ne!(effective("--cap-add NET_ADMIN") & NET_ADMIN, 0);
    assert_eq!(effective("--cap-drop ALL"), 0);
    docker(cove, "run --rm --cap-drop CHOWN alpine chown 1 /tmp")
        .run()
        .fails_with(1);
    assert_eq!(effective("--cap-drop ALL --cap-add CHOWN"), CHOWN);
    assert_eq!(effective("--privileged").count_ones(), 41);
}

pub(crate) fn seccomp_filters_calls_by_profile(cove: &Cove) {
    let mode = |options: &str| output_of(cove, options, "grep -w Seccomp: /proc/self/status");
    assert_eq!(mode(""), "Seccomp:\t2");
    assert_eq!(mode("--security-opt seccomp=unconfined"), "Seccomp:\t0");
    let profile = cove.scratch().join("no-mkdir.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    docker(cove, "run --rm --security-opt")
        .arg(format!("seccomp={}", profile.display()))
        .args(["alpine", "mkdir", "/tmp/x"])
        .run()
        .fails_with(1)
        .says(&["Operation not permitted"]);
}

pub(crate) fn a_read_only_root_is_read_only(cove: &Cove) {
    docker(cove, "run --rm --read-only alpine touch /x")
        .run()
        .fails_with(1)
        .says(&["Read-only file system"]);
    docker(cove, "run --rm --read-only --tmpfs /run alpine touch /run/x").ok();
}

pub(crate) fn a_container_runs_as_the_user_that_it_is_told(cove: &Cove) {
    assert_eq!(
        output_of(cove, "--user 1234:5678 --group-add 42", "id -u; id -g; id -G"),
        "1234\n5678\n5678 42"
    );
    assert_eq!(output_of(cove, "--user nobody", "id -un"), "nobody");
    docker(cove, "run --rm --user nosuchuser alpine true")
        .run()
        .fails_with(125)
        .says(&["unable to find user nosuchuser"]);
    let privileges = output_of(
        cove,
        "--security-opt no-new-privileges",
        "grep NoNewPrivs /proc/self/status",
    );
    assert_eq!(privileges, "NoNewPrivs:\t1");
}

pub(crate) fn devices_sysctls_ulimits_and_shared_memory_are_set(cove: &Cove) {
    // The machine's own system, which nobody may write anyway: reading it wants leave all the same.
    let read = "mknod /tmp/disk b $(stat -c '0x%t 0x%T' /dev/disk 2>/dev/null || echo 254 0) 2>/dev/null; \
                head -c 1024 ${DISK:-/dev/disk} 2>&1 | wc -c; (echo x > ${DISK:-/dev/disk}) 2>&1 || true";
    let given = output_of(cove, "--device /dev/vda:/dev/disk:r", read);
    assert!(
        given.starts_with("1024\n") && given.contains("Operation not permitted"),
        "{given}"
    );
    let taken = output_of(cove, "-e DISK=/tmp/disk", read);
    assert!(
        !taken.starts_with("1024\n") && taken.contains("Operation not permitted"),
        "{taken}"
    );
    assert_eq!(
        output_of(
            cove,
            "--sysctl net.ipv4.ip_unprivileged_port_start=1000",
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
        ),
        "1000"
    );
    let opened = output_of(
        cove,
        "--ulimit nofile=40:44",
        "ulimit -Sn; ulimit -Hn; exec 38>/dev/null; echo thirty-eight; (exec 41>/dev/null) 2>/dev/null || echo no more",
    );
    assert_eq!(opened, "40\n44\nthirty-eight\nno more");
    let filled = output_of(
        cove,
        "--shm-size 8m",
        "dd if=/dev/zero of=/dev/shm/x bs=1M 2>&1 | grep -c 'No space left'; stat -c %s /dev/shm/x",
    );
    assert_eq!(filled, "1\n8388608");
    assert_eq!(
        output_of(
            cove,
            "--hostname box --domainname example.org --dns 192.0.2.1 --add-host far:192.0.2.2",
            "hostname; grep -c 192.0.2.1 /etc/resolv.conf; grep far /etc/hosts"
        ),
        "box\n1\n192.0.2.2\tfar"
    );
}

/// A container's own root, who is nobody outside.
pub(crate) fn a_user_namespace_can_be_made_where_the_profile_lets_it(cove: &Cove) {
    let script = "unshare -Ur sh -c 'id -u; cat /proc/self/uid_map'";
    let made = output_of(cove, "--user 1234 --security-opt seccomp=unconfined", script);
    assert_eq!(
        made.split_whitespace().collect::<Vec<_>>(),
        ["0", "0", "1234", "1"]
    );
    docker(cove, "run --rm --user 1234 alpine sh -c")
        .arg(script)
        .run()
        .fails_with(1)
        .says(&["Operation not permitted"]);
}

pub(crate) fn a_privileged_container_may_mount(cove: &Cove) {
    let script = "mount -t tmpfs none /mnt && touch /mnt/x";
    docker(cove, "run --rm --privileged alpine sh -c")
        .arg(script)
        .ok();
    let refused = docker(cove, "run --rm alpine sh -c").arg(script).run();
    assert_ne!(refused.code, Some(0), "an ordinary container may mount");
}

pub(crate) fn namespaces_can_be_shared(cove: &Cove) {
    docker(cove, "run -d --name shared --ipc shareable alpine sleep 600").ok();
    let script = "for name in net ipc uts pid; do readlink /proc/self/ns/$name; done";
    let of = |output: &str| -> Vec<String> { output.lines().map(str::to_owned).collect() };
    let owner = of(&docker(cove, "exec shared sh -c").arg(script).ok());
    for (place, option) in [
        (0, "--network container:shared"),
        (1, "--ipc container:shared"),
        (3, "--pid container:shared"),
    ] {
        let joined = of(&output_of(cove, option, script));
        for (at, (ours, theirs)) in joined.iter().zip(&owner).enumerate() {
            assert_eq!(ours == theirs, at == place, "{option}: {joined:?}, {owner:?}");
        }
    }
    docker(cove, "rm -f shared").ok();
    let own = output_of(cove, "--uts host", "hostname");
    assert_eq!(own, cove.cove(["exec", "hostname"]).ok());
}

pub(crate) fn another_runtime_runs_beside_the_usual_one(cove: &Cove) {
    // Each keeps what it knows of a container in a file that the other has not, in a directory with the container's name.
    const KEPT: [(&str, &str); 2] = [("crun", "status"), ("runc", "state.json")];
    let usual = docker(cove, "info --format {{.DefaultRuntime}}").ok();
    assert_eq!(usual, "crun");
    for (runtime, own) in KEPT {
        let id = docker(
            cove,
            &format!("run -d --name {runtime} --runtime {runtime} alpine sleep 600"),
        )
        .ok();
        let [crun, runc] = KEPT.map(|(_, file)| format!("*/{id}/{file}"));
        let found = cove
            .cove(["exec", "find", "/run", "-maxdepth", "6"])
            .args(["-path", &crun, "-o", "-path", &runc])
            .run();
        let text = found.text();
        let files: Vec<&str> = text.lines().filter_map(|path| path.rsplit('/').next()).collect();
        assert_eq!(files, [own], "{runtime}: {found}");
        let told = docker(
            cove,
            &format!("inspect --format {{{{.HostConfig.Runtime}}}} {runtime}"),
        )
        .ok();
        assert_eq!(told, runtime);
        assert_eq!(
            docker(cove, &format!("exec {runtime} cat /proc/1/comm")).ok(),
            "sleep"
        );
        docker(cove, &format!("rm -f {runtime}")).ok();
    }
}
