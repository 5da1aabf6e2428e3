//! What `cove doctor` looks at: everything that a machine needs of this computer, and what to do where it is lacking.

use crate::{
    api::Server,
    host,
    machine::LastFailure,
    name::MachineName,
    settings::{self, Backend, SettingsError},
};
use cove_api::{ApiError, Check, CheckState, ContextState, transport};
use cove_machine::{Availability, BackendKind, Caveat, FolderHealth, Hold, Layer};
use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// Free bytes on the host's disk below which there is something to say.
const COMFORT: u64 = 10 << 30;

/// What lets more directories be watched.
const RAISE_MARKS: &str = "sudo sysctl fs.fanotify.max_user_marks=1048576";

/// How long a machine process may take to say how its folders are.
const FOLDERS: Duration = Duration::from_secs(5);

/// Looks at everything.
pub(crate) async fn examine(server: &Server) -> Vec<Check> {
    let context = Arc::clone(&server.context);
    // Hashing an image and asking QEMU for its version both wait for the disk.
    let looking = tokio::task::spawn_blocking(move || {
        let dirs = &context.dirs;
        let mut checks = vec![settings(&context.settings)];
        let wanted = match context.settings.current() {
            Ok(values) => {
                values
                    .machine(&MachineName::default(), context.settings.host())
                    .backend
            }
            Err(_) => Backend::Auto,
        };
        let choice = context.platform.choose(wanted);
        checks.push(chosen(choice.backend.kind(), &choice.reason, &choice.considered));
        checks.extend(
            choice
                .considered
                .iter()
                .map(|(kind, found)| considered(*kind, found, *kind == choice.backend.kind())),
        );
        checks.push(network(&choice.backend.outbound()));
        checks.push(image(&dirs.image(), &dirs.cache().join("image-verified.json")));
        checks.push(space(&dirs.machines()));
        checks.push(sockets(dirs.runtime(), &dirs.docker_socket("default")));
        checks.push(docker_client());
        checks.push(docker_context(&context));
        checks
    });
    let mut checks = looking.await.unwrap_or_else(|error| {
        let broken = failed(
            "doctor",
            format!("the examination broke off: {error}"),
            "see `cove logs daemon`",
        );
        vec![by("cove logs daemon", broken)]
    });
    for handle in server.machines.all() {
        if let Some(failure) = handle.place().last_failure() {
            let backend = handle.status().backend.kind;
            checks.push(last_failure(handle.name(), &failure, &backend));
        }
        let Some(machine) = handle.snapshot().machine.clone() else {
            continue;
        };
        checks.extend(confinement(handle.name(), &machine.confinement()));
        if machine.features().shares {
            let health = match timeout(FOLDERS, machine.folder_health()).await {
                Ok(health) => health.map_err(|error| crate::machine::chain(&error)),
                Err(_) => Err(format!("no answer within {} s", FOLDERS.as_secs())),
            };
            checks.extend(folders(handle.name(), health.as_ref().map_err(String::as_str)));
        }
    }
    checks
}

fn check(name: &str, state: CheckState, evidence: impl Into<String>, fix: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        state,
        evidence: evidence.into(),
        fix: fix.into(),
        command: None,
    }
}

/// The check with the command line that does what its fix says, where one does.
fn by<'a>(command: impl Into<Option<&'a str>>, check: Check) -> Check {
    Check {
        command: command.into().map(str::to_owned),
        ..check
    }
}

/// A command as it is typed for this machine.
fn of_machine(command: &str, machine: &MachineName) -> String {
    if *machine == MachineName::default() {
        command.to_owned()
    } else {
        format!("{command} --machine {machine}")
    }
}

fn good(name: &str, evidence: impl Into<String>) -> Check {
    check(name, CheckState::Ok, evidence, "")
}

fn warning(name: &str, evidence: impl Into<String>, fix: impl Into<String>) -> Check {
    check(name, CheckState::Warning, evidence, fix)
}

fn failed(name: &str, evidence: impl Into<String>, fix: impl Into<String>) -> Check {
    check(name, CheckState::Failed, evidence, fix)
}

fn settings(file: &settings::SettingsFile) -> Check {
    match file.current() {
        Ok(_) => {
            let list = file.list();
            let set = list.values.iter().filter(|setting| setting.set).count();
            good(
                "settings",
                format!("{} sets {set} of {} keys", list.file.display(), list.values.len()),
            )
        }
        Err(error) => {
            let mended = matches!(error, SettingsError::Invalid { .. }).then_some("cove config edit");
            let error = ApiError::from(error);
            by(mended, failed("settings", error.message, error.hint))
        }
    }
}

fn chosen(kind: BackendKind, reason: &str, considered: &[(BackendKind, Availability)]) -> Check {
    let found = considered.iter().find(|(considered, _)| *considered == kind);
    match found {
        Some((_, Availability::Available { .. })) if kind == BackendKind::Emulated => warning(
            "machines",
            reason,
            "emulated machines are complete but slow; see the checks of the other backends for what is missing",
        ),
        Some((_, Availability::Available { .. })) => good("machines", reason),
        Some((_, Availability::Unavailable { hint, command, .. })) => {
            by(command.as_deref(), failed("machines", reason, hint))
        }
        None => by(
            "cove config set machine.backend auto",
            failed("machines", reason, "set machine.backend to `auto`"),
        ),
    }
}

fn considered(kind: BackendKind, found: &Availability, in_use: bool) -> Check {
    let name = format!("backend {kind}");
    match found {
        Availability::Available { evidence, caveat } => available(&name, evidence, caveat.as_ref()),
        Availability::Unavailable { why, hint, command } => {
            let state = if in_use {
                CheckState::Failed
            } else {
                CheckState::Warning
            };
            by(command.as_deref(), check(&name, state, why, hint))
        }
    }
}

fn network(found: &Availability) -> Check {
    match found {
        Availability::Available { evidence, caveat } => available("network", evidence, caveat.as_ref()),
        Availability::Unavailable { why, hint, command } => {
            by(command.as_deref(), warning("network", why, hint))
        }
    }
}

fn available(name: &str, evidence: &str, caveat: Option<&Caveat>) -> Check {
    match caveat {
        None => good(name, evidence),
        Some(Caveat { what, hint, command }) => by(
            command.as_deref(),
            warning(name, format!("{evidence}; {what}"), hint),
        ),
    }
}

fn image(directory: &Path, stamp: &Path) -> Check {
    match cove_image::verify_quick(directory, stamp) {
        Ok(manifest) => good(
            "image",
            format!(
                "Docker Engine {} on Linux {}, {} packages",
                manifest.engine_version,
                manifest.kernel_version,
                manifest.packages.len()
            ),
        ),
        Err(error) => {
            let (fix, command) = match error.hint() {
                Some(hint) => (hint, error.command()),
                None => (
                    "rebuild it with `cove image build`".into(),
                    Some("cove image build"),
                ),
            };
            by(command, failed("image", crate::machine::chain(&error), fix))
        }
    }
}

fn space(directory: &Path) -> Check {
    match host::free_space(directory) {
        None => good("disk space", "this system does not tell"),
        Some(free) => {
            let evidence = format!("{} free for {}", cove_api::size::about(free), directory.display());
            if free < COMFORT {
                warning(
                    "disk space",
                    evidence,
                    "free some space: images and build caches need it",
                )
            } else {
                good("disk space", evidence)
            }
        }
    }
}

fn sockets(runtime: &Path, docker_socket: &Path) -> Check {
    let length = docker_socket.as_os_str().len();
    let most = transport::MAX_SOCKET_PATH;
    // The machine's own sockets have names of about this length beyond the Docker socket's.
    let spare = "vsock.sock_1025".len();
    let evidence = format!("{} ({length} of {most} bytes)", runtime.display());
    if cfg!(not(windows)) && length + spare > most {
        failed(
            "sockets",
            format!("{evidence} leaves no room for a machine's sockets"),
            "set XDG_RUNTIME_DIR or COVE_HOME to a shorter directory",
        )
    } else {
        // A daemon does not run with a directory that others may enter.
        good("sockets", evidence)
    }
}

/// How a machine failed that no other has followed on the same backend. `backend` is the one that it has now.
fn last_failure(machine: &MachineName, failure: &LastFailure, backend: &str) -> Check {
    let LastFailure {
        backend: failed,
        message,
        hint,
        ..
    } = failure;
    let message = message.lines().collect::<Vec<_>>().join("; ");
    let (fix, command) = if failed == backend {
        (hint.clone(), None)
    } else {
        let (set, restart) = (
            format!("cove config set machine.backend {failed}"),
            of_machine("cove restart", machine),
        );
        (
            format!("`{set}` and `{restart}` try it again"),
            Some(format!("{set} && {restart}")),
        )
    };
    let check = warning(
        &format!("last failure of {machine}"),
        format!("by the backend {failed}, {}: {message}", ago(failure.age())),
        fix,
    );
    by(command.as_deref(), check)
}

/// How long ago something was, in the unit that tells most.
fn ago(age: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = age.as_secs();
    let (unit, name) = match seconds {
        0..120 => return "just now".to_owned(),
        120..7_200 => (MINUTE, "minutes"),
        7_200..172_800 => (HOUR, "hours"),
        _ => (DAY, "days"),
    };
    format!("{} {name} ago", seconds / unit)
}

/// How the process that faces a running machine's guest is confined: every layer, as it found it itself.
fn confinement(machine: &MachineName, layers: &[Layer]) -> Vec<Check> {
    // Landlock has to let more pass where there is no view of its own.
    let has_namespaces = layers
        .iter()
        .all(|layer| layer.name != "mount namespace" || layer.hold != Hold::Absent);
    let layer = |layer: &Layer| {
        let evidence = &layer.evidence;
        let name = format!("confinement of {machine}: {}", layer.name);
        match layer.hold {
            Hold::Whole => good(&name, evidence),
            Hold::Partial => warning(&name, format!("in part: {evidence}"), fix(layer, has_namespaces)),
            Hold::Absent => warning(
                &name,
                format!("not in force: {evidence}"),
                fix(layer, has_namespaces),
            ),
        }
    };
    layers.iter().map(layer).collect()
}

/// What a person can do about a layer of confinement that does not hold as it is meant to.
fn fix(layer: &Layer, has_namespaces: bool) -> &'static str {
    if layer.name == "mount namespace" && layer.hold == Hold::Partial {
        "run Cove outside of a container, where /proc is whole, then restart the machine"
    } else if layer.name.ends_with("namespace") || (layer.hold == Hold::Partial && !has_namespaces) {
        "let users make namespaces: see kernel.apparmor_restrict_unprivileged_userns, kernel.unprivileged_userns_clone and \
         user.max_user_namespaces (sysctl), then restart the machine"
    } else {
        "run a newer kernel with Landlock (Linux 6.12 or newer), then restart the machine"
    }
}

/// How a machine that runs shares folders: what is short of the promise, or one line that says that nothing is; or why
/// its process did not tell.
fn folders(machine: &MachineName, health: Result<&FolderHealth, &str>) -> Vec<Check> {
    let name = format!("folders of {machine}");
    let health = match health {
        Ok(health) => health,
        Err(why) => {
            let silent = warning(
                &name,
                format!("the machine's process does not say how they are: {why}"),
                "see `cove logs machine`",
            );
            return vec![by(&*of_machine("cove logs machine", machine), silent)];
        }
    };
    let slow = "containers see what changes on this computer within a second, and are not notified";
    let mut checks = Vec::new();
    if !health.watching {
        checks.push(warning(
            &name,
            format!("this system does not tell of changes in folders; {slow}"),
            "use Linux 5.17 or newer, and see that fs.fanotify.max_user_groups is not used up",
        ));
    } else if !health.repeating {
        checks.push(warning(
            &name,
            format!("the guest does not take up changes of this computer; {slow}"),
            "wait until the machine runs; if it does, see `cove logs agent`",
        ));
    } else if health.exhausted {
        let short = warning(
            &name,
            format!(
                "{} directories are watched, and no more can be; in others {slow}",
                health.watched
            ),
            format!("raise the limit: {RAISE_MARKS}, and restart the machine"),
        );
        let command = format!("{RAISE_MARKS} && {}", of_machine("cove restart", machine));
        checks.push(by(&*command, short));
    }
    if health.watching {
        for path in &health.untold {
            checks.push(warning(
                &name,
                format!(
                    "a file system in `{}` does not tell of changes; there {slow}",
                    path.display()
                ),
                "share a folder on ext4, XFS or tmpfs, or on Btrfs with Linux 6.8 or newer",
            ));
        }
    }
    if health.full {
        let full = warning(
            &name,
            "the guest knows as many files of this computer as it may; containers cannot open others (ENFILE)",
            "restart the machine",
        );
        checks.push(by(&*of_machine("cove restart", machine), full));
    }
    for path in &health.without_attributes {
        checks.push(warning(
            &name,
            format!(
                "the file system of `{}` keeps no user attributes: owners that containers set last until the machine stops",
                path.display()
            ),
            "share a folder on ext4, XFS, Btrfs or tmpfs of Linux 6.6 or newer",
        ));
    }
    if checks.is_empty() {
        let evidence = format!("changes in {} directories are told to containers", health.watched);
        checks.push(good(&name, evidence));
    }
    checks
}

fn docker_client() -> Check {
    match in_path("docker") {
        Some(path) => good("docker client", path.display().to_string()),
        None => warning(
            "docker client",
            "there is no `docker` in PATH",
            "use `cove docker`, which runs the machine's own, or install a Docker client",
        ),
    }
}

fn in_path(program: &str) -> Option<PathBuf> {
    let name = format!("{program}{}", env::consts::EXE_SUFFIX);
    let directories = env::var_os("PATH")?;
    env::split_paths(&directories)
        .map(|directory| directory.join(&name))
        .find(|path| path.is_file())
}

fn docker_context(context: &crate::machine::Context) -> Check {
    let name = "docker context";
    let machine = MachineName::default();
    let Some(docker) = &context.docker else {
        return warning(
            name,
            "there is no home directory for one",
            "set HOME or DOCKER_CONFIG",
        );
    };
    let state = docker.state(&machine, &context.docker_host(&machine));
    let current = docker.current().ok().flatten();
    let current = current.as_deref().unwrap_or("default");
    match state {
        Ok(ContextState::Good) => good(name, format!("`cove` is there; the current one is `{current}`")),
        Ok(ContextState::Absent) => {
            let fix = "`cove start` creates it";
            by("cove start", warning(name, "there is no context `cove`", fix))
        }
        Ok(ContextState::Stale) => {
            let fix = "`cove start` corrects it";
            by(
                "cove start",
                warning(name, "the context `cove` leads to another socket", fix),
            )
        }
        Ok(ContextState::Elsewhere { host }) => {
            let fix = "to have it lead here: docker context rm --force cove, then cove start";
            let found = format!("the context `cove` leads to another machine of yours, at {host}");
            by(
                "docker context rm --force cove && cove start",
                warning(name, found, fix),
            )
        }
        Ok(ContextState::Foreign) => {
            let fix = "rename or remove it, then `cove start`";
            warning(name, "a context `cove` exists that Cove did not make", fix)
        }
        Err(error) => {
            let error = ApiError::from(error);
            warning(name, error.message, error.hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_confinement_that_a_host_lacks_is_a_warning_that_says_what_to_do() {
        let layers = [
            Layer::whole("seccomp", "a list"),
            Layer::partial("Landlock", "version 3"),
            Layer::absent("user namespace", "Operation not permitted"),
            Layer::partial("mount namespace", "its /proc is the host's"),
        ];
        let checks = confinement(&MachineName::default(), &layers);
        let states: Vec<_> = checks.iter().map(|check| check.state).collect();
        assert_eq!(states[0], CheckState::Ok);
        assert_eq!(states[1..], [CheckState::Warning; 3]);
        assert_eq!(checks[0].name, "confinement of default: seccomp");
        assert!(checks[1].fix.contains("Landlock") && checks[2].fix.contains("sysctl"));
        assert!(checks[3].fix.contains("outside of a container"));
        // A newer kernel would be no help.
        let bare = [
            Layer::partial("Landlock", "for want of a mount namespace"),
            Layer::absent("mount namespace", "Operation not permitted"),
        ];
        let checks = confinement(&MachineName::default(), &bare);
        assert!(
            checks.iter().all(|check| check.fix.contains("sysctl")),
            "{checks:?}"
        );
    }

    #[test]
    fn a_failure_is_told_with_its_backend_and_time_and_with_the_way_back_to_that() {
        let failure = LastFailure {
            backend: "kvm".into(),
            message: "it broke\nin two".into(),
            hint: "do without".into(),
            unix_s: 0,
        };
        let check = last_failure(&MachineName::default(), &failure, "kvm");
        assert_eq!((check.state, &*check.fix), (CheckState::Warning, "do without"));
        assert_eq!(check.command, None);
        let told = check.evidence.strip_prefix("by the backend kvm, ");
        assert!(
            told.is_some_and(|told| told.ends_with(" days ago: it broke; in two")),
            "{}",
            check.evidence
        );
        let check = last_failure(&MachineName::default(), &failure, "emulated");
        assert!(check.fix.contains("machine.backend kvm"), "{}", check.fix);
        let command = "cove config set machine.backend kvm && cove restart";
        assert_eq!(check.command.as_deref(), Some(command));
        let check = last_failure(&"dev".parse().unwrap(), &failure, "emulated");
        assert_eq!(
            check.command.as_deref(),
            Some("cove config set machine.backend kvm && cove restart --machine dev")
        );
    }

    #[test]
    fn times_are_told_in_the_unit_that_tells_most() {
        let told = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|age| ago(Duration::from_secs(age)));
        assert_eq!(
            told,
            [
                "just now",
                "just now",
                "2 minutes ago",
                "119 minutes ago",
                "2 hours ago",
                "47 hours ago",
                "2 days ago"
            ]
        );
    }

    #[test]
    fn what_a_backend_is_short_of_is_a_warning_that_says_what_to_do() {
        let found = |caveat| {
            let evidence = "QEMU 7.2.11".to_owned();
            considered(
                BackendKind::Emulated,
                &Availability::Available { evidence, caveat },
                true,
            )
        };
        assert_eq!(found(None).state, CheckState::Ok);
        let check = found(Some(Caveat {
            what: "one vCPU".into(),
            hint: "install a newer one".into(),
            command: None,
        }));
        assert_eq!(check.state, CheckState::Warning);
        assert_eq!(
            (&*check.evidence, &*check.fix),
            ("QEMU 7.2.11; one vCPU", "install a newer one")
        );
    }

    #[test]
    fn emulation_is_said_plainly_and_a_missing_backend_fails() {
        let available = Availability::available("QEMU 10");
        let missing = Availability::Unavailable {
            why: "QEMU is not installed".into(),
            hint: "apt install it".into(),
            command: Some("apt install it".into()),
        };
        let kind = BackendKind::Emulated;
        assert_eq!(chosen(kind, "r", &[(kind, available)]).state, CheckState::Warning);
        let check = chosen(kind, "r", &[(kind, missing)]);
        assert_eq!(
            (check.state, check.fix.as_str(), check.command.as_deref()),
            (CheckState::Failed, "apt install it", Some("apt install it"))
        );
        assert_eq!(check.unsaid_command(), None, "the fix says it");
    }

    #[test]
    fn a_runtime_directory_with_too_long_a_path_fails_with_the_remedy() {
        let long = PathBuf::from("/").join("x".repeat(90));
        let check = sockets(&long, &long.join("default/docker.sock"));
        assert_eq!(
            check.state,
            if cfg!(windows) {
                CheckState::Ok
            } else {
                CheckState::Failed
            }
        );
    }

    #[test]
    fn what_is_short_of_the_promise_about_folders_is_a_warning_each() {
        let machine = MachineName::default();
        let well = FolderHealth {
            watching: true,
            repeating: true,
            watched: 7,
            ..FolderHealth::default()
        };
        let states = |health: &FolderHealth| {
            let checks = folders(&machine, Ok(health));
            checks.iter().map(|check| check.state).collect::<Vec<_>>()
        };
        assert_eq!(states(&well), [CheckState::Ok]);
        let unheard = FolderHealth {
            repeating: false,
            ..well.clone()
        };
        assert_eq!(states(&unheard), [CheckState::Warning]);
        let short = FolderHealth {
            exhausted: true,
            full: true,
            untold: vec!["/mnt/remote".into()],
            without_attributes: vec!["/mnt/stick".into()],
            ..well
        };
        assert_eq!(states(&short), [CheckState::Warning; 4]);
        let commands: Vec<_> = folders(&machine, Ok(&short))
            .into_iter()
            .filter_map(|check| check.command)
            .collect();
        let raised = "sudo sysctl fs.fanotify.max_user_marks=1048576 && cove restart";
        assert_eq!(commands, [raised, "cove restart"]);
        let told: String = folders(&machine, Ok(&short))
            .into_iter()
            .map(|check| check.evidence)
            .collect();
        assert!(
            told.contains("/mnt/remote") && told.contains("/mnt/stick"),
            "{told}"
        );
        let silent = folders(&machine, Err("no answer within 5 s"));
        assert_eq!(silent[0].state, CheckState::Warning);
        assert!(silent[0].evidence.ends_with("no answer within 5 s"), "{silent:?}");
    }

    #[test]
    fn a_missing_image_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let check = image(&dir.path().join("image"), &dir.path().join("stamp"));
        assert_eq!(check.state, CheckState::Failed);
        assert!(check.fix.contains("cove image build"), "{}", check.fix);
        assert_eq!(check.command.as_deref(), Some("cove image build"));
    }
}
