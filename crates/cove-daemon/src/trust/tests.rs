use super::*;
use proptest::prelude::*;
use rcgen::{BasicConstraints as Constraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(Constraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn store() -> (tempfile::TempDir, TrustStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = TrustStore::new(directory.path().join("certificates"));
    (directory, store)
}

#[test]
fn authorities_are_kept_listed_and_forgotten() {
    let (_directory, store) = store();
    let (one, two) = (authority("One").pem(), authority("Two").pem());
    let added = store
        .add(&format!("some words\n{one}\nand more\n{two}\n"))
        .unwrap();
    assert_eq!(added.len(), 2);
    assert_eq!(added[0].subject, "CN=One");
    assert_eq!(store.list().len(), 2);
    // The same again is no error, and no other.
    store.add(&one).unwrap();
    assert_eq!(store.pem().len(), 2);
    assert_eq!(store.remove(&added[0].fingerprint[..12]).unwrap(), added[0]);
    assert_eq!(store.list(), added[1..]);
    assert_eq!(store.pem(), [two.replace("\r\n", "\n")]);
}

#[test]
fn a_certificate_that_somebody_else_has_issued_is_refused_by_both_names() {
    let (_directory, store) = store();
    let issuer = authority("Issuer");
    let server = named("server")
        .signed_by(&KeyPair::generate().unwrap(), &issuer)
        .unwrap();
    let error = store.add(&server.pem()).unwrap_err().to_string();
    assert_eq!(
        error,
        "the certificate of `CN=server` is no authority's: `CN=Issuer` has issued it"
    );
    assert_eq!(store.list(), []);
}

#[test]
fn a_certificate_that_has_signed_itself_is_as_good_as_an_authoritys() {
    let (_directory, store) = store();
    let own = named("self").self_signed(&KeyPair::generate().unwrap()).unwrap();
    store.add(&own.pem()).unwrap();
    assert_eq!(store.list()[0].subject, "CN=self");
}

#[test]
fn one_that_has_expired_takes_the_others_with_it() {
    let (_directory, store) = store();
    let mut params = named("old");
    params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    let old = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let error = store.add(&(authority("new").pem() + &old)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate of `CN=old` has expired on 2001-02-03T00:00:00Z"
    );
    assert_eq!(store.list(), []);
}

#[test]
fn what_is_no_certificate_is_refused() {
    let (_directory, store) = store();
    assert!(matches!(store.add("hello"), Err(TrustError::Nothing)));
    for text in [
        BEGIN.to_owned(),
        format!("{BEGIN}\n{END}"),
        format!("{BEGIN}\nQUJD\n{END}"),
        format!("{BEGIN}\n{}\n{END}", "A".repeat(MAX_PEM)),
    ] {
        assert!(
            matches!(store.add(&text), Err(TrustError::Unreadable { number: 1, .. })),
            "{text:.40}"
        );
    }
}

#[test]
fn a_fingerprint_has_to_name_one() {
    let (_directory, store) = store();
    store.add(&authority("One").pem()).unwrap();
    assert!(matches!(store.remove("xyz"), Err(TrustError::Unknown(_))));
    assert!(matches!(store.remove(""), Err(TrustError::Ambiguous { .. })));
}

#[test]
fn files_that_hold_no_certificate_are_passed_over() {
    let (_directory, store) = store();
    let added = store.add(&authority("One").pem()).unwrap();
    fs::write(store.directory.join("junk.pem"), "junk").unwrap();
    fs::write(store.directory.join("note.txt"), "x").unwrap();
    assert_eq!(store.list(), added);
}

proptest! {
    #[test]
    fn nothing_that_a_file_holds_makes_it_panic(inside in ".*", body in "[A-Za-z0-9+/=\n]{0,400}") {
        let _ = parse(&format!("{inside}{BEGIN}\n{body}{inside}\n{END}{inside}"));
    }
}
