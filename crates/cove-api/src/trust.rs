//! What the API says of the authorities that the user trusts, besides those that the image brings.

use serde::{Deserialize, Serialize};

/// Certificates to be trusted from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCertificates {
    /// One or several, in PEM; text around them is ignored.
    pub pem: String,
}

/// A certificate that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// SHA-256 of its DER form, in lower-case hexadecimal digits.
    pub fingerprint: String,
    /// Whom it names, as RFC 4514 writes it.
    pub subject: String,
    /// Its last moment, as RFC 3339 writes it.
    pub expires: String,
}

/// Certificates, and what came of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// All of them, or those that the request was about.
    pub certificates: Vec<Certificate>,
    /// The running machines whose engine does not trust what it should.
    pub missing: Vec<MissingTrust>,
}

/// A machine whose engine runs with an earlier list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingTrust {
    /// The machine.
    pub machine: String,
    /// Why, for a person.
    pub why: String,
}
