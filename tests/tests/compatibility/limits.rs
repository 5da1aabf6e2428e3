//! What a container may use and may do: each limit is run against, not only read back.

use crate::docker;
use cove_tests::harness::{Cove, eventually};
use std::fs;

/// Bits of the kernel's set of capabilities.
const CHOWN: u64 = 1;
const NET_ADMIN: u64 = 1 << 12;

/// Runs `script` in a container made with `options`.
fn run(cove: &Cove, options: &str, script: &str) -> String {
    let line = format!("run --rm {options} alpine sh -c");
    docker(cove, line.replace("  ", " ").trim()).arg(script).ok()
}

pub(crate) fn memory_beyond_the_limit_is_not_had(cove: &Cove) {
    // Its first process goes on, so that the engine hears of the kill before it hears of an end.
    docker(
        cove,
        "run -d --name greedy --memory 16m --memory-swap 16m alpine sh -c",
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
    // Half a processor: the kernel counts the periods in which the container had to wait.
    let throttled = run(
        cove,
        "--cpus 0.5",
        "timeout 3 sh -c 'while :; do :; done'; grep nr_throttled /sys/fs/cgroup/cpu.stat",
    );
    let count: u32 = throttled.trim_start_matches("nr_throttled ").parse().unwrap();
    assert!(count > 0, "it was never throttled");
    let settings = run(
        cove,
        "--cpu-shares 512 --cpuset-cpus 0",
        "cat /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpuset.cpus; grep Cpus_allowed_list /proc/self/status",
    );
    assert_eq!(settings, "20\n0\nCpus_allowed_list:\t0");
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
    let disk = "/dev/vdb";
    let limits = run(
        cove,
        &format!("--device-read-bps {disk}:1mb --device-write-iops {disk}:50"),
        "cat /sys/fs/cgroup/io.max",
    );
    assert!(
        limits.contains("rbps=1048576") && limits.contains("wiops=50"),
        "{limits}"
    );
    // 3 MiB past every cache, at 1 MiB a second, while the kernel counts.
    let took = run(
        cove,
        &format!("--device-write-bps {disk}:1mb"),
        "a=$(cut -d. -f1 /proc/uptime); dd if=/dev/zero of=/f bs=1M count=4 oflag=direct 2>/dev/null; b=$(cut -d. -f1 /proc/uptime); echo $((b - a))",
    );
    assert!(
        took.parse::<u32>().unwrap() >= 2,
        "4 MiB at 1 MiB/s took {took} s"
    );
}

pub(crate) fn capabilities_are_what_was_asked_for(cove: &Cove) {
    let effective = |options: &str| {
        let line = run(cove, options, "grep CapEff /proc/self/status");
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
    let mode = |options: &str| run(cove, options, "grep -w Seccomp: /proc/self/status");
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
        run(cove, "--user 1234:5678 --group-add 42", "id -u; id -g; id -G"),
        "1234\n5678\n5678 42"
    );
    assert_eq!(run(cove, "--user nobody", "id -un"), "nobody");
    docker(cove, "run --rm --user nosuchuser alpine true")
        .run()
        .fails_with(125)
        .says(&["unable to find user nosuchuser"]);
    let privileges = run(
        cove,
        "--security-opt no-new-privileges",
        "grep NoNewPrivs /proc/self/status",
    );
    assert_eq!(privileges, "NoNewPrivs:\t1");
}

pub(crate) fn devices_sysctls_ulimits_and_shared_memory_are_set(cove: &Cove) {
    assert_eq!(
        run(
            cove,
            "--device /dev/null:/dev/hole:rw",
            "echo x > /dev/hole; stat -c %F /dev/hole"
        ),
        "character special file"
    );
    assert_eq!(
        run(
            cove,
            "--sysctl net.ipv4.ip_unprivileged_port_start=1000",
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
        ),
        "1000"
    );
    assert_eq!(
        run(cove, "--ulimit nofile=333:444", "ulimit -Sn; ulimit -Hn"),
        "333\n444"
    );
    assert_eq!(
        run(cove, "--shm-size 8m", "df -k /dev/shm | awk 'NR==2 {print $2}'"),
        "8192"
    );
    assert_eq!(
        run(
            cove,
            "--hostname box --domainname example.org --dns 192.0.2.1 --add-host far:192.0.2.2",
            "hostname; grep -c 192.0.2.1 /etc/resolv.conf; grep far /etc/hosts"
        ),
        "box\n1\n192.0.2.2\tfar"
    );
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
    assert!(run(cove, "--pid container:shared", "ps").contains("sleep 600"));
    assert_eq!(run(cove, "--network container:shared", "hostname").len(), 12);
    docker(cove, "run --rm --ipc container:shared alpine true").ok();
    let own = run(cove, "--uts host", "hostname");
    assert_eq!(own, cove.cove(["exec", "hostname"]).ok());
    docker(cove, "rm -f shared").ok();
}
