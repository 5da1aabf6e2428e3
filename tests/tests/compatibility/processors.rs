//! Images for other processors than the machine's.

use crate::docker;
use cove_tests::harness::Cove;
use std::fs;

/// Switches it on. Without the setting nothing of it is there; the suite `engine` looks at that.
pub(crate) fn prepare(cove: &Cove) {
    cove.cove(["config", "set", "machine.foreign-processors", "true"])
        .ok();
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
