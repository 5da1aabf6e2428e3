//! Finds the sources of bind mounts in the body of a request.
//!
//! The body is not turned into a value and back: where nothing has to be translated the engine gets the client's own
//! bytes, and where a path has to be, that string alone is replaced. Keys are matched as Go's `encoding/json` matches
//! them, without regard to case. Go lets the last of several equal keys win for a string and merges them for an
//! object; here every one of them is looked at, which covers both.

use super::{MountPolicy, Place, clean, is_drive_path};
use crate::gateway::route::Checked;
use cove_wire::guest_folder;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use std::{fmt, ops::Range, path::Path};

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gateway) enum Verdict {
    /// Pass it on as it is.
    Forward,
    /// Pass it on with this body.
    Rewrite(Vec<u8>),
    /// Answer 400 with this message.
    Refuse(String),
}

/// Looks for what a request of this kind wants to mount, and judges it.
pub(in crate::gateway) fn examine(kind: Checked, body: &[u8], policy: &MountPolicy) -> Verdict {
    if body.is_empty() {
        return Verdict::Forward;
    }
    // Go, too, reads bytes that are not UTF-8 as replacement characters.
    let text = String::from_utf8_lossy(body);
    let mut search = Search::new(&text, policy);
    match search.run(kind) {
        Ok(()) if search.edits.is_empty() => Verdict::Forward,
        Ok(()) => Verdict::Rewrite(search.rewritten()),
        Err(Stop::Elsewhere { source, end }) => Verdict::Refuse(policy.refusal(&source, end.as_deref())),
        Err(Stop::Json(error)) => Verdict::Refuse(format!(
            "cannot look for bind mounts in the body of this request: {error}"
        )),
    }
}

/// Whether a container that the engine describes so was made with mounts that [`obstacle`] would look at.
pub(in crate::gateway) fn has_mounts(container: &Value) -> bool {
    let host = &container["HostConfig"];
    [&host["Binds"], &host["Mounts"]]
        .into_iter()
        .any(|mounts| mounts.as_array().is_some_and(|mounts| !mounts.is_empty()))
}

/// Why a container must not be started now that was made when it could be. `container` is the engine's description of
/// it, in which its mounts stand as in the request that made it.
pub(in crate::gateway) fn obstacle(container: &str, policy: &MountPolicy) -> Option<String> {
    let mut search = Search {
        is_made: true,
        ..Search::new(container, policy)
    };
    match search.run(Checked::Container) {
        Err(Stop::Elsewhere { source, end }) => Some(policy.refusal(&source, end.as_deref())),
        // What the engine says is its own affair; its runtime looks at the mounts once more.
        Ok(()) | Err(Stop::Json(_)) => None,
    }
}

/// Why the search ends early.
enum Stop {
    /// A source that is not in the guest, and where links lead from it, should that be why.
    Elsewhere {
        source: String,
        end: Option<String>,
    },
    Json(serde_json::Error),
}

impl From<serde_json::Error> for Stop {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

struct Search<'a> {
    text: &'a str,
    policy: &'a MountPolicy,
    /// The container is there already. A client in the guest may have made it, and have meant what the guest has itself.
    is_made: bool,
    /// Strings to replace, in the order in which they were found.
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Search<'a> {
    fn new(text: &'a str, policy: &'a MountPolicy) -> Self {
        Self {
            text,
            policy,
            is_made: false,
            edits: Vec::new(),
        }
    }

    fn run(&mut self, kind: Checked) -> Result<(), Stop> {
        let top: Members<'a> = optional(self.text)?;
        match kind {
            Checked::Container => {
                for host in top.objects("HostConfig") {
                    let host = host?;
                    for binds in host.arrays("Binds") {
                        for bind in binds? {
                            self.bind(bind)?;
                        }
                    }
                    self.mounts(&host)?;
                }
            }
            Checked::Service => {
                for task in top.objects("TaskTemplate") {
                    for container in task?.objects("ContainerSpec") {
                        self.mounts(&container?)?;
                    }
                }
            }
            Checked::Volume => self.volume(&top, "Driver", "DriverOpts")?,
            // They have no body that could name a path of the host's.
            Checked::Build | Checked::Start => {}
        }
        Ok(())
    }

    /// One of `Binds`: `source:destination[:options]`, or a destination alone.
    fn bind(&mut self, raw: &'a RawValue) -> Result<(), Stop> {
        let bind: String = optional(raw.get())?;
        let colon = if is_drive_path(&bind) {
            bind[3..].find(':').map(|colon| colon + 3)
        } else {
            bind.find(':')
        };
        match colon {
            Some(colon) => self.source(raw, &bind[..colon], &bind[colon..]),
            None => Ok(()),
        }
    }

    /// `Mounts`, of a container or of a service's containers.
    fn mounts(&mut self, owner: &Members<'a>) -> Result<(), Stop> {
        for mounts in owner.arrays("Mounts") {
            for mount in mounts? {
                let mount: Members<'a> = optional(mount.get())?;
                let kinds = mount.strings("Type")?;
                if kinds.iter().any(|kind| kind == "bind") {
                    for raw in mount.named("Source") {
                        let source: String = optional(raw.get())?;
                        self.source(raw, &source, "")?;
                    }
                }
                for options in mount.objects("VolumeOptions") {
                    for driver in options?.objects("DriverConfig") {
                        self.volume(&driver?, "Name", "Options")?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A volume of the `local` driver may be a bind mount by another name: `o=bind` with a `device`.
    fn volume(&mut self, owner: &Members<'a>, driver: &str, options: &str) -> Result<(), Stop> {
        let drivers = owner.strings(driver)?;
        let local = |driver: &String| driver.is_empty() || driver == "local";
        if !drivers.is_empty() && !drivers.iter().any(local) {
            return Ok(());
        }
        for options in owner.objects(options) {
            let options = options?;
            let mut binds = false;
            // A map's keys, unlike a structure's, are told apart by case.
            for (_, raw) in options.0.iter().filter(|(key, _)| key == "o") {
                let flags: String = optional(raw.get())?;
                binds |= flags
                    .split(',')
                    .any(|flag| matches!(flag.trim(), "bind" | "rbind"));
            }
            for (_, raw) in options.0.iter().filter(|(key, _)| binds && key == "device") {
                let device: String = optional(raw.get())?;
                self.source(raw, &device, "")?;
            }
        }
        Ok(())
    }

    /// Judges a source that was found in the string `raw`, where `rest` follows it.
    fn source(&mut self, raw: &'a RawValue, source: &str, rest: &str) -> Result<(), Stop> {
        match self.policy.place(source) {
            Place::AsGiven => {}
            Place::NotShared if self.is_made && guest_folder(Path::new(&clean(source))).is_some() => {}
            Place::NotShared => {
                return Err(Stop::Elsewhere {
                    source: source.to_owned(),
                    end: None,
                });
            }
            Place::LeadsTo(end) => {
                return Err(Stop::Elsewhere {
                    source: source.to_owned(),
                    end: Some(end),
                });
            }
            Place::At(path) => {
                let start = raw.get().as_ptr().addr() - self.text.as_ptr().addr();
                let replacement = serde_json::Value::from(path + rest).to_string();
                self.edits.push((start..start + raw.get().len(), replacement));
            }
        }
        Ok(())
    }

    fn rewritten(mut self) -> Vec<u8> {
        self.edits.sort_by_key(|(place, _)| place.start);
        let mut body = String::with_capacity(self.text.len() + 64);
        let mut at = 0;
        for (place, replacement) in self.edits {
            body.push_str(&self.text[at..place.start]);
            body.push_str(&replacement);
            at = place.end;
        }
        body.push_str(&self.text[at..]);
        body.into_bytes()
    }
}

/// A value, or its default for `null`, as Go has it.
fn optional<'a, T: Deserialize<'a> + Default>(text: &'a str) -> Result<T, serde_json::Error> {
    serde_json::from_str::<Option<T>>(text).map(Option::unwrap_or_default)
}

/// The members of an object, in their order and as often as they occur.
#[derive(Default)]
pub(in crate::gateway) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    pub(in crate::gateway) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::gateway) fn named(&self, name: &str) -> impl Iterator<Item = &'a RawValue> {
        let name = folded(name);
        self.0
            .iter()
            .filter(move |(key, _)| folded(key) == name)
            .map(|(_, raw)| *raw)
    }

    fn objects(&self, name: &str) -> impl Iterator<Item = Result<Members<'a>, serde_json::Error>> {
        self.named(name).map(|raw| optional(raw.get()))
    }

    fn arrays(&self, name: &str) -> impl Iterator<Item = Result<Vec<&'a RawValue>, serde_json::Error>> {
        self.named(name).map(|raw| optional(raw.get()))
    }

    fn strings(&self, name: &str) -> Result<Vec<String>, serde_json::Error> {
        self.named(name).map(|raw| optional(raw.get())).collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries).map(Members)
    }
}

/// A key without regard to case as Go sees it: simple folding, by which two letters outside ASCII equal one within.
fn folded(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::HostPaths, *};
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn policy(host: HostPaths) -> MountPolicy {
        MountPolicy {
            machine: "default".to_owned(),
            shares: vec![PathBuf::from(if host == HostPaths::Unix {
                "/home/u"
            } else {
                r"C:\Users\u"
            })],
            socket: PathBuf::from("/run/cove/docker.sock"),
            host,
            on_host: true,
        }
    }

    fn on_unix(kind: Checked, body: &str) -> Verdict {
        examine(kind, body.as_bytes(), &policy(HostPaths::Unix))
    }

    #[track_caller]
    fn assert_refused(kind: Checked, body: &str, source: &str) {
        match on_unix(kind, body) {
            Verdict::Refuse(message) => {
                assert!(
                    message.starts_with(&format!("`{source}` is not shared")),
                    "{message}"
                );
            }
            other => panic!("{body} is not refused but {other:?}"),
        }
    }

    #[test]
    fn containers_without_foreign_paths_pass_untouched() {
        for body in [
            "",
            "null",
            "{}",
            r#"{"Image":"alpine"}"#,
            r#"{"HostConfig":null}"#,
            r#"{"HostConfig":{"Binds":null,"Mounts":null}}"#,
            r#"{"HostConfig":{"Binds":[null,"/just/a/destination","volume:/x","/home/u/a:/a:ro,z"]}}"#,
            r#"{"HostConfig":{"Binds":["/var/run/docker.sock:/var/run/docker.sock"]}}"#,
            r#"{"HostConfig":{"Mounts":[null,{"Type":"bind","Source":"/home/u","Target":"/x"}]}}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"volume","Source":"v","Target":"/x"},{"Type":"tmpfs"}]}}"#,
            r#"{"Labels":{"HostConfig":"{\"Binds\":[\"/etc:/x\"]}"},"Binds":["/etc:/x"]}"#,
            r#"{"HostConfig":{"VolumesFrom":["other"],"Tmpfs":{"/etc":""}},"Volumes":{"/etc":{}}}"#,
        ] {
            assert_eq!(on_unix(Checked::Container, body), Verdict::Forward, "{body}");
        }
    }

    #[test]
    fn a_container_with_an_unshared_bind_is_refused() {
        for body in [
            r#"{"HostConfig":{"Binds":["/etc:/x"]}}"#,
            r#"{"HostConfig":{"Binds":["/home/u:/x","/etc:/x:ro"]}}"#,
            r#"{"HostConfig":{"Binds":["\/e\u0074c:/x"]}}"#,
            r#"{"hostconfig":{"BINDS":["/etc:/x"]}}"#,
            "{\"Ho\u{17f}tConfig\":{\"Bind\u{17f}\":[\"/etc:/x\"]}}",
            r#"{"HostConfig":{"Binds":["/etc:/x"]},"HostConfig":{}}"#,
            r#"{"HostConfig":{"Binds":["/etc:/x"],"binds":[]}}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/etc","Target":"/x"}]}}"#,
            r#"{"HostConfig":{"mounts":[{"source":"/etc","type":"bind"}]}}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/etc","BindOptions":{"CreateMountpoint":true}}]}}"#,
            r#"{"HostConfig":{"Mounts":[{"Type":"volume","VolumeOptions":{"DriverConfig":{"Name":"local","Options":{"type":"none","o":"bind","device":"/etc"}}}}]}}"#,
        ] {
            assert_refused(Checked::Container, body, "/etc");
        }
    }

    #[test]
    fn a_service_with_an_unshared_bind_is_refused() {
        let body = |source| {
            format!(
                r#"{{"TaskTemplate":{{"ContainerSpec":{{"Mounts":[{{"Type":"bind","Source":"{source}"}}]}}}}}}"#
            )
        };
        assert_refused(Checked::Service, &body("/etc"), "/etc");
        assert_eq!(on_unix(Checked::Service, &body("/home/u")), Verdict::Forward);
    }

    #[test]
    fn a_volume_that_is_a_bind_mount_is_one() {
        for options in [
            r#""DriverOpts":{"type":"none","o":"bind","device":"/etc"}"#,
            r#""Driver":"local","driveropts":{"device":"/etc","o":"ro,rbind"}"#,
        ] {
            assert_refused(Checked::Volume, &format!(r#"{{"Name":"v",{options}}}"#), "/etc");
        }
        for options in [
            r#""DriverOpts":{"type":"none","o":"bind","device":"/home/u/v"}"#,
            r#""DriverOpts":{"type":"nfs","o":"addr=10.0.0.1,rw","device":":/etc"}"#,
            r#""DriverOpts":{"type":"ext4","device":"/etc"}"#,
            r#""Driver":"other","DriverOpts":{"o":"bind","device":"/etc"}"#,
            r#""DriverOpts":{"O":"bind","device":"/etc"}"#,
            r#""DriverOpts":null"#,
        ] {
            let body = format!("{{{options}}}");
            assert_eq!(on_unix(Checked::Volume, &body), Verdict::Forward, "{body}");
        }
    }

    #[test]
    fn a_container_that_is_there_is_not_started_without_what_it_mounts() {
        let policy = policy(HostPaths::Unix);
        let described = |host: Value| {
            let container = serde_json::json!({
                "Id": "0123",
                "HostConfig": host,
                "Mounts": [{"Type": "bind", "Source": "/data/pg", "Destination": "/x"}],
            });
            (has_mounts(&container), obstacle(&container.to_string(), &policy))
        };
        for host in [
            serde_json::json!({"Binds": ["/home/u:/u", "/data/pg:/x:ro"], "Mounts": null}),
            serde_json::json!({"Binds": null, "Mounts": [{"Type": "bind", "Source": "/data/pg"}]}),
        ] {
            let (has_mounts, obstacle) = described(host);
            assert!(has_mounts);
            let message = obstacle.unwrap();
            assert!(message.starts_with("`/data/pg` is not shared"), "{message}");
        }
        for host in [
            serde_json::json!({"Binds": ["/home/u/x:/u", "named:/v"]}),
            // Made in the machine, of what it has itself.
            serde_json::json!({"Binds": ["/etc/ssl:/ssl:ro", "/:/host"]}),
            serde_json::json!({"Binds": ["/var/run/docker.sock:/sock", "/var/lib/docker/volumes/v/_data:/v"]}),
            serde_json::json!({"Binds": 7, "Mounts": [7]}),
        ] {
            assert_eq!(described(host).1, None);
        }
        let without = described(serde_json::json!({"Binds": null, "Mounts": []}));
        assert_eq!(without, (false, None));
        // What the engine says of a container that it does not have.
        let missing = serde_json::json!({"message": "No such container: x"});
        assert!(!has_mounts(&missing));
        assert_eq!(obstacle("no JSON", &policy), None);
    }

    #[test]
    fn a_body_that_cannot_be_searched_is_refused_with_the_reason() {
        for body in [
            "{",
            "[]",
            r#"{"HostConfig":[]}"#,
            r#"{"HostConfig":{"Binds":"/etc:/x"}}"#,
            r#"{"HostConfig":{"Binds":["/\ud800:/x"]}}"#,
            r"{} {}",
        ] {
            match on_unix(Checked::Container, body) {
                Verdict::Refuse(message) => assert!(message.contains("line 1"), "{message}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_read_as_go_reads_them() {
        let body = b"{\"Env\":[\"A=\xff\"],\"HostConfig\":{\"Binds\":[\"/etc:/x\"]}}";
        assert!(matches!(
            examine(Checked::Container, body, &policy(HostPaths::Unix)),
            Verdict::Refuse(_)
        ));
    }

    #[test]
    fn drive_paths_are_replaced_and_nothing_else() {
        let body = r#"{ "Big":12345678901234567890123 ,"HostConfig":{"Mounts":[{"Source":"C:/Users/u","Type":"bind"}], "Binds" : [ "C:\\Users\\u\\x:/x:ro","v:/v" ]},"Z":1.0}"#;
        let expected = r#"{ "Big":12345678901234567890123 ,"HostConfig":{"Mounts":[{"Source":"/mnt/c/Users/u","Type":"bind"}], "Binds" : [ "/mnt/c/Users/u/x:/x:ro","v:/v" ]},"Z":1.0}"#;
        assert_eq!(
            examine(Checked::Container, body.as_bytes(), &policy(HostPaths::Windows)),
            Verdict::Rewrite(expected.as_bytes().to_vec())
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_are_judged(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for kind in [Checked::Container, Checked::Service, Checked::Volume] {
                let _ = examine(kind, &body, &policy(HostPaths::Windows));
            }
        }

        #[test]
        fn a_rewritten_body_is_the_same_json_but_for_the_path(
            folder in "[a-z ü\"\\u{1}]{1,8}", options in "(:ro)?", other in "\\PC{0,20}",
        ) {
            let body = serde_json::json!({
                "Env": [other],
                "HostConfig": { "Binds": [format!("C:\\Users\\u\\{folder}:/x{options}")] },
            });
            let Verdict::Rewrite(rewritten) = examine(Checked::Container, body.to_string().as_bytes(), &policy(HostPaths::Windows)) else {
                panic!("not rewritten");
            };
            let mut expected = body;
            expected["HostConfig"]["Binds"][0] = format!("/mnt/c/Users/u/{folder}:/x{options}").into();
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&rewritten).unwrap(), expected);
        }
    }
}
