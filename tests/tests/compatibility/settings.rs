//! What the engine does when it is set to, by settings that take a new start of the machine.

use crate::{
    docker, output_of, processors,
    registries::{Trusted, login},
    registry::{Authority, Registry, WORD},
};
use cove_tests::harness::Cove;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a machine may take to stop and start.
const RESTART: Duration = Duration::from_mins(5);
const LIMIT: Duration = Duration::from_mins(6);

/// What a setting is for a while.
struct Setting {
    key: &'static str,
    meanwhile: &'static str,
    /// What it is otherwise, unless that is its default.
    otherwise: Option<&'static str>,
}

/// Settings for as long as this lives; the machine starts anew at either end. The engine keeps what it has with them and
/// without them apart, and so it gets its image again.
struct Set<'a> {
    cove: &'a Cove,
    settings: &'static [Setting],
}

impl<'a> Set<'a> {
    fn new(cove: &'a Cove, settings: &'static [Setting]) -> Self {
        let image = cove.scratch().join("starter.tar");
        docker(cove, "save alpine -o").arg(&image).ok();
        let set = Self { cove, settings };
        for &Setting { key, meanwhile, .. } in settings {
            cove.cove(["config", "set", key, meanwhile]).ok();
        }
        cove.cove(["restart"]).limit(RESTART).ok();
        docker(cove, "load -i").arg(&image).ok();
        fs::remove_file(image).unwrap();
        set
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        // What a failed test has left would fail the next one as well.
        for &Setting { key, otherwise, .. } in self.settings {
            let back = otherwise.map_or(["--unset", key], |value| [key, value]);
            self.cove.cove(["config", "set"]).args(back).run();
        }
        self.cove.cove(["restart"]).limit(RESTART).run();
    }
}

/// Two things by one new start: programs of other processors are switched off with it.
pub(crate) fn containers_have_users_of_their_own_and_no_foreign_programs_by_setting(cove: &Cove) {
    let _set = Set::new(
        cove,
        &[
            Setting {
                key: "engine.userns-remap",
                meanwhile: "default",
                otherwise: None,
            },
            Setting {
                key: processors::SETTING,
                meanwhile: "false",
                otherwise: Some("true"),
            },
        ],
    );
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
    processors::none_is_left(cove);
}

/// With containerd's store of images.
pub(crate) fn a_cache_is_exported_and_one_build_serves_several_processors_by_setting(cove: &Cove) {
    let _set = Set::new(
        cove,
        &[Setting {
            key: "engine.features.containerd-snapshotter",
            meanwhile: "true",
            otherwise: None,
        }],
    );
    let place = cove.scratch().join("exported-cache");
    fs::create_dir_all(&place).unwrap();
    // With this store, BuildKit asks the registry for what FROM names before it looks at home.
    docker(cove, "create --name starter alpine").ok();
    docker(cove, "export -o starter.tar starter")
        .directory(&place)
        .ok();
    docker(cove, "rm starter").ok();
    a_cache_comes_back_from_a_directory(cove, &place);
    a_cache_comes_back_from_a_registry(cove, &place);
    one_build_serves_several_processors(cove, &place);
}

/// Builds what `dockerfile` says of the directory `place`, gives what the image prints, and removes image and cache.
fn built(cove: &Cove, place: &Path, dockerfile: &str, options: &[&str]) -> String {
    docker(cove, "buildx build -q -t once -f -")
        .args(options)
        .arg(".")
        .input(dockerfile)
        .directory(place)
        .limit(LIMIT)
        .ok();
    let said = docker(cove, "run --rm once").ok();
    docker(cove, "rmi once").ok();
    docker(cove, "builder prune -af").ok();
    said
}

fn a_cache_comes_back_from_a_directory(cove: &Cove, place: &Path) {
    // A step that is done anew writes something else.
    let dockerfile =
        "FROM scratch\nADD starter.tar /\nRUN cat /proc/sys/kernel/random/uuid > /once\nCMD cat /once\n";
    let build = |options: &[&str]| built(cove, place, dockerfile, options);
    let first = build(&["--cache-to", "type=local,dest=cache"]);
    assert_eq!(build(&["--cache-from", "type=local,src=cache"]), first);
    // The step is done anew where nobody names the directory.
    assert_ne!(build(&[]), first);
}

/// By one that wants a password. The cache is there under a name of its own, with what of it is in no image.
fn a_cache_comes_back_from_a_registry(cove: &Cove, place: &Path) {
    let authority = Authority::new("Pantry");
    let registry = Registry::private(cove, &authority);
    let _trusted = Trusted::new(cove, &authority);
    login(cove, &registry, WORD).ok();
    // The second stage is another one in each round, and takes the file of the first one anew.
    let build = |round: &str, options: &[&str]| {
        let dockerfile = format!(
            "FROM scratch AS made\nADD starter.tar /\nRUN cat /proc/sys/kernel/random/uuid > /once\n\
             FROM scratch\nADD starter.tar /\nRUN echo {round} > /round\nCOPY --from=made /once /\n\
             CMD cat /once\n"
        );
        built(cove, place, &dockerfile, options)
    };
    let cache = format!("type=registry,ref={}", registry.image("team/cache:1"));
    let first = build("first", &["--cache-to", &format!("{cache},mode=max")]);
    assert_eq!(build("second", &["--cache-from", &cache]), first);
    // The first stage is made anew where nobody names the registry.
    assert_ne!(build("third", &[]), first);
    docker(cove, "logout").arg(&registry.name).ok();
}

fn one_build_serves_several_processors(cove: &Cove, place: &Path) {
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
    .directory(place)
    .limit(LIMIT)
    .ok();
    assert_eq!(
        docker(cove, "run --rm --platform linux/arm64 both uname -m").ok(),
        "aarch64"
    );
    docker(cove, "rmi both").ok();
}
