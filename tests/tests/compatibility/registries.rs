//! Registries: Debian's docker-registry on this computer's loopback, which containers and the engine know as
//! `host.docker.internal`.

use crate::docker;
use cove_tests::harness::{Cmd, Cove, Running, eventually, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

const HOST: &str = "host.docker.internal";
const USER: &str = "mole";
const WORD: &str = "open sesame";
/// `USER:bcrypt(WORD)`, the only kind of hash that the registry takes.
const HTPASSWD: &str = "mole:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";
const UNKNOWN: &str = "certificate signed by unknown authority";

/// How long a machine may take to stop and start.
const RESTART: Duration = Duration::from_mins(5);

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

/// A registry; dropping it ends it.
struct Registry {
    _process: Running,
    name: String,
}

impl Registry {
    /// Serves on `port` with what `more` adds to the configuration.
    fn serve(cove: &Cove, port: u16, more: &str) -> Self {
        let directory = place(cove, &format!("registry-{port}"));
        let config = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            directory.join("data").display()
        );
        fs::write(&config, text).unwrap();
        let program = cove.kit().registry.as_ref().unwrap();
        let process = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        let registry = Self {
            _process: Running(process),
            name: format!("{HOST}:{port}"),
        };
        eventually("the registry to listen", || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        registry
    }

    /// Serves with TLS by an authority of its own, to those who know the password.
    fn private(cove: &Cove, authority: &Authority) -> Self {
        let port = free_port();
        let directory = place(cove, "tls");
        let (certificate, key) = authority.issue(HOST);
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let more = format!(
            "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: burrow\n    path: {}\n",
            file("server.crt", &certificate).display(),
            file("server.key", &key).display(),
            file("htpasswd", HTPASSWD).display()
        );
        Self::serve(cove, port, &more)
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

/// An authority that nobody has heard of.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A server's certificate and key.
    fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }

    /// Its own certificate as a file.
    fn file(&self, cove: &Cove) -> PathBuf {
        let path = cove.scratch().join("authority.pem");
        fs::write(&path, self.0.pem()).unwrap();
        path
    }
}

fn place(cove: &Cove, name: &str) -> PathBuf {
    let directory = cove.scratch().join(name);
    fs::create_dir_all(&directory).unwrap();
    directory
}

fn login(cove: &Cove, registry: &Registry, word: &str) -> Cmd {
    docker(cove, "login --password-stdin --username")
        .args([USER, &registry.name])
        .input(word)
}

/// The fingerprint of the one certificate that is trusted.
fn fingerprint(cove: &Cove) -> String {
    let list: Value = serde_json::from_str(&cove.cove(["trust", "list", "--json"]).ok()).unwrap();
    let certificates = list["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 1, "{list}");
    certificates[0]["fingerprint"].as_str().unwrap().to_owned()
}

pub(crate) fn a_private_registry_is_trusted_by_its_authority_and_wants_the_password(cove: &Cove) {
    let authority = Authority::new("Burrow");
    let registry = Registry::private(cove, &authority);
    let image = registry.image("team/app:1");
    docker(cove, "tag alpine").arg(&image).ok();
    login(cove, &registry, WORD).run().fails_with(1).says(&[UNKNOWN]);

    // What runs goes on, with the port that it publishes.
    docker(cove, "run -d --name witness -p 127.0.0.1::80 alpine sleep 900").ok();
    let life = || {
        docker(
            cove,
            "inspect --format {{.State.Pid}}{{.State.StartedAt}}{{.RestartCount}} witness",
        )
        .ok()
    };
    let (before, port) = (life(), docker(cove, "port witness 80").ok());
    let added = cove.cove(["trust", "add"]).arg(authority.file(cove)).run();
    assert_eq!(added.code, Some(0), "{added}");
    assert_eq!(added.stderr.trim(), "`CN=Burrow` is trusted");

    login(cove, &registry, "close sesame")
        .run()
        .fails_with(1)
        .says(&["401 Unauthorized"]);
    let push = || docker(cove, "push -q").arg(&image);
    push().run().fails_with(1).says(&["no basic auth credentials"]);
    login(cove, &registry, WORD).ok();
    assert_eq!(push().ok(), image);
    docker(cove, "rmi").arg(&image).ok();
    docker(cove, "pull -q").arg(&image).ok();
    docker(cove, "run --rm").args([&image, "true"]).ok();
    // The builder asks the registry by itself, with the client's password.
    docker(cove, "rmi").arg(&image).ok();
    docker(cove, "build -q --pull -t from-private -")
        .input(format!("FROM {image}\nRUN echo fetched > /how\n"))
        .ok();
    assert_eq!(docker(cove, "run --rm from-private cat /how").ok(), "fetched");
    docker(cove, "logout").arg(&registry.name).ok();
    docker(cove, "pull -q").arg(&image).run().fails_with(1);

    assert_eq!((life(), docker(cove, "port witness 80").ok()), (before, port));
    docker(cove, "rm -f witness").ok();
    let removed = cove.cove(["trust", "remove"]).arg(&fingerprint(cove)[..16]).run();
    assert_eq!(removed.code, Some(0), "{removed}");
    login(cove, &registry, WORD).run().fails_with(1).says(&[UNKNOWN]);
    docker(cove, "rmi from-private").ok();
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
    docker(cove, "build -q -t")
        .args([&image, "-"])
        .input("FROM alpine\nRUN echo from the mirror > /whence\n")
        .ok();
    docker(cove, "push -q").arg(&image).ok();
    docker(cove, "rmi").arg(&image).ok();
    docker(cove, "pull -q mirrored:1").ok();
    assert_eq!(
        docker(cove, "run --rm mirrored:1 cat /whence").ok(),
        "from the mirror"
    );
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
    let port = plain_port(cove);
    let directory = place(cove, "helper");
    let htpasswd = directory.join("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    let more = format!(
        "auth:\n  htpasswd:\n    realm: burrow\n    path: {}\n",
        htpasswd.display()
    );
    let registry = Registry::serve(cove, port, &more);
    let config = directory.join("config");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.json"), "{\"credsStore\":\"burrow\"}").unwrap();
    let kept = directory.join("kept");
    helper(&directory.join("docker-credential-burrow"), &kept);
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let docker = |line: &str| {
        docker(cove, line)
            .env("DOCKER_CONFIG", &config)
            .env("PATH", &path)
    };

    docker("login --password-stdin --username")
        .args([USER, &registry.name])
        .input(WORD)
        .ok();
    assert!(fs::read_to_string(&kept).unwrap().contains(WORD));
    let written = fs::read_to_string(config.join("config.json")).unwrap();
    assert!(
        written.contains(&registry.name) && !written.contains("\"auth\":"),
        "{written}"
    );
    let image = registry.image("helped:1");
    docker("tag alpine").arg(&image).ok();
    docker("push -q").arg(&image).ok();
    docker("logout").arg(&registry.name).ok();
    assert!(!kept.exists());
    docker("push -q").arg(&image).run().fails_with(1);
    docker("rmi").arg(&image).ok();
}

/// The client joins the images of two processors by their names alone, and the engine takes its own.
pub(crate) fn one_name_has_an_image_for_each_processor(cove: &Cove) {
    let port = plain_port(cove);
    let registry = Registry::serve(cove, port, "");
    let foreign = cove.kit().foreign.as_ref().unwrap().join("arm64/busybox");
    let context = place(cove, "joined");
    fs::copy(foreign, context.join("busybox")).unwrap();
    for (name, dockerfile, platform) in [
        ("amd64", "FROM alpine\nCMD uname -m\n", "linux/amd64"),
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
        docker(cove, "rmi").arg(&image).ok();
    }
    // On this computer the registry has another name.
    let ours = |name: &str| format!("127.0.0.1:{port}/{name}");
    docker(cove, "buildx imagetools create -t")
        .args([ours("whole:1"), ours("part:amd64"), ours("part:arm64")])
        .ok();
    let manifest = docker(cove, "buildx imagetools inspect --raw")
        .arg(ours("whole:1"))
        .ok();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let platforms: Vec<&str> = manifest["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|part| part["platform"]["architecture"].as_str())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"], "{manifest}");
    let whole = registry.image("whole:1");
    for (platform, machine) in [(None, "x86_64"), (Some("linux/arm64"), "aarch64")] {
        let option: Vec<&str> = platform
            .into_iter()
            .flat_map(|name| ["--platform", name])
            .collect();
        docker(cove, "pull -q").args(&option).arg(&whole).ok();
        let ran = docker(cove, "run --rm").args(&option).arg(&whole).ok();
        assert_eq!(ran, machine);
        docker(cove, "rmi").arg(&whole).ok();
    }
}

/// A credential helper as Docker describes it: verbs, and JSON or a server's name on standard input. It keeps what it
/// was last given.
fn helper(program: &Path, kept: &Path) {
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat >'{kept}' ;;\nget) cat >/dev/null; cat '{kept}' 2>/dev/null || \
         {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\nerase) cat >/dev/null; rm -f '{kept}' \
         ;;\nlist) echo '{{}}' ;;\nesac\n",
        kept = kept.display()
    );
    fs::write(program, script).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
}
