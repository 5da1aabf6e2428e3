//! Registries: private and plain ones, mirrors, and who keeps their passwords.

use crate::{
    copy_program, docker,
    registry::{Authority, HOST, HTPASSWD, Registry, USER, WORD, fingerprint, helper, place},
};
use cove_tests::harness::{Cmd, Cove, eventually, free_port, within};
use serde_json::Value;
use std::{
    fs,
    io::{self, Read as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const UNKNOWN: &str = "certificate signed by unknown authority";

/// How long a machine may take to stop and start.
const RESTART: Duration = Duration::from_mins(5);
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// Names a plain registry in the settings, as one that may be used without TLS and as the mirror of Docker's own. It is
/// there only while [`an_insecure_registry_is_used_and_a_mirror_is_asked_first`] runs; the engine does without.
pub(crate) fn prepare(cove: &Cove) {
    // Not one that the system would give to somebody else meanwhile.
    let port = (5000..6000).find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    let name = format!("{HOST}:{}", port.unwrap());
    cove.cove(["config", "set", "engine.insecure-registries"])
        .arg(format!("[\"{name}\"]"))
        .ok();
    cove.cove(["config", "set", "engine.registry-mirrors"])
        .arg(format!("[\"http://{name}\"]"))
        .ok();
}

pub(crate) fn login(cove: &Cove, registry: &Registry, word: &str) -> Cmd {
    docker(cove, "login --password-stdin --username")
        .args([USER, &registry.name])
        .input(word)
}

/// What is trusted for as long as this lives.
pub(crate) struct Trusted<'a> {
    cove: &'a Cove,
    fingerprint: String,
}

impl<'a> Trusted<'a> {
    pub(crate) fn new(cove: &'a Cove, authority: &Authority) -> Self {
        cove.cove(["trust", "add"]).arg(authority.file(cove)).ok();
        let fingerprint = fingerprint(cove);
        Self { cove, fingerprint }
    }
}

impl Drop for Trusted<'_> {
    fn drop(&mut self) {
        // What a failed test has left would only be in the way of the next one.
        self.cove.cove(["trust", "remove", &self.fingerprint]).run();
    }
}

/// Builds an image whose last layer no other one has, since it is of random bytes, and gives what the image prints:
/// their sum.
fn unique(cove: &Cove, image: &str) -> String {
    docker(cove, "build -q --no-cache -t")
        .args([image, "-"])
        .input("FROM alpine\nRUN dd if=/dev/urandom of=/unique bs=1M count=4\nCMD sha256sum /unique\n")
        .ok();
    docker(cove, "run --rm").arg(image).ok()
}

/// Removes an image with its layers, which the builder's cache would keep otherwise.
fn forget(cove: &Cove, image: &str) {
    docker(cove, "rmi").arg(image).ok();
    docker(cove, "builder prune -af").ok();
}

/// Pulls an image whose last layer is to come from the registry. The engine tells of each layer whether it was there
/// already, and of none where it still has the image by another name.
#[track_caller]
fn download(cove: &Cove, options: &[&str], image: &str) {
    let said = docker(cove, "pull").args(options).arg(image).ok();
    assert!(said.contains(": Pull complete"), "nothing was downloaded: {said}");
}

pub(crate) fn a_private_registry_is_trusted_by_its_authority_and_wants_the_password(cove: &Cove) {
    let authority = Authority::new("Burrow");
    let registry = Registry::private(cove, &authority);
    let image = registry.image("team/app:1");
    login(cove, &registry, WORD).run().fails_with(1).says(&[UNKNOWN]);

    // What runs goes on, with the port that it publishes.
    docker(cove, "run -d --name witness -p 127.0.0.1::80 alpine")
        .args(["nc", "-lk", "-p", "80", "-e", "echo", "here"])
        .ok();
    let life = || {
        docker(
            cove,
            "inspect --format {{.State.Pid}}{{.State.StartedAt}}{{.RestartCount}} witness",
        )
        .ok()
    };
    let (before, port) = (life(), docker(cove, "port witness 80").ok());
    let answers = || {
        eventually("the port to answer", || {
            heard(&port).is_ok_and(|said| said == "here\n")
        });
    };
    answers();
    let added = cove.cove(["trust", "add"]).arg(authority.file(cove)).run();
    assert_eq!(added.code, Some(0), "{added}");
    assert_eq!(added.stderr.trim(), "`CN=Burrow` is trusted");
    // The proxies have ended with their dockerd; the next one starts them anew.
    answers();

    login(cove, &registry, "close sesame")
        .run()
        .fails_with(1)
        .says(&["401 Unauthorized"]);
    let sum = unique(cove, &image);
    let push = || docker(cove, "push -q").arg(&image);
    push().run().fails_with(1).says(&["no basic auth credentials"]);
    login(cove, &registry, WORD).ok();
    assert_eq!(push().ok(), image);
    forget(cove, &image);
    download(cove, &[], &image);
    assert_eq!(docker(cove, "run --rm").arg(&image).ok(), sum);
    // The builder asks the registry by itself, with the client's password.
    docker(cove, "rmi").arg(&image).ok();
    docker(cove, "build -q --pull -t from-private -")
        .input(format!("FROM {image}\nRUN echo fetched > /how\n"))
        .ok();
    assert_eq!(docker(cove, "run --rm from-private cat /how").ok(), "fetched");
    forget(cove, "from-private");
    docker(cove, "logout").arg(&registry.name).ok();
    docker(cove, "pull -q")
        .arg(&image)
        .run()
        .fails_with(1)
        .says(&["no basic auth credentials"]);

    assert_eq!((life(), &docker(cove, "port witness 80").ok()), (before, &port));
    docker(cove, "rm -f witness").ok();
    let removed = cove.cove(["trust", "remove"]).arg(&fingerprint(cove)[..16]).run();
    assert_eq!(removed.code, Some(0), "{removed}");
    login(cove, &registry, WORD).run().fails_with(1).says(&[UNKNOWN]);
}

/// What a server says that waits for no question.
fn heard(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

pub(crate) fn what_is_trusted_is_trusted_after_a_restart(cove: &Cove) {
    let authority = Authority::new("Lasting");
    let registry = Registry::private(cove, &authority);
    cove.cove(["trust", "add"]).arg(authority.file(cove)).ok();
    cove.cove(["restart"]).limit(RESTART).ok();
    login(cove, &registry, WORD).ok();
    docker(cove, "logout").arg(&registry.name).ok();
    cove.cove(["trust", "remove"]).arg(fingerprint(cove)).ok();
}

pub(crate) fn what_is_no_authority_is_not_trusted(cove: &Cove) {
    let (certificate, key) = Authority::new("Issuer").issue("server.example");
    let add = |text: &str| cove.cove(["trust", "add", "-"]).input(text).run();
    add(&certificate)
        .fails_with(2)
        .says(&["CN=Issuer` has issued it", "add the certificate of the authority"]);
    add(&key)
        .fails_with(2)
        .says(&["there is no certificate in it", "openssl x509"]);
    cove.cove(["trust", "add", "/nowhere/authority.pem"])
        .run()
        .fails_with(4);
    let list: Value = serde_json::from_str(&cove.cove(["trust", "list", "--json"]).ok()).unwrap();
    assert_eq!(list["certificates"], serde_json::json!([]));
}

/// The port of the registry that [`prepare`] has named.
fn plain_port(cove: &Cove) -> u16 {
    let names = cove
        .cove(["config", "get", "engine.insecure-registries", "--json"])
        .ok();
    let names: Vec<String> = serde_json::from_str(&names).unwrap();
    names[0].rsplit(':').next().unwrap().parse().unwrap()
}

pub(crate) fn an_insecure_registry_is_used_and_a_mirror_is_asked_first(cove: &Cove) {
    let port = plain_port(cove);
    let registry = Registry::serve(cove, port, "");
    let image = registry.image("library/mirrored:1");
    let sum = unique(cove, &image);
    docker(cove, "push -q").arg(&image).ok();
    forget(cove, &image);
    download(cove, &[], "mirrored:1");
    assert_eq!(docker(cove, "run --rm mirrored:1").ok(), sum);
    docker(cove, "rmi mirrored:1").ok();
    // Another one without TLS has nobody's leave to be that.
    let other = Registry::serve(cove, free_port(), "");
    docker(cove, "pull -q")
        .arg(other.image("library/mirrored:1"))
        .run()
        .fails_with(1)
        .says(&["server gave HTTP response to HTTPS client"]);
}

pub(crate) fn passwords_are_left_to_a_credential_helper(cove: &Cove) {
    let directory = place(cove, "helper");
    let kept = directory.join("kept");
    helper(&directory.join("docker-credential-burrow"), &kept);
    leave_passwords_to(cove, "burrow", &directory, &[], || fs::read_to_string(&kept).ok());
}

/// By Docker's own helper for it, which has `pass` keep each password in a file that `GnuPG` has encrypted.
pub(crate) fn passwords_are_left_to_pass(cove: &Cove) {
    let keyring = Keyring::new(cove);
    keyring.client("pass").args(["init", USER]).ok();
    // `pass` keeps it all below `HOME`. The helper has a directory for each server, whose name is there in base64.
    let store = cove.scratch().join(".password-store/docker-credential-helpers");
    let kept = || {
        let server = fs::read_dir(&store).ok()?.next()?.unwrap().file_name();
        let file = fs::read(store.join(&server).join(format!("{USER}.gpg"))).unwrap();
        let is_plain = file.windows(WORD.len()).any(|part| part == WORD.as_bytes());
        assert!(!is_plain, "the password can be read in the file");
        let entry = Path::new("docker-credential-helpers").join(server).join(USER);
        Some(keyring.client("pass").arg("show").arg(entry).ok())
    };
    let helper = cove.kit().credentials.as_ref().unwrap();
    let surroundings = [(GNUPG, keyring.home.as_path())];
    leave_passwords_to(cove, "pass", helper.parent().unwrap(), &surroundings, kept);
}

/// Has everything of `GnuPG` find the keys of a test.
const GNUPG: &str = "GNUPGHOME";

/// A key without a passphrase, and the agent that lends it, for as long as this lives.
struct Keyring<'a> {
    cove: &'a Cove,
    home: PathBuf,
}

impl<'a> Keyring<'a> {
    fn new(cove: &'a Cove) -> Self {
        // GnuPG complains of one that others can look into.
        let home = cove.scratch().join("gpg");
        fs::DirBuilder::new().mode(0o700).create(&home).unwrap();
        let keyring = Self { cove, home };
        keyring
            .client("gpg")
            .args(["--batch", "--quiet", "--passphrase", ""])
            .args(["--quick-generate-key", USER, "future-default", "default", "never"])
            .ok();
        keyring
    }

    /// A program that has the key.
    fn client(&self, program: &str) -> Cmd {
        self.cove.client(program).env(GNUPG, &self.home)
    }
}

impl Drop for Keyring<'_> {
    fn drop(&mut self) {
        // Whatever needs the agent starts it; nothing ends it.
        self.client("gpgconf").args(["--kill", "all"]).run();
    }
}

/// Logs in, pushes, pulls and logs out with a client whose passwords the credential helper `name` keeps. The helper is
/// in `directory` and has these `surroundings`; `kept` tells what it has for the registry.
fn leave_passwords_to(
    cove: &Cove,
    name: &str,
    directory: &Path,
    surroundings: &[(&str, &Path)],
    kept: impl Fn() -> Option<String>,
) {
    let port = plain_port(cove);
    let config = place(cove, &format!("client-with-{name}"));
    fs::write(
        config.join("config.json"),
        format!("{{\"credsStore\":\"{name}\"}}"),
    )
    .unwrap();
    let htpasswd = config.join("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    let more = format!(
        "auth:\n  htpasswd:\n    realm: burrow\n    path: {}\n",
        htpasswd.display()
    );
    let registry = Registry::serve(cove, port, &more);
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let docker = |line: &str| {
        let client = docker(cove, line)
            .env("DOCKER_CONFIG", &config)
            .env("PATH", &path);
        surroundings
            .iter()
            .fold(client, |client, (variable, value)| client.env(variable, value))
    };

    docker("login --password-stdin --username")
        .args([USER, &registry.name])
        .input(WORD)
        .ok();
    assert!(kept().is_some_and(|kept| kept.contains(WORD)));
    let written = fs::read_to_string(config.join("config.json")).unwrap();
    assert!(
        written.contains(&registry.name) && !written.contains("\"auth\":"),
        "{written}"
    );
    let image = registry.image("helped:1");
    docker("tag alpine").arg(&image).ok();
    docker("push -q").arg(&image).ok();
    docker("rmi").arg(&image).ok();
    docker("pull -q").arg(&image).ok();
    docker("logout").arg(&registry.name).ok();
    assert_eq!(kept(), None);
    for verb in ["push -q", "pull -q"] {
        docker(verb)
            .arg(&image)
            .run()
            .fails_with(1)
            .says(&["no basic auth credentials"]);
    }
    docker("rmi").arg(&image).ok();
}

/// The engine uses it without TLS, as any on the loopback that it has itself.
pub(crate) fn a_registry_in_a_container_is_localhost_to_the_engine(cove: &Cove) {
    let context = place(cove, "contained");
    let root = context.join("root");
    let program = cove.kit().registry.as_ref().unwrap();
    copy_program(cove, program, &root, "/usr/bin/docker-registry");
    fs::write(
        root.join("config.yml"),
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /data\nhttp:\n  addr: :5000\n",
    )
    .unwrap();
    docker(cove, "build -q -t contained -f -")
        .arg(&context)
        .input("FROM alpine\nCOPY root /\nCMD [\"docker-registry\", \"serve\", \"/config.yml\"]\n")
        .ok();
    docker(cove, "run -d --name contained -p 127.0.0.1::5000 contained").ok();
    let address = docker(cove, "port contained 5000").ok();
    let (_, port) = address.rsplit_once(':').unwrap();
    let image = format!("localhost:{port}/kept:1");
    docker(cove, "tag alpine").arg(&image).ok();
    within(Duration::from_mins(1), "the registry to take the image", || {
        let pushed = docker(cove, "push -q").arg(&image).run();
        (pushed.code == Some(0)).then_some(())
    });
    docker(cove, "rmi").arg(&image).ok();
    docker(cove, "pull -q").arg(&image).ok();
    docker(cove, "run --rm").args([&image, "true"]).ok();
    // So does a container that has the machine's network.
    docker(cove, "run --rm --network host alpine nc -z 127.0.0.1")
        .arg(port)
        .ok();
    docker(cove, "rm -f -v contained").ok();
    docker(cove, "rmi contained").arg(&image).ok();
}

/// The client joins the images of two processors by their names alone, and the engine takes its own.
pub(crate) fn one_name_has_an_image_for_each_processor(cove: &Cove) {
    let port = plain_port(cove);
    let registry = Registry::serve(cove, port, "");
    let foreign = cove.kit().foreign.as_ref().unwrap().join("arm64/busybox");
    let context = place(cove, "joined");
    fs::copy(foreign, context.join("busybox")).unwrap();
    for (name, dockerfile, platform) in [
        (
            "amd64",
            "FROM alpine\nRUN echo a layer of its own > /part\nCMD uname -m\n",
            "linux/amd64",
        ),
        (
            "arm64",
            "FROM scratch\nCOPY busybox /bin/sh\nCMD uname -m\n",
            "linux/arm64",
        ),
    ] {
        let image = registry.image(&format!("part:{name}"));
        docker(cove, "build -q -f - --platform")
            .args([platform, "-t", &image])
            .arg(&context)
            .input(dockerfile)
            .ok();
        docker(cove, "push -q").arg(&image).ok();
        forget(cove, &image);
    }
    // On this computer the registry has another name.
    let ours = |name: &str| format!("127.0.0.1:{port}/{name}");
    docker(cove, "buildx imagetools create -t")
        .args([ours("whole:1"), ours("part:amd64"), ours("part:arm64")])
        .ok();
    for inspect in ["buildx imagetools inspect --raw", "manifest inspect --insecure"] {
        let manifest = docker(cove, inspect).arg(ours("whole:1")).ok();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let platforms: Vec<&str> = manifest["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|part| part["platform"]["architecture"].as_str())
            .collect();
        assert_eq!(platforms, ["amd64", "arm64"], "{inspect}: {manifest}");
    }
    let whole = registry.image("whole:1");
    for (platform, machine) in [(None, "x86_64"), (Some("linux/arm64"), "aarch64")] {
        let option: Vec<&str> = platform
            .into_iter()
            .flat_map(|name| ["--platform", name])
            .collect();
        download(cove, &option, &whole);
        let ran = docker(cove, "run --rm").args(&option).arg(&whole).ok();
        assert_eq!(ran, machine);
        docker(cove, "rmi").arg(&whole).ok();
    }
}
