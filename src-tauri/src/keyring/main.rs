//! `docker-credential-cove`: keeps passwords of registries in the session's keyring, for Docker's clients and for the
//! window, which find it on the path by this name. What is said to them is `cove_credentials::serve`'s.

#[cfg(target_os = "linux")]
mod secret_service;
#[cfg(all(test, target_os = "linux"))]
#[path = "../test_bus.rs"]
mod test_bus;

use cove_credentials::{Keychain, KeychainError, serve};
use std::{env, io, process::ExitCode};

fn main() -> ExitCode {
    let verb = env::args_os().nth(1).unwrap_or_default();
    if serve(
        &verb.to_string_lossy(),
        io::stdin().lock(),
        io::stdout().lock(),
        open,
    ) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[cfg(target_os = "linux")]
fn open() -> Result<Box<dyn Keychain>, KeychainError> {
    Ok(Box::new(secret_service::SecretService::connect()?))
}

#[cfg(not(target_os = "linux"))]
fn open() -> Result<Box<dyn Keychain>, KeychainError> {
    Err(KeychainError(
        "docker-credential-cove keeps passwords on Linux only; name this system's own helper in `credsStore`"
            .to_owned(),
    ))
}
