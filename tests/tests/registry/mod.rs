//! Registries for suites: Debian's docker-registry on this computer's loopback, which containers and the engine know as
//! `host.docker.internal`, and a credential helper.

#![expect(clippy::expect_used, reason = "how a test fails")]

use cove_tests::harness::{Cove, Running, eventually, free_port};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// This computer, as the engine knows it.
pub(crate) const HOST: &str = "host.docker.internal";
/// Who has an account.
pub(crate) const USER: &str = "mole";
/// Their password.
pub(crate) const WORD: &str = "open sesame";
/// `USER:bcrypt(WORD)`, the only kind of hash that the registry takes.
pub(crate) const HTPASSWD: &str = "mole:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n";

/// A registry; dropping it ends it.
pub(crate) struct Registry {
    _process: Running,
    /// Host and port, as the engine knows it.
    pub(crate) name: String,
}

impl Registry {
    /// Serves on `port` with what `more` adds to the configuration.
    pub(crate) fn serve(cove: &Cove, port: u16, more: &str) -> Self {
        let directory = place(cove, &format!("registry-{port}"));
        let config = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            directory.join("data").display()
        );
        fs::write(&config, text).expect("it can be written");
        let program = cove.kit().registry.as_ref().expect("the suite has a registry");
        let process = Command::new(program)
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).expect("it can be written"))
            .spawn()
            .expect("the registry starts");
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
    pub(crate) fn private(cove: &Cove, authority: &Authority) -> Self {
        let port = free_port();
        let directory = place(cove, "tls");
        let (certificate, key) = authority.issue(HOST);
        let file = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).expect("it can be written");
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

    /// An image of it.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

/// An authority that nobody has heard of.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("it can be made"))
                .expect("it can be made"),
        )
    }

    /// A server's certificate and key.
    pub(crate) fn issue(&self, host: &str) -> (String, String) {
        let key = KeyPair::generate().expect("it can be made");
        let params = CertificateParams::new([host.to_owned()]).expect("it can be made");
        (
            params.signed_by(&key, &self.0).expect("it can be made").pem(),
            key.serialize_pem(),
        )
    }

    /// Its own certificate as a file.
    pub(crate) fn file(&self, cove: &Cove) -> PathBuf {
        let path = cove.scratch().join("authority.pem");
        fs::write(&path, self.0.pem()).expect("it can be written");
        path
    }
}

/// A directory of a test.
pub(crate) fn place(cove: &Cove, name: &str) -> PathBuf {
    let directory = cove.scratch().join(name);
    fs::create_dir_all(&directory).expect("it can be made");
    directory
}

/// The fingerprint of the one certificate that is trusted.
pub(crate) fn fingerprint(cove: &Cove) -> String {
    let list = cove.cove(["trust", "list", "--json"]).ok();
    let list: Value = serde_json::from_str(&list).expect("it is JSON");
    let certificates = list["certificates"].as_array().expect("it is a list");
    assert_eq!(certificates.len(), 1, "{list}");
    certificates[0]["fingerprint"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A credential helper as Docker describes it: verbs, and JSON or a server's name on standard input. It keeps what it
/// was last given.
pub(crate) fn helper(program: &Path, kept: &Path) {
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat >'{kept}' ;;\nget) cat >/dev/null; cat '{kept}' 2>/dev/null || \
         {{ echo 'credentials not found in native keychain'; exit 1; }} ;;\nerase) cat >/dev/null; rm -f '{kept}' \
         ;;\nlist) test -f '{kept}' && sed \
         's/.*\"ServerURL\":\\(\"[^\"]*\"\\).*\"Username\":\\(\"[^\"]*\"\\).*/{{\\1:\\2}}/' '{kept}' || echo '{{}}' \
         ;;\nesac\n",
        kept = kept.display()
    );
    fs::write(program, script).expect("it can be written");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("it can be written");
}
