//! Images for other processors than the machine's.

use crate::docker;
use cove_tests::harness::Cove;
use std::fs;

/// What switches it on and off, with the next start of the machine.
pub(crate) const SETTING: &str = "machine.foreign-processors";

/// Switches it on. Without the setting nothing of it is there; the suite `engine` looks at that.
pub(crate) fn prepare(cove: &Cove) {
    cove.cove(["config", "set", SETTING, "true"]).ok();
}

/// Where the machine had them, and was started anew without the setting.
pub(crate) fn none_is_left(cove: &Cove) {
    let loaded = cove.cove(["exec", "cat", "/proc/modules"]).ok();
    assert!(!loaded.contains("binfmt_misc"), "{loaded}");
    let known = cove.cove(["exec", "ls", "/proc/sys/fs/binfmt_misc"]).ok();
    assert_eq!(known, "");
    let programs = cove.kit().foreign.as_ref().unwrap();
    let archive = cove
        .program("tar")
        .args(["-c", "--dereference", "busybox"])
        .directory(&programs.join("arm64"))
        .run();
    assert_eq!(archive.code, Some(0), "{}", archive.stderr);
    docker(cove, "import --platform linux/arm64 - foreign")
        .input(archive.stdout)
        .ok();
    docker(cove, "run --rm --platform linux/arm64 foreign /busybox uname -m")
        .run()
        .fails_with(1)
        .says(&["exec container process `/busybox`: Exec format error"]);
    docker(cove, "rmi foreign").ok();
}

pub(crate) fn programs_of_other_processors_run_and_are_built(cove: &Cove) {
    let programs = cove.kit().foreign.as_ref().unwrap();
    let context = cove.scratch().join("foreign");
    fs::create_dir_all(&context).unwrap();
    for (name, machine) in [("arm64", "aarch64"), ("arm", "armv7l")] {
        fs::copy(programs.join(name).join("busybox"), context.join("busybox")).unwrap();
        let platform = format!("linux/{name}");
        let image = format!("busybox-{name}");
        docker(cove, "build -q -f - --platform")
            .args([&platform, "-t", &image])
            .arg(&context)
            .input(
                "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
                 RUN uname -m > /built-on\nCMD [\"sh\"]\n",
            )
            .ok();
        let inspected = docker(cove, "image inspect --format {{.Os}}/{{.Architecture}}").arg(&image);
        assert_eq!(inspected.ok(), platform);
        let run = docker(cove, "run --rm --platform").args([&platform, &image, "sh", "-c"]);
        // A pipe, a child, arithmetic: more than a program that only prints.
        let script = "cat /built-on; uname -m | tr a-z A-Z; exec sh -c 'echo $((6 * 7)); exit 5'";
        let ran = run.arg(script).run();
        ran.fails_with(5);
        assert_eq!(
            ran.text(),
            format!("{machine}\n{}\n42", machine.to_uppercase()),
            "{ran}"
        );
        docker(cove, "rmi").arg(&image).ok();
    }
}
