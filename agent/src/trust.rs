//! The authorities that the host's user trusts, besides those of the image.
//!
//! There is one list in the guest, [`BUNDLE`], which everything reads: dockerd with its builder, git in it, the shell's
//! programs. It is what the image brought, with the user's certificates behind. dockerd reads it once in its life, so
//! that another one has to take its place when the list has changed. [`Trust`] owns the file and knows what is in it.

use cove_wire::{Fault, FaultCode};
use std::{fs, io, path::Path};
use tokio::sync::Mutex;

/// The list.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The list as the image brought it, once it was changed.
const ORIGINAL: &str = "/run/cove/ca-certificates.crt";

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What the host's user trusts.
#[derive(Debug, Default)]
pub(crate) struct Trust(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What is in the list.
    certificates: Vec<String>,
    /// Whether the engine runs with an earlier list.
    stale: bool,
}

impl Trust {
    /// Makes the list hold these and no others of the user's, and has the engine take them up with `renew`.
    pub(crate) async fn replace<F>(
        &self,
        certificates: Vec<String>,
        renew: impl FnOnce() -> F,
    ) -> Result<(), Fault>
    where
        F: Future<Output = Result<(), Fault>>,
    {
        check(&certificates)?;
        let mut state = self.0.lock().await;
        if state.certificates != certificates {
            write(Path::new(BUNDLE), Path::new(ORIGINAL), &certificates).map_err(|error| {
                Fault::new(
                    FaultCode::Failed,
                    format!("writing the list of trusted authorities failed: {error}"),
                )
            })?;
            tracing::info!(
                count = certificates.len(),
                "the user's authorities are in the list"
            );
            state.certificates = certificates;
            state.stale = true;
        }
        if state.stale {
            renew().await?;
            state.stale = false;
        }
        Ok(())
    }
}

/// Refuses what would spoil the list for its readers. Whether a certificate is a good one the host has looked at.
fn check(certificates: &[String]) -> Result<(), Fault> {
    let one = |text: &str| {
        let inner = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
        inner
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte))
            .then_some(())
    };
    if certificates.iter().all(|text| one(text).is_some()) {
        return Ok(());
    }
    Err(Fault::new(
        FaultCode::Invalid,
        "what is to be trusted is no certificate in PEM",
    ))
}

fn write(bundle: &Path, original: &Path, certificates: &[String]) -> io::Result<()> {
    if !original.exists() {
        replace(original, fs::read(bundle)?)?;
    }
    let mut list = fs::read(original)?;
    for certificate in certificates {
        list.push(b'\n');
        list.extend_from_slice(certificate.trim().as_bytes());
    }
    list.push(b'\n');
    replace(bundle, list)
}

/// Whoever reads the file meanwhile sees the old one or the new one.
fn replace(path: &Path, contents: Vec<u8>) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, contents)?;
    fs::rename(fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn certificate(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    #[test]
    fn the_list_is_what_the_image_brought_and_what_was_asked_for_last() {
        let directory = tempfile::tempdir().unwrap();
        let (bundle, original) = (directory.path().join("b"), directory.path().join("o"));
        fs::write(&bundle, "the image's\n").unwrap();
        write(&bundle, &original, &[certificate("QQ=="), certificate("Qg==")]).unwrap();
        let list = fs::read_to_string(&bundle).unwrap();
        assert!(
            list.starts_with("the image's\n\n-----BEGIN") && list.contains("QQ==") && list.contains("Qg==")
        );
        write(&bundle, &original, &[certificate("Qw==")]).unwrap();
        let list = fs::read_to_string(&bundle).unwrap();
        assert!(list.starts_with("the image's\n") && list.contains("Qw==") && !list.contains("QQ=="));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(check(&[certificate("QUJD\nRA==")]).is_ok());
        let two = certificate("QQ==").repeat(2);
        for text in ["", "x", BEGIN, &format!("{BEGIN}\u{0}{END}"), &two] {
            assert_eq!(
                check(&[text.to_owned()]).unwrap_err().code,
                FaultCode::Invalid,
                "{text:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_engine_that_has_the_list_is_left_alone() {
        let renewals = Cell::new(0);
        let renew = || {
            renewals.set(renewals.get() + 1);
            async { Ok(()) }
        };
        Trust::default().replace(Vec::new(), renew).await.unwrap();
        assert_eq!(renewals.get(), 0);
    }
}
