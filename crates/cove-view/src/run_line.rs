//! The `docker run` that makes a container like one that is there.
//!
//! What the image says anyway is left out, as far as the image is known. What `docker run` has no option for, or what
//! only the engine chose (its id, a name that it invented stays, its addresses), does not appear; nor does what makes a
//! container one of a compose project.

use serde_json::Value;
use std::fmt::Write as _;

/// What the labels begin with that compose writes on its containers.
const COMPOSE: &str = "com.docker.compose.";

/// A command line, its words quoted for a POSIX shell.
#[derive(Debug)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str) {
        self.0.push(format!("--{name}"));
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.flag(name);
        self.0.push(value.into());
    }

    /// An option that is given once for each element.
    fn each(&mut self, name: &str, list: &Value) {
        for value in strings(list) {
            self.option(name, value);
        }
    }

    fn text(&mut self, name: &str, value: &Value) {
        if let Some(value) = value.as_str().filter(|value| !value.is_empty()) {
            self.option(name, value);
        }
    }

    fn number(&mut self, name: &str, value: &Value) {
        if let Some(value) = value.as_i64().filter(|value| *value > 0) {
            self.option(name, value.to_string());
        }
    }
}

/// Makes it from the engine's `GET /containers/ID/json` and, where it is there, `GET /images/ID/json`.
pub fn run_line(container: &Value, image: &Value) -> String {
    let (config, host, from) = (&container["Config"], &container["HostConfig"], &image["Config"]);
    let mut line = Line(vec!["docker".into(), "run".into(), "--detach".into()]);
    if let Some(name) = container["Name"].as_str() {
        line.option("name", name.trim_start_matches('/'));
    }
    process(&mut line, container, config, from);
    health(&mut line, config, from);
    network(&mut line, config, host, container);
    storage(&mut line, container, host);
    anonymous_volumes(&mut line, config, from, host);
    limits(&mut line, host);
    security(&mut line, host);
    labels(&mut line, config, from);
    // The entrypoint takes one word as an option; its further ones come in front of the command.
    let mut behind: Vec<String> = Vec::new();
    let replaced = config["Entrypoint"] != from["Entrypoint"];
    if replaced {
        let mut words = strings(&config["Entrypoint"]);
        line.option("entrypoint", words.next().unwrap_or_default());
        behind.extend(words.map(str::to_owned));
    }
    if replaced || config["Cmd"] != from["Cmd"] {
        behind.extend(strings(&config["Cmd"]).map(str::to_owned));
    }
    line.0
        .push(config["Image"].as_str().unwrap_or("IMAGE").to_owned());
    line.0.extend(behind);
    let words: Vec<String> = line.0.iter().map(|word| quote(word)).collect();
    words.join(" ")
}

fn process(line: &mut Line, container: &Value, config: &Value, from: &Value) {
    for (key, flag) in [("Tty", "tty"), ("OpenStdin", "interactive")] {
        if config[key] == true {
            line.flag(flag);
        }
    }
    // The engine calls a container by its id where it was not told how. One in another's network has the name of that
    // one, and may not be given any.
    let joined = container["HostConfig"]["NetworkMode"]
        .as_str()
        .is_some_and(|mode| mode.starts_with("container:"));
    if let Some(name) = config["Hostname"].as_str()
        && !name.is_empty()
        && !joined
        && !container["Id"].as_str().is_some_and(|id| id.starts_with(name))
    {
        line.option("hostname", name);
    }
    for (key, option) in [("User", "user"), ("WorkingDir", "workdir")] {
        if config[key] != from[key] {
            line.text(option, &config[key]);
        }
    }
    if config["StopSignal"] != from["StopSignal"] {
        line.text("stop-signal", &config["StopSignal"]);
    }
    let known: Vec<&str> = strings(&from["Env"]).collect();
    for variable in strings(&config["Env"]).filter(|variable| !known.contains(variable)) {
        line.option("env", variable);
    }
    let host = &container["HostConfig"];
    if host["AutoRemove"] == true {
        line.flag("rm");
    }
    match (
        host["RestartPolicy"]["Name"].as_str().unwrap_or_default(),
        host["RestartPolicy"]["MaximumRetryCount"].as_u64().unwrap_or(0),
    ) {
        ("" | "no", _) => {}
        (name, 0) => line.option("restart", name),
        (name, most) => line.option("restart", format!("{name}:{most}")),
    }
    if host["Init"] == true {
        line.flag("init");
    }
}

/// How its health is checked, unless that is as the image says.
fn health(line: &mut Line, config: &Value, from: &Value) {
    let check = &config["Healthcheck"];
    if *check == from["Healthcheck"] {
        return;
    }
    let mut words = strings(&check["Test"]);
    match words.next() {
        Some("NONE") => {
            line.flag("no-healthcheck");
            return;
        }
        Some("CMD-SHELL") => line.option("health-cmd", words.next().unwrap_or_default()),
        // The option is for a shell, which makes the same words of it.
        Some("CMD") => line.option("health-cmd", words.map(quote).collect::<Vec<_>>().join(" ")),
        _ => {}
    }
    for (key, option) in [
        ("Interval", "health-interval"),
        ("Timeout", "health-timeout"),
        ("StartPeriod", "health-start-period"),
        ("StartInterval", "health-start-interval"),
    ] {
        if let Some(nanoseconds) = check[key].as_u64().filter(|time| *time > 0) {
            line.option(option, duration(nanoseconds));
        }
    }
    line.number("health-retries", &check["Retries"]);
}

/// A time as `docker run` takes it.
fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        whole if whole.is_multiple_of(1_000_000_000) => format!("{}s", whole / 1_000_000_000),
        whole if whole.is_multiple_of(1_000_000) => format!("{}ms", whole / 1_000_000),
        other => format!("{other}ns"),
    }
}

fn network(line: &mut Line, config: &Value, host: &Value, container: &Value) {
    for (port, bindings) in host["PortBindings"].as_object().into_iter().flatten() {
        let port = port.strip_suffix("/tcp").unwrap_or(port);
        for binding in bindings.as_array().into_iter().flatten() {
            let address = binding["HostIp"].as_str().unwrap_or_default();
            let number = binding["HostPort"].as_str().unwrap_or_default();
            line.option(
                "publish",
                match (address.is_empty(), address.contains(':')) {
                    (true, _) if number.is_empty() => port.to_owned(),
                    (true, _) => format!("{number}:{port}"),
                    (false, false) => format!("{address}:{number}:{port}"),
                    (false, true) => format!("[{address}]:{number}:{port}"),
                },
            );
        }
    }
    if host["PublishAllPorts"] == true {
        line.flag("publish-all");
    }
    let mode = host["NetworkMode"].as_str().unwrap_or_default();
    if !matches!(mode, "" | "default" | "bridge") {
        line.option("network", mode);
    }
    let own = container["NetworkSettings"]["Networks"][mode]["Aliases"].clone();
    let short = |alias: &str| container["Id"].as_str().is_some_and(|id| id.starts_with(alias));
    for alias in strings(&own).filter(|alias| !short(alias)) {
        line.option("network-alias", alias);
    }
    for (key, option) in [
        ("Dns", "dns"),
        ("DnsSearch", "dns-search"),
        ("ExtraHosts", "add-host"),
    ] {
        line.each(option, &host[key]);
    }
    if !matches!(config["Domainname"].as_str(), None | Some("")) {
        line.text("domainname", &config["Domainname"]);
    }
}

fn storage(line: &mut Line, container: &Value, host: &Value) {
    line.each("volume", &host["Binds"]);
    for mount in host["Mounts"].as_array().into_iter().flatten() {
        let kind = mount["Type"].as_str().unwrap_or("volume");
        let mut fields = vec![format!("type={kind}")];
        for (key, field) in [("Source", "source"), ("Target", "target")] {
            if let Some(value) = mount[key].as_str().filter(|value| !value.is_empty()) {
                fields.push(format!("{field}={value}"));
            }
        }
        if mount["ReadOnly"] == true {
            fields.push("readonly".to_owned());
        }
        let fields: Vec<String> = fields.iter().map(|field| csv(field)).collect();
        line.option("mount", fields.join(","));
    }
    for (target, options) in host["Tmpfs"].as_object().into_iter().flatten() {
        let options = options.as_str().unwrap_or_default();
        let colon = if options.is_empty() { "" } else { ":" };
        line.option("tmpfs", format!("{target}{colon}{options}"));
    }
    line.each("volumes-from", &host["VolumesFrom"]);
    if host["ReadonlyRootfs"] == true {
        line.flag("read-only");
    }
    // What the engine gives every container is not asked for.
    let shm = host["ShmSize"].as_u64().unwrap_or(0);
    if shm != 0 && shm != 64 << 20 && container["State"].is_object() {
        line.option("shm-size", shm.to_string());
    }
}

/// Volumes without a name that the image does not ask for. Old clients list among them what they mount by a name.
fn anonymous_volumes(line: &mut Line, config: &Value, from: &Value, host: &Value) {
    let bound = |target: &str| strings(&host["Binds"]).any(|bind| bind.split(':').nth(1) == Some(target));
    let mounted = |target: &str| {
        let mut mounts = host["Mounts"].as_array().into_iter().flatten();
        mounts.any(|mount| mount["Target"] == target)
    };
    for (target, _) in config["Volumes"].as_object().into_iter().flatten() {
        if from["Volumes"].get(target).is_none() && !bound(target) && !mounted(target) {
            line.option("volume", target.as_str());
        }
    }
}

fn limits(line: &mut Line, host: &Value) {
    for (key, option) in [
        ("Memory", "memory"),
        ("MemoryReservation", "memory-reservation"),
        ("CpuShares", "cpu-shares"),
        ("PidsLimit", "pids-limit"),
    ] {
        line.number(option, &host[key]);
    }
    let nanos = host["NanoCpus"].as_u64().unwrap_or(0);
    if nanos > 0 {
        let part = format!("{:09}", nanos % 1_000_000_000);
        let part = part.trim_end_matches('0');
        let dot = if part.is_empty() { "" } else { "." };
        line.option("cpus", format!("{}{dot}{part}", nanos / 1_000_000_000));
    }
    line.text("cpuset-cpus", &host["CpusetCpus"]);
    for limit in host["Ulimits"].as_array().into_iter().flatten() {
        if let (Some(name), Some(soft), Some(hard)) = (
            limit["Name"].as_str(),
            limit["Soft"].as_i64(),
            limit["Hard"].as_i64(),
        ) {
            line.option("ulimit", format!("{name}={soft}:{hard}"));
        }
    }
}

fn security(line: &mut Line, host: &Value) {
    if host["Privileged"] == true {
        line.flag("privileged");
    }
    for (key, option) in [
        ("CapAdd", "cap-add"),
        ("CapDrop", "cap-drop"),
        ("SecurityOpt", "security-opt"),
        ("GroupAdd", "group-add"),
    ] {
        line.each(option, &host[key]);
    }
    for device in host["Devices"].as_array().into_iter().flatten() {
        if let (Some(outside), Some(inside)) =
            (device["PathOnHost"].as_str(), device["PathInContainer"].as_str())
        {
            let rights = match device["CgroupPermissions"].as_str() {
                // All of them, which goes without saying.
                None | Some("" | "rwm") => String::new(),
                Some(rights) => format!(":{rights}"),
            };
            line.option("device", format!("{outside}:{inside}{rights}"));
        }
    }
    for (key, option) in [("PidMode", "pid"), ("UTSMode", "uts"), ("UsernsMode", "userns")] {
        line.text(option, &host[key]);
    }
    if !matches!(host["IpcMode"].as_str(), None | Some("" | "private")) {
        line.text("ipc", &host["IpcMode"]);
    }
    for (name, value) in host["Sysctls"].as_object().into_iter().flatten() {
        line.option("sysctl", format!("{name}={}", value.as_str().unwrap_or_default()));
    }
}

fn labels(line: &mut Line, config: &Value, from: &Value) {
    for (key, value) in config["Labels"].as_object().into_iter().flatten() {
        // By its own labels compose takes a container for one of its project, and may remove it with that.
        if from["Labels"].get(key) != Some(value) && !key.starts_with(COMPOSE) {
            line.option("label", format!("{key}={}", value.as_str().unwrap_or_default()));
        }
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// A field of a `--mount`, which is CSV.
fn csv(field: &str) -> String {
    if field.contains([',', '"', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// A word as a POSIX shell reads it back unchanged.
///
/// A container's words are whoever's: what a terminal would act upon when the line is pasted into it, such as an
/// interrupt with another command behind it, is written as octal numbers (`$'…'`, POSIX.1-2024). The end of a line is
/// not, since within quotes it only goes on, in older shells, too.
fn quote(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_@%+=:,./-".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.chars().any(|letter| letter.is_control() && letter != '\n') {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut quoted = String::from("$'");
    for letter in word.chars() {
        if letter.is_control() {
            for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\{byte:03o}");
            }
            continue;
        }
        if matches!(letter, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(letter);
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_the_image_says_anyway_is_left_out() {
        let image = json!({"Config": {"Env": ["PATH=/bin"], "Cmd": ["nginx"], "Entrypoint": ["/start.sh"],
            "WorkingDir": "/srv", "Labels": {"maintainer": "x"}}});
        let container = json!({
            "Id": "4f6e2d0000000000", "Name": "/site",
            "Config": {"Image": "nginx:alpine", "Hostname": "4f6e2d000000", "Env": ["PATH=/bin", "MOTD=it's on"],
                "Cmd": ["nginx"], "Entrypoint": ["/start.sh"], "WorkingDir": "/srv", "Labels": {"maintainer": "x", "a": "b"}},
            "HostConfig": {"NetworkMode": "bridge", "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}], "53/udp": [{"HostIp": "::1", "HostPort": "53"}]},
                "Binds": ["/home/u/a b:/srv:ro"], "NanoCpus": 1_500_000_000_u64, "Memory": 268_435_456,
                "Mounts": [{"Type": "bind", "Source": "/a,b", "Target": "/c", "ReadOnly": true}]},
        });
        assert_eq!(
            run_line(&container, &image),
            "docker run --detach --name site --env 'MOTD=it'\\''s on' --restart on-failure:3 \
             --publish '[::1]:53:53/udp' --publish 8080:80 --volume '/home/u/a b:/srv:ro' \
             --mount 'type=bind,\"source=/a,b\",target=/c,readonly' --memory 268435456 --cpus 1.5 --label a=b nginx:alpine"
        );
    }

    #[test]
    fn another_entrypoint_brings_its_command_with_it() {
        let container =
            json!({"Name": "/x", "Config": {"Image": "i", "Entrypoint": ["sh", "-c"], "Cmd": ["echo hi"]}});
        let image = json!({"Config": {"Entrypoint": null, "Cmd": ["echo hi"]}});
        assert_eq!(
            run_line(&container, &image),
            "docker run --detach --name x --entrypoint sh i -c 'echo hi'"
        );
    }

    #[test]
    fn how_health_is_checked_is_said_where_the_image_does_not() {
        let said = |check: &Value, image: &Value| {
            let container = json!({"Name": "/x", "Config": {"Image": "i", "Healthcheck": check}});
            let line = run_line(&container, image);
            let rest = line.strip_prefix("docker run --detach --name x ").unwrap();
            rest.strip_suffix('i').unwrap().trim_end().to_owned()
        };
        let shell = json!({"Test": ["CMD-SHELL", "curl -f localhost || exit 1"], "Interval": 30_000_000_000_u64,
            "Timeout": 1_500_000_000_u64, "Retries": 3, "StartPeriod": 0});
        assert_eq!(
            said(&shell, &Value::Null),
            "--health-cmd 'curl -f localhost || exit 1' --health-interval 30s --health-timeout 1500ms --health-retries 3"
        );
        assert_eq!(said(&shell, &json!({"Config": {"Healthcheck": shell}})), "");
        assert_eq!(said(&Value::Null, &json!({"Config": {}})), "");
        let words = json!({"Test": ["CMD", "test", "-e", "/a b"]});
        assert_eq!(said(&words, &Value::Null), r"--health-cmd 'test -e '\''/a b'\'''");
        assert_eq!(said(&json!({"Test": ["NONE"]}), &Value::Null), "--no-healthcheck");
    }

    #[test]
    fn a_volume_without_a_name_is_asked_for_again_and_one_with_a_name_once() {
        let volumes = json!({"/data": {}, "/of-image": {}, "/bound": {}, "/mounted": {}});
        let container = json!({"Name": "/x", "Config": {"Image": "i", "Volumes": volumes}, "HostConfig": {
            "Binds": ["/home/u:/bound:ro"], "Mounts": [{"Type": "volume", "Source": "v", "Target": "/mounted"}]}});
        let image = json!({"Config": {"Volumes": {"/of-image": {}}}});
        assert_eq!(
            run_line(&container, &image),
            "docker run --detach --name x --volume /home/u:/bound:ro --mount type=volume,source=v,target=/mounted \
             --volume /data i"
        );
    }

    #[test]
    fn one_in_anothers_network_has_no_name_of_its_own_and_a_device_keeps_its_rights() {
        let container = json!({"Id": "4f6e", "Name": "/x", "Config": {"Image": "i", "Hostname": "0a1b"}, "HostConfig": {
            "NetworkMode": "container:0a1b", "Devices": [
                {"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "r"},
                {"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}]}});
        assert_eq!(
            run_line(&container, &Value::Null),
            "docker run --detach --name x --network container:0a1b --device /dev/kmsg:/dev/kmsg:r \
             --device /dev/fuse:/dev/fuse i"
        );
    }

    #[test]
    fn another_like_one_of_a_compose_project_is_none_of_the_project() {
        let labels = json!({"com.docker.compose.project": "shop", "com.docker.compose.oneoff": "False",
            "com.docker.composer": "x"});
        let container = json!({"Name": "/shop-web-1", "Config": {"Image": "i", "Labels": labels}});
        assert_eq!(
            run_line(&container, &Value::Null),
            "docker run --detach --name shop-web-1 --label com.docker.composer=x i"
        );
    }

    #[test]
    fn an_engines_answer_without_sense_still_gives_a_line() {
        assert_eq!(run_line(&Value::Null, &json!([])), "docker run --detach IMAGE");
    }

    #[test]
    fn what_a_terminal_would_act_upon_is_written_in_numbers() {
        assert_eq!(quote("two\nlines"), "'two\nlines'");
        assert_eq!(quote("it's\u{3}\nreboot"), r"$'it\'s\003\012reboot'");
        // The end of a bracketed paste, in one of its two ways to be written.
        assert_eq!(quote("\u{9b}201~"), r"$'\302\233201~'");
    }

    /// What a shell makes of a word.
    fn read_back(quoted: &str) -> String {
        let within = |mark: &str| quoted.strip_prefix(mark)?.strip_suffix('\'');
        let Some(inner) = within("$'") else {
            let inner = within("'").map(|inner| inner.replace("'\\''", "'"));
            return inner.unwrap_or_else(|| quoted.to_owned());
        };
        let (mut bytes, mut rest) = (Vec::new(), inner.bytes());
        while let Some(byte) = rest.next() {
            if byte != b'\\' {
                bytes.push(byte);
                continue;
            }
            match rest.next().unwrap() {
                first @ b'0'..=b'7' => {
                    let digits = vec![first, rest.next().unwrap(), rest.next().unwrap()];
                    let digits = String::from_utf8(digits).unwrap();
                    bytes.push(u8::from_str_radix(&digits, 8).unwrap());
                }
                escaped => bytes.push(escaped),
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn a_shell_reads_every_word_back(word in "[^\\x00]{1,12}") {
            let quoted = quote(&word);
            prop_assert!(quoted.chars().all(|letter| letter == '\n' || !letter.is_control()));
            prop_assert_eq!(read_back(&quoted), word);
        }
    }
}
