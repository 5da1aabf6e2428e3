//! The certificates that the user trusts: a file each below the configuration, named by its fingerprint.
//!
//! [`TrustStore`] is the only writer. It takes authorities, and certificates that have signed themselves, and refuses
//! everything else with what to do instead: a certificate that somebody else has issued would be of no use to anybody
//! who checks it. Files that somebody else has put there count if they are as good.

use crate::file;
use cove_api::{ApiError, Certificate, ErrorCode};
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};
use x509_cert::{
    der::{Decode, Encode, EncodePem, pem::LineEnding},
    ext::pkix::BasicConstraints,
};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Largest certificate in bytes of PEM, and the most certificates. Together they fit into one frame to the agent.
const MAX_PEM: usize = 16 << 10;
const MAX_COUNT: usize = 48;

/// Why a certificate was not taken, or not forgotten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error("there is no certificate in it")]
    Nothing,
    #[error("certificate {number} in it cannot be read: {why}")]
    Unreadable { number: usize, why: String },
    #[error("the certificate of `{subject}` is no authority's: `{issuer}` has issued it")]
    NoAuthority { subject: String, issuer: String },
    #[error("the certificate of `{subject}` has expired on {expires}")]
    Expired { subject: String, expires: String },
    #[error("more than {MAX_COUNT} certificates cannot be trusted")]
    TooMany,
    #[error("no certificate's fingerprint begins with `{0}`")]
    Unknown(String),
    #[error("the fingerprints of {count} certificates begin with `{prefix}`")]
    Ambiguous { prefix: String, count: usize },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl From<TrustError> for ApiError {
    fn from(error: TrustError) -> Self {
        let (code, hint) = match &error {
            TrustError::Nothing => (
                ErrorCode::InvalidRequest,
                "give a file in PEM; one in DER becomes that with: openssl x509 -inform der -in FILE -out FILE.pem",
            ),
            TrustError::Unreadable { .. } => (ErrorCode::InvalidRequest, "nothing was changed"),
            TrustError::NoAuthority { .. } => (
                ErrorCode::InvalidRequest,
                "add the certificate of the authority that has issued it; nothing was changed",
            ),
            TrustError::Expired { .. } => (
                ErrorCode::InvalidRequest,
                "ask whoever gave it to you for the present one; nothing was changed",
            ),
            TrustError::TooMany => (
                ErrorCode::InvalidRequest,
                "remove some with `cove trust remove`; nothing was changed",
            ),
            TrustError::Unknown(_) => (
                ErrorCode::NotFound,
                "`cove trust list` shows those that are trusted",
            ),
            TrustError::Ambiguous { .. } => (ErrorCode::InvalidRequest, "give more of its digits"),
            TrustError::Io { source, .. } if file::is_full(source) => {
                (ErrorCode::DiskFull, "free some space; nothing was changed")
            }
            TrustError::Io { .. } => (ErrorCode::Internal, "check the file's owner and permissions"),
        };
        Self::new(code, error.to_string(), hint)
    }
}

/// A certificate and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    certificate: Certificate,
    pem: String,
}

/// The directory of certificates.
pub(crate) struct TrustStore {
    directory: PathBuf,
}

impl TrustStore {
    /// The certificates in `directory`, which need not exist.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What is trusted.
    pub(crate) fn list(&self) -> Vec<Certificate> {
        self.read().into_iter().map(|kept| kept.certificate).collect()
    }

    /// The same in PEM, in the order of their fingerprints.
    pub(crate) fn pem(&self) -> Vec<String> {
        self.read().into_iter().map(|kept| kept.pem).collect()
    }

    /// Trusts every certificate in `text`, or none of them.
    pub(crate) fn add(&self, text: &str) -> Result<Vec<Certificate>, TrustError> {
        let added = parse(text)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for (certificate, until) in &added {
            if *until < now.as_secs() {
                let Certificate { subject, expires, .. } = certificate.certificate.clone();
                return Err(TrustError::Expired { subject, expires });
            }
        }
        let mut all = self.read();
        for (kept, _) in &added {
            if !all.contains(kept) {
                all.push(kept.clone());
            }
        }
        if all.len() > MAX_COUNT {
            return Err(TrustError::TooMany);
        }
        for (kept, _) in &added {
            let path = self.path_of(&kept.certificate);
            file::replace(&path, kept.pem.as_bytes(), 0o600).map_err(|source| TrustError::Io {
                operation: "write",
                path,
                source,
            })?;
        }
        Ok(added.into_iter().map(|(kept, _)| kept.certificate).collect())
    }

    /// Ceases to trust the one certificate whose fingerprint begins with `prefix`.
    pub(crate) fn remove(&self, prefix: &str) -> Result<Certificate, TrustError> {
        // As other programs show it.
        let digits = prefix.replace(':', "").to_lowercase();
        let mut found: Vec<Certificate> = self.list();
        found.retain(|certificate| certificate.fingerprint.starts_with(&digits));
        match found.len() {
            1 if !digits.is_empty() => {}
            0 => return Err(TrustError::Unknown(prefix.to_owned())),
            count => {
                let prefix = prefix.to_owned();
                return Err(TrustError::Ambiguous { prefix, count });
            }
        }
        let certificate = found.remove(0);
        let path = self.path_of(&certificate);
        fs::remove_file(&path).map_err(|source| TrustError::Io {
            operation: "remove",
            path,
            source,
        })?;
        Ok(certificate)
    }

    fn path_of(&self, certificate: &Certificate) -> PathBuf {
        self.directory.join(format!("{}.pem", certificate.fingerprint))
    }

    /// Those files in the directory that hold one good certificate under its name.
    fn read(&self) -> Vec<Kept> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let mut kept: Vec<Kept> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".pem"))
            .filter(|entry| {
                entry
                    .metadata()
                    .is_ok_and(|found| found.is_file() && found.len() <= 2 * MAX_PEM as u64)
            })
            .filter_map(|entry| {
                let text = fs::read_to_string(entry.path()).ok()?;
                match parse(&text) {
                    Ok(mut found) if found.len() == 1 => Some(found.remove(0).0),
                    Ok(_) => None,
                    Err(error) => {
                        tracing::warn!(file = %entry.path().display(), "not trusted: {error}");
                        None
                    }
                }
            })
            .collect();
        kept.sort_by(|a, b| a.certificate.fingerprint.cmp(&b.certificate.fingerprint));
        kept.dedup();
        kept.truncate(MAX_COUNT);
        kept
    }
}

/// The certificates in a text, each with its last second since the Unix epoch; at least one.
fn parse(text: &str) -> Result<Vec<(Kept, u64)>, TrustError> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let number = found.len() + 1;
        let unreadable = |why: String| TrustError::Unreadable { number, why };
        let block = &rest[begin..];
        let end = block
            .find(END)
            .ok_or_else(|| unreadable("its end is missing".into()))?
            + END.len();
        if end > MAX_PEM {
            return Err(unreadable(format!("it is longer than {MAX_PEM} bytes")));
        }
        found.push(examine(&block[..end], number)?);
        if found.len() > MAX_COUNT {
            return Err(TrustError::TooMany);
        }
        rest = &block[end..];
    }
    if found.is_empty() {
        return Err(TrustError::Nothing);
    }
    Ok(found)
}

fn examine(block: &str, number: usize) -> Result<(Kept, u64), TrustError> {
    let unreadable = |error: x509_cert::der::Error| TrustError::Unreadable {
        number,
        why: error.to_string(),
    };
    let (_, der) =
        x509_cert::der::pem::decode_vec(block.as_bytes()).map_err(|error| unreadable(error.into()))?;
    let parsed = x509_cert::Certificate::from_der(&der).map_err(unreadable)?;
    let signed = parsed.tbs_certificate();
    let (subject, issuer) = (signed.subject().to_string(), signed.issuer().to_string());
    let authority = signed
        .get_extension::<BasicConstraints>()
        .map_err(unreadable)?
        .is_some_and(|(_, constraints)| constraints.ca);
    if !authority && subject != issuer {
        return Err(TrustError::NoAuthority { subject, issuer });
    }
    let last = signed.validity().not_after;
    let fingerprint = format!("{:x}", Sha256::digest(parsed.to_der().map_err(unreadable)?));
    let kept = Kept {
        certificate: Certificate {
            fingerprint,
            subject,
            expires: last.to_date_time().to_string(),
        },
        // Written anew, so that readers of other programs get what they expect, whatever stood around it.
        pem: parsed.to_pem(LineEnding::LF).map_err(unreadable)?,
    };
    Ok((kept, last.to_unix_duration().as_secs()))
}

#[cfg(test)]
mod tests;
