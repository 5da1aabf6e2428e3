//! What the engine does when it is set to, by settings that take a new start of the machine.

use crate::{docker, output_of};
use cove_tests::harness::Cove;
use std::{fs, path::PathBuf, time::Duration};

/// How long a machine may take to stop and start.
const RESTART: Duration = Duration::from_mins(5);
const LIMIT: Duration = Duration::from_mins(6);

/// A setting for as long as this lives; the machine starts anew at either end. The engine keeps what it has under each
/// of the two settings apart, and so it gets its image again.
struct Set<'a> {
    cove: &'a Cove,
    key: &'static str,
}

impl<'a> Set<'a> {
    fn new(cove: &'a Cove, key: &'static str, value: &str) -> Self {
        let image = cove.scratch().join("starter.tar");
        docker(cove, "save alpine -o").arg(&image).ok();
        let set = Self { cove, key };
        cove.cove(["config", "set", key, value]).ok();
        cove.cove(["restart"]).limit(RESTART).ok();
        docker(cove, "load -i").arg(&image).ok();
        fs::remove_file(image).unwrap();
        set
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        // What a failed test has left would fail the next one as well.
        self.cove.cove(["config", "set", "--unset", self.key]).run();
        self.cove.cove(["restart"]).limit(RESTART).run();
    }
}

pub(crate) fn containers_have_users_of_their_own_by_setting(cove: &Cove) {
    let _set = Set::new(cove, "engine.userns-remap", "default");
    let map = |options: &str| -> Vec<String> {
        let map = output_of(cove, options, "cat /proc/self/uid_map; id -u");
        map.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(map(""), ["0", "100000", "65536", "0"]);
    // Who asks for the machine's own users gets them.
    assert_eq!(map("--userns host"), ["0", "0", "4294967295", "0"]);
    docker(cove, "volume create owned").ok();
    output_of(cove, "-v owned:/v", "touch /v/file");
    let place = docker(cove, "volume inspect --format {{.Mountpoint}} owned").ok();
    let owner = cove
        .cove(["exec", "stat", "-c", "%u", &format!("{place}/file")])
        .ok();
    assert_eq!(owner, "100000");
    docker(cove, "volume rm owned").ok();
}

/// With containerd's store of images.
pub(crate) fn a_cache_is_exported_and_one_build_serves_several_processors_by_setting(cove: &Cove) {
    let _set = Set::new(cove, "engine.features.containerd-snapshotter", "true");
    let place = cove.scratch().join("exported-cache");
    fs::create_dir_all(&place).unwrap();
    // With this store, BuildKit asks the registry for what FROM names before it looks at home.
    docker(cove, "create --name starter alpine").ok();
    docker(cove, "export -o starter.tar starter")
        .directory(&place)
        .ok();
    docker(cove, "rm starter").ok();
    // A step that is done anew writes something else.
    let once =
        "FROM scratch\nADD starter.tar /\nRUN cat /proc/sys/kernel/random/uuid > /once\nCMD cat /once\n";
    fs::write(place.join("Dockerfile"), once).unwrap();
    let build = |option: &str| {
        docker(cove, "buildx build -q -t once")
            .args(option.split_whitespace())
            .arg(".")
            .directory(&place)
            .limit(LIMIT)
            .ok();
        docker(cove, "run --rm once").ok()
    };
    let forget = || {
        docker(cove, "rmi once").ok();
        docker(cove, "builder prune -af").ok();
    };
    let first = build("--cache-to type=local,dest=cache");
    forget();
    assert_eq!(build("--cache-from type=local,src=cache"), first);
    forget();
    // The step is done anew where nobody names the directory.
    assert_ne!(build(""), first);

    fs::create_dir(place.join("programs")).unwrap();
    let foreign: PathBuf = cove.kit().foreign.as_ref().unwrap().join("arm64/busybox");
    fs::copy(foreign, place.join("programs/arm64")).unwrap();
    fs::write(place.join("programs/amd64"), "not a program\n").unwrap();
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY programs/$TARGETARCH /bin/uname\n";
    docker(
        cove,
        "buildx build -q -t both --platform linux/amd64,linux/arm64 -f - .",
    )
    .input(dockerfile)
    .directory(&place)
    .limit(LIMIT)
    .ok();
    assert_eq!(
        docker(cove, "run --rm --platform linux/arm64 both uname -m").ok(),
        "aarch64"
    );
    docker(cove, "rmi both once").ok();
}
