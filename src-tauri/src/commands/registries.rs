//! Registries: accounts that are the Docker client's as well, checked by the engine and kept by credential helpers.

use crate::{
    cove::Cove,
    failure::{Answer, Refusal},
    task::Report,
};
use cove_credentials::{
    Account, Accounts, Credentials, CredentialsError, HUB, Registries, Secret, bare, key_of_address,
    key_of_image, same_registry,
};
use cove_engine::{EngineError, Place};
use cove_view::{FailureKind, RegistriesView, RegistryRow, TaskStep};
use serde_json::json;
use std::sync::Arc;
use tauri::State;

/// The engine's header for somebody without an account: `{}`.
const NOBODY: &str = "e30=";
/// What `BuildKit` says before the name of an image that it cannot begin with.
const SOURCE: &str = "failed to resolve source metadata for ";
/// Signs in the engine's words that the registry said them, or that something on the way to it went wrong. The engine
/// gives no code with them, in the middle of a pull or a push not even a status.
const REGISTRY: &[&str] = &[
    // A request, as Go tells of it, and a connection.
    "get \"http",
    "head \"http",
    "post \"http",
    "put \"http",
    "patch \"http",
    "dial tcp",
    "read tcp",
    "write tcp",
    "net/http:",
    "x509:",
    "download failed after attempts=",
    "unexpected http status",
    "error parsing http ",
    // The codes of the distribution specification, as the engine writes them.
    "blob unknown",
    "blob upload",
    "digest invalid",
    "manifest invalid",
    "manifest unknown",
    "manifest unverified",
    "name invalid",
    "name unknown",
    "size invalid",
    "tag invalid",
    "toomanyrequests",
];
/// Longest address or name of a user, in bytes.
const LONGEST_NAME: usize = 1024;
/// Longest password, in bytes. Tokens of some registries are a kilobyte or two.
const LONGEST_SECRET: usize = 64 << 10;

/// The registries that somebody is signed in to.
#[tauri::command]
pub(crate) async fn registries() -> Answer<RegistriesView> {
    let registries = Registries::from_env()?;
    let Accounts {
        accounts,
        helper,
        problems,
    } = registries.list().await?;
    Ok(RegistriesView {
        file: registries.file().display().to_string(),
        rows: accounts.into_iter().map(row).collect(),
        helper,
        problems: problems
            .iter()
            .map(|error| Refusal::because(error, "").0.message)
            .collect(),
    })
}

fn row(account: Account) -> RegistryRow {
    let name = name_of(&account.key).to_owned();
    RegistryRow::new(account.key, name, account.user, account.helper, account.plain)
}

/// Signs in to a registry, Docker Hub where the address is empty: the engine asks it, and then a helper keeps the
/// password.
#[tauri::command]
pub(crate) async fn sign_in(
    cove: State<'_, Arc<Cove>>,
    address: String,
    user: String,
    password: Secret,
) -> Answer<()> {
    let key = key_of_address(&address).map_err(|error| {
        Refusal::because(
            &error,
            "Type a host, such as ghcr.io or registry.example.com:5000, or nothing for Docker Hub.",
        )
    })?;
    let user = user.trim();
    let secret = password.expose();
    if user.is_empty() || user.len() > LONGEST_NAME || secret.is_empty() || secret.len() > LONGEST_SECRET {
        return Err(Refusal::new(
            format!("a user and a password are needed to sign in to {}", name_of(&key)),
            "The password may be a token that the registry has given.",
        ));
    }
    let registries = Registries::from_env()?;
    let body = json!({"username": user, "password": secret, "serveraddress": key});
    let answer = cove.engine().post(&Place::of(&["auth"]), Some(&body)).await;
    let answer = answer.map_err(|error| {
        let hint = hint_of(&error);
        let refusal = Refusal::from(error).with_hint(hint);
        let kind = kind_of(&refusal);
        refusal.of(kind)
    })?;
    // Some registries give a token that is kept in the password's place.
    let credentials = match answer["IdentityToken"].as_str() {
        Some(token) if !token.is_empty() => Credentials::of_token(token),
        _ => Credentials::of(user, secret),
    };
    Ok(registries.keep(&key, &credentials).await?)
}

/// What somebody can do whose password could not be checked.
fn hint_of(error: &EngineError) -> &'static str {
    if error.is_away() {
        "Start the machine first: it checks the password."
    } else {
        "Check user and password, and that the machine reaches the registry."
    }
}

/// Signs out of a registry by the name that the list has it under.
#[tauri::command]
pub(crate) async fn sign_out(address: String) -> Answer<()> {
    if address.is_empty() || address.len() > LONGEST_NAME || address.contains(char::is_control) {
        return Err(Refusal::new(
            "this is not a registry of the list",
            "Choose one of it.",
        ));
    }
    Ok(Registries::from_env()?.forget(&address).await?)
}

/// The engine's header for the registry of an image, as the Docker client would make it. Where a helper does not
/// answer, that is told, and the engine asks as nobody: what anybody may have does not need it.
pub(super) async fn header_for(reference: &str, report: &Report) -> String {
    let key = key_of_image(reference);
    match credentials(key).await {
        Ok(Some(credentials)) => credentials.header(key),
        Ok(None) => NOBODY.to_owned(),
        Err(error) => {
            let Refusal(failure) = error.into();
            report.tell(TaskStep::Line {
                text: format!("Without an account at {}: {}", name_of(key), failure.message),
            });
            NOBODY.to_owned()
        }
    }
}

async fn credentials(key: &str) -> Result<Option<Credentials>, CredentialsError> {
    Registries::from_env()?.credentials(key).await
}

/// What a person reads of an image that could not be pulled or pushed, with the registry to sign in to where that may
/// help.
pub(super) fn refusal(verb: &str, reference: &str, error: &Refusal) -> Refusal {
    let key = key_of_image(reference);
    let message = format!("cannot {verb} {reference}: {}", error.0.message);
    let refusal = if wants_account(&error.0.message) {
        let hint = format!("Sign in to {}, with an account that may {verb} it.", name_of(key));
        Refusal::new(message, hint).at_registry(typed(key))
    } else if error.0.kind == Some(FailureKind::EngineAway) {
        Refusal::new(message, error.0.hint.as_str())
    } else {
        Refusal::new(
            message,
            "Check the image's name, and that the machine reaches the registry.",
        )
    };
    refusal.of(kind_of(error))
}

/// Of what kind a failure is that the engine told while it spoke with a registry: what that said, or the way there
/// was to blame for, the engine did not refuse.
fn kind_of(error: &Refusal) -> Option<FailureKind> {
    let message = &error.0.message;
    let of_registry = match error.0.kind {
        Some(FailureKind::EngineRefused) => wants_account(message) || tells_of_registry(message),
        // An image that there may well be, for others.
        Some(FailureKind::NotFound) => wants_account(message),
        _ => false,
    };
    if of_registry {
        Some(FailureKind::Registry)
    } else {
        error.0.kind
    }
}

fn tells_of_registry(message: &str) -> bool {
    let message = message.to_lowercase();
    REGISTRY.iter().any(|sign| message.contains(sign))
}

/// What a person reads of a build that failed, with the registry to sign in to where one of its images was refused for
/// want of an account.
pub(super) fn refusal_of_build(why: &str) -> Refusal {
    let refusal = Refusal::new(
        format!("the build failed: {why}"),
        "Its log shows what the failed step wrote.",
    );
    let image = why.split_once(SOURCE).map(|(_, rest)| rest);
    let image = image.map(|rest| rest.split_once(": ").map_or(rest, |(image, _)| image));
    match image {
        Some(image) if wants_account(why) => refusal.at_registry(typed(key_of_image(image))),
        _ => refusal,
    }
}

/// A registry's key as a person would type it.
fn typed(key: &str) -> &str {
    if key == HUB { "docker.io" } else { key }
}

/// Whether the engine's words say that the registry wants to know who asks, or does not let who asked.
fn wants_account(message: &str) -> bool {
    let message = message.to_lowercase();
    let registry = [
        "unauthorized",
        "no basic auth credentials",
        "authentication required",
        "docker login",
    ];
    registry.iter().any(|words| message.contains(words))
        // The engine says this of its own files.
        || (message.contains("denied") && !message.contains("permission denied"))
}

/// A registry as a person reads it.
fn name_of(key: &str) -> &str {
    if same_registry(key, HUB) {
        "Docker Hub"
    } else {
        bare(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_refuses_for_want_of_an_account_leads_to_signing_in() {
        for (image, words, registry) in [
            (
                "shop/api",
                "pull access denied for shop/api, repository does not exist or may require 'docker login': denied: \
                 requested access to the resource is denied",
                Some("docker.io"),
            ),
            (
                "r.example:5000/a:1",
                "no basic auth credentials",
                Some("r.example:5000"),
            ),
            (
                "ghcr.io/a/b",
                "Head \"https://ghcr.io/v2/a/b/manifests/latest\": unauthorized",
                Some("ghcr.io"),
            ),
            ("r.example/a", "manifest for r.example/a:latest not found", None),
            (
                "r.example/a",
                "open /var/lib/docker/tmp/x: permission denied",
                None,
            ),
        ] {
            let told = refusal("pull", image, &Refusal::new(words, ""));
            assert_eq!(told.0.registry.as_deref(), registry, "{words}");
            assert!(told.0.message.starts_with("cannot pull ") && told.0.message.ends_with(words));
        }
    }

    #[test]
    fn what_a_registry_or_the_way_there_is_to_blame_for_the_engine_did_not_refuse() {
        let refused = |status, message: &str| {
            Refusal::from(EngineError::Refused {
                status,
                message: message.to_owned(),
            })
        };
        for (status, message, kind) in [
            (
                500,
                "Get \"https://r.example/v2/\": dial tcp: lookup r.example: no such host",
                FailureKind::Registry,
            ),
            (
                500,
                "error pulling image configuration: download failed after attempts=6: unexpected EOF",
                FailureKind::Registry,
            ),
            (
                500,
                "toomanyrequests: You have reached your pull rate limit.",
                FailureKind::Registry,
            ),
            (
                500,
                "received unexpected HTTP status: 502 Bad Gateway",
                FailureKind::Registry,
            ),
            (
                500,
                "denied: requested access to the resource is denied",
                FailureKind::Registry,
            ),
            (
                404,
                "pull access denied for shop/api, repository does not exist or may require 'docker login'",
                FailureKind::Registry,
            ),
            (
                404,
                "manifest for r.example/a:latest not found: manifest unknown: manifest unknown",
                FailureKind::NotFound,
            ),
            (
                500,
                "failed to register layer: write /usr/lib/x: no space left on device",
                FailureKind::EngineRefused,
            ),
            (
                500,
                "open /var/lib/docker/tmp/x: permission denied",
                FailureKind::EngineRefused,
            ),
            (
                500,
                "tag does not exist: r.example/a:1",
                FailureKind::EngineRefused,
            ),
            (503, "the machine is stopped: dial tcp", FailureKind::EngineAway),
        ] {
            let told = refusal("pull", "r.example/a", &refused(status, message));
            assert_eq!(told.0.kind, Some(kind), "{message}");
        }
    }

    #[test]
    fn a_build_from_an_image_that_wants_an_account_leads_to_signing_in() {
        for (why, registry) in [
            (
                "failed to solve: r.example:5000/a:1: failed to resolve source metadata for r.example:5000/a:1: failed \
                 to authorize: failed to fetch anonymous token: 401 Unauthorized",
                Some("r.example:5000"),
            ),
            (
                "failed to solve: shop/api: failed to resolve source metadata for docker.io/shop/api:latest: pull \
                 access denied, repository does not exist or may require authorization",
                Some("docker.io"),
            ),
            (
                "failed to solve: r.example/a: failed to resolve source metadata for r.example/a: not found",
                None,
            ),
            ("failed to solve: process \"/bin/sh -c ls\" was denied", None),
        ] {
            let told = refusal_of_build(why);
            assert_eq!(told.0.registry.as_deref(), registry, "{why}");
            assert!(told.0.message.ends_with(why));
        }
    }

    #[test]
    fn without_a_machine_nobody_is_sent_to_look_at_their_password() {
        let away = EngineError::Unreachable {
            socket: "/x/docker.sock".into(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        assert!(hint_of(&away).starts_with("Start the machine"));
        let refused = |status| EngineError::Refused {
            status,
            message: "no".to_owned(),
        };
        // The gateway's word for a machine that is stopped.
        assert!(hint_of(&refused(503)).starts_with("Start the machine"));
        assert!(hint_of(&refused(401)).starts_with("Check user and password"));
        // Nor at the name of an image.
        let lost = refusal("pull", "alpine", &Refusal::from(refused(503)));
        assert_eq!(lost.0.kind, Some(FailureKind::EngineAway));
        assert_eq!(lost.0.hint, "");
    }

    #[test]
    fn docker_hub_has_one_name() {
        assert_eq!(name_of(HUB), "Docker Hub");
        assert_eq!(name_of("https://r.example/v1/"), "r.example");
    }
}
